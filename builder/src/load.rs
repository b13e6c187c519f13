//! `rbuild load`: archives of images (`docker save`, `podman save`, OCI layouts, our own) become images of the store.
//!
//! An archive is read once, from start to end, whatever its order. Its paths are never paths of this machine: what an
//! entry holds goes into the store under its digest, and names inside the archive are looked up in a map. An image is
//! named when all of it was there and every digest was right, and not before.

mod archive;
mod docker;
mod oci;

use std::collections::BTreeSet;
use std::io::Read;

use rbuild_layer::{DecompressError, DecompressLimits, Limits, ReadError, TarReader, decompress_detected};
use rbuild_oci::{
    ConfigError, Descriptor, Digest, DocumentError, ImageConfig, Manifest, Platform, Reference,
};
use rbuild_store::{
    CommitBlobError, DiskError, ImageError as StoreImageError, ImageRecord, Store, StoreError,
};

use crate::stored;
use crate::time::{now_ms, to_ms};
use archive::Archive;

/// Entries of an archive that are read: some for each layer and image, and few images have a hundred.
const ENTRIES_MAX: u64 = 100_000;

/// Why an archive was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be decompressed.
    #[error("read archive")]
    Decompress(#[from] DecompressError),
    /// It is no tar, or a damaged one.
    #[error("read archive")]
    Read(#[from] ReadError),
    /// Neither `index.json` nor `manifest.json`.
    #[error("this is not an archive of images: it has neither index.json nor manifest.json")]
    NoImages,
    /// A document is too large.
    #[error("{name} of the archive has more than {max} bytes")]
    TooLarge {
        /// Which.
        name: String,
        /// Bytes.
        max: u64,
    },
    /// `manifest.json` is not readable.
    #[error("manifest.json of the archive is malformed")]
    DockerManifest(#[source] serde_json::Error),
    /// An index or manifest is refused.
    #[error("{name} of the archive")]
    Document {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// A config is refused.
    #[error("image config {name} of the archive")]
    Config {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// Something an image needs is not in the archive.
    #[error("the archive has no {0}, which an image of it needs")]
    Missing(String),
    /// A layer is not what the config says.
    #[error("layer {path} of the archive has the digest {found}, its image's config says {expected}")]
    DiffId {
        /// Where it was.
        path: String,
        /// What the config says.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// An index has no image for this machine that is whole.
    #[error("the archive has no complete image for {0}")]
    Platform(String),
    /// A name is none.
    #[error("the archive names an image {0:?}, which is not a valid name")]
    Name(String),
    /// A blob could not be kept.
    #[error("write a blob of the archive")]
    Write(#[source] std::io::Error),
    /// A blob is not what its name says.
    #[error("blob of the archive")]
    Blob(#[from] CommitBlobError),
    /// A name could not be kept.
    #[error("name image {name}")]
    SetName {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: StoreImageError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store's disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// An image that is in the store now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its names; none if the archive gives none.
    pub names: Vec<Reference>,
    /// Its id.
    pub id: Digest,
}

/// An image of an archive, complete.
#[derive(Debug)]
struct Found {
    top: Descriptor,
    config: Option<Descriptor>,
    created_ms: i64,
    size_bytes: u64,
    names: BTreeSet<Reference>,
}

impl Found {
    /// The image of one manifest.
    fn of_manifest(top: Descriptor, manifest: &Manifest, config: &ImageConfig) -> Self {
        let layers: u64 = manifest.layers.iter().map(|layer| layer.size).sum();
        Self {
            size_bytes: layers
                .saturating_add(manifest.config.size)
                .saturating_add(top.size),
            created_ms: config.created.map_or(0, to_ms),
            config: Some(manifest.config.clone()),
            names: BTreeSet::new(),
            top,
        }
    }
}

/// Reads the archive `input`, compressed or not, and names its images. Of an index that lacks other platforms' images,
/// as engines save it, the one for `platform` is taken.
///
/// # Errors
/// [`LoadError`]; no image is named then.
pub fn load(store: &Store, input: impl Read + Send, platform: &Platform) -> Result<Vec<Loaded>, LoadError> {
    let lease = store.lease("load")?;
    let (_, stream) = decompress_detected(input, &DecompressLimits::allowed())?;
    let limits = Limits {
        max_entries: ENTRIES_MAX,
        ..Limits::allowed()
    };
    let archive = Archive::read(store, &lease, TarReader::new(stream, limits))?;
    let docker = docker::Listing::of(&archive)?;
    let found = match archive.document(archive::INDEX) {
        Some(index) => oci::images(&archive, index, docker.as_ref(), platform)?,
        None => docker.ok_or(LoadError::NoImages)?.images(&archive)?,
    };
    found.into_iter().map(|image| keep(store, image)).collect()
}

fn keep(store: &Store, image: Found) -> Result<Loaded, LoadError> {
    let record = ImageRecord {
        digest: image.top.digest.clone(),
        media_type: image.top.media_type.clone(),
        manifest_size: image.top.size,
        config: image.config.map(|config| config.digest),
        size: image.size_bytes,
        created_ms: image.created_ms,
        tagged_ms: now_ms(),
    };
    let mut names: Vec<String> = image.names.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        names.push(stored::dangling_name(&record.digest));
    }
    for name in names {
        let set = store.set_image(&name, &record);
        set.map_err(|source| LoadError::SetName { name, source })?;
    }
    Ok(Loaded {
        id: stored::id_of(&record).clone(),
        names: image.names.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests;
