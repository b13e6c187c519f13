//! From a name to a manifest and config: in the store, in a registry, in a layout.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use rbuild_oci::{
    Descriptor, Digest, Document, INDEX_DEPTH_MAX, ImageConfig, Manifest, Platform, Reference, media_type,
    parse_document,
};
use rbuild_store::{ImageRecord, Lease, StoreError};

use super::document::Kind;
use super::layout::LayoutRef;
use super::{ImageError, Images, Origin, ResolvedImage};

/// Table of the store with the documents that registries said they have, and most of its entries.
const PLACES: &str = "image digest";
const PLACES_MAX: usize = 10_000;

/// What to look up.
#[derive(Debug, Clone)]
pub struct Lookup<'a> {
    /// The platform wanted.
    pub platform: &'a Platform,
    /// Ask the registry even if the store has the name.
    pub pull: bool,
}

impl Images {
    /// Resolves a name: in the store, else in its registry.
    ///
    /// # Errors
    /// [`ImageError`].
    pub(crate) fn resolve_name<'a>(
        &'a self,
        lease: &'a Arc<Lease>,
        text: &'a str,
        lookup: &'a Lookup<'_>,
    ) -> BoxFuture<'a, Result<Arc<ResolvedImage>, ImageError>> {
        Box::pin(self.resolve_name_unboxed(lease, text, lookup))
    }

    async fn resolve_name_unboxed(
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
            Some(digest)
                if let Some(size) = self.store.has_blob(digest)?
                    && self.is_of(&reference, digest)? =>
            {
                Descriptor::new("", digest.clone(), size)
            }
            _ => {
                let found = self.client.resolve(&reference).await.map_err(fail)?.descriptor;
                self.note_place(&reference, &found.digest)?;
                found
            }
        };
        let origin = Origin::Registry(reference.clone());
        self.resolve_top(lease, &reference.to_string(), top, origin, lookup.platform)
            .await
    }

    /// Remembers that the registry says the reference's repository has `digest`.
    fn note_place(&self, reference: &Reference, digest: &Digest) -> Result<(), ImageError> {
        let noted = self
            .store
            .note_kv(PLACES, &place_key(reference, digest), PLACES_MAX);
        Ok(noted.map_err(StoreError::from)?)
    }

    /// Whether a document of the store is known to be of the reference's repository: an image there has it, or the
    /// registry said so. Somebody's digest under another's name is not believed.
    fn is_of(&self, reference: &Reference, digest: &Digest) -> Result<bool, ImageError> {
        let found = self.store.kv(PLACES, &place_key(reference, digest));
        if found.map_err(StoreError::from)?.is_some() {
            return Ok(true);
        }
        let images = self.store.list_images().map_err(StoreError::from)?;
        let name = reference.name();
        let same = |text: &str| Reference::parse(text).is_ok_and(|other| other.name() == name);
        Ok(images
            .iter()
            .any(|(text, image)| image.digest == *digest && same(text)))
    }

    /// Resolves an image of a layout directory; `name` is what the build calls it.
    ///
    /// # Errors
    /// [`ImageError`].
    pub(crate) async fn resolve_layout(
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

    /// Resolves an image of the store by its record, whatever it is called there.
    ///
    /// # Errors
    /// [`ImageError`].
    pub(crate) async fn resolve_stored(
        &self,
        lease: &Arc<Lease>,
        name: &str,
        record: &ImageRecord,
        platform: &Platform,
    ) -> Result<Arc<ResolvedImage>, ImageError> {
        let top = Descriptor::new(&record.media_type, record.digest.clone(), record.manifest_size);
        self.resolve_top(lease, name, top, Origin::Store, platform).await
    }

    pub(super) async fn resolve_top(
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
        if !media_type::is_config_of_base(&descriptor.media_type) {
            return Err(ImageError::NoImage {
                name: name.to_owned(),
                media_type: descriptor.media_type.clone(),
            });
        }
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
}

fn place_key(reference: &Reference, digest: &Digest) -> String {
    format!("{}@{digest}", reference.name())
}

/// `name` with `digest`, once.
fn with_digest(name: &str, digest: &Digest) -> String {
    let base = name.split_once('@').map_or(name, |(base, _)| base);
    format!("{base}@{digest}")
}

#[cfg(test)]
mod tests {
    use rbuild_registry::{Client, Credentials, RegistryConfig};
    use rbuild_store::{OpenOptions, Store};

    use super::*;

    #[tokio::test]
    async fn row46_a_digest_is_believed_only_under_the_name_it_came_by() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), &OpenOptions::default()).unwrap();
        let lease = Arc::new(store.lease("test").unwrap());
        let put = |text: &str| store.put_blob(&lease, text.as_bytes()).unwrap();
        let config = put(r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#);
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = put(&format!(
            r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[]}}"#,
            config.digest, config.size
        ));
        let record = ImageRecord {
            digest: manifest.digest.clone(),
            media_type: media_type.to_owned(),
            manifest_size: manifest.size,
            config: Some(config.digest),
            size: 0,
            created_ms: 0,
            tagged_ms: 0,
        };
        // Nothing listens on that port: what is found is found in the store.
        store.set_image("localhost:1/mine:latest", &record).unwrap();
        let client = Client::new(RegistryConfig::default(), Credentials::default(), "test");
        let images = Images::new(store.clone(), client);
        let host = Platform::host();
        let find = async |name: &str| {
            let lookup = Lookup {
                platform: &host,
                pull: false,
            };
            let text = format!("localhost:1/{name}@{}", manifest.digest);
            images.resolve_name(&lease, &text, &lookup).await
        };
        assert_eq!(find("mine").await.unwrap().digest, manifest.digest);
        assert!(find("other").await.is_err(), "the registry would have to say so");
        let other = Reference::parse("localhost:1/other").unwrap();
        store
            .put_kv(PLACES, &place_key(&other, &manifest.digest), &[])
            .unwrap();
        assert!(find("other").await.is_ok(), "it has said so before");
    }
}
