//! Directories that came into a layer only because something was made in them and is gone again: mountpoints. BuildKit
//! leaves out of a layer what is as it was below (`util/overlay`).

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rbuild_sys::RootFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::Workspace;
use crate::dir::open_root;
use crate::stack::StackError;

/// Longest list of names of attributes, and longest value, that are compared; what has more is kept.
const XATTR_BYTES_MAX: usize = 64 << 10;

/// What some places were before a step ran.
#[derive(Debug, Default)]
pub struct Before {
    /// What is in a directory stands before it.
    places: Vec<(PathBuf, Facts)>,
}

/// What of a file would make a layer another one.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    mode: u32,
    owner: (u32, u32),
    /// Of what is no directory.
    device_and_size: Option<(u64, i64)>,
    modified: (i64, i64),
    xattrs: Vec<Xattr>,
}

impl Workspace {
    /// Notes what `paths` (absolute) are, and the directories they are in, in `root`, the files that the workspace begins
    /// with.
    ///
    /// # Errors
    /// The file system's.
    pub fn before<'d>(
        &self,
        root: &RootFd,
        paths: impl IntoIterator<Item = &'d Path>,
    ) -> Result<Before, StackError> {
        let mut all: Vec<PathBuf> = Vec::new();
        for path in paths {
            let path = real(root, path);
            let ancestors = path.ancestors().filter(|dir| dir.parent().is_some());
            all.extend(ancestors.map(Path::to_owned));
        }
        all.sort_by_key(|dir| (std::cmp::Reverse(dir.components().count()), dir.clone()));
        all.dedup();
        let overlay = self.form().xattr_prefix();
        let mut places = Vec::new();
        for path in all {
            let Ok((parent, name)) = root.parent(&path) else {
                continue;
            };
            let facts = Facts::of(&parent, &name, overlay).map_err(|error| self.uncompared(&path, error))?;
            places.extend(facts.map(|facts| (path, facts)));
        }
        Ok(Before { places })
    }

    /// Takes those of the places out of what was written that are as they were, and empty if they are directories. The
    /// caller has closed the mount.
    ///
    /// # Errors
    /// The file system's.
    pub fn drop_unchanged(&mut self, before: &Before) -> Result<(), StackError> {
        self.settle()?;
        let upper = open_root(self.upper())?;
        let overlay = self.form().xattr_prefix();
        for (path, facts) in &before.places {
            drop_one(&upper, path, facts, overlay).map_err(|error| self.uncompared(path, error))?;
        }
        Ok(())
    }

    fn uncompared(&self, path: &Path, error: Errno) -> StackError {
        StackError::Io {
            verb: "compare with the layers below",
            path: self.upper().join(path.strip_prefix("/").unwrap_or(path)),
            source: error.into(),
        }
    }
}

impl Facts {
    /// Of a name in `parent`, links not followed; `None` if it is not there.
    fn of(parent: &OwnedFd, name: &OsStr, overlay: &str) -> Result<Option<Self>, Errno> {
        let stat = match rbuild_sys::owner::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            stat => stat?,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        // Of others they cannot be read through a descriptor.
        let xattrs = match kind {
            FileType::Directory | FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = rustix::fs::openat(parent, name, flags, Mode::empty())?;
                xattrs(file.as_fd(), overlay)?
            }
            _ => Vec::new(),
        };
        Ok(Some(Self::new(&stat, kind, xattrs)))
    }

    fn new(stat: &Stat, kind: FileType, xattrs: Vec<Xattr>) -> Self {
        Self {
            mode: stat.st_mode,
            owner: (stat.st_uid, stat.st_gid),
            device_and_size: (kind != FileType::Directory).then_some((stat.st_rdev, stat.st_size)),
            modified: (stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
            xattrs,
        }
    }

    fn is_directory(&self) -> bool {
        self.device_and_size.is_none()
    }
}

fn drop_one(upper: &RootFd, path: &Path, before: &Facts, overlay: &str) -> Result<(), Errno> {
    let Ok((parent, name)) = upper.parent(path) else {
        return Ok(());
    };
    if Facts::of(&parent, &name, overlay)?.as_ref() != Some(before) {
        return Ok(());
    }
    if !before.is_directory() {
        return unlink(&parent, &name, AtFlags::empty());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(&parent, &name, flags, Mode::empty())?;
    if !is_empty(&dir)? || is_opaque(dir.as_fd(), overlay)? {
        return Ok(());
    }
    unlink(&parent, &name, AtFlags::REMOVEDIR)
}

/// Removes a name; the directory it was in was not changed by the step.
fn unlink(parent: &OwnedFd, name: &OsStr, flags: AtFlags) -> Result<(), Errno> {
    // Times are set through a descriptor that is open for reading.
    let readable = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let parent = rustix::fs::openat(parent, ".", readable, Mode::empty())?;
    let before = rustix::fs::fstat(&parent)?;
    rustix::fs::unlinkat(&parent, name, flags)?;
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.cast_signed(),
    };
    rustix::fs::futimens(
        &parent,
        &Timestamps {
            last_access: time(before.st_atime, before.st_atime_nsec),
            last_modification: time(before.st_mtime, before.st_mtime_nsec),
        },
    )
}

/// Where `path` is in `below` when links are followed, if that is a directory of this machine; else as it is.
fn real(below: &RootFd, path: &Path) -> PathBuf {
    let place = |fd: &dyn AsRawFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok();
    let found = || {
        let opened = below
            .open_in(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .ok()?;
        let (root, there) = (place(&below.as_fd())?, place(&opened)?);
        // A mount that is attached nowhere has no place of its own.
        if root == Path::new("/") {
            return None;
        }
        Some(Path::new("/").join(there.strip_prefix(root).ok()?))
    };
    found().unwrap_or_else(|| path.to_owned())
}

fn is_empty(dir: &OwnedFd) -> Result<bool, Errno> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a directory hides what is below it.
fn is_opaque(dir: BorrowedFd<'_>, overlay: &str) -> Result<bool, Errno> {
    let mut value = [0; 16];
    match rustix::fs::fgetxattr(dir, format!("{overlay}opaque"), &mut value[..]) {
        Ok(size) => Ok(size > 0),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Name and value.
type Xattr = (Vec<u8>, Vec<u8>);

/// Extended attributes but overlayfs's own.
fn xattrs(dir: BorrowedFd<'_>, overlay: &str) -> Result<Vec<Xattr>, Errno> {
    let mut names = vec![0; XATTR_BYTES_MAX];
    let size = match rustix::fs::flistxattr(dir, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        size => size?,
    };
    let mut found = Vec::new();
    for name in names[..size].split(|byte| *byte == 0) {
        if name.is_empty() || name.starts_with(overlay.as_bytes()) {
            continue;
        }
        let mut value = vec![0; XATTR_BYTES_MAX];
        let size = rustix::fs::fgetxattr(dir, name, &mut value[..])?;
        value.truncate(size);
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}
