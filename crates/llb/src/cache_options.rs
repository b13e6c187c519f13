//! Caches to import and export: `CacheOptions` of a solve (`control/control.go`, `cache/remotecache`).

use std::collections::{BTreeMap, BTreeSet};

use bollard_buildkit_proto::moby::buildkit::v1 as api;
use rbuild_oci::{Reference, ReferenceError};

use crate::exporters::{Compression, CompressionError};
use crate::go::{self, ValueError};

/// Kinds of caches that are kept by a service of its own, which reads their attributes itself.
const SERVICES: [&str; 3] = ["gha", "s3", "azblob"];

/// A cache as a client names it. Attributes may be secrets, so debug text has their names only.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CacheOption {
    /// `registry`, `local`, `inline`, `gha`, `s3`, `azblob`.
    pub kind: String,
    /// What the kind needs.
    pub attrs: BTreeMap<String, String>,
}

impl std::fmt::Debug for CacheOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CacheOption({} {:?})", self.kind, self.attrs.keys())
    }
}

impl CacheOption {
    /// A cache in a registry.
    #[must_use]
    pub fn registry(reference: &str) -> Self {
        Self {
            kind: "registry".to_owned(),
            attrs: [("ref".to_owned(), reference.to_owned())].into(),
        }
    }

    /// A JSON list of caches, keys in any case as Go reads them.
    pub(crate) fn list_from_json(text: &str) -> Result<Vec<Self>, serde_json::Error> {
        type Object = serde_json::Map<String, serde_json::Value>;
        let list: Option<Vec<Object>> = serde_json::from_str(text)?;
        let one = |object: Object| {
            let mut option = Self::default();
            for (key, value) in object {
                if key.eq_ignore_ascii_case("type") {
                    option.kind = serde_json::from_value::<Option<String>>(value)?.unwrap_or_default();
                } else if key.eq_ignore_ascii_case("attrs") {
                    option.attrs = serde_json::from_value::<Option<_>>(value)?.unwrap_or_default();
                }
            }
            Ok(option)
        };
        list.unwrap_or_default().into_iter().map(one).collect()
    }
}

impl From<api::CacheOptionsEntry> for CacheOption {
    fn from(entry: api::CacheOptionsEntry) -> Self {
        Self {
            kind: entry.r#type,
            attrs: entry.attrs.into_iter().collect(),
        }
    }
}

/// A cache to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheExport {
    /// Where.
    pub target: CacheTarget,
    /// Results of all steps, not only of what is exported.
    pub mode_max: bool,
    /// A failure does not fail the build.
    pub ignore_error: bool,
}

/// Where a cache is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheTarget {
    /// Into the exported image's config.
    Inline,
    /// Into a registry.
    Registry {
        /// Repository and tag.
        reference: Reference,
        /// Plain HTTP is allowed.
        insecure: bool,
        /// How it is written.
        form: CacheForm,
    },
    /// Into a content store of the client.
    Local {
        /// Directory of the client, which names the store; no path of this machine.
        dest: String,
        /// How it is written.
        form: CacheForm,
    },
    /// Into a service: `gha`, `s3` or `azblob`, with attributes that are the service's.
    Service(CacheOption),
}

/// How a cache is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheForm {
    /// OCI media types instead of Docker's.
    pub oci_mediatypes: bool,
    /// An image manifest instead of an index.
    pub image_manifest: bool,
    /// Of layers.
    pub compression: Compression,
}

/// A cache to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheImport {
    /// From a registry.
    Registry {
        /// Repository and tag.
        reference: Reference,
        /// Plain HTTP is allowed.
        insecure: bool,
    },
    /// From a content store of the client.
    Local {
        /// Directory of the client, which names the store; no path of this machine.
        src: String,
        /// The manifest's digest, as written.
        digest: String,
    },
    /// From a service: `gha`, `s3` or `azblob`, with attributes that are the service's.
    Service(CacheOption),
}

