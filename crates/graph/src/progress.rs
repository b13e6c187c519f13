//! What a build says while it runs: the vocabulary between the solver and every renderer, equal to BuildKit's
//! `client/graph.go`. Times are wall-clock; renderers consume these events and ask nothing else.

use std::time::SystemTime;

use rbuild_oci::Digest;

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A vertex appeared or changed state. The last one of a digest holds.
    Vertex(VertexState),
    /// Progress inside a vertex (a blob, a file sync, an export step).
    Status(VertexStatus),
    /// Output of a step.
    Log(VertexLog),
    /// A warning, tied to a vertex.
    Warning(Warning),
}

/// State of a vertex.
#[derive(Debug, Clone)]
pub struct VertexState {
    /// Which.
    pub digest: Digest,
    /// What it depends on.
    pub inputs: Vec<Digest>,
    /// Name shown; may hold text of the Dockerfile, so renderers escape it.
    pub name: String,
    /// When it began.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
    /// It came from the cache.
    pub cached: bool,
    /// Why it failed. Text that ends in `context canceled` means it was stopped, not that it failed.
    pub error: Option<String>,
    /// Why it was not in the cache, one line, when known.
    pub miss_cause: Option<String>,
    /// It is shown as part of a group.
    pub group: Option<ProgressGroup>,
}

/// Vertices shown as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressGroup {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Does not open the group by itself.
    pub weak: bool,
}

/// Progress inside a vertex.
#[derive(Debug, Clone)]
pub struct VertexStatus {
    /// Id inside the vertex, also its text (`sha256:… `, `transferring context:`).
    pub id: String,
    /// Vertex.
    pub vertex: Digest,
    /// Bytes or items so far.
    pub current: u64,
    /// Bytes or items in all; 0 if unknown.
    pub total: u64,
    /// When this was true.
    pub timestamp: SystemTime,
    /// When it began.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
}

/// Which stream a log line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Output of a step: raw bytes, not cut at lines.
#[derive(Debug, Clone)]
pub struct VertexLog {
    /// Vertex.
    pub vertex: Digest,
    /// Stream.
    pub stream: Stream,
    /// Bytes.
    pub data: Vec<u8>,
    /// When it was read.
    pub timestamp: SystemTime,
}

/// A warning.
#[derive(Debug, Clone)]
pub struct Warning {
    /// Vertex it belongs to.
    pub vertex: Digest,
    /// 1 is shown by default.
    pub level: u32,
    /// One line.
    pub short: String,
    /// More lines.
    pub detail: Vec<String>,
    /// Where to read more.
    pub url: String,
    /// File and 1-based lines it is about.
    pub location: Option<(String, Vec<(u32, u32)>)>,
}

/// Takes events. Cheap, and never blocks for long: a slow terminal must not slow a build.
pub trait Sink: Send + Sync {
    /// Takes one event.
    fn send(&self, event: Event);
}

/// Drops every event.
#[derive(Debug, Clone, Copy)]
pub struct NullSink;

impl Sink for NullSink {
    fn send(&self, _event: Event) {}
}
