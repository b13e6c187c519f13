//! Directories that came into a layer only because something was made in them and is gone again: mountpoints. BuildKit
//! leaves out of a layer what is as it was below (`util/overlay`).

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rbuild_sys::RootFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::Workspace;
use crate::stack::StackError;

/// Longest list of names of attributes, and longest value, that are compared; what has more is kept.
const XATTR_BYTES_MAX: usize = 64 << 10;

impl Workspace {
    /// Takes those of `paths` (absolute) and of the directories they are in out of what was written, that are in `below` as
    /// they are here, and empty here if they are directories. The caller has closed the mount.
    ///
    /// # Errors
    /// The file system's.
    pub fn drop_unchanged<'d>(
        &mut self,
        below: &RootFd,
        paths: impl IntoIterator<Item = &'d Path>,
    ) -> Result<(), StackError> {
        self.settle()?;
        let mut all: Vec<PathBuf> = Vec::new();
        for path in paths {
            let path = real(below, path);
            let ancestors = path.ancestors().filter(|dir| dir.parent().is_some());
            all.extend(ancestors.map(Path::to_owned));
        }
        // What is in a directory goes before it.
        all.sort_by_key(|dir| (std::cmp::Reverse(dir.components().count()), dir.clone()));
        all.dedup();
        let upper = RootFd::open(self.upper()).map_err(|error| StackError::Io {
            verb: "open",
            path: self.upper().to_owned(),
            source: std::io::Error::other(error),
        })?;
        for dir in all {
            let dropped = drop_one(&upper, below, &dir, self.form().xattr_prefix());
            dropped.map_err(|error| StackError::Io {
                verb: "compare with the layers below",
                path: self.upper().join(dir.strip_prefix("/").unwrap_or(&dir)),
                source: error.into(),
            })?;
        }
        Ok(())
    }
}

fn drop_one(upper: &RootFd, below: &RootFd, dir: &Path, overlay: &str) -> Result<(), Errno> {
    let Ok((parent, name)) = upper.parent(dir) else {
        return Ok(());
    };
    match rbuild_sys::owner::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(here) if FileType::from_raw_mode(here.st_mode) != FileType::Directory => {
            return drop_file((&parent, &name), &here, below, dir, overlay);
        }
        Ok(_) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let here = match rustix::fs::openat(&parent, &name, flags, Mode::empty()) {
        Ok(here) => here,
        // It was never written to, or is no directory.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(error) => return Err(error),
    };
    let Ok(there) = below.open_in(dir, flags, Mode::empty()) else {
        return Ok(());
    };
    if !is_empty(&here)?
        || !is_same(
            &rbuild_sys::owner::fstat(&here)?,
            &rbuild_sys::owner::fstat(&there)?,
        )
    {
        return Ok(());
    }
    if xattrs(here.as_fd(), overlay)? != xattrs(there.as_fd(), overlay)? || is_opaque(here.as_fd(), overlay)?
    {
        return Ok(());
    }
    unlink(&parent, &name, AtFlags::REMOVEDIR)
}

/// The same of a file that is no directory: one that was put aside for the step, and back.
fn drop_file(
    (parent, name): (&OwnedFd, &OsStr),
    here: &Stat,
    below: &RootFd,
    path: &Path,
    overlay: &str,
) -> Result<(), Errno> {
    let Ok((other, _)) = below.parent(path) else {
        return Ok(());
    };
    let there = match rbuild_sys::owner::statat(&other, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        there => there?,
    };
    let facts = |stat: &Stat| {
        let owner = (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev, stat.st_size);
        (owner, stat.st_mtime, stat.st_mtime_nsec)
    };
    if facts(here) != facts(&there) {
        return Ok(());
    }
    let attributes = |dir: &OwnedFd| -> Result<Vec<Xattr>, Errno> {
        if FileType::from_raw_mode(here.st_mode) != FileType::RegularFile {
            return Ok(Vec::new());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        xattrs(
            rustix::fs::openat(dir, name, flags, Mode::empty())?.as_fd(),
            overlay,
        )
    };
    if attributes(parent)? != attributes(&other)? {
        return Ok(());
    }
    unlink(parent, name, AtFlags::empty())
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

fn is_same(here: &Stat, there: &Stat) -> bool {
    FileType::from_raw_mode(there.st_mode) == FileType::Directory
        && (here.st_mode, here.st_uid, here.st_gid) == (there.st_mode, there.st_uid, there.st_gid)
        && (here.st_mtime, here.st_mtime_nsec) == (there.st_mtime, there.st_mtime_nsec)
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
