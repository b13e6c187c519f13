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
    /// As written, which may be none that the codec has.
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

    /// The level for the codec; `None` is its own. zstd takes the nearest it has, of gzip others than 0 to 9 fail once something
    /// is compressed.
    #[must_use]
    pub fn codec_level(&self) -> Option<i32> {
        /// Go's words for its own level, and for no search at all (`compress/gzip`).
        const DEFAULT: i64 = -1;
        const HUFFMAN_ONLY: i64 = -2;
        let level = self.level?;
        match self.kind {
            CompressionKind::Zstd => i32::try_from(level.clamp(0, 22)).ok(),
            CompressionKind::Uncompressed => None,
            CompressionKind::Gzip | CompressionKind::EStargz => match level {
                DEFAULT => None,
                HUFFMAN_ONLY => Some(1),
                level => Some(i32::try_from(level).unwrap_or(i32::MAX)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_one_that_the_codec_has() {
        use CompressionKind::{EStargz, Gzip, Uncompressed, Zstd};
        for (kind, written, expected) in [
            (Gzip, -1, None),
            (EStargz, -1, None),
            (Gzip, 0, Some(0)),
            (Gzip, -2, Some(1)),
            (Gzip, 9, Some(9)),
            (Gzip, 99, Some(99)),
            (Gzip, i64::MAX, Some(i32::MAX)),
            (Zstd, -1, Some(0)),
            (Zstd, 99, Some(22)),
            (Uncompressed, 5, None),
        ] {
            let compression = Compression {
                kind,
                level: Some(written),
                force: false,
            };
            assert_eq!(compression.codec_level(), expected, "{kind:?} {written}");
        }
        assert_eq!(Compression::default().codec_level(), None);
    }
}
