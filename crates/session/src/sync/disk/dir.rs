//! One directory while its entries come: which old names are left, and what it is to look like in the end.

use std::iter::Peekable;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::vec::IntoIter;

use rustix::fs::{FileType, Mode, Stat as Status};

use super::{entry, io_error};
use crate::beneath;
use crate::file_mode;
use crate::sync::error::SyncError;
use crate::wire::{Stat, Xattr};

/// A directory whose entries come.
#[derive(Debug)]
pub(crate) struct Dir {
    pub(crate) path: Arc<[u8]>,
    pub(crate) fd: Option<Arc<OwnedFd>>,
    /// Names from last time that the list has not reached, sorted.
    old: Peekable<IntoIter<Box<[u8]>>>,
    /// `None` for the root, which is not in the list.
    wanted: Option<Wanted>,
}

/// Mode, owner, time and attributes by the list.
#[derive(Debug)]
pub(crate) struct Wanted {
    mode: u32,
    uid: u32,
    gid: u32,
    mod_time: i64,
    xattrs: Vec<Xattr>,
}

impl Wanted {
    pub(crate) fn new(stat: &Stat, owner: Option<(u32, u32)>) -> Self {
        let (uid, gid) = owner.unwrap_or((stat.uid, stat.gid));
        Self {
            mode: file_mode::permissions(stat.mode),
            uid,
            gid,
            mod_time: stat.mod_time,
            xattrs: stat.xattrs.clone(),
        }
    }

    /// Whether a directory looks so, its time aside: that changes with its entries.
    pub(crate) const fn holds(&self, old: &Status) -> bool {
        old.st_mode & 0o7777 == self.mode && old.st_uid == self.uid && old.st_gid == self.gid
    }
}

impl Dir {
    pub(crate) fn new(path: Arc<[u8]>, fd: OwnedFd, wanted: Wanted) -> Self {
        Self {
            path,
            fd: Some(Arc::new(fd)),
            old: Vec::new().into_iter().peekable(),
            wanted: Some(wanted),
        }
    }

    /// Lists what is there from last time.
    pub(crate) fn existing(path: Arc<[u8]>, fd: OwnedFd, wanted: Option<Wanted>) -> Result<Self, SyncError> {
        let names = beneath::names(&fd).map_err(|e| io_error("list", &path, e))?;
        Ok(Self {
            path,
            fd: Some(Arc::new(fd)),
            old: names.into_iter().peekable(),
            wanted,
        })
    }

    /// Old names before `name`, and whether `name` is one.
    pub(crate) fn pass(&mut self, name: &[u8]) -> (Vec<Box<[u8]>>, bool) {
        let mut gone = Vec::new();
        while let Some(old) = self.old.next_if(|old| **old < *name) {
            gone.push(old);
        }
        (gone, self.old.next_if(|old| **old == *name).is_some())
    }

    /// Old names that are left.
    pub(crate) fn rest(&mut self) -> Vec<Box<[u8]>> {
        self.old.by_ref().collect()
    }

    /// Gives the directory its final look; nothing is made or removed in it any more.
    pub(crate) fn complete(self, fd: &OwnedFd) -> Result<(), SyncError> {
        let Some(wanted) = self.wanted else {
            return Ok(());
        };
        let fail = |e| io_error("set metadata of", &self.path, e);
        let now = rbuild_sys::owner::fstat(fd).map_err(fail)?;
        entry::set_xattrs(fd, &wanted.xattrs);
        if (now.st_uid, now.st_gid) != (wanted.uid, wanted.gid) {
            entry::chown(fd, wanted.uid, wanted.gid).map_err(fail)?;
        }
        if !wanted.holds(&now) {
            rbuild_sys::owner::chmod(fd, Mode::from_raw_mode(wanted.mode)).map_err(fail)?;
        }
        if entry::mod_time(&now) != i128::from(wanted.mod_time) {
            rustix::fs::futimens(fd, &entry::times(wanted.mod_time)).map_err(fail)?;
        }
        Ok(())
    }
}

/// Lifts permission bits that would keep the owner from working in a directory of last time; they come back when it
/// is complete.
pub(crate) fn make_writable(fd: &OwnedFd, old: &Status, path: &[u8]) -> Result<(), SyncError> {
    debug_assert_eq!(FileType::from_raw_mode(old.st_mode), FileType::Directory);
    if old.st_mode & 0o700 == 0o700 {
        return Ok(());
    }
    let mode = Mode::from_raw_mode(old.st_mode & 0o7777 | 0o700);
    rustix::fs::fchmod(fd, mode).map_err(|e| io_error("change mode of", path, e))
}
