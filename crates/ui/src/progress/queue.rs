//! The queue between the build and its renderer. Sending never waits for a terminal: output that piles up is put
//! into an unnamed file, statuses that pile up are replaced by their newest state. Nothing else is ever left out.
//!
//! Events are gathered for some milliseconds before the renderer is woken: it takes the processor from what builds.
//!
//! If there is no place for the file either, memory is used up to [`LAST_RESORT_BYTES`]. Only beyond that, and beyond the
//! [`Limits`], a sender waits: a step that writes without end, or byte by byte, fills neither the disk nor the memory behind a
//! terminal that is stopped.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rbuild_graph::progress::{Event, Stream, VertexLog};
use rbuild_oci::Digest;
use rustix::fs::{Mode, OFlags};

/// Output held in memory before a file is used.
const MEMORY_BYTES: usize = 1024 * 1024;
/// Output held in memory if no file can be written.
const LAST_RESORT_BYTES: usize = 64 * 1024 * 1024;
/// Statuses are replaced from this length on.
const COALESCE_FROM: usize = 1024;
/// A batch holds at most so many events, and so much output.
const BATCH_EVENTS: usize = 1024;
const BATCH_BYTES: usize = 1024 * 1024;

/// How long events are gathered, if there are few.
const GATHERED: Duration = Duration::from_millis(10);
/// Output of one step and stream that piles up is put together to as much.
const JOINED_BYTES: usize = 16 * 1024;

/// What may pile up before senders of output wait.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Each costs some two hundred bytes, whatever it holds.
    entries: usize,
    /// Length of the file.
    spool_bytes: u64,
}

impl Limits {
    const USUAL: Self = Self {
        entries: 1 << 18,
        spool_bytes: 1 << 30,
    };
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is something to take.
    filled: Condvar,
    /// There is room again.
    drained: Condvar,
    directory: PathBuf,
    limits: Limits,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    /// How many entries were taken before the first one.
    taken: u64,
    /// Place of the newest queued status of each vertex and id.
    statuses: HashMap<(Digest, String), u64>,
    memory_bytes: usize,
    spool: Option<Spool>,
    spool_failed: bool,
    closed: bool,
    abandoned: bool,
    /// Whoever takes waits for the first event.
    is_awaited: bool,
    /// Senders that wait.
    held_up: usize,
}

impl State {
    /// Whether nothing more is to be gathered.
    fn is_enough(&self) -> bool {
        let is_much = self.entries.len() >= BATCH_EVENTS || self.memory_bytes >= MEMORY_BYTES / 2;
        is_much || self.held_up > 0 || self.closed || self.abandoned
    }

    /// Puts it behind the others, or to the end of the last one.
    fn push(&mut self, entry: Entry) {
        let crowded = self.entries.len() >= COALESCE_FROM;
        let rest = match self.entries.back_mut().filter(|_| crowded) {
            Some(last) => last.join(entry),
            None => Some(entry),
        };
        let Some(entry) = rest else { return };
        if let (Entry::Spooled { .. }, Some(spool)) = (&entry, &mut self.spool) {
            spool.entries += 1;
        }
        self.entries.push_back(entry);
    }
}

#[derive(Debug)]
enum Entry {
    Event(Event),
    /// A log whose bytes are in the file.
    Spooled {
        vertex: Digest,
        stream: Stream,
        timestamp: std::time::SystemTime,
        at: u64,
        length: usize,
    },
}

impl Entry {
    /// Takes `next` in if it is more of the same; gives it back if not.
    fn join(&mut self, next: Self) -> Option<Self> {
        match (self, next) {
            (Self::Event(Event::Log(log)), Self::Event(Event::Log(next)))
                if (&log.vertex, log.stream) == (&next.vertex, next.stream)
                    && log.data.len() + next.data.len() <= JOINED_BYTES =>
            {
                log.data.extend(next.data);
                None
            }
            (
                Self::Spooled {
                    vertex,
                    stream,
                    at,
                    length,
                    ..
                },
                Self::Spooled {
                    vertex: of,
                    stream: on,
                    at: next,
                    length: more,
                    ..
                },
            ) if (&*vertex, *stream, *at + *length as u64) == (&of, on, next)
                && *length + more <= JOINED_BYTES =>
            {
                *length += more;
                None
            }
            (_, next) => Some(next),
        }
    }
}

#[derive(Debug)]
struct Spool {
    file: Arc<File>,
    end: u64,
    /// Entries whose bytes are still to be read.
    entries: usize,
}

/// What [`Queue::take`] found.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) events: Vec<Event>,
    /// The queue is empty and will stay so.
    pub(super) ended: bool,
}

