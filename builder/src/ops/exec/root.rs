//! The root of a step: a workspace, mounted once, in which the image's files are read before the step runs in it.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_sandbox::{Confinement, Plan, Running, Sandbox, Source, SpawnError};
use rbuild_snapshotter::{Before, Means, Snapshotter, Workspace};
use rbuild_store::{Lease, StoreError};
use rbuild_sys::RootFd;

use super::source_of;
use crate::ops::OpError;
use crate::ops::host_ca::{Bundle, HostCa};
use crate::value::Chain;

/// What a step writes to, on top of what it runs on.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) workspace: Workspace,
    /// The workspace as a mount of the sandbox.
    pub(super) source: Source,
    pub(super) host_ca: Option<HostCa>,
    /// What was where something gets mounted.
    before: Before,
}

impl Root {
    /// On `base`, with the certificates of `bundle` below what the step writes; and a view of the image's files for as
    /// long as the step is not started, which is that very mount where the sandbox is given its root. `is_watched`: whether
    /// somebody uses the root after the step will be asked, which is known of mounts that the sandbox makes itself.
    pub(super) fn prepare(
        snapshotter: &Snapshotter,
        lease: &Arc<Lease>,
        base: &Chain,
        bundle: Option<&Bundle>,
        is_watched: bool,
    ) -> Result<(Self, RootFd), OpError> {
        let mut workspace = snapshotter.workspace(lease, base.layers())?;
        let mut host_ca = None;
        let (source, view) = match bundle {
            Some(bundle) => {
                let (made, view) = with_bundle(snapshotter, lease, base, bundle)?;
                let tree = workspace.tree(Some(made.lower()))?;
                host_ca = Some(made);
                (source_of(tree), view)
            }
            None if snapshotter.means() != Means::Overlayfs => {
                let root = workspace.mount()?;
                (source_of(workspace.tree(None)?), root)
            }
            None if is_watched => {
                let view = snapshotter.view(lease, base.layers())?;
                (source_of(workspace.tree(None)?), view.into_root())
            }
            None => (Source::Given, workspace.mount()?),
        };
        let root = Self {
            workspace,
            source,
            host_ca,
            before: Before::default(),
        };
        Ok((root, view))
    }

    /// Notes what is in `view` where something gets mounted, at `places` among others.
    pub(super) fn note(
        &mut self,
        view: &RootFd,
        places: &[PathBuf],
        confinement: Confinement,
    ) -> Result<(), OpError> {
        let dirs = places.iter().filter_map(|place| place.parent());
        // Where nothing is mounted, what was in those places is put aside, and back.
        let aside = places.iter().map(PathBuf::as_path).chain([Path::new("/dev")]);
        let aside = aside.filter(|_| confinement == Confinement::Chroot);
        self.before = self.workspace.before(view, dirs.chain(aside))?;
        Ok(())
    }

    /// Leaves of what was written what the step itself wrote. As a copy, if somebody may still write to it.
    pub(super) fn settle(mut self, is_in_use: bool) -> Result<Workspace, OpError> {
        self.workspace.settle()?;
        if is_in_use {
            self.workspace.set_apart()?;
        }
        if let Some(host_ca) = &self.host_ca {
            host_ca.scrub(self.workspace.upper())?;
        }
        self.workspace.drop_unchanged(&self.before)?;
        Ok(self.workspace)
    }
}

/// The certificates of `bundle` as one more layer on `base`, and a view of what is below it.
pub(crate) fn with_bundle(
    snapshotter: &Snapshotter,
    lease: &Arc<Lease>,
    base: &Chain,
    bundle: &Bundle,
) -> Result<(HostCa, RootFd), OpError> {
    let view = snapshotter.view(lease, base.layers())?.into_root();
    let dir = lease.new_dir("host-ca").map_err(StoreError::from)?;
    Ok((HostCa::prepare(bundle, &view, dir)?, view))
}

/// Starts a step. Its view ends here: of a root that is given, the step's own mount is left.
pub(super) fn spawn(
    sandbox: &Sandbox,
    view: RootFd,
    plan: &Plan,
    fds: &[BorrowedFd<'_>],
) -> Result<Running, SpawnError> {
    match plan.root.source {
        Source::Given => sandbox.spawn_on(view.as_fd(), plan, fds),
        _ => sandbox.spawn(plan, fds),
    }
}
