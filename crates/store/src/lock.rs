//! Locks between processes, kept by `flock(2)`: the kernel frees them when their holder ends, however it ends.
//!
//! A lock file may be unlinked by its holder. Whoever got the lock therefore checks that the path still leads to the
//! file it locked, and begins again otherwise: two holders of one name cannot be.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rbuild_oci::Digest;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::Store;
use crate::error::DiskError;

/// First and longest pause between two tries of a lock that is held.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(25);

/// Who else may hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    Shared,
    Exclusive,
}

/// A held lock file.
#[derive(Debug)]
pub(crate) struct FileLock {
    path: PathBuf,
    /// Held for its lock.
    _file: File,
}

impl FileLock {
    /// `None` if somebody else has it.
    pub(crate) fn try_take(path: &Path, sharing: Sharing) -> Result<Option<Self>, DiskError> {
        let operation = match sharing {
            Sharing::Shared => FlockOperation::NonBlockingLockShared,
            Sharing::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
                .open(path)
                .map_err(|e| DiskError::new("open lock", path, e))?;
            match rustix::fs::flock(&file, operation) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(e) => return Err(DiskError::new("lock", path, e.into())),
            }
            if is_still(path, &file)? {
                return Ok(Some(Self {
                    path: path.to_owned(),
                    _file: file,
                }));
            }
        }
    }

    /// Removes the file and gives the lock back. Only for exclusive holders.
    pub(crate) fn remove(self) {
        // Should that fail the file stays, empty and unlocked: the next holder uses it.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Whether `path` leads to `file`.
pub(crate) fn is_still(path: &Path, file: &File) -> Result<bool, DiskError> {
    let held = file.metadata().map_err(|e| DiskError::new("stat", path, e))?;
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DiskError::new("stat", path, error)),
    }
}

/// Calls `attempt` until it gives something or `cancelled` says so, with growing pauses.
pub(crate) fn poll<T, E>(
    cancelled: &dyn Fn() -> bool,
    mut attempt: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let mut pause = PAUSE_FIRST;
    loop {
        if let Some(value) = attempt()? {
            return Ok(Some(value));
        }
        if cancelled() {
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The right to produce the result of one cache key. Given back when dropped, or when the process ends.
#[derive(Debug)]
pub struct KeyLock {
    lock: Option<FileLock>,
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            lock.remove();
        }
    }
}

impl Store {
    /// Takes the right to produce the result of `key`, so that a step that several builds share runs once: whoever gets
    /// the lock looks the key up again before running. `None` if another holds it.
    ///
    /// # Errors
    /// The file system's.
    pub fn try_lock_key(&self, key: &Digest) -> Result<Option<KeyLock>, DiskError> {
        let path = self.layout().top("locks").join(format!("key-{}", key.hex()));
        let lock = FileLock::try_take(&path, Sharing::Exclusive)?;
        Ok(lock.map(|lock| KeyLock { lock: Some(lock) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::temporary_store;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn one_holder_at_a_time_while_files_come_and_go() {
        let (_dir, store) = temporary_store();
        let key = Digest::sha256(b"key");
        let inside = AtomicUsize::new(0);
        let turns = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let lock = poll(&|| false, || store.try_lock_key(&key)).unwrap().unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two holders");
                        turns.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!(turns.load(Ordering::SeqCst), 400);
        assert_eq!(
            std::fs::read_dir(store.root().join("locks")).unwrap().count(),
            0,
            "no file is left"
        );
    }

    #[test]
    fn a_held_key_is_not_given_and_other_keys_are_free() {
        let (_dir, store) = temporary_store();
        let key = Digest::sha256(b"key");
        let held = store.try_lock_key(&key).unwrap().unwrap();
        assert!(store.try_lock_key(&key).unwrap().is_none());
        assert!(poll(&|| true, || store.try_lock_key(&key)).unwrap().is_none());
        assert!(store.try_lock_key(&Digest::sha256(b"other")).unwrap().is_some());
        drop(held);
        assert!(store.try_lock_key(&key).unwrap().is_some());
    }
}
