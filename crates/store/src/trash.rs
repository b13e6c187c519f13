//! Deleting without waiting: a rename into `trash/` now, the work later and by anybody. Owns `trash/`.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use rbuild_sys::remove_tree;

use crate::Store;
use crate::error::DiskError;
use crate::name::random_name;

/// Entries deleted when a store is opened.
pub(crate) const OPEN_BUDGET: u64 = 1000;

impl Store {
    /// Moves `path` (of this store) out of sight. An absent path is not an error.
    pub(crate) fn discard(&self, path: &Path) -> Result<(), DiskError> {
        let trash = self.layout().top("trash");
        let name = random_name().map_err(|e| DiskError::new("name a file in", &trash, e))?;
        match std::fs::rename(path, trash.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(DiskError::new("move to the trash", path, error))
            }
            _ => Ok(()),
        }
    }

    /// Deletes what is in the trash, at most `entries_max` entries of it. Gives whether it is empty now. Any number of
    /// processes may do so at once, and be killed doing it.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn empty_trash(&self, entries_max: Option<u64>) -> Result<bool, DiskError> {
        let trash = self.layout().top("trash");
        let dir = File::open(&trash).map_err(|e| DiskError::new("open", &trash, e))?;
        let mut left = entries_max;
        for entry in std::fs::read_dir(&trash).map_err(|e| DiskError::new("list", &trash, e))? {
            let entry = entry.map_err(|e| DiskError::new("list", &trash, e))?;
            if left == Some(0) {
                return Ok(false);
            }
            let removed =
                remove_tree(dir.as_fd(), &entry.file_name(), left).map_err(|source| DiskError::Tree {
                    path: entry.path(),
                    source,
                })?;
            left = left.map(|n| n.saturating_sub(removed.entries));
            if !removed.finished {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes a tree that is nobody else's, now. An absent one is not an error.
    pub(crate) fn remove_private(&self, path: &Path) -> Result<(), DiskError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        let dir = File::open(parent).map_err(|e| DiskError::new("open", parent, e))?;
        remove_tree(dir.as_fd(), name, None)
            .map(drop)
            .map_err(|source| DiskError::Tree {
                path: path.to_owned(),
                source,
            })
    }
}
