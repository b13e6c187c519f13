//! Mounts that a device brings along: a node is made in a file system of its own, of which the step sees nothing else.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rbuild_sys::mount_attr::MountAttr;
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::devices::stage;
use crate::mounts::{Tree, clone_tree, kind_of, new_filesystem, open_source, restrict};
use crate::plan::{DeviceKind, DeviceNode, HostTree, Source};
use crate::stubs::StubKind;
use crate::wire::{During as _, SetupError};

/// The host's node, where there is one. The supervisor asks, who sees the host.
pub(crate) fn open_node(node: &DeviceNode) -> Result<Option<Tree>, SetupError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match rustix::fs::open(&node.host, flags, Mode::empty()) {
        Ok(opened) => opened,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error).during("open device", &node.host),
    };
    let stat = rustix::fs::fstat(&opened).during("stat device", &node.host)?;
    if FileType::from_raw_mode(stat.st_mode) != file_type(node.kind)
        || stat.st_rdev != makedev(node.major, node.minor)
    {
        // Another device has this name here; a node of the step's own may be made all the same.
        return Ok(None);
    }
    let fd = clone_tree(opened.as_fd(), false).during("bind device", &node.host)?;
    Ok(Some(Tree { fd, selector: None }))
}

/// The host's tree. The supervisor asks, who sees the host.
pub(crate) fn open_tree(tree: &HostTree) -> Result<Tree, SetupError> {
    open_source(&Source::Path(tree.path.clone()), Path::new("/"), &[])
}

/// The tree of `node` for the step; `host` is what [`open_node`] gave, `number` tells it from others.
pub(crate) fn node(
    node: &DeviceNode,
    host: Option<Tree>,
    number: usize,
    staging: BorrowedFd<'_>,
) -> Result<OwnedFd, SetupError> {
    let tree = match (make(node, number, staging), host) {
        (Ok(made), _) => made,
        (Err(error), Some(host)) if crate::system::is(&error, Errno::PERM) => host.fd,
        (Err(error), _) => return Err(error),
    };
    let attr = MountAttr {
        no_suid: true,
        no_exec: true,
        ..MountAttr::default()
    };
    restrict(tree.as_fd(), attr, &node.host)?;
    Ok(tree)
}

/// The tree of the host with its restrictions, and what it must be mounted on.
pub(crate) fn tree(tree: &HostTree, host: Tree) -> Result<(OwnedFd, StubKind), SetupError> {
    let attr = MountAttr {
        read_only: tree.readonly,
        no_exec: tree.noexec,
        no_suid: true,
        no_dev: true,
        ..MountAttr::default()
    };
    restrict(host.fd.as_fd(), attr, &tree.path)?;
    let kind = kind_of(&host)?;
    Ok((host.fd, kind))
}

fn make(node: &DeviceNode, number: usize, staging: BorrowedFd<'_>) -> Result<OwnedFd, SetupError> {
    let flags = MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let dir = new_filesystem("tmpfs", flags, &[("mode", Some("700")), ("size", Some("16k"))])?;
    stage(staging, &format!("device-{number}"), dir.as_fd())?;
    let mode = Mode::from_raw_mode(node.mode & 0o777);
    let device = makedev(node.major, node.minor);
    rustix::fs::mknodat(&dir, "node", file_type(node.kind), mode, device)
        .during("make device", &node.host)?;
    let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    let links = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(&dir, "node", Some(uid), Some(gid), links).during("own device", &node.host)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(&dir, "node", flags, Mode::empty()).during("open device", &node.host)?;
    clone_tree(made.as_fd(), false).during("bind device", &node.host)
}

const fn file_type(kind: DeviceKind) -> FileType {
    match kind {
        DeviceKind::Character => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
    }
}
