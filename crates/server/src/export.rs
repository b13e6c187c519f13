//! Exporters: an answer becomes images, archives and directories.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine as _;
use bollard_buildkit_proto::moby::buildkit::v1::Exporter;
use rbuild_builder::cache_transfer;
use rbuild_builder::client::ContentPlace;
use rbuild_builder::export::{self, BuildResult, PlatformSubject};
use rbuild_builder::request::{
    BuildOutcome, CacheExport, Dangling, Destination, LayerCompression, LayoutDestination, Output,
    OutputKind, TreeDestination,
};
use rbuild_builder::value::Chain;
use rbuild_llb::errors::sentence;
use rbuild_llb::exporters::{
    ArchiveExporter, CompressionKind, ExporterSpec, FilesExporter, ImageExporter, ImageOptions, annotation,
};
use rbuild_oci::{Descriptor, Platform};
use serde::Deserialize;
use tonic::Status;

use crate::answer::{Answer, BuildRef, PLATFORMS, Refs};
use crate::attest::{self, Part, Wanted};
use crate::errors::{build_status, refused};
use crate::history::Exported;
use crate::producers::Producers;
use crate::running::Running;

mod subject;

use subject::Metadata;

/// The client's content store for image layouts (`client/solve.go`; there is one, whichever exporter asks).
const EXPORT_STORE: &str = "export";
/// Metadata: names of the image, comma between them.
const IMAGE_NAME: &str = "image.name";
/// Most names that a front end gives.
const NAMES_MAX: usize = 1000;
/// Key under which an exporter tells of the image it made.
const DESCRIPTOR: &str = "containerimage.descriptor";

/// An exporter, checked before anything is built.
#[derive(Debug)]
pub struct Planned {
    output: Output,
    /// Its names are those that the front end gives.
    named_by_answer: bool,
    /// What its attributes say of the result, instead of the front end.
    metadata: Metadata,
}

/// What the exporters of a request are.
///
/// # Errors
/// A refusal for kinds and values there are none of, in BuildKit's words.
pub fn plan(exporters: &[Exporter]) -> Result<Vec<Planned>, Status> {
    plan_from(0, exporters)
}

/// The same of exporters that come after `first` others.
///
/// # Errors
/// As of [`plan`].
pub(crate) fn plan_from(first: usize, exporters: &[Exporter]) -> Result<Vec<Planned>, Status> {
    let mut planned = Vec::with_capacity(exporters.len());
    let first = u32::try_from(first).unwrap_or(u32::MAX);
    for (number, exporter) in (first..).zip(exporters) {
        let spec = ExporterSpec::parse(exporter).map_err(|error| refused(sentence(&error)))?;
        planned.push(match spec {
            ExporterSpec::Image(image) => of_image(image),
            ExporterSpec::Archive(archive) => of_archive(number, archive),
            ExporterSpec::Files(files) => of_files(number, &files),
        });
    }
    Ok(planned)
}

fn of_image(exporter: ImageExporter) -> Planned {
    let kind = OutputKind::Image {
        push: exporter.push,
        push_by_digest: exporter.push_by_digest,
        insecure: exporter.insecure,
    };
    let dangling = exporter.dangling_prefix.map(|prefix| Dangling {
        prefix,
        empty_only: exporter.dangling_empty_only,
    });
    let mut planned = image_output(kind, exporter.image, true);
    planned.output.dangling = dangling;
    planned.output.is_stored = exporter.store;
    planned.output.name_canonical = exporter.name_canonical;
    planned
}

fn of_archive(number: u32, exporter: ArchiveExporter) -> Planned {
    let to = if exporter.tar {
        LayoutDestination::Tar(Destination::Client(number))
    } else {
        LayoutDestination::Store(ContentPlace {
            session: String::new(),
            store: EXPORT_STORE.to_owned(),
        })
    };
    let kind = if exporter.docker {
        OutputKind::Docker(to)
    } else {
        OutputKind::Oci(to)
    };
    image_output(kind, exporter.image, true)
}

