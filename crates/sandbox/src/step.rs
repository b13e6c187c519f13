//! The step's process between `clone3` and `execve`: pid 1 of its namespaces, building the world it will live in.
//!
//! Single-threaded, its own copy of memory. Ends in `execve`, or in an error the supervisor passes on.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rbuild_sys::RootFd;
use rbuild_sys::mount_attr::MountAttr;
use rbuild_sys::process;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags};

use crate::cgroup::Cgroups;
use crate::devices::stage;
use crate::enter::Passage;
use crate::injected;
use crate::memory::Files;
use crate::mounts::{
    self, NO_SUID_OR_DEV, Tree, attach, clone_tree, mount_id, new_filesystem, open_part, open_target,
    restrict,
};
use crate::plan::{MountKind, Network, Plan, Security};
use crate::stubs::StubKind;
use crate::system;
use crate::wire::{During as _, FailureKind, Report, SetupError};

/// What the supervisor prepared: trees in the order of [`ordered`].
pub(crate) struct Prepared<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) root: OwnedFd,
    pub(crate) trees: Vec<Option<Tree>>,
    /// Whether the place of each was made for it.
    pub(crate) made: Vec<bool>,
    pub(crate) cgroups: &'a Cgroups,
}

/// Builds the sandbox and becomes the step. Returns only with what went wrong.
pub(crate) fn become_step(prepared: Prepared<'_>, passage: Passage<'_>) -> SetupError {
    let plan = prepared.plan;
    let build = || -> Result<(), SetupError> {
        for text in prepared.cgroups.enter()? {
            passage.tell(&Report::Warning(text));
        }
        rustix::system::sethostname(plan.hostname.as_bytes()).during("set host name", &plan.hostname)?;
        if plan.network == Network::None {
            process::loopback_up().during("bring up loopback", "lo")?;
        }
        let null = build_root(prepared)?;
        rustix::stdio::dup2_stdin(&null).during("open", "/dev/null")
    };
    match build() {
        Ok(()) => passage.enter(&plan.process),
        Err(error) => error,
    }
}

/// Mounts everything and makes the new root the root. Gives the step's null device.
fn build_root(prepared: Prepared<'_>) -> Result<OwnedFd, SetupError> {
    let Prepared {
        plan,
        root,
        trees,
        made,
        ..
    } = prepared;
    let secure = plan.security == Security::Sandbox;
    // The host's `/proc` says it, as long as it is there.
    let old_cgroups = if secure {
        Vec::new()
    } else {
        crate::cgroup::old_hierarchies()
    };
    rustix::process::umask(Mode::empty());
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).during("make mounts private", "/")?;
    // Reached by descriptor only. Over `/proc`, which is not needed from here on, and not over `/`: what is stacked
    // on the old root would be taken off in its place by `pivot`, and the old root would stay below `/..`.
    let staging = new_filesystem(
        "tmpfs",
        NO_SUID_OR_DEV,
        &[("mode", Some("700")), ("size", Some("64k"))],
    )?;
    let place = rustix::fs::open(
        "/proc",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    attach(
        staging.as_fd(),
        place.during("open", "/proc")?.as_fd(),
        Path::new("/proc"),
    )?;
    stage(staging.as_fd(), "root", root.as_fd())?;
    let attr = MountAttr {
        no_dev: secure,
        ..MountAttr::default()
    };
    restrict(root.as_fd(), attr, Path::new("/"))?;
    let root = if plan.root.readonly {
        read_only_view(&root, staging.as_fd())?
    } else {
        root
    };
    let root = RootFd::from_fd(root);

    let replaced = |path: &str| {
        plan.mounts
            .iter()
            .any(|mount| rbuild_sys::clean(&mount.dest) == Path::new(path))
    };
    let null = system::mount_all(&root, plan, staging.as_fd(), &old_cgroups, replaced)?;
    let mut files = Files::at(staging.as_fd());
    for (path, content) in [
        ("/etc/resolv.conf", &plan.resolv_conf),
        ("/etc/hosts", &plan.hosts),
    ] {
        if let Some(content) = content.as_ref().filter(|_| !replaced(path)) {
            let target = open_target(&root, Path::new(path), StubKind::File)?;
            let file = files.make(content, (0, 0), 0o644)?;
            attach(file.as_fd(), target.fd.as_fd(), Path::new(path))?;
        }
    }
    mount_plan(&root, plan, trees.into_iter().zip(made), &mut files)?;
    drop(files);
    drop(staging);
    if plan.root.readonly {
        MountAttr::READ_ONLY
            .apply(root.as_fd(), false)
            .during("make read-only", "/")?;
    }
    pivot(&root)?;
    Ok(null)
}

