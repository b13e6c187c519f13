//! Exporters of a solve and their attributes (`exporter/containerimage`, `exporter/oci`, `exporter/local`,
//! `exporter/tar`).
//!
//! Every value is read with BuildKit's sentences. Attributes that an exporter does not know are kept: image exporters
//! add them to the result's metadata, the others drop them.

use std::collections::BTreeMap;

use bollard_buildkit_proto::moby::buildkit::v1 as api;
use rbuild_oci::PlatformError;

use crate::go::{self, ValueError};

mod annotations;
mod compression;

pub use annotations::{AnnotationSet, Annotations, annotation, for_platform};
pub use compression::{Compression, CompressionError, CompressionKind};

/// One exporter of a solve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExporterSpec {
    /// `image`: an image in the store, and in registries.
    Image(ImageExporter),
    /// `oci` and `docker`: an image in an archive for the client.
    Archive(ArchiveExporter),
    /// `local` and `tar`: files for the client.
    Files(FilesExporter),
}

/// `image`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "attribute for attribute BuildKit's exporter"
)]
pub struct ImageExporter {
    /// What all image exporters have.
    pub image: ImageOptions,
    /// `push`: to the registries of all names.
    pub push: bool,
    /// `push-by-digest`: without tags.
    pub push_by_digest: bool,
    /// `registry.insecure`: plain HTTP is allowed.
    pub insecure: bool,
    /// `unpack`: into the snapshotter too.
    pub unpack: bool,
    /// `store`: into the image store, with all of its content.
    pub store: bool,
    /// `name-canonical`: also as `name@digest`.
    pub name_canonical: bool,
    /// `dangling-name-prefix`: also as `prefix@digest`.
    pub dangling_prefix: Option<String>,
    /// `danging-name-empty-only` (BuildKit spells it so): that only if there is no name.
    pub dangling_empty_only: bool,
    /// `unsafe-internal-store-allow-incomplete`: for BuildKit's tests.
    pub store_allow_incomplete: bool,
}

/// `oci` or `docker`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveExporter {
    /// `docker`: the archive can be loaded by old engines; holds one image.
    pub docker: bool,
    /// What all image exporters have.
    pub image: ImageOptions,
    /// `tar`: one archive; otherwise blobs into a content store of the client.
    pub tar: bool,
}

/// `local` or `tar`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilesExporter {
    /// `tar`: one archive instead of single files.
    pub tar: bool,
    /// Time of all files.
    pub epoch: Epoch,
    /// `attestation-prefix`: of the names of attestations.
    pub attestation_prefix: String,
    /// `platform-split`: a directory for each platform; only if there are several, if not said.
    pub platform_split: Option<bool>,
    /// `mode=delete`: the client removes files that are not in the result.
    pub delete_extra: bool,
}

/// What all image exporters have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// `name`: names with commas between them, or `*` for what the front end says.
    pub name: String,
    /// `oci-mediatypes`; the exporter's choice if not said.
    pub oci_mediatypes: Option<bool>,
    /// `oci-artifact`: attestations as artifacts; the exporter's choice if not said.
    pub oci_artifact: Option<bool>,
    /// `attestation-inline`: attestations that are only inline are exported too.
    pub inline_attestations: bool,
    /// `prefer-nondist-layers`: foreign layers stay so.
    pub prefer_nondist_layers: bool,
    /// `source-date-epoch`.
    pub epoch: Epoch,
    /// `compression`, `compression-level`, `force-compression`.
    pub compression: Compression,
    /// `rewrite-timestamp`: no file of new layers is newer than the epoch.
    pub rewrite_timestamp: bool,
    /// `annotation…`.
    pub annotations: Annotations,
    /// Attributes that no exporter knows: metadata of the result.
    pub metadata: BTreeMap<String, String>,
}

impl ImageOptions {
    /// The names, as written; none for `*`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let given = !self.name.is_empty() && self.name != "*";
        self.name.split(',').filter(move |_| given)
    }
}

/// `source-date-epoch`: no time of the result is later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Epoch {
    /// What the front end says.
    #[default]
    Unset,
    /// Not even that.
    Off,
    /// Seconds since 1970.
    At(i64),
}

/// Why an exporter is refused. With its sources it is BuildKit's sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExporterError {
    /// No such exporter.
    #[error("exporter {0:?} could not be found")]
    Unknown(String),
    /// No truth value.
    #[error("non-bool value specified for {key}")]
    Bool {
        /// Attribute.
        key: String,
        /// Why.
        #[source]
        source: ValueError,
    },
    /// No truth value, in the words of the `local` exporter.
    #[error("non-bool value for {key}: {value}")]
    FilesBool {
        /// Attribute.
        key: String,
        /// As written.
        value: String,
        /// Why.
        #[source]
        source: ValueError,
    },
    /// No number.
    // BuildKit says the cause twice.
    #[error("invalid source-date-epoch: {source}")]
    Epoch {
        /// Why.
        #[source]
        source: ValueError,
    },
    /// Compression.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// An annotation of what cannot be annotated.
    #[error("unrecognized annotation type {0}")]
    AnnotationKind(String),
    /// An annotation for what is no platform.
    #[error(transparent)]
    AnnotationPlatform(#[from] PlatformError),
    /// Compression that Docker's media types have no name for.
    #[error("exporter option \"compression={0}\" conflicts with \"oci-mediatypes=false\"")]
    CompressionNeedsOci(&'static str),
    /// Artifacts that Docker's media types have no name for.
    #[error("exporter option \"oci-artifact=true\" conflicts with \"oci-mediatypes=false\"")]
    ArtifactNeedsOci,
    /// No mode.
    #[error("invalid local exporter mode {0:?}")]
    Mode(String),
}

impl ExporterSpec {
    /// Reads one exporter.
    ///
    /// # Errors
    /// [`ExporterError`].
    pub fn parse(exporter: &api::Exporter) -> Result<Self, ExporterError> {
        let attrs: BTreeMap<String, String> = exporter
            .attrs
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        match exporter.r#type.as_str() {
            "image" => image(attrs).map(Self::Image),
            "oci" => archive(attrs, false).map(Self::Archive),
            "docker" => archive(attrs, true).map(Self::Archive),
            "local" => files(attrs, false).map(Self::Files),
            "tar" => files(attrs, true).map(Self::Files),
            other => Err(ExporterError::Unknown(other.to_owned())),
        }
    }
}

