//! A build that runs: what Solve, Status and the gateway calls of one client share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::pb;
use rbuild_builder::job::Job;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::answer::{Answer, BuildRef};
use crate::events::EventLog;

/// Most file systems that a client may hold of one build.
const REFS_MAX: usize = 10_000;

/// What the client's own front end returned.
pub type Returned = Result<Answer, Status>;

/// A build that runs.
#[derive(Debug)]
pub struct Running {
    /// The client's id for it.
    pub id: String,
    /// What it says.
    pub events: Arc<EventLog>,
    /// Stops it.
    pub cancel: CancellationToken,
    /// What all its graphs share.
    pub job: Arc<Job>,
    /// The client's session.
    pub session: String,
    /// Definitions the client gives its front end.
    pub inputs: HashMap<String, pb::Definition>,
    refs: Mutex<HashMap<String, Arc<BuildRef>>>,
    next_ref: AtomicU64,
    returned: Mutex<Option<oneshot::Sender<Returned>>>,
}

impl Running {
    /// A build, and where the return value of the client's front end will arrive.
    #[must_use]
    pub fn new(
        id: String,
        events: Arc<EventLog>,
        cancel: CancellationToken,
        job: Arc<Job>,
        session: String,
        inputs: HashMap<String, pb::Definition>,
    ) -> (Self, oneshot::Receiver<Returned>) {
        let (returned, receiver) = oneshot::channel();
        let running = Self {
            id,
            events,
            cancel,
            job,
            session,
            inputs,
            refs: Mutex::default(),
            next_ref: AtomicU64::new(0),
            returned: Mutex::new(Some(returned)),
        };
        (running, receiver)
    }

    /// Gives the client an id for a file system.
    ///
    /// # Errors
    /// `resource_exhausted` when it holds too many.
    pub fn keep(&self, found: &Arc<BuildRef>) -> Result<String, Status> {
        let number = self.next_ref.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", self.id);
        let mut refs = self.refs.lock().unwrap_or_else(PoisonError::into_inner);
        if refs.len() >= REFS_MAX {
            return Err(Status::resource_exhausted(
                "too many results are held by this build",
            ));
        }
        refs.insert(id.clone(), Arc::clone(found));
        Ok(id)
    }

    /// The file system of an id; the empty id is an empty one.
    ///
    /// # Errors
    /// `not_found` for an id that was not given out.
    pub fn find(&self, id: &str) -> Result<Option<Arc<BuildRef>>, Status> {
        if id.is_empty() {
            return Ok(None);
        }
        let refs = self.refs.lock().unwrap_or_else(PoisonError::into_inner);
        let found = refs.get(id).cloned();
        found
            .map(Some)
            .ok_or_else(|| Status::not_found(format!("no such ref: {id}")))
    }

    /// Takes what the client's front end returns; the first one counts.
    pub fn take_return(&self, returned: Returned) {
        let sender = self
            .returned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(sender) = sender {
            // Nobody waits any more when the build was stopped.
            sender.send(returned).ok();
        }
    }
}