/// Mounts what the plan has beyond the usual, each with its tree and whether its place was made for it.
fn mount_plan(
    root: &RootFd,
    plan: &Plan,
    trees: impl Iterator<Item = (Option<Tree>, bool)>,
    files: &mut Files<'_>,
) -> Result<(), SetupError> {
    let secure = plan.security == Security::Sandbox;
    for ((index, mount), (tree, was_made)) in ordered(plan).into_iter().zip(trees) {
        let (tree, kind) = match (&mount.kind, tree) {
            (MountKind::Bind { readonly, .. }, Some(tree)) => {
                bind(tree, *readonly, secure, index, files.staging())?
            }
            (MountKind::Device(node), host) => (
                injected::node(node, host, index, files.staging())?,
                StubKind::File,
            ),
            (MountKind::HostTree(part), Some(tree)) => injected::tree(part, tree)?,
            (MountKind::Bind { .. } | MountKind::HostTree(_), None) => {
                return Err(Errno::BADF).during("mount", &mount.dest);
            }
            (MountKind::Tmpfs { size_bytes, mode }, _) => {
                (new_tmpfs(*size_bytes, *mode, secure)?, StubKind::Directory)
            }
            (
                MountKind::File {
                    content,
                    uid,
                    gid,
                    mode,
                },
                _,
            ) => (files.make(content, (*uid, *gid), *mode)?, StubKind::File),
        };
        let target = open_target(root, &mount.dest, kind)?;
        if let MountKind::Tmpfs { mode: None, .. } = mount.kind
            && !(was_made || target.was_made)
        {
            let mode = Mode::from_raw_mode(target.mode);
            rustix::fs::chmodat(&tree, ".", mode, AtFlags::empty()).during("set mode of", &mount.dest)?;
        }
        attach(tree.as_fd(), target.fd.as_fd(), &mount.dest)?;
    }
    Ok(())
}

/// A mount of its own of the same tree: the supervisor writes through the other when it removes mountpoints.
fn read_only_view(root: &OwnedFd, staging: BorrowedFd<'_>) -> Result<OwnedFd, SetupError> {
    let view = clone_tree(root.as_fd(), false).during("clone root", "/")?;
    stage(staging, "view", view.as_fd())?;
    Ok(view)
}

/// The mounts with their places in the plan, parents before what is below them.
pub(crate) fn ordered(plan: &Plan) -> Vec<(usize, &crate::plan::MountPlan)> {
    let mut mounts: Vec<_> = plan.mounts.iter().enumerate().collect();
    mounts.sort_by_key(|(_, mount)| rbuild_sys::clean(&mount.dest).components().count());
    mounts
}

fn bind(
    tree: Tree,
    readonly: bool,
    secure: bool,
    index: usize,
    staging: BorrowedFd<'_>,
) -> Result<(OwnedFd, StubKind), SetupError> {
    let shown = PathBuf::from(format!("source-{index}"));
    let tree = match tree.selector {
        None => tree,
        Some(selector) => {
            stage(staging, &format!("source-{index}"), tree.fd.as_fd())?;
            let part = open_part(tree.fd.as_fd(), &selector)?;
            let fd = clone_tree(part.as_fd(), true).during("clone mount source", &selector)?;
            Tree { fd, selector: None }
        }
    };
    let attr = MountAttr {
        read_only: readonly,
        no_dev: secure,
        ..MountAttr::default()
    };
    restrict(tree.fd.as_fd(), attr, &shown)?;
    let kind = mounts::kind_of(&tree)?;
    Ok((tree.fd, kind))
}

fn new_tmpfs(size: Option<u64>, mode: Option<u32>, secure: bool) -> Result<OwnedFd, SetupError> {
    let size = size.map(|bytes| bytes.to_string());
    let mode = format!("{:o}", mode.unwrap_or(0o1777) & 0o7777);
    let mut options = vec![("mode", Some(mode.as_str()))];
    options.extend(size.as_deref().map(|size| ("size", Some(size))));
    let flags = if secure {
        NO_SUID_OR_DEV
    } else {
        MountAttrFlags::MOUNT_ATTR_NOSUID
    };
    new_filesystem("tmpfs", flags, &options)
}

/// The old root goes under the new one and is taken off; the caller's tree is then out of reach.
fn pivot(root: &RootFd) -> Result<(), SetupError> {
    rustix::process::fchdir(root).during("enter root", "/")?;
    rustix::process::pivot_root(".", ".")
        .map_err(std::io::Error::from)
        .map_err(|source| SetupError {
            text:
                ": is the caller's own root a mount point? pivot_root(2) needs that, and refuses in a chroot"
                    .to_owned(),
            kind: FailureKind::Setup,
            what: "pivot into",
            path: "/".into(),
            machine: None,
            source: Some(source),
        })?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).during("leave old root", "/")?;
    rustix::process::chdir("/").during("enter root", "/")?;
    // `..` climbs onto whatever is stacked on the root, which a look-up of `/` alone does not show.
    let (root, above) = (mount_id(root.as_fd(), "")?, mount_id(rustix::fs::CWD, "/..")?);
    if root == above {
        Ok(())
    } else {
        Err(SetupError::refused(
            "leave old root",
            Path::new("/"),
            ": it is still there",
        ))
    }
}