fn boolean(key: &str, value: &str) -> Result<bool, ExporterError> {
    go::boolean(value).map_err(|source| ExporterError::Bool {
        key: key.to_owned(),
        source,
    })
}

/// An attribute without a value is true.
fn flag(key: &str, value: &str) -> Result<bool, ExporterError> {
    if value.is_empty() {
        return Ok(true);
    }
    boolean(key, value)
}

fn image(attrs: BTreeMap<String, String>) -> Result<ImageExporter, ExporterError> {
    let (options, rest) = image_options(attrs, true)?;
    let mut exporter = ImageExporter {
        image: options,
        push: false,
        push_by_digest: false,
        insecure: false,
        unpack: false,
        store: true,
        name_canonical: false,
        dangling_prefix: None,
        dangling_empty_only: false,
        store_allow_incomplete: false,
    };
    for (key, value) in rest {
        let flag = || flag(&key, &value);
        match key.as_str() {
            "push" => exporter.push = flag()?,
            "push-by-digest" => exporter.push_by_digest = flag()?,
            "registry.insecure" => exporter.insecure = flag()?,
            "unpack" => exporter.unpack = flag()?,
            "store" => exporter.store = flag()?,
            "name-canonical" => exporter.name_canonical = flag()?,
            "danging-name-empty-only" => exporter.dangling_empty_only = flag()?,
            "unsafe-internal-store-allow-incomplete" => exporter.store_allow_incomplete = flag()?,
            "dangling-name-prefix" => exporter.dangling_prefix = Some(value),
            _ => {
                exporter.image.metadata.insert(key, value);
            }
        }
    }
    Ok(exporter)
}

fn archive(attrs: BTreeMap<String, String>, docker: bool) -> Result<ArchiveExporter, ExporterError> {
    let (mut image, mut rest) = image_options(attrs, false)?;
    let tar = rest.remove("tar").map_or(Ok(true), |value| flag("tar", &value))?;
    image.metadata = rest;
    Ok(ArchiveExporter { docker, image, tar })
}

/// The options, and the attributes that are none of them.
fn image_options(
    attrs: BTreeMap<String, String>,
    inline_attestations: bool,
) -> Result<(ImageOptions, BTreeMap<String, String>), ExporterError> {
    let mut options = ImageOptions {
        inline_attestations,
        ..ImageOptions::default()
    };
    let mut rest = BTreeMap::new();
    for (key, value) in attrs {
        if !annotation(&mut options.annotations, &key, &value)? {
            rest.insert(key, value);
        }
    }
    options.epoch = epoch(&mut rest)?;
    options.compression = Compression::parse(&rest)?;
    let mut left = BTreeMap::new();
    for (key, value) in rest {
        let boolean = || boolean(&key, &value);
        match key.as_str() {
            "name" => options.name = value,
            "oci-mediatypes" => options.oci_mediatypes = Some(boolean()?),
            "oci-artifact" => options.oci_artifact = Some(boolean()?),
            "attestation-inline" => options.inline_attestations = boolean()?,
            "prefer-nondist-layers" => options.prefer_nondist_layers = boolean()?,
            "rewrite-timestamp" => options.rewrite_timestamp = boolean()?,
            "compression" | "compression-level" | "force-compression" => {}
            _ => {
                left.insert(key, value);
            }
        }
    }
    if options.oci_mediatypes == Some(false) {
        if options.compression.kind == CompressionKind::EStargz {
            return Err(ExporterError::CompressionNeedsOci("estargz"));
        }
        if options.oci_artifact == Some(true) {
            return Err(ExporterError::ArtifactNeedsOci);
        }
    }
    Ok((options, left))
}

fn epoch(attrs: &mut BTreeMap<String, String>) -> Result<Epoch, ExporterError> {
    match attrs.remove("source-date-epoch").as_deref() {
        None => Ok(Epoch::Unset),
        Some("") => Ok(Epoch::Off),
        Some(text) => match go::int(text) {
            Ok(seconds) => Ok(Epoch::At(seconds)),
            Err(source) => Err(ExporterError::Epoch { source }),
        },
    }
}

fn files(mut attrs: BTreeMap<String, String>, tar: bool) -> Result<FilesExporter, ExporterError> {
    let epoch = epoch(&mut attrs)?;
    let mode = attrs.remove("mode").unwrap_or_default();
    let split = attrs.remove("platform-split");
    let split = split.map(|value| {
        go::boolean(&value).map_err(|source| ExporterError::FilesBool {
            key: "platform-split".to_owned(),
            value,
            source,
        })
    });
    Ok(FilesExporter {
        tar,
        epoch,
        attestation_prefix: attrs.remove("attestation-prefix").unwrap_or_default(),
        platform_split: split.transpose()?,
        delete_extra: match mode.trim().to_lowercase().as_str() {
            "" | "copy" => false,
            "delete" => true,
            _ => return Err(ExporterError::Mode(mode)),
        },
    })
}

#[cfg(test)]
mod tests;
