//! What any operation of the store can run into. Owns the reading of "the disk is full" out of the kernel's and SQLite's
//! answers.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rbuild_sys::TreeError;
use rustix::io::Errno;

/// The file system refused.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No space (`ENOSPC`) or the user's quota is used up (`EDQUOT`).
    #[error("no space left for {path:?}: {free_bytes} bytes free{}", needed(*.needed_bytes))]
    Full {
        /// What was written.
        path: PathBuf,
        /// Bytes that were still to be written, where known.
        needed_bytes: Option<u64>,
        /// Bytes the file system has left for this user.
        free_bytes: u64,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Any other answer.
    #[error("{verb} {path:?}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On which path.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A tree could not be visited or removed.
    #[error("in {path:?}")]
    Tree {
        /// Top of the tree.
        path: PathBuf,
        /// What happened where.
        #[source]
        source: TreeError,
    },
}

fn needed(bytes: Option<u64>) -> String {
    bytes.map(|n| format!(", {n} needed")).unwrap_or_default()
}

impl DiskError {
    pub(crate) fn new(verb: &'static str, path: &Path, source: io::Error) -> Self {
        Self::sized(verb, path, source, None)
    }

    pub(crate) fn sized(
        verb: &'static str,
        path: &Path,
        source: io::Error,
        needed_bytes: Option<u64>,
    ) -> Self {
        let errno = Errno::from_io_error(&source);
        if errno == Some(Errno::NOSPC) || errno == Some(Errno::DQUOT) {
            return Self::Full {
                path: path.to_owned(),
                needed_bytes,
                free_bytes: free_bytes(path),
                source,
            };
        }
        Self::Io {
            verb,
            path: path.to_owned(),
            source,
        }
    }
}

/// Bytes an unprivileged user can still write where `path` is (or would be); 0 if that cannot be asked.
pub(crate) fn free_bytes(path: &Path) -> u64 {
    path.ancestors()
        .find_map(|dir| rustix::fs::statvfs(dir).ok())
        .map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The index refused.
#[derive(Debug, thiserror::Error)]
#[error("index: {verb}")]
pub struct IndexError {
    /// What was tried.
    pub verb: &'static str,
    /// SQLite's answer.
    #[source]
    pub source: rusqlite::Error,
}

impl IndexError {
    /// Whether `index.db` is no longer a database.
    #[must_use]
    pub(crate) fn is_damaged(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        matches!(
            self.source.sqlite_error_code(),
            Some(DatabaseCorrupt | NotADatabase)
        )
    }
}

/// What every operation of the store can fail with.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Whether `cause` is how the kernel or SQLite says that there is no space. Asked of each cause of an error: what passes an
/// error on as it is hides the type of that one, not what that one came from.
#[must_use]
pub fn says_full(cause: &(dyn Error + 'static)) -> bool {
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    }
    cause
        .downcast_ref::<rusqlite::Error>()
        .is_some_and(|error| error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull))
}
