//! Manifests and indexes: reading those others wrote, strictly, and writing ours, byte for byte as Go does.
//!
//! A document is an index or a manifest, never both: what could be read as either, or means one thing by its own
//! `mediaType` and another by the header it came with, is refused (GHSA-mc8v-mgrf-8f4m, CVE-2021-41190). Pulled
//! documents are kept as bytes; only documents made here are written.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::descriptor::null_is_default;
use crate::media_type::{essence, is_index, is_manifest, is_schema1};
use crate::strict_json::{self, StrictJsonError, fold};
use crate::{Descriptor, Platform, go_json};

/// Largest manifest or index read, in bytes (registries and containerd use the same 4 MiB).
pub const DOCUMENT_BYTES_MAX: usize = 4 << 20;
/// Most layers of one manifest; overlay mounts end at 500, and no layer count above is an image.
pub(crate) const LAYERS_MAX: usize = 4096;
/// Most entries of one index.
pub const MANIFESTS_MAX: usize = 4096;
/// How deep indexes may nest before a manifest must come: an index in an index in an index in an index.
pub const INDEX_DEPTH_MAX: usize = 4;

/// An image manifest (OCI image-spec, manifest.md). JSON fields are in Go's struct order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always 2.
    #[serde(rename = "schemaVersion")]
    pub schema_version: u32,
    /// Type of this document; may be absent in OCI manifests.
    #[serde(rename = "mediaType", default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Type of the artifact, if it is not an image.
    #[serde(rename = "artifactType", default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, bottom first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
    /// The manifest this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free metadata.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Fields this program does not know.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// An index or manifest list (OCI image-spec, image-index.md). JSON fields are in Go's struct order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Always 2.
    #[serde(rename = "schemaVersion")]
    pub schema_version: u32,
    /// Type of this document; may be absent in OCI indexes.
    #[serde(rename = "mediaType", default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Type of the artifact, if these are not images.
    #[serde(rename = "artifactType", default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests, in the author's order.
    #[serde(default, deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    /// The manifest this index is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free metadata.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Fields this program does not know.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// What [`parse_document`] found.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// One image.
    Manifest(Box<Manifest>),
    /// Several manifests to choose from.
    Index(Box<Index>),
}

/// Why a manifest or index is refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Larger than [`DOCUMENT_BYTES_MAX`].
    #[error("document has {size} bytes, at most {DOCUMENT_BYTES_MAX} are read")]
    TooLarge {
        /// Size in bytes.
        size: usize,
    },
    /// Not JSON, or JSON that can be read in two ways.
    #[error("document is refused")]
    Json(#[from] StrictJsonError),
    /// A field has the wrong type or value, or is missing.
    #[error("{kind} is malformed")]
    Malformed {
        /// `manifest` or `index`.
        kind: &'static str,
        /// Which field.
        source: serde_json::Error,
    },
    /// The long-dead first format of Docker's.
    #[error(
        "this is a Docker schema 1 manifest, which is not supported; push the image again with a current tool"
    )]
    Schema1,
    /// Another schema than 2.
    #[error("schemaVersion is {0}, only 2 is read")]
    SchemaVersion(u64),
    /// Fields of both kinds of document.
    #[error("document has {0:?} and {1:?}: it can be read as a manifest or as an index")]
    Ambiguous(&'static str, &'static str),
    /// The document says what it is, and the header it came with says otherwise.
    #[error("document says it is {inner:?}, but was served as {outer:?}")]
    MediaTypeMismatch {
        /// The document's `mediaType`.
        inner: String,
        /// The type it came with.
        outer: String,
    },
    /// The type says manifest and the fields say index, or the reverse.
    #[error("{media_type:?} must not have {field:?}")]
    WrongField {
        /// The type.
        media_type: String,
        /// The field.
        field: &'static str,
    },
    /// Neither the document nor the header names its type.
    #[error("document does not say what it is: no mediaType, no Content-Type")]
    NoMediaType,
    /// Not a manifest or index.
    #[error("{0:?} is not a manifest or an index")]
    UnknownMediaType(String),
    /// Too many layers or manifests.
    #[error("document has {found} {what}, at most {max} are read")]
    TooMany {
        /// `layers` or `manifests`.
        what: &'static str,
        /// How many.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// A key that Go's decoder would take for a field and others would not.
    #[error("key {0:?} is a known field in another case")]
    FieldCase(String),
}

/// Reads a manifest or index that came with `content_type` (a `Content-Type` header or the media type of the
/// descriptor that pointed here; parameters after `;` are ignored).
///
/// # Errors
/// [`DocumentError`]: see its variants.
pub fn parse_document(bytes: &[u8], content_type: Option<&str>) -> Result<Document, DocumentError> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(DocumentError::TooLarge { size: bytes.len() });
    }
    let outer = content_type.map(essence).filter(|t| !is_generic(t));
    if outer.as_deref().is_some_and(is_schema1) {
        return Err(DocumentError::Schema1);
    }
    strict_json::check(bytes)?;
    let shape: Shape = from_slice(bytes, "document")?;
    let media_type = shape.media_type(outer)?;
    if is_index(&media_type) {
        let mut index: Index = from_slice(bytes, "index")?;
        limit("manifests", index.manifests.len(), MANIFESTS_MAX)?;
        check_case(&index.extra, INDEX_FIELDS)?;
        for entry in index.manifests.iter_mut().chain(&mut index.subject) {
            check_descriptor(entry)?;
        }
        media_type.clone_into(&mut index.media_type);
        Ok(Document::Index(Box::new(index)))
    } else if is_manifest(&media_type) {
        let mut manifest: Manifest = from_slice(bytes, "manifest")?;
        limit("layers", manifest.layers.len(), LAYERS_MAX)?;
        check_case(&manifest.extra, MANIFEST_FIELDS)?;
        let entries = manifest.layers.iter_mut().chain(&mut manifest.subject);
        for entry in entries.chain(std::iter::once(&mut manifest.config)) {
            check_descriptor(entry)?;
        }
        media_type.clone_into(&mut manifest.media_type);
        Ok(Document::Manifest(Box::new(manifest)))
    } else {
        Err(DocumentError::UnknownMediaType(media_type))
    }
}

