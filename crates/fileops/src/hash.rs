//! Content hashes of what a copy or a mount reads: the part of a cache key that says what the files are. Covers
//! exactly what a copy of the same selection would copy (the same walk decides), and of each entry its name, type,
//! mode, owner, size, device numbers, link target, attributes and content; never times, and not which names share
//! an inode (`cache/contenthash`).
//!
//! The format is a tree: an entry's *leaf* is the digest of content and attributes (what a [`StatCache`] keeps), a
//! directory's digest covers its children's names, headers and digests, and the selection's digest covers its matches.

mod leaf;
mod node;
mod stat_cache;
mod tree;

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rbuild_oci::Digest;
use sha2::{Digest as _, Sha256};

pub use crate::hash::stat_cache::{NoStatCache, StatCache, StatKey, StatTable};
use crate::select::{self, Required, SelectError, Selector};
use crate::source::SourceTree;
use crate::walk::WalkError;

/// How much a selection holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ContextStats {
    /// Files, links and special files.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Bytes of regular files.
    pub bytes: u64,
    /// Files that were read because the stat cache did not know them.
    pub files_read: u64,
    /// Bytes of those.
    pub bytes_read: u64,
}

/// The hash of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentHash {
    /// The hash.
    pub digest: Digest,
    /// What it covers.
    pub stats: ContextStats,
}

/// Why a selection could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// What is hashed could not be found.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// It could not be walked.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// A file could not be read.
    #[error("{path:?}: {verb}")]
    Read {
        /// What was tried.
        verb: &'static str,
        /// Path inside the source.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

impl HashError {
    /// The missing source, if that is what went wrong.
    #[must_use]
    pub fn missing(&self) -> Option<&crate::MissingSource> {
        match self {
            Self::Select(SelectError::Locate(crate::LocateError::Missing(missing))) => Some(missing),
            _ => None,
        }
    }
}

impl ContentHash {
    /// Hashes what `selector` names in `source`. Patterns that find nothing have a hash too, be it that where they begin is not
    /// there (`cache/contenthash/checksum.go`, `includedPaths`).
    ///
    /// # Errors
    /// [`HashError`]; a literal source without patterns, or a required path, that is not there is one.
    pub fn of(
        source: &SourceTree,
        selector: &Selector<'_>,
        cache: &dyn StatCache,
    ) -> Result<Self, HashError> {
        let filter = select::filter(selector)?;
        let mut required = Required::new(selector);
        let matches = match select::matches(source, selector) {
            Err(SelectError::Locate(crate::LocateError::Missing(_)))
                if selector.is_by_pattern() && selector.required_paths.is_empty() =>
            {
                Vec::new()
            }
            found => found.map_err(|error| required.instead_of(error, source))?,
        };
        let mut stats = ContextStats::default();
        let mut hasher = Sha256::new();
        hasher.update(b"rbuild selection 1\0");
        for matched in &matches {
            let (header, digest, counted) =
                tree::hash(source, &matched.located, &filter, cache, &mut required)?;
            framed(&mut hasher, key_bytes(&matched.key));
            hasher.update(header);
            hasher.update(digest);
            stats.add(counted);
        }
        required.check(source).map_err(SelectError::from)?;
        Ok(Self {
            digest: Digest::from_sha256(hasher.finalize().into()),
            stats,
        })
    }
}

impl ContextStats {
    fn add(&mut self, other: Self) {
        self.files += other.files;
        self.dirs += other.dirs;
        self.bytes += other.bytes;
        self.files_read += other.files_read;
        self.bytes_read += other.bytes_read;
    }
}

fn key_bytes(key: &Path) -> &[u8] {
    key.as_os_str().as_bytes()
}

fn framed(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update((bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}
