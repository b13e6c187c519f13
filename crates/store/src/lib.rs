//! The store: blobs, layer directories, cache records, images and cache mounts of one user, shared by any number of
//! processes.
//!
//! Level 1. Files first, rows second: see [`mod@format`] for the layout and for why a process may be killed at any
//! instant. What is damaged or missing is a cache miss, never a failed build. Knows nothing of tar, compression,
//! registries or mounts; synchronous; `Send + Sync`.
//!
//! ```
//! use rbuild_store::{OpenOptions, Store};
//! # let dir = std::env::temp_dir().join(format!("rbuild-store-doc-{}", std::process::id()));
//! let store = Store::open(&dir, &OpenOptions::default())?;
//! let lease = store.lease("example")?;
//! let blob = store.put_blob(&lease, b"content")?;
//! assert_eq!(store.has_blob(&blob.digest)?, Some(7));
//! # drop(lease);
//! # std::fs::remove_dir_all(dir)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod blob;
mod error;
mod fault;
pub mod format;
mod fsck;
mod gc;
mod history;
mod holding;
mod image;
mod index;
mod layer;
mod lease;
mod lock;
mod mount;
mod name;
mod open;
mod record;
mod store;
#[cfg(test)]
mod testing;
mod trash;
mod usage;

pub use blob::{BlobWriter, CommitBlobError, CommittedBlob};
pub use error::{DiskError, IndexError, StoreError, says_full};
pub use fsck::{FsckOptions, Problem, ProblemKind};
pub use gc::{Collected, GcPolicy};
pub use history::{HistoryBlob, HistoryEntry};
pub use image::{ImageError, ImageRecord, names_at};
pub use layer::{DiffBlob, LayerFacts};
pub use lease::Lease;
pub use lock::KeyLock;
pub use mount::{CacheMountGuard, MountError, MountOwner, MountRequest, MountSharing};
pub use name::{FormName, LayerId, NameError};
pub use open::OpenError;
pub use open::exposed::{Exposed, exposed};
pub use record::{LayerEntry, Record};
pub use store::{Clock, Durability, OpenOptions, Store};
pub use usage::{Usage, UsageEntry, UsageKind};
