//! Images in a content store of the build's client (`oci-layout://…@sha256:…` of an API client). The client is not
//! trusted: every document is hashed by whoever asked for it, every blob where it is written.

use std::io::{self, Write as _};
use std::sync::Arc;

use rbuild_oci::{Descriptor, Digest};
use rbuild_registry::Progress;
use rbuild_store::Lease;
use tokio::io::AsyncReadExt as _;

use super::{ImageError, Images, Lookup, Origin, ResolvedImage};
use crate::client::{Client, ClientReadError, ContentPlace};
use crate::pull::PullError;

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// A content store, and who has it.
#[derive(Debug, Clone)]
pub struct SessionStore {
    /// The build's client.
    pub client: Arc<dyn Client>,
    /// Which of its stores.
    pub place: ContentPlace,
}

impl Images {
    /// Resolves an image of a client's content store; `name` is what the build calls it.
    ///
    /// # Errors
    /// [`ImageError`].
    pub(crate) async fn resolve_store(
        &self,
        lease: &Arc<Lease>,
        name: &str,
        store: SessionStore,
        digest: &Digest,
        lookup: &Lookup<'_>,
    ) -> Result<Arc<ResolvedImage>, ImageError> {
        let size = store.client.blob_size(&store.place, digest).await;
        let size = size.map_err(|source| ImageError::Client {
            name: name.to_owned(),
            source,
        })?;
        let top = Descriptor::new("", digest.clone(), size);
        self.resolve_top(lease, name, top, Origin::Session(store), lookup.platform)
            .await
    }
}

impl SessionStore {
    /// A document, `bytes_max` at most. Its digest is not checked here.
    pub(super) async fn document(&self, descriptor: &Descriptor, bytes_max: usize) -> io::Result<Vec<u8>> {
        if descriptor.size > bytes_max as u64 {
            return Err(io::Error::other(format!("larger than {bytes_max} bytes")));
        }
        let blob = self.client.blob(&self.place, &descriptor.digest, descriptor.size);
        let mut bytes = Vec::new();
        let mut reader = blob.await.map_err(io::Error::other)?;
        reader.read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    /// Brings a blob into the store of this machine, verified.
    pub(super) async fn fetch(
        &self,
        lease: &Arc<Lease>,
        descriptor: &Descriptor,
        progress: &Progress,
    ) -> Result<(), PullError> {
        let digest = &descriptor.digest;
        let fail = |source| PullError::Layout {
            digest: digest.clone(),
            source,
        };
        let blob = self.client.blob(&self.place, digest, descriptor.size);
        let mut reader = blob.await.map_err(|error| {
            let kind = match error {
                ClientReadError::Missing(_) => io::ErrorKind::NotFound,
                _ => io::ErrorKind::Other,
            };
            fail(io::Error::new(kind, error))
        })?;
        let mut writer = lease.store().blob_writer_with(lease, digest.algorithm())?;
        let (mut buffer, mut done) = (vec![0; CHUNK_BYTES], 0_u64);
        loop {
            let count = reader.read(&mut buffer).await.map_err(fail)?;
            if count == 0 {
                break;
            }
            writer.write_all(&buffer[..count]).map_err(fail)?;
            done += count as u64;
            progress(done, descriptor.size);
        }
        let committed = writer.commit(Some(digest), Some(descriptor.size));
        committed.map(drop).map_err(|source| PullError::Commit {
            digest: digest.clone(),
            source,
        })
    }
}
