//! Blobs: files named by the hash of their content. Owns `blobs/`. A blob that is damaged is not there.
//!
//! A row keeps what `stat(2)` said when the content was last known to be right (size, inode, change time). As long as
//! that is unchanged, nobody has written to the file, and it is opened without hashing it again; otherwise it is hashed first.

mod writer;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rbuild_oci::{Algorithm, Digest};

use crate::error::{DiskError, IndexError, StoreError};
use crate::holding::Kind;
use crate::lease::Lease;
use crate::lock::Sharing;
use crate::store::{Store, Used};
use writer::Hasher;
pub use writer::{BlobWriter, CommitBlobError, CommittedBlob};

/// What is read or written at once, in bytes.
const BUFFER_BYTES: usize = 128 * 1024;

impl Store {
    /// Opens a blob; `None` if it is not there or damaged (it is removed then). The descriptor stays good whatever
    /// happens to the store afterwards.
    ///
    /// # Errors
    /// The index's and the file system's, but never because of the blob's state.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        let Some(row) = self.blob_row(digest)? else {
            return Ok(None);
        };
        let path = self.layout().blob(digest);
        let Some(file) = open_plain(&path)? else {
            self.forget_blob(digest, &row)?;
            return Ok(None);
        };
        let stat = file.metadata().map_err(|e| DiskError::new("stat", &path, e))?;
        let doubtful = row.stamp != Stamp::of(&stat) || !self.is_settled(row.boot.as_deref());
        if doubtful && !self.check_blob(digest, &row, &file, &path)? {
            return Ok(None);
        }
        self.note_used(Used::Blob, digest.as_str(), row.used);
        Ok(Some(file))
    }

    /// Length in bytes of a blob that is there, as far as can be told without reading it.
    ///
    /// # Errors
    /// The index's and the file system's.
    pub fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        Ok(self
            .open_blob(digest)?
            .map(|file| file.metadata().map_or(0, |stat| stat.len())))
    }

    /// Hashes a blob. `false` if it is not there or was wrong, in which case it is gone now.
    ///
    /// # Errors
    /// The index's and the file system's.
    pub(crate) fn verify_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        let Some(row) = self.blob_row(digest)? else {
            return Ok(false);
        };
        let path = self.layout().blob(digest);
        match open_plain(&path)? {
            Some(file) => self.check_blob(digest, &row, &file, &path),
            None => {
                self.forget_blob(digest, &row)?;
                Ok(false)
            }
        }
    }

    /// Hashes `file`; notes that it is right, or removes it.
    fn check_blob(
        &self,
        digest: &Digest,
        row: &BlobRow,
        file: &File,
        path: &Path,
    ) -> Result<bool, StoreError> {
        let before = file.metadata().map_err(|e| DiskError::new("stat", path, e))?;
        let mut content = file;
        let found = if before.len() == row.stamp.size {
            let hashed = hash_file(&mut content, digest.algorithm());
            io::Seek::rewind(&mut content).map_err(|e| DiskError::new("read", path, e))?;
            // An unreadable sector is damage as well.
            hashed.ok()
        } else {
            None
        };
        if found.is_none_or(|(found, _)| found != *digest) {
            self.forget_blob(digest, row)?;
            return Ok(false);
        }
        let stamp = Stamp::of(&before);
        let boot = row.boot.as_deref().filter(|boot| *boot == self.boot());
        self.index()
            .write("note good blob", |tables| {
                tables.run(
                    "UPDATE blob SET size = ?2, inode = ?3, ctime_ns = ?4, boot = ?5 WHERE digest = ?1",
                    (
                        digest.as_str(),
                        stamp.size.cast_signed(),
                        stamp.inode,
                        stamp.ctime_ns,
                        boot,
                    ),
                )?;
                Ok::<_, IndexError>(true)
            })
            .map_err(StoreError::from)
    }

    /// Removes a blob that is missing or wrong, unless somebody has put a new one in its place meanwhile.
    fn forget_blob(&self, digest: &Digest, seen: &BlobRow) -> Result<(), StoreError> {
        self.index().write("forget blob", |tables| {
            let sql = "SELECT inode, ctime_ns FROM blob WHERE digest = ?1";
            let now = tables.one(sql, [digest.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            if now == Some((seen.stamp.inode, seen.stamp.ctime_ns)) {
                self.discard(&self.layout().blob(digest))?;
                tables.run("DELETE FROM blob WHERE digest = ?1", [digest.as_str()])?;
            }
            Ok(())
        })
    }

    pub(crate) fn blob_row(&self, digest: &Digest) -> Result<Option<BlobRow>, IndexError> {
        self.index().read("find blob", |tables| {
            let sql = "SELECT size, inode, ctime_ns, used, boot FROM blob WHERE digest = ?1";
            tables.one(sql, [digest.as_str()], |row| {
                let stamp = Stamp {
                    size: row.get::<_, i64>(0)?.cast_unsigned(),
                    inode: row.get(1)?,
                    ctime_ns: row.get(2)?,
                };
                Ok(BlobRow {
                    stamp,
                    used: row.get(3)?,
                    boot: row.get(4)?,
                })
            })
        })
    }
}

/// A row of `blob`.
pub(crate) struct BlobRow {
    pub(crate) stamp: Stamp,
    used: i64,
    pub(crate) boot: Option<String>,
}

/// What changes when a file is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    pub(crate) inode: i64,
    pub(crate) ctime_ns: i64,
}

impl Stamp {
    pub(crate) fn of(stat: &std::fs::Metadata) -> Self {
        let ctime_ns = stat
            .ctime()
            .saturating_mul(1_000_000_000)
            .saturating_add(stat.ctime_nsec());
        Self {
            size: stat.len(),
            inode: stat.ino().cast_signed(),
            ctime_ns,
        }
    }
}

impl Lease {
    /// Keeps a blob from being collected while the lease lives. `false` if it is not there.
    ///
    /// # Errors
    /// The index's and the file system's.
    pub fn hold_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        let name = digest.as_str().to_owned();
        if !self.is_held(Kind::Blob, &name) {
            let lock = self.store().lock_holdings(Sharing::Shared)?;
            let row = self.store().index().read("find blob", |tables| {
                let sql = "SELECT 1 FROM blob WHERE digest = ?1";
                tables.one(sql, [digest.as_str()], |_| Ok(()))
            })?;
            if row.is_none() {
                return Ok(false);
            }
            self.hold(&lock, Kind::Blob, vec![name])?;
        }
        Ok(self.store().open_blob(digest)?.is_some())
    }
}

/// Opens a regular file, not following a link; `None` if it is something else or absent.
pub(crate) fn open_plain(path: &Path) -> Result<Option<File>, DiskError> {
    use rustix::fs::OFlags;
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY)
        .bits()
        .cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Ok(None);
        }
        Err(error) => return Err(DiskError::new("open", path, error)),
    };
    let stat = file.metadata().map_err(|e| DiskError::new("stat", path, e))?;
    Ok(stat.is_file().then_some(file))
}

/// Hashes from the start to the end.
pub(crate) fn hash_file(file: &mut &File, algorithm: Algorithm) -> io::Result<(Digest, u64)> {
    io::Seek::rewind(file)?;
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut size = 0;
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish(), size)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..read]);
        size += read as u64;
    }
}

#[cfg(test)]
mod tests;
