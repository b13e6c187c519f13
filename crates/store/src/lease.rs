//! Leases: what a running build uses is not taken away from it, and what it leaves behind when it dies is.
//!
//! A lease is a directory `tmp/<id>` whose `flock(2)` is held. Everything the build writes begins in it. The names of layers and
//! blobs the build touches are written there (`holding.rs`) under the lock under which they were found, so the garbage
//! collector either sees the name or has already removed the thing, and then the touch says "not there".

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::Store;
use crate::error::{DiskError, StoreError};
use crate::holding::{self, HoldingsLock, Kind};
use crate::lock::is_still;
use crate::name::random_name;

/// Dead leases set aside when a store is opened.
const DEAD_MAX: usize = 64;

/// One build's claim on what it uses, and its scratch directory. Dropping it removes the scratch directory.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    purpose: String,
    dir: PathBuf,
    /// Held for its lock.
    lock: Option<File>,
    next: AtomicU64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// The file that tells others; made when there is something to tell.
    file: Option<File>,
    names: HashSet<(Kind, String)>,
    /// Held layers that were found whole. Nobody takes them away or changes them while the lease lives, so they are not
    /// looked at again: a build asks for the same layers before each of its steps.
    layers: HashMap<String, PathBuf>,
}

impl Store {
    /// Takes a lease; `purpose` is for whoever looks at the store.
    ///
    /// # Errors
    /// The file system's.
    pub fn lease(&self, purpose: &str) -> Result<Lease, DiskError> {
        loop {
            let at = self.layout().top("tmp");
            let id = random_name().map_err(|e| DiskError::new("name a file in", &at, e))?;
            let dir = at.join(&id);
            let lock = match make_private_dir(&dir)
                .and_then(|()| File::open(&dir).map_err(|e| DiskError::new("open", &dir, e)))
            {
                Ok(lock) => lock,
                // Taken as below, even earlier.
                Err(DiskError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound && at.is_dir() =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            rustix::fs::flock(&lock, FlockOperation::LockExclusive)
                .map_err(|e| DiskError::new("lock", &dir, e.into()))?;
            // Between its making and its locking it looks like a dead one; then another process may have taken it.
            if is_still(&dir, &lock)? {
                return Ok(Lease {
                    store: self.clone(),
                    purpose: purpose.to_owned(),
                    dir,
                    lock: Some(lock),
                    next: AtomicU64::new(0),
                    held: Mutex::default(),
                });
            }
        }
    }

    /// Moves the directories of dead leases, and with them what they held, to the trash; gives their number.
    pub(crate) fn collect_dead_leases(&self, max: usize) -> Result<usize, StoreError> {
        let tmp = self.layout().top("tmp");
        let mut dead = 0;
        for entry in std::fs::read_dir(&tmp).map_err(|e| DiskError::new("list", &tmp, e))? {
            let entry = entry.map_err(|e| DiskError::new("list", &tmp, e))?;
            if dead >= max {
                break;
            }
            let path = entry.path();
            let lock = match File::open(&path) {
                Ok(lock) => lock,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(DiskError::new("open", &path, error).into()),
            };
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => continue,
                Err(e) => return Err(DiskError::new("lock", &path, e.into()).into()),
            }
            if is_still(&path, &lock)? {
                self.discard(&path)?;
                dead += 1;
            }
        }
        Ok(dead)
    }

    pub(crate) fn collect_dead_leases_at_open(&self) -> Result<usize, StoreError> {
        self.collect_dead_leases(DEAD_MAX)
    }
}

impl Lease {
    /// The scratch directory, of mode 0700 and in the file system of the store.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The store it is a lease of.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// A path in the scratch directory that nothing has yet; `prefix` is for whoever looks.
    #[must_use]
    pub(crate) fn new_path(&self, prefix: &'static str) -> PathBuf {
        self.dir
            .join(format!("{prefix}-{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Makes a new directory of mode 0700 in the scratch directory.
    ///
    /// # Errors
    /// The file system's.
    pub fn new_dir(&self, prefix: &'static str) -> Result<PathBuf, DiskError> {
        let path = self.new_path(prefix);
        make_private_dir(&path)?;
        Ok(path)
    }

    pub(crate) fn is_held(&self, kind: Kind, name: &str) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.names.contains(&(kind, name.to_owned()))
    }

    /// Where a held layer is, if it was found whole before.
    pub(crate) fn known_layer(&self, name: &str) -> Option<PathBuf> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.layers.get(name).cloned()
    }

    /// Remembers where a held layer was found whole.
    pub(crate) fn note_layer(&self, name: String, path: PathBuf) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.layers.insert(name, path);
    }

    /// Holds what `names` say; the caller has seen that it is there, or is about to make it, while it had `_lock`.
    pub(crate) fn hold(&self, _lock: &HoldingsLock, kind: Kind, names: Vec<String>) -> Result<(), DiskError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match &mut held.file {
            Some(file) => file,
            none => none.insert(holding::create(&self.dir, &self.purpose)?),
        };
        holding::append(file, &self.dir, kind, &names)?;
        held.names.extend(names.into_iter().map(|name| (kind, name)));
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.store.flush_used();
        // A failure here leaves what a killed process leaves, and the next opener collects it.
        drop(self.store.remove_private(&self.dir));
        drop(self.lock.take());
    }
}

/// Makes a directory of mode 0700 whatever the umask.
pub(crate) fn make_private_dir(path: &Path) -> Result<(), DiskError> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|e| DiskError::new("make directory", path, e))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
        .map_err(|e| DiskError::new("set mode of", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::temporary_store;

    #[test]
    fn a_dropped_lease_leaves_nothing() {
        let (_dir, store) = temporary_store();
        let lease = store.lease("test").unwrap();
        let scratch = lease.new_dir("work").unwrap();
        std::fs::write(scratch.join("file"), "x").unwrap();
        assert_ne!(lease.new_path("work"), scratch);
        assert_eq!(
            store.collect_dead_leases(10).unwrap(),
            0,
            "a live lease is not dead"
        );
        assert!(scratch.exists());
        drop(lease);
        assert_eq!(std::fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(store.root().join("trash")).unwrap().count(), 0);
    }

    #[test]
    fn a_dead_lease_is_collected() {
        let (_dir, store) = temporary_store();
        let dead = store.root().join("tmp/0123");
        std::fs::create_dir_all(dead.join("deep/tree")).unwrap();
        let live = store.lease("test").unwrap();
        assert_eq!(store.collect_dead_leases(10).unwrap(), 1);
        assert!(!dead.exists() && live.dir().exists());
    }

    #[test]
    fn making_and_collecting_at_once_never_takes_a_live_lease() {
        let (_dir, store) = temporary_store();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    store.collect_dead_leases(100).unwrap();
                }
            });
            let maker = scope.spawn(|| {
                for _ in 0..300 {
                    let lease = store.lease("test").unwrap();
                    std::fs::write(lease.new_path("f"), "x").unwrap();
                    assert!(lease.dir().join("f-0").exists());
                }
            });
            let made = maker.join();
            done.store(true, Ordering::Relaxed);
            made.unwrap();
        });
    }
}