fn of_files(number: u32, exporter: &FilesExporter) -> Planned {
    let kind = if exporter.tar {
        OutputKind::Tar(Destination::Client(number))
    } else {
        OutputKind::Local(TreeDestination::Client(number))
    };
    let mut planned = image_output(kind, ImageOptions::default(), true);
    planned.output.epoch = exporter.epoch;
    planned.output.platform_split = exporter.platform_split;
    planned
        .output
        .attestation_prefix
        .clone_from(&exporter.attestation_prefix);
    planned
}

fn image_output(kind: OutputKind, mut options: ImageOptions, oci: bool) -> Planned {
    let metadata = std::mem::take(&mut options.metadata).into_iter();
    let metadata = metadata.map(|(key, value)| (key, value.into_bytes())).collect();
    Planned {
        named_by_answer: options.name == "*",
        metadata,
        output: Output {
            names: options.names().map(str::to_owned).collect(),
            compression: layer_compression(options.compression.kind),
            prefer_nondist_layers: options.prefer_nondist_layers,
            compression_level: options.compression.codec_level(),
            force_compression: options.compression.force,
            oci_mediatypes: options.oci_mediatypes.unwrap_or(oci),
            rewrite_timestamp: options.rewrite_timestamp,
            epoch: options.epoch,
            annotations: options.annotations,
            oci_artifact: options.oci_artifact.unwrap_or(true),
            inline_attestations: options.inline_attestations,
            ..Output::new(kind)
        },
    }
}

/// The compression that a client's word asks for.
pub(crate) const fn layer_compression(kind: CompressionKind) -> LayerCompression {
    match kind {
        CompressionKind::Uncompressed => LayerCompression::Uncompressed,
        CompressionKind::Gzip => LayerCompression::Gzip,
        CompressionKind::EStargz => LayerCompression::EStargz,
        CompressionKind::Zstd => LayerCompression::Zstd,
    }
}

/// Runs every exporter, then those of the cache; gives what clients are told of the results.
///
/// # Errors
/// The build's and the exporters'.
pub async fn all(
    running: &Arc<Running>,
    answer: &Answer,
    result: &BuildResult,
    planned: impl IntoIterator<Item = &Planned>,
    caches: &[CacheExport],
) -> Result<Exported, Status> {
    let mut outcome = BuildOutcome::default();
    let mut results = BTreeMap::new();
    for (number, planned) in (0..).zip(planned) {
        let output = completed(planned, answer)?;
        let exports = export::plan_output(&output, &[]).map_err(|error| refused(error.to_string()))?;
        let result = subject::with_metadata(result.clone(), &planned.metadata)?;
        let earlier = outcome.metadata.remove(DESCRIPTOR);
        let done = export::all(&running.job, &result, vec![exports], &mut outcome).await;
        done.map_err(|error| build_status(&error.into()))?;
        let made = outcome.metadata.get(DESCRIPTOR).cloned();
        if let Some(made) = made.and_then(|made| serde_json::from_value::<Descriptor>(made).ok()) {
            results.insert(number, made);
        } else if let Some(earlier) = earlier {
            outcome.metadata.insert(DESCRIPTOR.to_owned(), earlier);
        }
    }
    let written = cache_transfer::export::all(&running.job, result, caches).await;
    if let Some(written) = written.map_err(|error| build_status(&error.into()))? {
        outcome.note_cache(&written);
    }
    Ok(Exported {
        response: response(outcome, answer),
        results,
        attestations: Vec::new(),
    })
}

/// The output with the names and annotations that the front end gives its image.
fn completed(planned: &Planned, answer: &Answer) -> Result<Output, Status> {
    let mut output = planned.output.clone();
    if planned.named_by_answer
        && let Some(names) = answer.metadata.get(IMAGE_NAME)
    {
        let names = String::from_utf8_lossy(names);
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        output.names = names.take(NAMES_MAX).map(str::to_owned).collect();
    }
    for (key, value) in &answer.metadata {
        let value = String::from_utf8_lossy(value);
        let taken = annotation(&mut output.annotations, key, &value);
        taken.map_err(|error| refused(sentence(&error)))?;
    }
    Ok(output)
}

