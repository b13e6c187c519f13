//! Values of a call's metadata. Owns BuildKit's encoding of what a header cannot carry
//! (`session/filesync/filesync.go`, `encodeOpts`), and which text may be a header at all.

use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

/// What cannot be sent as metadata. gRPC's values are printable ASCII; BuildKit refuses others in the same words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A name.
    #[error("{0:?} cannot be sent as metadata")]
    Name(String),
    /// A value.
    #[error("header key {key:?} contains value with non-printable ASCII characters")]
    Value {
        /// Whose.
        key: String,
    },
}

/// Appends `values` under `key`. If one of them is not plain printable ASCII, all are sent with `url.QueryEscape`'s
/// encoding and `<key>-encoded` says so: a client decodes whatever is marked so.
pub(crate) fn put_encoded(
    metadata: &mut MetadataMap,
    key: &'static str,
    values: &[String],
) -> Result<(), HeaderError> {
    let encode = values.iter().any(|value| !is_plain(value));
    for value in values {
        if encode {
            put(metadata, key, &query_escape(value))?;
        } else {
            put(metadata, key, value)?;
        }
    }
    if encode {
        put(metadata, &format!("{key}-encoded"), "1")?;
    }
    Ok(())
}

/// Appends one value.
pub(crate) fn put(metadata: &mut MetadataMap, key: &str, value: &str) -> Result<(), HeaderError> {
    let name: AsciiMetadataKey = key.parse().map_err(|_| HeaderError::Name(key.to_owned()))?;
    let fault = || HeaderError::Value { key: key.to_owned() };
    if !value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Err(fault());
    }
    let value = AsciiMetadataValue::try_from(value).map_err(|_| fault())?;
    metadata.append(name, value);
    Ok(())
}

/// The first value of `key`.
pub(crate) fn first<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key).and_then(|value| value.to_str().ok())
}

/// Printable ASCII without a space at an end, which some implementations trim.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|b| (0x20..0x7f).contains(&b)) && value.trim() == value
}

/// Go's `url.QueryEscape`.
fn query_escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            b' ' => out.push('+'),
            _ => write!(out, "%{byte:02X}").unwrap_or(()),
        }
    }
    out
}

/// Go's `url.QueryUnescape`; `None` if a percent sign is not followed by two hexadecimal digits, or the result is no
/// UTF-8.
pub(crate) fn query_unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_values_go_as_they_are_and_others_all_encoded() {
        let mut metadata = MetadataMap::new();
        put_encoded(&mut metadata, "include-patterns", &["a b%".into(), "!c*".into()]).unwrap();
        let all: Vec<_> = metadata.get_all("include-patterns").iter().collect();
        assert_eq!(all, ["a b%", "!c*"]);
        assert!(metadata.get("include-patterns-encoded").is_none());

        put_encoded(&mut metadata, "followpaths", &["a b%".into(), "ä\n".into()]).unwrap();
        let all: Vec<_> = metadata.get_all("followpaths").iter().collect();
        assert_eq!(all, ["a+b%25", "%C3%A4%0A"]);
        assert_eq!(metadata.get("followpaths-encoded").unwrap(), "1");
    }

    #[test]
    fn what_is_escaped_comes_back() {
        for text in ["", " a ", "ä/ö*?[]!", "%2f+", "\u{0}\u{1f600}"] {
            assert_eq!(query_unescape(&query_escape(text)).as_deref(), Some(text));
        }
        assert_eq!(query_unescape("%2"), None);
        assert_eq!(query_unescape("%zz"), None);
    }
}
