//! Images: a chain of layers and a config become blobs of the store. Every layer is compressed once, by whoever needs
//! it first; layers of a base image stay the blobs they were.

use std::sync::Arc;

use rbuild_layer::{ExportedXattrs, LayerFormat};
use rbuild_llb::exporters::for_platform;
use rbuild_oci::media_type::{self, Family};
use rbuild_oci::{Descriptor, DiffId, ImageConfig, Index, Manifest, Platform, Timestamp, go_json};
use rbuild_snapshotter::{BlobInfo, PackLayerError, PackLayerOptions, TocFacts};
use rbuild_store::{CommitBlobError, IndexError, LayerId, StoreError};

use super::Export;
use super::attest;
use super::config::{self, LayerFacts, MissingField};
use super::layout::{Image, Product};
use crate::attestation::{Attestation, AttestationError};
use crate::cache_transfer::inline;
use crate::images::RemoteLayer;
use crate::job::Job;
use crate::ops::blocking;
use crate::pull::PullError;
use crate::request::{AnnotationSet, LayerCompression, Output};
use crate::solve::Reporter;
use crate::time::from_ms;
use crate::value::Chain;

/// Says of a layer that no file of it is newer than these seconds since 1970 (`util/converter`, `labelRewrittenTimestamp`).
const REWRITTEN_TIMESTAMP: &str = "buildkit/rewritten-timestamp";

