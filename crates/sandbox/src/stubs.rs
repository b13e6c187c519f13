//! Mountpoints that had to be made in a step's layer, and their removal afterwards.
//!
//! A mountpoint made for the step must not appear in the layer (BuildKit: executor/stubs.go). What was made is held
//! by descriptor together with its parent: afterwards it is removed from that very directory and only if the name
//! still leads to the same, still empty inode. No path is looked up again, so nothing the step moved or linked can
//! lead the removal elsewhere.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rbuild_sys::{RootFd, clean};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::wire::{During as _, Explained as _, SetupError};

/// What a mountpoint must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StubKind {
    Directory,
    File,
}

/// All mountpoints made for one step.
#[derive(Debug, Default)]
pub(crate) struct Stubs {
    made: Vec<Stub>,
}

#[derive(Debug)]
struct Stub {
    parent: OwnedFd,
    name: OsString,
    /// Keeps the inode's number from being used again.
    held: OwnedFd,
    parent_before: Stat,
    parent_after: Stat,
}

/// Links followed on the way to a mountpoint that does not exist yet (the kernel's `MAXSYMLINKS`).
const LINKS_MAX: usize = 40;
const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const PATH_DIR: OFlags = PATH.union(OFlags::DIRECTORY);
/// As runc makes mountpoints.
const STUB_MODE: Mode = Mode::from_raw_mode(0o755);

impl Stubs {
    /// Makes sure that `dest` exists in `root`: as what it is if it exists, else as `kind`, with missing parents.
    /// Links are followed inside the root, also to places that do not exist yet. Whether it had to be made.
    pub(crate) fn ensure(&mut self, root: &RootFd, dest: &Path, kind: StubKind) -> Result<bool, SetupError> {
        let mut path = clean(dest);
        for _ in 0..=LINKS_MAX {
            match root.open_in(&path, PATH, Mode::empty()) {
                Ok(_) => return Ok(false),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error).explained("open mountpoint", dest),
            }
            match self.make_missing(root, &path, kind, dest)? {
                None => return Ok(true),
                Some(led) => path = led,
            }
        }
        Err(Errno::LOOP).during("open mountpoint", dest)
    }

    /// Makes all that is missing of `path`, or stops at a link to nothing and gives the path with it replaced.
    fn make_missing(
        &mut self,
        root: &RootFd,
        path: &Path,
        kind: StubKind,
        dest: &Path,
    ) -> Result<Option<PathBuf>, SetupError> {
        let names: Vec<&OsStr> = path.iter().skip(1).collect();
        let mut walked = PathBuf::from("/");
        for (index, name) in names.iter().enumerate() {
            let parent_path = walked.clone();
            walked.push(name);
            match root.open_in(&walked, PATH, Mode::empty()) {
                Ok(_) => continue,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error).explained("open mountpoint", dest),
            }
            let parent = root
                .open_in(&parent_path, PATH_DIR, Mode::empty())
                .explained("open mountpoint", dest)?;
            if let Ok(target) = rustix::fs::readlinkat(&parent, *name, Vec::new()) {
                let mut led = parent_path.join(OsStr::from_bytes(target.as_bytes()));
                led.extend(&names[index + 1..]);
                return Ok(Some(led));
            }
            let last = index + 1 == names.len();
            let kind = if last { kind } else { StubKind::Directory };
            match Stub::make(parent, name, kind) {
                // Another step has made it meanwhile, in a cache mount that both share.
                Err(Errno::EXIST) => {}
                made => self.made.push(made.during("make mountpoint", dest)?),
            }
        }
        Ok(None)
    }

    /// The directories in which something was made.
    pub(crate) fn parents(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.made.iter().map(|stub| stub.parent.as_fd())
    }

    /// Forgets those in directories of which `stays` is true: they are not removed.
    pub(crate) fn leave(&mut self, stays: impl Fn(BorrowedFd<'_>) -> bool) {
        self.made.retain(|stub| !stays(stub.parent.as_fd()));
    }

    /// Removes what is still as it was made, last made first, and gives parents their times back unless the step
    /// itself changed them. A stub that cannot be removed stays: it is in use by the step, or the layer is broken
    /// in a way that its reader will report.
    pub(crate) fn remove(self) {
        for stub in self.made.into_iter().rev() {
            stub.remove().ok();
        }
    }
}

impl Stub {
    fn make(parent: OwnedFd, name: &OsStr, kind: StubKind) -> Result<Self, Errno> {
        let parent_before = rustix::fs::fstat(&parent)?;
        match kind {
            StubKind::Directory => rustix::fs::mkdirat(&parent, name, STUB_MODE)?,
            StubKind::File => rustix::fs::mknodat(&parent, name, FileType::RegularFile, STUB_MODE, 0)?,
        }
        let held = rustix::fs::openat(&parent, name, PATH | OFlags::NOFOLLOW, Mode::empty())?;
        let parent_after = rustix::fs::fstat(&parent)?;
        Ok(Self {
            parent,
            name: name.to_owned(),
            held,
            parent_before,
            parent_after,
        })
    }

    fn remove(&self) -> Result<(), Errno> {
        let held = rustix::fs::fstat(&self.held)?;
        let named = rustix::fs::statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        if (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino) {
            return Ok(());
        }
        let parent_now = rustix::fs::fstat(&self.parent)?;
        match FileType::from_raw_mode(named.st_mode) {
            FileType::Directory => rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR)?,
            FileType::RegularFile if named.st_size == 0 => {
                rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::empty())?;
            }
            _ => return Ok(()),
        }
        let untouched = mtime(&parent_now) == mtime(&self.parent_after);
        let times = if untouched {
            &self.parent_before
        } else {
            &parent_now
        };
        set_times(&self.parent, times)
    }
}

fn mtime(stat: &Stat) -> (i64, i64) {
    (
        stat.st_mtime,
        i64::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    )
}

fn set_times(dir: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
    let last_access = Timespec {
        tv_sec: stat.st_atime,
        tv_nsec: i64::try_from(stat.st_atime_nsec).unwrap_or_default(),
    };
    let (tv_sec, tv_nsec) = mtime(stat);
    let times = Timestamps {
        last_access,
        last_modification: Timespec { tv_sec, tv_nsec },
    };
    // The parent is held as O_PATH, which futimens refuses and a `.` below it does not.
    rustix::fs::utimensat(dir, ".", &times, AtFlags::empty())
}

#[cfg(test)]
mod tests;
