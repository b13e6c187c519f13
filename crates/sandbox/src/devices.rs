//! `/dev` of a step: a fresh tmpfs on which device nodes cannot be opened, and on it the six nodes every container
//! has, each bound from elsewhere. A step has `CAP_MKNOD` but no device cgroup: this, and `nodev` on everything
//! else it can write to, is what keeps a node it makes useless.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rbuild_sys::RootFd;
use rbuild_sys::mount_attr::MountAttr;
use rustix::fs::{Dev, FileType, Mode, OFlags, makedev};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::mounts::{attach, clone_tree, new_filesystem, restrict};
use crate::system::{dev_target, is, open_host};
use crate::wire::{During as _, SetupError};

/// Name, major and minor number (Documentation/admin-guide/devices.txt).
const CHARACTER: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// What BuildKit adds for insecure steps where the machine has it (util/entitlements/security).
const INSECURE: [(&str, u32, u32); 5] = [
    ("kmsg", 1, 11),
    ("cuse", 10, 203),
    ("fuse", 10, 229),
    ("kvm", 10, 232),
    ("loop-control", 10, 237),
];
/// Where nothing is mounted, devices are files of the store.
fn no_devices(what: &'static str, path: &Path, why: &str) -> SetupError {
    let text = format!(": {why}; in a step of rbuild or BuildKit, --security=insecure helps");
    SetupError::refused(what, path, text)
}

/// Root of a container that is a user namespace (docker's `--userns-remap`, a pod with `hostUsers: false`) never makes any.
fn none_are_made() -> &'static str {
    if rbuild_sys::userns::has_all_ids().unwrap_or(true) {
        "root makes none here"
    } else {
        "root makes none here, in a user namespace; a container of that kind (docker's --userns-remap, hostUsers: false) needs \
         what rbuild doctor prints for rung one-id: --security-opt seccomp=unconfined, apparmor=unconfined, systempaths=unconfined"
    }
}

/// Makes the six nodes, and the links that lead nowhere without `/proc`, in a plain directory. Nothing else there is a device
/// for a step that may make none.
pub(crate) fn make_plain(dev: BorrowedFd<'_>) -> Result<(), SetupError> {
    for (name, major, minor) in CHARACTER {
        let shown = Path::new("/dev").join(name);
        let mode = Mode::from_raw_mode(0o666);
        match rustix::fs::mknodat(dev, name, FileType::CharacterDevice, mode, makedev(major, minor)) {
            Err(Errno::PERM) => return Err(no_devices("make device", &shown, none_are_made())),
            made => made.during("make device", &shown)?,
        }
    }
    let zero = Path::new("/dev/zero");
    let opened = rustix::fs::openat(dev, "zero", OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    let opened = match opened {
        Err(Errno::ACCESS) => {
            let why = "the file system of the store opens none (nodev): --root names another";
            return Err(no_devices("open device", zero, why));
        }
        opened => opened.during("open device", zero)?,
    };
    // In a step of rung one-id a device is an empty file, whatever is said of it.
    if rustix::io::read(&opened, &mut [0_u8; 1]).during("read device", zero)? == 0 {
        return Err(no_devices("read device", zero, "it is recorded and not there"));
    }
    for (name, target) in LINKS
        .into_iter()
        .filter(|(_, target)| target.starts_with("/proc/self/"))
    {
        rustix::fs::symlinkat(target, dev, name).during("link", Path::new("/dev").join(name))?;
    }
    Ok(())
}

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];
/// The group that owns terminals; its number is the same everywhere (`tty` of base-passwd).
const TTY_GROUP: &str = "5";

/// The nodes, opened before anything of the image is used. Not trees yet: every detached tree that is closed unused
/// costs the kernel a grace period.
#[derive(Debug)]
pub(crate) struct Devices {
    nodes: Vec<(&'static str, OwnedFd)>,
    null: OwnedFd,
}

impl Devices {
    /// Makes the nodes in a file system of their own or, where a user namespace forbids that, takes the host's.
    pub(crate) fn open(staging: BorrowedFd<'_>, secure: bool) -> Result<Self, SetupError> {
        let own = new_filesystem(
            "tmpfs",
            DEVICES_ALONE,
            &[("mode", Some("700")), ("size", Some("64k"))],
        )?;
        stage(staging, "devices", own.as_fd())?;
        let may_make = match make_node(own.as_fd(), CHARACTER[0]) {
            Ok(()) => true,
            Err(error) if is(&error, Errno::PERM) => false,
            Err(error) => return Err(error),
        };
        let mut nodes = Vec::new();
        for (index, node) in CHARACTER.into_iter().enumerate() {
            if may_make && index > 0 {
                make_node(own.as_fd(), node)?;
            }
            nodes.push((
                node.0,
                if may_make {
                    open_own(own.as_fd(), node)?
                } else {
                    host_node(node)?
                },
            ));
        }
        if !secure && may_make {
            for node in INSECURE {
                if open_host(&format!("/dev/{}", node.0)).is_ok() {
                    make_node(own.as_fd(), node)?;
                    nodes.push((node.0, open_own(own.as_fd(), node)?));
                }
            }
        }
        let null = nodes
            .first()
            .map(|(_, tree)| tree.try_clone())
            .ok_or(Errno::NODEV);
        let null = null.during("open", "/dev/null")?.during("open", "/dev/null")?;
        Ok(Self { nodes, null })
    }

