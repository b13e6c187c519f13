//! `--output`, `--push` and `--load` as outputs of a request (`buildx/build/opt.go`, `CreateExports`;
//! `buildkit/exporter/containerimage/opts.go`). Attributes that would change the result and are not served are
//! refused; unknown ones are accepted with a warning, where BuildKit says nothing.

use std::path::{Path, PathBuf};

use rbuild_builder::error::chain_text;
use rbuild_builder::request::{
    Annotations, Dangling, Destination, Epoch, LayerCompression, LayoutDestination, Output, OutputKind,
    TreeDestination, annotation,
};
use rbuild_dockerfile::suggest;
use rbuild_oci::Platform;
use rbuild_ui::values::export::ExportEntry;
use rbuild_ui::values::key_value::{self, AnnotationType};
use rbuild_ui::values::scalar::parse_bool;

use super::UsageError;
use crate::args::{LoadTo, LowBuild};

/// Attributes without effect on what rbuild writes.
const NO_EFFECT: [&str; 2] = ["buildinfo", "buildinfo-attrs"];

/// What `--allow` says of [`Output::delete_extra`].
pub(super) const LOCAL_DELETE: &str = "buildx.local.delete";

/// Attributes of images, which say nothing of files.
const OF_IMAGES: [&str; 10] = [
    "name",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "oci-artifact",
    "attestation-inline",
    "rewrite-timestamp",
    "prefer-nondist-layers",
    "unpack",
];

/// Attributes of files, which say nothing of images.
const OF_FILES: [&str; 3] = ["platform-split", "attestation-prefix", "mode"];

/// Attributes of either.
const OF_BOTH: [&str; 12] = [
    "dest",
    "tar",
    "push",
    "push-by-digest",
    "registry.insecure",
    "store",
    "name-canonical",
    "dangling-name-prefix",
    "danging-name-empty-only",
    "source-date-epoch",
    "annotation.",
    "context",
];

/// Every output, the default one too.
pub(super) fn of(
    low: &LowBuild,
    is_index: bool,
    stdout_is_terminal: bool,
    warnings: &mut Vec<String>,
) -> Result<Vec<Output>, UsageError> {
    let has_tags = low.tag.iter().any(|tag| !tag.is_empty());
    let annotations = annotations(low)?;
    let mut stdout_used = false;
    let mut outputs: Vec<Output> = Vec::new();
    for text in low.output.iter().filter(|text| !text.is_empty()) {
        let entry = ExportEntry::parse(text)?;
        if low.iidfile.is_some() && matches!(entry.kind.as_str(), "local" | "tar") {
            return Err(UsageError::IidfileWithoutImage);
        }
        let output = output(entry, has_tags, is_index, warnings)?;
        deletion_allowed(&output, &low.allow)?;
        if writes_stdout(&output.kind) {
            if std::mem::replace(&mut stdout_used, true) {
                return Err(UsageError::StdoutTwice);
            }
            if stdout_is_terminal {
                return Err(UsageError::Console(name_of(&output.kind).to_owned()));
            }
        }
        outputs.push(output);
    }
    shorthands(low, &mut outputs);
    let takes_annotations = |output: &Output| {
        !matches!(
            output.kind,
            OutputKind::Local(_) | OutputKind::Tar(_) | OutputKind::CacheOnly
        )
    };
    if !annotations.is_empty() && !outputs.iter().any(takes_annotations) {
        warnings.push("--annotation has no effect: no output is an image".to_owned());
    }
    for output in &mut outputs {
        add_annotations(&mut output.annotations, &annotations);
        let pushes = matches!(output.kind, OutputKind::Image { push: true, .. });
        if pushes && !has_tags && output.names.is_empty() {
            return Err(UsageError::PushWithoutTag);
        }
    }
    Ok(outputs)
}

/// `--push`, `--load`, and the store if nothing is asked for. `cacheonly` only says that nothing is.
fn shorthands(low: &LowBuild, outputs: &mut Vec<Output>) {
    let image = |push| {
        let mut output = Output::new(OutputKind::Image {
            push,
            push_by_digest: false,
            insecure: false,
        });
        output.dangling = Some(Dangling::unnamed());
        output
    };
    if low.push == Some(true) {
        let mut any = false;
        for output in outputs.iter_mut() {
            if let OutputKind::Image { push, .. } = &mut output.kind {
                *push = true;
                any = true;
            }
        }
        if !any {
            outputs.push(image(true));
        }
    }
    let has_image = outputs
        .iter()
        .any(|output| matches!(output.kind, OutputKind::Image { .. }));
    let is_loaded = low.load.as_ref().is_some_and(|to| *to != LoadTo::Nowhere);
    if (is_loaded && !has_image) || outputs.is_empty() {
        outputs.push(image(false));
    }
    if outputs.len() > 1 {
        outputs.retain(|output| output.kind != OutputKind::CacheOnly);
    }
    if outputs.is_empty() {
        outputs.push(Output::new(OutputKind::CacheOnly));
    }
}

