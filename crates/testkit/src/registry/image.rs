//! Images made of layer tars, for the registry to hold.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use rbuild_oci::media_type::{Family, LayerCompression};
use rbuild_oci::{Descriptor, DiffId, Digest, ImageConfig, Index, Manifest, Platform};

use super::TestRegistry;

/// How the layers of a test image are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageCompression {
    /// Not at all.
    None,
    /// Gzip.
    #[default]
    Gzip,
}

/// What an image is made of.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    /// The layers' tars, bottom first.
    pub layers: Vec<Vec<u8>>,
    /// The config; its diff ids are filled in, and its platform where it has none.
    pub config: ImageConfig,
    /// How layers are compressed.
    pub compression: ImageCompression,
    /// Which media types are used.
    pub family: Family,
    /// Whether the tag names an index with this image as its only entry.
    pub index: bool,
}

impl Default for ImageSpec {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            config: ImageConfig::default(),
            compression: ImageCompression::default(),
            family: Family::Oci,
            index: false,
        }
    }
}

/// What was stored.
#[derive(Clone, Debug)]
pub struct PutImage {
    /// What the tag names.
    pub root: Descriptor,
    /// The image's manifest.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The config with its diff ids.
    pub config: ImageConfig,
}

/// Builds the image and stores it.
pub(super) fn put(registry: &TestRegistry, repository: &str, tag: &str, spec: &ImageSpec) -> PutImage {
    let mut config = spec.config.clone();
    if config.os.is_empty() {
        config.set_platform(&Platform::host());
    }
    config.rootfs.diff_ids = spec
        .layers
        .iter()
        .map(|tar| DiffId(Digest::sha256(tar)))
        .collect();
    let mut layers = Vec::new();
    for tar in &spec.layers {
        let (compression, bytes) = match spec.compression {
            ImageCompression::None => (LayerCompression::None, tar.clone()),
            ImageCompression::Gzip => (LayerCompression::Gzip, gzip(tar)),
        };
        registry.put_blob(repository, &bytes);
        layers.push(Descriptor::of(spec.family.layer(compression), &bytes));
    }
    let config_bytes = config.to_bytes();
    registry.put_blob(repository, &config_bytes);
    let manifest = Manifest::new(
        spec.family.manifest(),
        Descriptor::of(spec.family.config(), &config_bytes),
        layers,
    );
    let mut descriptor = registry.put_manifest(repository, tag, spec.family.manifest(), &manifest.to_bytes());
    let mut root = descriptor.clone();
    if spec.index {
        descriptor.platform = Some(config.platform());
        let index = Index::new(spec.family.index(), vec![descriptor.clone()]);
        root = registry.put_manifest(repository, tag, spec.family.index(), &index.to_bytes());
    }
    PutImage {
        root,
        descriptor,
        manifest,
        config,
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .expect("writing to memory does not fail")
}
