//! Stacks of layers: ids to directories, and directories to mounts. Refuses a stack with a hole in it.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use rbuild_store::{LayerId, Lease, StoreError};
use rbuild_sys::RootFd;
use rbuild_sys::overlay::{OverlayError, OverlaySpec};

use crate::{Means, Snapshotter};

/// Why layers could not be stacked.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A layer is not in the store: unpack it first, or treat its record as a cache miss.
    #[error("layer {0} is not in the store")]
    Missing(LayerId),
    /// The mount failed.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// The kernel refused.
    #[error("{verb} {path:?}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On which path.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Layers and a directory could not be made of each other.
    #[error("make layers and {path:?} of each other")]
    Merge {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<rbuild_layer::WriteError>,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_parts!(StackError);

/// A read-only file system made of layers. The layers are held by the lease it was made with.
#[derive(Debug)]
pub struct View {
    root: RootFd,
}

impl View {
    /// Its root directory.
    #[must_use]
    pub const fn root(&self) -> &RootFd {
        &self.root
    }

    /// Its root directory, for keeps.
    #[must_use]
    pub fn into_root(self) -> RootFd {
        self.root
    }
}

impl Snapshotter {
    /// A read-only view of `layers`, bottom first. No layers make an empty directory.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn view(&self, lease: &Lease, layers: &[LayerId]) -> Result<View, StackError> {
        let mut lowers = self.lowers(lease, layers)?;
        if self.means() != Means::Overlayfs {
            let root = self.linked(lease, lowers)?;
            return Ok(View { root });
        }
        // An empty directory below: what one layer whites out is then hidden by overlayfs, which wants two.
        while lowers.len() < 2 {
            lowers.push(lease.new_dir("empty")?);
        }
        let spec = OverlaySpec {
            form: self.form(),
            lowers,
            upper_work: None,
            volatile: false,
        };
        Ok(View {
            root: RootFd::from_fd(spec.mount()?),
        })
    }

    /// The directories of `layers` (bottom first), top first, held by the lease. A layer that a merge has several times
    /// is there once, where it is topmost: all it shows and hides further down, it shows and hides there too, and the
    /// kernel stacks no directory twice (`ELOOP`). Of a high stack lower layers are folded into fewer directories.
    ///
    /// # Errors
    /// [`StackError::Missing`] for a layer that is not in the store; those of making such directories.
    pub fn lowers(&self, lease: &Lease, layers: &[LayerId]) -> Result<Vec<PathBuf>, StackError> {
        let found = lease.hold_layers(self.form_name(), layers)?;
        let mut stacked = Vec::with_capacity(layers.len());
        let mut seen = HashSet::with_capacity(layers.len());
        for (id, dir) in layers.iter().zip(found).rev() {
            if seen.insert(id) {
                let dir = dir.ok_or_else(|| StackError::Missing(id.clone()))?;
                stacked.push((id, dir));
            }
        }
        if self.means() == Means::Overlayfs {
            stacked.reverse();
            let mut dirs = self.folded(lease, stacked)?;
            dirs.reverse();
            return Ok(dirs);
        }
        Ok(stacked.into_iter().map(|(_, dir)| dir).collect())
    }
}