/// The fields that decide what a document is.
#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u64>,
    #[serde(rename = "mediaType", default)]
    media_type: String,
    manifests: Option<Value>,
    layers: Option<Value>,
    config: Option<Value>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<Value>,
}

impl Shape {
    /// The one media type that the document and `outer` agree on, with the fields to match.
    fn media_type(&self, outer: Option<String>) -> Result<String, DocumentError> {
        match self.schema_version {
            Some(2) => {}
            Some(1) => return Err(DocumentError::Schema1),
            other => return Err(DocumentError::SchemaVersion(other.unwrap_or(0))),
        }
        if self.fs_layers.is_some() || is_schema1(&self.media_type) {
            return Err(DocumentError::Schema1);
        }
        for (name, field) in [("layers", &self.layers), ("config", &self.config)] {
            if field.is_some() && self.manifests.is_some() {
                return Err(DocumentError::Ambiguous("manifests", name));
            }
        }
        let media_type = match outer {
            Some(outer) if self.media_type.is_empty() || self.media_type == outer => outer,
            Some(outer) => {
                return Err(DocumentError::MediaTypeMismatch {
                    inner: self.media_type.clone(),
                    outer,
                });
            }
            None if self.media_type.is_empty() => return Err(DocumentError::NoMediaType),
            None => self.media_type.clone(),
        };
        let wrong = |field| {
            Err(DocumentError::WrongField {
                media_type: media_type.clone(),
                field,
            })
        };
        if is_manifest(&media_type) && self.manifests.is_some() {
            return wrong("manifests");
        }
        if is_index(&media_type) && self.layers.is_some() {
            return wrong("layers");
        }
        if is_index(&media_type) && self.config.is_some() {
            return wrong("config");
        }
        Ok(media_type)
    }
}

impl Document {
    /// The document's media type.
    #[must_use]
    pub fn media_type(&self) -> &str {
        match self {
            Self::Manifest(manifest) => &manifest.media_type,
            Self::Index(index) => &index.media_type,
        }
    }
}

impl Manifest {
    /// A manifest without annotations.
    #[must_use]
    pub fn new(media_type: &str, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type.to_owned(),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// The bytes BuildKit writes for it (`exporter/containerimage/writer.go`: indented by two).
    ///
    /// # Panics
    /// Never: every part of a manifest is JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        go_json::to_vec_indented(self).expect("a manifest is JSON")
    }
}

impl Index {
    /// An index without annotations.
    #[must_use]
    pub fn new(media_type: &str, manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type.to_owned(),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// The bytes BuildKit writes for it.
    ///
    /// # Panics
    /// Never: every part of an index is JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        go_json::to_vec_indented(self).expect("an index is JSON")
    }

    /// The entry that runs best on `platform`, else the first that names no platform (containerd's
    /// `images.Manifest`; the caller then compares the config's platform). Attestations are no candidates.
    #[must_use]
    pub fn choose(&self, platform: &Platform) -> Option<&Descriptor> {
        let images = || self.manifests.iter().filter(|entry| !entry.is_attestation());
        match platform.choose(images().map(|entry| entry.platform.as_ref())) {
            Some(at) => images().nth(at),
            None => images().find(|entry| entry.platform.is_none()),
        }
    }
}

/// Types that servers send when they do not know; the document's own `mediaType` then decides alone.
fn is_generic(media_type: &str) -> bool {
    matches!(
        media_type,
        "" | "application/json" | "application/octet-stream" | "text/plain"
    )
}

fn from_slice<T: DeserializeOwned>(bytes: &[u8], kind: &'static str) -> Result<T, DocumentError> {
    serde_json::from_slice(bytes).map_err(|source| DocumentError::Malformed { kind, source })
}

fn limit(what: &'static str, found: usize, max: usize) -> Result<(), DocumentError> {
    if found > max {
        Err(DocumentError::TooMany { what, found, max })
    } else {
        Ok(())
    }
}

fn check_descriptor(descriptor: &mut Descriptor) -> Result<(), DocumentError> {
    check_case(&descriptor.extra, Descriptor::FIELDS)?;
    descriptor.extra.remove("data");
    Ok(())
}

/// Refuses keys that Go's decoder matches with one of `fields` though they are written in another case.
pub(crate) fn check_case(extra: &BTreeMap<String, Value>, fields: &[&str]) -> Result<(), DocumentError> {
    for key in extra.keys() {
        let folded = fold(key);
        if fields.iter().any(|field| fold(field) == folded && field != key) {
            return Err(DocumentError::FieldCase(key.clone()));
        }
    }
    Ok(())
}

/// Every field name of either document, so that neither can hide as an unknown field of the other.
const MANIFEST_FIELDS: &[&str] = &[
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "fsLayers",
];
const INDEX_FIELDS: &[&str] = MANIFEST_FIELDS;

#[cfg(test)]
mod tests;
