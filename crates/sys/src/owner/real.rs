//! The end of records: what was written for people, outside of the store, gets the modes that are recorded, and links the text
//! that is meant. Owners that a user
//! cannot give are no part of that, as wherever somebody who is not root receives files.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::{MODE_XATTR, OWNER_XATTR, Records, modes_are_recorded};
use crate::rootfd::RootFd;
use crate::tree::{TreeEntry, TreeError, walk_tree};

/// Gives everything below `top` the mode that is recorded of it, and forgets the records. Does nothing where modes are not
/// recorded; what has no record, or is not this user's, is left alone.
///
/// # Errors
/// The kernel's.
pub fn make_real(top: BorrowedFd<'_>) -> Result<(), TreeError> {
    if !modes_are_recorded() {
        return Ok(());
    }
    // A directory that is closed by its mode is closed last, those in it before it.
    let mut closed: Vec<(PathBuf, Mode)> = Vec::new();
    walk_tree::<PathBuf, TreeError>(top, PathBuf::new(), |above, entry| {
        let path = above.join(entry.name);
        let fail = |errno: Errno| at(entry.name.as_ref(), errno.into());
        if FileType::from_raw_mode(entry.stat.st_mode) == FileType::Symlink {
            forget_link(entry).map_err(fail)?;
        }
        if let Some(found) = open(entry).map_err(fail)? {
            let kind = FileType::from_raw_mode(entry.stat.st_mode);
            if let Some(mode) = forget(&found, kind).map_err(fail)? {
                if kind == FileType::Directory {
                    closed.push((path.clone(), mode));
                } else {
                    rustix::fs::fchmod(&found, mode).map_err(fail)?;
                }
            }
        }
        Ok(path)
    })?;
    let own = top
        .try_clone_to_owned()
        .map_err(|source| at(Path::new("."), source))?;
    let root = RootFd::from_fd(own);
    for (path, mode) in closed.into_iter().rev() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = root.open_in(&path, flags, Mode::empty());
        let dir = dir.map_err(|error| at(&path, io::Error::other(error)))?;
        rustix::fs::fchmod(&dir, mode).map_err(|errno| at(&path, errno.into()))?;
    }
    Ok(())
}

fn at(path: &Path, source: io::Error) -> TreeError {
    TreeError::Io {
        verb: "set mode of",
        name: path.as_os_str().to_owned(),
        depth: 0,
        source,
    }
}

/// A file or directory that may have records.
fn open(entry: &TreeEntry<'_>) -> Result<Option<OwnedFd>, Errno> {
    let kind = FileType::from_raw_mode(entry.stat.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(entry.dir, entry.name, flags, Mode::empty()) {
        // Records are on what its owner can read.
        Err(Errno::ACCESS | Errno::NOENT | Errno::LOOP | Errno::NXIO) => Ok(None),
        found => found.map(Some),
    }
}

/// The link without an owner in its text, and with its time.
fn forget_link(entry: &TreeEntry<'_>) -> Result<(), Errno> {
    let root = (Some(Uid::ROOT), Some(Gid::ROOT));
    match super::chown_at(entry.dir, entry.name, root.0, root.1) {
        // Another user's.
        Err(Errno::PERM | Errno::ACCESS) => return Ok(()),
        done => drop(done?),
    }
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(entry.stat.st_atime, entry.stat.st_atime_nsec),
        last_modification: time(entry.stat.st_mtime, entry.stat.st_mtime_nsec),
    };
    rustix::fs::utimensat(entry.dir, entry.name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// The recorded mode, and no record afterwards.
fn forget(found: &OwnedFd, kind: FileType) -> Result<Option<Mode>, Errno> {
    let mode = Records::OWN.mode(found.as_fd(), kind)?.map(Mode::from_raw_mode);
    for name in [MODE_XATTR, OWNER_XATTR] {
        match rustix::fs::fremovexattr(found, name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(mode)
}
