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
/// Most bytes taken of a file whose status says that it is empty: those of `/proc` are not, and a log may begin to grow.
pub const UNSIZED_MAX_BYTES: u64 = 16 << 20;
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
pub struct DataCopier {
    ways: Mutex<HashMap<(u64, u64), Way>>,
}

/// Which side failed.
#[derive(Debug)]
pub enum DataError {
    /// The file that is read.
    Read(Errno),
    /// The file that is written.
    Write(Errno),
}

impl DataCopier {
    /// Copies `source`, whose status is `stat`, into the empty file `target`: as much as it had when it was looked at, for
    /// whoever writes to it meanwhile may never end. BuildKit stops there too. Returns the bytes of the file.
    ///
    /// # Errors
    /// The kernel's, with the side that failed.
    pub fn copy(&self, source: &OwnedFd, stat: &Stat, target: &OwnedFd) -> Result<u64, DataError> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let sparse = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size;
        if size <= SMALL_MAX_BYTES && !sparse {
            let bytes = if size == 0 { UNSIZED_MAX_BYTES } else { size };
            return read_write(source, target, bytes);
        }
        let target_dev = crate::owner::fstat(target).map_err(DataError::Write)?.st_dev;
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
        self.copy_span(key, &mut way, source, target, size)
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
            done += read_write(source, target, len - done)?;
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

/// Copies up to `most` bytes.
fn read_write(source: &OwnedFd, target: &OwnedFd, most: u64) -> Result<u64, DataError> {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(BUFFER_BYTES, 0);
        let mut done = 0_u64;
        loop {
            let left = usize::try_from(most - done).unwrap_or(usize::MAX);
            let want = left.min(buffer.len());
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
///
/// # Errors
/// The kernel's.
pub fn write_all(target: impl AsFd, mut bytes: &[u8]) -> Result<(), DataError> {
    while !bytes.is_empty() {
        match rustix::io::write(&target, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(e) => return Err(DataError::Write(e)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, Write as _};

    #[test]
    fn row40_no_more_is_copied_than_a_file_had_when_it_was_looked_at() {
        for size in [1, 4096, SMALL_MAX_BYTES, SMALL_MAX_BYTES + 1, 300 << 10] {
            let mut source = tempfile::tempfile().unwrap();
            let content = vec![b'a'; usize::try_from(size).unwrap()];
            source.write_all(&content).unwrap();
            let stat = rustix::fs::fstat(&source).unwrap();
            source.write_all(&vec![b'b'; 1 << 20]).unwrap();
            source.rewind().unwrap();
            let (source, target) = (OwnedFd::from(source), tempfile::tempfile().unwrap());
            let mut copier = DataCopier::default();
            // A clone takes the file as it is now, at once.
            let key = (stat.st_dev, rustix::fs::fstat(&target).unwrap().st_dev);
            copier.ways.get_mut().unwrap().insert(key, Way::Range);
            let copied = copier.copy(&source, &stat, &OwnedFd::from(target)).unwrap();
            assert_eq!(copied, size);
        }
    }

    #[test]
    fn row40_a_file_that_was_empty_has_an_end() {
        let source = rustix::fs::open("/dev/zero", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
        let (source, target) = (source.unwrap(), tempfile::tempfile().unwrap());
        let stat = rustix::fs::fstat(&target).unwrap();
        let copied = DataCopier::default().copy(&source, &stat, &OwnedFd::from(target));
        assert_eq!(copied.unwrap(), UNSIZED_MAX_BYTES);
    }
}
