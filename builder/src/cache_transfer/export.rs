//! Writing caches: the layers of what a build knows become blobs, and its keys a cache config beside them
//! (`cache/remotecache/export.go`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rbuild_oci::media_type::{self, Family};
use rbuild_oci::{Descriptor, Digest, Index, Manifest, Reference, go_json};
use rbuild_registry::{BlobSource, Progress, RegistryError};
use rbuild_remotecache::ServiceError;
use rbuild_store::{CommitBlobError, LayerId, StoreError};

use super::chains::{CREATED_AT, Keys, LayerBlob, UNCOMPRESSED, write_config};
use super::{CacheExport, CacheForm, CacheTarget};
use super::{config, service};
use crate::client::{ContentPlace, OutputError};
use crate::export::BuildResult;
use crate::export::Subject;
use crate::export::image::{ImageExportError, TOC_DIGEST, TOC_TAR_SIZE, layer_blob};
use crate::export::layout::{LayoutDirError, put_layout_blob, put_layout_entry};
use crate::export::layout_reset::{ResetError, remove_unnamed};
use crate::images::repositories;
use crate::job::Job;
use crate::ops::blocking;
use crate::request::{Output, OutputKind};
use crate::solve::Reporter;
use crate::value::Chain;

/// Key of the exporter's response: the descriptor of what was written, as JSON.
pub(crate) const RESPONSE_KEY: &str = "cache.manifest";

