//! The file systems every step finds: `/proc`, `/sys`, `/dev` and what is below them, with the masked and
//! read-only paths. The set and its options are those of containerd's default spec, which BuildKit uses.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rbuild_sys::RootFd;
use rbuild_sys::mount_attr::MountAttr;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::devices::{self, Devices};
use crate::mounts::{attach, clone_tree, new_filesystem, open_target, restrict};
use crate::plan::{Plan, Security};
use crate::stubs::StubKind;
use crate::wire::{During as _, FailureKind, SetupError};

/// Docker's masked paths (moby/oci/defaults.go and the advisories GHSA-jq35-85cj-fj4p, GHSA-6fw5-f8r9-fgfm).
const MASKED_PROC: &[&str] = &[
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
const MASKED_SYS: &[&str] = &["firmware", "devices/virtual/powercap"];
const CPUS: &str = "devices/system/cpu";
const THERMAL: &str = "thermal_throttle";
/// Read-only paths of the same list.
const READ_ONLY_PROC: &[&str] = &["bus", "fs", "irq", "sys", "sysrq-trigger"];
const SHM_SIZE_DEFAULT: u64 = 64 << 20;
const HARDENED: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Mounts all of it below `root`; gives the step's own `/dev/null`.
///
/// `old_cgroups` are the hierarchies of version 1 that an insecure step gets, by their controllers.
/// `replaced` says whether a mount of the plan takes that path instead.
pub(crate) fn mount_all(
    root: &RootFd,
    plan: &Plan,
    staging: BorrowedFd<'_>,
    old_cgroups: &[Vec<String>],
    replaced: impl Fn(&str) -> bool,
) -> Result<OwnedFd, SetupError> {
    let secure = plan.security == Security::Sandbox;
    let proc = mount_proc(root)?;
    let sys = mount_sys(root, secure)?;
    mount_cgroup(sys.as_fd(), secure);
    if !secure && !old_cgroups.is_empty() {
        mount_old_cgroups(sys.as_fd(), old_cgroups);
    }
    let devices = Devices::open(staging, secure)?;
    // Also where a mount of the plan covers it: standard input is from here.
    let dev = devices.mount(root, secure)?;
    if !replaced("/dev") {
        let at = |name: &str, tree: OwnedFd| mount_in_dev(dev.as_fd(), name, tree);
        at("pts", devices::new_pts()?)?;
        if !replaced("/dev/shm") {
            let size = plan.shm_size_bytes.unwrap_or(SHM_SIZE_DEFAULT).to_string();
            let options = [("mode", Some("1777")), ("size", Some(size.as_str()))];
            at("shm", new_filesystem("tmpfs", HARDENED, &options)?)?;
        }
        match new_filesystem("mqueue", HARDENED, &[]) {
            Ok(tree) => at("mqueue", tree)?,
            // A kernel built without POSIX message queues.
            Err(error) if is(&error, Errno::NODEV) => {}
            Err(error) => return Err(error),
        }
    }
    if secure {
        let masks = Masks {
            null: devices.null(),
            empty: None,
            staging,
        };
        masks.apply(proc.as_fd(), sys.as_fd())?;
        for path in READ_ONLY_PROC {
            make_read_only(proc.as_fd(), path)?;
        }
    }
    devices::open_null(dev.as_fd())
}

/// A new proc of the step's pid namespace. `/proc` of the image must be a real directory, as runc demands.
fn mount_proc(root: &RootFd) -> Result<OwnedFd, SetupError> {
    let proc = new_filesystem("proc", HARDENED, &[]).map_err(|error| SetupError {
        text: format!(
            "{}: is /proc here partly hidden? A container needs it unmasked",
            error.text
        ),
        ..error
    })?;
    attach_at_directory(root, "proc", &proc)?;
    Ok(proc)
}

fn mount_sys(root: &RootFd, secure: bool) -> Result<OwnedFd, SetupError> {
    let flags = if secure {
        HARDENED | MountAttrFlags::MOUNT_ATTR_RDONLY
    } else {
        HARDENED
    };
    let sys = match new_filesystem("sysfs", flags, &[]) {
        // Only the owner of the network namespace may: a user namespace that shares the host's network binds.
        Err(error) if is(&error, Errno::PERM) => {
            let host = rustix::fs::open("/sys", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
            let tree = clone_tree(host.during("open", "/sys")?.as_fd(), true).during("bind", "/sys")?;
            let attr = MountAttr {
                read_only: true,
                no_suid: true,
                no_dev: true,
                no_exec: true,
                propagation: None,
            };
            restrict(tree.as_fd(), attr, Path::new("/sys"))?;
            tree
        }
        done => done?,
    };
    attach_at_directory(root, "sys", &sys)?;
    Ok(sys)
}

fn attach_at_directory(root: &RootFd, name: &str, tree: &OwnedFd) -> Result<(), SetupError> {
    let shown = Path::new("/").join(name);
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let target = rustix::fs::openat(root, name, flags, Mode::empty()).during("open mountpoint", &shown)?;
    attach(tree.as_fd(), target.as_fd(), &shown)
}

/// The unified hierarchy, seen from the step's own cgroup. Left out where the machine has none to show.
fn mount_cgroup(sys: BorrowedFd<'_>, secure: bool) {
    let flags = if secure {
        HARDENED | MountAttrFlags::MOUNT_ATTR_RDONLY
    } else {
        HARDENED
    };
    let Ok(target) = open_beneath(sys, "fs/cgroup", OFlags::PATH | OFlags::DIRECTORY) else {
        return;
    };
    if let Ok(tree) = new_filesystem("cgroup2", flags, &[("nsdelegate", None)])
        .or_else(|_| new_filesystem("cgroup2", flags, &[]))
    {
        // A machine that refuses this leaves an empty or read-only directory there, which is as good.
        drop(attach(tree.as_fd(), target.as_fd(), Path::new("/sys/fs/cgroup")));
    }
}

/// On a machine of version 1 an insecure step finds each of its hierarchies by its controllers (runc's `cgroup` mount), as
/// BuildKit's do; a sandbox needs none of them. What the machine refuses is not there.
fn mount_old_cgroups(sys: BorrowedFd<'_>, hierarchies: &[Vec<String>]) {
    let Ok(target) = open_beneath(sys, "fs/cgroup", OFlags::PATH | OFlags::DIRECTORY) else {
        return;
    };
    let Ok(top) = new_filesystem("tmpfs", HARDENED, &[("mode", Some("755")), ("size", Some("64k"))]) else {
        return;
    };
    let shown = Path::new("/sys/fs/cgroup");
    if attach(top.as_fd(), target.as_fd(), shown).is_err() {
        return;
    }
    for controllers in hierarchies {
        let name = controllers.join(",");
        let options: Vec<_> = controllers.iter().map(|name| (name.as_str(), None)).collect();
        let made = rustix::fs::mkdirat(&top, name.as_str(), Mode::from_raw_mode(0o755));
        let (Ok(()), Ok(tree)) = (made, new_filesystem("cgroup", HARDENED, &options)) else {
            continue;
        };
        if let Ok(place) = open_beneath(top.as_fd(), &name, OFlags::PATH | OFlags::DIRECTORY) {
            drop(attach(tree.as_fd(), place.as_fd(), &shown.join(&name)));
        }
    }
}

fn mount_in_dev(dev: BorrowedFd<'_>, name: &str, tree: OwnedFd) -> Result<(), SetupError> {
    let shown = Path::new("/dev").join(name);
    rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755)).during("make", &shown)?;
    let target = open_beneath(dev, name, OFlags::PATH | OFlags::DIRECTORY).during("open", &shown)?;
    attach(tree.as_fd(), target.as_fd(), &shown)
}

