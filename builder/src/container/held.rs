//! What a container shows, and what it holds for that.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rbuild_sandbox::{MountKind as MountAs, MountPlan, Source};
use rbuild_snapshotter::Workspace;
use rbuild_sys::RootFd;

use super::{ContainerError, kernel};
use crate::ops::exec::mounts::Mounts;

/// What a container shows besides the files of a build.
#[derive(Debug, Clone)]
pub enum Shown {
    /// A file that nobody writes.
    File {
        /// Where.
        path: PathBuf,
        /// Its bytes.
        content: Vec<u8>,
        /// Permission bits; it belongs to root.
        mode: u32,
    },
    /// A file or directory of this machine. Whoever makes the container answers for it: no client may name one.
    Host {
        /// Where it is here.
        source: PathBuf,
        /// Where it is there.
        path: PathBuf,
        /// It cannot be written.
        readonly: bool,
    },
    /// An empty directory in memory.
    Memory {
        /// Where.
        path: PathBuf,
        /// Most bytes in it.
        size_bytes: Option<u64>,
    },
}

impl Shown {
    /// The place of this machine that is shown.
    pub(super) const fn host(&self) -> Option<&PathBuf> {
        match self {
            Self::Host { source, .. } => Some(source),
            Self::File { .. } | Self::Memory { .. } => None,
        }
    }

    pub(super) fn plan(self) -> MountPlan {
        let (dest, kind) = match self {
            Self::File { path, content, mode } => {
                let (uid, gid) = (0, 0);
                let kind = MountAs::File {
                    content,
                    uid,
                    gid,
                    mode,
                };
                (path, kind)
            }
            Self::Host {
                source,
                path,
                readonly,
            } => {
                let kind = MountAs::Bind {
                    source: Source::Path(source),
                    selector: PathBuf::new(),
                    readonly,
                };
                (path, kind)
            }
            Self::Memory { path, size_bytes } => {
                let mode = None;
                (path, MountAs::Tmpfs { size_bytes, mode })
            }
        };
        MountPlan { dest, kind }
    }
}

/// What a container has while it lives. Mounts before what they are made of.
#[derive(Debug)]
pub(super) struct Held {
    /// Mounts of this process, detached: the sandbox shows the same ones.
    pub(super) trees: Vec<OwnedFd>,
    pub(super) root: Source,
    pub(super) plans: Vec<MountPlan>,
    /// Of each mount asked for, its files.
    pub(super) files: Vec<Option<Arc<RootFd>>>,
    _mounts: Mounts,
    _workspace: Workspace,
}

impl Held {
    pub(super) fn mount(
        root: Source,
        workspace: Workspace,
        mounts: Mounts,
        wanted: &[String],
    ) -> Result<Self, ContainerError> {
        let mut trees = vec![mount_root(&root)?];
        let mut plans = mounts.plans();
        let mut opened = vec![("/".to_owned(), files(&trees[0])?)];
        for plan in &mut plans {
            let MountAs::Bind { source, .. } = &mut plan.kind else {
                continue;
            };
            let place = match source {
                Source::Overlay(overlay) => {
                    let tree = overlay.spec().mount()?;
                    let place = files(&tree)?;
                    *source = Source::Fd(trees.len());
                    trees.push(tree);
                    Some(place)
                }
                // A directory of a cache. An agent's socket has no files.
                Source::Path(path) if path.is_dir() => Some(Arc::new(RootFd::open(path)?)),
                Source::Path(_) | Source::Fd(_) | Source::Given => None,
            };
            if let Some(place) = place {
                opened.push((plan.dest.display().to_string(), place));
            }
        }
        let files = wanted
            .iter()
            .map(|dest| {
                let found = opened.iter().find(|(at, _)| at == dest);
                found.map(|(_, place)| Arc::clone(place))
            })
            .collect();
        Ok(Self {
            trees,
            root,
            plans,
            files,
            _mounts: mounts,
            _workspace: workspace,
        })
    }
}

fn mount_root(root: &Source) -> Result<OwnedFd, ContainerError> {
    match root {
        Source::Overlay(overlay) => Ok(overlay.spec().mount()?),
        Source::Path(dir) => RootFd::open(dir)?
            .as_fd()
            .try_clone_to_owned()
            .map_err(kernel("open a root")),
        Source::Fd(_) | Source::Given => Err(ContainerError::RootKind),
    }
}

fn files(tree: &OwnedFd) -> Result<Arc<RootFd>, ContainerError> {
    let copy = tree.try_clone().map_err(kernel("open a mount"))?;
    Ok(Arc::new(RootFd::from_fd(copy)))
}
