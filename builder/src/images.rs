//! Images of the outside: from a name to verified documents, from a descriptor to a verified blob. Three places an
//! image can come from, one way through them.

pub mod layout;
pub mod session;
pub mod source;

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rbuild_oci::{
    Algorithm, CONFIG_BYTES_MAX, ConfigError, DOCUMENT_BYTES_MAX, Descriptor, DiffId, Digest, Document,
    DocumentError, INDEX_DEPTH_MAX, ImageConfig, Manifest, Platform, PlatformError, Reference,
    ReferenceError, Timestamp, parse_document,
};
use rbuild_registry::{BlobSink, Client, Progress, RegistryError};
use rbuild_store::{BlobWriter, CommitBlobError, DiskError, LayerId, Lease, Store, StoreError};

use crate::client::ClientReadError;
use crate::ops::blocking;
use crate::pull::PullError;
use crate::solve::{Reporter, SharedVertex};
use layout::{LayoutReadError, LayoutRef};
use session::SessionStore;
use source::AttributeError;

/// Where an image's blobs are.
#[derive(Debug, Clone)]
pub enum Origin {
    /// In a registry.
    Registry(Reference),
    /// In an OCI layout directory.
    Layout(PathBuf),
    /// In a content store of the build's client.
    Session(SessionStore),
    /// In the store already.
    Store,
}

/// A layer of a base image, and how to get it.
#[derive(Debug)]
pub struct RemoteLayer {
    /// The compressed blob.
    pub descriptor: Descriptor,
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// The layers it stands on, bottom first.
    pub below: Vec<LayerId>,
    /// When it was made, where a cache says so; base images say it in their history.
    pub created: Option<Timestamp>,
    /// Where the blob is.
    pub origin: Origin,
    /// Shows the work.
    pub vertex: Arc<SharedVertex>,
}