/// Why a cache is refused. With its sources it is BuildKit's sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// No such kind of cache to write.
    #[error("unknown cache exporter: {0:?}")]
    UnknownExporter(String),
    /// No such kind of cache to read.
    #[error("unknown cache importer: {0}")]
    UnknownImporter(String),
    /// One cache is to be written twice.
    #[error("duplicate cache exports [{0}]")]
    Duplicate(String),
    /// A cache to write lacks something.
    #[error("failed to configure {kind} cache exporter")]
    Export {
        /// Kind of cache.
        kind: String,
        /// What.
        #[source]
        source: CacheAttrError,
    },
    /// A cache to read lacks something.
    #[error("failed to configure {kind} cache importer")]
    Import {
        /// Kind of cache.
        kind: String,
        /// What.
        #[source]
        source: CacheAttrError,
    },
}

/// What is wrong with a cache's attributes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheAttrError {
    /// No reference.
    #[error("missing ref")]
    NoRef,
    /// No reference that can be read.
    #[error(transparent)]
    Ref(#[from] ReferenceError),
    /// No truth value.
    #[error("failed to parse {key}")]
    Bool {
        /// Attribute.
        key: &'static str,
        /// Why.
        #[source]
        source: ValueError,
    },
    /// Compression of layers.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// An image manifest that is to be Docker's.
    #[error(
        "invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache format"
    )]
    ImageManifest,
    /// No directory to write to.
    #[error("local cache exporter requires dest")]
    NoDest,
    /// No directory to read from.
    #[error("local cache importer requires src")]
    NoSrc,
    /// Nothing to say what in the directory is meant.
    #[error("local cache importer requires explicit digest")]
    NoDigest,
}

/// Reads all caches to write. Inline is one, however often it is asked for.
///
/// # Errors
/// [`CacheError`].
pub fn cache_exports(options: &[CacheOption]) -> Result<Vec<CacheExport>, CacheError> {
    let mut seen = BTreeSet::new();
    let mut duplicates = BTreeSet::new();
    let mut has_inline = false;
    let mut rest = Vec::new();
    for option in options {
        let inline = option.kind == "inline";
        if inline && has_inline {
            continue;
        }
        has_inline |= inline;
        let reference = option.attrs.get("ref").filter(|text| !text.is_empty());
        let key = match reference {
            Some(reference) if option.kind == "registry" => CacheOption::registry(reference),
            _ => option.clone(),
        };
        if !seen.insert(key) {
            duplicates.insert(option.kind.as_str());
        }
        rest.push(option);
    }
    if !duplicates.is_empty() {
        let kinds: Vec<&str> = duplicates.into_iter().collect();
        return Err(CacheError::Duplicate(kinds.join(" ")));
    }
    rest.into_iter().map(cache_export).collect()
}

fn cache_export(option: &CacheOption) -> Result<CacheExport, CacheError> {
    let attrs = &option.attrs;
    let target = match option.kind.as_str() {
        "inline" => Ok(CacheTarget::Inline),
        "registry" => registry_target(attrs),
        "local" => local_target(attrs),
        kind if SERVICES.contains(&kind) => Ok(CacheTarget::Service(option.clone())),
        _ => return Err(CacheError::UnknownExporter(option.kind.clone())),
    };
    Ok(CacheExport {
        target: target.map_err(|source| CacheError::Export {
            kind: option.kind.clone(),
            source,
        })?,
        // What these two do not understand is the default, as in BuildKit.
        mode_max: attrs.get("mode").is_some_and(|mode| mode == "max"),
        ignore_error: attrs
            .get("ignore-error")
            .is_some_and(|text| go::boolean(text) == Ok(true)),
    })
}

fn registry_target(attrs: &BTreeMap<String, String>) -> Result<CacheTarget, CacheAttrError> {
    let compression = Compression::parse(attrs)?;
    Ok(CacheTarget::Registry {
        reference: reference(attrs)?,
        form: form(attrs, compression)?,
        insecure: boolean(attrs, "registry.insecure")?.unwrap_or(false),
    })
}

