//! Events for tests, made from short words, and a writer whose bytes can be read back. Times are seconds since 1970.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rbuild_graph::progress::{Event, ProgressGroup, Stream, VertexLog, VertexState, VertexStatus, Warning};
use rbuild_oci::Digest;

pub(super) fn at(seconds: f64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + (seconds * 1000.0).round() as u64)
}

pub(super) fn digest(name: &str) -> Digest {
    Digest::sha256(name.as_bytes())
}

/// A vertex under construction; its name is also its identity.
#[derive(Clone)]
pub(super) struct V(VertexState);

pub(super) fn vertex(name: &str) -> V {
    V(VertexState {
        digest: digest(name),
        inputs: Vec::new(),
        name: name.to_owned(),
        started: None,
        completed: None,
        cached: false,
        error: None,
        miss_cause: None,
        group: None,
    })
}

impl V {
    pub(super) fn from(mut self, seconds: f64) -> Self {
        self.0.started = Some(at(seconds));
        self
    }

    pub(super) fn to(mut self, seconds: f64) -> Self {
        self.0.completed = Some(at(seconds));
        self
    }

    pub(super) fn cached(mut self) -> Self {
        self.0.cached = true;
        self
    }

    pub(super) fn error(mut self, text: &str) -> Self {
        self.0.error = Some(text.to_owned());
        self
    }

    pub(super) fn missed(mut self, cause: &str) -> Self {
        self.0.miss_cause = Some(cause.to_owned());
        self
    }

    pub(super) fn group(mut self, id: &str, name: &str, weak: bool) -> Self {
        self.0.group = Some(ProgressGroup {
            id: id.to_owned(),
            name: name.to_owned(),
            weak,
        });
        self
    }

    pub(super) fn event(self) -> Event {
        Event::Vertex(self.0)
    }
}

pub(super) fn log(vertex: &str, seconds: f64, data: &str) -> Event {
    log_bytes(vertex, seconds, data.as_bytes())
}

pub(super) fn log_bytes(vertex: &str, seconds: f64, data: &[u8]) -> Event {
    Event::Log(VertexLog {
        vertex: digest(vertex),
        stream: Stream::Stdout,
        data: data.to_vec(),
        timestamp: at(seconds),
    })
}

pub(super) fn warn(vertex: &str, short: &str) -> Event {
    Event::Warning(Warning {
        vertex: digest(vertex),
        level: 1,
        short: short.to_owned(),
        detail: Vec::new(),
        url: String::new(),
        location: None,
    })
}

/// A status that began at `start`, seen at `now`, and ended then if `done`.
pub(super) fn status(
    vertex: &str,
    id: &str,
    (current, total): (u64, u64),
    start: f64,
    now: f64,
    done: bool,
) -> Event {
    Event::Status(VertexStatus {
        id: id.to_owned(),
        vertex: digest(vertex),
        current,
        total,
        timestamp: at(now),
        started: Some(at(start)),
        completed: done.then(|| at(now)),
    })
}

/// A writer that is read by the test.
#[derive(Clone, Default)]
pub(super) struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// What was written since the last call.
    pub(super) fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
