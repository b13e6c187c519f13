//! The store on disk: every name and its meaning, format version 1. Owns the layout; refuses to touch anything.
//!
//! ```text
//! <root>/                          0700, owned by the user of the store
//!   rbuild-store                   "rbuild-store 1\n": written last when a store is made, checked first when opened
//!   oci-layout  index.json         with blobs/, an OCI image layout (image-spec, image-layout.md) of the named images
//!   blobs/sha256/<hex>             0600; content hashes to its name. Also blobs/sha512/<hex>
//!   layers/<form>/<layer id>/      0700 form directories; one overlay-ready directory per layer, immutable
//!   mounts/<hex>[.<n>]/            cache mounts; <hex> is the SHA-256 of the mount's id, <n> a private sibling
//!   tmp/<lease id>/                scratch of one lease; an flock(2) on the directory says that the lease lives, `held` what it holds
//!   tmp/                           its own flock(2): shared while something is found and held, exclusive while garbage is collected
//!   trash/<random>/                what is being deleted; nothing refers to it
//!   history/<hex>/                 one build that ran; <hex> is the SHA-256 of its id. `record`, and its blobs as `<algorithm>-<hex>`
//!   locks/key-<hex>                flock(2) files of cache keys, present only while wanted
//!   locks/mount-<hex>[.<n>]        flock(2) files of cache mounts
//!   index.db  -wal -shm -journal   SQLite: what the files are, how they were made, when they were used last
//! ```
//!
//! # Order of writing
//! A file is written under `tmp/`, and renamed to its final name inside the SQLite write transaction that adds its
//! row. That transaction is also the store's mutual exclusion: the kernel frees it when its holder dies. So a process
//! killed at any instant leaves either no name and no row, or a complete file without a row (an orphan: replaced by the next
//! writer of that name, adopted or removed by `fsck`), or both. Removal renames into `trash/` in the transaction
//! that deletes the row; emptying `trash/` needs no care.
//!
//! # Power loss
//! With [`crate::Durability::Lazy`] nothing waits for the disk. A row remembers the boot in which it was written. In a
//! later boot such a blob is hashed, and such a layer compared with its recorded names, types and sizes, before its first
//! use, and from then on is settled; what was lost is a cache miss. With [`crate::Durability::Full`] blobs are synced
//! before they get their name.
//!
//! # Versions
//! A binary that finds a higher version refuses the store and says so. A binary that finds a lower one converts it
//! under the root directory's `flock`, or refuses if it no longer can. The version changes when an older binary
//! would misread what a newer one writes; added tables and files do not change it. The schema of `index.db` has its
//! own number in `PRAGMA user_version`: an index of another number, or one that is no longer a database, is replaced, and
//! filled again from the files (cache records are then lost, images and blobs are not).

use std::path::{Path, PathBuf};

use rbuild_oci::Digest;

use crate::name::{FormName, LayerId};

/// Version of the layout drawn above.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// File that marks a directory as a store and holds [`FORMAT_VERSION`].
pub(crate) const MARKER: &str = "rbuild-store";
/// First word of the marker file.
pub(crate) const MARKER_WORD: &str = "rbuild-store";
/// `oci-layout`, byte for byte as other tools write it (image-spec, image-layout.md).
pub(crate) const OCI_LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";
/// Directories of a store.
pub(crate) const DIRS: [&str; 9] = [
    "blobs",
    "blobs/sha256",
    "blobs/sha512",
    "layers",
    "mounts",
    "tmp",
    "trash",
    "locks",
    "history",
];
/// Everything else at the top of a store.
pub(crate) const FILES: [&str; 7] = [
    MARKER,
    "oci-layout",
    "index.json",
    "index.db",
    "index.db-wal",
    "index.db-shm",
    "index.db-journal",
];

/// Paths of one store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn top(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        let mut path = self.root.join("blobs");
        path.push(digest.algorithm().name());
        path.push(digest.hex());
        path
    }

    pub(crate) fn form(&self, form: &FormName) -> PathBuf {
        self.root.join("layers").join(form.as_str())
    }

    pub(crate) fn layer(&self, form: &FormName, id: &LayerId) -> PathBuf {
        self.form(form).join(id.as_str())
    }
}
