//! Brings a document and everything it names to the repositories it is published in. What a repository has is not sent;
//! what its registry has elsewhere is mounted; the rest goes through the store, and is fetched when the registry wants it.

use std::io::{self, Read};
use std::sync::Arc;

use futures_util::future::{BoxFuture, try_join_all};
use rbuild_graph::progress::Sink;
use rbuild_oci::{Descriptor, Document, INDEX_DEPTH_MAX, Reference, media_type};
use rbuild_registry::{BlobSource, Progress, PushBlobOptions, RegistryError};
use rbuild_store::Lease;

use super::{Combined, ImagetoolsError};
use crate::engine::Engine;
use crate::error::chain_text;
use crate::images::Origin;
use crate::solve::Reporter;

/// Publishes `combined` under every one of `targets`.
///
/// # Errors
/// [`ImagetoolsError`]; a target that has its name then has all it names.
pub async fn publish(
    engine: &Arc<Engine>,
    combined: &Combined,
    targets: &[Reference],
    sink: &Arc<dyn Sink>,
) -> Result<(), ImagetoolsError> {
    let lease = Arc::new(engine.store.lease("imagetools")?);
    for target in targets {
        let mut reporter = Reporter::internal(sink, &format!("[internal] pushing {target}"));
        reporter.start(None);
        let copying = Copying {
            engine,
            lease: &lease,
            target,
            reporter: &reporter,
        };
        let done = copying.all(combined).await;
        match &done {
            Ok(()) => reporter.done(),
            Err(error) => reporter.failed(chain_text(error)),
        }
        done?;
    }
    Ok(())
}

struct Copying<'a> {
    engine: &'a Arc<Engine>,
    lease: &'a Arc<Lease>,
    target: &'a Reference,
    reporter: &'a Reporter,
}

impl Copying<'_> {
    async fn all(&self, combined: &Combined) -> Result<(), ImagetoolsError> {
        for entry in &combined.entries {
            self.manifest(&entry.from, &entry.descriptor, 0).await?;
        }
        let _step = self
            .reporter
            .step(&format!("pushing {}", combined.descriptor.digest));
        let pushed = self
            .engine
            .images
            .client()
            .push_manifest(self.target, &combined.descriptor.media_type, &combined.bytes)
            .await;
        pushed.map(drop).map_err(self.failed("push", self.target))
    }

    fn failed<'a>(
        &self,
        verb: &'static str,
        name: &'a Reference,
    ) -> impl Fn(RegistryError) -> ImagetoolsError + use<'a> {
        move |source| ImagetoolsError::Registry {
            verb,
            name: name.to_string(),
            source,
        }
    }

    /// Copies a manifest with its blobs, or an index with its manifests, unless it is in the repository already.
    fn manifest<'a>(
        &'a self,
        from: &'a Reference,
        descriptor: &'a Descriptor,
        depth: usize,
    ) -> BoxFuture<'a, Result<(), ImagetoolsError>> {
        Box::pin(async move {
            let same = from.name() == self.target.name();
            if same {
                return Ok(());
            }
            if depth > INDEX_DEPTH_MAX {
                return Err(ImagetoolsError::TooDeep(from.to_string()));
            }
            let _step = self
                .reporter
                .step(&format!("copying {} from {}", descriptor.digest, from.name()));
            let client = self.engine.images.client();
            let bare = Descriptor::new(&descriptor.media_type, descriptor.digest.clone(), descriptor.size);
            let pulled = client.manifest_of(from, &bare).await;
            let pulled = pulled.map_err(self.failed("pull", from))?;
            match &pulled.document {
                Document::Index(index) => {
                    for entry in &index.manifests {
                        self.manifest(from, entry, depth + 1).await?;
                    }
                }
                Document::Manifest(manifest) => {
                    // A layer that is not distributed stays where its URLs say it is.
                    let layers = manifest.layers.iter();
                    let sent = layers.filter(|layer| !media_type::is_nondistributable(&layer.media_type));
                    try_join_all(sent.map(|layer| self.blob(from, layer))).await?;
                    self.blob(from, &manifest.config).await?;
                }
            }
            let by_digest = self.target.repository().with_digest(descriptor.digest.clone());
            let pushed = client
                .push_manifest(&by_digest, &pulled.descriptor.media_type, &pulled.bytes)
                .await;
            pushed.map(drop).map_err(self.failed("push", self.target))
        })
    }

    async fn blob(&self, from: &Reference, descriptor: &Descriptor) -> Result<(), ImagetoolsError> {
        let source: Arc<dyn BlobSource> = Arc::new(Elsewhere {
            engine: Arc::clone(self.engine),
            lease: Arc::clone(self.lease),
            origin: Origin::Registry(from.clone()),
            descriptor: descriptor.clone(),
            runtime: tokio::runtime::Handle::current(),
        });
        let options = PushBlobOptions {
            mount_from: (from.host() == self.target.host()).then(|| from.path().to_owned()),
            ..PushBlobOptions::default()
        };
        let shown = self.reporter.clone();
        let (id, started) = (descriptor.digest.to_string(), std::time::SystemTime::now());
        let progress: Progress =
            Arc::new(move |current, total| shown.status(&id, current, total, started, current == total));
        let client = self.engine.images.client();
        let pushed = client
            .push_blob(self.target, descriptor, &source, &options, &progress)
            .await;
        pushed.map(drop).map_err(self.failed("push", self.target))
    }
}

/// A blob of another registry: in the store once somebody wants its bytes.
struct Elsewhere {
    engine: Arc<Engine>,
    lease: Arc<Lease>,
    origin: Origin,
    descriptor: Descriptor,
    runtime: tokio::runtime::Handle,
}

impl BlobSource for Elsewhere {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let images = &self.engine.images;
        let fetched =
            self.runtime
                .block_on(images.fetch_shown(&self.lease, &self.origin, &self.descriptor, None));
        fetched.map_err(|error| io::Error::other(chain_text(&error)))?;
        let file = self.engine.store.open_blob(&self.descriptor.digest);
        let file = file.map_err(io::Error::other)?.ok_or(io::ErrorKind::NotFound)?;
        file.open(offset)
    }
}
