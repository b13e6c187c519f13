//! Pushes: layers first, then the config, then the manifest that names them; so whoever sees the manifest can have all
//! of it. What the registry has is not sent, be it in another repository.

use std::sync::Arc;

use rbuild_oci::{Descriptor, Reference, media_type};
use rbuild_registry::{BlobSource, Client, Progress};
use rbuild_store::Store;

use super::ExportError;
use super::layout::Product;
use crate::images::repositories;
use crate::job::Job;
use crate::solve::Reporter;

/// How an image is pushed.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// By its digest only.
    pub by_digest: bool,
    /// Plain HTTP, or nobody who vouches for the registry, is enough (`registry.insecure`).
    pub insecure: bool,
}

/// Pushes `product` under each of `names`.
///
/// # Errors
/// [`ExportError::Push`].
pub async fn image(
    job: &Job,
    product: &Product,
    names: &[Reference],
    how: How,
    reporter: &Reporter,
) -> Result<(), ExportError> {
    let client = job.engine.images.client();
    for name in names {
        let name = if how.by_digest {
            name.repository().with_digest(product.top.digest.clone())
        } else {
            name.clone()
        };
        if how.insecure {
            let client = client.with_insecure(name.host());
            to(&job.engine.store, &client, product, &name, reporter).await?;
        } else {
            to(&job.engine.store, client, product, &name, reporter).await?;
        }
    }
    Ok(())
}

/// Pushes `product` as `name`.
///
/// # Errors
/// [`ExportError::Push`], [`ExportError::Blob`].
pub async fn to(
    store: &Store,
    client: &Client,
    product: &Product,
    name: &Reference,
    reporter: &Reporter,
) -> Result<(), ExportError> {
    {
        let _step = reporter.step("pushing layers");
        let layers = product.images.iter().flat_map(|image| &image.layers);
        // Such a layer is had where its URLs say (`util/push`, `skipNonDistributableBlobs`).
        let sent = layers.filter(|layer| !media_type::is_nondistributable(&layer.media_type));
        let blobs = sent.map(|layer| blob(store, client, name, layer, reporter));
        futures_util::future::try_join_all(blobs).await?;
        for image in &product.images {
            blob(store, client, name, &image.config, reporter).await?;
        }
    }
    let _step = reporter.step(&format!("pushing manifest for {name}@{}", product.top.digest));
    if let Some(index) = &product.index_bytes {
        for image in &product.images {
            let by_digest = name.repository().with_digest(image.manifest.digest.clone());
            manifest(client, &by_digest, &image.manifest, &image.manifest_bytes).await?;
        }
        return manifest(client, name, &product.top, index).await;
    }
    for image in &product.images {
        manifest(client, name, &image.manifest, &image.manifest_bytes).await?;
    }
    Ok(())
}

async fn manifest(
    client: &Client,
    name: &Reference,
    descriptor: &Descriptor,
    bytes: &[u8],
) -> Result<(), ExportError> {
    let pushed = client.push_manifest(name, &descriptor.media_type, bytes).await;
    pushed.map(drop).map_err(|source| ExportError::Push {
        name: name.to_string(),
        source,
    })
}

async fn blob(
    store: &Store,
    client: &Client,
    name: &Reference,
    descriptor: &Descriptor,
    reporter: &Reporter,
) -> Result<(), ExportError> {
    let digest = &descriptor.digest;
    let gone = |source| ExportError::Blob {
        name: name.to_string(),
        digest: digest.clone(),
        source,
    };
    let file = store
        .open_blob(digest)
        .map_err(|error| gone(std::io::Error::other(error)))?;
    let file = file.ok_or_else(|| gone(std::io::ErrorKind::NotFound.into()))?;
    let source: Arc<dyn BlobSource> = Arc::new(file);
    let shown = reporter.clone();
    let (id, started) = (digest.to_string(), std::time::SystemTime::now());
    let progress: Progress =
        Arc::new(move |current, total| shown.status(&id, current, total, started, current == total));
    let pushed = repositories::push_blob(store, client, name, descriptor, &source, &progress).await;
    pushed.map(drop).map_err(|source| ExportError::Push {
        name: name.to_string(),
        source,
    })
}
