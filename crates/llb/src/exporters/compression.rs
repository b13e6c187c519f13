//! Compression of layers (`util/compression/attrs.go`).

use std::collections::BTreeMap;

use crate::go::{self, ValueError};

/// How layers are compressed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compression {
    /// By what.
    pub kind: CompressionKind,
    /// Layers that exist are compressed anew too.
    pub force: bool,
    /// The codec's own if absent. Not checked: the codec takes the nearest it has.
    pub level: Option<i64>,
}

/// What layers are compressed by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CompressionKind {
    /// Nothing.
    Uncompressed,
    /// gzip.
    #[default]
    Gzip,
    /// gzip that can be read in parts. Needs OCI media types.
    EStargz,
    /// zstd.
    Zstd,
}

/// Why compression attributes are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// No such compression.
    #[error("unsupported compression type {0}")]
    Kind(String),
    /// No truth value.
    #[error("non-bool value {value} specified for force-compression")]
    Force {
        /// As written.
        value: String,
        /// Why.
        #[source]
        source: ValueError,
    },
    /// No number.
    #[error("non-integer value {value} specified for compression-level")]
    Level {
        /// As written.
        value: String,
        /// Why.
        #[source]
        source: ValueError,
    },
}

impl Compression {
    pub(crate) fn parse(attrs: &BTreeMap<String, String>) -> Result<Self, CompressionError> {
        let kind = match attrs.get("compression").map(String::as_str) {
            None | Some("gzip") => CompressionKind::Gzip,
            Some("uncompressed") => CompressionKind::Uncompressed,
            Some("estargz") => CompressionKind::EStargz,
            Some("zstd") => CompressionKind::Zstd,
            Some(other) => return Err(CompressionError::Kind(other.to_owned())),
        };
        let force = match attrs.get("force-compression").map(String::as_str) {
            None => false,
            Some("") => true,
            Some(value) => go::boolean(value).map_err(|source| CompressionError::Force {
                value: value.to_owned(),
                source,
            })?,
        };
        let level = attrs.get("compression-level").map(|value| {
            go::int(value).map_err(|source| CompressionError::Level {
                value: value.clone(),
                source,
            })
        });
        Ok(Self {
            kind,
            force,
            level: level.transpose()?,
        })
    }
}