fn response(outcome: BuildOutcome, answer: &Answer) -> HashMap<String, String> {
    let mut response = HashMap::new();
    for (key, value) in outcome.metadata {
        // Texts are told as they are, everything else as JSON in base64 (`ExporterImageDescriptorKey`).
        let text = value.as_str().map_or_else(
            || base64::engine::general_purpose::STANDARD.encode(value.to_string()),
            str::to_owned,
        );
        response.insert(key, text);
    }
    for (key, value) in &answer.metadata {
        if key.starts_with("frontend.") {
            response.insert(key.clone(), String::from_utf8_lossy(value).into_owned());
        }
    }
    response
}

/// The platforms of an answer.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Platforms {
    #[serde(rename = "Platforms", default)]
    pub(crate) list: Vec<PlatformEntry>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PlatformEntry {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Platform")]
    pub(crate) platform: Platform,
}

/// What the answer says of its platforms (`exptypes.ParsePlatforms`); nothing if it says nothing.
pub(crate) fn platforms(answer: &Answer) -> Result<Platforms, Status> {
    let refuse = |text: String| Err(refused(text));
    let Some(text) = answer.metadata.get(PLATFORMS) else {
        return Ok(Platforms::default());
    };
    let platforms: Option<Platforms> = serde_json::from_slice(text)
        .map_err(|error| refused(format!("failed to parse platforms passed to exporter: {error}")))?;
    let platforms = platforms.unwrap_or_default();
    if platforms.list.is_empty() {
        return refuse("invalid empty platforms index for exporter".to_owned());
    }
    for entry in &platforms.list {
        if entry.id.is_empty() {
            return refuse("invalid empty platform key for exporter".to_owned());
        }
        if entry.platform.os.is_empty() || entry.platform.architecture.is_empty() {
            return refuse(format!("invalid platform value {} for exporter", entry.platform));
        }
    }
    Ok(platforms)
}

/// Builds what the answer holds, and all that is to be said of it.
///
/// # Errors
/// The build's, those of attestations, and `invalid_argument` for an answer that does not fit together.
pub async fn result(
    running: &Arc<Running>,
    answer: &Answer,
    wanted_attestations: &Wanted,
    producers: &Producers,
) -> Result<BuildResult, Status> {
    let platforms = platforms(answer)?;
    let (wanted, is_index) = match &answer.refs {
        Refs::One(found) => {
            let only = platforms.list.into_iter().next();
            let suffix = only.as_ref().map(|entry| format!("/{}", entry.id));
            let (id, platform) = only.map(|entry| (entry.id, entry.platform)).unzip();
            (
                vec![(suffix.unwrap_or_default(), id, platform, found.clone())],
                false,
            )
        }
        Refs::Many(many) => {
            if platforms.list.is_empty() && !many.is_empty() {
                return Err(refused(
                    "unable to export multiple refs, missing platforms mapping",
                ));
            }
            let mut wanted = Vec::with_capacity(platforms.list.len());
            for entry in platforms.list {
                let found = many
                    .get(&entry.id)
                    .ok_or_else(|| refused(format!("failed to find ref for ID {}", entry.id)))?;
                let suffix = format!("/{}", entry.id);
                wanted.push((suffix, Some(entry.id), Some(entry.platform), found.clone()));
            }
            (wanted, true)
        }
    };
    let built = wanted
        .into_iter()
        .map(|(suffix, id, platform, found)| async move {
            let chain = chain(running, found.as_deref()).await?;
            let subject = subject::subject(&answer.metadata, &suffix, platform.as_ref(), chain)?;
            let subject = PlatformSubject::new(platform, subject);
            let id = id.unwrap_or_else(|| subject.runs_on().to_string());
            Ok::<_, Status>(Part { id, found, subject })
        });
    let mut parts = futures_util::future::try_join_all(built).await?;
    attest::add(
        running,
        answer,
        &mut parts,
        is_index,
        wanted_attestations,
        producers,
    )
    .await?;
    Ok(BuildResult {
        subjects: parts.into_iter().map(|part| part.subject).collect(),
        is_index,
    })
}

async fn chain(running: &Running, found: Option<&BuildRef>) -> Result<Chain, Status> {
    let Some(found) = found else {
        return Ok(Chain::default());
    };
    let chain = found.chain(&running.job, &running.cancel).await;
    chain.map_err(|error| build_status(&error))
}
