//! Trees by descriptor: made detached, attached onto descriptors, never by a path that an image could steer.
//!
//! Runs in the supervisor (sources) and in the step before it gives up its rights (targets).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rbuild_sys::RootFd;
use rbuild_sys::mount_attr::{MountAttr, Propagation};
use rbuild_sys::overlay::context_log;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use crate::plan::Source;
use crate::stubs::{StubKind, Stubs};
use crate::wire::{During as _, Explained as _, FailureKind, SetupError};

/// A tree that can be attached.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) fd: OwnedFd,
    /// The part of it that is wanted, where this kernel clones no parts of detached trees (before 6.15) and the
    /// step must attach it first.
    pub(crate) selector: Option<PathBuf>,
}

/// What every mount has that a step could put files into.
pub(crate) const NO_SUID_OR_DEV: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);
const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const PROC_MAGIC: i64 = 0x9fa0;
const SYSFS_MAGIC: i64 = 0x6265_6572;
const CGROUP_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// Opens a source as a tree attached nowhere, in the caller's mount namespace.
pub(crate) fn open_source(source: &Source, selector: &Path, fds: &[OwnedFd]) -> Result<Tree, SetupError> {
    let whole = rbuild_sys::clean(selector) == Path::new("/");
    let selector = (!whole).then(|| selector.to_owned());
    match source {
        Source::Overlay(plan) => {
            let shown = plan
                .upper
                .as_deref()
                .or(plan.lowers.first().map(PathBuf::as_path));
            let fd = plan
                .spec()
                .mount()
                .explained("mount overlay", shown.unwrap_or(Path::new("")))?;
            narrow(fd, selector)
        }
        Source::Path(path) => {
            let fd = rustix::fs::open(path, PATH, Mode::empty()).during("open mount source", path)?;
            clone_part(fd.as_fd(), selector.as_deref(), path)
        }
        Source::Given => Err(Errno::BADF).during("open mount source", "the given mount"),
        Source::Fd(index) => {
            let path = PathBuf::from(format!("descriptor {index}"));
            let fd = fds
                .get(*index)
                .ok_or(Errno::BADF)
                .during("open mount source", &path)?;
            match clone_part(fd.as_fd(), selector.as_deref(), &path) {
                // A detached mount on a kernel that clones only attached ones: use it itself.
                Err(SetupError {
                    source: Some(error), ..
                }) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                    let fd = fd.try_clone().during("open mount source", &path)?;
                    Ok(Tree { fd, selector })
                }
                done => done,
            }
        }
    }
}

fn narrow(fd: OwnedFd, selector: Option<PathBuf>) -> Result<Tree, SetupError> {
    let Some(selector) = selector else {
        return Ok(Tree { fd, selector: None });
    };
    match clone_part(fd.as_fd(), Some(&selector), &selector) {
        Err(SetupError {
            source: Some(error), ..
        }) if Errno::from_io_error(&error) == Some(Errno::INVAL) => Ok(Tree {
            fd,
            selector: Some(selector),
        }),
        done => done,
    }
}

fn clone_part(fd: BorrowedFd<'_>, selector: Option<&Path>, shown: &Path) -> Result<Tree, SetupError> {
    let fd = match selector {
        None => clone_tree(fd, true).during("clone mount source", shown)?,
        Some(selector) => {
            let part = open_part(fd, selector)?;
            clone_tree(part.as_fd(), true).during("clone mount source", selector)?
        }
    };
    Ok(Tree { fd, selector: None })
}

/// The part of a tree a selector names; links end inside the tree.
pub(crate) fn open_part(tree: BorrowedFd<'_>, selector: &Path) -> Result<OwnedFd, SetupError> {
    let root = RootFd::from_fd(tree.try_clone_to_owned().during("open mount source", selector)?);
    root.open_in(selector, PATH, Mode::empty())
        .explained("open mount source", selector)
}

/// A detached copy of the mounts at `fd`. Recursive copies are needed of trees of another mount namespace, whose
/// submounts are locked together.
pub(crate) fn clone_tree(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(fd, "", flags)
}

/// What a bind of this tree must be mounted on.
pub(crate) fn kind_of(tree: &Tree) -> Result<StubKind, SetupError> {
    let shown = tree.selector.as_deref().unwrap_or(Path::new(""));
    let part = match &tree.selector {
        Some(selector) => Some(open_part(tree.fd.as_fd(), selector)?),
        None => None,
    };
    let stat = rustix::fs::fstat(part.as_ref().unwrap_or(&tree.fd)).during("stat mount source", shown)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => StubKind::Directory,
        _ => StubKind::File,
    })
}

