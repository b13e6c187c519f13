//! What a build says while it runs, kept for every client that asks: `Control/Status` may be called before the build
//! begins, in the middle of it or several times, and each caller gets all of it from the start.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bollard_buildkit_proto::moby::buildkit::v1::StatusResponse;
use rbuild_graph::SourceText;
use rbuild_graph::progress::{Event, Sink};
use rbuild_llb::ClientDigests;
use rbuild_llb::progress::StatusWriter;
use tokio::sync::watch;

/// Bytes of step output kept for callers that come late. Older output is dropped first; nothing else is.
const LOG_BYTES_MAX: usize = 16 << 20;
/// What a piece of output takes beside its bytes, of which a step may write one at a time.
const PIECE_BYTES: usize = 256;
/// Vertices that are called by the client's digests, and bytes of texts that warnings are sent with.
const VERTICES_MAX: usize = 1_000_000;
const TEXT_BYTES_MAX: usize = 8 << 20;
/// Events handed over at once.
const BATCH_MAX: usize = 1000;

/// The events of one build.
#[derive(Debug)]
pub struct EventLog {
    state: Mutex<State>,
    /// What the client calls vertices and texts.
    names: Mutex<Names>,
    /// Number of events ever sent, and whether there will be more.
    progress: watch::Sender<(u64, bool)>,
}

#[derive(Debug, Default)]
struct Names {
    writer: StatusWriter,
    vertices: usize,
    text_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<(u64, Event)>,
    /// Output, by the same numbers.
    logs: VecDeque<(u64, Event)>,
    next: u64,
    log_bytes: usize,
}

impl State {
    /// Everything from number `from` on, in order.
    fn since(&self, from: u64) -> impl Iterator<Item = &(u64, Event)> {
        let rest = |events| -> std::collections::vec_deque::Iter<'_, (u64, Event)> {
            let events: &VecDeque<(u64, Event)> = events;
            events.range(events.partition_point(|(number, _)| *number < from)..)
        };
        let (mut events, mut logs) = (rest(&self.events).peekable(), rest(&self.logs).peekable());
        std::iter::from_fn(move || {
            let log_is_first = match (events.peek(), logs.peek()) {
                (Some((event, _)), Some((log, _))) => log < event,
                (event, _) => event.is_none(),
            };
            if log_is_first { logs.next() } else { events.next() }
        })
    }
}

impl Default for EventLog {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            names: Mutex::default(),
            progress: watch::Sender::new((0, false)),
        }
    }
}

impl EventLog {
    /// Vertices of a client's definition are called by the client's digests from now on. Those that come after a great
    /// many keep our own.
    pub fn name_vertices(&self, digests: &ClientDigests) {
        let mut names = self.lock_names();
        names.vertices += digests.iter().count();
        if names.vertices <= VERTICES_MAX {
            names.writer.name_vertices(digests);
        }
    }

    /// Warnings about a text are sent with it from now on, unless there are too many texts already.
    pub fn add_source(&self, text: &SourceText) {
        let mut names = self.lock_names();
        names.text_bytes += text.filename.len() + text.text.len();
        if names.text_bytes <= TEXT_BYTES_MAX {
            names.writer.add_source(text);
        }
    }

    /// Events as the client gets them.
    pub fn responses(&self, events: impl IntoIterator<Item = Event>) -> Vec<StatusResponse> {
        self.lock_names().writer.responses(events)
    }

    fn lock_names(&self) -> std::sync::MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more events will come.
    pub fn close(&self) {
        self.progress.send_modify(|progress| progress.1 = true);
    }

    /// The events from number `from` on, waiting for the first of them; and the number to go on with. `None` when
    /// there are no more.
    pub async fn next(&self, from: u64) -> Option<(Vec<Event>, u64)> {
        let mut progress = self.progress.subscribe();
        // The sender is a field of this very log.
        let _seen = progress
            .wait_for(|(count, closed)| *count > from || *closed)
            .await;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let batch: Vec<&(u64, Event)> = state.since(from).take(BATCH_MAX).collect();
        let next = batch.last().map(|(number, _)| number + 1)?;
        Some((batch.into_iter().map(|(_, event)| event.clone()).collect(), next))
    }

    /// Every event that is still kept.
    pub fn all(&self) -> Vec<Event> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.since(0).map(|(_, event)| event.clone()).collect()
    }
}

impl Sink for EventLog {
    fn send(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.next;
        state.next += 1;
        match log_bytes(&event) {
            None => state.events.push_back((number, event)),
            Some(bytes) => {
                state.log_bytes += bytes;
                state.logs.push_back((number, event));
            }
        }
        while state.log_bytes > LOG_BYTES_MAX {
            let Some((_, dropped)) = state.logs.pop_front() else {
                break;
            };
            state.log_bytes -= log_bytes(&dropped).unwrap_or_default();
        }
        drop(state);
        self.progress.send_modify(|progress| progress.0 = number + 1);
    }
}

