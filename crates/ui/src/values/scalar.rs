//! Bools, durations and platforms as Go's flag packages read them.

pub use rbuild_oci::parse_duration;

/// `strconv.ParseBool`: `1 t T true TRUE True` and `0 f F false FALSE False`, nothing else.
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Why a text is not a list of platforms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {0:?}: expected os[/arch[/variant]]")]
pub struct PlatformError(pub String);

/// Reads `--platform`: comma lists of `os[/arch[/variant]]`; `local` becomes `own`. Names are not judged here.
///
/// # Errors
/// [`PlatformError`] if a part has another shape.
pub fn parse_platforms(values: &[String], own: &str) -> Result<Vec<String>, PlatformError> {
    let mut platforms: Vec<String> = Vec::new();
    for text in values.iter().flat_map(|list| list.split(',')).map(str::trim) {
        let platform = match text {
            "" => continue,
            "local" => own,
            text if is_platform(text) => text,
            text => return Err(PlatformError(text.to_owned())),
        };
        if !platforms.iter().any(|known| known == platform) {
            platforms.push(platform.to_owned());
        }
    }
    Ok(platforms)
}

/// The grammar of containerd's `platforms` package, without `os(version)`.
fn is_platform(text: &str) -> bool {
    text.split('/').count() <= 3
        && text.split('/').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bools() {
        for text in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(parse_bool(text), Some(true));
        }
        for text in ["0", "f", "F", "false", "FALSE", "False"] {
            assert_eq!(parse_bool(text), Some(false));
        }
        for text in ["", "yes", "tRUE", "2", " true"] {
            assert_eq!(parse_bool(text), None);
        }
    }

    #[test]
    fn platforms() {
        let read = |values: &[&str]| {
            parse_platforms(
                &values.iter().map(|&v| v.to_owned()).collect::<Vec<_>>(),
                "linux/amd64",
            )
        };
        assert_eq!(
            read(&["linux/amd64,linux/arm64/v8", "local"]).unwrap(),
            ["linux/amd64", "linux/arm64/v8"]
        );
        assert_eq!(read(&["local"]).unwrap(), ["linux/amd64"]);
        assert_eq!(read(&["arm64", ""]).unwrap(), ["arm64"]);
        for text in ["linux/", "a/b/c/d", "linux/amd 64", "x\ny"] {
            assert!(read(&[text]).is_err(), "{text}");
        }
    }
}