/// An image whose documents are here and checked.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// Name it was found under.
    pub name: String,
    /// Digest of what the name led to: an index, or the manifest.
    pub digest: Digest,
    /// Type, digest and size of the manifest.
    pub manifest_descriptor: Descriptor,
    /// The manifest for the platform.
    pub manifest: Manifest,
    /// The config.
    pub config: ImageConfig,
    /// The config as it was pulled.
    pub config_bytes: Vec<u8>,
    /// Where its blobs are.
    pub origin: Origin,
}

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not a reference.
    #[error("failed to parse {text:?}")]
    Reference {
        /// As written.
        text: String,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// Not a platform.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The registry.
    #[error("failed to resolve source metadata for {name}")]
    Registry {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: RegistryError,
    },
    /// The layout directory.
    #[error(transparent)]
    Layout(#[from] LayoutReadError),
    /// A document is refused.
    #[error("{name}: document {digest}")]
    Document {
        /// The image.
        name: String,
        /// The document.
        digest: Digest,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// A config is refused.
    #[error("{name}: config {digest}")]
    Config {
        /// The image.
        name: String,
        /// The config.
        digest: Digest,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// A document's bytes are not what its descriptor says.
    #[error("{name}: document {digest} does not have the content its descriptor promises")]
    Mismatch {
        /// The image.
        name: String,
        /// The document.
        digest: Digest,
    },
    /// No manifest for the platform.
    #[error("{name}: no match for platform in manifest: not found (wanted {wanted}, the image has {found})")]
    NoPlatform {
        /// The image.
        name: String,
        /// The platform asked for.
        wanted: String,
        /// Those that are there.
        found: String,
    },
    /// Indexes in indexes.
    #[error("{0}: more than {INDEX_DEPTH_MAX} indexes are nested")]
    TooDeep(String),
    /// An attribute of an image source.
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    /// A content store has no image without a digest.
    #[error("{0}: an image of a content store is named by its digest")]
    NoDigest(String),
    /// The image is another one than the source says.
    #[error("image digest {found} for {name} does not match expected checksum {expected}")]
    Checksum {
        /// The image.
        name: String,
        /// Its digest.
        found: Digest,
        /// The source's.
        expected: Digest,
    },
    /// The client could not be asked.
    #[error("failed to resolve source metadata for {name}")]
    Client {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: ClientReadError,
    },
    /// A document could not be read.
    #[error("{name}: read document {digest}")]
    Read {
        /// The image.
        name: String,
        /// The document.
        digest: Digest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A document could not be kept.
    #[error("{name}: keep document {digest}")]
    Keep {
        /// The image.
        name: String,
        /// The document.
        digest: Digest,
        /// Why.
        #[source]
        source: CommitBlobError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Images, as one process knows them.
#[derive(Debug)]
pub struct Images {
    store: Store,
    client: Client,
    resolved: Mutex<HashMap<(String, String), Arc<ResolvedImage>>>,
}

/// What to look up.
#[derive(Debug, Clone)]
pub struct Lookup<'a> {
    /// The platform wanted.
    pub platform: &'a Platform,
    /// Ask the registry even if the store has the name.
    pub pull: bool,
}

impl Images {
    /// Images in `store`, and those `client` can get.
    #[must_use]
    pub fn new(store: Store, client: Client) -> Self {
        Self {
            store,
            client,
            resolved: Mutex::default(),
        }
    }

    /// The client, for pushes.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// What was found for a name (a reference, with a digest usually) and a platform before.
    fn known(&self, name: &str, platform: &str) -> Option<Arc<ResolvedImage>> {
        let resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        resolved.get(&(name.to_owned(), platform.to_owned())).cloned()
    }

    fn remember(&self, name: String, platform: String, image: &Arc<ResolvedImage>) {
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        resolved.insert((name, platform), Arc::clone(image));
    }

    /// Resolves a name: in the store, else in its registry.
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn resolve_name(
        &self,
        lease: &Arc<Lease>,
        text: &str,
        lookup: &Lookup<'_>,
    ) -> Result<Arc<ResolvedImage>, ImageError> {
        let reference = Reference::parse(text)
            .map_err(|source| ImageError::Reference {
                text: text.to_owned(),
                source,
            })?
            .or_latest();
        let name = reference.to_string();
        if !lookup.pull
            && let Some(record) = self.store.get_image(&name).map_err(StoreError::from)?
        {
            let top = Descriptor::new(&record.media_type, record.digest, record.manifest_size);
            let image = self
                .resolve_top(lease, &reference.to_string(), top, Origin::Store, lookup.platform)
                .await;
            // A named image whose blobs are damaged is not worse than one that is not there.
            if let Ok(image) = image {
                return Ok(image);
            }
        }
        let fail = |source| ImageError::Registry {
            name: name.clone(),
            source,
        };
        let top = match reference.digest() {
            Some(digest) if let Some(size) = self.store.has_blob(digest)? => {
                Descriptor::new("", digest.clone(), size)
            }
            _ => self.client.resolve(&reference).await.map_err(fail)?.descriptor,
        };
        let origin = Origin::Registry(reference.clone());
        self.resolve_top(lease, &reference.to_string(), top, origin, lookup.platform)
            .await
    }

    /// Resolves an image of a layout directory; `name` is what the build calls it.
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn resolve_layout(
        &self,
        lease: &Arc<Lease>,
        name: &str,
        place: &LayoutRef,
        lookup: &Lookup<'_>,
    ) -> Result<Arc<ResolvedImage>, ImageError> {
        let top = place.resolve()?;
        self.resolve_top(
            lease,
            name,
            top,
            Origin::Layout(place.dir.clone()),
            lookup.platform,
        )
        .await
    }

    async fn resolve_top(
        &self,
        lease: &Arc<Lease>,
        name: &str,
        top: Descriptor,
        origin: Origin,
        platform: &Platform,
    ) -> Result<Arc<ResolvedImage>, ImageError> {
        let digest = top.digest.clone();
        let (manifest_descriptor, manifest) = self.manifest(lease, name, top, &origin, platform).await?;
        let descriptor = &manifest.config;
        let config_bytes = self
            .document(lease, name, descriptor, &origin, Kind::Config)
            .await?;
        let refuse = |source| ImageError::Config {
            name: name.to_owned(),
            digest: descriptor.digest.clone(),
            source,
        };
        let config = ImageConfig::parse(&config_bytes).map_err(refuse)?;
        config.check_layers(manifest.layers.len()).map_err(refuse)?;
        let key = with_digest(name, &digest);
        let image = Arc::new(ResolvedImage {
            name: name.to_owned(),
            digest,
            manifest_descriptor,
            manifest,
            config,
            config_bytes,
            origin,
        });
        self.remember(key, platform.to_string(), &image);
        Ok(image)
    }

    /// Goes from the top document through indexes to the manifest for `platform`.
    async fn manifest(
        &self,
        lease: &Arc<Lease>,
        name: &str,
        top: Descriptor,
        origin: &Origin,
        platform: &Platform,
    ) -> Result<(Descriptor, Manifest), ImageError> {
        let mut descriptor = top;
        for _ in 0..=INDEX_DEPTH_MAX {
            let bytes = self
                .document(lease, name, &descriptor, origin, Kind::Manifest)
                .await?;
            let media_type = Some(descriptor.media_type.as_str()).filter(|text| !text.is_empty());
            let document = parse_document(&bytes, media_type).map_err(|source| ImageError::Document {
                name: name.to_owned(),
                digest: descriptor.digest.clone(),
                source,
            })?;
            let index = match document {
                Document::Manifest(manifest) => {
                    manifest.media_type.clone_into(&mut descriptor.media_type);
                    return Ok((descriptor, *manifest));
                }
                Document::Index(index) => index,
            };
            let candidates = || index.manifests.iter().map(|entry| entry.platform.as_ref());
            let chosen = platform.choose(candidates()).or_else(|| {
                let untold = index.manifests.len() == 1 && index.manifests[0].platform.is_none();
                untold.then_some(0)
            });
            descriptor = match chosen {
                Some(at) => index.manifests[at].clone(),
                None => {
                    let found: Vec<String> = candidates().flatten().map(ToString::to_string).collect();
                    return Err(ImageError::NoPlatform {
                        name: name.to_owned(),
                        wanted: platform.to_string(),
                        found: found.join(", "),
                    });
                }
            };
        }
        Err(ImageError::TooDeep(name.to_owned()))
    }

    /// A document, from the store or from where the image is; kept in the store, its digest checked.
    ///
    /// # Errors
    /// [`ImageError`].
    pub(crate) async fn document(
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
            Origin::Store => return Err(mismatch()),
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

    /// Makes sure that a blob is in the store, and shows how it comes.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn fetch_shown(
        &self,
        lease: &Arc<Lease>,
        origin: &Origin,
        descriptor: &Descriptor,
        reporter: Option<&Reporter>,
    ) -> Result<(), PullError> {
        if lease.hold_blob(&descriptor.digest)? {
            return Ok(());
        }
        let (started, id) = (SystemTime::now(), descriptor.digest.to_string());
        let shown = reporter.cloned();
        let progress: Progress = Arc::new(move |current, total| {
            if let Some(reporter) = &shown {
                reporter.status(&id, current, total, started, current == total);
            }
        });
        progress(0, descriptor.size);
        self.fetch_blob(lease, origin, descriptor, &progress).await?;
        progress(descriptor.size, descriptor.size);
        Ok(())
    }

    /// Brings a blob into the store. `progress` hears of the bytes so far and in all.
    ///
    /// # Errors
    /// [`PullError`].
    async fn fetch_blob(
        &self,
        lease: &Arc<Lease>,
        origin: &Origin,
        descriptor: &Descriptor,
        progress: &Progress,
    ) -> Result<(), PullError> {
        let digest = descriptor.digest.clone();
        match origin {
            Origin::Store => {
                let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
                Err(PullError::Layout { digest, source: gone })
            }
            Origin::Layout(dir) => {
                let (lease, dir, descriptor) = (Arc::clone(lease), dir.clone(), descriptor.clone());
                blocking(move || copy_blob(&lease, &dir, &descriptor)).await
            }
            Origin::Session(from) => from.fetch(lease, descriptor, progress).await,
            Origin::Registry(reference) => {
                let mut sink = StoreSink::new(lease, digest.algorithm())?;
                let fetched = self
                    .client
                    .fetch_blob_to(reference, descriptor, &mut sink, progress)
                    .await;
                fetched.map_err(|source| PullError::Fetch {
                    digest: digest.clone(),
                    source,
                })?;
                let commit = sink.writer.commit(Some(&digest), Some(descriptor.size));
                commit
                    .map(drop)
                    .map_err(|source| PullError::Commit { digest, source })
            }
        }
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

/// A blob of the store being written by a download, which may begin anew.
struct StoreSink<'l> {
    lease: &'l Lease,
    algorithm: Algorithm,
    writer: BlobWriter<'l>,
}

impl<'l> StoreSink<'l> {
    fn new(lease: &'l Lease, algorithm: Algorithm) -> Result<Self, DiskError> {
        Ok(Self {
            lease,
            algorithm,
            writer: lease.store().blob_writer_with(lease, algorithm)?,
        })
    }
}

impl BlobSink for StoreSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.writer.write_all(bytes)
    }

    fn restart(&mut self) -> std::io::Result<()> {
        self.writer = self
            .lease
            .store()
            .blob_writer_with(self.lease, self.algorithm)
            .map_err(std::io::Error::other)?;
        Ok(())
    }
}

fn copy_blob(lease: &Lease, dir: &std::path::Path, descriptor: &Descriptor) -> Result<(), PullError> {
    let digest = descriptor.digest.clone();
    let fail = |source| PullError::Layout {
        digest: digest.clone(),
        source,
    };
    let mut file = layout::open_blob(dir, &digest).map_err(fail)?;
    let mut writer = lease.store().blob_writer_with(lease, digest.algorithm())?;
    let mut buffer = vec![0; 1 << 20];
    let mut left = descriptor.size.saturating_add(1);
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match file.read(&mut buffer[..most]).map_err(fail)? {
            0 => break,
            count => {
                writer.write_all(&buffer[..count]).map_err(fail)?;
                left -= count as u64;
            }
        }
    }
    let committed = writer.commit(Some(&digest), Some(descriptor.size));
    committed.map(drop).map_err(|source| PullError::Commit {
        digest: digest.clone(),
        source,
    })
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

/// `name` with `digest`, once.
fn with_digest(name: &str, digest: &Digest) -> String {
    let base = name.split_once('@').map_or(name, |(base, _)| base);
    format!("{base}@{digest}")
}
