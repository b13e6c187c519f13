//! Builds that ran: what a server keeps of each, outside of what garbage collection looks at. Owns `history/`; refuses
//! to know what a record says.
//!
//! A build is one directory with its record and its blobs, made in the scratch of a lease and renamed into place: it is
//! whole or absent, and goes as a whole. No blob is shared by two builds, so nothing is counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rbuild_oci::Digest;

use crate::error::DiskError;
use crate::lease::{Lease, make_private_dir};
use crate::open::write_file;
use crate::store::Store;
use crate::usage::names;

/// File of the record.
const RECORD: &str = "record";
/// Largest record.
const RECORD_BYTES_MAX: u64 = 2 << 20;
/// How often a name is taken by others before it is given up.
const TRIES: usize = 8;

/// A build that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// What was kept of it.
    pub record: Vec<u8>,
    /// Bytes of the record and of its blobs.
    pub bytes: u64,
}

/// A blob of a build that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryBlob {
    /// Its name.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// When it was written, milliseconds since 1970.
    pub created_ms: i64,
}

impl Store {
    /// Keeps a build under its id, in place of one that has it already.
    ///
    /// # Errors
    /// The file system's; [`DiskError::Io`] of kind `InvalidInput` for a record above 2 MiB.
    pub fn put_history(
        &self,
        lease: &Lease,
        id: &str,
        record: &[u8],
        blobs: &[(Digest, Vec<u8>)],
    ) -> Result<(), DiskError> {
        let new = lease.new_dir("history")?;
        check_size(&new, record)?;
        for (digest, bytes) in blobs {
            write_file(&new.join(blob_name(digest)), bytes, false)?;
        }
        write_file(&new.join(RECORD), record, false)?;
        let dir = self.layout().top("history");
        // A store that is older than the history has no place for it.
        if !dir.is_dir()
            && let Err(error) = make_private_dir(&dir)
            && !dir.is_dir()
        {
            return Err(error);
        }
        let place = self.history_place(id);
        for _ in 0..TRIES {
            match std::fs::rename(&new, &place) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                    self.discard(&place)?;
                }
                Err(error) => return Err(DiskError::new("name", &place, error)),
            }
        }
        let busy = std::io::ErrorKind::ResourceBusy.into();
        Err(DiskError::new("name", &place, busy))
    }

    /// Changes the record of a build. `false` if there is none.
    ///
    /// # Errors
    /// As of [`Store::put_history`].
    pub fn change_history(&self, id: &str, record: &[u8]) -> Result<bool, DiskError> {
        let place = self.history_place(id);
        check_size(&place, record)?;
        match write_file(&place.join(RECORD), record, false) {
            Ok(()) => Ok(true),
            Err(DiskError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Forgets a build. `false` if there is none.
    ///
    /// # Errors
    /// The file system's.
    pub fn remove_history(&self, id: &str) -> Result<bool, DiskError> {
        let place = self.history_place(id);
        if !place.is_dir() {
            return Ok(false);
        }
        self.discard(&place)?;
        self.empty_trash(None)?;
        Ok(true)
    }

    /// What was kept of a build.
    ///
    /// # Errors
    /// The file system's.
    pub fn history_record(&self, id: &str) -> Result<Option<Vec<u8>>, DiskError> {
        read_record(&self.history_place(id).join(RECORD))
    }

    /// Every build that is kept, in no order.
    ///
    /// # Errors
    /// The file system's.
    pub fn history(&self) -> Result<Vec<HistoryEntry>, DiskError> {
        let mut entries = Vec::new();
        for place in self.history_places()? {
            let Some(record) = read_record(&place.join(RECORD))? else {
                continue;
            };
            let bytes = record.len() as u64 + blobs_of(&place).iter().map(|blob| blob.size).sum::<u64>();
            entries.push(HistoryEntry { record, bytes });
        }
        Ok(entries)
    }

    /// Every blob of every build that is kept, each once.
    ///
    /// # Errors
    /// The file system's.
    pub fn history_blobs(&self) -> Result<Vec<HistoryBlob>, DiskError> {
        let mut found = BTreeMap::new();
        for place in self.history_places()? {
            for blob in blobs_of(&place) {
                found.entry(blob.digest.clone()).or_insert(blob);
            }
        }
        Ok(found.into_values().collect())
    }

    /// Opens a blob of a build that is kept; one of the build `id` if it is said.
    ///
    /// # Errors
    /// The file system's.
    pub fn open_history_blob(
        &self,
        id: Option<&str>,
        digest: &Digest,
    ) -> Result<Option<(File, HistoryBlob)>, DiskError> {
        let places = match id {
            Some(id) => vec![self.history_place(id)],
            None => self.history_places()?,
        };
        for place in places {
            let path = place.join(blob_name(digest));
            let fail = |error| DiskError::new("open", &path, error);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(fail(error)),
            };
            let stat = file.metadata().map_err(fail)?;
            return Ok(Some((file, blob(digest.clone(), &stat))));
        }
        Ok(None)
    }

    fn history_place(&self, id: &str) -> PathBuf {
        let name = Digest::sha256(id.as_bytes());
        self.layout().top("history").join(name.hex())
    }

    fn history_places(&self) -> Result<Vec<PathBuf>, DiskError> {
        let dir = self.layout().top("history");
        if !dir.is_dir() {
            return Ok(Vec::new());
        }
        Ok(names(&dir)?.into_iter().map(|name| dir.join(name)).collect())
    }
}

fn check_size(place: &Path, record: &[u8]) -> Result<(), DiskError> {
    if record.len() as u64 <= RECORD_BYTES_MAX {
        return Ok(());
    }
    let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the record is too large");
    Err(DiskError::new("write", place, error))
}

fn read_record(path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
    let fail = |error| DiskError::new("read", path, error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let mut bytes = Vec::new();
    file.take(RECORD_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    // Longer than any we write: damaged, and as good as absent.
    Ok((bytes.len() as u64 <= RECORD_BYTES_MAX).then_some(bytes))
}

/// The blobs in a build's directory; none if it is gone meanwhile.
fn blobs_of(place: &Path) -> Vec<HistoryBlob> {
    let found = names(place).unwrap_or_default();
    let blobs = found.into_iter().filter_map(|name| {
        let (algorithm, hex) = name.split_once('-')?;
        let digest = Digest::parse(&format!("{algorithm}:{hex}")).ok()?;
        let stat = std::fs::symlink_metadata(place.join(&name)).ok()?;
        Some(blob(digest, &stat))
    });
    blobs.collect()
}

fn blob(digest: Digest, stat: &std::fs::Metadata) -> HistoryBlob {
    HistoryBlob {
        digest,
        size: stat.len(),
        created_ms: stat
            .mtime()
            .saturating_mul(1000)
            .saturating_add(stat.mtime_nsec() / 1_000_000),
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::temporary_store;
    use crate::{FsckOptions, GcPolicy};

    fn blob_of(text: &str) -> (Digest, Vec<u8>) {
        (Digest::sha256(text.as_bytes()), text.as_bytes().to_vec())
    }

    #[test]
    fn a_build_is_kept_whole_changed_and_forgotten_whole() {
        let (dir, store) = temporary_store();
        let lease = store.lease("test").unwrap();
        let (log, error) = (blob_of("log"), blob_of("error"));
        store
            .put_history(&lease, "one", b"1", &[log.clone(), error.clone()])
            .unwrap();
        store
            .put_history(&lease, "../two", b"2", std::slice::from_ref(&log))
            .unwrap();
        let gone = store.gc(&GcPolicy {
            all: true,
            ..GcPolicy::default()
        });
        assert!(gone.unwrap().parts.is_empty(), "history is not garbage");
        let kept: u64 = store.history().unwrap().iter().map(|entry| entry.bytes).sum();
        assert_eq!((store.history().unwrap().len(), kept), (2, 1 + 3 + 5 + 1 + 3));
        assert_eq!(
            store.history_record("../two").unwrap().as_deref(),
            Some(&b"2"[..])
        );
        assert_eq!(store.history_blobs().unwrap().len(), 2, "each once");
        assert!(store.change_history("one", b"changed").unwrap());
        assert!(!store.change_history("three", b"changed").unwrap());
        let again = Store::open(&dir.path().join("store"), &crate::OpenOptions::default()).unwrap();
        assert_eq!(
            again.history_record("one").unwrap().as_deref(),
            Some(&b"changed"[..])
        );
        assert!(again.fsck(FsckOptions::default()).unwrap().is_empty());
        assert!(store.remove_history("one").unwrap());
        assert!(!store.remove_history("one").unwrap());
        assert!(store.open_history_blob(None, &error.0).unwrap().is_none());
        assert!(store.open_history_blob(Some("one"), &log.0).unwrap().is_none());
        let (mut file, found) = store.open_history_blob(None, &log.0).unwrap().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), found.size), ("log", 3));
    }

    #[test]
    fn a_build_replaces_the_one_of_its_id_and_nothing_of_it_stays() {
        let (_dir, store) = temporary_store();
        let lease = store.lease("test").unwrap();
        let (old, new) = (blob_of("old"), blob_of("new"));
        store
            .put_history(&lease, "one", b"1", std::slice::from_ref(&old))
            .unwrap();
        store
            .put_history(&lease, "one", b"2", std::slice::from_ref(&new))
            .unwrap();
        assert_eq!(store.history_record("one").unwrap().as_deref(), Some(&b"2"[..]));
        let blobs = store.history_blobs().unwrap();
        assert_eq!(blobs.iter().map(|b| &b.digest).collect::<Vec<_>>(), [&new.0]);
    }

    #[test]
    fn a_record_that_is_too_large_is_refused_and_keeps_the_old_one() {
        let (_dir, store) = temporary_store();
        let lease = store.lease("test").unwrap();
        store.put_history(&lease, "one", b"1", &[]).unwrap();
        let large = vec![0; usize::try_from(RECORD_BYTES_MAX).unwrap() + 1];
        assert!(store.put_history(&lease, "one", &large, &[]).is_err());
        assert!(store.change_history("one", &large).is_err());
        assert_eq!(store.history_record("one").unwrap().as_deref(), Some(&b"1"[..]));
    }
}
