//! The live sessions by id (`session/manager.go`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::session::Session;

/// All live sessions of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    live: Mutex<HashMap<String, Session>>,
    max: usize,
    /// Counts arrivals, for those who wait for one.
    arrivals: watch::Sender<u64>,
}

/// Why there is no such session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GetError {
    /// None with this id appeared in time.
    #[error("no active session for {id}")]
    NotFound {
        /// The id asked for.
        id: String,
    },
}

/// Why a session was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// One with this id is live.
    Exists,
    /// There are as many as may be.
    Full,
}

impl Sessions {
    /// A registry for at most `max` live sessions.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Registry {
            live: Mutex::default(),
            max,
            arrivals: watch::Sender::new(0),
        }))
    }

    /// The session with this id, waiting at most `timeout` for it to appear: a client opens its session and asks for
    /// a build at the same time. What stands before a colon is not part of the id (`session/manager.go`, `Get`).
    ///
    /// # Errors
    /// [`GetError::NotFound`].
    pub async fn get(&self, id: &str, timeout: Duration) -> Result<Session, GetError> {
        let wanted = bare_id(id);
        let mut arrivals = self.0.arrivals.subscribe();
        let wait = async {
            loop {
                if let Some(session) = self.find(wanted) {
                    return Some(session);
                }
                arrivals.changed().await.ok()?;
            }
        };
        let found = tokio::time::timeout(timeout, wait).await.ok().flatten();
        found.ok_or_else(|| GetError::NotFound {
            id: wanted.to_owned(),
        })
    }

    /// The session with this id, if it is there now.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<Session> {
        let live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.get(bare_id(id)).filter(|s| !s.is_closed()).cloned()
    }

    /// Number of live sessions.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Ends all sessions.
    pub fn close_all(&self) {
        let live: Vec<Session> = {
            let mut map = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
            map.drain().map(|(_, session)| session).collect()
        };
        for session in live {
            session.close();
        }
    }

    pub(crate) fn admit(&self, session: &Session) -> Result<(), Rejection> {
        let mut live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.get(session.id()).is_some_and(|s| !s.is_closed()) {
            return Err(Rejection::Exists);
        }
        if live.len() >= self.0.max {
            return Err(Rejection::Full);
        }
        live.insert(session.id().to_owned(), session.clone());
        drop(live);
        self.0.arrivals.send_modify(|count| *count += 1);
        Ok(())
    }

    pub(crate) fn forget(&self, session: &Session) {
        let mut live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.get(session.id()).is_some_and(|s| s.is(session)) {
            live.remove(session.id());
        }
    }
}

fn bare_id(id: &str) -> &str {
    match id.split_once(':') {
        Some((_, rest)) if !rest.is_empty() => rest,
        _ => id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_not_part_of_the_id() {
        assert_eq!(bare_id("input:abc"), "abc");
        assert_eq!(bare_id("abc"), "abc");
        assert_eq!(bare_id("abc:"), "abc:");
    }
}
