//! Bools, durations and platforms as Go's flag packages read them.

pub use rbuild_dockerfile::csv::boolean as parse_bool;
pub use rbuild_oci::parse_duration;

/// Why a text is not a list of platforms, in the words of BuildKit (`frontend/dockerui/attr.go`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse target platform {text}: {error}")]
pub struct PlatformError {
    /// What was written.
    pub text: String,
    /// What is wrong with it.
    pub error: rbuild_oci::PlatformError,
}

/// Reads `--platform`: comma lists of `os[(version)][/arch[/variant]]`; `local` becomes `own`
/// (`buildx/util/platformutil/parse.go`). They are kept as they are written.
///
/// # Errors
/// [`PlatformError`] for the first that is none; nothing is one too.
pub fn parse_platforms(values: &[String], own: &str) -> Result<Vec<String>, PlatformError> {
    let mut platforms: Vec<String> = Vec::new();
    for text in values.iter().flat_map(|list| list.split(',')) {
        let platform = if text.eq_ignore_ascii_case("local") {
            own
        } else {
            let parsed = rbuild_oci::Platform::parse(text);
            parsed.map_err(|error| PlatformError {
                text: text.to_owned(),
                error,
            })?;
            text
        };
        if !platforms.iter().any(|known| known == platform) {
            platforms.push(platform.to_owned());
        }
    }
    Ok(platforms)
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
        assert_eq!(read(&["LOCAL", "arm64"]).unwrap(), ["linux/amd64", "arm64"]);
        assert_eq!(read(&["windows(10.0)/amd64"]).unwrap(), ["windows(10.0)/amd64"]);
        for text in [
            "",
            "linux/",
            "a/b/c/d",
            "linux/amd 64",
            "x\ny",
            " linux",
            "linux,",
            "nope",
        ] {
            assert!(read(&[text]).is_err(), "{text}");
        }
    }
}
