//! A writable root on top of layers, and the layer that becomes of it. What is not committed leaves nothing behind.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_store::{LayerId, Lease};
use rbuild_sys::{RootFd, owner};
use rustix::fs::{Gid, Uid};

use crate::dir::{discard, open_dir, open_root};
use crate::explicit::{ExplicitError, unmark_opaque};
use crate::merged::Merged;
use crate::stack::StackError;
use crate::{Means, Snapshotter, Tree};

/// Directories for one new layer. Dropped without [`Workspace::commit`], they are removed.
#[derive(Debug)]
pub struct Workspace {
    snapshotter: Snapshotter,
    lease: Arc<Lease>,
    dir: PathBuf,
    upper: PathBuf,
    work: PathBuf,
    lowers: Vec<PathBuf>,
    /// The writable root, where that is a directory of its own.
    merged: Option<Merged>,
    /// There are no layers below.
    is_first: bool,
}

/// A layer made by a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedLayer {
    /// Its id.
    pub id: LayerId,
    /// Nothing was written: the layer is the empty one.
    pub empty: bool,
}

impl Snapshotter {
    /// Makes directories for a new layer on top of `layers`, bottom first. The root has owner and mode of the root
    /// below it, as containerd's overlay snapshotter keeps the owner; without layers it is root's, 0755.
    ///
    /// # Errors
    /// [`StackError::Missing`] for a layer that is not in the store.
    pub fn workspace(&self, lease: &Arc<Lease>, layers: &[LayerId]) -> Result<Workspace, StackError> {
        let mut lowers = self.lowers(lease, layers)?;
        let dir = lease.new_dir("workspace")?;
        let is_first = lowers.is_empty();
        let workspace = |lowers| Workspace {
            is_first,
            snapshotter: self.clone(),
            lease: Arc::clone(lease),
            upper: dir.join("upper"),
            work: dir.join("work"),
            lowers,
            merged: None,
            dir: dir.clone(),
        };
        let top = lowers.first().cloned();
        if lowers.is_empty() {
            // An overlay needs a lower directory.
            lowers.push(dir.join("empty"));
        }
        // From here on a failure removes what was made.
        let workspace = workspace(lowers);
        workspace.make_dir(&workspace.upper)?;
        workspace.make_dir(&workspace.work)?;
        if top.is_none() {
            workspace.make_dir(&workspace.lowers[0])?;
        }
        workspace.adopt_root(top.as_deref())?;
        Ok(workspace)
    }
}

impl Workspace {
    /// What was written, as overlayfs keeps it. All of it is there after [`Workspace::settle`].
    #[must_use]
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// The writable root, for whoever uses it elsewhere (in the sandbox), with the layer `above` on top of the others for as
    /// long. Nothing is synced when it is unmounted: the store has its own rules for what a power failure takes.
    ///
    /// # Errors
    /// Those of making a directory of the layers.
    pub fn tree(&mut self, above: Option<&Path>) -> Result<Tree, StackError> {
        let mut lowers = self.lowers.clone();
        if let Some(above) = above {
            lowers.insert(0, above.to_owned());
        }
        let upper_work = (self.upper.clone(), self.work.clone());
        let spec = self.snapshotter.spec(lowers, Some(upper_work));
        if self.snapshotter.means() == Means::Overlayfs {
            return Ok(Tree::Overlay(spec));
        }
        let merged = match self.merged.take() {
            Some(merged) => merged,
            None => Merged::new(&self.snapshotter, &spec, self.dir.join("merged"))?,
        };
        let tree = Tree::Directory(merged.dir().to_owned());
        self.merged = Some(merged);
        Ok(tree)
    }

    /// Opens the writable root here. To be closed before [`Workspace::commit`]; a workspace is mounted once, here or
    /// elsewhere (the kernel refuses the work directory of a volatile overlay a second time).
    ///
    /// # Errors
    /// The mount's.
    pub fn mount(&mut self) -> Result<RootFd, StackError> {
        match self.tree(None)? {
            Tree::Overlay(spec) => Ok(RootFd::from_fd(spec.mount()?)),
            Tree::Directory(dir) => open_root(&dir),
        }
    }

