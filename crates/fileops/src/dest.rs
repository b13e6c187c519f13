//! Places in a root that is written: found and made from a held root descriptor, links resolved inside it, missing
//! directories made with the mode, owner and time that were asked for. Removes nothing and writes no content.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rbuild_graph::FileTime;
use rbuild_sys::{RootFd, RootFdError, clean};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::dirstack::DIR_FLAGS;
use crate::owner::Owner;

/// Links followed at the end of a destination.
const LINKS_MAX: usize = 40;

/// Why a destination could not be reached or made.
#[derive(Debug, thiserror::Error)]
pub enum DestError {
    /// On the way to it.
    #[error(transparent)]
    Root(#[from] RootFdError),
    /// At the last step.
    #[error("{path:?}: {verb}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Path inside the root.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// What new directories look like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewDir {
    pub(crate) mode: u32,
    pub(crate) owner: Option<Owner>,
    pub(crate) time: Option<FileTime>,
}

/// Where a destination path leads.
#[derive(Debug)]
pub(crate) enum Place {
    /// To a directory that is there.
    Dir {
        /// The directory.
        fd: OwnedFd,
        /// Its path.
        path: PathBuf,
    },
    /// To a name in a directory: of nothing yet, or of something else than a directory or link.
    Entry {
        /// The directory it is in.
        dir: OwnedFd,
        /// The name.
        name: OsString,
        /// What has the name.
        stat: Option<Stat>,
        /// Its path.
        path: PathBuf,
    },
}

/// A root that is written to.
#[derive(Debug)]
pub(crate) struct Dest<'a> {
    root: &'a RootFd,
    new_dir: NewDir,
    /// Directories made, to set their times again at the end.
    made: Vec<PathBuf>,
}

impl<'a> Dest<'a> {
    pub(crate) const fn new(root: &'a RootFd, new_dir: NewDir) -> Self {
        Self {
            root,
            new_dir,
            made: Vec::new(),
        }
    }

    /// Makes `path` and its missing parents as directories.
    pub(crate) fn make_dirs(&mut self, path: &Path) -> Result<OwnedFd, DestError> {
        let new_dir = self.new_dir;
        let made = &mut self.made;
        let fd = self
            .root
            .create_dir_all(path, Mode::from_raw_mode(0o700), |fd, path| {
                made.push(path.to_owned());
                dress_dir(fd, &new_dir)
            })?;
        open_listed(&fd, path)
    }

    /// As [`Self::make_dirs`], but with mode 0755 whatever mode was asked for (`unpack.go`).
    pub(crate) fn make_unpack_dirs(&mut self, path: &Path) -> Result<OwnedFd, DestError> {
        let mode = std::mem::replace(&mut self.new_dir.mode, 0o755);
        let made = self.make_dirs(path);
        self.new_dir.mode = mode;
        made
    }

