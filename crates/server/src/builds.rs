//! The builds that are running, by the id their client chose. A client calls Solve, Status and the gateway at the same
//! time and in any order, so whoever looks a build up waits a little for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::running::Running;

/// How long a build is waited for (`solver/jobs.go`, `Get`).
const WAIT: Duration = Duration::from_secs(6);
/// Most builds at once: each holds a lease and open files.
const BUILDS_MAX: usize = 1024;
/// How many refused builds are known, and bytes of an id of theirs (clients choose 25).
const REFUSED_MAX: usize = 256;
const REFUSED_ID_BYTES_MAX: usize = 128;

/// Why there is no build of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildsError {
    /// None appeared in time.
    #[error("no such job {0}")]
    Unknown(String),
    /// It was refused before it began: there is nothing to wait for.
    #[error("job {0} was refused")]
    Refused(String),
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
    /// Ids, the newest last.
    refused: Mutex<VecDeque<String>>,
    /// Something was added or refused.
    changed: Notify,
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

    fn refused(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.refused().retain(|refused| *refused != id);
        self.changed.notify_waiters();
        Ok(Listed { builds: self, id })
    }

    /// Tells those who wait for a build that it will not come, now or soon.
    pub(crate) fn refuse(&self, id: &str) {
        if id.len() > REFUSED_ID_BYTES_MAX {
            return;
        }
        {
            let mut refused = self.refused();
            if refused.len() == REFUSED_MAX {
                refused.pop_front();
            }
            refused.push_back(id.to_owned());
        }
        self.changed.notify_waiters();
    }

    /// The build of an id, waited for if it is not there yet.
    ///
    /// # Errors
    /// [`BuildsError::Unknown`], [`BuildsError::Refused`].
    pub async fn get(&self, id: &str) -> Result<Arc<Running>, BuildsError> {
        let found = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                // Registered before the look, so that nothing is missed in between.
                changed.as_mut().enable();
                if let Some(running) = self.lock().get(id).cloned() {
                    return Ok(running);
                }
                if self.refused().iter().any(|refused| refused == id) {
                    return Err(BuildsError::Refused(id.to_owned()));
                }
                changed.await;
            }
        };
        tokio::time::timeout(WAIT, found)
            .await
            .unwrap_or_else(|_elapsed| Err(BuildsError::Unknown(id.to_owned())))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_refused_builds_only_the_last_are_known_and_none_with_a_long_name() {
        let builds = Builds::default();
        for number in 0..10_000 {
            builds.refuse(&number.to_string());
        }
        builds.refuse(&"x".repeat(REFUSED_ID_BYTES_MAX + 1));
        let kept: Vec<String> = builds.refused().iter().cloned().collect();
        assert_eq!(kept.len(), REFUSED_MAX);
        assert_eq!(kept.last().map(String::as_str), Some("9999"));
        let found = builds.get("9999").await.map(|_| ());
        assert_eq!(found, Err(BuildsError::Refused("9999".to_owned())));
    }
}
