//! Images between the store and registries, without a build: `rbuild pull`, `rbuild push`.

use std::sync::Arc;

use rbuild_graph::progress::Sink;
use rbuild_oci::{Digest, Platform, Reference, ReferenceError};
use rbuild_store::{DiskError, ImageError as StoreImageError, ImageRecord, IndexError, Lease, StoreError};

use crate::engine::Engine;
use crate::export::ExportError;
use crate::export::push;
use crate::images::{ImageError, Lookup};
use crate::pull::PullError;
use crate::solve::Reporter;
use crate::stored::{self, ReadImageError};
use crate::time::{now_ms, to_ms};

/// Why an image was not transferred.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Not a reference.
    #[error("invalid reference {text:?}")]
    Reference {
        /// As written.
        text: String,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// The store has no such image.
    #[error("the store has no image {0}")]
    NotFound(String),
    /// The image could not be read.
    #[error(transparent)]
    Read(#[from] ReadImageError),
    /// It could not be resolved.
    #[error(transparent)]
    Image(Box<ImageError>),
    /// A layer.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The registry did not take it.
    #[error(transparent)]
    Push(Box<ExportError>),
    /// Its name was not kept.
    #[error("name image {name}")]
    Name {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: StoreImageError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ExportError> for TransferError {
    fn from(error: ExportError) -> Self {
        Self::Push(Box::new(error))
    }
}

impl From<ImageError> for TransferError {
    fn from(error: ImageError) -> Self {
        Self::Image(Box::new(error))
    }
}

impl From<DiskError> for TransferError {
    fn from(error: DiskError) -> Self {
        Self::Store(error.into())
    }
}

impl From<IndexError> for TransferError {
    fn from(error: IndexError) -> Self {
        Self::Store(error.into())
    }
}

/// Pulls `text` for `platform` into the store, all of it, and names it there.
///
/// # Errors
/// [`TransferError`].
pub async fn pull(
    engine: &Engine,
    text: &str,
    platform: &Platform,
    sink: &Arc<dyn Sink>,
) -> Result<(Reference, Digest), TransferError> {
    let reference = parse(text)?;
    let name = reference.to_string();
    let lease = Arc::new(engine.store.lease("pull")?);
    let mut reporter = Reporter::internal(sink, &format!("pull {name}"));
    reporter.start(None);
    let done = pull_all(engine, &lease, &reference, platform, &reporter).await;
    match &done {
        Ok(_) => reporter.done(),
        Err(error) => reporter.failed(crate::error::chain_text(error)),
    }
    done.map(|digest| (reference, digest))
}

async fn pull_all(
    engine: &Engine,
    lease: &Arc<Lease>,
    reference: &Reference,
    platform: &Platform,
    reporter: &Reporter,
) -> Result<Digest, TransferError> {
    let name = reference.to_string();
    let lookup = Lookup { platform, pull: true };
    let image = engine.images.resolve_name(lease, &name, &lookup).await?;
    let layers = image.manifest.layers.iter();
    let fetches = layers.map(|layer| {
        engine
            .images
            .fetch_shown(lease, &image.origin, layer, Some(reporter))
    });
    futures_util::future::try_join_all(fetches).await?;
    let manifest = &image.manifest_descriptor;
    let blobs: u64 = image.manifest.layers.iter().map(|layer| layer.size).sum();
    let record = ImageRecord {
        digest: manifest.digest.clone(),
        media_type: manifest.media_type.clone(),
        manifest_size: manifest.size,
        config: Some(image.manifest.config.digest.clone()),
        size: blobs + image.manifest.config.size + manifest.size,
        created_ms: image.config.created.map_or(0, to_ms),
        tagged_ms: now_ms(),
    };
    engine
        .store
        .set_image(&name, &record)
        .map_err(|source| TransferError::Name { name, source })?;
    Ok(image.digest.clone())
}

/// Pushes the store's image `text` to the registry its name says.
///
/// # Errors
/// [`TransferError`].
pub async fn push(
    engine: &Engine,
    text: &str,
    sink: &Arc<dyn Sink>,
) -> Result<(Reference, Digest), TransferError> {
    let reference = parse(text)?;
    let lease = engine.store.lease("push")?;
    let name = reference.to_string();
    let record = engine.store.get_image(&name)?;
    let record = record.ok_or_else(|| TransferError::NotFound(reference.familiar()))?;
    let image = stored::read(&engine.store, &lease, &name, &record)?;
    let mut reporter = Reporter::internal(sink, &format!("push {reference}"));
    reporter.start(None);
    match push::to(
        &engine.store,
        engine.images.client(),
        &image,
        &reference,
        &reporter,
    )
    .await
    {
        Ok(()) => {
            reporter.done();
            Ok((reference, image.top.digest))
        }
        Err(error) => {
            reporter.failed(crate::error::chain_text(&error));
            Err(error.into())
        }
    }
}

fn parse(text: &str) -> Result<Reference, TransferError> {
    let parsed = Reference::parse(text).map(Reference::or_latest);
    parsed.map_err(|source| TransferError::Reference {
        text: text.to_owned(),
        source,
    })
}
