//! The bytes of one regular file: cloned, copied by the kernel, or read and written, whichever the file systems
//! allow. Holes stay holes. Owns the memory of what worked between which file systems; sets no metadata.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use rustix::fs::{SeekFrom, Stat};
use rustix::io::Errno;

/// Files up to this size are read and written: for them one copy through memory costs less than asking the kernel
/// for a cheaper way.
const SMALL_MAX_BYTES: u64 = 64 << 10;
const BUFFER_BYTES: usize = 256 << 10;
/// Most bytes asked of one `copy_file_range(2)`, so that a build can be stopped in the middle of a large file.
const RANGE_MAX_BYTES: u64 = 64 << 20;

/// The cheapest way that has not failed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Clone,
    Range,
    ReadWrite,
}

/// Copies file content. Shared by all threads of a copy.
#[derive(Debug, Default)]
pub(super) struct DataCopier {
    ways: Mutex<HashMap<(u64, u64), Way>>,
}

/// Which side failed.
#[derive(Debug)]
pub(crate) enum DataError {
    Read(Errno),
    Write(Errno),
}

impl DataCopier {
    /// Copies all of `source` (whose status is `stat`) into the empty file `target`. Returns the bytes of the file.
    pub(super) fn copy(&self, source: &OwnedFd, stat: &Stat, target: &OwnedFd) -> Result<u64, DataError> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let sparse = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size;
        if size <= SMALL_MAX_BYTES && !sparse {
            return read_write(source, target, None);
        }
        let target_dev = rbuild_sys::owner::fstat(target).map_err(DataError::Write)?.st_dev;
        let key = (stat.st_dev, target_dev);
        let mut way = self.way(key);
        if way == Way::Clone {
            match rustix::fs::ioctl_ficlone(target, source) {
                Ok(()) => return Ok(size),
                Err(Errno::NOSPC | Errno::DQUOT) => return Err(DataError::Write(Errno::NOSPC)),
                Err(_) => way = self.give_up(key, Way::Clone),
            }
        }
        let mut done = 0;
        if sparse {
            while let Some((start, end)) = data_segment(source, done, size)? {
                for fd in [source, target] {
                    rustix::fs::seek(fd, SeekFrom::Start(start)).map_err(DataError::Read)?;
                }
                self.copy_span(key, &mut way, source, target, end - start)?;
                done = end;
            }
            rustix::fs::ftruncate(target, size).map_err(DataError::Write)?;
            return Ok(size);
        }
        let copied = self.copy_span(key, &mut way, source, target, size)?;
        // The file may have grown since it was looked at; BuildKit stops at the size it saw, and so does this.
        Ok(copied)
    }

    fn copy_span(
        &self,
        key: (u64, u64),
        way: &mut Way,
        source: &OwnedFd,
        target: &OwnedFd,
        len: u64,
    ) -> Result<u64, DataError> {
        let mut done = 0;
        while *way == Way::Range && done < len {
            let want = usize::try_from((len - done).min(RANGE_MAX_BYTES)).unwrap_or(usize::MAX);
            match rustix::fs::copy_file_range(source, None, target, None, want) {
                Ok(0) => return Ok(done),
                Ok(n) => done += n as u64,
                Err(Errno::INTR) => {}
                Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => return Err(DataError::Write(Errno::NOSPC)),
                // Not between these file systems, or a file whose size is a lie (proc).
                Err(_) if done == 0 => *way = self.give_up(key, Way::Range),
                Err(e) => return Err(DataError::Read(e)),
            }
        }
        if done < len {
            done += read_write(source, target, Some(len - done))?;
        }
        Ok(done)
    }

    fn way(&self, key: (u64, u64)) -> Way {
        let ways = self
            .ways
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        ways.get(&key).copied().unwrap_or(Way::Clone)
    }

    fn give_up(&self, key: (u64, u64), failed: Way) -> Way {
        let next = if failed == Way::Clone {
            Way::Range
        } else {
            Way::ReadWrite
        };
        let mut ways = self
            .ways
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = ways.entry(key).or_insert(next);
        *known = (*known).max(next);
        *known
    }
}

/// The next stretch of data at or after `from`, if there is one.
fn data_segment(source: &OwnedFd, from: u64, size: u64) -> Result<Option<(u64, u64)>, DataError> {
    if from >= size {
        return Ok(None);
    }
    let start = match rustix::fs::seek(source, SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // No holes known here: all of it is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((from, size))),
        Err(e) => return Err(DataError::Read(e)),
    };
    let end = rustix::fs::seek(source, SeekFrom::Hole(start)).map_err(DataError::Read)?;
    Ok((start < size).then_some((start, end.min(size))))
}

fn read_write(source: &OwnedFd, target: &OwnedFd, limit: Option<u64>) -> Result<u64, DataError> {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(BUFFER_BYTES, 0);
        let mut done = 0_u64;
        loop {
            let left = limit.map_or(u64::MAX, |limit| limit - done);
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            if want == 0 {
                return Ok(done);
            }
            match rustix::io::read(source, &mut buffer[..want]) {
                Ok(0) => return Ok(done),
                Ok(n) => {
                    write_all(target, &buffer[..n])?;
                    done += n as u64;
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(DataError::Read(e)),
            }
        }
    })
}

/// Writes all of `bytes`.
pub(crate) fn write_all(target: impl AsFd, mut bytes: &[u8]) -> Result<(), DataError> {
    while !bytes.is_empty() {
        match rustix::io::write(&target, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(e) => return Err(DataError::Write(e)),
        }
    }
    Ok(())
}
