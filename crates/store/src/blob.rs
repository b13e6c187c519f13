//! Blobs: files named by the hash of their content. Owns `blobs/`. A blob that is damaged is not there.
//!
//! A row keeps what `stat(2)` said when the content was last known to be right (size, inode, change time). As long as
//! that is unchanged, nobody has written to the file, and it is opened without hashing it again; otherwise it is hashed first.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rbuild_oci::{Algorithm, Digest};
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{DiskError, IndexError, StoreError};
use crate::holding::Kind;
use crate::lease::Lease;
use crate::lock::Sharing;
use crate::store::{Durability, Store, Used};

/// Writes smaller than this are collected.
const BUFFER_BYTES: usize = 128 * 1024;

/// Why a blob was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitBlobError {
    /// The content is not what was announced.
    #[error("content has digest {found}, expected {expected}")]
    Digest {
        /// What was announced.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The length is not what was announced.
    #[error("content has {found} bytes, expected {expected}")]
    Size {
        /// What was announced.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<IndexError> for CommitBlobError {
    fn from(error: IndexError) -> Self {
        Self::Store(error.into())
    }
}

impl From<DiskError> for CommitBlobError {
    fn from(error: DiskError) -> Self {
        Self::Store(error.into())
    }
}

/// A blob that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest::from_sha256(hash.finalize().into()),
            Self::Sha512(hash) => Digest::from_sha512(&hash.finalize().into()),
        }
    }
}

/// A blob being written. Dropped without [`BlobWriter::commit`], it leaves nothing.
pub struct BlobWriter<'l> {
    lease: &'l Lease,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    buffer: Vec<u8>,
    size: u64,
    done: bool,
}

impl std::fmt::Debug for BlobWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobWriter")
            .field("path", &self.path)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Begins a blob that will be named by its SHA-256.
    ///
    /// # Errors
    /// The file system's.
    pub fn blob_writer<'l>(&self, lease: &'l Lease) -> Result<BlobWriter<'l>, DiskError> {
        self.blob_writer_with(lease, Algorithm::Sha256)
    }

    /// Begins a blob that will be named by a hash of `algorithm`.
    ///
    /// # Errors
    /// The file system's.
    pub fn blob_writer_with<'l>(
        &self,
        lease: &'l Lease,
        algorithm: Algorithm,
    ) -> Result<BlobWriter<'l>, DiskError> {
        let path = lease.new_path("blob");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| DiskError::new("create", &path, e))?;
        let hasher = Hasher::new(algorithm);
        Ok(BlobWriter {
            lease,
            path,
            file,
            hasher,
            buffer: Vec::new(),
            size: 0,
            done: false,
        })
    }

    /// Writes a whole blob, unless it is there: a build that changes nothing exports what it exported before.
    ///
    /// # Errors
    /// Those of [`BlobWriter::commit`].
    pub fn put_blob(&self, lease: &Lease, bytes: &[u8]) -> Result<CommittedBlob, CommitBlobError> {
        // Where blobs have to be on the disk, one that is there may have been written by somebody who did not wait for it.
        if self.durability() == Durability::Lazy {
            let digest = Digest::sha256(bytes);
            if lease.hold_blob(&digest)? {
                let size = bytes.len() as u64;
                return Ok(CommittedBlob { digest, size });
            }
        }
        let mut writer = self.blob_writer(lease)?;
        let path = writer.path.clone();
        writer
            .write_all(bytes)
            .map_err(|e| DiskError::sized("write", &path, e, Some(bytes.len() as u64)))?;
        writer.commit(None, None)
    }

    /// Takes the content of a file that is not the store's: shared where the file system can (`FICLONE`), copied
    /// otherwise; never hard-linked, as whoever owns the file could then change the blob. Hashed from our copy.
    ///
    /// # Errors
    /// Those of [`BlobWriter::commit`].
    pub fn import_blob(
        &self,
        lease: &Lease,
        source: &File,
        expected: Option<&Digest>,
    ) -> Result<CommittedBlob, CommitBlobError> {
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let mut writer = self.blob_writer_with(lease, algorithm)?;
        let path = writer.path.clone();
        let fail = |verb| move |path: &Path, e| DiskError::new(verb, path, e);
        if rustix::fs::ioctl_ficlone(&writer.file, source).is_ok() {
            let mut file = &writer.file;
            let (digest, size) = hash_file(&mut file, algorithm).map_err(|e| fail("read")(&path, e))?;
            writer.size = size;
            writer.hasher = Hasher::new(algorithm);
            return writer.publish(digest, expected, None);
        }
        let mut source = source;
        io::Seek::seek(&mut source, io::SeekFrom::Start(0)).map_err(|e| fail("read for")(&path, e))?;
        io::copy(&mut source, &mut writer).map_err(|e| fail("write")(&path, e))?;
        writer.commit(expected, None)
    }

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
    pub fn verify_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
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

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            self.write_out(bytes)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let written = self.write_out(&buffer);
        self.buffer = buffer;
        self.buffer.clear();
        written
    }
}

