//! Writing of blobs: hashed on the way, and put under its name when it is whole and what was announced.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use rbuild_oci::{Algorithm, Digest};
use sha2::{Digest as _, Sha256, Sha512};

use super::{BUFFER_BYTES, Stamp};
use crate::error::{DiskError, IndexError, StoreError};
use crate::holding::Kind;
use crate::lease::Lease;
use crate::lock::Sharing;
use crate::store::{Durability, Store};

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

/// A hash at work.
pub(super) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest::from_sha256(hash.finalize().into()),
            Self::Sha512(hash) => Digest::from_sha512(&hash.finalize().into()),
        }
    }
}
