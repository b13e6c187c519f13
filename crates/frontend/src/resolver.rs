//! What the front end asks of the outside: image configs and ignore files of other contexts. Implemented by the
//! builder; the front end itself opens no file and no connection.

use std::fmt;

use rbuild_oci::{Digest, Platform};

use crate::options::ImageResolveMode;

/// Answers questions about images and contexts. Asked about all base images at once.
pub trait MetaResolver: Sync {
    /// The config of the image `request` names, for its platform.
    fn image_config(
        &self,
        request: &ImageRequest,
    ) -> impl Future<Output = Result<ResolvedImage, ResolveError>> + Send;

    /// The config of an image in an OCI layout directory.
    fn layout_config(
        &self,
        request: &LayoutRequest,
    ) -> impl Future<Output = Result<ResolvedImage, ResolveError>> + Send;

    /// Content of the `.dockerignore` of the directory behind named context `name`; `None` if it has none.
    fn context_ignore_file(
        &self,
        name: &str,
        directory: &str,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, ResolveError>> + Send;
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
    /// Name of the named context.
    pub name: String,
    /// Directory as the user wrote it.
    pub directory: String,
    /// Tag (`org.opencontainers.image.ref.name`), if one was given.
    pub tag: Option<String>,
    /// Digest, if one was given.
    pub digest: Option<Digest>,
    /// Platform wanted.
    pub platform: Platform,
    /// What to show while it is looked for.
    pub log_name: String,
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
