//! Caches that leave this machine and come back: BuildKit's cache config (`cache/remotecache`) in a registry, a
//! directory, a content store of the client, a service that keeps objects, or inside an image's config.
//!
//! A record's digest is our key. A cache that BuildKit wrote is read without complaint and gives no hits, since its keys
//! are made of other things; the same holds for BuildKit with ours. What our solver needs beyond BuildKit's format is
//! said by the selector of an input link (see [`chains`]), which BuildKit takes for one more selector.
//!
//! An imported cache is believed because this build names it, and by this build only: its records are never written to
//! the store, and what is built on them is kept under a key of its own that only builds naming the same caches ask for
//! ([`book`]). Blobs are fetched when something needs them, their digests checked as those of any pulled layer.

pub mod book;
pub mod chains;
pub mod config;
pub mod export;
pub mod import;
pub mod inline;
mod service;

use std::path::PathBuf;

use rbuild_oci::{Digest, Reference};
use rbuild_remotecache::Place;

use crate::request::LayerCompression;

/// A cache to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheExport {
    /// Where.
    pub target: CacheTarget,
    /// Results of all steps, not only of what is exported.
    pub mode_max: bool,
    /// A failure does not fail the build.
    pub ignore_error: bool,
}

/// Where a cache is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheTarget {
    /// Into the config of every image the build exports.
    Inline,
    /// Into a registry.
    Registry(Reference, CacheForm),
    /// Into an OCI layout directory of this machine, under a tag.
    Directory {
        /// The directory, made if it is missing.
        dest: PathBuf,
        /// Entry of `index.json`.
        tag: String,
        /// How it is written.
        form: CacheForm,
        /// What nothing names any more is removed when it is written.
        reset: bool,
    },
    /// Into a content store of the client, which names it itself.
    Client(String, CacheForm),
    /// Into S3, Azure Blob Storage or GitHub's cache service.
    Service(Place),
}

/// How a cache is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheForm {
    /// OCI media types instead of Docker's.
    pub oci_mediatypes: bool,
    /// An image manifest instead of an index.
    pub image_manifest: bool,
    /// Compression of new layers.
    pub compression: LayerCompression,
    /// Level, the codec's default if absent.
    pub compression_level: Option<i32>,
    /// Convert layers that exist too.
    pub force_compression: bool,
}

impl Default for CacheForm {
    fn default() -> Self {
        Self {
            oci_mediatypes: true,
            image_manifest: true,
            compression: LayerCompression::Gzip,
            compression_level: None,
            force_compression: false,
        }
    }
}

/// A cache to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheSource {
    /// In a registry: a cache, or images that hold one.
    Registry(Reference),
    /// In an OCI layout directory of this machine.
    Directory {
        /// The directory.
        src: PathBuf,
        /// Entry of `index.json`.
        tag: Option<String>,
        /// Wins over the tag.
        digest: Option<Digest>,
    },
    /// In a content store of the client.
    Client {
        /// The store's id.
        store: String,
        /// Digest of the manifest or index.
        digest: Digest,
    },
    /// In S3, Azure Blob Storage or GitHub's cache service.
    Service(Place),
}

impl CacheSource {
    /// What a user is told it is called; also what it is told apart by.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Registry(reference) => reference.to_string(),
            Self::Directory { src, tag, digest } => {
                let tag = tag.as_deref().unwrap_or("latest");
                let at = digest
                    .as_ref()
                    .map_or_else(|| format!(":{tag}"), |digest| format!("@{digest}"));
                format!("local:{}{at}", src.display())
            }
            Self::Client { store, .. } => store.clone(),
            Self::Service(place) => place.name(),
        }
    }
}