/// Memory that a piece of output takes.
fn log_bytes(event: &Event) -> Option<usize> {
    match event {
        Event::Log(log) => Some(PIECE_BYTES + log.data.len()),
        Event::Vertex(_) | Event::Status(_) | Event::Warning(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_graph::progress::{Stream, VertexLog};
    use rbuild_oci::Digest;
    use std::time::SystemTime;

    fn log(bytes: usize) -> Event {
        Event::Log(VertexLog {
            vertex: Digest::sha256(b"v"),
            stream: Stream::Stdout,
            data: vec![b'x'; bytes],
            timestamp: SystemTime::UNIX_EPOCH,
        })
    }

    #[tokio::test]
    async fn every_reader_gets_all_of_it_and_then_the_end() {
        let events = EventLog::default();
        events.send(log(1));
        let (first, next) = events.next(0).await.unwrap();
        assert_eq!(first.len(), 1);
        let (second, ()) = tokio::join!(events.next(next), async { events.send(log(2)) });
        let (second, next) = second.unwrap();
        assert!(matches!(&second[..], [Event::Log(log)] if log.data.len() == 2));
        events.close();
        assert!(events.next(next).await.is_none());
        assert_eq!(events.next(0).await.unwrap().0.len(), 2, "a late reader");
    }

    #[test]
    fn row48_texts_that_a_client_warns_about_are_bounded() {
        let events = EventLog::default();
        let text = |name: &str, bytes: usize| SourceText {
            filename: name.to_owned(),
            text: vec![b'x'; bytes],
            language: String::new(),
            definition: None,
        };
        events.add_source(&text("kept", 10));
        for number in 0..4 {
            events.add_source(&text(&number.to_string(), TEXT_BYTES_MAX / 2));
        }
        let sent = |name: &str| {
            let warning = Event::Warning(rbuild_graph::progress::Warning {
                vertex: Digest::sha256(b"v"),
                level: 1,
                short: String::new(),
                detail: Vec::new(),
                url: String::new(),
                location: Some((name.to_owned(), Vec::new())),
            });
            let response = events.responses([warning]).remove(0);
            response.warnings[0]
                .info
                .as_ref()
                .map_or(0, |info| info.data.len())
        };
        assert_eq!(sent("kept"), 10);
        assert_eq!((sent("0"), sent("3")), (TEXT_BYTES_MAX / 2, 0));
    }

    #[tokio::test]
    async fn old_output_is_dropped_when_there_is_too_much() {
        let events = EventLog::default();
        for _ in 0..40 {
            events.send(log(1 << 20));
        }
        let kept = events.all().len();
        assert_eq!(kept, LOG_BYTES_MAX / ((1 << 20) + PIECE_BYTES));
        let (batch, next) = events.next(0).await.unwrap();
        assert_eq!((batch.len(), next), (kept, 40));
    }

    #[tokio::test]
    async fn row48_output_byte_by_byte_is_bounded_and_everything_else_is_kept_in_its_place() {
        let events = EventLog::default();
        let status = |current| {
            Event::Status(rbuild_graph::progress::VertexStatus {
                id: "s".to_owned(),
                vertex: Digest::sha256(b"v"),
                current,
                total: 0,
                timestamp: SystemTime::UNIX_EPOCH,
                started: None,
                completed: None,
            })
        };
        let rounds = 4 * LOG_BYTES_MAX / PIECE_BYTES / 100;
        for round in 0..rounds {
            events.send(status(round as u64));
            (0..100).for_each(|_| events.send(log(1)));
        }
        let all = events.all();
        let logs = all.iter().filter(|event| matches!(event, Event::Log(_))).count();
        assert_eq!(logs, LOG_BYTES_MAX / (PIECE_BYTES + 1));
        assert_eq!(
            all.len() - logs,
            rounds,
            "of what is no output nothing is dropped"
        );
        // The output that is left is among the last statuses, a hundred pieces behind each.
        let shape: Vec<usize> = all
            .rsplit(|event| matches!(event, Event::Status(_)))
            .map(<[Event]>::len)
            .collect();
        assert!(
            shape[..logs / 100].iter().all(|pieces| *pieces == 100),
            "{shape:?}"
        );
        let (mut read, mut from) = (0, 0);
        events.close();
        while let Some((batch, next)) = events.next(from).await {
            (read, from) = (read + batch.len(), next);
        }
        assert_eq!(read, all.len());
    }
}
