//! The directory a tree is brought to. Owns what is kept, made and removed there (`fsutil/diskwriter.go`,
//! `diff_containerd.go`), one directory at a time in the order of the list.
//!
//! Every name is used in a held directory or below the root without following any link (`openat2` with
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`), and a file is made only where nothing is (`O_EXCL`).

mod dir;
mod entry;

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rbuild_sys::{RootFd, remove_tree};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat as Status};
use rustix::io::Errno;

use crate::beneath::{self, join};
use crate::sync::Differ;
use crate::sync::disk::dir::Dir;
use crate::sync::error::SyncError;
use crate::sync::order::{as_path, compare, split};
use crate::wire::Stat;

/// Directory descriptors that are held; those above are opened again on the way back.
const HELD_MAX: usize = 32;

/// The directory and where in it the list is.
#[derive(Debug)]
pub(crate) struct Disk {
    root: RootFd,
    differ: Differ,
    owner: Option<(u32, u32)>,
    /// Directories from the root to the one whose entries come.
    open: Vec<Dir>,
    /// Files with several names that are kept: the first name keeps the file, a later one only if the list says that
    /// it is the same file.
    claimed: HashSet<u64>,
    removed: u64,
    keeps_others: bool,
}

/// What became of an entry.
#[derive(Debug)]
pub(crate) enum Placed {
    /// It was there.
    Unchanged,
    /// It is there now.
    Made,
    /// It is an empty file whose content is needed.
    Empty(NewFile),
}

/// A file that was made and waits for its content.
#[derive(Debug)]
pub(crate) struct NewFile {
    dir: Arc<[u8]>,
    name: Box<[u8]>,
    mode: Mode,
    mod_time: i64,
    /// Bytes that were announced.
    pub(crate) size: u64,
}

impl NewFile {
    pub(crate) fn path(&self) -> PathBuf {
        as_path(&join(&self.dir, &self.name))
    }
}

impl Disk {
    pub(crate) fn new(root: RootFd, differ: Differ, owner: Option<(u32, u32)>) -> Self {
        Self {
            root,
            differ,
            owner,
            open: Vec::new(),
            claimed: HashSet::new(),
            removed: 0,
            keeps_others: false,
        }
    }

    /// The same; what the list does not name stays, if so.
    pub(crate) fn keeping_others(self, keeps_others: bool) -> Self {
        Self { keeps_others, ..self }
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Names that were removed.
    pub(crate) const fn removed(&self) -> u64 {
        self.removed
    }

    /// Takes the next entry of the list. Its path is clean and in order, and its parent was placed before.
    pub(crate) fn place(&mut self, kind: FileType, stat: &Stat) -> Result<Placed, SyncError> {
        let (parent, name) = split(&stat.path);
        self.come_to(parent)?;
        let existed = self.pass(name)?;
        let parent_fd = self.current()?;
        let old = match existed {
            true => status(parent_fd.as_fd(), name, &stat.path)?,
            false => None,
        };
        if kind == FileType::Directory {
            return self.place_dir(&parent_fd, name, stat, old.as_ref());
        }
        if let Some(old) = &old {
            if self.same(&parent_fd, name, kind, stat, old)? {
                if old.st_nlink > 1 {
                    self.claimed.insert(old.st_ino);
                }
                return Ok(Placed::Unchanged);
            }
            self.remove(&parent_fd, name, &stat.path)?;
        }
        self.make(&parent_fd, name, kind, stat)
    }

    /// Ends the list: what it did not name is removed.
    pub(crate) fn finish(&mut self) -> Result<(), SyncError> {
        self.start()?;
        while !self.open.is_empty() {
            self.leave()?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<(), SyncError> {
        if self.open.is_empty() {
            let fd = self.open_dir(b"")?;
            self.open.push(Dir::existing(Arc::from([]), fd, None)?);
        }
        Ok(())
    }

    /// Leaves the directories that are complete, down to `parent`.
    fn come_to(&mut self, parent: &[u8]) -> Result<(), SyncError> {
        self.start()?;
        while self.open.len() > 1 && self.open.last().is_some_and(|dir| *dir.path != *parent) {
            self.leave()?;
        }
        assert!(
            self.open.last().is_some_and(|dir| *dir.path == *parent),
            "the list's order was checked"
        );
        Ok(())
    }

    /// Passes the old names before `name`, which the list does not have; says whether `name` itself is there.
    fn pass(&mut self, name: &[u8]) -> Result<bool, SyncError> {
        let (gone, found) = match self.open.last_mut() {
            Some(dir) => dir.pass(name),
            None => (Vec::new(), false),
        };
        self.remove_all(gone)?;
        Ok(found)
    }

    fn remove_all(&mut self, names: Vec<Box<[u8]>>) -> Result<(), SyncError> {
        if names.is_empty() || self.keeps_others {
            return Ok(());
        }
        let fd = self.current()?;
        let dir = self
            .open
            .last()
            .map(|dir| Arc::clone(&dir.path))
            .unwrap_or_default();
        for name in names {
            self.remove(&fd, &name, &join(&dir, &name))?;
        }
        Ok(())
    }

    fn remove(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), SyncError> {
        let removed = remove_tree(
            parent.as_fd(),
            std::os::unix::ffi::OsStrExt::from_bytes(name),
            None,
        )
        .map_err(|source| SyncError::Remove {
            path: as_path(path),
            source,
        })?;
        self.removed += removed.entries;
        Ok(())
    }

    /// The directory whose entries come, opened again if it had to be closed.
    fn current(&mut self) -> Result<Arc<OwnedFd>, SyncError> {
        let Some(dir) = self.open.last() else {
            return Ok(Arc::new(self.open_dir(b"")?));
        };
        if let Some(fd) = &dir.fd {
            return Ok(Arc::clone(fd));
        }
        let fd = Arc::new(self.open_dir(&Arc::clone(&dir.path))?);
        if let Some(dir) = self.open.last_mut() {
            dir.fd = Some(Arc::clone(&fd));
        }
        Ok(fd)
    }

    fn place_dir(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        stat: &Stat,
        old: Option<&Status>,
    ) -> Result<Placed, SyncError> {
        let kept = old.filter(|old| FileType::from_raw_mode(old.st_mode) == FileType::Directory);
        if old.is_some() && kept.is_none() {
            self.remove(parent, name, &stat.path)?;
        }
        if kept.is_none() {
            rustix::fs::mkdirat(parent, name, Mode::RWXU)
                .map_err(|e| io_error("make directory", &stat.path, e))?;
        }
        let wanted = dir::Wanted::new(stat, self.owner);
        let unchanged = kept.is_some_and(|old| wanted.holds(old));
        let fd = self.open_dir(&stat.path)?;
        let path = Arc::from(stat.path.as_slice());
        let dir = match kept {
            Some(old) => {
                dir::make_writable(&fd, old, &stat.path)?;
                Dir::existing(path, fd, Some(wanted))?
            }
            None => Dir::new(path, fd, wanted),
        };
        self.open.push(dir);
        if let Some(above) = self.open.len().checked_sub(HELD_MAX + 1) {
            self.open[above].fd = None;
        }
        Ok(match unchanged {
            true => Placed::Unchanged,
            false => Placed::Made,
        })
    }

    /// Completes the innermost directory: old names that are left go, and it gets the mode and times of the list.
    fn leave(&mut self) -> Result<(), SyncError> {
        let rest = self.open.last_mut().map(Dir::rest).unwrap_or_default();
        self.remove_all(rest)?;
        let fd = self.current()?;
        match self.open.pop() {
            Some(dir) => dir.complete(&fd),
            None => Ok(()),
        }
    }

    fn open_dir(&self, path: &[u8]) -> Result<OwnedFd, SyncError> {
        beneath::open_dir(self.root(), path).map_err(|e| io_error("open directory", path, e))
    }

    /// Opens a file that was made for its content, at its end.
    pub(crate) fn open_new(&self, file: &NewFile, written: u64) -> Result<File, SyncError> {
        use std::io::Seek as _;
        let path = join(&file.dir, &file.name);
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        let fd = beneath::open(self.root(), &path, flags).map_err(|e| io_error("open", &path, e))?;
        let mut handle = File::from(fd);
        if written > 0 {
            handle
                .seek(io::SeekFrom::Start(written))
                .map_err(|source| SyncError::Io {
                    verb: "open",
                    path: as_path(&path),
                    source,
                })?;
        }
        Ok(handle)
    }

    /// Gives a file that has its content its mode and time.
    pub(crate) fn complete(&self, file: &NewFile, handle: &File) -> Result<(), SyncError> {
        let fail = |e| io_error("set metadata of", &join(&file.dir, &file.name), e);
        rbuild_sys::owner::chmod(handle, file.mode).map_err(fail)?;
        rustix::fs::futimens(handle, &entry::times(file.mod_time)).map_err(fail)
    }

    /// The file a hard link is to be a further name of: it was listed before, as neither directory nor link.
    fn link_target(&self, stat: &Stat) -> Result<(OwnedFd, Status), SyncError> {
        let unknown = || SyncError::Link {
            path: as_path(&stat.path),
            target: as_path(&stat.linkname),
        };
        crate::sync::order::check(&stat.linkname).map_err(|_| unknown())?;
        if compare(&stat.linkname, &stat.path).is_ge() {
            return Err(unknown());
        }
        let (dir, name) = split(&stat.linkname);
        let fd = match beneath::open(self.root(), dir, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(unknown()),
            Err(e) => return Err(io_error("open directory", dir, e)),
        };
        let target = status(fd.as_fd(), name, &stat.linkname)?.ok_or_else(unknown)?;
        match FileType::from_raw_mode(target.st_mode) {
            FileType::Directory | FileType::Symlink => Err(unknown()),
            _ => Ok((fd, target)),
        }
    }
}

fn status(dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<Option<Status>, SyncError> {
    match rbuild_sys::owner::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(io_error("stat", path, e)),
    }
}

fn io_error(verb: &'static str, path: &[u8], errno: Errno) -> SyncError {
    SyncError::Io {
        verb,
        path: as_path(path),
        source: errno.into(),
    }
}
