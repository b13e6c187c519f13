//! A blob that is read while it is written: a layer is unpacked while it comes over the network. What is read has not been
//! verified; whoever reads must not name anything by it but by digests of its own.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The end that writes the blob holds this one. Dropped before [`Ahead::end`], it ends the reader with an error.
#[derive(Debug)]
pub(crate) struct Ahead(Arc<Shared>);

/// The end that reads. Waits for bytes that are not there yet.
#[derive(Debug)]
pub(crate) struct Follower {
    shared: Arc<Shared>,
    file: Option<Arc<File>>,
    at: u64,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    /// Bytes that are in the file.
    written: u64,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

/// Both ends.
pub(crate) fn follow() -> (Ahead, Follower) {
    let shared = Arc::new(Shared::default());
    let follower = Follower {
        shared: Arc::clone(&shared),
        file: None,
        at: 0,
    };
    (Ahead(shared), follower)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }
}

impl Ahead {
    /// The file that is written. Another one than before breaks the reader off: it has read what is thrown away.
    pub(crate) fn begin(&self, file: File) {
        self.0.change(|state| {
            if state.file.is_some() {
                state.end = Some(End::Broken);
            }
            state.file = Some(Arc::new(file));
        });
    }

    /// So many bytes are in the file.
    pub(crate) fn written(&self, bytes: u64) {
        self.0.change(|state| state.written = bytes);
    }

    /// All of them are.
    pub(crate) fn end(self) {
        self.0.change(|state| {
            state.end.get_or_insert(End::Whole);
        });
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.end.get_or_insert(End::Broken);
        });
    }
}

impl Read for Follower {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut state = self.shared.state();
        let left = loop {
            match state.end {
                Some(End::Broken) => return Err(io::Error::other("the blob did not come whole")),
                Some(End::Whole) if state.written <= self.at => return Ok(0),
                _ if state.written > self.at => break state.written - self.at,
                _ => {
                    let waited = self.shared.changed.wait(state);
                    state = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        let file = self.file.get_or_insert_with(|| {
            let file = state.file.as_ref();
            Arc::clone(file.unwrap_or_else(|| unreachable!("bytes are written to a file")))
        });
        drop(state);
        let most = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = file.read_at(&mut out[..most], self.at)?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;

    /// A file to write, and the same to read.
    fn file() -> (File, File) {
        let file = tempfile::NamedTempFile::new().unwrap();
        (file.reopen().unwrap(), file.reopen().unwrap())
    }

    #[test]
    fn a_follower_gets_all_bytes_in_order_and_then_the_end() {
        let (ahead, mut follower) = follow();
        let (mut write, read) = file();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            follower.read_to_end(&mut bytes).map(|_| bytes)
        });
        ahead.begin(read);
        let mut all = Vec::new();
        for piece in 0..50_u8 {
            let piece = vec![piece; 1000 * usize::from(piece % 7)];
            write.write_all(&piece).unwrap();
            all.extend(piece);
            ahead.written(all.len() as u64);
            if all.len() % 3 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        ahead.end();
        assert!(reader.join().unwrap().unwrap() == all);
    }

    #[test]
    fn what_breaks_off_or_begins_anew_is_an_error_and_never_a_short_blob() {
        let broken: [fn(Ahead); 3] = [
            drop,
            |ahead| ahead.begin(file().1),
            |ahead| {
                ahead.begin(file().1);
                ahead.end();
            },
        ];
        for breaks in broken {
            let (ahead, mut follower) = follow();
            let (mut write, read) = file();
            write.write_all(b"begun").unwrap();
            ahead.begin(read);
            ahead.written(5);
            let mut start = [0; 5];
            follower.read_exact(&mut start).unwrap();
            let reader = std::thread::spawn(move || follower.read(&mut [0; 10]));
            breaks(ahead);
            assert!(reader.join().unwrap().is_err());
        }
        let (ahead, mut follower) = follow();
        ahead.begin(file().1);
        ahead.written(5);
        ahead.end();
        let error = follower.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "a file that was cut");
    }
}
