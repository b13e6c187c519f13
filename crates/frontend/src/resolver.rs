//! What the front end asks of the outside: image configs and ignore files of other contexts. Implemented by the
//! builder; the front end itself opens no file and no connection.

use std::collections::BTreeMap;
use std::fmt;

use rbuild_graph::SourceOp;
use rbuild_oci::{Digest, Platform, Timestamp};

use crate::options::ImageResolveMode;

/// Answers questions about images and contexts. Asked about all base images at once.
pub trait MetaResolver: Sync {
    /// The config of the image `request` names, for its platform.
    fn image_config(
        &self,
        request: &ImageRequest,
    ) -> impl Future<Output = Result<ResolvedImage, ResolveError>> + Send;

    /// The config of an image in an OCI layout.
    fn layout_config(
        &self,
        request: &LayoutRequest,
    ) -> impl Future<Output = Result<ResolvedImage, ResolveError>> + Send;

    /// Content of the `.dockerignore` of a named context; `None` if it has none.
    fn context_ignore_file(
        &self,
        request: &IgnoreFileRequest,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, ResolveError>> + Send;

    /// The time of a source from the network: of its commit, the one its server tells, or that of the newest file in the
    /// archive that it is. `None` if it has none of them.
    fn source_time(
        &self,
        request: &SourceTimeRequest,
    ) -> impl Future<Output = Result<Option<Timestamp>, ResolveError>> + Send;
}

/// Question for the time of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceTimeRequest {
    /// The source: a git repository, or a file behind a URL.
    pub source: SourceOp,
    /// What to show while it is looked for.
    pub log_name: String,
}

/// Question for an image config.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageRequest {
    /// Normalised reference with tag or digest.
    pub reference: String,
    /// Platform wanted.
    pub platform: Platform,
    /// Where it may come from.
    pub mode: ImageResolveMode,
    /// What to show while it is looked for, such as `[internal] load metadata for docker.io/library/alpine:3`.
    pub log_name: String,
}

/// Question for an image in an OCI layout.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayoutRequest {
    /// What the build calls the image: name of the named context.
    pub name: String,
    /// Where it is.
    pub place: LayoutPlace,
    /// Platform wanted.
    pub platform: Platform,
    /// What to show while it is looked for.
    pub log_name: String,
}

/// Where an OCI layout is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LayoutPlace {
    /// On this machine.
    Directory {
        /// Directory as the user wrote it.
        directory: String,
        /// Tag (`org.opencontainers.image.ref.name`), if one was given.
        tag: Option<String>,
        /// Digest, if one was given.
        digest: Option<Digest>,
    },
    /// A content store of a client.
    Store {
        /// The client's session.
        session: String,
        /// Name of the store.
        store: String,
        /// Digest of the index or manifest.
        digest: Digest,
    },
}

/// Question for the ignore file of a named context.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IgnoreFileRequest {
    /// Name of the named context.
    pub name: String,
    /// Where the context is.
    pub place: IgnoreFilePlace,
}

/// Where a named context with an ignore file is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum IgnoreFilePlace {
    /// A directory of this machine, as the user wrote it.
    Directory(String),
    /// A directory of a client.
    Local {
        /// Its name there.
        name: String,
        /// Attributes of the source that brings the ignore file alone.
        attrs: BTreeMap<String, String>,
        /// What to show meanwhile.
        log_name: String,
    },
}

/// An image that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// Reference it was found under, usually the one asked for.
    pub canonical_reference: String,
    /// Digest of what the reference names now: index or manifest.
    pub digest: Digest,
    /// Its config, as stored.
    pub config: Vec<u8>,
}

/// The image asked for is to be replaced by a source that is none (`ResolveToNonImageError` of BuildKit). Given as the
/// [`ResolveError`] of [`MetaResolver::image_config`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ref mutated by policy to non-image: docker-image://{reference} -> {updated}")]
pub struct NotAnImage {
    /// The image.
    pub reference: String,
    /// Identifier of the source.
    pub updated: String,
}

/// Why a question has no answer. The text is shown to the user.
#[derive(Debug)]
pub struct ResolveError(pub Box<dyn std::error::Error + Send + Sync>);

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ResolveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