    /// Where `path` leads, its last part followed if it is a link, even to nothing. Its parents are made, and so is
    /// itself if it ends in a slash.
    pub(crate) fn place(&mut self, path: &Path) -> Result<Place, DestError> {
        if path.as_os_str().as_bytes().ends_with(b"/") {
            return Ok(Place::Dir {
                fd: self.make_dirs(path)?,
                path: clean(path),
            });
        }
        let mut path = path.to_owned();
        for _ in 0..=LINKS_MAX {
            let Some((parent, name)) = split(&path) else {
                let fd = self.make_dirs(&path)?;
                return Ok(Place::Dir { fd, path });
            };
            let dir = self.make_dirs(&parent)?;
            match rbuild_sys::owner::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {
                    return Ok(Place::Entry {
                        dir,
                        name,
                        stat: None,
                        path,
                    });
                }
                Err(e) => return Err(io_error("stat", &path, e)),
                Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Symlink => {
                        let target = rbuild_sys::owner::read_link(&dir, &name)
                            .map_err(|e| io_error("read link", &path, e))?;
                        let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                        // Not cleaned as text: `..` in a target means the parent of what the link's directory is.
                        path = parent.join(target);
                    }
                    FileType::Directory => {
                        let fd = rustix::fs::openat(&dir, &name, DIR_FLAGS, Mode::empty())
                            .map_err(|e| io_error("open", &path, e))?;
                        return Ok(Place::Dir { fd, path });
                    }
                    _ => {
                        return Ok(Place::Entry {
                            dir,
                            name,
                            stat: Some(stat),
                            path,
                        });
                    }
                },
            }
        }
        Err(io_error("follow links", &path, Errno::LOOP))
    }

    /// Whether the directory `path` would be put into is there.
    pub(crate) fn parent_exists(&self, path: &Path) -> bool {
        let path = clean(path);
        self.root.stat(path.parent().unwrap_or(Path::new("/"))).is_ok()
    }

    /// Sets the times of the directories that were made once more: filling them changed them.
    pub(crate) fn settle(&self) -> Result<(), DestError> {
        let Some(time) = self.new_dir.time else {
            return Ok(());
        };
        for path in self.made.iter().rev() {
            match self.root.open_in(path, DIR_FLAGS, Mode::empty()) {
                Ok(fd) => set_times(&fd, &both(time)).map_err(|e| io_error("set times", path, e))?,
                // Replaced by what was copied.
                Err(e) if matches!(e.errno(), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// Parent and last name of a path, unless it is `/` or ends in `.` or `..` and so names a directory.
pub(crate) fn split(path: &Path) -> Option<(PathBuf, OsString)> {
    let bytes = path.as_os_str().as_bytes();
    let trimmed = bytes.len() - bytes.iter().rev().take_while(|b| **b == b'/').count();
    let at = bytes[..trimmed]
        .iter()
        .rposition(|b| *b == b'/')
        .map_or(0, |at| at + 1);
    let name = &bytes[at..trimmed];
    if matches!(name, b"" | b"." | b"..") {
        return None;
    }
    let parent = if at == 0 {
        Path::new("/")
    } else {
        Path::new(OsStr::from_bytes(&bytes[..at]))
    };
    Some((parent.to_owned(), OsStr::from_bytes(name).to_os_string()))
}

fn dress_dir(fd: BorrowedFd<'_>, new_dir: &NewDir) -> io::Result<()> {
    let open = rustix::fs::openat(fd, c".", DIR_FLAGS, Mode::empty())?;
    let owner = new_dir.owner.unwrap_or(Owner::ROOT);
    set_owner(&open, owner, &rbuild_sys::owner::fstat(&open)?)?;
    rbuild_sys::owner::chmod(&open, Mode::from_raw_mode(new_dir.mode))?;
    if let Some(time) = new_dir.time {
        set_times(&open, &both(time))?;
    }
    Ok(())
}

/// Changes the owner unless it is right already: each change is a write to the file system's journal.
pub(crate) fn set_owner(fd: &OwnedFd, owner: Owner, now: &Stat) -> Result<(), Errno> {
    if (now.st_uid, now.st_gid) == (owner.uid, owner.gid) {
        return Ok(());
    }
    rbuild_sys::owner::chown(fd, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
}

pub(crate) fn set_times(fd: &OwnedFd, times: &Timestamps) -> Result<(), Errno> {
    rustix::fs::futimens(fd, times)
}

/// One time for access and modification.
pub(crate) fn both(time: FileTime) -> Timestamps {
    let spec = Timespec {
        tv_sec: time.seconds,
        tv_nsec: i64::from(time.nanoseconds),
    };
    Timestamps {
        last_access: spec,
        last_modification: spec,
    }
}

fn open_listed(fd: &OwnedFd, path: &Path) -> Result<OwnedFd, DestError> {
    rustix::fs::openat(fd, c".", DIR_FLAGS, Mode::empty()).map_err(|e| io_error("open", path, e))
}

pub(crate) fn io_error(verb: &'static str, path: &Path, errno: Errno) -> DestError {
    DestError::Io {
        verb,
        path: path.to_owned(),
        source: errno.into(),
    }
}

/// Opens something to change its metadata and nothing else, without following it.
pub(crate) fn open_path(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        dir,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}
