//! A control group for one step in the unified hierarchy, made below a parent the user names.
//!
//! The old hierarchies (cgroup v1) are not used: where memory is accounted there, kills for want of it are unknown.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rbuild_sys::RootFd;
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::wire::{During as _, Explained as _, SetupError};

/// The step's group; removed when dropped, which works once the step is gone.
#[derive(Debug)]
pub(crate) struct Cgroup {
    parent: OwnedFd,
    name: String,
    dir: OwnedFd,
}

const CGROUP2_MAGIC: i64 = 0x6367_7270;
const PLACES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const EVENTS_MAX: u64 = 4096;

impl Cgroup {
    /// Makes a group below `parent`, which is made if missing.
    pub(crate) fn create(parent: &Path) -> Result<Self, SetupError> {
        let top = PLACES.iter().find_map(|place| unified(place)).ok_or_else(|| {
            SetupError::refused(
                "make cgroup",
                parent,
                ": this machine has no unified cgroup hierarchy (v2)",
            )
        })?;
        let mode = Mode::from_raw_mode(0o755);
        let parent_dir = top
            .create_dir_all(parent, mode, |_, _| Ok(()))
            .explained("make cgroup", parent)?;
        let name = format!("rbuild-{}", rustix::process::getpid().as_raw_nonzero());
        rustix::fs::mkdirat(&parent_dir, &name, mode).during("make cgroup", parent)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir =
            rustix::fs::openat(&parent_dir, &name, flags, Mode::empty()).during("make cgroup", parent)?;
        Ok(Self {
            parent: parent_dir,
            name,
            dir,
        })
    }

    /// Whether the kernel killed processes of the group for want of memory; `None` where that is not counted.
    pub(crate) fn oom(&self) -> Option<bool> {
        use std::io::Read as _;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, "memory.events", flags, Mode::empty()).ok()?;
        let mut text = String::new();
        let read: io::Result<usize> = std::fs::File::from(file)
            .take(EVENTS_MAX)
            .read_to_string(&mut text);
        read.ok()?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        count.trim().parse::<u64>().ok().map(|kills| kills > 0)
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A group that still holds a dying process stays behind, empty soon and harmless.
        rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR).ok();
    }
}

fn unified(place: &str) -> Option<RootFd> {
    let root = RootFd::open(&PathBuf::from(place)).ok()?;
    let magic = rustix::fs::fstatfs(&root).ok()?.f_type;
    (magic == CGROUP2_MAGIC).then_some(root)
}