impl Queue {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            directory: directory.to_owned(),
            limits: Limits::USUAL,
        }
    }

    pub(super) fn send(&self, event: Event) {
        let mut state = self.lock();
        if state.closed || state.abandoned {
            return;
        }
        match event {
            Event::Log(log) => {
                while self.is_full(&state) && !state.abandoned {
                    state = self.wait_for_room(state);
                }
                let entry = self.store(&mut state, log);
                while matches!(&entry, Entry::Event(_))
                    && state.memory_bytes > LAST_RESORT_BYTES
                    && !state.abandoned
                {
                    state = self.wait_for_room(state);
                }
                state.push(entry);
            }
            Event::Status(status) => {
                let key = (status.vertex.clone(), status.id.clone());
                let crowded = state.entries.len() >= COALESCE_FROM;
                let place = state
                    .statuses
                    .get(&key)
                    .filter(|_| crowded)
                    .and_then(|&at| at.checked_sub(state.taken));
                let place = place.and_then(|at| usize::try_from(at).ok());
                match place.and_then(|at| state.entries.get_mut(at)) {
                    Some(entry) => *entry = Entry::Event(Event::Status(status)),
                    None => {
                        let at = state.taken + state.entries.len() as u64;
                        state.statuses.insert(key, at);
                        state.entries.push_back(Entry::Event(Event::Status(status)));
                    }
                }
            }
            event => state.entries.push_back(Entry::Event(event)),
        }
        let wakes = std::mem::take(&mut state.is_awaited) || state.is_enough();
        drop(state);
        if wakes {
            self.filled.notify_one();
        }
    }

    fn wait_for_room<'q>(&'q self, mut state: MutexGuard<'q, State>) -> MutexGuard<'q, State> {
        state.held_up += 1;
        self.filled.notify_one();
        let mut state = self.drained.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.held_up -= 1;
        state
    }

    /// No more events will come.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// Nobody will take events any more; senders go on without waiting.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.entries.clear();
        drop(state);
        self.drained.notify_all();
    }

    /// Waits up to `wait` for events and takes some.
    pub(super) fn take(&self, wait: Duration) -> Batch {
        let mut state = self.lock();
        if state.entries.is_empty() && !state.closed {
            state.is_awaited = true;
            let waited = self.filled.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.is_awaited = false;
        }
        let gathers = |state: &mut State| !state.entries.is_empty() && !state.is_enough();
        let gathered = self.filled.wait_timeout_while(state, GATHERED, gathers);
        let mut state = gathered.unwrap_or_else(PoisonError::into_inner).0;
        let mut entries = Vec::new();
        let mut bytes = 0;
        while entries.len() < BATCH_EVENTS && bytes < BATCH_BYTES {
            let Some(entry) = state.entries.pop_front() else {
                break;
            };
            state.taken += 1;
            bytes += match &entry {
                Entry::Spooled { length, .. } => *length,
                Entry::Event(Event::Log(log)) => {
                    state.memory_bytes -= log.data.len();
                    log.data.len()
                }
                Entry::Event(_) => 0,
            };
            entries.push(entry);
        }
        let ended = state.closed && state.entries.is_empty();
        if state.entries.is_empty() {
            state.statuses.clear();
        }
        let file = state.spool.as_ref().map(|spool| Arc::clone(&spool.file));
        self.give_room(state);
        Batch {
            events: self.load(entries, file.as_deref()),
            ended,
        }
    }

    fn is_full(&self, state: &State) -> bool {
        let spooled = state.spool.as_ref().map_or(0, |spool| spool.end);
        state.entries.len() >= self.limits.entries || spooled >= self.limits.spool_bytes
    }

    fn store(&self, state: &mut State, log: VertexLog) -> Entry {
        if state.memory_bytes + log.data.len() > MEMORY_BYTES && !state.spool_failed {
            match self.spool(state, &log.data) {
                Ok(at) => {
                    return Entry::Spooled {
                        vertex: log.vertex,
                        stream: log.stream,
                        timestamp: log.timestamp,
                        at,
                        length: log.data.len(),
                    };
                }
                Err(_no_room) => state.spool_failed = true,
            }
        }
        state.memory_bytes += log.data.len();
        Entry::Event(Event::Log(log))
    }

    fn spool(&self, state: &mut State, data: &[u8]) -> io::Result<u64> {
        let spool = match &mut state.spool {
            Some(spool) => spool,
            empty => empty.insert(Spool {
                file: Arc::new(unnamed_file(&self.directory)?),
                end: 0,
                entries: 0,
            }),
        };
        spool.file.write_all_at(data, spool.end)?;
        let at = spool.end;
        spool.end += data.len() as u64;
        Ok(at)
    }

    /// Reads spooled logs back. One that cannot be read says so in its place.
    fn load(&self, entries: Vec<Entry>, file: Option<&File>) -> Vec<Event> {
        let mut read = 0;
        let events = entries
            .into_iter()
            .map(|entry| match entry {
                Entry::Event(event) => event,
                Entry::Spooled {
                    vertex,
                    stream,
                    timestamp,
                    at,
                    length,
                } => {
                    read += 1;
                    let mut data = vec![0; length];
                    let result = file.map(|file| file.read_exact_at(&mut data, at));
                    if !matches!(result, Some(Ok(()))) {
                        data = format!("\n[{length} bytes of output could not be read back]\n").into_bytes();
                    }
                    Event::Log(VertexLog {
                        vertex,
                        stream,
                        data,
                        timestamp,
                    })
                }
            })
            .collect();
        if read > 0 {
            self.give_back(read);
        }
        events
    }

    fn give_back(&self, read: usize) {
        let mut state = self.lock();
        if let Some(spool) = &mut state.spool {
            spool.entries -= read;
            if spool.entries == 0 {
                // A file that keeps its length costs room until the end, nothing else.
                if spool.file.set_len(0).is_ok() {
                    spool.end = 0;
                }
            }
        }
        self.give_room(state);
    }

    fn give_room(&self, state: MutexGuard<'_, State>) {
        let is_awaited = state.held_up > 0;
        drop(state);
        if is_awaited {
            self.drained.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file without a name: it is gone when the program is.
fn unnamed_file(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let fd = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(File::from(fd))
}

#[cfg(test)]
mod tests;
