//! Where a walk's changes go: one after the other, directories before what is in them. Owns the archive; knows nothing
//! of how changes are found.

use std::io::Write;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::{WriteError, failed};
use crate::entry::{Entry, EntryKind, Time, WHITEOUT_PREFIX};
use crate::reader::printable;
use crate::writer::{TarWriteError, TarWriter};

const CONTENT_BYTES: usize = 256 << 10;

/// Takes changes.
pub(super) trait Sink {
    /// A file that is new or changed, or a directory that holds one. Its path has a slash at the end if it is a directory.
    fn entry(&mut self, entry: &Entry) -> Result<(), WriteError>;

    /// The content of the regular file that came last.
    fn content(&mut self, fd: BorrowedFd<'_>, size: u64, path: &[u8]) -> Result<(), WriteError>;

    /// `name`, in the directory `dir` (with a slash at the end; empty for the root), is gone.
    fn whiteout(&mut self, dir: &[u8], name: &[u8]) -> Result<(), WriteError>;
}

/// Changes as an archive.
#[derive(Debug)]
pub(super) struct TarSink<W: Write> {
    pub(super) writer: TarWriter<W>,
    /// No entry has a later time, in seconds since 1970.
    newest: Option<i64>,
    buffer: Vec<u8>,
}

impl<W: Write> TarSink<W> {
    pub(super) fn new(writer: TarWriter<W>) -> Self {
        Self {
            writer,
            newest: None,
            buffer: vec![0; CONTENT_BYTES],
        }
    }

    /// The same with times no later than `newest`.
    pub(super) fn not_newer(mut self, newest: Option<i64>) -> Self {
        self.newest = newest;
        self
    }
}

impl<W: Write> Sink for TarSink<W> {
    fn entry(&mut self, entry: &Entry) -> Result<(), WriteError> {
        match self.newest {
            Some(newest) => self.writer.append_not_newer(entry, newest)?,
            None => self.writer.append(entry)?,
        }
        Ok(())
    }

    fn content(&mut self, fd: BorrowedFd<'_>, size: u64, path: &[u8]) -> Result<(), WriteError> {
        let mut left = size;
        while left > 0 {
            let want = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match rustix::io::read(fd, &mut self.buffer[..want]) {
                Ok(0) => {
                    return Err(WriteError::Changed {
                        path: printable(path),
                    });
                }
                Ok(read) => {
                    self.writer
                        .write_all(&self.buffer[..read])
                        .map_err(TarWriteError::Io)?;
                    left -= read as u64;
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(failed("read", path, e)),
            }
        }
        Ok(())
    }

    /// What containerd writes for a removed file: an empty file of mode 0 and 1970 (pkg/archive/tar.go).
    fn whiteout(&mut self, dir: &[u8], name: &[u8]) -> Result<(), WriteError> {
        self.entry(&Entry {
            path: [dir, WHITEOUT_PREFIX, name].concat(),
            kind: EntryKind::File { size: 0 },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::EPOCH,
            xattrs: Vec::new(),
        })
    }
}