    /// Brings all that was written to where [`Workspace::upper`] shows it. Nothing uses the root any more.
    ///
    /// # Errors
    /// Those of finding out what was written.
    pub fn settle(&mut self) -> Result<(), StackError> {
        match self.merged.take() {
            Some(merged) => merged.settle(&self.snapshotter, &self.lease, &self.upper),
            None => Ok(()),
        }
    }

    /// Makes what was written a copy of its own, for when somebody else may still have files or directories of it open.
    ///
    /// # Errors
    /// Those of [`Workspace::settle`] and of the copy.
    pub fn set_apart(&mut self) -> Result<(), StackError> {
        self.settle()?;
        let apart = self.dir.join("apart");
        self.make_dir(&apart)?;
        let (upper, copy) = (open_root(&self.upper)?, open_root(&apart)?);
        rbuild_layer::copy_layer(&upper, &copy).map_err(|source| StackError::Merge {
            path: self.upper.clone(),
            source: Box::new(source),
        })?;
        self.upper = apart;
        Ok(())
    }

    /// Puts all of `tree` into the new layer by links; `false` if it has to be copied, and then of no use is what this
    /// workspace holds. Nothing may change a file of `tree` in place, ever.
    ///
    /// # Errors
    /// [`ExplicitError`].
    pub fn link_tree(&self, tree: &RootFd) -> Result<bool, ExplicitError> {
        let out = RootFd::open(&self.upper)?;
        match rbuild_layer::link_tree(tree, self.snapshotter.form(), &out) {
            Ok(()) => Ok(true),
            Err(error) if error.is_unlinkable() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes it ready to be mounted once more, after whoever had it mounted is gone.
    ///
    /// # Errors
    /// The directory's; renewing it twice among them.
    pub fn renew(&mut self) -> Result<(), StackError> {
        let work = self.dir.join("work-again");
        self.make_dir(&work)?;
        self.work = work;
        Ok(())
    }

    /// Makes what was written a layer of the store, held by the lease.
    ///
    /// The caller has closed the mount and ended every process in it: layers do not change.
    ///
    /// # Errors
    /// The store's.
    pub fn commit(mut self) -> Result<CommittedLayer, StackError> {
        self.settle()?;
        let fail = |verb, source| StackError::Io {
            verb,
            path: self.dir.clone(),
            source,
        };
        let id = match self.is_first {
            true => {
                let unmarked = unmark_opaque(&open_dir(&self.upper)?, self.snapshotter.form());
                unmarked.map_err(|error| fail("unmark directories in", error.into()))?;
                LayerId::random_explicit()
            }
            false => LayerId::random(),
        };
        let id = id.map_err(|source| fail("name a layer in", source))?;
        self.commit_as(id)
    }

    /// The same under a given id, for layers whose content is known by a digest. If it is there already, what was written
    /// here is discarded.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn commit_as(mut self, id: LayerId) -> Result<CommittedLayer, StackError> {
        self.settle()?;
        let store = self.snapshotter.store();
        let form = self.snapshotter.form_name();
        store.commit_layer(&self.lease, form, &self.upper, &id)?;
        let facts = store.layer_facts(form, &id)?;
        Ok(CommittedLayer {
            empty: facts.is_some_and(|facts| facts.entries == 0),
            id,
        })
    }

    pub(crate) fn form(&self) -> rbuild_sys::overlay::Form {
        self.snapshotter.form()
    }

    fn make_dir(&self, path: &Path) -> Result<(), StackError> {
        let fail = |source| StackError::Io {
            verb: "make directory",
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir(path).map_err(fail)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).map_err(fail)
    }

    fn adopt_root(&self, below: Option<&Path>) -> Result<(), StackError> {
        let Some(below) = below else { return Ok(()) };
        let fail = |source| StackError::Io {
            verb: "set owner and mode of",
            path: self.upper.clone(),
            source,
        };
        let open = |path: &Path| File::open(path).map_err(fail);
        let errno = |errno: rustix::io::Errno| fail(errno.into());
        let stat = owner::fstat(open(below)?).map_err(errno)?;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        owner::chown(open(&self.upper)?, Some(uid), Some(gid)).map_err(errno)?;
        let mode = rustix::fs::Mode::from_raw_mode(stat.st_mode & 0o7777);
        owner::chmod(open(&self.upper)?, mode).map_err(errno)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What is mounted there would be in the way.
        drop(self.merged.take());
        discard(&self.lease, &self.dir);
    }
}
