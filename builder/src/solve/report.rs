//! Turns what the solver does into progress events: one place that knows which event follows which.

use std::sync::Arc;
use std::time::SystemTime;

use rbuild_graph::progress::{
    Event, ProgressGroup, Sink, Stream, VertexLog, VertexState, VertexStatus, Warning,
};
use rbuild_graph::{Vertex, VertexDigest};
use rbuild_oci::Digest;

/// Text that ends a vertex stopped by somebody else's failure or by the user, as BuildKit words it.
pub const CANCELED: &str = "context canceled";

/// Speaks for one vertex.
#[derive(Clone)]
pub struct Reporter {
    sink: Arc<dyn Sink>,
    digest: Digest,
    inputs: Vec<Digest>,
    name: Arc<str>,
    group: Option<ProgressGroup>,
    started: Option<SystemTime>,
    running: bool,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Reporter {
    /// A reporter for a vertex of the graph.
    #[must_use]
    pub fn of(sink: &Arc<dyn Sink>, digest: &VertexDigest, vertex: &Vertex) -> Self {
        Self {
            sink: Arc::clone(sink),
            digest: digest.0.clone(),
            inputs: vertex.inputs.iter().map(|edge| edge.vertex.0.clone()).collect(),
            name: vertex.meta.name.as_str().into(),
            group: vertex.meta.progress_group.clone(),
            started: None,
            running: false,
        }
    }

    /// A reporter for work that is no vertex of the graph (loading, resolving, exporting).
    #[must_use]
    pub fn internal(sink: &Arc<dyn Sink>, name: &str) -> Self {
        // The time makes two pieces of work of one name two vertices, as BuildKit's random ids do.
        let unique = format!("{name}\0{:?}", SystemTime::now());
        Self {
            sink: Arc::clone(sink),
            digest: Digest::sha256(unique.as_bytes()),
            inputs: Vec::new(),
            name: name.into(),
            group: None,
            started: None,
            running: false,
        }
    }

    /// The work begins.
    pub fn start(&mut self, miss_cause: Option<String>) {
        self.begin();
        self.state(None, false, None, miss_cause);
    }

    /// The result came from the cache.
    pub fn cached(&mut self) {
        self.end();
        self.state(Some(SystemTime::now()), true, None, None);
    }

    /// The work is done.
    pub fn done(&mut self) {
        self.end();
        self.state(Some(SystemTime::now()), false, None, None);
    }

    /// The work failed.
    pub fn failed(&mut self, error: String) {
        self.end();
        self.state(Some(SystemTime::now()), false, Some(error), None);
    }

    /// The work was stopped.
    pub fn canceled(&mut self) {
        self.failed(CANCELED.to_owned());
    }

    /// Whether it began and has not ended. A source can begin twice: to look what there is, and to bring it.
    #[must_use]
    pub(crate) const fn is_running(&self) -> bool {
        self.running
    }

    /// Whether it ever began.
    #[must_use]
    pub(crate) const fn has_begun(&self) -> bool {
        self.started.is_some()
    }

    fn begin(&mut self) {
        self.started = Some(SystemTime::now());
        self.running = true;
    }

    /// What ends without having begun took no time.
    fn end(&mut self) {
        if !self.running {
            self.begin();
        }
        self.running = false;
    }

    /// Progress of one thing inside the vertex.
    pub fn status(&self, id: &str, current: u64, total: u64, started: SystemTime, completed: bool) {
        let now = SystemTime::now();
        self.sink.send(Event::Status(VertexStatus {
            id: id.to_owned(),
            vertex: self.digest.clone(),
            current,
            total,
            timestamp: now,
            started: Some(started),
            completed: completed.then_some(now),
        }));
    }

    /// A status that has no size: it begins now, and the returned guard ends it.
    #[must_use]
    pub fn step(&self, id: &str) -> Step<'_> {
        let started = SystemTime::now();
        self.status(id, 0, 0, started, false);
        Step {
            reporter: self,
            id: id.to_owned(),
            started,
        }
    }

    /// Output of a step.
    pub fn log(&self, stream: Stream, data: Vec<u8>) {
        self.sink.send(Event::Log(VertexLog {
            vertex: self.digest.clone(),
            stream,
            data,
            timestamp: SystemTime::now(),
        }));
    }

    /// A warning of this vertex.
    pub fn warn(
        &self,
        short: String,
        detail: Vec<String>,
        url: String,
        location: Option<(String, Vec<(u32, u32)>)>,
    ) {
        let vertex = self.digest.clone();
        self.sink.send(Event::Warning(Warning {
            vertex,
            level: 1,
            short,
            detail,
            url,
            location,
        }));
    }

    fn state(
        &self,
        completed: Option<SystemTime>,
        cached: bool,
        error: Option<String>,
        miss_cause: Option<String>,
    ) {
        self.sink.send(Event::Vertex(VertexState {
            digest: self.digest.clone(),
            inputs: self.inputs.clone(),
            name: self.name.to_string(),
            started: self.started,
            completed,
            cached,
            error,
            miss_cause,
            group: self.group.clone(),
        }));
    }
}

/// A running status; ends when dropped.
#[derive(Debug)]
pub struct Step<'a> {
    reporter: &'a Reporter,
    id: String,
    started: SystemTime,
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.reporter.status(&self.id, 0, 0, self.started, true);
    }
}
