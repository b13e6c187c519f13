//! Cache mounts: directories that outlive builds. Owns `mounts/`. A directory is named by the hash of the mount's id,
//! so no id can name a path and no two ids share a directory (security row 18).

use std::path::{Path, PathBuf};

use rbuild_oci::Digest;
use rustix::fs::RenameFlags;

use crate::error::{DiskError, IndexError, StoreError};
use crate::lease::{Lease, make_private_dir};
use crate::lock::{FileLock, Sharing, poll};
use crate::store::Store;

/// Directories of one id: the first and its private siblings.
const SIBLINGS_MAX: u32 = 1024;

/// Who may use a cache mount at the same time (BuildKit's `CacheSharingOpt`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountSharing {
    /// Any number of other shared users.
    Shared,
    /// Nobody; if another has it, a sibling directory is used.
    Private,
    /// Nobody; if another has it, it is waited for.
    Locked,
}

/// Whose directories they are. Two owners never share one, whatever the ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountOwner {
    /// Steps: the id is anybody's, and so is the content.
    Step,
    /// The builder itself, which believes what it finds there.
    Builder,
}

/// Why there is no cache mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The wait was cancelled.
    #[error("cancelled while another build held the cache mount {id:?}")]
    Cancelled {
        /// Its id.
        id: String,
    },
    /// As many directories of this id are in use as there may be.
    #[error("cache mount {id:?} is in use {SIBLINGS_MAX} times")]
    TooMany {
        /// Its id.
        id: String,
    },
    /// Filling a new directory failed.
    #[error("prepare cache mount {id:?}")]
    Prepare {
        /// Its id.
        id: String,
        /// What the caller's hook said.
        #[source]
        source: std::io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<DiskError> for MountError {
    fn from(error: DiskError) -> Self {
        Self::Store(error.into())
    }
}

impl From<IndexError> for MountError {
    fn from(error: IndexError) -> Self {
        Self::Store(error.into())
    }
}

/// What is wanted of a cache mount.
#[derive(Debug, Clone, Copy)]
pub struct MountRequest<'a> {
    /// Its id, any text. Where a mount is seeded from an input, the caller makes that input a part of the id, as BuildKit
    /// does (solver/llbsolver/mounts/mount.go).
    pub id: &'a str,
    /// Whose it is.
    pub owner: MountOwner,
    /// Who else may use it.
    pub sharing: MountSharing,
    /// Begin with a new directory in place of the old one. If the old one is in use, a sibling is begun anew.
    pub fresh: bool,
}

/// A cache mount in use. Dropping it gives it back.
#[derive(Debug)]
pub struct CacheMountGuard {
    path: PathBuf,
    /// Held for its lock.
    _lock: FileLock,
}

