//! The overlays that a step can write to, and whether anybody has them in use when the step has ended: descriptors can be
//! passed on to processes of other steps, which live on. Of directories of the host nothing can be said.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rbuild_sys::Uses;
use rustix::io::Errno;

use crate::mounts::Tree;
use crate::plan::{MountKind, Plan, Source};
use crate::step::ordered;

/// What is in use after this time is somebody's. A step's own mounts end with its last process, before that can be waited for.
const LIMIT: Duration = Duration::from_millis(500);

/// What a step can write to.
#[derive(Debug)]
pub(crate) enum Written {
    /// The step meets nobody, so nobody else has it.
    Alone,
    /// Overlays of its own.
    Mounted(Uses),
    /// They could not be watched.
    Unknown,
}

impl Written {
    /// Of a step whose root is `root` and whose mounts, in their order, are `trees`.
    pub(crate) fn of(plan: &Plan, root: &OwnedFd, trees: &[Option<Tree>]) -> Self {
        if !plan.meets_others {
            return Self::Alone;
        }
        Self::watched(plan, root, trees).map_or(Self::Unknown, Self::Mounted)
    }

    fn watched(plan: &Plan, root: &OwnedFd, trees: &[Option<Tree>]) -> Result<Uses, Errno> {
        let mut uses = Uses::new()?;
        match plan.root.source {
            // The caller may have it open still.
            Source::Given => return Err(Errno::BUSY),
            Source::Overlay(_) if !plan.root.readonly => uses.watch(root.as_fd())?,
            Source::Overlay(_) | Source::Path(_) | Source::Fd(_) => {}
        }
        for ((_, mount), tree) in ordered(plan).into_iter().zip(trees) {
            if let MountKind::Bind {
                source: Source::Overlay(overlay),
                readonly: false,
                ..
            } = &mount.kind
                && overlay.upper.is_some()
                && let Some(tree) = tree
            {
                uses.watch(tree.fd.as_fd())?;
            }
        }
        Ok(uses)
    }

    /// Whether somebody may have it in use, after the step and everything that this process holds of it are gone.
    pub(crate) fn may_be_in_use(&self) -> bool {
        match self {
            Self::Alone => false,
            Self::Mounted(uses) => !uses.end_within(LIMIT).unwrap_or(false),
            Self::Unknown => true,
        }
    }
}
