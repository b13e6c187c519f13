//! Files that are in a tree and have names outside of it too, given inodes of their own in the tree: as if a mount had kept
//! apart what was linked. Holds no paths and no descriptors but one directory's; refuses nothing that a tree can hold.
//!
//! Nobody else may work on the tree. Names of one such file inside the tree become files of their own.

use std::collections::{HashMap, HashSet};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::data::{DataCopier, DataError};
use crate::tree::{TreeEntry, TreeError, walk_tree};

/// Names tried for a copy that is not whole.
const TRIES_MAX: u32 = 1000;
/// The kernel's `XATTR_LIST_MAX` and `XATTR_SIZE_MAX`.
const XATTR_MAX: usize = 64 << 10;

/// Severs the tree `top` from all other names of its files. Returns how many names were given files of their own.
///
/// # Errors
/// The kernel's; something is mounted inside. What was done until then stays.
pub fn sever_links(top: BorrowedFd<'_>) -> Result<u64, TreeError> {
    let mut names = HashMap::new();
    walk_tree::<(), TreeError>(top, (), |(), entry| {
        let stat = entry.stat;
        if stat.st_nlink > 1 && FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let (here, _) = names
                .entry((stat.st_dev, stat.st_ino))
                .or_insert((0, stat.st_nlink));
            *here += 1;
        }
        Ok(())
    })?;
    let shared: HashSet<(u64, u64)> = names
        .into_iter()
        .filter(|(_, (here, all))| here < all)
        .map(|(inode, _)| inode)
        .collect();
    if shared.is_empty() {
        return Ok(0);
    }
    let (copier, mut severed) = (DataCopier::default(), 0);
    walk_tree::<(), TreeError>(top, (), |(), entry| {
        if shared.contains(&(entry.stat.st_dev, entry.stat.st_ino)) {
            sever(entry, &copier).map_err(|errno| TreeError::Io {
                verb: "copy what has a name elsewhere",
                name: entry.name.to_owned(),
                depth: 0,
                source: errno.into(),
            })?;
            severed += 1;
        }
        Ok(())
    })?;
    Ok(severed)
}

/// Puts a copy in the place of `entry`.
fn sever(entry: &TreeEntry<'_>, copier: &DataCopier) -> Result<(), Errno> {
    let (name, made) = make(entry)?;
    let done = fill(entry, &name, made, copier)
        .and_then(|()| rustix::fs::renameat(entry.dir, &name, entry.dir, entry.name));
    if done.is_err() {
        // The first error counts.
        rustix::fs::unlinkat(entry.dir, &name, AtFlags::empty()).ok();
    }
    done
}

/// A new file of the kind of `entry` beside it, open if it is a regular one.
fn make(entry: &TreeEntry<'_>) -> Result<(CString, Option<OwnedFd>), Errno> {
    let kind = FileType::from_raw_mode(entry.stat.st_mode);
    for number in 0..TRIES_MAX {
        let name = CString::new(format!(".rbuild-severed-{number}")).map_err(|_| Errno::INVAL)?;
        let made = match kind {
            FileType::RegularFile => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                rustix::fs::openat(entry.dir, &name, flags, Mode::RUSR | Mode::WUSR).map(Some)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(entry.dir, entry.name, Vec::new())?;
                rustix::fs::symlinkat(&target, entry.dir, &name).map(|()| None)
            }
            _ => rustix::fs::mknodat(entry.dir, &name, kind, Mode::RUSR, entry.stat.st_rdev).map(|()| None),
        };
        match made {
            Err(Errno::EXIST) => {}
            made => return Ok((name, made?)),
        }
    }
    Err(Errno::EXIST)
}