impl CacheMountGuard {
    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Store {
    /// Takes a cache mount. A directory that does not exist is made by `prepare`, which gets the path of an empty
    /// directory of mode 0700 and sets owner, mode and first content; the directory is seen by others when `prepare` has
    /// succeeded, and not before. `cancelled` is asked at least every 25 ms of waiting.
    ///
    /// # Errors
    /// [`MountError`].
    pub fn cache_mount(
        &self,
        lease: &Lease,
        request: MountRequest<'_>,
        cancelled: &dyn Fn() -> bool,
        prepare: &mut dyn FnMut(&Path) -> std::io::Result<()>,
    ) -> Result<CacheMountGuard, MountError> {
        let name = mount_dir_name(request.owner, request.id);
        let cancel = || MountError::Cancelled {
            id: request.id.to_owned(),
        };
        let (dir, lock) = if request.fresh {
            let taken = self.first_free(&name, Sharing::Exclusive, false)?;
            let (dir, lock) = taken.ok_or_else(|| MountError::TooMany {
                id: request.id.to_owned(),
            })?;
            self.drop_mount(&dir)?;
            if request.sharing == MountSharing::Shared {
                // Others may come in from here on; the directory itself appears at once or not at all.
                drop(lock);
                let lock = poll(cancelled, || {
                    FileLock::try_take(&self.mount_lock(&dir), Sharing::Shared)
                })?;
                (dir, lock.ok_or_else(cancel)?)
            } else {
                (dir, lock)
            }
        } else {
            match request.sharing {
                MountSharing::Shared => self.first_free(&name, Sharing::Shared, false)?,
                MountSharing::Private => self.first_free(&name, Sharing::Exclusive, false)?,
                MountSharing::Locked => {
                    let taken = poll(cancelled, || self.first_free(&name, Sharing::Exclusive, true))?;
                    Some(taken.ok_or_else(cancel)?)
                }
            }
            .ok_or_else(|| MountError::TooMany {
                id: request.id.to_owned(),
            })?
        };
        let path = self.layout().top("mounts").join(&dir);
        if !path.is_dir() {
            self.create_mount(lease, request.id, &path, prepare)?;
        }
        self.index().write("note cache mount", |tables| {
            tables.run(
                "INSERT INTO mount(dir, id, created, used) VALUES(?1, ?2, ?3, ?3)
                 ON CONFLICT(dir) DO UPDATE SET used = ?3",
                (&dir, request.id, self.now()),
            )
        })?;
        Ok(CacheMountGuard { path, _lock: lock })
    }

    /// The first directory of the id that can be locked; with `existing`, only the first one and those that exist.
    fn first_free(
        &self,
        name: &str,
        sharing: Sharing,
        existing: bool,
    ) -> Result<Option<(String, FileLock)>, DiskError> {
        for n in 0..SIBLINGS_MAX {
            let dir = if n == 0 {
                name.to_owned()
            } else {
                format!("{name}.{n}")
            };
            if n > 0 && existing && !self.layout().top("mounts").join(&dir).is_dir() {
                return Ok(None);
            }
            if let Some(lock) = FileLock::try_take(&self.mount_lock(&dir), sharing)? {
                return Ok(Some((dir, lock)));
            }
        }
        Ok(None)
    }

    fn mount_lock(&self, dir: &str) -> PathBuf {
        self.layout().top("locks").join(format!("mount-{dir}"))
    }

    /// Makes the directory aside and renames it into place, where another's may be by then.
    fn create_mount(
        &self,
        lease: &Lease,
        id: &str,
        path: &Path,
        prepare: &mut dyn FnMut(&Path) -> std::io::Result<()>,
    ) -> Result<(), MountError> {
        let new = lease.new_path("mount");
        make_private_dir(&new)?;
        prepare(&new).map_err(|source| MountError::Prepare {
            id: id.to_owned(),
            source,
        })?;
        crate::fault::point("mount before rename");
        let cwd = rustix::fs::CWD;
        match rustix::fs::renameat_with(cwd, &new, cwd, path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::EXIST) => self.remove_private(&new).map_err(Into::into),
            Err(e) => Err(DiskError::new("rename to", path, e.into()).into()),
        }
    }

    /// Removes a cache mount's directory and row. The caller holds its lock exclusively.
    fn drop_mount(&self, dir: &str) -> Result<(), StoreError> {
        self.index().write("remove cache mount", |tables| {
            self.discard(&self.layout().top("mounts").join(dir))?;
            tables.run("DELETE FROM mount WHERE dir = ?1", [dir])?;
            Ok(())
        })
    }

    /// Removes a cache mount unless it is in use; whether it did.
    pub(crate) fn remove_idle_mount(&self, dir: &str) -> Result<bool, StoreError> {
        let Some(lock) = FileLock::try_take(&self.mount_lock(dir), Sharing::Exclusive)? else {
            return Ok(false);
        };
        self.drop_mount(dir)?;
        lock.remove();
        Ok(true)
    }

    pub(crate) fn mount_is_idle(&self, dir: &str) -> Result<bool, DiskError> {
        Ok(FileLock::try_take(&self.mount_lock(dir), Sharing::Exclusive)?.is_some())
    }
}

/// Directory name of a cache mount id. The byte that marks the builder's own is in no text.
pub(crate) fn mount_dir_name(owner: MountOwner, id: &str) -> String {
    let mark: &[u8] = match owner {
        MountOwner::Step => &[],
        MountOwner::Builder => &[0xff],
    };
    Digest::sha256(&[mark, id.as_bytes()].concat()).hex().to_owned()
}

/// Whether `name` is one [`Store::cache_mount`] could have made.
pub(crate) fn is_mount_dir_name(name: &str) -> bool {
    let (hex, number) = name
        .split_once('.')
        .map_or((name, None), |(hex, number)| (hex, Some(number)));
    hex.len() == 64
        && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && number.is_none_or(|n| n.parse::<u32>().is_ok_and(|n| n > 0 && n < SIBLINGS_MAX))
}

#[cfg(test)]
mod tests;
