//! Reading caches: from what the user named to records a build can ask for. A cache that cannot be read is shown as a
//! failed vertex and is no failure of the build, as with BuildKit (`solver/llbsolver/bridge.go`); but one that is on a
//! network which may not be used is.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use rbuild_oci::{
    Descriptor, Digest, Document, DocumentError, INDEX_DEPTH_MAX, ImageConfig, Manifest, parse_document,
};
use rbuild_registry::RegistryError;
use rbuild_remotecache::ServiceError;

use super::CacheSource;
use super::book::ImportedCache;
use super::chains::{LayerBlob, ReadCache, layer_blob};
use super::config::{self, CacheConfig, ConfigFault};
use super::{inline, service};
use crate::client::{ClientReadError, ContentPlace};
use crate::images::layout::{LayoutReadError, LayoutRef};
use crate::images::session::SessionStore;
use crate::images::{ImageError, Kind, Origin};
use crate::job::Job;
use crate::solve::{Reporter, SharedVertex};

/// Most images of one index whose inline caches are read.
const IMAGES_MAX: usize = 64;

/// Why a cache was not imported.
#[derive(Debug, thiserror::Error)]
pub enum CacheImportError {
    /// The registry does not have it, in BuildKit's words (`solver/llbsolver/bridge.go`).
    #[error("failed to configure registry cache importer: {0}: not found")]
    NotThere(String),
    /// The registry does not give it.
    #[error("failed to configure registry cache importer")]
    Resolve(#[source] RegistryError),
    /// The service cannot be asked.
    #[error("failed to configure {kind} cache importer")]
    Configure {
        /// What it is called in a cache's `type`.
        kind: &'static str,
        /// Why.
        #[source]
        source: ServiceError,
    },
    /// The directory does not have it, in the words of BuildKit's client (`client/solve.go`).
    #[error("local cache import at {} skipped due to err", src.display())]
    Layout {
        /// The directory.
        src: PathBuf,
        /// Why.
        #[source]
        source: LayoutReadError,
    },
    /// The client does not have it.
    #[error(transparent)]
    Client(#[from] ClientReadError),
    /// A document of it could not be had.
    #[error(transparent)]
    Document(Box<ImageError>),
    /// A document of it is malformed.
    #[error("read {digest}")]
    Malformed {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// An image's config is malformed.
    #[error("read {digest}")]
    Image {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: rbuild_oci::ConfigError,
    },
    /// The service does not give it.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The records are not to be believed.
    #[error(transparent)]
    Fault(#[from] ConfigFault),
    /// Indexes in indexes, or more images than anybody builds at once.
    #[error("{0} has too many images, or too deep")]
    TooMany(Digest),
}

impl CacheImportError {
    /// Whether it is that the network may not be used.
    fn is_offline(&self) -> bool {
        let asked = match self {
            Self::Resolve(source) => source,
            Self::Service(ServiceError::Request(source)) => source,
            _ => return false,
        };
        matches!(asked, RegistryError::Offline { .. })
    }
}

impl From<ImageError> for CacheImportError {
    fn from(error: ImageError) -> Self {
        Self::Document(Box::new(error))
    }
}

/// Makes the caches of `sources` known to `job`, each once.
///
/// # Errors
/// [`CacheImportError`]: one of them is on the network, which may not be used.
pub async fn all(job: &Job, sources: &[CacheSource]) -> Result<(), CacheImportError> {
    let new = sources
        .iter()
        .filter(|source| job.book.name_cache(&source.name()));
    let shown = futures_util::future::join_all(new.map(|source| shown(job, source))).await;
    shown.into_iter().collect()
}

async fn shown(job: &Job, source: &CacheSource) -> Result<(), CacheImportError> {
    let name = source.name();
    let mut reporter = Reporter::internal(&job.sink, &format!("importing cache manifest from {name}"));
    reporter.start(None);
    match one(job, source, &reporter).await {
        Ok((origin, caches)) => {
            reporter.done();
            let layers = Reporter::internal(&job.sink, &format!("importing cache layers from {name}"));
            let vertex = Arc::new(SharedVertex::new(layers));
            for cache in caches {
                job.book.add(ImportedCache {
                    name: name.clone(),
                    origin: origin.clone(),
                    cache,
                    vertex: Arc::clone(&vertex),
                });
            }
        }
        Err(error) => {
            reporter.failed(crate::error::chain_text(&error));
            if error.is_offline() {
                return Err(error);
            }
        }
    }
    Ok(())
}

async fn one(
    job: &Job,
    source: &CacheSource,
    reporter: &Reporter,
) -> Result<(Origin, Vec<ReadCache>), CacheImportError> {
    if let CacheSource::Service(place) = source {
        return service::read(job, place, reporter).await;
    }
    let (origin, top) = resolve(job, source).await?;
    let place = Place {
        job,
        name: source.name(),
        origin,
    };
    let caches = place.caches(top, reporter).await?;
    Ok((place.origin, caches))
}

async fn resolve(job: &Job, source: &CacheSource) -> Result<(Origin, Descriptor), CacheImportError> {
    match source {
        CacheSource::Registry(reference) => {
            let resolved = job.engine.images.client().resolve(reference).await;
            let resolved = resolved.map_err(|error| match error {
                RegistryError::NotFound(_) => CacheImportError::NotThere(reference.to_string()),
                other => CacheImportError::Resolve(other),
            })?;
            Ok((Origin::Registry(reference.clone()), resolved.descriptor))
        }
        CacheSource::Directory { src, tag, digest } => {
            let place = LayoutRef {
                dir: src.clone(),
                tag: Some(tag.clone().unwrap_or_else(|| "latest".to_owned())),
                digest: digest.clone(),
            };
            let found = crate::ops::blocking(move || place.resolve()).await;
            let found = found.map_err(|source| CacheImportError::Layout {
                src: src.clone(),
                source,
            })?;
            Ok((Origin::Layout(src.clone()), found))
        }
        CacheSource::Service(_) => unreachable!("a service has no manifest"),
        CacheSource::Client { store, digest } => {
            let place = ContentPlace {
                session: String::new(),
                store: store.clone(),
            };
            let size = job.client.blob_size(&place, digest).await?;
            let store = SessionStore {
                client: Arc::clone(&job.client),
                place,
            };
            Ok((Origin::Session(store), Descriptor::new("", digest.clone(), size)))
        }
    }
}

/// Where a cache is.
struct Place<'a> {
    job: &'a Job,
    name: String,
    origin: Origin,
}

impl Place<'_> {
    async fn caches(&self, top: Descriptor, reporter: &Reporter) -> Result<Vec<ReadCache>, CacheImportError> {
        let document = self.document(&top).await?;
        let _step = reporter.step(&format!(
            "inferred cache manifest type: {}",
            document.media_type()
        ));
        let (config, layers) = match &document {
            Document::Manifest(manifest) => (Some(&manifest.config), &manifest.layers),
            Document::Index(index) => {
                let config = index
                    .manifests
                    .iter()
                    .rfind(|entry| entry.media_type == config::MEDIA_TYPE);
                (config, &index.manifests)
            }
        };
        if let Some(config) = config.filter(|config| config.media_type == config::MEDIA_TYPE) {
            let blobs: HashMap<Digest, LayerBlob> = layers
                .iter()
                .filter_map(|layer| Some((layer.digest.clone(), layer_blob(layer)?)))
                .collect();
            let bytes = self.bytes(config, Kind::Config).await?;
            return Ok(vec![ReadCache::new(CacheConfig::parse(&bytes)?, &blobs)?]);
        }
        self.inline(document).await
    }

    /// The caches in the images of a document, indexes followed.
    async fn inline(&self, top: Document) -> Result<Vec<ReadCache>, CacheImportError> {
        let mut caches = Vec::new();
        let mut waiting = vec![(top, 0)];
        let mut seen = 0_usize;
        while let Some((document, depth)) = waiting.pop() {
            match document {
                Document::Manifest(manifest) => caches.extend(self.image(&manifest).await?),
                Document::Index(index) => {
                    for entry in index.manifests.iter().filter(|entry| !entry.is_attestation()) {
                        seen += 1;
                        if seen > IMAGES_MAX || depth == INDEX_DEPTH_MAX {
                            return Err(CacheImportError::TooMany(entry.digest.clone()));
                        }
                        waiting.push((self.document(entry).await?, depth + 1));
                    }
                }
            }
        }
        Ok(caches)
    }

    async fn image(&self, manifest: &Manifest) -> Result<Option<ReadCache>, CacheImportError> {
        if manifest.layers.is_empty() {
            return Ok(None);
        }
        let bytes = self.bytes(&manifest.config, Kind::Config).await?;
        let config = ImageConfig::parse(&bytes).map_err(|source| CacheImportError::Image {
            digest: manifest.config.digest.clone(),
            source,
        })?;
        Ok(inline::read(manifest, &config)?)
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<Document, CacheImportError> {
        let bytes = self.bytes(descriptor, Kind::Manifest).await?;
        let media_type = Some(descriptor.media_type.as_str()).filter(|text| !text.is_empty());
        parse_document(&bytes, media_type).map_err(|source| CacheImportError::Malformed {
            digest: descriptor.digest.clone(),
            source,
        })
    }

    async fn bytes(&self, descriptor: &Descriptor, kind: Kind) -> Result<Vec<u8>, CacheImportError> {
        let images = &self.job.engine.images;
        let read = images
            .document(&self.job.lease, &self.name, descriptor, &self.origin, kind)
            .await;
        Ok(read?)
    }
}