fn local_target(attrs: &BTreeMap<String, String>) -> Result<CacheTarget, CacheAttrError> {
    let dest = attrs.get("dest").filter(|dest| !dest.is_empty());
    let dest = dest.ok_or(CacheAttrError::NoDest)?.clone();
    let compression = Compression::parse(attrs)?;
    Ok(CacheTarget::Local {
        dest,
        form: form(attrs, compression)?,
    })
}

fn form(attrs: &BTreeMap<String, String>, compression: Compression) -> Result<CacheForm, CacheAttrError> {
    let oci_mediatypes = boolean(attrs, "oci-mediatypes")?.unwrap_or(true);
    let image_manifest = boolean(attrs, "image-manifest")?.unwrap_or(oci_mediatypes);
    if image_manifest && !oci_mediatypes {
        return Err(CacheAttrError::ImageManifest);
    }
    Ok(CacheForm {
        oci_mediatypes,
        image_manifest,
        compression,
    })
}

/// Reads one cache to read. Each is its own: a build goes on without those that cannot be read.
///
/// # Errors
/// [`CacheError::UnknownImporter`], [`CacheError::Import`].
pub fn cache_import(option: &CacheOption) -> Result<CacheImport, CacheError> {
    let attrs = &option.attrs;
    let found = match option.kind.as_str() {
        "registry" => registry_source(attrs),
        "local" => local_source(attrs),
        kind if SERVICES.contains(&kind) => Ok(CacheImport::Service(option.clone())),
        _ => return Err(CacheError::UnknownImporter(option.kind.clone())),
    };
    found.map_err(|source| CacheError::Import {
        kind: option.kind.clone(),
        source,
    })
}

fn registry_source(attrs: &BTreeMap<String, String>) -> Result<CacheImport, CacheAttrError> {
    Ok(CacheImport::Registry {
        reference: reference(attrs)?,
        insecure: boolean(attrs, "registry.insecure")?.unwrap_or(false),
    })
}

fn local_source(attrs: &BTreeMap<String, String>) -> Result<CacheImport, CacheAttrError> {
    let given = |key: &str| attrs.get(key).filter(|text| !text.is_empty()).cloned();
    let digest = given("digest").ok_or(CacheAttrError::NoDigest)?;
    let src = given("src").ok_or(CacheAttrError::NoSrc)?;
    Ok(CacheImport::Local { src, digest })
}

fn reference(attrs: &BTreeMap<String, String>) -> Result<Reference, CacheAttrError> {
    let text = attrs.get("ref").filter(|text| !text.is_empty());
    Ok(Reference::parse(text.ok_or(CacheAttrError::NoRef)?)?.or_latest())
}

