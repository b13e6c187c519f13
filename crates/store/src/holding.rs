//! What live leases hold: a file of names in each lease's scratch directory. Owns the file and its lock; refuses nothing.
//!
//! A build that finds everything in its cache holds dozens of things for some milliseconds. Were that rows of the index, each
//! would be a write transaction, and some builds later a wait for the disk. Names in a file need neither: after a power
//! failure no lease is alive.
//!
//! `flock(2)` on the directory `tmp` makes the two sides exclude each other: whoever looks for a thing and writes its name shares
//! it, so several builds hold at once; the garbage collector has it alone from reading the names until the rows of what nobody
//! holds are gone. It is taken before the index is locked, never inside a transaction.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::Store;
use crate::error::DiskError;
use crate::lock::Sharing;

/// The file in the scratch directory. What else is there has a `-` in its name.
const FILE: &str = "held";

/// What a lease can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Blob,
    Layer,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Layer => "layer",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        [Self::Blob, Self::Layer]
            .into_iter()
            .find(|kind| kind.word() == word)
    }
}

/// The right to hold things, or to read what is held and take away the rest.
#[derive(Debug)]
pub(crate) struct HoldingsLock {
    /// Held for its lock.
    _dir: File,
}

impl Store {
    /// Waits for the lock: [`Sharing::Shared`] to hold, [`Sharing::Exclusive`] to collect. The index must not be locked by
    /// this thread.
    pub(crate) fn lock_holdings(&self, sharing: Sharing) -> Result<HoldingsLock, DiskError> {
        let at = self.layout().top("tmp");
        let dir = File::open(&at).map_err(|e| DiskError::new("open", &at, e))?;
        let operation = match sharing {
            Sharing::Shared => FlockOperation::LockShared,
            Sharing::Exclusive => FlockOperation::LockExclusive,
        };
        loop {
            match rustix::fs::flock(&dir, operation) {
                Ok(()) => return Ok(HoldingsLock { _dir: dir }),
                Err(Errno::INTR) => {}
                Err(e) => return Err(DiskError::new("lock", &at, e.into())),
            }
        }
    }

    /// What all leases hold, those of dead processes included until they are collected. With an exclusive lock it stays
    /// true for as long as that is kept; without one it is what somebody looking sees.
    pub(crate) fn holdings(&self) -> Result<HashSet<(Kind, String)>, DiskError> {
        let tmp = self.layout().top("tmp");
        let mut held = HashSet::new();
        for entry in std::fs::read_dir(&tmp).map_err(|e| DiskError::new("list", &tmp, e))? {
            let path = entry
                .map_err(|e| DiskError::new("list", &tmp, e))?
                .path()
                .join(FILE);
            match std::fs::read_to_string(&path) {
                Ok(text) => held.extend(text.lines().filter_map(parse)),
                // It holds nothing, or has ended.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(DiskError::new("read", &path, error)),
            }
        }
        Ok(held)
    }
}

/// Makes the file of a lease; its first line is for whoever looks at the store.
pub(crate) fn create(dir: &Path, purpose: &str) -> Result<File, DiskError> {
    let path = dir.join(FILE);
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| DiskError::new("create", &path, e))?;
    let purpose = purpose.replace(['\n', '\r'], " ");
    let line = format!("lease {} {purpose}\n", std::process::id());
    file.write_all(line.as_bytes())
        .map_err(|e| DiskError::new("write", &path, e))?;
    Ok(file)
}

/// Adds names, in one write. It begins a line of its own: of a write that failed, on a disk that is full, a part may be there.
pub(crate) fn append(file: &mut File, dir: &Path, kind: Kind, names: &[String]) -> Result<(), DiskError> {
    let names = names.iter().flat_map(|name| [kind.word(), " ", name, "\n"]);
    let lines: String = std::iter::once("\n").chain(names).collect();
    file.write_all(lines.as_bytes())
        .map_err(|e| DiskError::new("write", &dir.join(FILE), e))
}

fn parse(line: &str) -> Option<(Kind, String)> {
    let (word, name) = line.split_once(' ')?;
    Some((Kind::of_word(word)?, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::temporary_store;

    #[test]
    fn what_leases_hold_is_read_back_until_they_end() {
        let (_dir, store) = temporary_store();
        assert!(store.holdings().unwrap().is_empty());
        let (one, two) = (
            store.lease("a\nblob sha256:x").unwrap(),
            store.lease("b").unwrap(),
        );
        let lock = store.lock_holdings(Sharing::Shared).unwrap();
        let layer = "trusted/0123".to_owned();
        one.hold(&lock, Kind::Layer, vec![layer.clone()]).unwrap();
        two.hold(&lock, Kind::Layer, vec![layer.clone()]).unwrap();
        two.hold(&lock, Kind::Blob, vec![layer.clone()]).unwrap();
        drop(lock);
        let both = [(Kind::Layer, layer.clone()), (Kind::Blob, layer.clone())];
        assert_eq!(store.holdings().unwrap(), HashSet::from(both.clone()));
        drop(two);
        assert_eq!(store.holdings().unwrap(), HashSet::from([both[0].clone()]));
        drop(one);
        assert!(store.holdings().unwrap().is_empty());
    }

    #[test]
    fn what_is_held_after_a_write_that_failed_half_way_is_held() {
        let (_dir, store) = temporary_store();
        let lease = store.lease("a full disk").unwrap();
        let hold = |name: &str| {
            let lock = store.lock_holdings(Sharing::Shared).unwrap();
            lease.hold(&lock, Kind::Layer, vec![name.to_owned()]).unwrap();
        };
        hold("root/one");
        let mut file = OpenOptions::new()
            .append(true)
            .open(lease.dir().join(FILE))
            .unwrap();
        file.write_all(b"layer root/tor").unwrap();
        hold("root/two");
        let held = store.holdings().unwrap();
        for name in ["root/one", "root/two"] {
            assert!(held.contains(&(Kind::Layer, name.to_owned())), "{name}: {held:?}");
        }
    }

    #[test]
    fn holders_share_and_a_collector_is_alone() {
        let (_dir, store) = temporary_store();
        let first = store.lock_holdings(Sharing::Shared).unwrap();
        let second = store.lock_holdings(Sharing::Shared).unwrap();
        let alone = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let collector = scope.spawn(|| {
                let lock = store.lock_holdings(Sharing::Exclusive).unwrap();
                alone.store(true, std::sync::atomic::Ordering::SeqCst);
                drop(lock);
            });
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!alone.load(std::sync::atomic::Ordering::SeqCst));
            drop((first, second));
            collector.join().unwrap();
        });
        assert!(alone.into_inner());
    }
}