/// The restrictions of a mount for a step: no device nodes unless insecure, and no propagation.
pub(crate) fn restrict(tree: BorrowedFd<'_>, attr: MountAttr, path: &Path) -> Result<(), SetupError> {
    let attr = MountAttr {
        propagation: Some(Propagation::Private),
        ..attr
    };
    attr.apply(tree, true).during("restrict mount", path)
}

/// A new file system, attached nowhere. Options without a value are flags.
pub(crate) fn new_filesystem(
    kind: &'static str,
    attributes: MountAttrFlags,
    options: &[(&str, Option<&str>)],
) -> Result<OwnedFd, SetupError> {
    let shown = Path::new(kind);
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).during("mount", shown)?;
    let fail = |errno: Errno| {
        let log = context_log(context.as_fd());
        SetupError {
            kind: FailureKind::Setup,
            what: "mount",
            path: shown.to_owned(),
            text: if log.is_empty() { log } else { format!(": {log}") },
            machine: None,
            source: Some(errno.into()),
        }
    };
    for (key, value) in options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(&context, *key, *value).map_err(fail)?,
            None => rustix::mount::fsconfig_set_flag(&context, *key).map_err(fail)?,
        }
    }
    rustix::mount::fsconfig_create(&context).map_err(fail)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(fail)
}

/// Attaches a detached tree onto what `target` is.
pub(crate) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>, shown: &Path) -> Result<(), SetupError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", target, "", flags).during("attach mount", shown)
}

/// A place for a mount.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) fd: OwnedFd,
    /// It was not there before.
    pub(crate) was_made: bool,
    /// Its permission bits.
    pub(crate) mode: u32,
}

/// Opens the place for a mount inside `root`, making it if it is missing. `/` and everything in the kernel's own
/// file systems are refused, whatever path leads there.
pub(crate) fn open_target(root: &RootFd, dest: &Path, kind: StubKind) -> Result<Target, SetupError> {
    // `..` goes by the text, as in BuildKit, so that all who look at this path mean the same place.
    let dest = &rbuild_sys::clean(dest);
    let open = || root.open_in(dest, PATH, Mode::empty());
    let (opened, was_made) = match open() {
        Err(error) if error.is_not_found() => {
            make_inside_a_mount(root, dest, kind)?;
            (open(), true)
        }
        done => (done, false),
    };
    let fd = opened.explained("open mountpoint", dest)?;
    let stat = rustix::fs::fstat(&fd).during("stat mountpoint", dest)?;
    let top = rustix::fs::fstat(root).during("stat mountpoint", dest)?;
    if (stat.st_dev, stat.st_ino) == (top.st_dev, top.st_ino) {
        return Err(SetupError::refused(
            "mount on",
            dest,
            ": this is the root directory",
        ));
    }
    let magic = rustix::fs::fstatfs(&fd).during("stat mountpoint", dest)?.f_type;
    if [PROC_MAGIC, SYSFS_MAGIC, CGROUP_MAGIC, CGROUP2_MAGIC].contains(&magic) {
        return Err(SetupError::refused(
            "mount on",
            dest,
            ": nothing is mounted inside /proc and /sys",
        ));
    }
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if is_dir != (kind == StubKind::Directory) {
        let text = if is_dir {
            ": is a directory"
        } else {
            ": is not a directory"
        };
        return Err(SetupError::refused("mount on", dest, text));
    }
    Ok(Target {
        fd,
        was_made,
        mode: stat.st_mode & 0o7777,
    })
}

/// Makes a mountpoint inside an earlier mount, where it stays. What belongs to the root itself was made by the
/// supervisor; a link in the mount that leads back into the root would leave a stub in the layer.
fn make_inside_a_mount(root: &RootFd, dest: &Path, kind: StubKind) -> Result<(), SetupError> {
    let mut stubs = Stubs::default();
    stubs.ensure(root, dest, kind)?;
    let top = mount_id(root.as_fd(), "")?;
    let made_in: Vec<u64> = stubs
        .parents()
        .map(|parent| mount_id(parent, ""))
        .collect::<Result<_, _>>()?;
    if made_in.contains(&top) {
        stubs.remove();
        return Err(SetupError::refused(
            "mount on",
            dest,
            ": a link inside another mount leads out of it",
        ));
    }
    Ok(())
}

/// The mount a path ends on (statx(2), Linux 5.8).
pub(crate) fn mount_id(dir: BorrowedFd<'_>, path: &str) -> Result<u64, SetupError> {
    use rustix::fs::{AtFlags, StatxFlags};
    let stat = rustix::fs::statx(dir, path, AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .during("find mount of", path)?;
    if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(Errno::NOSYS).during("find mount of", path);
    }
    Ok(stat.stx_mnt_id)
}