/// Content, owner, attributes, mode and times, in that order: a change of owner takes set-id bits and capabilities away.
fn fill(
    entry: &TreeEntry<'_>,
    name: &CString,
    made: Option<OwnedFd>,
    copier: &DataCopier,
) -> Result<(), Errno> {
    let (dir, stat, nofollow) = (entry.dir, entry.stat, AtFlags::SYMLINK_NOFOLLOW);
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let Some(made) = made else {
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), nofollow)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            rustix::fs::chmodat(dir, name, mode, AtFlags::empty())?;
        }
        return rustix::fs::utimensat(dir, name, &times(stat), nofollow);
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let source = rustix::fs::openat(dir, entry.name, flags, Mode::empty())?;
    copier.copy(&source, stat, &made).map_err(|error| match error {
        DataError::Read(errno) | DataError::Write(errno) => errno,
    })?;
    rustix::fs::fchown(&made, Some(uid), Some(gid))?;
    copy_attributes(&source, &made)?;
    rustix::fs::fchmod(&made, mode)?;
    rustix::fs::futimens(made.as_fd(), &times(stat))
}

fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let mut names = vec![0; XATTR_MAX];
    let length = match rustix::fs::flistxattr(from, names.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut value = vec![0; XATTR_MAX];
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = OsStr::from_bytes(name);
        let length = match rustix::fs::fgetxattr(from, name, value.as_mut_slice()) {
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => continue,
            length => length?,
        };
        match rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            // What this process may not give, it could not have been left with either.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn times(stat: &Stat) -> Timestamps {
    let spec = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: spec(stat.st_atime, stat.st_atime_nsec),
        last_modification: spec(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    fn sever_in(dir: &std::path::Path) -> u64 {
        sever_links(fs::File::open(dir).unwrap().as_fd()).unwrap()
    }

    #[test]
    fn row17_what_has_a_name_elsewhere_becomes_a_file_of_the_trees_own() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(tree.join("a/b/file"), "content").unwrap();
        fs::set_permissions(tree.join("a/b/file"), fs::Permissions::from_mode(0o4750)).unwrap();
        fs::hard_link(tree.join("a/b/file"), tree.join("second")).unwrap();
        fs::hard_link(tree.join("a/b/file"), outside.join("file")).unwrap();
        symlink("nowhere", tree.join("link")).unwrap();
        fs::hard_link(tree.join("link"), outside.join("link")).unwrap();
        // A name that a step could have left there to be in the way.
        fs::write(tree.join("a/b/.rbuild-severed-0"), "mine").unwrap();
        let before = outside.join("file").metadata().unwrap();

        assert_eq!(sever_in(&tree), 3);
        let after = outside.join("file").metadata().unwrap();
        assert_eq!((after.nlink(), after.ino()), (1, before.ino()));
        for name in ["a/b/file", "second"] {
            let found = tree.join(name).metadata().unwrap();
            assert_ne!(found.ino(), after.ino(), "{name}");
            assert_eq!(
                (found.mode(), found.mtime_nsec()),
                (before.mode(), before.mtime_nsec())
            );
            assert_eq!(fs::read_to_string(tree.join(name)).unwrap(), "content");
        }
        fs::write(tree.join("second"), "changed").unwrap();
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "content");
        assert_eq!(fs::read_link(tree.join("link")).unwrap().as_os_str(), "nowhere");
        assert_eq!(outside.join("link").symlink_metadata().unwrap().nlink(), 1);
        assert_eq!(
            fs::read_to_string(tree.join("a/b/.rbuild-severed-0")).unwrap(),
            "mine"
        );
        assert_eq!(sever_in(&tree), 0, "nothing is left to sever");
    }

    #[test]
    fn row17_legal_twin_names_within_the_tree_stay_those_of_one_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("one"), "").unwrap();
        fs::hard_link(dir.path().join("one"), dir.path().join("d/two")).unwrap();
        let before = dir.path().join("one").metadata().unwrap().ino();
        assert_eq!(sever_in(dir.path()), 0);
        assert_eq!(dir.path().join("d/two").metadata().unwrap().ino(), before);
    }
}