fn output(
    mut entry: ExportEntry,
    has_tags: bool,
    is_index: bool,
    warnings: &mut Vec<String>,
) -> Result<Output, UsageError> {
    let kind = kind(&mut entry, is_index)?;
    let mut output = Output::new(kind);
    without_effect(&mut entry, &output.kind, warnings);
    output.epoch = epoch(&mut entry)?;
    in_store(&mut entry, &mut output)?;
    output.platform_split = entry.take_written_bool("platform-split")?;
    mode(&mut entry, &mut output, warnings)?;
    // Tags take the place of names, as in buildx.
    let names = entry.attrs.remove("name").unwrap_or_default();
    if !has_tags {
        output.names = names
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
    }
    compression(&mut entry, &mut output)?;
    output.oci_mediatypes = entry.take_written_bool("oci-mediatypes")?.unwrap_or(true);
    if output.compression == LayerCompression::EStargz && !output.oci_mediatypes {
        return Err(UsageError::CompressionNeedsOci("estargz"));
    }
    output.prefer_nondist_layers = entry.take_written_bool("prefer-nondist-layers")?.unwrap_or(false);
    attestations(&mut entry, &mut output)?;
    output.rewrite_timestamp = entry.take_written_bool("rewrite-timestamp")?.unwrap_or(false);
    for (key, value) in std::mem::take(&mut entry.attrs) {
        let is_annotation = annotation(&mut output.annotations, &key, &value)
            .map_err(|error| UsageError::Annotation(key.clone(), chain_text(&error)))?;
        if is_annotation {
            if matches!(output.kind, OutputKind::Local(_) | OutputKind::Tar(_)) {
                warnings.push(inert(&key, &entry.kind));
            }
            continue;
        }
        if !NO_EFFECT.contains(&key.as_str()) {
            warnings.push(unknown(&entry.kind, &key));
        }
    }
    Ok(output)
}

/// Whether a directory keeps what else it holds (`client/exporters.go`).
fn mode(entry: &mut ExportEntry, output: &mut Output, warnings: &mut Vec<String>) -> Result<(), UsageError> {
    let Some(mode) = entry.attrs.remove("mode") else {
        return Ok(());
    };
    let delete = match mode.trim().to_lowercase().as_str() {
        "" | "copy" => false,
        "delete" => true,
        _ => return Err(UsageError::LocalMode(mode)),
    };
    output.delete_extra = delete && matches!(output.kind, OutputKind::Local(_));
    if output.delete_extra != delete {
        warnings.push(inert("mode", &entry.kind));
    }
    Ok(())
}

/// Files are removed below the directory the command runs in, and elsewhere for those who allow that
/// (`buildx/build/opt.go`).
fn deletion_allowed(output: &Output, allowed: &[String]) -> Result<(), UsageError> {
    match &output.kind {
        OutputKind::Local(TreeDestination::Dir(dir))
            if output.delete_extra
                && !allowed.iter().any(|name| name == LOCAL_DELETE)
                && !is_below_here(dir) =>
        {
            Err(UsageError::LocalDelete(dir.clone()))
        }
        _ => Ok(()),
    }
}

/// Whether `dir` is strictly below the current directory, links resolved as far as there are any.
fn is_below_here(dir: &Path) -> bool {
    let Ok(here) = Path::new(".").canonicalize() else {
        return false;
    };
    let dir = here.join(dir);
    let (mut known, mut missing) = (dir.as_path(), Vec::new());
    let found = loop {
        if let Ok(found) = known.canonicalize() {
            break found;
        }
        let (Some(name), Some(parent)) = (known.file_name(), known.parent()) else {
            return false;
        };
        missing.push(name);
        known = parent;
    };
    let resolved = missing.iter().rev().fold(found, |path, name| path.join(name));
    resolved != here && resolved.starts_with(&here)
}