/// Opens a path inside one of the kernel's own file systems, following nothing and leaving it nowhere.
fn open_beneath(dir: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

struct Masks<'a> {
    null: BorrowedFd<'a>,
    empty: Option<OwnedFd>,
    staging: BorrowedFd<'a>,
}

impl Masks<'_> {
    fn apply(mut self, proc: BorrowedFd<'_>, sys: BorrowedFd<'_>) -> Result<(), SetupError> {
        for path in MASKED_PROC {
            self.mask(proc, path)?;
        }
        for path in MASKED_SYS {
            self.mask(sys, path)?;
        }
        // All processors have the directory or none has.
        if open_beneath(sys, &format!("{CPUS}/cpu0/{THERMAL}"), OFlags::PATH).is_ok() {
            for index in 0.. {
                if open_beneath(sys, &format!("{CPUS}/cpu{index}"), OFlags::PATH).is_err() {
                    break;
                }
                self.mask(sys, &format!("{CPUS}/cpu{index}/{THERMAL}"))?;
            }
        }
        Ok(())
    }

    fn mask(&mut self, dir: BorrowedFd<'_>, path: &str) -> Result<(), SetupError> {
        let target = match open_beneath(dir, path, OFlags::PATH) {
            Err(Errno::NOENT) => return Ok(()),
            done => done.during("mask", path)?,
        };
        let stat = rustix::fs::fstat(&target).during("mask", path)?;
        let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            clone_tree(self.empty_dir()?, false).during("mask", path)?
        } else {
            devices::mount_of(self.null, Path::new(path))?
        };
        attach(cover.as_fd(), target.as_fd(), Path::new(path))
    }

    /// One empty read-only file system serves all masked directories.
    fn empty_dir(&mut self) -> Result<BorrowedFd<'_>, SetupError> {
        if self.empty.is_none() {
            let flags = HARDENED | MountAttrFlags::MOUNT_ATTR_RDONLY;
            let tree = new_filesystem("tmpfs", flags, &[("size", Some("4k")), ("mode", Some("755"))])?;
            devices::stage(self.staging, "empty", tree.as_fd())?;
            self.empty = Some(tree);
        }
        self.empty
            .as_ref()
            .map(OwnedFd::as_fd)
            .ok_or(Errno::BADF)
            .during("mask", "")
    }
}

fn make_read_only(proc: BorrowedFd<'_>, path: &str) -> Result<(), SetupError> {
    let target = match open_beneath(proc, path, OFlags::PATH) {
        Err(Errno::NOENT) => return Ok(()),
        done => done.during("make read-only", path)?,
    };
    let tree = clone_tree(target.as_fd(), true).during("make read-only", path)?;
    restrict(tree.as_fd(), MountAttr::READ_ONLY, Path::new(path))?;
    attach(tree.as_fd(), target.as_fd(), Path::new(path))
}

pub(crate) fn is(error: &SetupError, errno: Errno) -> bool {
    error.kind == FailureKind::Setup && error.source.as_ref().and_then(Errno::from_io_error) == Some(errno)
}

/// The trusted host's file at `path`, as a place for `open_target` to compare with.
pub(crate) fn open_host(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
    )
}

/// Opens the place of `/dev` in the image: a link there is followed inside the root.
pub(crate) fn dev_target(root: &RootFd) -> Result<OwnedFd, SetupError> {
    Ok(open_target(root, Path::new("/dev"), StubKind::Directory)?.fd)
}
