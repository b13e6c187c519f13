//! What an output of a vertex is: a chain of layers, or a directory of the host that is read in place.

use std::sync::Arc;

use rbuild_fileops::SourceTree;
use rbuild_oci::{ChainId, DiffId, Digest};
use rbuild_store::LayerId;

use crate::solve::SharedVertex;

/// An output of a vertex.
#[derive(Debug, Clone)]
pub enum Value {
    /// A root file system.
    Chain(Chain),
    /// The build context or another local directory.
    Context(Context),
}

/// A local directory of the build.
#[derive(Debug, Clone)]
pub struct Context {
    /// The directory.
    pub tree: Arc<SourceTree>,
    /// Shows that it is read, where reading is all there is to do.
    pub vertex: Option<Arc<SharedVertex>>,
}

/// Layers, bottom first. A layer of a base image may not be on this machine yet; it is fetched when something mounts
/// or exports it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    layers: Arc<[LayerId]>,
}

impl Chain {
    /// A chain of these layers.
    #[must_use]
    pub fn new(layers: Vec<LayerId>) -> Self {
        Self {
            layers: layers.into(),
        }
    }

    /// The layers, bottom first.
    #[must_use]
    pub fn layers(&self) -> &[LayerId] {
        &self.layers
    }

    /// Names these layers in this order. Layers never change, so this names their content.
    #[must_use]
    pub fn name(&self) -> Digest {
        let names: Vec<&str> = self.layers.iter().map(LayerId::as_str).collect();
        Digest::sha256(names.join(" ").as_bytes())
    }

    /// This chain with one layer more.
    #[must_use]
    pub fn with(&self, layer: LayerId) -> Self {
        Self {
            layers: self.layers.iter().cloned().chain([layer]).collect(),
        }
    }

    /// This chain with all layers of `upper` on top.
    #[must_use]
    pub fn stacked(&self, upper: &Self) -> Self {
        Self {
            layers: self.layers.iter().chain(upper.layers.iter()).cloned().collect(),
        }
    }

    /// What `self` has above `lower`, if it stands on it.
    #[must_use]
    pub fn above(&self, lower: &Self) -> Option<Self> {
        self.layers.strip_prefix(&*lower.layers).map(|layers| Self {
            layers: layers.into(),
        })
    }
}

/// The name of a base image's file system in keys: equal layers are equal whatever they are called and however they
/// were compressed.
#[must_use]
pub(crate) fn chain_name(diff_ids: &[DiffId]) -> Digest {
    ChainId::of(diff_ids)
        .pop()
        .map_or_else(|| Digest::sha256(b"scratch"), |chain| chain.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(n: u8) -> LayerId {
        LayerId::of_diff_id(&DiffId(Digest::sha256(&[n])))
    }

    #[test]
    fn chains_are_stacked_and_taken_apart() {
        let base = Chain::new(vec![layer(1), layer(2)]);
        let top = Chain::new(vec![layer(3)]);
        let whole = base.with(layer(3));
        assert_eq!(whole, base.stacked(&top));
        assert_eq!(whole.above(&base), Some(top.clone()));
        assert_eq!(whole.above(&top), None);
        assert_eq!(base.above(&base), Some(Chain::default()));
    }
}
