//! Documents of images: manifests, indexes and configs, bounded and verified wherever they come from.

use std::io::Read as _;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rbuild_oci::{CONFIG_BYTES_MAX, DOCUMENT_BYTES_MAX, Descriptor, Digest};
use rbuild_store::Lease;

use super::{ImageError, Images, Origin, layout};

impl Images {
    /// A document, from the store or from where the image is; kept in the store, its digest checked.
    ///
    /// # Errors
    /// [`ImageError`].
    pub(crate) fn document<'a>(
        &'a self,
        lease: &'a Arc<Lease>,
        name: &'a str,
        descriptor: &'a Descriptor,
        origin: &'a Origin,
        kind: Kind,
    ) -> BoxFuture<'a, Result<Vec<u8>, ImageError>> {
        Box::pin(self.document_unboxed(lease, name, descriptor, origin, kind))
    }

    async fn document_unboxed(
        &self,
        lease: &Arc<Lease>,
        name: &str,
        descriptor: &Descriptor,
        origin: &Origin,
        kind: Kind,
    ) -> Result<Vec<u8>, ImageError> {
        let bytes_max = kind.bytes_max();
        let digest = &descriptor.digest;
        let read = |source| ImageError::Read {
            name: name.to_owned(),
            digest: digest.clone(),
            source,
        };
        let mismatch = || ImageError::Mismatch {
            name: name.to_owned(),
            digest: digest.clone(),
        };
        lease.hold_blob(digest)?;
        if let Some(file) = self.store.open_blob(digest)? {
            let bytes = read_exact(file, descriptor.size, bytes_max).map_err(read)?;
            if digest_of(digest, &bytes) == *digest {
                return Ok(bytes);
            }
        }
        let bytes = match origin {
            Origin::Store | Origin::Service(_) => return Err(mismatch()),
            Origin::Layout(dir) => {
                let file = layout::open_blob(dir, digest).map_err(read)?;
                read_exact(file, descriptor.size, bytes_max).map_err(read)?
            }
            Origin::Session(store) => {
                let bytes = store.document(descriptor, bytes_max).await;
                bytes.map_err(read)?
            }
            Origin::Registry(reference) => {
                let pulled = match kind {
                    Kind::Manifest => self
                        .client
                        .manifest_of(reference, descriptor)
                        .await
                        .map(|pulled| pulled.bytes),
                    Kind::Config => self.client.blob(reference, descriptor, bytes_max as u64).await,
                };
                pulled.map_err(|source| ImageError::Registry {
                    name: name.to_owned(),
                    source,
                })?
            }
        };
        if digest_of(digest, &bytes) != *digest {
            return Err(mismatch());
        }
        self.store
            .put_blob(lease, &bytes)
            .map_err(|source| ImageError::Keep {
                name: name.to_owned(),
                digest: digest.clone(),
                source,
            })?;
        Ok(bytes)
    }
}

/// What a document of an image is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// A manifest or an index.
    Manifest,
    /// A config.
    Config,
}

impl Kind {
    const fn bytes_max(self) -> usize {
        match self {
            Self::Manifest => DOCUMENT_BYTES_MAX,
            Self::Config => CONFIG_BYTES_MAX,
        }
    }
}

fn read_exact(file: std::fs::File, size: u64, bytes_max: usize) -> std::io::Result<Vec<u8>> {
    if size > bytes_max as u64 {
        return Err(std::io::Error::other(format!("larger than {bytes_max} bytes")));
    }
    let mut bytes = Vec::new();
    file.take(size + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The digest of `bytes` by the algorithm of `like`.
fn digest_of(like: &Digest, bytes: &[u8]) -> Digest {
    like.algorithm().digest(bytes)
}