impl BlobWriter<'_> {
    /// The file that the blob is written to, to be read beside the writing.
    ///
    /// # Errors
    /// The file system's.
    pub fn file_so_far(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Bytes that are in the file by now.
    #[must_use]
    pub const fn size_so_far(&self) -> u64 {
        self.size
    }

    /// Bytes written so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size + self.buffer.len() as u64
    }

    fn write_out(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Puts the blob into the store under its digest, held by the lease. What was there under that name is replaced.
    ///
    /// # Errors
    /// [`CommitBlobError::Digest`] or [`CommitBlobError::Size`] if it is not what was expected; nothing is left then.
    pub fn commit(
        mut self,
        expected: Option<&Digest>,
        expected_size: Option<u64>,
    ) -> Result<CommittedBlob, CommitBlobError> {
        self.flush().map_err(|e| DiskError::new("write", &self.path, e))?;
        let algorithm = match self.hasher {
            Hasher::Sha256(_) => Algorithm::Sha256,
            Hasher::Sha512(_) => Algorithm::Sha512,
        };
        let found = std::mem::replace(&mut self.hasher, Hasher::new(algorithm)).finish();
        self.publish(found, expected, expected_size)
    }

    fn publish(
        mut self,
        found: Digest,
        expected: Option<&Digest>,
        expected_size: Option<u64>,
    ) -> Result<CommittedBlob, CommitBlobError> {
        if let Some(expected) = expected_size.filter(|size| *size != self.size) {
            return Err(CommitBlobError::Size {
                expected,
                found: self.size,
            });
        }
        if let Some(expected) = expected.filter(|digest| **digest != found) {
            return Err(CommitBlobError::Digest {
                expected: expected.clone(),
                found,
            });
        }
        let store = self.lease.store();
        let durable = store.durability() == Durability::Full;
        if durable {
            self.file
                .sync_data()
                .map_err(|e| DiskError::new("sync", &self.path, e))?;
        }
        let target = store.layout().blob(&found);
        let names = vec![found.as_str().to_owned()];
        crate::fault::point("blob before rename");
        let lock = store.lock_holdings(Sharing::Shared)?;
        self.lease.hold(&lock, Kind::Blob, names)?;
        store.index().write("add blob", |tables| {
            std::fs::rename(&self.path, &target).map_err(|e| DiskError::new("rename to", &target, e))?;
            self.done = true;
            crate::fault::point("blob renamed");
            // After the rename: it changes the change time.
            let stat = self.file.metadata().map_err(|e| DiskError::new("stat", &target, e))?;
            let stamp = Stamp::of(&stat);
            let now = store.now();
            tables.run(
                "INSERT INTO blob(digest, size, inode, ctime_ns, created, used, boot) VALUES(?1, ?2, ?3, ?4, ?5, ?5, ?6)
                 ON CONFLICT(digest) DO UPDATE SET size = ?2, inode = ?3, ctime_ns = ?4, used = ?5, boot = ?6",
                (
                    found.as_str(),
                    stamp.size.cast_signed(),
                    stamp.inode,
                    stamp.ctime_ns,
                    now,
                    (!durable).then(|| store.boot()),
                ),
            )?;
            Ok::<_, CommitBlobError>(())
        })?;
        crate::fault::point("blob committed");
        drop(lock);
        if durable && let Some(dir) = target.parent() {
            let sync = File::open(dir).and_then(|dir| dir.sync_all());
            sync.map_err(|e| DiskError::new("sync", dir, e))?;
        }
        Ok(CommittedBlob {
            digest: found,
            size: self.size,
        })
    }
}

impl Drop for BlobWriter<'_> {
    fn drop(&mut self) {
        if !self.done {
            // What stays is in the lease's scratch directory and goes with it.
            drop(std::fs::remove_file(&self.path));
        }
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