/// Why a cache was not written.
#[derive(Debug, thiserror::Error)]
pub enum CacheExportError {
    /// Forms that exclude each other.
    #[error(
        "invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache format"
    )]
    Form,
    /// A layer could not be packed or had.
    #[error("error writing layer blob")]
    Layer(#[from] ImageExportError),
    /// A document could not be encoded.
    #[error("failed to marshal {0}")]
    Encode(&'static str, #[source] serde_json::Error),
    /// A document could not be kept.
    #[error("error writing {0} blob")]
    Keep(&'static str, #[source] CommitBlobError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob is not in the store any more.
    #[error("missing blob {0}")]
    Missing(Digest),
    /// A part of it was not taken, in the words of BuildKit's `cache/remotecache`.
    #[error("error writing {0}")]
    Write(&'static str, #[source] Box<CacheExportError>),
    /// The registry.
    #[error("{0}")]
    Registry(#[from] RegistryError),
    /// The service cannot be asked.
    #[error("failed to configure {kind} cache exporter")]
    Configure {
        /// What it is called in a cache's `type`.
        kind: &'static str,
        /// Why.
        #[source]
        source: ServiceError,
    },
    /// The service does not say whether it has a blob.
    #[error("failed to check file presence in cache")]
    Presence(#[source] ServiceError),
    /// The directory did not take it.
    #[error(transparent)]
    Directory(#[from] LayoutDirError),
    /// What nothing names any more could not be removed.
    #[error("reset the cache directory")]
    Reset(#[from] ResetError),
    /// The client did not take it.
    #[error(transparent)]
    Client(#[from] OutputError),
    /// The service did not take it.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl CacheExportError {
    /// While `part` was written.
    pub(super) fn writing(self, part: &'static str) -> Self {
        Self::Write(part, Box::new(self))
    }
}

/// Writes every cache of `exports`; gives the descriptor of the last one that has a place of its own.
///
/// # Errors
/// [`CacheExportError`] of the first that fails and does not ignore that.
pub fn all<'a>(
    job: &'a Job,
    result: &'a BuildResult,
    exports: &'a [CacheExport],
) -> BoxFuture<'a, Result<Option<Descriptor>, CacheExportError>> {
    Box::pin(all_unboxed(job, result, exports))
}

async fn all_unboxed(
    job: &Job,
    result: &BuildResult,
    exports: &[CacheExport],
) -> Result<Option<Descriptor>, CacheExportError> {
    let mut last = None;
    for export in exports {
        let (title, form) = match &export.target {
            // The exporters have put it into their images.
            CacheTarget::Inline => continue,
            CacheTarget::Registry(_, form) => ("exporting cache to registry", *form),
            CacheTarget::Directory { form, .. } | CacheTarget::Client(_, form) => {
                ("exporting cache to client directory", *form)
            }
            CacheTarget::Service(place) => (place.title(), CacheForm::default()),
        };
        let mut reporter = Reporter::internal(&job.sink, title);
        reporter.start(None);
        match one(job, result, export, &form, &reporter).await {
            Ok(written) => {
                reporter.done();
                last = written.or(last);
            }
            Err(error) => {
                reporter.failed(crate::error::chain_text(&error));
                if !export.ignore_error {
                    return Err(error);
                }
            }
        }
    }
    Ok(last)
}

async fn one(
    job: &Job,
    result: &BuildResult,
    export: &CacheExport,
    form: &CacheForm,
    reporter: &Reporter,
) -> Result<Option<Descriptor>, CacheExportError> {
    if form.image_manifest && !form.oci_mediatypes {
        return Err(CacheExportError::Form);
    }
    let keys = {
        let _step = reporter.step("preparing build cache for export");
        let layers: HashSet<&LayerId> = result
            .subjects
            .iter()
            .flat_map(|part| part.subject.chain.layers())
            .collect();
        let wanted = job.book.keys().map(|stack| {
            let all = export.mode_max || stack.iter().all(|layer| layers.contains(layer));
            all.then(|| stack.to_vec())
        });
        packed(job, &wanted, form).await?
    };
    let (config, layers) = write_config(&keys);
    if let CacheTarget::Service(place) = &export.target {
        let layers = layers.into_iter().map(|layer| described(layer, form)).collect();
        service::send(job, place, config, layers, reporter).await?;
        return Ok(None);
    }
    if layers.is_empty() {
        let _step = reporter.step("skipping cache export for empty result");
        return Ok(None);
    }
    let config = go_json::to_vec(&config).map_err(|error| CacheExportError::Encode("config", error))?;
    let config = Written::new("config", config::MEDIA_TYPE, config);
    let layers: Vec<Descriptor> = layers.into_iter().map(|layer| described(layer, form)).collect();
    let manifest = manifest(&config.descriptor, &layers, form)?;
    send(job, &export.target, &layers, &config, &manifest, reporter).await?;
    Ok(Some(manifest.descriptor))
}

/// The keys with the blobs of their layers. A result of which a layer cannot be had any more is left out.
async fn packed(
    job: &Job,
    keys: &Keys<LayerId>,
    form: &CacheForm,
) -> Result<Keys<LayerBlob>, CacheExportError> {
    let stacks = || {
        keys.records
            .values()
            .flat_map(|known| known.outputs.iter().flatten())
    };
    let mut below: BTreeMap<&LayerId, &[LayerId]> = BTreeMap::new();
    for stack in stacks() {
        for (at, layer) in stack.iter().enumerate() {
            below.entry(layer).or_insert(&stack[..at]);
        }
    }
    let here = job.lease.hold_layers(
        &job.engine.form_name,
        &below.keys().copied().cloned().collect::<Vec<_>>(),
    )?;
    let reachable = below.iter().zip(here);
    let reachable = reachable.filter(|((layer, _), dir)| dir.is_some() || job.remote(layer).is_some());
    // No times are rewritten here: a cache holds what was built.
    let subject = Subject {
        chain: Chain::default(),
        config: rbuild_oci::ImageConfig::default(),
        base_history: 0,
        epoch: None,
    };
    let output = output_of(form);
    let blobs = reachable.map(|((layer, below), _)| {
        let (subject, output) = (&subject, &output);
        async move {
            let (descriptor, facts) = match layer_blob(job, layer, below, subject, output).await {
                // An imported cache can have lost it, and nothing of this build needed it.
                Err(ImageExportError::Pull(error)) if error.is_missing() => return Ok(None),
                packed => packed?,
            };
            let blob = LayerBlob {
                descriptor,
                diff_id: facts.diff_id,
                created: facts.created,
            };
            Ok::<_, CacheExportError>(Some(((*layer).clone(), blob)))
        }
    });
    let blobs: HashMap<LayerId, LayerBlob> = futures_util::future::try_join_all(blobs)
        .await?
        .into_iter()
        .flatten()
        .collect();
    Ok(keys.map(|stack| stack.iter().map(|layer| blobs.get(layer).cloned()).collect()))
}

fn output_of(form: &CacheForm) -> Output {
    Output {
        compression: form.compression,
        compression_level: form.compression_level,
        force_compression: form.force_compression,
        oci_mediatypes: form.oci_mediatypes,
        ..Output::new(OutputKind::CacheOnly)
    }
}

/// A layer as the cache's manifest has it.
fn described(layer: LayerBlob, form: &CacheForm) -> Descriptor {
    let family = Family::chosen(form.oci_mediatypes);
    let mut descriptor = layer.descriptor;
    if let Some(media_type) = media_type::convert_layer(&descriptor.media_type, family) {
        media_type.clone_into(&mut descriptor.media_type);
    }
    descriptor
        .annotations
        .retain(|key, _| [TOC_DIGEST, TOC_TAR_SIZE].contains(&key.as_str()));
    descriptor
        .annotations
        .insert(UNCOMPRESSED.to_owned(), layer.diff_id.0.to_string());
    if let Some(created) = layer.created {
        descriptor
            .annotations
            .insert(CREATED_AT.to_owned(), created.to_string());
    }
    descriptor
}

/// A document and its bytes.
#[derive(Debug)]
struct Written {
    what: &'static str,
    descriptor: Descriptor,
    bytes: Vec<u8>,
}

impl Written {
    fn new(what: &'static str, media_type: &str, bytes: Vec<u8>) -> Self {
        Self {
            what,
            descriptor: Descriptor::of(media_type, &bytes),
            bytes,
        }
    }
}

fn manifest(
    config: &Descriptor,
    layers: &[Descriptor],
    form: &CacheForm,
) -> Result<Written, CacheExportError> {
    let fail = |error| CacheExportError::Encode("manifest", error);
    if form.image_manifest {
        let manifest = Manifest::new(media_type::OCI_MANIFEST, config.clone(), layers.to_vec());
        let bytes = go_json::to_vec(&manifest).map_err(fail)?;
        return Ok(Written::new(
            "cache image manifest",
            media_type::OCI_MANIFEST,
            bytes,
        ));
    }
    let media_type = Family::chosen(form.oci_mediatypes).index();
    let entries = layers.iter().chain([config]).cloned().collect();
    let bytes = go_json::to_vec(&Index::new(media_type, entries)).map_err(fail)?;
    Ok(Written::new("cache manifest", media_type, bytes))
}

async fn send(
    job: &Job,
    target: &CacheTarget,
    layers: &[Descriptor],
    config: &Written,
    manifest: &Written,
    reporter: &Reporter,
) -> Result<(), CacheExportError> {
    let _step = reporter.step("sending cache export");
    let place = match target {
        CacheTarget::Inline | CacheTarget::Service(_) => return Ok(()),
        CacheTarget::Registry(reference, _) => Place::Registry(reference),
        CacheTarget::Directory { dest, .. } => Place::Directory(dest),
        CacheTarget::Client(store, _) => Place::Client(ContentPlace {
            session: String::new(),
            store: store.clone(),
        }),
    };
    let mut seen = HashSet::new();
    let once: Vec<&Descriptor> = layers.iter().filter(|layer| seen.insert(&layer.digest)).collect();
    let sent = once.into_iter().map(|layer| {
        let place = &place;
        async move {
            let _step = reporter.step(&format!("writing layer {}", layer.digest));
            let sent = place.blob(job, layer, reporter).await;
            sent.map_err(|error| error.writing("layer blob"))
        }
    });
    futures_util::future::try_join_all(sent).await?;
    for document in [config, manifest] {
        let _step = reporter.step(&format!(
            "writing {} {}",
            document.what, document.descriptor.digest
        ));
        let kept = job.engine.store.put_blob(&job.lease, &document.bytes);
        kept.map_err(|source| CacheExportError::Keep(document.what, source))?;
        let is_manifest = !std::ptr::eq(document, config);
        let sent = match (target, is_manifest) {
            (CacheTarget::Registry(reference, _), true) => push_manifest(job, reference, document).await,
            _ => place.blob(job, &document.descriptor, reporter).await,
        };
        let part = if is_manifest {
            "manifest blob"
        } else {
            "config blob"
        };
        sent.map_err(|error| error.writing(part))?;
    }
    if let CacheTarget::Directory { dest, tag, reset, .. } = target {
        name(dest.clone(), tag.clone(), manifest.descriptor.clone()).await?;
        if *reset {
            let dest = dest.clone();
            blocking(move || remove_unnamed(&dest)).await?;
        }
    }
    Ok(())
}

async fn push_manifest(job: &Job, reference: &Reference, manifest: &Written) -> Result<(), CacheExportError> {
    let media_type = &manifest.descriptor.media_type;
    let pushed = job
        .engine
        .images
        .client()
        .push_manifest(reference, media_type, &manifest.bytes)
        .await;
    Ok(pushed.map(drop)?)
}

/// Names the cache in the directory's `index.json`, in the place of what had this tag.
async fn name(dest: PathBuf, tag: String, mut entry: Descriptor) -> Result<(), CacheExportError> {
    entry
        .annotations
        .insert("org.opencontainers.image.ref.name".to_owned(), tag);
    Ok(blocking(move || put_layout_entry(&dest, entry)).await?)
}

/// Shows how much of a blob is sent.
pub(super) fn shown_progress(reporter: &Reporter, digest: &Digest) -> Progress {
    let (shown, id) = (reporter.clone(), digest.to_string());
    let started = std::time::SystemTime::now();
    Arc::new(move |current, total| shown.status(&id, current, total, started, current == total))
}

/// Where blobs go.
enum Place<'a> {
    Registry(&'a Reference),
    Directory(&'a Path),
    Client(ContentPlace),
}

impl Place<'_> {
    async fn blob(
        &self,
        job: &Job,
        descriptor: &Descriptor,
        reporter: &Reporter,
    ) -> Result<(), CacheExportError> {
        let digest = &descriptor.digest;
        let file = job.engine.store.open_blob(digest)?;
        let mut file = file.ok_or_else(|| CacheExportError::Missing(digest.clone()))?;
        match self {
            Self::Registry(reference) => {
                let source: Arc<dyn BlobSource> = Arc::new(file);
                let progress = shown_progress(reporter, digest);
                let client = job.engine.images.client();
                let store = &job.engine.store;
                let pushed =
                    repositories::push_blob(store, client, reference, descriptor, &source, &progress).await;
                Ok(pushed.map(drop)?)
            }
            Self::Directory(dir) => {
                let (dir, descriptor) = (dir.to_path_buf(), descriptor.clone());
                Ok(blocking(move || put_layout_blob(&dir, &descriptor, &mut file)).await?)
            }
            Self::Client(place) => Ok(job.client.put_blob(place, descriptor, file).await?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_oci::{DiffId, Document, Timestamp, parse_document};

    fn layer(text: &str) -> LayerBlob {
        LayerBlob {
            descriptor: Descriptor::of(media_type::OCI_LAYER_GZIP, text.as_bytes()),
            diff_id: DiffId(Digest::sha256(b"diff")),
            created: Timestamp::from_unix(0, 0),
        }
    }

    #[test]
    fn both_forms_are_what_buildkit_reads() {
        let oci = CacheForm::default();
        let config = Descriptor::of(config::MEDIA_TYPE, b"{}");
        let one = manifest(&config, &[described(layer("a"), &oci)], &oci).unwrap();
        let Document::Manifest(read) = parse_document(&one.bytes, Some(media_type::OCI_MANIFEST)).unwrap()
        else {
            panic!("a manifest")
        };
        assert_eq!(read.config, config);
        assert_eq!(
            read.layers[0].annotations[UNCOMPRESSED],
            Digest::sha256(b"diff").to_string()
        );
        assert_eq!(read.layers[0].annotations[CREATED_AT], "1970-01-01T00:00:00Z");
        let docker = CacheForm {
            oci_mediatypes: false,
            image_manifest: false,
            ..oci
        };
        let list = manifest(&config, &[described(layer("a"), &docker)], &docker).unwrap();
        let Document::Index(read) = parse_document(&list.bytes, Some(media_type::DOCKER_INDEX)).unwrap()
        else {
            panic!("a list")
        };
        assert_eq!(
            read.manifests[0].media_type,
            "application/vnd.docker.image.rootfs.diff.tar.gzip"
        );
        assert_eq!(read.manifests[1], config, "the config is the last entry");
    }

    #[tokio::test]
    async fn a_tag_of_a_directory_is_replaced_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let put = |tag: &str, text: &str| {
            name(
                dir.path().to_owned(),
                tag.to_owned(),
                Descriptor::of(media_type::OCI_MANIFEST, text.as_bytes()),
            )
        };
        put("latest", "one").await.unwrap();
        put("other", "two").await.unwrap();
        put("latest", "three").await.unwrap();
        let place = |tag: &str| crate::images::layout::LayoutRef {
            dir: dir.path().to_owned(),
            tag: Some(tag.to_owned()),
            digest: None,
        };
        assert_eq!(
            place("latest").resolve().unwrap().digest,
            Digest::sha256(b"three")
        );
        assert_eq!(place("other").resolve().unwrap().digest, Digest::sha256(b"two"));
        let index: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.path().join("index.json")).unwrap()).unwrap();
        assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
        assert!(dir.path().join("oci-layout").exists());
    }
}
