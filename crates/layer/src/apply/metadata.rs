//! Sets owner, mode, extended attributes and times of what an entry made, in that order: a change of owner clears
//! set-id bits and file capabilities (chown(2)).

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Applier, ApplyError, At, failed};
use crate::entry::{Device, Entry, Time};

pub(crate) use rbuild_sys::owner::DEVICE_XATTR;

/// Whether an attribute of an archive may be set, and an attribute of a file exported.
///
/// overlayfs' own state must not come from an archive (it would forge whiteouts and redirects), nor go into one;
/// `trusted.*` is for the machine's administrator alone (containerd ignores it, too).
pub(crate) fn kept_xattr(name: &[u8]) -> bool {
    !(name.starts_with(b"trusted.")
        || name.starts_with(b"user.overlay.")
        || name.starts_with(b"user.rbuild."))
}

impl Applier {
    /// For a file or directory that is open.
    pub(super) fn set_on_fd(
        &mut self,
        fd: BorrowedFd<'_>,
        entry: &Entry,
        times: bool,
    ) -> Result<(), ApplyError> {
        let (uid, gid) = self.policy.chown.unwrap_or((entry.uid, entry.gid));
        rbuild_sys::owner::chown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|e| failed("change owner", &entry.path, e))?;
        rbuild_sys::owner::chmod(fd, Mode::from_raw_mode(entry.mode & 0o7777))
            .map_err(|e| failed("change mode", &entry.path, e))?;
        self.set_xattrs(entry, |name, value| {
            rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
        })?;
        if times {
            rustix::fs::futimens(fd, &timestamps(entry.mtime.bounded()))
                .map_err(|e| failed("set times", &entry.path, e))?;
        }
        Ok(())
    }

    /// For a link, pipe or device: what must not be opened.
    pub(super) fn set_on_name(
        &mut self,
        parent: BorrowedFd<'_>,
        at: At<'_>,
        entry: &Entry,
    ) -> Result<(), ApplyError> {
        let (uid, gid) = self.policy.chown.unwrap_or((entry.uid, entry.gid));
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let node = rbuild_sys::owner::chown_at(parent, at.name, uid, gid)
            .map_err(|e| failed("change owner", at.path, e))?;
        let stat = rustix::fs::fstat(&node).map_err(|e| failed("stat", at.path, e))?;
        // The magic link leads to the held inode, whatever has its name by now, and is not followed further.
        let held = format!("/proc/self/fd/{}", node.as_fd().as_raw_fd());
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            rustix::fs::chmod(held.as_str(), Mode::from_raw_mode(entry.mode & 0o7777))
                .map_err(|e| failed("change mode", at.path, e))?;
        }
        self.set_xattrs(entry, |name, value| {
            // Means nothing on what cannot be executed, and the owner may be recorded there.
            if name == rbuild_sys::owner::CAPABILITY_XATTR.as_bytes() && rbuild_sys::owner::are_recorded() {
                return Ok(());
            }
            rustix::fs::setxattr(held.as_str(), name, value, XattrFlags::empty())
        })?;
        rustix::fs::utimensat(
            parent,
            at.name,
            &timestamps(entry.mtime.bounded()),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(|e| failed("set times", at.path, e))
    }

    fn set_xattrs(
        &mut self,
        entry: &Entry,
        set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
    ) -> Result<(), ApplyError> {
        for (name, value) in &entry.xattrs {
            if !kept_xattr(name) {
                self.outcome.skipped_xattrs += 1;
                continue;
            }
            match set(name, value) {
                Ok(()) => {}
                // A lost capability would be a program that fails later, without a word now.
                Err(e) if name == b"security.capability" => {
                    return Err(failed("set file capability", &entry.path, e));
                }
                // No such attributes on this file system, on this type of file, or for this user.
                Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => self.outcome.skipped_xattrs += 1,
                Err(e) => return Err(failed("set extended attribute", &entry.path, e)),
            }
        }
        Ok(())
    }

    pub(super) fn record_device(
        &self,
        file: BorrowedFd<'_>,
        at: At<'_>,
        block: bool,
        device: Device,
    ) -> Result<(), ApplyError> {
        let kind = if block { 'b' } else { 'c' };
        let text = format!("{kind} {} {}", device.major, device.minor);
        rustix::fs::fsetxattr(file, DEVICE_XATTR, text.as_bytes(), XattrFlags::empty())
            .map_err(|e| failed("record device", at.path, e))
    }
}

/// Access and modification time alike, as containerd sets them when there is no access time.
pub(super) fn timestamps(time: Time) -> Timestamps {
    let spec = Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanoseconds.into(),
    };
    Timestamps {
        last_access: spec,
        last_modification: spec,
    }
}
