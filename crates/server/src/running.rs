//! A build that runs: what Solve, Status and the gateway calls of one client share.

use std::sync::{Arc, OnceLock};

use rbuild_builder::job::Job;
use rbuild_builder::provenance::draft::Draft;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::events::EventLog;
use crate::forwarder::Forwarder;
use crate::resources::Resources;

/// Most containers that the front ends of a build have at once, themselves included: each is a tree of processes and mounts.
const CONTAINERS_MAX: usize = 32;

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
    /// What the front end in the client holds.
    pub forwarder: Arc<Forwarder>,
    /// How its results were made, once that is known, by their platforms: for `crate::attest::tell_history`.
    pub drafts: OnceLock<Vec<(Option<String>, Draft)>>,
    /// One for each container there may be.
    pub containers: Arc<Semaphore>,
    /// What its operations may use.
    pub resources: Resources,
}

impl Running {
    /// A build.
    #[must_use]
    pub fn new(
        id: String,
        events: Arc<EventLog>,
        cancel: CancellationToken,
        job: Arc<Job>,
        session: String,
        forwarder: Arc<Forwarder>,
    ) -> Self {
        Self {
            id,
            events,
            cancel,
            job,
            session,
            forwarder,
            drafts: OnceLock::new(),
            containers: Arc::new(Semaphore::new(CONTAINERS_MAX)),
            resources: Resources::default(),
        }
    }
}
