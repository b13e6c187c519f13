//! Layers of base images, fetched and unpacked when something needs them: each once, several at a time, every digest
//! checked. A layer that nobody mounts is never unpacked, one that nobody reads is never fetched.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use rbuild_layer::Compression;
use rbuild_oci::{Descriptor, Digest};
use rbuild_registry::RegistryError;
use rbuild_remotecache::ServiceError;
use rbuild_snapshotter::{StackError, UnpackBlobError};
use rbuild_store::{CommitBlobError, DiskError, LayerId, StoreError};
use tokio::sync::OnceCell;

use crate::images::{Follower, Origin, RemoteLayer, follow};
use crate::job::Job;
use crate::ops::blocking;
use crate::solve::Reporter;
use crate::value::Chain;

/// Bytes of a blob from which on it is unpacked while it comes.
const FOLLOWED_BYTES_MIN: u64 = 256 << 10;

/// Why a layer could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Its directory is gone, and no image of this build has it.
    #[error("layer {0:?} is not in the store, and no image of this build has it")]
    Gone(LayerId),
    /// A registry did not give it.
    #[error("fetch layer {digest}")]
    Fetch {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: RegistryError,
    },
    /// A service that keeps a cache did not give it.
    #[error("fetch layer {digest}")]
    Service {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: ServiceError,
    },
    /// A layout directory did not give it.
    #[error("read layer {digest} of the OCI layout")]
    Layout {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The blob is not what its descriptor says, or the disk did not take it.
    #[error("layer {digest}")]
    Commit {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: CommitBlobError,
    },
    /// It could not be unpacked.
    #[error("unpack layer {digest}")]
    Unpack {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: UnpackBlobError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl PullError {
    /// Whether the place where the layer should be does not have it, as against not saying so.
    pub(crate) fn is_missing(&self) -> bool {
        match self {
            Self::Gone(_) => true,
            Self::Fetch { source, .. } => matches!(source, RegistryError::NotFound(_)),
            Self::Layout { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

impl Job {
    /// Makes sure that every layer of `chain` is a directory of the store, and gives the chain of these directories. It
    /// differs from `chain` where a layer turned out to take something from those below it (see
    /// [`rbuild_snapshotter::Snapshotter::unpack_blob`]): mount and build on the one given here.
    ///
    /// # Errors
    /// [`PullError`] of the first layer that could not be had.
    pub(crate) async fn unpack_chain(&self, chain: &Chain) -> Result<Chain, PullError> {
        let held = self.lease.hold_layers(&self.engine.form_name, chain.layers())?;
        if held.iter().all(Option::is_some) {
            return Ok(chain.clone());
        }
        let layers = chain.layers().iter().zip(held).map(|(layer, dir)| async move {
            if dir.is_some() {
                Ok(layer.clone())
            } else {
                self.unpack_once(layer).await
            }
        });
        Ok(Chain::new(futures_util::future::try_join_all(layers).await?))
    }

    async fn unpack_once(&self, layer: &LayerId) -> Result<LayerId, PullError> {
        let cell = once(&self.fetches, layer);
        cell.get_or_try_init(|| self.unpack_layer(layer)).await.cloned()
    }

    async fn unpack_layer(&self, layer: &LayerId) -> Result<LayerId, PullError> {
        let remote = self.remote(layer).ok_or_else(|| PullError::Gone(layer.clone()))?;
        let reporter = remote.vertex.enter();
        let result = self.fetch_and_unpack(&remote, reporter.as_ref()).await;
        remote
            .vertex
            .leave(result.as_ref().err().map(|error| crate::error::chain_text(error)));
        let id = result?;
        if id != *layer {
            self.remotes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(id.clone(), remote);
        }
        Ok(id)
    }

    async fn fetch_and_unpack(
        &self,
        remote: &Arc<RemoteLayer>,
        reporter: Option<&Reporter>,
    ) -> Result<LayerId, PullError> {
        let digest = remote.descriptor.digest.clone();
        let id = format!("extracting {digest}");
        // Boxed: without, the compiler gives up on what the futures above this one are made of.
        let followed = self.fetch_followed(remote, reporter, &id).boxed().await?;
        let _shown = reporter.map(|reporter| reporter.step(&id));
        let unpacked = match followed {
            Some(Err(needs_below @ UnpackBlobError::Stack(StackError::Missing(_)))) => Err(needs_below),
            Some(Ok(layer)) => return Ok(layer),
            // What went wrong beside the download is told by doing it again.
            _ => self.unpack_on(remote, remote.below.clone(), None).await,
        };
        let unpacked = match unpacked {
            Err(UnpackBlobError::Stack(StackError::Missing(_))) => {
                // It takes attributes of parents from the layers below, so those must be there first. Boxed: this is
                // recursion.
                let below = Box::pin(self.unpack_chain(&Chain::new(remote.below.clone()))).await?;
                self.unpack_on(remote, below.layers().to_vec(), None).await
            }
            other => other,
        };
        unpacked.map_err(|source| PullError::Unpack { digest, source })
    }

    /// Makes sure that the blob is in the store; how it went to unpack it while it came, if it was worth that.
    async fn fetch_followed(
        &self,
        remote: &Arc<RemoteLayer>,
        reporter: Option<&Reporter>,
        id: &str,
    ) -> Result<Option<Result<LayerId, UnpackBlobError>>, PullError> {
        let (origin, blob) = (&remote.origin, &remote.descriptor);
        let is_large = blob.size >= FOLLOWED_BYTES_MIN;
        let streams = matches!(origin, Origin::Registry(_) | Origin::Service(_));
        if !streams || !is_large || self.lease.hold_blob(&blob.digest)? {
            self.fetch_blob(origin, blob, reporter).await?;
            return Ok(None);
        }
        let (ahead, follower) = follow();
        let fetch = async {
            let images = &self.engine.images;
            let fetched = images.fetch_followed(&self.lease, origin, blob, reporter, Some(ahead));
            fetched.await?;
            Ok::<_, PullError>(reporter.map(|reporter| reporter.step(id)))
        };
        let unpack = self.unpack_on(remote, remote.below.clone(), Some(follower));
        let (fetched, unpacked) = tokio::join!(fetch, unpack);
        fetched?;
        Ok(Some(unpacked))
    }

    /// Unpacks a layer from the store's blob, or from one that is still coming. The latter waits for the network, and
    /// keeps no processor from others meanwhile.
    async fn unpack_on(
        &self,
        remote: &Arc<RemoteLayer>,
        below: Vec<LayerId>,
        follower: Option<Follower>,
    ) -> Result<LayerId, UnpackBlobError> {
        let _permit = match follower {
            Some(_) => None,
            None => self.processors.acquire().await.ok(),
        };
        let (engine, lease, remote) = (
            Arc::clone(&self.engine),
            Arc::clone(&self.lease),
            Arc::clone(remote),
        );
        blocking(move || {
            let digest = &remote.descriptor.digest;
            let fail = |source| StackError::Io {
                verb: "read",
                path: digest.as_str().into(),
                source,
            };
            let gone = || fail(std::io::ErrorKind::NotFound.into());
            let mut blob: Box<dyn Read + Send> = match follower {
                Some(follower) => Box::new(follower),
                None => Box::new(engine.store.open_blob(digest)?.ok_or_else(gone)?),
            };
            // By content: media types of real images say gzip where there is none, and the reverse.
            let mut start = Vec::new();
            let detected = (&mut blob).take(Compression::DETECT_BYTES as u64);
            { detected }.read_to_end(&mut start).map_err(fail)?;
            let compression = Compression::detect(&start);
            let whole = Cursor::new(start).chain(blob);
            engine
                .snapshotter
                .unpack_blob(&lease, whole, compression, &remote.diff_id, &below)
        })
        .await
    }

    /// Makes sure that a blob is in the store.
    ///
    /// # Errors
    /// [`PullError`].
    pub(crate) async fn fetch_blob(
        &self,
        origin: &Origin,
        descriptor: &Descriptor,
        reporter: Option<&Reporter>,
    ) -> Result<(), PullError> {
        self.engine
            .images
            .fetch_shown(&self.lease, origin, descriptor, reporter)
            .await
    }
}

fn once(map: &Mutex<HashMap<LayerId, Arc<OnceCell<LayerId>>>>, layer: &LayerId) -> Arc<OnceCell<LayerId>> {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(map.entry(layer.clone()).or_default())
}
