//! One entry that is no directory: whether it is there already, and how it is made.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat as Status, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::{Disk, NewFile, Placed, io_error};
use crate::file_mode;
use crate::sync::Differ;
use crate::sync::error::SyncError;
use crate::sync::order::{as_path, split};
use crate::wire::{Stat, Xattr};

const NANOS: i64 = 1_000_000_000;
/// Attributes of one entry that are looked at.
const XATTRS_MAX: usize = 1024;

impl Disk {
    /// Whether what is there is what the list says (`fsutil/diff_containerd.go`, `sameFile`).
    pub(super) fn same(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        kind: FileType,
        stat: &Stat,
        old: &Status,
    ) -> Result<bool, SyncError> {
        if FileType::from_raw_mode(old.st_mode) != kind || self.differ == Differ::None {
            return Ok(false);
        }
        if kind == FileType::RegularFile && !stat.linkname.is_empty() {
            let (_, target) = self.link_target(stat)?;
            return Ok((target.st_dev, target.st_ino) == (old.st_dev, old.st_ino));
        }
        let (uid, gid) = self.owner.unwrap_or((stat.uid, stat.gid));
        let alike = (old.st_uid, old.st_gid) == (uid, gid)
            && mod_time(old) == i128::from(stat.mod_time)
            && (kind == FileType::Symlink || old.st_mode & 0o7777 == file_mode::permissions(stat.mode));
        if !alike {
            return Ok(false);
        }
        Ok(match kind {
            FileType::RegularFile => {
                old.st_size == stat.size && !(old.st_nlink > 1 && self.claimed.contains(&old.st_ino))
            }
            FileType::Symlink => {
                let target = rbuild_sys::owner::read_link(parent, name)
                    .map_err(|e| io_error("read link", &stat.path, e))?;
                target.as_bytes() == stat.linkname
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                device(stat).is_ok_and(|device| device == old.st_rdev)
            }
            _ => true,
        })
    }

    /// Makes an entry where nothing is.
    pub(super) fn make(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        kind: FileType,
        stat: &Stat,
    ) -> Result<Placed, SyncError> {
        let fail = |e| io_error("make", &stat.path, e);
        match kind {
            FileType::Symlink => {
                rbuild_sys::owner::make_link(&stat.linkname, parent, name).map_err(fail)?;
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                let device = match kind {
                    FileType::Fifo => 0,
                    _ => device(stat)?,
                };
                rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device).map_err(fail)?;
            }
            FileType::RegularFile if !stat.linkname.is_empty() => {
                let (dir, _) = self.link_target(stat)?;
                let (_, target) = split(&stat.linkname);
                rustix::fs::linkat(&dir, target, parent, name, AtFlags::empty()).map_err(fail)?;
                return Ok(Placed::Made);
            }
            _ => return self.make_file(parent, name, stat).map(Placed::Empty),
        }
        let (uid, gid) = self.owner.unwrap_or((stat.uid, stat.gid));
        let (uid, gid) = ids(uid, gid).map_err(fail)?;
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        rbuild_sys::owner::chown_at(parent, name, Some(uid), Some(gid)).map_err(fail)?;
        if kind != FileType::Symlink {
            let mode = Mode::from_raw_mode(file_mode::permissions(stat.mode));
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty()).map_err(fail)?;
        }
        rustix::fs::utimensat(parent, name, &times(stat.mod_time), nofollow).map_err(fail)?;
        Ok(Placed::Made)
    }

    fn make_file(&self, parent: &OwnedFd, name: &[u8], stat: &Stat) -> Result<NewFile, SyncError> {
        let fail = |e| io_error("make", &stat.path, e);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(fail)?;
        set_xattrs(&fd, &stat.xattrs);
        let (uid, gid) = self.owner.unwrap_or((stat.uid, stat.gid));
        chown(&fd, uid, gid).map_err(fail)?;
        Ok(NewFile {
            dir: self.open.last().map(|dir| dir.path.clone()).unwrap_or_default(),
            name: name.into(),
            mode: Mode::from_raw_mode(file_mode::permissions(stat.mode)),
            mod_time: stat.mod_time,
            size: u64::try_from(stat.size).unwrap_or(0),
        })
    }
}

/// The device's number. 0:0 is the overlay's mark for a removed file.
fn device(stat: &Stat) -> Result<u64, SyncError> {
    match (u32::try_from(stat.devmajor), u32::try_from(stat.devminor)) {
        (Ok(major), Ok(minor)) if (major, minor) != (0, 0) => Ok(rustix::fs::makedev(major, minor)),
        _ => Err(SyncError::Device {
            path: as_path(&stat.path),
            major: stat.devmajor,
            minor: stat.devminor,
        }),
    }
}

/// Sets what may come with a context: not the overlay's own marks, and of `security.` and `system.` nothing, which
/// would not be copied out of it either. What the file system does not take is left out, as in `fsutil`.
pub(super) fn set_xattrs(fd: &OwnedFd, xattrs: &[Xattr]) {
    for xattr in xattrs
        .iter()
        .take(XATTRS_MAX)
        .filter(|xattr| is_kept(&xattr.name))
    {
        rustix::fs::fsetxattr(
            fd.as_fd(),
            xattr.name.as_slice(),
            &xattr.value,
            XattrFlags::empty(),
        )
        .ok();
    }
}

fn is_kept(name: &[u8]) -> bool {
    let refused: [&[u8]; 6] = [
        b"trusted.overlay.",
        b"user.overlay.",
        b"security.",
        b"system.",
        b"com.apple.",
        b"user.com.apple.",
    ];
    !name.contains(&0) && !refused.iter().any(|prefix| name.starts_with(prefix))
}

pub(super) fn chown(fd: &OwnedFd, uid: u32, gid: u32) -> Result<(), Errno> {
    let (uid, gid) = ids(uid, gid)?;
    rbuild_sys::owner::chown(fd, Some(uid), Some(gid))
}

/// The kernel reads the highest number as "leave it".
fn ids(uid: u32, gid: u32) -> Result<(Uid, Gid), Errno> {
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Errno::INVAL);
    }
    Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
}

pub(super) fn times(nanos: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: nanos.div_euclid(NANOS),
        tv_nsec: nanos.rem_euclid(NANOS),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Modification time in nanoseconds.
pub(super) fn mod_time(stat: &Status) -> i128 {
    i128::from(stat.st_mtime) * i128::from(NANOS) + i128::from(stat.st_mtime_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_times_too() {
        let times = times(-1);
        assert_eq!(
            (times.last_modification.tv_sec, times.last_modification.tv_nsec),
            (-1, NANOS - 1)
        );
    }

    #[test]
    fn row48_marks_of_the_overlay_are_not_taken() {
        for (name, kept) in [
            ("trusted.overlay.opaque", false),
            ("user.overlay.whiteout", false),
            ("security.capability", false),
            ("system.posix_acl_access", false),
            ("com.apple.quarantine", false),
            ("user.note\0", false),
            ("user.note", true),
            ("trusted.note", true),
        ] {
            assert_eq!(is_kept(name.as_bytes()), kept, "{name}");
        }
    }
}
