//! An open store: what all its parts share. Owns the time, the boot, the noted uses and the syncing.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::IndexError;
use crate::format::Layout;
use crate::index::Index;

/// Last-use marks kept in memory before they are written.
const USED_MAX: usize = 4096;
/// A use within this time of the recorded one is not recorded, milliseconds.
const USED_GRAIN_MS: i64 = 60_000;

/// An open store. Cheap to clone; any thread may use it. It must not be used in a forked child that has not called
/// `exec`.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    index: Index,
    boot: String,
    options: OpenOptions,
    used: Mutex<HashMap<(Used, String), i64>>,
}

/// How a store is used by this process.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// What a committed blob has survived.
    pub durability: Durability,
    /// Where times come from.
    pub clock: Clock,
}

/// When blobs are synced. Either way a killed process loses nothing and a power failure damages nothing: what was
/// lost is found out and is a cache miss (see [`crate::format`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Nothing waits for the disk: after a power failure what is there is looked at before its first use.
    #[default]
    Lazy,
    /// A blob is on the disk (`fdatasync`, then its directory) before its commit returns.
    Full,
}

/// A clock, so that tests can move time.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system's.
    #[default]
    System,
    /// Milliseconds since 1970, as set.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    fn now(&self) -> i64 {
        match self {
            Self::Manual(at) => at.load(Ordering::SeqCst),
            Self::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)),
        }
    }
}

/// Tables whose last use is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Used {
    Blob,
    Layer,
    Record,
    Alias,
}

impl Store {
    pub(crate) fn of_parts(layout: Layout, index: Index, boot: String, options: OpenOptions) -> Self {
        let used = Mutex::default();
        let inner = Inner {
            layout,
            index,
            boot,
            options,
            used,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The directory, resolved.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.inner.layout.root()
    }

    /// Bytes this user can still write into the store's file system.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        crate::error::free_bytes(self.root())
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    pub(crate) fn index(&self) -> &Index {
        &self.inner.index
    }

    /// Id of this boot of the machine; empty if unknown.
    #[must_use]
    pub fn boot(&self) -> &str {
        &self.inner.boot
    }

    /// Whether a file written in `boot` (`None`: synced) needs no second look.
    pub(crate) fn is_settled(&self, boot: Option<&str>) -> bool {
        boot.is_none_or(|boot| boot == self.boot() && !boot.is_empty())
    }

    pub(crate) fn durability(&self) -> Durability {
        self.inner.options.durability
    }

    pub(crate) fn now(&self) -> i64 {
        self.inner.options.clock.now()
    }

    /// Notes a use, to be written with others.
    pub(crate) fn note_used(&self, table: Used, key: &str, recorded_ms: i64) {
        let now = self.now();
        if now.saturating_sub(recorded_ms) < USED_GRAIN_MS {
            return;
        }
        let full = {
            let mut used = self.inner.used.lock().unwrap_or_else(PoisonError::into_inner);
            used.insert((table, key.to_owned()), now);
            used.len() >= USED_MAX
        };
        if full {
            self.flush_used();
        }
    }

    /// Writes the noted uses. They are hints: a failure only makes something look less used than it is.
    pub(crate) fn flush_used(&self) {
        self.inner.flush_used();
    }
}

impl Inner {
    fn flush_used(&self) {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        if used.is_empty() {
            return;
        }
        let written: Result<(), IndexError> = self.index.write("note last use", |tables| {
            for ((table, key), at) in &used {
                let sql = match table {
                    Used::Blob => "UPDATE blob SET used = max(used, ?2) WHERE digest = ?1",
                    Used::Layer => "UPDATE layer SET used = max(used, ?2) WHERE form || '/' || id = ?1",
                    Used::Record => "UPDATE record SET used = max(used, ?2) WHERE key = ?1",
                    Used::Alias => "UPDATE alias SET used = max(used, ?2) WHERE alias = ?1",
                };
                tables.run(sql, (key, at))?;
            }
            Ok(())
        });
        drop(written);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.flush_used();
    }
}
