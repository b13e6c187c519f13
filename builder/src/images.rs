//! Images of the outside: from a name to verified documents, from a descriptor to a verified blob. Three places an
//! image can come from, one way through them.

mod blob;
pub mod chain;
mod document;
mod follow;
pub mod layout;
pub mod repositories;
mod resolve;
pub mod session;
pub mod source;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_oci::{
    ConfigError, Descriptor, DiffId, Digest, DocumentError, INDEX_DEPTH_MAX, ImageConfig, Manifest,
    PlatformError, Reference, ReferenceError, Timestamp,
};
use rbuild_registry::{Client, RegistryError};
use rbuild_remotecache::Service;
use rbuild_store::{CommitBlobError, LayerId, Store, StoreError};

pub(crate) use self::document::Kind;
pub(crate) use self::follow::{Follower, follow};
pub use self::resolve::Lookup;

use crate::client::ClientReadError;
use crate::solve::SharedVertex;
use layout::LayoutReadError;
use session::SessionStore;
use source::AttributeError;

/// Where an image's blobs are.
#[derive(Debug, Clone)]
pub enum Origin {
    /// In a registry.
    Registry(Reference),
    /// In an OCI layout directory.
    Layout(PathBuf),
    /// In a content store of the build's client.
    Session(SessionStore),
    /// In a service that keeps a cache.
    Service(Arc<Service>),
    /// In the store already.
    Store,
}

/// A layer of a base image, and how to get it.
#[derive(Debug)]
pub struct RemoteLayer {
    /// The compressed blob.
    pub descriptor: Descriptor,
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// The layers it stands on, bottom first.
    pub below: Vec<LayerId>,
    /// When it was made, where a cache says so; base images say it in their history.
    pub created: Option<Timestamp>,
    /// Where the blob is.
    pub origin: Origin,
    /// It was made by a copy here, not by whoever made a base image: exports give it the form they are to have.
    pub is_own: bool,
    /// Shows the work.
    pub vertex: Arc<SharedVertex>,
}

/// An image whose documents are here and checked.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// Name it was found under.
    pub name: String,
    /// Digest of what the name led to: an index, or the manifest.
    pub digest: Digest,
    /// Type, digest and size of the manifest.
    pub manifest_descriptor: Descriptor,
    /// The manifest for the platform.
    pub manifest: Manifest,
    /// The config.
    pub config: ImageConfig,
    /// The config as it was pulled.
    pub config_bytes: Vec<u8>,
    /// Where its blobs are.
    pub origin: Origin,
}

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not a reference.
    #[error("failed to parse {text:?}")]
    Reference {
        /// As written.
        text: String,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// Not a platform.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The registry.
    #[error("failed to resolve source metadata for {name}")]
    Registry {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: RegistryError,
    },
    /// The layout directory.
    #[error(transparent)]
    Layout(#[from] LayoutReadError),
    /// A document is refused.
    #[error("{name}: document {digest}")]
    Document {
        /// The image.
        name: String,
        /// The document.
        digest: Digest,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// A config is refused.
    #[error("{name}: config {digest}")]
    Config {
        /// The image.
        name: String,
        /// The config.
        digest: Digest,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// What the manifest is of is no image, in BuildKit's words.
    #[error("{name}: encountered unknown type {media_type}; children may not be fetched")]
    NoImage {
        /// What was taken for one.
        name: String,
        /// The type of its config.
        media_type: String,
    },
    /// A document's bytes are not what its descriptor says.
    #[error("{name}: document {digest} does not have the content its descriptor promises")]
    Mismatch {
        /// The image.
        name: String,
        /// The document.
        digest: Digest,
    },
    /// No manifest for the platform.
    #[error("{name}: no match for platform in manifest: not found (wanted {wanted}, the image has {found})")]
    NoPlatform {
        /// The image.
        name: String,
        /// The platform asked for.
        wanted: String,
        /// Those that are there.
        found: String,
    },
    /// Indexes in indexes.
    #[error("{0}: more than {INDEX_DEPTH_MAX} indexes are nested")]
    TooDeep(String),
    /// An attribute of an image source.
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    /// A content store has no image without a digest.
    #[error("{0}: an image of a content store is named by its digest")]
    NoDigest(String),
    /// The image is another one than the source says.
    #[error("image digest {found} for {name} does not match expected checksum {expected}")]
    Checksum {
        /// The image.
        name: String,
        /// Its digest.
        found: Digest,
        /// The source's.
        expected: Digest,
    },
    /// The client could not be asked.
    #[error("failed to resolve source metadata for {name}")]
    Client {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: ClientReadError,
    },
    /// A document could not be read.
    #[error("{name}: read document {digest}")]
    Read {
        /// The image.
        name: String,
        /// The document.
        digest: Digest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A document could not be kept.
    #[error("{name}: keep document {digest}")]
    Keep {
        /// The image.
        name: String,
        /// The document.
        digest: Digest,
        /// Why.
        #[source]
        source: CommitBlobError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Images, as one process knows them.
#[derive(Debug)]
pub struct Images {
    store: Store,
    client: Client,
    resolved: Mutex<HashMap<(String, String), Arc<ResolvedImage>>>,
}

impl Images {
    /// Images in `store`, and those `client` can get.
    #[must_use]
    pub fn new(store: Store, client: Client) -> Self {
        Self {
            store,
            client,
            resolved: Mutex::default(),
        }
    }

    /// The client, for pushes.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// What was found for a name (a reference, with a digest usually) and a platform before.
    fn known(&self, name: &str, platform: &str) -> Option<Arc<ResolvedImage>> {
        let resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        resolved.get(&(name.to_owned(), platform.to_owned())).cloned()
    }

    fn remember(&self, name: String, platform: String, image: &Arc<ResolvedImage>) {
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        resolved.insert((name, platform), Arc::clone(image));
    }
}
