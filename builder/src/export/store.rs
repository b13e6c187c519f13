//! Image layouts in a content store of the client (`tar=false` of BuildKit's `exporter/oci/export.go`): only the blobs.
//! The client learns from the exporter's response which of them is the image, and names it.

use rbuild_oci::Digest;

use super::layout::Product;
use crate::client::{ContentPlace, OutputError};
use crate::job::Job;
use crate::ops::blocking;

/// Why the store did not get an image.
#[derive(Debug, thiserror::Error)]
pub enum StoreExportError {
    /// A blob the image needs could not be read.
    #[error("blob {digest}")]
    Blob {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The client did not take one.
    #[error("failed to copy {digest}")]
    Client {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: OutputError,
    },
}

/// Puts the blobs of `product` into the store, each behind those it names, so that whatever is there is whole. What the
/// store has is not sent.
///
/// # Errors
/// [`StoreExportError`] of the first that fails.
pub async fn write(job: &Job, product: &Product, place: &ContentPlace) -> Result<(), StoreExportError> {
    for descriptor in product.blobs() {
        let digest = &descriptor.digest;
        let open = super::opener(&job.engine.store);
        let wanted = digest.clone();
        let file = blocking(move || open(&wanted)).await;
        let file = file.map_err(|source| StoreExportError::Blob {
            digest: digest.clone(),
            source,
        })?;
        let put = job.client.put_blob(place, descriptor, file).await;
        put.map_err(|source| StoreExportError::Client {
            digest: digest.clone(),
            source,
        })?;
    }
    Ok(())
}
