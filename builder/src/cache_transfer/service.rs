//! Caches in services that keep objects: there is no manifest, so the config's layers say themselves what they are
//! (`cache/remotecache/{s3,azblob,gha}`). The config is sent last: what it names is there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rbuild_oci::{Descriptor, DiffId, Digest, Timestamp, go_json};
use rbuild_registry::BlobSource;
use rbuild_remotecache::{Place, Service};

use super::chains::{CREATED_AT, LayerBlob, ReadCache, UNCOMPRESSED};
use super::config::{CacheConfig, CacheLayer, LayerAnnotations};
use super::export::{CacheExportError, shown_progress};
use super::import::CacheImportError;
use crate::images::Origin;
use crate::job::Job;
use crate::solve::Reporter;

/// Go's zero time, which stands for none: the first second of the year 1.
const NO_TIME_UNIX: i64 = -62_135_596_800;

/// Writes a cache: its blobs, and then its config, whose layers `layers` describes in the same order.
pub(super) async fn send(
    job: &Job,
    place: &Place,
    mut config: CacheConfig,
    layers: Vec<Descriptor>,
    reporter: &Reporter,
) -> Result<(), CacheExportError> {
    let _step = reporter.step("sending cache export");
    let refused = |source| CacheExportError::Configure {
        kind: place.kind(),
        source,
    };
    let service = Service::new(job.engine.images.client(), place).map_err(refused)?;
    service.prepare().await.map_err(refused)?;
    let mut seen = HashSet::new();
    let once: Vec<&Descriptor> = layers.iter().filter(|layer| seen.insert(&layer.digest)).collect();
    // Made at once: a stream that makes them one by one is not seen to be `Send` (rust-lang/rust#102211).
    let sent: Vec<_> = once
        .into_iter()
        .map(|layer| blob(job, &service, layer, reporter))
        .collect();
    stream::iter(sent)
        .buffer_unordered(place.uploads())
        .try_collect::<()>()
        .await?;
    for (layer, descriptor) in config.layers.iter_mut().zip(&layers) {
        layer.annotations = Some(annotations(descriptor));
    }
    let config = go_json::to_vec(&config).map_err(|error| CacheExportError::Encode("config", error))?;
    let _step = reporter.step(&format!("writing config {}", Digest::sha256(&config)));
    let written = service.put_config(config).await.map_err(CacheExportError::from);
    written.map_err(|error| error.writing("manifest"))
}

async fn blob(
    job: &Job,
    service: &Service,
    layer: &Descriptor,
    reporter: &Reporter,
) -> Result<(), CacheExportError> {
    let digest = &layer.digest;
    if service.has(digest).await.map_err(CacheExportError::Presence)? {
        return Ok(());
    }
    let _step = reporter.step(&format!("writing layer {digest}"));
    let file = job.engine.store.open_blob(digest)?;
    let file: Arc<dyn BlobSource> = Arc::new(file.ok_or_else(|| CacheExportError::Missing(digest.clone()))?);
    let progress = shown_progress(reporter, digest);
    let sent = service.put_blob(layer, &file, &progress).await;
    sent.map_err(|error| CacheExportError::from(error).writing("layer blob"))
}

/// A layer's descriptor as its config says it.
fn annotations(descriptor: &Descriptor) -> LayerAnnotations {
    let annotation = |key: &str| descriptor.annotations.get(key);
    let created = annotation(CREATED_AT).and_then(|text| text.parse::<Timestamp>().ok());
    LayerAnnotations {
        media_type: descriptor.media_type.clone(),
        diff_id: annotation(UNCOMPRESSED).and_then(|text| Digest::parse(text).ok()),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        created_at: created
            .map(Timestamp::utc)
            .or_else(|| Timestamp::from_unix(NO_TIME_UNIX, 0)),
    }
}

/// Reads the caches of a place, and says where their blobs are.
pub(super) async fn read(
    job: &Job,
    place: &Place,
    reporter: &Reporter,
) -> Result<(Origin, Vec<ReadCache>), CacheImportError> {
    let service = Service::new(job.engine.images.client(), place);
    let service = service.map_err(|source| CacheImportError::Configure {
        kind: place.kind(),
        source,
    })?;
    let configs = service.configs().await?;
    let mut caches = Vec::with_capacity(configs.len());
    for bytes in &configs {
        let config = CacheConfig::parse(bytes)?;
        let blobs: HashMap<Digest, LayerBlob> = config
            .layers
            .iter()
            .filter_map(|layer| Some((layer.blob.clone(), layer_blob(layer)?)))
            .collect();
        drop(reporter.step(&format!("found {} layers in cache", blobs.len())));
        caches.push(ReadCache::new(config, &blobs)?);
    }
    Ok((Origin::Service(Arc::new(service)), caches))
}

/// A layer as its config says it is; nothing for one of which it says too little.
fn layer_blob(layer: &CacheLayer) -> Option<LayerBlob> {
    let said = layer.annotations.as_ref()?;
    let size = u64::try_from(said.size).ok()?;
    Some(LayerBlob {
        descriptor: Descriptor::new(&said.media_type, layer.blob.clone(), size),
        diff_id: DiffId(said.diff_id.clone()?),
        created: said.created_at.filter(|time| time.unix_seconds() != NO_TIME_UNIX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_what_its_config_says() {
        let digest = |text: &str| Digest::sha256(text.as_bytes());
        let mut descriptor = Descriptor::new("application/vnd.oci.image.layer.v1.tar+gzip", digest("a"), 7);
        descriptor
            .annotations
            .insert(UNCOMPRESSED.to_owned(), digest("b").to_string());
        let none = annotations(&descriptor);
        let text = go_json::to_vec(&none).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","diffID":"{}","size":7,"createdAt":"0001-01-01T00:00:00Z"}}"#,
                digest("b")
            )
        );
        descriptor
            .annotations
            .insert(CREATED_AT.to_owned(), "2024-01-02T03:04:05.5+01:00".to_owned());
        let read = |said: LayerAnnotations| {
            layer_blob(&CacheLayer {
                blob: digest("a"),
                parent: -1,
                annotations: Some(said),
            })
        };
        assert_eq!(read(none).unwrap().created, None);
        let blob = read(annotations(&descriptor)).unwrap();
        assert_eq!(blob.created.unwrap().to_string(), "2024-01-02T02:04:05.5Z");
        assert_eq!((blob.descriptor.size, blob.diff_id), (7, DiffId(digest("b"))));
        let mut little = annotations(&descriptor);
        little.diff_id = None;
        assert_eq!(read(little), None);
    }
}
