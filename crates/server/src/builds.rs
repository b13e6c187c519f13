//! The builds that are running, by the id their client chose. A client calls Solve, Status and the gateway at the same
//! time and in any order, so whoever looks a build up waits a little for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::running::Running;

/// How long a build is waited for (`solver/jobs.go`, `Get`).
const WAIT: Duration = Duration::from_secs(6);
/// Most builds at once: each holds a lease and open files.
const BUILDS_MAX: usize = 1024;

/// Why there is no build of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildsError {
    /// None appeared in time.
    #[error("no such job {0}")]
    Unknown(String),
    /// The id is taken.
    #[error("job ID {0} exists")]
    Exists(String),
    /// Too many run.
    #[error("more than {BUILDS_MAX} builds at once")]
    TooMany,
}

/// All running builds.
#[derive(Debug, Default)]
pub struct Builds {
    running: Mutex<HashMap<String, Arc<Running>>>,
    added: Notify,
    ended: Notify,
}

/// Takes a build off the list when it is over.
#[derive(Debug)]
pub struct Listed<'a> {
    builds: &'a Builds,
    id: String,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let removed = self.builds.lock().remove(&self.id);
        if let Some(running) = removed {
            running.cancel.cancel();
            running.events.close();
        }
        self.builds.ended.notify_one();
    }
}

impl Builds {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists a build until the guard is dropped.
    ///
    /// # Errors
    /// [`BuildsError::Exists`], [`BuildsError::TooMany`].
    pub fn add(&self, running: Arc<Running>) -> Result<Listed<'_>, BuildsError> {
        let id = running.id.clone();
        {
            let mut all = self.lock();
            if all.len() >= BUILDS_MAX {
                return Err(BuildsError::TooMany);
            }
            if all.contains_key(&id) {
                return Err(BuildsError::Exists(id));
            }
            all.insert(id.clone(), running);
        }
        self.added.notify_waiters();
        Ok(Listed { builds: self, id })
    }

    /// The build of an id, waited for if it is not there yet.
    ///
    /// # Errors
    /// [`BuildsError::Unknown`].
    pub async fn get(&self, id: &str) -> Result<Arc<Running>, BuildsError> {
        let found = async {
            loop {
                let added = self.added.notified();
                tokio::pin!(added);
                // Registered before the look, so that nothing is missed in between.
                added.as_mut().enable();
                if let Some(running) = self.lock().get(id).cloned() {
                    return running;
                }
                added.await;
            }
        };
        tokio::time::timeout(WAIT, found)
            .await
            .map_err(|_elapsed| BuildsError::Unknown(id.to_owned()))
    }

    /// Waits for the end of a build, unless one ended since this was waited for.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Stops every build.
    pub(crate) fn cancel_all(&self) {
        for running in self.lock().values() {
            running.cancel.cancel();
        }
    }

    /// How many run.
    pub fn count(&self) -> usize {
        self.lock().len()
    }
}
