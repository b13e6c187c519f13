//! The grammar of `--output` (`buildx/util/buildflags/export.go`): a bare word is a directory, `-` is a tar on
//! standard output, everything else is `type=…` with attributes.

use std::collections::BTreeMap;

use super::csv::{self, CsvError};

/// One `--output`, not yet judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportEntry {
    /// `local`, `tar`, `oci`, `docker`, `image`, `registry`, `cacheonly`, or something unknown.
    pub kind: String,
    /// `dest`.
    pub dest: Option<String>,
    /// Every other key.
    pub attrs: BTreeMap<String, String>,
}

/// Why a text is not an output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The text is not a record.
    #[error("invalid output {text:?}: {error}")]
    Csv {
        /// Text.
        text: String,
        /// What is wrong.
        error: CsvError,
    },
    /// A field has no value.
    #[error("invalid value {0}")]
    NoValue(String),
    /// There is no `type`.
    #[error("type is required for output")]
    NoType,
    /// An attribute needs a bool.
    #[error("invalid value {value:?} for output attribute {key}: not a bool")]
    NotBool {
        /// Attribute.
        key: String,
        /// Value found.
        value: String,
    },
}

impl ExportEntry {
    /// Reads one `--output`.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn parse(text: &str) -> Result<Self, ExportError> {
        let fields = csv::fields(text).map_err(|error| ExportError::Csv {
            text: text.to_owned(),
            error,
        })?;
        if let [only] = fields.as_slice()
            && only == text
            && !text.starts_with("type=")
        {
            let kind = if text == "-" { "tar" } else { "local" };
            return Ok(Self {
                kind: kind.to_owned(),
                dest: Some(text.to_owned()),
                attrs: BTreeMap::new(),
            });
        }
        let mut kind = String::new();
        let mut dest = None;
        let mut attrs = BTreeMap::new();
        for field in fields {
            let Some((key, value)) = field.split_once('=') else {
                return Err(ExportError::NoValue(field));
            };
            match key.trim().to_lowercase().as_str() {
                "type" => value.clone_into(&mut kind),
                "dest" => dest = Some(value.to_owned()).filter(|value| !value.is_empty()),
                key => {
                    attrs.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        if kind.is_empty() {
            return Err(ExportError::NoType);
        }
        Ok(Self { kind, dest, attrs })
    }

    /// Takes a bool attribute out: `None` if it is absent, true if its value is empty (BuildKit's rule for some exporter
    /// attributes, `exporter/containerimage/export.go`, `Resolve`).
    ///
    /// # Errors
    /// [`ExportError::NotBool`].
    pub fn take_bool(&mut self, key: &str) -> Result<Option<bool>, ExportError> {
        match self.attrs.get(key) {
            Some(value) if value.is_empty() => {
                self.attrs.remove(key);
                Ok(Some(true))
            }
            _ => self.take_written_bool(key),
        }
    }

    /// The same for an attribute whose value cannot be left out (`exporter/containerimage/opts.go`, `parseBool`).
    ///
    /// # Errors
    /// [`ExportError::NotBool`].
    pub fn take_written_bool(&mut self, key: &str) -> Result<Option<bool>, ExportError> {
        let Some(value) = self.attrs.remove(key) else {
            return Ok(None);
        };
        match super::scalar::parse_bool(&value) {
            Some(value) => Ok(Some(value)),
            None => Err(ExportError::NotBool {
                key: key.to_owned(),
                value,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, dest: Option<&str>, attrs: &[(&str, &str)]) -> ExportEntry {
        ExportEntry {
            kind: kind.to_owned(),
            dest: dest.map(str::to_owned),
            attrs: attrs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
        }
    }

    #[test]
    fn outputs() {
        for (text, expected) in [
            ("out", entry("local", Some("out"), &[])),
            ("out=x", entry("local", Some("out=x"), &[])),
            ("-", entry("tar", Some("-"), &[])),
            ("type=local,dest=out", entry("local", Some("out"), &[])),
            ("Type=tar,DEST=-", entry("tar", Some("-"), &[])),
            ("type=oci,dest=", entry("oci", None, &[])),
            (
                "type=image,\"name=a,b\",push=true",
                entry("image", None, &[("name", "a,b"), ("push", "true")]),
            ),
            (
                "type=registry, Compression=zstd",
                entry("registry", None, &[("compression", "zstd")]),
            ),
            (
                "type=image,annotation.a=b=c",
                entry("image", None, &[("annotation.a", "b=c")]),
            ),
        ] {
            assert_eq!(ExportEntry::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_an_output() {
        assert_eq!(
            ExportEntry::parse("type=tar,dest"),
            Err(ExportError::NoValue("dest".to_owned()))
        );
        assert_eq!(ExportEntry::parse("dest=x,a=b"), Err(ExportError::NoType));
        assert_eq!(ExportEntry::parse("type="), Err(ExportError::NoType));
        assert!(matches!(
            ExportEntry::parse("type=\"x\""),
            Err(ExportError::Csv { .. })
        ));
    }

    #[test]
    fn bool_attributes() {
        let mut parsed = ExportEntry::parse("type=image,push=,store=F,x=maybe").unwrap();
        assert_eq!(parsed.take_bool("push"), Ok(Some(true)));
        assert_eq!(parsed.take_bool("push"), Ok(None));
        assert_eq!(parsed.take_bool("store"), Ok(Some(false)));
        assert!(parsed.take_bool("x").is_err());
    }
}
