//! Small files of a step that are in memory alone: its secrets, and the files of its network. Each is a mount of its own, which
//! the step can read and not change.
//!
//! The kernel may write what a tmpfs holds to the machine's swap space, where it outlives the build. Root can forbid that for
//! one file system (`noswap`, Linux 6.4); in a user namespace, and before, a ramfs takes its place, which has no way to a disk. That keeps no
//! attributes, so a file whose owner has to be recorded beside it is on a tmpfs all the same.

use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rbuild_sys::mount_attr::MountAttr;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::devices::stage;
use crate::mounts::{NO_SUID_OR_DEV, clone_tree, new_filesystem, restrict};
use crate::wire::{During as _, SetupError};

/// Makes such files.
pub(crate) struct Files<'a> {
    staging: BorrowedFd<'a>,
    unswapped: Option<OwnedFd>,
    recording: Option<OwnedFd>,
    count: usize,
}

impl<'a> Files<'a> {
    /// Those that are made wait in `staging`, out of the step's reach.
    pub(crate) const fn at(staging: BorrowedFd<'a>) -> Self {
        Self {
            staging,
            unswapped: None,
            recording: None,
            count: 0,
        }
    }

    /// Where they wait.
    pub(crate) const fn staging(&self) -> BorrowedFd<'a> {
        self.staging
    }

    /// A file, attached nowhere.
    pub(crate) fn make(
        &mut self,
        content: &[u8],
        owner: (u32, u32),
        mode: u32,
    ) -> Result<OwnedFd, SetupError> {
        let name = self.count.to_string();
        self.count += 1;
        let is_recorded = owner != (0, 0) && rbuild_sys::owner::are_recorded();
        make_file(self.directory(is_recorded)?, &name, content, owner, mode)
    }

    fn directory(&mut self, is_recorded: bool) -> Result<BorrowedFd<'_>, SetupError> {
        let (dir, name) = if is_recorded {
            (&mut self.recording, "recorded")
        } else {
            (&mut self.unswapped, "files")
        };
        if dir.is_none() {
            let made = new_directory(is_recorded)?;
            stage(self.staging, name, made.as_fd())?;
            *dir = Some(made);
        }
        let dir = dir.as_ref().ok_or(Errno::BADF).during("open", name)?;
        Ok(dir.as_fd())
    }
}

fn new_directory(is_recorded: bool) -> Result<OwnedFd, SetupError> {
    let flags = NO_SUID_OR_DEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [("mode", Some("700")), ("noswap", None)];
    let swappable = || new_filesystem("tmpfs", flags, &options[..1]);
    if is_recorded {
        return swappable();
    }
    new_filesystem("tmpfs", flags, &options)
        .or_else(|_| new_filesystem("ramfs", flags, &options[..1]))
        // A profile of the machine may know no other.
        .or_else(|_| swappable())
}

fn make_file(
    dir: BorrowedFd<'_>,
    name: &str,
    content: &[u8],
    (uid, gid): (u32, u32),
    mode: u32,
) -> Result<OwnedFd, SetupError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::RUSR).during("make file", name)?;
    let mut file = std::fs::File::from(file);
    file.write_all(content).during("write file", name)?;
    match rbuild_sys::owner::chown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
        // No records on this kernel's tmpfs (before Linux 6.6). With one id the step may read the file all the same.
        Err(Errno::OPNOTSUPP) if rbuild_sys::owner::are_recorded() => {}
        done => done.during("own file", name)?,
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777)).during("set mode of file", name)?;
    let tree = clone_tree(file.as_fd(), false).during("bind file", name)?;
    let attr = MountAttr {
        read_only: true,
        ..MountAttr::default()
    };
    restrict(tree.as_fd(), attr, Path::new(name))?;
    Ok(tree)
}
