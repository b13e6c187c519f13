//! A table of the steps of a build, for the end of it: how long each took, whether it came from the cache, how many bytes it moved.
//! Listens to the same events as the view, and holds nothing up.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rbuild_graph::progress::{Event, Sink, VertexState, VertexStatus};
use rbuild_oci::Digest;

use crate::table::Table;
use crate::units::human_size;

/// What is known of one step.
#[derive(Debug, Default)]
struct Step {
    name: String,
    started: Option<SystemTime>,
    took: Duration,
    is_done: bool,
    is_cached: bool,
    has_failed: bool,
    /// The most that each of its statuses came to.
    bytes: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Seen {
    order: Vec<Digest>,
    steps: HashMap<Digest, Step>,
}

/// Hands events on, and remembers what the table needs of them.
pub struct Steps {
    next: Arc<dyn Sink>,
    seen: Mutex<Seen>,
}

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steps")
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl Sink for Steps {
    fn send(&self, event: Event) {
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            match &event {
                Event::Vertex(state) => seen.vertex(state),
                Event::Status(status) => seen.status(status),
                Event::Log(_) | Event::Warning(_) => {}
            }
        }
        self.next.send(event);
    }
}

impl Seen {
    fn step(&mut self, digest: &Digest) -> &mut Step {
        if !self.steps.contains_key(digest) {
            self.order.push(digest.clone());
        }
        self.steps.entry(digest.clone()).or_default()
    }

    fn vertex(&mut self, state: &VertexState) {
        let step = self.step(&state.digest);
        step.name.clone_from(&state.name);
        step.is_cached |= state.cached;
        step.has_failed |= state.error.is_some();
        step.started = step.started.or(state.started);
        if let (Some(started), Some(completed)) = (state.started, state.completed) {
            step.is_done = true;
            step.took = completed.duration_since(started).unwrap_or_default();
        }
    }

    fn status(&mut self, status: &VertexStatus) {
        // Statuses without a total count no bytes but say that something is being done.
        let bytes = if status.total > 0 {
            status.current.min(status.total)
        } else {
            status.current
        };
        let known = self
            .step(&status.vertex)
            .bytes
            .entry(status.id.clone())
            .or_default();
        *known = bytes.max(*known);
    }
}

impl Steps {
    /// Listens to what is sent to `next`.
    #[must_use]
    pub fn new(next: Arc<dyn Sink>) -> Self {
        Self {
            next,
            seen: Mutex::default(),
        }
    }

    /// Writes the table: steps as they began, those that never did left out.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut steps: Vec<&Step> = seen
            .order
            .iter()
            .filter_map(|digest| seen.steps.get(digest))
            .collect();
        steps.retain(|step| step.started.is_some() || step.is_cached);
        let mut table = Table::new(&["TIME", "CACHED", "BYTES", "STEP"]);
        for step in &steps {
            let bytes: u64 = step.bytes.values().sum();
            let how = match (step.has_failed, step.is_done || step.is_cached) {
                (true, _) => " (failed)",
                (false, false) => " (stopped)",
                (false, true) => "",
            };
            table.row([
                format!("{:.1}s", step.took.as_secs_f64()),
                if step.is_cached { "yes" } else { "no" }.to_owned(),
                if bytes == 0 {
                    "-".to_owned()
                } else {
                    human_size(bytes)
                },
                format!("{}{how}", step.name),
            ]);
        }
        table.write(out)?;
        let cached = steps.iter().filter(|step| step.is_cached).count();
        writeln!(out, "{} steps, {cached} cached", steps.len())
    }
}

#[cfg(test)]
mod tests {
    use rbuild_graph::progress::NullSink;

    use super::*;
    use crate::progress::testing;

    fn vertex(name: &str, times: Option<(u64, Option<u64>)>, cached: bool, error: Option<&str>) -> Event {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Event::Vertex(VertexState {
            digest: Digest::sha256(name.as_bytes()),
            inputs: Vec::new(),
            name: name.to_owned(),
            started: times.map(|(started, _)| at(started)),
            completed: times.and_then(|(_, completed)| completed).map(at),
            cached,
            error: error.map(str::to_owned),
            miss_cause: None,
            group: None,
        })
    }

    fn status(name: &str, id: &str, current: u64, total: u64) -> Event {
        testing::status(name, id, (current, total), 0.0, 0.0, false)
    }

    #[test]
    fn steps_are_listed_as_they_began_with_what_they_moved() {
        let steps = Steps::new(Arc::new(NullSink));
        for event in [
            vertex("never", None, false, None),
            vertex("a", Some((1, None)), false, None),
            status("a", "layer", 1000, 2000),
            status("a", "layer", 2000, 2000),
            status("a", "other", 500, 0),
            vertex("a", Some((1, Some(3))), false, None),
            vertex("b\u{1b}[2J", Some((3, Some(3))), true, None),
            vertex("c", Some((3, Some(4))), false, Some("boom")),
            vertex("d", Some((4, None)), false, None),
        ] {
            steps.send(event);
        }
        let mut out = Vec::new();
        steps.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "2.0s   no       2.5kB   a", "{text}");
        assert!(lines[2].starts_with("0.0s   yes      -       b"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert_eq!(lines[3], "1.0s   no       -       c (failed)", "{text}");
        assert_eq!(lines[4], "0.0s   no       -       d (stopped)", "{text}");
        assert_eq!(lines[5], "4 steps, 1 cached", "{text}");
    }
}
