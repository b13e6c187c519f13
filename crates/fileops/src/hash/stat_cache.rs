//! What is remembered of files between builds: leaf digests by what `stat(2)` said of them. Loaded and stored as one
//! blob, since a build that finds nothing changed asks for all of it. Whether an entry may be trusted is decided by
//! the hash, before it is put in.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rustix::fs::Stat;

/// What makes a file the same one with the same content: any change of it changes one of these, given that it is
/// not changed within the time stamp's resolution (which the racy guard sees to).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatKey {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Change of content or metadata, nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Change of content, nanoseconds since 1970.
    pub mtime_ns: i64,
}

impl StatKey {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
            mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        }
    }
}

fn nanoseconds(seconds: i64, nanoseconds: u64) -> i64 {
    let nanoseconds = i64::try_from(nanoseconds).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// Remembers leaf digests. One cache belongs to one root (a context directory): a key says nothing about another.
pub trait StatCache: Send + Sync {
    /// The digest of a file that was hashed before.
    fn get(&self, key: &StatKey) -> Option<[u8; 32]>;
    /// Remembers digests of files that were hashed now.
    fn put(&self, entries: Vec<(StatKey, [u8; 32])>);
}

/// Remembers nothing: for snapshots, whose hashes the builder keeps by the snapshot's own name.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoStatCache;

impl StatCache for NoStatCache {
    fn get(&self, _key: &StatKey) -> Option<[u8; 32]> {
        None
    }

    fn put(&self, _entries: Vec<(StatKey, [u8; 32])>) {}
}

/// A cache of one context, kept as one blob.
///
/// Format: `rbuild stat table 2\0`, then records of 72 bytes sorted by key: dev, ino, size, ctime, mtime (8 bytes
/// each, little endian), digest (32 bytes). Whatever else the bytes are, they are an empty table; those of version 1
/// had digests of another kind.
#[derive(Debug, Default)]
pub struct StatTable {
    loaded: Vec<u8>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    added: HashMap<StatKey, [u8; 32]>,
    /// Bit per loaded record: it was asked for.
    used: Vec<u64>,
}

const MAGIC: &[u8] = b"rbuild stat table 2\0";
const RECORD_BYTES: usize = 72;

impl StatTable {
    /// Reads a table back. Damaged or foreign bytes give an empty one: it is only a cache.
    #[must_use]
    pub fn load(bytes: &[u8]) -> Self {
        let records = bytes.strip_prefix(MAGIC).unwrap_or_default();
        let sorted = records.len().is_multiple_of(RECORD_BYTES)
            && records
                .chunks_exact(RECORD_BYTES)
                .is_sorted_by_key(|record| decode(record).0);
        let loaded = if sorted { records.to_vec() } else { Vec::new() };
        let count = loaded.len() / RECORD_BYTES;
        let state = State {
            added: HashMap::new(),
            used: vec![0; count.div_ceil(64)],
        };
        Self {
            loaded,
            state: Mutex::new(state),
        }
    }

    /// The table to store: what was used or added, so that it does not grow with files that are gone. `None` if it
    /// is what was loaded.
    #[must_use]
    pub fn save(&self) -> Option<Vec<u8>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.loaded.len() / RECORD_BYTES;
        let is_used = |i: usize| state.used[i / 64] & (1 << (i % 64)) != 0;
        if state.added.is_empty() && (0..count).all(is_used) {
            return None;
        }
        let kept = (0..count).filter(|i| is_used(*i)).map(|i| decode(self.record(i)));
        let mut all: Vec<(StatKey, [u8; 32])> =
            kept.filter(|(key, _)| !state.added.contains_key(key)).collect();
        all.extend(state.added.iter().map(|(key, digest)| (*key, *digest)));
        all.sort_unstable();
        let mut out = Vec::with_capacity(MAGIC.len() + all.len() * RECORD_BYTES);
        out.extend_from_slice(MAGIC);
        for (key, digest) in &all {
            for word in [key.dev, key.ino, key.size] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            for word in [key.ctime_ns, key.mtime_ns] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            out.extend_from_slice(digest);
        }
        Some(out)
    }

    fn record(&self, i: usize) -> &[u8] {
        &self.loaded[i * RECORD_BYTES..(i + 1) * RECORD_BYTES]
    }
}

impl StatCache for StatTable {
    fn get(&self, key: &StatKey) -> Option<[u8; 32]> {
        let count = self.loaded.len() / RECORD_BYTES;
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = usize::midpoint(low, high);
            if decode_key(self.record(middle)) < *key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if low < count {
            let (found, digest) = decode(self.record(low));
            if found == *key {
                state.used[low / 64] |= 1 << (low % 64);
                return Some(digest);
            }
        }
        state.added.get(key).copied()
    }

    fn put(&self, entries: Vec<(StatKey, [u8; 32])>) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .added
            .extend(entries);
    }
}

fn decode(record: &[u8]) -> (StatKey, [u8; 32]) {
    let mut digest = [0; 32];
    digest.copy_from_slice(&record[40..72]);
    (decode_key(record), digest)
}

fn decode_key(record: &[u8]) -> StatKey {
    let word = |i: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&record[i * 8..i * 8 + 8]);
        bytes
    };
    StatKey {
        dev: u64::from_le_bytes(word(0)),
        ino: u64::from_le_bytes(word(1)),
        size: u64::from_le_bytes(word(2)),
        ctime_ns: i64::from_le_bytes(word(3)),
        mtime_ns: i64::from_le_bytes(word(4)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(ino: u64) -> StatKey {
        StatKey {
            dev: 1,
            ino,
            size: 3,
            ctime_ns: -5,
            mtime_ns: 7,
        }
    }

    #[test]
    fn a_table_comes_back_and_forgets_what_was_not_used() {
        let table = StatTable::load(b"");
        assert_eq!(table.save(), None, "nothing known, nothing to store");
        table.put((0..100).rev().map(|i| (key(i), [i as u8; 32])).collect());
        let bytes = table.save().unwrap();
        let again = StatTable::load(&bytes);
        for i in 0..100 {
            assert_eq!(again.get(&key(i)), Some([i as u8; 32]));
        }
        assert_eq!(again.get(&key(100)), None);
        assert_eq!(again.save(), None, "all used, none added");
        let partly = StatTable::load(&bytes);
        assert!(partly.get(&key(5)).is_some());
        assert_eq!(partly.save().unwrap().len(), MAGIC.len() + RECORD_BYTES);
    }

    #[test]
    fn foreign_bytes_are_an_empty_table() {
        let table = StatTable::load(b"");
        table.put(vec![(key(1), [1; 32]), (key(2), [2; 32])]);
        let good = table.save().unwrap();
        let mut swapped = good.clone();
        swapped[MAGIC.len()..].rotate_left(RECORD_BYTES);
        for bytes in [&good[..good.len() - 1], &good[1..], b"x".as_slice(), &swapped] {
            assert_eq!(StatTable::load(bytes).get(&key(1)), None);
        }
    }
}
