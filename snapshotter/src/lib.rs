//! Layers as file systems: stacks of layer directories become mounts, and what a step wrote becomes a layer.
//!
//! Level 2, synchronous. Owns the way from layer ids to a mounted root and back, and the way between layer
//! directories and blobs. Keeps no state: the store has it. Runs no process and knows no images.
//!
//! - [`Snapshotter::workspace`] gives a writable root on top of layers, [`Workspace::commit`] makes its changes a layer;
//! - [`Snapshotter::view`] gives a read-only root;
//! - [`Snapshotter::explicit_layer`] and [`Snapshotter::difference`] give layers that may be stacked elsewhere;
//! - [`Snapshotter::unpack_blob`] and [`Snapshotter::pack_layer`] go between blobs and layer directories.
//!
//! Mounts are descriptors, attached nowhere: whoever is killed leaves none behind. Where there are none, stacks are
//! directories ([`Means`]), which go with their lease; what becomes of them is the same.
#![forbid(unsafe_code)]

/// Errors of the store's parts are the store's.
macro_rules! from_store_parts {
    ($name:ident) => {
        impl From<rbuild_store::DiskError> for $name {
            fn from(error: rbuild_store::DiskError) -> Self {
                Self::Store(error.into())
            }
        }

        impl From<rbuild_store::IndexError> for $name {
            fn from(error: rbuild_store::IndexError) -> Self {
                Self::Store(error.into())
            }
        }
    };
}

mod dir;
mod explicit;
mod fold;
mod fuse;
mod means;
mod members;
mod merged;
mod pack;
mod stack;
#[cfg(test)]
mod tests;
mod unchanged;
mod unpack;
mod workspace;

pub use explicit::ExplicitError;
pub use means::{Means, Tree};
pub use pack::{BlobInfo, PackLayerError, PackLayerOptions, TocFacts};
pub use stack::{StackError, View};
pub use unchanged::Before;
pub use unpack::UnpackBlobError;
pub use workspace::{CommittedLayer, Workspace};

use std::sync::Arc;

use rbuild_store::{FormName, Store};
use rbuild_sys::overlay::Form;

/// The layers of one form in one store.
#[derive(Debug, Clone)]
pub struct Snapshotter {
    store: Arc<Store>,
    form: Form,
    form_name: FormName,
    means: Means,
    views: Arc<merged::Views>,
    folds: Arc<fold::Folds>,
}

impl Snapshotter {
    /// `form_name` stands for everything that makes layer directories of two processes unlike each other: which ids are
    /// mapped, and which attributes overlayfs reads (`form`).
    #[must_use]
    pub fn new(store: Arc<Store>, form: Form, form_name: FormName) -> Self {
        Self {
            store,
            form,
            form_name,
            means: Means::default(),
            views: Arc::default(),
            folds: Arc::default(),
        }
    }

    /// The same with another way to show stacks.
    #[must_use]
    pub fn with_means(self, means: Means) -> Self {
        Self { means, ..self }
    }

    /// How stacks are shown.
    #[must_use]
    pub const fn means(&self) -> Means {
        self.means
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// How overlay metadata is kept.
    #[must_use]
    pub const fn form(&self) -> Form {
        self.form
    }

    /// Where the layer directories are.
    #[must_use]
    pub const fn form_name(&self) -> &FormName {
        &self.form_name
    }
}