    pub(crate) fn null(&self) -> BorrowedFd<'_> {
        self.null.as_fd()
    }

    /// Mounts `/dev` with its nodes and links; gives the new root of it.
    pub(crate) fn mount(&self, root: &RootFd, secure: bool) -> Result<OwnedFd, SetupError> {
        let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
        if secure {
            flags |= MountAttrFlags::MOUNT_ATTR_NODEV;
        }
        let dev = new_filesystem("tmpfs", flags, &[("mode", Some("755")), ("size", Some("65536k"))])?;
        attach(dev.as_fd(), dev_target(root)?.as_fd(), Path::new("/dev"))?;
        for (name, node) in &self.nodes {
            let shown = Path::new("/dev").join(name);
            rustix::fs::mknodat(&dev, *name, FileType::RegularFile, Mode::from_raw_mode(0o600), 0)
                .during("make", &shown)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = rustix::fs::openat(&dev, *name, flags, Mode::empty()).during("open", &shown)?;
            let copy = mount_of(node.as_fd(), &shown)?;
            attach(copy.as_fd(), target.as_fd(), &shown)?;
        }
        for (name, target) in LINKS {
            rustix::fs::symlinkat(target, &dev, name).during("make", Path::new("/dev").join(name))?;
        }
        Ok(dev)
    }
}

/// Opens the null device of a `/dev` made by [`Devices::mount`], for the step's standard input.
pub(crate) fn open_null(dev: BorrowedFd<'_>) -> Result<OwnedFd, SetupError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = rustix::fs::ResolveFlags::BENEATH;
    let null = rustix::fs::openat2(dev, "null", flags, Mode::empty(), resolve).during("open", "/dev/null")?;
    verified(&null, CHARACTER[0])?;
    Ok(null)
}

/// A terminal file system of the step's own; without the terminal group where that is not mapped.
pub(crate) fn new_pts() -> Result<OwnedFd, SetupError> {
    let common = [
        ("newinstance", None),
        ("ptmxmode", Some("0666")),
        ("mode", Some("0620")),
    ];
    let with_group = [common[0], common[1], common[2], ("gid", Some(TTY_GROUP))];
    new_filesystem("devpts", DEVICES_ALONE, &with_group)
        .or_else(|_| new_filesystem("devpts", DEVICES_ALONE, &common))
}

/// Attaches a tree at a place of its own in the staging area, so that parts of it can be cloned.
pub(crate) fn stage(staging: BorrowedFd<'_>, name: &str, tree: BorrowedFd<'_>) -> Result<(), SetupError> {
    let shown = Path::new(name);
    rustix::fs::mkdirat(staging, name, Mode::from_raw_mode(0o700)).during("stage", shown)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat(staging, name, flags, Mode::empty()).during("stage", shown)?;
    attach(tree, target.as_fd(), shown)
}

/// A mount of a device alone.
pub(crate) fn mount_of(node: BorrowedFd<'_>, shown: &Path) -> Result<OwnedFd, SetupError> {
    let mount = clone_tree(node, false).during("bind", shown)?;
    let attr = MountAttr {
        no_suid: true,
        no_exec: true,
        ..MountAttr::default()
    };
    restrict(mount.as_fd(), attr, shown)?;
    Ok(mount)
}

/// What mounts of devices have: all but `nodev`.
const DEVICES_ALONE: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOEXEC.union(MountAttrFlags::MOUNT_ATTR_NOSUID);

fn make_node(dir: BorrowedFd<'_>, (name, major, minor): (&str, u32, u32)) -> Result<(), SetupError> {
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(dir, name, FileType::CharacterDevice, mode, makedev(major, minor))
        .during("make device", name)
}

fn open_own(dir: BorrowedFd<'_>, node: (&str, u32, u32)) -> Result<OwnedFd, SetupError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, node.0, flags, Mode::empty()).during("open device", node.0)?;
    verified(&opened, node)?;
    Ok(opened)
}

fn host_node(node: (&str, u32, u32)) -> Result<OwnedFd, SetupError> {
    let path = format!("/dev/{}", node.0);
    let opened = open_host(&path).during("open device", &path)?;
    verified(&opened, node)?;
    Ok(opened)
}

fn verified(opened: &OwnedFd, (name, major, minor): (&str, u32, u32)) -> Result<(), SetupError> {
    let stat = rustix::fs::fstat(opened).during("stat device", name)?;
    let wanted: Dev = makedev(major, minor);
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != wanted {
        return Err(SetupError::refused(
            "use device",
            Path::new(name),
            ": it is not that device",
        ));
    }
    Ok(())
}