/// Takes out attributes that are known, and not of this kind of output.
fn without_effect(entry: &mut ExportEntry, kind: &OutputKind, warnings: &mut Vec<String>) {
    let others: &[&str] = match kind {
        OutputKind::Local(_) | OutputKind::Tar(_) => &OF_IMAGES,
        OutputKind::Image { .. } | OutputKind::Oci(_) | OutputKind::Docker(_) => &OF_FILES,
        OutputKind::CacheOnly => return,
    };
    for key in others {
        if entry.attrs.remove(*key).is_some() {
            warnings.push(inert(key, &entry.kind));
        }
    }
}

/// What is told of an attribute that another kind of output has.
fn inert(key: &str, kind: &str) -> String {
    format!("attribute {key:?} has no effect on output type {kind:?}")
}

/// What is told of an attribute that nothing knows, with the one that was probably meant.
fn unknown(kind: &str, key: &str) -> String {
    let known = OF_IMAGES.iter().chain(&OF_FILES).chain(&OF_BOTH).copied();
    let near = suggest::nearest(key, known, false);
    let near = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    format!("unknown attribute {key:?} of output type {kind:?} has no effect{near}")
}

fn epoch(entry: &mut ExportEntry) -> Result<Epoch, UsageError> {
    match entry.attrs.remove("source-date-epoch") {
        None => Ok(Epoch::Unset),
        Some(text) if text.is_empty() => Ok(Epoch::Off),
        Some(text) => match text.parse() {
            Ok(seconds) => Ok(Epoch::At(seconds)),
            Err(_) => Err(UsageError::OutputEpoch(text)),
        },
    }
}

/// What an image is kept as in the store (`exporter/containerimage/export.go`).
fn in_store(entry: &mut ExportEntry, output: &mut Output) -> Result<(), UsageError> {
    output.dangling = Some(Dangling::unnamed());
    if !matches!(output.kind, OutputKind::Image { .. }) {
        return Ok(());
    }
    output.is_stored = entry.take_bool("store")?.unwrap_or(true);
    // What is stored is always kept unpacked too.
    entry.take_bool("unpack")?;
    output.name_canonical = entry.take_bool("name-canonical")?.unwrap_or(false);
    let empty_only = entry.take_bool("danging-name-empty-only")?.unwrap_or(false);
    if let Some(prefix) = entry.attrs.remove("dangling-name-prefix") {
        output.dangling = Some(Dangling { prefix, empty_only });
    }
    Ok(())
}

fn kind(entry: &mut ExportEntry, is_index: bool) -> Result<OutputKind, UsageError> {
    match entry.kind.as_str() {
        "image" | "registry" => {
            let registry = entry.kind == "registry";
            Ok(OutputKind::Image {
                push: entry.take_bool("push")?.unwrap_or(false) || registry,
                push_by_digest: entry.take_bool("push-by-digest")?.unwrap_or(false),
                insecure: entry.take_bool("registry.insecure")?.unwrap_or(false),
            })
        }
        "local" => Ok(OutputKind::Local(TreeDestination::Dir(directory(entry)?))),
        "tar" => Ok(OutputKind::Tar(stream(entry)?)),
        "oci" => layout(entry).map(OutputKind::Oci),
        "docker" => {
            if let Some(context) = entry.attrs.remove("context") {
                return Err(UsageError::NotSupported(format!(
                    "output attribute context={context}"
                )));
            }
            // buildx: a tar unless `tar` says otherwise, and what is no bool says nothing.
            if entry.dest.is_none()
                && entry
                    .attrs
                    .get("tar")
                    .is_none_or(|text| parse_bool(text) != Some(false))
            {
                // Without a destination it is loaded: into the store.
                entry.attrs.remove("tar");
                return Ok(OutputKind::Image {
                    push: false,
                    push_by_digest: false,
                    insecure: false,
                });
            }
            if is_index {
                return Err(UsageError::DockerPlatforms);
            }
            layout(entry).map(OutputKind::Docker)
        }
        "cacheonly" => Ok(OutputKind::CacheOnly),
        other => Err(UsageError::ExportType(other.to_owned())),
    }
}

fn layout(entry: &mut ExportEntry) -> Result<LayoutDestination, UsageError> {
    if entry.take_bool("tar")?.unwrap_or(true) {
        stream(entry).map(LayoutDestination::Tar)
    } else {
        directory(entry).map(LayoutDestination::Dir)
    }
}

