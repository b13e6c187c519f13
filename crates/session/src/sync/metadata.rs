//! The list of a transfer that takes only metadata, kept as a file (`fsutil/receive.go`, `writeMetadata`).

use std::io::Write as _;
use std::os::fd::BorrowedFd;
use std::path::Path;

use prost::Message as _;
use rustix::fs::{Mode, OFlags};

use crate::sync::error::SyncError;
use crate::wire::Stat;

/// Name of the file at the top of the directory. Entries in it: length as four bytes, little-endian, then the `Stat`.
pub const METADATA_FILE: &str = ".fsutil-metadata";

/// The list so far, encoded.
#[derive(Debug)]
pub(crate) struct Listing {
    bytes: Vec<u8>,
    max: u64,
}

impl Listing {
    pub(crate) const fn new(max: u64) -> Self {
        Self {
            bytes: Vec::new(),
            max,
        }
    }

    pub(crate) fn push(&mut self, stat: &Stat) -> Result<(), SyncError> {
        let length = stat.encoded_len();
        let total = self.bytes.len() as u64 + length as u64 + 4;
        let (Ok(prefix), true) = (u32::try_from(length), total <= self.max) else {
            return Err(SyncError::TooMuch {
                what: "bytes of its list",
                max: self.max,
            });
        };
        self.bytes.extend_from_slice(&prefix.to_le_bytes());
        self.bytes.extend_from_slice(&stat.encode_to_vec());
        Ok(())
    }

    /// Writes the file. Whatever had its name is gone by now, as the list cannot hold it.
    pub(crate) fn write(&self, root: BorrowedFd<'_>) -> Result<(), SyncError> {
        let fail = |source| SyncError::Io {
            verb: "write",
            path: Path::new(METADATA_FILE).to_owned(),
            source,
        };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(root, METADATA_FILE, flags, Mode::from_raw_mode(0o644))
            .map_err(|e| fail(e.into()))?;
        std::fs::File::from(fd).write_all(&self.bytes).map_err(fail)
    }
}
