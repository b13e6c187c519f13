//! Attributes of `attest:provenance` (`solver/llbsolver/provenance.go`, `NewProvenanceCreator`; `proc/provenance.go`).

use std::collections::BTreeMap;

use rbuild_llb::attrs::Provenance as Asked;
pub use rbuild_llb::attrs::SlsaVersion;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Neither build arguments nor labels, secrets nor the definition.
    Min,
    /// Everything.
    #[default]
    Max,
}

/// Attributes of `attest:provenance`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `version`.
    pub version: SlsaVersion,
    /// `mode`.
    pub mode: Mode,
    /// `reproducible`.
    pub reproducible: bool,
    /// `builder-id`.
    pub builder_id: String,
    /// `complete-materials`: a result whose materials are not all known is an error.
    pub complete_materials: bool,
    /// `capture-usage`: how busy the machine was is told.
    pub capture_usage: bool,
    /// `inline-only`: for exporters that can put it beside the image, and no others.
    pub inline_only: bool,
    /// `filename`: what exporters of files call it.
    pub filename: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: SlsaVersion::default(),
            mode: Mode::default(),
            reproducible: false,
            builder_id: String::new(),
            complete_materials: false,
            capture_usage: false,
            inline_only: false,
            filename: "provenance.json".to_owned(),
        }
    }
}

/// Why attributes are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// No such mode.
    #[error("invalid mode {0:?}")]
    Mode(String),
    /// Not a bool.
    #[error("failed to parse {key} flag {value:?}: strconv.ParseBool: parsing {value:?}: invalid syntax")]
    Flag {
        /// Attribute.
        key: &'static str,
        /// Value.
        value: String,
    },
}

impl Options {
    /// Reads what was asked for.
    ///
    /// # Errors
    /// [`OptionsError`].
    pub fn parse(asked: &Asked) -> Result<Self, OptionsError> {
        let attrs = &asked.parameters;
        let default = Self::default();
        Ok(Self {
            version: asked.version,
            mode: match attrs.get("mode").map(String::as_str) {
                None | Some("max" | "full") => Mode::Max,
                Some("min") => Mode::Min,
                Some(other) => return Err(OptionsError::Mode(other.to_owned())),
            },
            reproducible: flag(attrs, "reproducible")?,
            builder_id: attrs.get("builder-id").cloned().unwrap_or_default(),
            complete_materials: flag(attrs, "complete-materials")?,
            // As BuildKit: what is no bool says nothing.
            capture_usage: flag(attrs, "capture-usage").unwrap_or(false),
            inline_only: flag(attrs, "inline-only").unwrap_or(false),
            filename: attrs.get("filename").cloned().unwrap_or(default.filename),
        })
    }
}

fn flag(attrs: &BTreeMap<String, String>, key: &'static str) -> Result<bool, OptionsError> {
    let Some(value) = attrs.get(key) else {
        return Ok(false);
    };
    rbuild_dockerfile::csv::boolean(value).ok_or_else(|| OptionsError::Flag {
        key,
        value: value.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(key: &str, value: &str) -> Result<Options, OptionsError> {
        Options::parse(&Asked {
            version: SlsaVersion::V02,
            parameters: BTreeMap::from([(key.to_owned(), value.to_owned())]),
        })
    }

    #[test]
    fn attributes_are_judged() {
        assert_eq!(parse("mode", "full").unwrap().mode, Mode::Max);
        assert_eq!(parse("mode", "min").unwrap().mode, Mode::Min);
        assert_eq!(parse("mode", "x").unwrap_err().to_string(), "invalid mode \"x\"");
        assert!(parse("reproducible", "true").unwrap().reproducible);
        assert_eq!(
            parse("reproducible", "maybe").unwrap_err().to_string(),
            "failed to parse reproducible flag \"maybe\": strconv.ParseBool: parsing \"maybe\": invalid syntax"
        );
        assert!(parse("inline-only", "1").unwrap().inline_only);
        assert!(!parse("inline-only", "maybe").unwrap().inline_only);
        assert!(parse("capture-usage", "true").unwrap().capture_usage);
        assert!(!parse("capture-usage", "maybe").unwrap().capture_usage);
        let named = parse("filename", "x.json").unwrap();
        assert_eq!(
            (named.filename.as_str(), named.version),
            ("x.json", SlsaVersion::V02)
        );
        assert_eq!(parse("a", "b").unwrap().filename, "provenance.json");
    }
}
