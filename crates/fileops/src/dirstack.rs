//! A path of open directories, from a start down to where a walk is now. Owns how few descriptors that takes: only
//! the deepest ones stay open, the others are reopened on the way back up and recognised by device and inode.
//! Never builds a path, so depth is limited by memory alone, and never follows a link.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;

/// Most directories of one stack held open at once. Two stacks and the files in flight stay below a limit of 256.
const OPEN_MAX: usize = 32;

/// How a directory is opened: to be listed, and as nothing else.
pub(crate) const DIR_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// What makes a directory the same one when it is met again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirId {
    dev: u64,
    ino: u64,
}

impl DirId {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
        }
    }
}

/// Why a stack lost its way.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The kernel's answer to a reopen.
    Errno(Errno),
    /// Another directory stands where one of ours was.
    Moved,
}

#[derive(Debug)]
struct Level<T> {
    name: CString,
    id: DirId,
    fd: Option<Arc<OwnedFd>>,
    data: T,
}

/// The stack. `T` is what its owner keeps for each level.
#[derive(Debug)]
pub(crate) struct DirStack<T> {
    levels: Vec<Level<T>>,
}

impl<T> DirStack<T> {
    pub(crate) const fn new() -> Self {
        Self { levels: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.levels.len()
    }

    pub(crate) fn data(&self, level: usize) -> &T {
        &self.levels[level].data
    }

    pub(crate) fn data_mut(&mut self, level: usize) -> &mut T {
        &mut self.levels[level].data
    }

    /// The deepest directory; it is always open.
    pub(crate) fn top(&mut self) -> Option<(&Arc<OwnedFd>, &mut T)> {
        let level = self.levels.last_mut()?;
        let fd = level
            .fd
            .as_ref()
            .expect("the deepest directory of a stack is always open");
        Some((fd, &mut level.data))
    }

    /// Goes down into an opened directory.
    pub(crate) fn push(&mut self, name: CString, fd: Arc<OwnedFd>, id: DirId, data: T) {
        self.levels.push(Level {
            name,
            id,
            fd: Some(fd),
            data,
        });
        if let Some(old) = self.levels.len().checked_sub(OPEN_MAX + 1) {
            self.levels[old].fd = None;
        }
    }

    /// Leaves the deepest directory and makes sure its parent is open.
    pub(crate) fn pop(&mut self) -> Result<Option<(Arc<OwnedFd>, T)>, Lost> {
        let Some(level) = self.levels.pop() else {
            return Ok(None);
        };
        let fd = level.fd.expect("the deepest directory of a stack is always open");
        if let Some(parent) = self.levels.last_mut()
            && parent.fd.is_none()
        {
            parent.fd = Some(Arc::new(open_parent(&fd, parent.id)?));
        }
        Ok(Some((fd, level.data)))
    }

    /// Calls `visit` for each level from `first` down, with its directory open.
    pub(crate) fn visit_from<E: From<Lost>>(
        &mut self,
        first: usize,
        mut visit: impl FnMut(&CString, &Arc<OwnedFd>, &mut T) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(open) = (first..self.levels.len()).find(|i| self.levels[*i].fd.is_some()) else {
            return Ok(());
        };
        let mut held = self.levels[open].fd.clone();
        for i in (first..open).rev() {
            if let Some(below) = &held {
                held = Some(Arc::new(open_parent(below, self.levels[i].id)?));
            }
        }
        for i in first..self.levels.len() {
            let fd = match (&self.levels[i].fd, &held) {
                (Some(fd), _) => Arc::clone(fd),
                (None, Some(above)) if i > first => {
                    Arc::new(open_child(above, &self.levels[i].name, self.levels[i].id)?)
                }
                (None, Some(fd)) => Arc::clone(fd),
                (None, None) => return Err(Lost::Moved.into()),
            };
            let level = &mut self.levels[i];
            visit(&level.name, &fd, &mut level.data)?;
            held = Some(fd);
        }
        Ok(())
    }
}

fn open_parent(of: &OwnedFd, expected: DirId) -> Result<OwnedFd, Lost> {
    let fd = rustix::fs::openat(of, c"..", DIR_FLAGS, Mode::empty()).map_err(Lost::Errno)?;
    check(fd, expected)
}

fn open_child(of: &OwnedFd, name: &CString, expected: DirId) -> Result<OwnedFd, Lost> {
    let fd = rustix::fs::openat(of, name, DIR_FLAGS, Mode::empty()).map_err(Lost::Errno)?;
    check(fd, expected)
}

fn check(fd: OwnedFd, expected: DirId) -> Result<OwnedFd, Lost> {
    let stat = rbuild_sys::owner::fstat(&fd).map_err(Lost::Errno)?;
    if DirId::of(&stat) == expected {
        Ok(fd)
    } else {
        Err(Lost::Moved)
    }
}
