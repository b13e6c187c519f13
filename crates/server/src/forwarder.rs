//! What one front end holds of a build: the file systems it was given ids for, its containers, and where its answer goes
//! (`frontend/gateway`, `llbBridgeForwarder`). A build has one for the front end that may run in its client, and one for
//! each front end that is an image.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::pb;
use tokio::sync::oneshot;
use tonic::Status;

use crate::answer::{Answer, BuildRef};
use crate::container::Containers;
use crate::scope::Scope;

/// Most file systems that a front end may hold of one build.
const REFS_MAX: usize = 10_000;

/// What a front end returned.
pub type Returned = Result<Answer, Status>;

/// What one front end holds.
#[derive(Debug)]
pub struct Forwarder {
    /// Definitions it is given.
    pub inputs: HashMap<String, pb::Definition>,
    /// Its containers.
    pub containers: Containers,
    /// What it asks for.
    pub scope: Arc<Scope>,
    /// How many front ends stand between it and the request.
    pub depth: usize,
    /// Begins the ids of what it holds.
    prefix: String,
    refs: Mutex<HashMap<String, Arc<BuildRef>>>,
    next_ref: AtomicU64,
    returned: Mutex<Option<oneshot::Sender<Returned>>>,
}

impl Forwarder {
    /// For a front end that is given `inputs`, and where its answer will arrive.
    #[must_use]
    pub fn new(
        prefix: String,
        mut inputs: HashMap<String, pb::Definition>,
        depth: usize,
        scope: Arc<Scope>,
    ) -> (Self, oneshot::Receiver<Returned>) {
        inputs.values_mut().for_each(rbuild_llb::sendable);
        let (returned, receiver) = oneshot::channel();
        let forwarder = Self {
            inputs,
            containers: Containers::default(),
            scope,
            depth,
            prefix,
            refs: Mutex::default(),
            next_ref: AtomicU64::new(0),
            returned: Mutex::new(Some(returned)),
        };
        (forwarder, receiver)
    }

    /// A number that nothing else of this front end has.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next_ref.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives the front end an id for a file system.
    ///
    /// # Errors
    /// `resource_exhausted` when it holds too many.
    pub fn keep(&self, found: &Arc<BuildRef>) -> Result<String, Status> {
        let number = self.next_number();
        let id = format!("{}-{number}", self.prefix);
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

    /// Takes what the front end returns; the first one counts.
    ///
    /// # Errors
    /// `failed_precondition` for a second one.
    pub(crate) fn take_return(&self, returned: Returned) -> Result<(), Status> {
        let sender = self
            .returned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let sender = sender.ok_or_else(|| Status::failed_precondition("gateway result is already set"))?;
        // Nobody waits any more when the build was stopped.
        sender.send(returned).ok();
        Ok(())
    }
}
