//! The digest of one entry's content and attributes, and the guard that keeps files which may still be changing out
//! of the stat cache.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::stat_cache::StatKey;
use crate::dest::open_path;
use crate::xattr::{self, Origin, Xattrs};
use rbuild_sys::data::UNSIZED_MAX_BYTES;

/// A file whose times are younger than this is not trusted: a change in the same tick of the clock would leave the
/// times as they are (the problem git calls racy). Two seconds cover the coarsest time stamps (FAT, some NFS).
const RACY: Duration = Duration::from_secs(2);
/// Times a file that changes while it is read is read again.
const READ_TRIES: usize = 4;
const BUFFER_BYTES: usize = 128 << 10;

/// Nanoseconds since 1970 before which a change must lie to be trusted.
pub(super) fn trusted_before_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.saturating_sub(RACY).as_nanos()).unwrap_or(i64::MAX)
}

pub(super) fn is_trusted(key: &StatKey, before_ns: i64) -> bool {
    key.ctime_ns < before_ns && key.mtime_ns < before_ns
}

/// What reading an entry gave.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) leaf: [u8; 32],
    /// Status at the time of reading.
    pub(super) stat: Stat,
    /// It did not change while it was read.
    pub(super) is_stable: bool,
    pub(super) bytes: u64,
}

/// Why an entry could not be read.
#[derive(Debug)]
pub(super) enum ReadFailure {
    Errno(&'static str, Errno),
    /// It is of another type now.
    Changed,
}

/// Reads an entry that is no directory.
pub(super) fn read(dir: &OwnedFd, name: &CString, stat: &Stat, origin: Origin) -> Result<Read, ReadFailure> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => read_regular(dir, name, origin),
        FileType::Symlink => {
            let link = open_name(dir, name)?;
            let now = rbuild_sys::owner::fstat(&link).map_err(|e| ReadFailure::Errno("stat", e))?;
            let text = match xattr::link_text(&link, origin) {
                Ok(text) => text,
                Err(Errno::INVAL | Errno::NOENT) => return Err(ReadFailure::Changed),
                Err(e) => return Err(ReadFailure::Errno("read link", e)),
            };
            let leaf = digest(text.as_bytes(), &xattr::read_path_fd(&link, origin));
            Ok(Read {
                leaf,
                stat: now,
                is_stable: true,
                bytes: 0,
            })
        }
        _ => {
            let special = open_name(dir, name)?;
            let now = rbuild_sys::owner::fstat(&special).map_err(|e| ReadFailure::Errno("stat", e))?;
            let leaf = digest(
                blake3::hash(b"").as_bytes(),
                &xattr::read_path_fd(&special, origin),
            );
            Ok(Read {
                leaf,
                stat: now,
                is_stable: true,
                bytes: 0,
            })
        }
    }
}

fn open_name(dir: &OwnedFd, name: &CString) -> Result<OwnedFd, ReadFailure> {
    use std::os::unix::ffi::OsStrExt as _;
    open_path(dir, std::ffi::OsStr::from_bytes(name.as_bytes())).map_err(|e| ReadFailure::Errno("open", e))
}

fn read_regular(dir: &OwnedFd, name: &CString, origin: Origin) -> Result<Read, ReadFailure> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::LOOP | Errno::NXIO) => return Err(ReadFailure::Changed),
        Err(e) => return Err(ReadFailure::Errno("open", e)),
    };
    let status = || rbuild_sys::owner::fstat(&file).map_err(|e| ReadFailure::Errno("stat", e));
    let mut before = status()?;
    if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
        return Err(ReadFailure::Changed);
    }
    let mut tries = 0;
    loop {
        // No further than it went when it was looked at: whoever writes to it may never end.
        let most = match StatKey::of(&before).size {
            0 => UNSIZED_MAX_BYTES,
            size => size,
        };
        let (content, bytes) = content_digest(&file, most).map_err(|e| ReadFailure::Errno("read", e))?;
        let leaf = digest(&content, &xattr::read(&file, origin));
        let after = status()?;
        tries += 1;
        let is_stable = StatKey::of(&before) == StatKey::of(&after) && bytes == StatKey::of(&after).size;
        if is_stable || tries == READ_TRIES {
            let mut stat = after;
            stat.st_size = i64::try_from(bytes).unwrap_or(i64::MAX);
            return Ok(Read {
                leaf,
                stat,
                is_stable,
                bytes,
            });
        }
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).map_err(|e| ReadFailure::Errno("read", e))?;
        before = after;
    }
}

/// Digest of up to `most` bytes, and how many there were. BLAKE3: it never leaves this machine but inside a SHA-256, and is
/// read out of twice as many bytes a second (3.8 GB on the machine of the benchmarks).
fn content_digest(file: &OwnedFd, most: u64) -> Result<([u8; 32], u64), Errno> {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(BUFFER_BYTES, 0);
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0;
        loop {
            let left = usize::try_from(most - bytes).unwrap_or(usize::MAX);
            let want = left.min(buffer.len());
            if want == 0 {
                return Ok((hasher.finalize().into(), bytes));
            }
            match rustix::io::read(file, &mut buffer[..want]) {
                Ok(0) => return Ok((hasher.finalize().into(), bytes)),
                Ok(n) => {
                    hasher.update(&buffer[..n]);
                    bytes += n as u64;
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
    })
}

/// Digest of an entry's content (its BLAKE3 hash, or a link's text) and attributes.
pub(super) fn digest(content: &[u8], xattrs: &Xattrs) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(b"rbuild leaf 2\0");
    bytes.extend_from_slice(&(content.len() as u64).to_le_bytes());
    bytes.extend_from_slice(content);
    xattr::encode(xattrs, &mut bytes);
    Sha256::digest(&bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row40_no_more_is_read_than_asked() {
        let endless = rustix::fs::open("/dev/zero", OFlags::RDONLY, Mode::empty()).unwrap();
        for most in [0, 1, BUFFER_BYTES as u64, 300 << 10] {
            let (digest, bytes) = content_digest(&endless, most).unwrap();
            assert_eq!(bytes, most);
            let zeros = vec![0; usize::try_from(most).unwrap()];
            assert_eq!(digest, *blake3::hash(&zeros).as_bytes());
        }
    }
}
