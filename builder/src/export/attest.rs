//! Attestations of images: a manifest beside the image's, whose layers are in-toto statements
//! (`exporter/containerimage/writer.go`, `commitAttestationsManifest`; `docs/attestations/attestation-storage.md`).

use std::sync::Arc;

use rbuild_oci::attestation::{ARTIFACT_TYPE, PREDICATE_TYPE, nowhere};
use rbuild_oci::media_type;
use rbuild_oci::{Descriptor, ImageConfig, Manifest, Platform, RootFs, go_json};

use super::Export;
use super::image::{ImageExportError, PlatformSubject};
use super::layout::Image;
use crate::attestation::{self, LayerFiles, StatementSubject, Told};
use crate::job::Job;
use crate::provenance::purl;
use crate::solve::Reporter;
use crate::value::Chain;

/// An empty config.
const EMPTY: (&str, &[u8]) = ("application/vnd.oci.empty.v1+json", b"{}");

/// The manifest of what is said of `part`, whose image is `image`; `None` if nothing is.
///
/// # Errors
/// [`ImageExportError`].
pub(super) async fn image(
    job: &Arc<Job>,
    part: &PlatformSubject,
    image: &Image,
    export: &Export,
    reporter: &Reporter,
) -> Result<Option<Image>, ImageExportError> {
    if part.attestations.is_empty() {
        return Ok(None);
    }
    let mut told = attestation::told(job, &part.attestations).await?;
    supplement(job, &part.subject.chain, image, &mut told).await?;
    let subjects = subjects(export, &part.runs_on(), image);
    let mut layers = Vec::with_capacity(told.len());
    for told in told {
        let statement = attestation::statement(told, &subjects);
        let bytes = go_json::to_vec(&statement).map_err(ImageExportError::Encode)?;
        let mut layer = Descriptor::of(media_type::IN_TOTO, &bytes);
        let predicate_type = statement.predicate_type;
        layer
            .annotations
            .insert(PREDICATE_TYPE.to_owned(), predicate_type);
        keep(job, "attestation", &bytes)?;
        layers.push(layer);
    }
    let manifest = manifest(image, layers, export.output.oci_artifact)?;
    let _step = reporter.step(&format!(
        "exporting attestation manifest {}",
        manifest.manifest.digest
    ));
    keep(job, "attestation manifest", &manifest.manifest_bytes)?;
    keep(job, "attestation config", &manifest.config_bytes)?;
    Ok(Some(manifest))
}

fn keep(job: &Job, what: &'static str, bytes: &[u8]) -> Result<(), ImageExportError> {
    let kept = job.engine.store.put_blob(&job.lease, bytes);
    kept.map(drop)
        .map_err(|source| ImageExportError::Write(what, source))
}

/// The image under each of its names.
fn subjects(export: &Export, platform: &Platform, image: &Image) -> Vec<StatementSubject> {
    let platform = platform.to_string();
    let names = export.names.iter();
    names
        .map(|name| {
            let name = purl::image(purl::Kind::Docker, name, Some(&platform));
            StatementSubject::new(&name, &image.manifest.digest)
        })
        .collect()
}

async fn supplement(
    job: &Arc<Job>,
    chain: &Chain,
    image: &Image,
    told: &mut [Told],
) -> Result<(), ImageExportError> {
    if told.iter().all(|told| told.predicate_type != attestation::SPDX) {
        return Ok(());
    }
    let chain = job.unpack_chain(chain).await?;
    let dirs = job.lease.hold_layers(&job.engine.form_name, chain.layers())?;
    let layers = dirs.into_iter().zip(&image.layers);
    let layers = layers.filter_map(|(dir, layer)| Some((dir?, layer.digest.clone())));
    let mut layers = LayerFiles::new(layers.collect());
    for told in told {
        attestation::supplement(told, &mut layers);
    }
    Ok(())
}

fn manifest(image: &Image, layers: Vec<Descriptor>, as_artifact: bool) -> Result<Image, ImageExportError> {
    let (config, config_bytes) = if as_artifact {
        let mut config = Descriptor::of(EMPTY.0, EMPTY.1);
        // The OCI's own descriptor of an empty document has the document in it.
        config.extra.insert("data".to_owned(), "e30=".into());
        (config, EMPTY.1.to_vec())
    } else {
        let bytes = config(&layers).to_bytes();
        (Descriptor::of(media_type::OCI_CONFIG, &bytes), bytes)
    };
    let subject = as_artifact.then(|| {
        let manifest = &image.manifest;
        Descriptor::new(&manifest.media_type, manifest.digest.clone(), manifest.size)
    });
    let document = Manifest {
        artifact_type: as_artifact.then(|| ARTIFACT_TYPE.to_owned()),
        subject,
        ..Manifest::new(media_type::OCI_MANIFEST, config.clone(), layers.clone())
    };
    let manifest_bytes = go_json::to_vec_indented(&document).map_err(ImageExportError::Encode)?;
    let mut manifest = Descriptor::of(media_type::OCI_MANIFEST, &manifest_bytes);
    manifest.attest(&image.manifest.digest);
    Ok(Image {
        manifest,
        manifest_bytes,
        config,
        config_bytes,
        layers,
    })
}

/// The config of a manifest that old tools take for an image.
fn config(layers: &[Descriptor]) -> ImageConfig {
    let Platform { os, architecture, .. } = nowhere();
    let diff_ids = layers
        .iter()
        .map(|layer| rbuild_oci::DiffId(layer.digest.clone()));
    ImageConfig {
        os,
        architecture,
        rootfs: RootFs {
            diff_ids: diff_ids.collect(),
            ..RootFs::default()
        },
        ..ImageConfig::default()
    }
}