fn directory(entry: &ExportEntry) -> Result<PathBuf, UsageError> {
    match entry.dest.as_deref() {
        None => Err(UsageError::DestRequired(entry.kind.clone())),
        Some("-") => Err(UsageError::DestStdout(entry.kind.clone())),
        Some(dest) if Path::new(dest).exists() && !Path::new(dest).is_dir() => {
            Err(UsageError::DestIsFile(dest.to_owned()))
        }
        Some(dest) => Ok(PathBuf::from(dest)),
    }
}

fn stream(entry: &ExportEntry) -> Result<Destination, UsageError> {
    match entry.dest.as_deref() {
        None | Some("-") => Ok(Destination::Stdout),
        Some(dest) if Path::new(dest).is_dir() => Err(UsageError::DestIsDirectory(dest.to_owned())),
        Some(dest) => Ok(Destination::File(PathBuf::from(dest))),
    }
}

fn compression(entry: &mut ExportEntry, output: &mut Output) -> Result<(), UsageError> {
    if let Some(value) = entry.attrs.remove("compression") {
        output.compression = match value.as_str() {
            "uncompressed" => LayerCompression::Uncompressed,
            "gzip" => LayerCompression::Gzip,
            "zstd" => LayerCompression::Zstd,
            "estargz" => LayerCompression::EStargz,
            _ => {
                return Err(UsageError::Compression {
                    key: "compression",
                    value,
                });
            }
        };
    }
    if let Some(value) = entry.attrs.remove("compression-level") {
        let most = match output.compression {
            LayerCompression::Zstd => 22,
            LayerCompression::Gzip | LayerCompression::EStargz | LayerCompression::Uncompressed => 9,
        };
        let level = value.parse().ok().filter(|level| (0..=most).contains(level));
        output.compression_level = Some(level.ok_or(UsageError::Compression {
            key: "compression-level",
            value,
        })?);
    }
    output.force_compression = entry.take_bool("force-compression")?.unwrap_or(false);
    Ok(())
}

fn annotations(low: &LowBuild) -> Result<Annotations, UsageError> {
    let mut all = Annotations::new();
    for text in low.annotation.iter().filter(|text| !text.is_empty()) {
        for annotation in key_value::annotations(text)? {
            let platform = annotation.platform.as_deref().map(Platform::parse).transpose();
            let platform =
                platform.map_err(|_| UsageError::Annotation(text.clone(), "invalid platform".to_owned()))?;
            let set = all
                .entry(platform.map(|platform| platform.normalized()))
                .or_default();
            let map = match annotation.kind {
                AnnotationType::Manifest => &mut set.manifest,
                AnnotationType::ManifestDescriptor => &mut set.manifest_descriptor,
                AnnotationType::Index => &mut set.index,
                AnnotationType::IndexDescriptor => &mut set.index_descriptor,
            };
            map.insert(annotation.key, annotation.value);
        }
    }
    Ok(all)
}

/// Adds `more`, which wins.
fn add_annotations(all: &mut Annotations, more: &Annotations) {
    for (platform, set) in more {
        let own = all.entry(platform.clone()).or_default();
        for (to, from) in [
            (&mut own.index, &set.index),
            (&mut own.index_descriptor, &set.index_descriptor),
            (&mut own.manifest, &set.manifest),
            (&mut own.manifest_descriptor, &set.manifest_descriptor),
        ] {
            to.extend(from.clone());
        }
    }
}

/// How attestations are exported, if there are any.
fn attestations(entry: &mut ExportEntry, output: &mut Output) -> Result<(), UsageError> {
    if let Some(artifact) = entry.take_written_bool("oci-artifact")? {
        output.oci_artifact = artifact;
    }
    if let Some(inline) = entry.take_written_bool("attestation-inline")? {
        output.inline_attestations = inline;
    }
    output.attestation_prefix = entry.attrs.remove("attestation-prefix").unwrap_or_default();
    Ok(())
}

fn writes_stdout(kind: &OutputKind) -> bool {
    matches!(
        kind,
        OutputKind::Tar(Destination::Stdout)
            | OutputKind::Oci(LayoutDestination::Tar(Destination::Stdout))
            | OutputKind::Docker(LayoutDestination::Tar(Destination::Stdout))
    )
}

const fn name_of(kind: &OutputKind) -> &'static str {
    match kind {
        OutputKind::Image { .. } => "image",
        OutputKind::Oci(_) => "oci",
        OutputKind::Docker(_) => "docker",
        OutputKind::Local(_) => "local",
        OutputKind::Tar(_) => "tar",
        OutputKind::CacheOnly => "cacheonly",
    }
}