/// Digest of an eStargz layer's table of contents, and bytes of its tar (stargz-snapshotter, `docs/estargz.md`).
pub(crate) const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
pub(crate) const TOC_TAR_SIZE: &str = "io.containers.estargz.uncompressed-size";

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageExportError {
    /// The config.
    #[error(transparent)]
    Config(#[from] MissingField),
    /// A layer could not be packed.
    #[error("export layer {0:?}")]
    Pack(LayerId, #[source] PackLayerError),
    /// A layer of the base image could not be had.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// A document could not be written.
    #[error("write {0}")]
    Write(&'static str, #[source] CommitBlobError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store's index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Annotations of an index, of one image.
    #[error("index annotations not supported for single platform export")]
    IndexAnnotations,
    /// Docker's documents have none.
    #[error("cannot export annotations with \"oci-mediatypes=false\"")]
    AnnotationsNeedOci,
    /// Annotations of an image that is not there.
    #[error("invalid annotation: no platform {0} found in source")]
    AnnotatedPlatform(String),
    /// A document could not be encoded.
    #[error("encode manifest")]
    Encode(#[source] serde_json::Error),
    /// An attestation.
    #[error(transparent)]
    Attestation(#[from] AttestationError),
    /// Docker's media types have no name for attestations.
    #[error("cannot export attestations with \"oci-mediatypes=false\"")]
    AttestationsNeedOci,
}

/// What is exported, besides the layers.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The result.
    pub chain: Chain,
    /// The config the front end made.
    pub config: ImageConfig,
    /// History entries that come from the base image.
    pub base_history: usize,
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: Option<Timestamp>,
}

/// What a build made: a result, or one for each platform.
#[derive(Debug, Clone)]
pub struct BuildResult {
    /// The results, in the order they were asked for.
    pub subjects: Vec<PlatformSubject>,
    /// Images of it are an index, even for one.
    pub is_index: bool,
}

/// A result, and what it runs on.
#[derive(Debug, Clone)]
pub struct PlatformSubject {
    /// For the index, and for names of directories.
    pub platform: Option<Platform>,
    /// The result.
    pub subject: Subject,
    /// What is said of it.
    pub attestations: Vec<Attestation>,
}

impl PlatformSubject {
    /// A result of which nothing is said.
    #[must_use]
    pub const fn new(platform: Option<Platform>, subject: Subject) -> Self {
        Self {
            platform,
            subject,
            attestations: Vec::new(),
        }
    }

    /// What it runs on: what its config says if nothing else does.
    #[must_use]
    pub fn runs_on(&self) -> Platform {
        let of_config = || {
            let config = &self.subject.config;
            let set = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
            Platform {
                os: config.os.clone(),
                architecture: config.architecture.clone(),
                variant: set(&config.variant),
                os_version: set(&config.os_version),
                os_features: config.os_features.clone(),
            }
        };
        self.platform.clone().unwrap_or_else(of_config)
    }
}

/// Whether images of `result` are an index: there are several, or something is said of one.
#[must_use]
pub(crate) fn needs_index(result: &BuildResult, output: &Output) -> bool {
    let is_told = |attestation: &Attestation| output.inline_attestations || !attestation.inline_only;
    let mut parts = result.subjects.iter();
    result.is_index || parts.any(|part| part.attestations.iter().any(is_told))
}

/// Makes the images of `result` as `export` wants them, and the index of several, all of it in the store.
///
/// # Errors
/// [`ImageExportError`].
pub(crate) async fn assemble(
    job: &Arc<Job>,
    result: &BuildResult,
    export: &Export,
    reporter: &Reporter,
) -> Result<Product, ImageExportError> {
    let output = &export.output;
    let is_index = needs_index(result, output);
    if is_index && !output.oci_mediatypes && result.subjects.iter().any(|part| !part.attestations.is_empty())
    {
        return Err(ImageExportError::AttestationsNeedOci);
    }
    let of_all = check_annotations(result, output, is_index)?;
    let mut images = Vec::with_capacity(result.subjects.len());
    let mut attested = Vec::new();
    for part in &result.subjects {
        let annotations = match is_index {
            true => for_platform(&output.annotations, Some(&part.runs_on())),
            false => of_all.clone(),
        };
        let mut image = assemble_one(job, &part.subject, output, annotations, reporter).await?;
        if is_index {
            image.manifest.platform = Some(part.runs_on());
            attested.extend(attest::image(job, part, &image, export, reporter).await?);
        }
        images.push(image);
    }
    if !is_index && images.len() == 1 {
        return Ok(Product::of_image(images.remove(0)));
    }
    images.extend(attested);
    let media_type = Family::chosen(output.oci_mediatypes).index();
    let index = Index {
        schema_version: 2,
        media_type: media_type.to_owned(),
        artifact_type: None,
        manifests: images.iter().map(|image| image.manifest.clone()).collect(),
        subject: None,
        annotations: of_all.index,
        extra: std::collections::BTreeMap::new(),
    };
    let bytes = go_json::to_vec_indented(&index).map_err(ImageExportError::Encode)?;
    let mut top = Descriptor::of(media_type, &bytes);
    top.annotations = of_all.index_descriptor;
    let _step = reporter.step(&format!("exporting manifest list {}", top.digest));
    let kept = job.engine.store.put_blob(&job.lease, &bytes);
    kept.map_err(|source| ImageExportError::Write("manifest list", source))?;
    Ok(Product {
        top,
        index_bytes: Some(bytes),
        images,
    })
}

/// The annotations that hold for every platform, if all that are asked for have something to be on
/// (`exporter/containerimage/writer.go`, `Commit`).
fn check_annotations(
    result: &BuildResult,
    output: &Output,
    is_index: bool,
) -> Result<AnnotationSet, ImageExportError> {
    for (platform, set) in &output.annotations {
        // One alone answers to every name (`solver/result/result.go`, `FindRef`); what is asked of another is not done then.
        if let Some(platform) = platform.as_ref().filter(|_| result.subjects.len() > 1) {
            let is_there = result
                .subjects
                .iter()
                .any(|part| part.runs_on().to_string() == platform.to_string());
            if !is_there {
                return Err(ImageExportError::AnnotatedPlatform(platform.to_string()));
            }
        }
        let is_plain =
            set.index.is_empty() && set.index_descriptor.is_empty() && set.manifest_descriptor.is_empty();
        if !output.oci_mediatypes && !is_plain {
            return Err(ImageExportError::AnnotationsNeedOci);
        }
    }
    let of_all = for_platform(&output.annotations, None);
    let needs_index = !of_all.index.is_empty() || !of_all.index_descriptor.is_empty();
    if needs_index && !is_index {
        return Err(ImageExportError::IndexAnnotations);
    }
    Ok(of_all)
}

async fn assemble_one(
    job: &Job,
    subject: &Subject,
    output: &Output,
    annotations: AnnotationSet,
    reporter: &Reporter,
) -> Result<Image, ImageExportError> {
    let family = Family::chosen(output.oci_mediatypes);
    let layers = {
        let _step = reporter.step("exporting layers");
        let all = subject.chain.layers();
        let packed = (0..all.len()).map(|at| layer_blob(job, &all[at], &all[..at], subject, output));
        futures_util::future::try_join_all(packed).await?
    };
    let mut facts: Vec<LayerFacts> = layers.iter().map(|(_, facts)| facts.clone()).collect();
    let told = config::layers_told(&subject.config.history);
    for (layer, facts) in subject.chain.layers().iter().zip(&mut facts).skip(told) {
        if let Some(maker) = job.engine.store.layer_maker(layer)? {
            facts.description = maker;
        }
    }
    let descriptors: Vec<Descriptor> = layers
        .into_iter()
        .map(|(layer, _)| exported(layer, family, output.prefer_nondist_layers))
        .collect();
    let mut config = config::patch(
        subject.config.clone(),
        &facts,
        subject.epoch,
        subject.base_history,
    )?;
    if job.settings.inline_cache
        && let Some(cache) = inline::value(&job.book.keys(), subject.chain.layers())
    {
        config.extra.insert(inline::CONFIG_KEY.to_owned(), cache.into());
    }
    let config_bytes = config.to_bytes();
    let config = Descriptor::of(family.config(), &config_bytes);
    let manifest = Manifest {
        schema_version: 2,
        media_type: family.manifest().to_owned(),
        artifact_type: None,
        config: config.clone(),
        layers: descriptors.clone(),
        subject: None,
        annotations: annotations.manifest,
        extra: std::collections::BTreeMap::new(),
    };
    let manifest_bytes = go_json::to_vec_indented(&manifest).map_err(ImageExportError::Encode)?;
    let mut manifest = Descriptor::of(family.manifest(), &manifest_bytes);
    manifest.annotations = annotations.manifest_descriptor;
    for (what, descriptor, bytes) in [
        ("manifest", &manifest, &manifest_bytes),
        ("config", &config, &config_bytes),
    ] {
        let _step = reporter.step(&format!("exporting {what} {}", descriptor.digest));
        job.engine
            .store
            .put_blob(&job.lease, bytes)
            .map_err(|source| ImageExportError::Write(what, source))?;
    }
    Ok(Image {
        manifest,
        manifest_bytes,
        config,
        config_bytes,
        layers: descriptors,
    })
}

pub(crate) async fn layer_blob(
    job: &Job,
    layer: &LayerId,
    below: &[LayerId],
    subject: &Subject,
    output: &Output,
) -> Result<(Descriptor, LayerFacts), ImageExportError> {
    let known = job.remote(layer);
    let created = known.as_ref().and_then(|remote| remote.created);
    let (own, remote) = match known {
        Some(known) if known.is_own => (Some(known), None),
        known => (None, known),
    };
    if let Some(remote) = &remote
        && (!output.force_compression || is_as_asked(job, remote, output).await?)
    {
        job.fetch_blob(&remote.origin, &remote.descriptor, None).await?;
        return Ok((
            remote.descriptor.clone(),
            facts(job, layer, remote.diff_id.clone(), remote.created)?,
        ));
    }
    let newest = subject
        .epoch
        .filter(|_| output.rewrite_timestamp && remote.is_none());
    // What has no directory of its own is compressed anew from its blob, unless its tar has to change.
    if remote.is_some() || (own.is_some() && newest.is_some()) {
        let chain = below.iter().chain([layer]).cloned().collect();
        job.unpack_chain(&Chain::new(chain)).await?;
    }
    let mut options = PackLayerOptions {
        format: layer_format(output),
        workers: rbuild_sys::process::processors(),
        newest_mtime: newest.map(Timestamp::unix_seconds),
        xattrs: ExportedXattrs::Capability,
        any_compression: false,
    };
    let mut packed = pack(job, layer, below, options).await;
    if packed.as_ref().is_err_and(PackLayerError::is_about_time) {
        // As it is, which BuildKit tells its log (`exporter/containerimage/writer.go`, `rewriteRemoteWithEpoch`).
        options.newest_mtime = None;
        packed = pack(job, layer, below, options).await;
    }
    let packed = packed.map_err(|source| ImageExportError::Pack(layer.clone(), source))?;
    let mut descriptor = Descriptor::new(&packed.media_type, packed.digest, packed.size);
    if let Some(TocFacts { digest, tar_size }) = &packed.toc {
        descriptor.annotations.extend([
            (TOC_DIGEST.to_owned(), digest.to_string()),
            (TOC_TAR_SIZE.to_owned(), tar_size.to_string()),
        ]);
    }
    if let Some(newest) = options.newest_mtime {
        descriptor
            .annotations
            .insert(REWRITTEN_TIMESTAMP.to_owned(), newest.to_string());
    }
    Ok((descriptor, facts(job, layer, packed.diff_id, created)?))
}

async fn pack(
    job: &Job,
    layer: &LayerId,
    below: &[LayerId],
    options: PackLayerOptions,
) -> Result<BlobInfo, PackLayerError> {
    let _permit = job.processors.acquire().await;
    let (engine, lease, id, below) = (
        Arc::clone(&job.engine),
        Arc::clone(&job.lease),
        layer.clone(),
        below.to_vec(),
    );
    blocking(move || engine.snapshotter.pack_layer(&lease, &below, &id, &options)).await
}

/// Whether a layer that exists has a table of contents already, and one is asked for (`estargzType.NeedsConversion`): another would
/// be one of the first.
async fn is_as_asked(job: &Job, remote: &RemoteLayer, output: &Output) -> Result<bool, ImageExportError> {
    if output.compression != LayerCompression::EStargz {
        return Ok(false);
    }
    job.fetch_blob(&remote.origin, &remote.descriptor, None).await?;
    let (engine, digest) = (Arc::clone(&job.engine), remote.descriptor.digest.clone());
    blocking(move || match engine.store.open_blob(&digest)? {
        // What cannot be read fails where it is used.
        Some(mut blob) => Ok(rbuild_layer::is_estargz(&mut blob).unwrap_or(false)),
        None => Ok(false),
    })
    .await
}

/// The form that new layers have in `output`.
pub(crate) fn layer_format(output: &Output) -> LayerFormat {
    let level = output.compression_level;
    match output.compression {
        LayerCompression::Uncompressed => LayerFormat::Uncompressed,
        LayerCompression::Gzip => LayerFormat::Gzip(level.and_then(|level| level.try_into().ok())),
        LayerCompression::EStargz => LayerFormat::EStargz(level.and_then(|level| level.try_into().ok())),
        LayerCompression::Zstd => LayerFormat::Zstd(level),
    }
}

fn facts(
    job: &Job,
    layer: &LayerId,
    diff_id: DiffId,
    known: Option<Timestamp>,
) -> Result<LayerFacts, ImageExportError> {
    let stored = job.engine.store.layer_facts(&job.engine.form_name, layer)?;
    // The times of a base image's layers are in its history; here they would be those of the unpacking.
    let created = stored
        .filter(|_| layer.diff_id().is_none())
        .and_then(|facts| from_ms(facts.created_ms));
    Ok(LayerFacts {
        diff_id,
        created: known.or(created),
        description: "created by buildkit".to_owned(),
    })
}

/// A layer's descriptor as a manifest has it: one family of types, no annotations of other tools' insides, and no other place to
/// have it from unless that is wanted (BuildKit: cache/refs.go, `ociDesc`).
fn exported(mut layer: Descriptor, family: Family, prefer_nondist: bool) -> Descriptor {
    let media_type = if prefer_nondist && !layer.urls.is_empty() {
        media_type::nondistributable(&layer.media_type)
    } else {
        layer.urls.clear();
        media_type::distributable(&layer.media_type)
    };
    layer.media_type = media_type.to_owned();
    if let Some(media_type) = media_type::convert_layer(&layer.media_type, family) {
        media_type.clone_into(&mut layer.media_type);
    }
    let internal = ["containerd.io/uncompressed", "buildkit/createdat"];
    layer.annotations.retain(|key, _| {
        family == Family::Oci
            && !internal.contains(&key.as_str())
            && !key.starts_with("containerd.io/distribution.source.")
    });
    layer
}
