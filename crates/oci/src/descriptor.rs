//! Descriptors: what a blob is, its digest, its size (OCI image-spec, descriptor.md).
//!
//! Refuses sizes that are not a count of bytes. Ignores embedded `data`: content is taken from where its digest is
//! verified, never from the document that names it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{Digest, Platform};

/// A reference to content by digest, as found in indexes and manifests. JSON fields are in Go's struct order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Type of the content.
    #[serde(rename = "mediaType", default)]
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content in bytes, at most `i64::MAX`.
    #[serde(deserialize_with = "size_bytes")]
    pub size: u64,
    /// Other places the content may be fetched from; not used unless the user asks for it.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub urls: Vec<String>,
    /// Free metadata.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// In an index: what the image runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Type of an artifact the descriptor points to.
    #[serde(rename = "artifactType", default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Fields this program does not know, and `data` which it does not use.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Descriptor {
    /// A descriptor with the three fields every one has.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: None,
            extra: BTreeMap::new(),
        }
    }

    /// The descriptor of `bytes`.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::sha256(bytes), bytes.len() as u64)
    }

    /// Names of the fields, for the check against names that differ by case only.
    pub(crate) const FIELDS: &[&str] = &[
        "mediaType",
        "digest",
        "size",
        "urls",
        "annotations",
        "platform",
        "artifactType",
        "data",
    ];
}

/// Go keeps sizes in an `int64`: what does not fit there is refused, and so is a negative size.
fn size_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let size = i64::deserialize(deserializer)?;
    u64::try_from(size).map_err(|_| serde::de::Error::custom(format_args!("size {size} is negative")))
}

/// Go decodes `null` into the empty value.
pub(crate) fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn read(size: &str) -> Result<Descriptor, serde_json::Error> {
        serde_json::from_str(&format!(
            r#"{{"mediaType":"a/b","digest":"{DIGEST}","size":{size}}}"#
        ))
    }

    #[test]
    fn row32_sizes_that_are_no_byte_count_are_refused() {
        for size in [
            "-1",
            "9223372036854775808",
            "18446744073709551616",
            "1.0",
            "1e3",
            "\"1\"",
            "null",
        ] {
            assert!(read(size).is_err(), "{size}");
        }
        assert_eq!(read("0").expect("an empty blob").size, 0);
        assert_eq!(
            read("9223372036854775807").expect("as Go's int64").size,
            i64::MAX.unsigned_abs()
        );
    }

    #[test]
    fn unknown_fields_survive_and_nulls_are_empty() {
        let text = format!(
            r#"{{"mediaType":"a/b","digest":"{DIGEST}","size":1,"annotations":{{"z":"1","a":"2"}},"new":[1]}}"#
        );
        let descriptor: Descriptor = serde_json::from_str(&text).expect("a descriptor");
        assert_eq!(
            serde_json::to_string(&descriptor).expect("json"),
            text.replace(r#"{"z":"1","a":"2"}"#, r#"{"a":"2","z":"1"}"#)
        );
        let null =
            format!(r#"{{"mediaType":"a/b","digest":"{DIGEST}","size":1,"urls":null,"annotations":null}}"#);
        assert!(
            serde_json::from_str::<Descriptor>(&null)
                .expect("nulls")
                .urls
                .is_empty()
        );
    }
}