fn boolean(attrs: &BTreeMap<String, String>, key: &'static str) -> Result<Option<bool>, CacheAttrError> {
    let read = |text: &String| go::boolean(text).map_err(|source| CacheAttrError::Bool { key, source });
    attrs.get(key).map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sentence;

    fn option(kind: &str, attrs: &[(&str, &str)]) -> CacheOption {
        CacheOption {
            kind: kind.into(),
            attrs: attrs
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
        }
    }

    fn export(kind: &str, attrs: &[(&str, &str)]) -> Result<CacheExport, String> {
        let exports = cache_exports(&[option(kind, attrs)]).map_err(|error| sentence(&error))?;
        Ok(exports.into_iter().next().unwrap())
    }

    #[test]
    fn a_registry_cache_has_defaults() {
        let read = export(
            "registry",
            &[("ref", "a/b"), ("mode", "max"), ("ignore-error", "1")],
        )
        .unwrap();
        assert!(read.mode_max && read.ignore_error);
        let CacheTarget::Registry {
            reference,
            insecure,
            form,
        } = read.target
        else {
            panic!("{read:?}");
        };
        assert_eq!(reference.to_string(), "docker.io/a/b:latest");
        assert!(!insecure && form.oci_mediatypes && form.image_manifest);
        let docker = export(
            "registry",
            &[("ref", "a/b"), ("oci-mediatypes", "0"), ("mode", "x")],
        )
        .unwrap();
        assert!(!docker.mode_max, "an unknown mode is the default");
        assert!(matches!(
            docker.target,
            CacheTarget::Registry {
                form: CacheForm {
                    image_manifest: false,
                    ..
                },
                ..
            }
        ));
    }

    #[test]
    fn errors_are_buildkits_sentences() {
        let error = |kind: &str, attrs: &[(&str, &str)]| export(kind, attrs).unwrap_err();
        assert_eq!(error("x", &[]), "unknown cache exporter: \"x\"");
        assert_eq!(
            error("registry", &[]),
            "failed to configure registry cache exporter: missing ref"
        );
        assert_eq!(
            error("registry", &[("ref", "a"), ("registry.insecure", "")]),
            "failed to configure registry cache exporter: failed to parse registry.insecure: \
             strconv.ParseBool: parsing \"\": invalid syntax"
        );
        assert_eq!(
            error("local", &[("dest", "")]),
            "failed to configure local cache exporter: local cache exporter requires dest"
        );
        assert_eq!(
            error("local", &[("dest", "d"), ("compression", "lz4")]),
            "failed to configure local cache exporter: unsupported compression type lz4"
        );
        assert_eq!(
            error(
                "local",
                &[("dest", "d"), ("oci-mediatypes", "0"), ("image-manifest", "1")]
            ),
            "failed to configure local cache exporter: invalid configuration for remote cache, \
             OCI mediatypes are required for image-manifest cache format"
        );
        let import =
            |kind: &str, attrs: &[(&str, &str)]| sentence(&cache_import(&option(kind, attrs)).unwrap_err());
        assert_eq!(import("x", &[]), "unknown cache importer: x");
        assert_eq!(
            import("local", &[("src", "d")]),
            "failed to configure local cache importer: local cache importer requires explicit digest"
        );
    }

    #[test]
    fn row42_attributes_of_services_are_handed_on_and_not_shown() {
        let s3 = option("s3", &[("bucket", "b"), ("secret_access_key", "a-secret")]);
        let exports = cache_exports(std::slice::from_ref(&s3)).unwrap();
        assert_eq!(exports[0].target, CacheTarget::Service(s3.clone()));
        assert_eq!(cache_import(&s3), Ok(CacheImport::Service(s3)));
        let text = format!("{exports:?}");
        assert!(text.contains("bucket") && !text.contains("a-secret"), "{text}");
    }

    #[test]
    fn one_cache_is_written_once() {
        let registry = |mode: &str| option("registry", &[("ref", "a"), ("mode", mode)]);
        let error = cache_exports(&[registry("min"), registry("max")]).unwrap_err();
        assert_eq!(error.to_string(), "duplicate cache exports [registry]");
        let local = |dest: &str| option("local", &[("dest", dest)]);
        assert!(cache_exports(&[local("a"), local("a")]).is_err());
        let inline = option("inline", &[]);
        let read = cache_exports(&[inline.clone(), local("a"), inline, local("b")]).unwrap();
        assert_eq!(read.len(), 3);
    }

    #[test]
    fn a_local_cache_is_read_by_digest() {
        let read = cache_import(&option("local", &[("src", "d"), ("digest", "sha256:x")]));
        let expected = CacheImport::Local {
            src: "d".into(),
            digest: "sha256:x".into(),
        };
        assert_eq!(read, Ok(expected));
        assert!(matches!(
            cache_import(&option("registry", &[("ref", "a"), ("registry.insecure", "t")])),
            Ok(CacheImport::Registry { insecure: true, .. })
        ));
    }

    #[test]
    fn json_keys_have_any_case() {
        let read =
            CacheOption::list_from_json(r#"[{"type":"local","ATTRS":{"a":"b"},"x":1},{"Attrs":null}]"#);
        assert_eq!(
            read.unwrap(),
            [option("local", &[("a", "b")]), CacheOption::default()]
        );
        assert_eq!(CacheOption::list_from_json("null").unwrap(), []);
        for bad in ["{}", "[1]", r#"[{"Type":1}]"#, r#"[{"Attrs":{"a":1}}]"#] {
            assert!(CacheOption::list_from_json(bad).is_err(), "{bad}");
        }
    }
}
