//! `--cache-to`, `--cache-from` and `BUILDKIT_INLINE_CACHE` (`buildx/util/buildflags/cache.go`): a bare reference is a
//! registry, everything else is `type=…` with attributes. Kinds that are not served are refused by name. What a workflow's
//! environment says of its cache service is added; outside of a workflow such a cache is left out, with a warning.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rbuild_builder::request::{CacheExport, CacheForm, CacheSource, CacheTarget, LayerCompression};
use rbuild_dockerfile::suggest;
use rbuild_oci::{Digest, Reference};
use rbuild_remotecache::attrs::{SECRET_KEYS, known};
use rbuild_remotecache::{AttrError, Place, gha};
use rbuild_ui::values::csv;
use rbuild_ui::values::scalar::parse_bool;

use super::UsageError;
use crate::args::LowBuild;
use crate::env::Env;

/// Why a cache is not one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    /// The text is not a record.
    #[error("invalid value {text:?}: {error}")]
    Csv {
        /// Text.
        text: String,
        /// What is wrong.
        error: csv::CsvError,
    },
    /// A field has no value.
    #[error("invalid value {0}")]
    NoValue(String),
    /// There is no `type`.
    #[error("type required form> {0:?}")]
    NoType(String),
    /// An attribute has to be there.
    #[error("{kind} cache needs {key}")]
    Missing {
        /// Kind of cache.
        kind: &'static str,
        /// Attribute.
        key: &'static str,
    },
    /// An attribute has a value it cannot have.
    #[error("failed to parse {key} of cache: {value:?}")]
    Value {
        /// Attribute.
        key: &'static str,
        /// Value.
        value: String,
    },
    /// A kind that there is not here.
    #[error("not supported yet: {flag} type={kind}")]
    Kind {
        /// The flag.
        flag: &'static str,
        /// The kind.
        kind: String,
    },
    /// An attribute of a service, in the words of `cache/remotecache`'s callers.
    #[error("failed to configure {kind} cache {role}: {error}")]
    Service {
        /// Kind of cache.
        kind: String,
        /// What it was to be: exporter or importer.
        role: &'static str,
        /// What is wrong.
        error: AttrError,
    },
    /// Two caches to one place.
    #[error("duplicate cache exports")]
    Duplicate,
}

/// What is learnt beside the caches.
pub(super) struct Noted<'a> {
    /// Hosts for which plain HTTP, or nobody who vouches, is enough.
    pub(super) insecure: &'a mut Vec<String>,
    /// What the user is told.
    pub(super) warnings: &'a mut Vec<String>,
}

/// The caches to write.
///
/// # Errors
/// [`UsageError::Cache`], [`UsageError::NotSupported`].
pub(super) fn exports(
    low: &LowBuild,
    build_args: &BTreeMap<String, String>,
    env: &Env,
    noted: &mut Noted<'_>,
) -> Result<Vec<CacheExport>, UsageError> {
    let mut exports: Vec<CacheExport> = Vec::new();
    for text in low.cache_to.iter().filter(|text| !text.is_empty()) {
        for mut entry in Entry::parse(text, "--cache-to")? {
            if !entry.is_active(env, noted) {
                continue;
            }
            let export = entry.export(env)?;
            entry.tell(&OF_EXPORTS, noted);
            noted.insecure.extend(entry.insecure);
            if exports
                .iter()
                .any(|other| is_same_place(&other.target, &export.target))
            {
                return Err(CacheError::Duplicate.into());
            }
            exports.push(export);
        }
    }
    let inline = build_args
        .get("BUILDKIT_INLINE_CACHE")
        .and_then(|value| parse_bool(value));
    if inline == Some(true) && !exports.iter().any(|export| export.target == CacheTarget::Inline) {
        exports.push(CacheExport {
            target: CacheTarget::Inline,
            mode_max: false,
            ignore_error: false,
        });
    }
    Ok(exports)
}

/// The caches to read.
///
/// # Errors
/// [`UsageError::Cache`], [`UsageError::NotSupported`].
pub(super) fn sources(
    low: &LowBuild,
    env: &Env,
    noted: &mut Noted<'_>,
) -> Result<Vec<CacheSource>, UsageError> {
    let mut sources = Vec::new();
    for text in low.cache_from.iter().filter(|text| !text.is_empty()) {
        for mut entry in Entry::parse(text, "--cache-from")? {
            if !entry.is_active(env, noted) {
                continue;
            }
            match entry.source(env) {
                Ok(source) => sources.push(source),
                // buildx itself asks for these.
                Err(error @ CacheError::Missing { .. }) => return Err(error.into()),
                // BuildKit builds without a cache that it cannot read (`solver/llbsolver/bridge.go`).
                Err(error) => {
                    noted.warnings.push(entry.left_out(error));
                    continue;
                }
            }
            entry.tell(&OF_SOURCES, noted);
            noted.insecure.extend(entry.insecure);
        }
    }
    Ok(sources)
}

fn is_same_place(one: &CacheTarget, other: &CacheTarget) -> bool {
    match (one, other) {
        (CacheTarget::Inline, CacheTarget::Inline) => true,
        (CacheTarget::Registry(one, _), CacheTarget::Registry(other, _)) => one == other,
        (
            CacheTarget::Directory { dest, tag, .. },
            CacheTarget::Directory {
                dest: other,
                tag: other_tag,
                ..
            },
        ) => dest == other && tag == other_tag,
        (CacheTarget::Service(one), CacheTarget::Service(other)) => one == other,
        _ => false,
    }
}

/// A flag's value as an error may show it.
fn without_secrets(text: &str) -> String {
    let fields = text.split(',').map(|field| match field.split_once('=') {
        Some((key, _)) if SECRET_KEYS.contains(&key.trim_matches(['"', ' ']).to_lowercase().as_str()) => {
            format!("{key}=…")
        }
        _ => field.to_owned(),
    });
    fields.collect::<Vec<_>>().join(",")
}

/// Attributes of caches that are written, and of those that are read: for hints.
const OF_EXPORTS: [&str; 14] = [
    "mode",
    "ignore-error",
    "ref",
    "dest",
    "tag",
    "reset",
    "registry.insecure",
    "oci-mediatypes",
    "image-manifest",
    "compression",
    "compression-level",
    "force-compression",
    "oci-artifact",
    "name",
];
const OF_SOURCES: [&str; 5] = ["ref", "src", "tag", "digest", "registry.insecure"];

struct Entry {
    flag: &'static str,
    kind: String,
    /// What is left of it when it was read has no effect; BuildKit says nothing then.
    attrs: BTreeMap<String, String>,
    /// Host of a registry that need not be secure.
    insecure: Option<String>,
}

impl Entry {
    /// One entry; or one for each reference, if there are only those.
    fn parse(text: &str, flag: &'static str) -> Result<Vec<Self>, CacheError> {
        let fields = csv::fields(text).map_err(|error| CacheError::Csv {
            text: without_secrets(text),
            error,
        })?;
        if fields.iter().all(|field| !field.contains('=')) {
            let one = |reference: String| Self {
                flag,
                kind: "registry".to_owned(),
                attrs: [("ref".to_owned(), reference)].into(),
                insecure: None,
            };
            return Ok(fields.into_iter().map(one).collect());
        }
        let mut entry = Self {
            flag,
            kind: String::new(),
            attrs: BTreeMap::new(),
            insecure: None,
        };
        for field in fields {
            let Some((key, value)) = field.split_once('=') else {
                return Err(CacheError::NoValue(field));
            };
            // Unlike the keys of outputs, they are not trimmed.
            match key.to_lowercase().as_str() {
                "type" => value.clone_into(&mut entry.kind),
                key => drop(entry.attrs.insert(key.to_owned(), value.to_owned())),
            }
        }
        if entry.kind.is_empty() {
            return Err(CacheError::NoType(without_secrets(text)));
        }
        Ok(vec![entry])
    }

    /// Adds what the environment of a workflow says; whether there is a service to go to.
    fn is_active(&mut self, env: &Env, noted: &mut Noted<'_>) -> bool {
        if self.kind != "gha" || gha::fill(&mut self.attrs, &|name| env.filled(name)) {
            return true;
        }
        noted.warnings.push(format!(
            "{} type=gha is left out: there is no cache service without ACTIONS_RUNTIME_TOKEN and ACTIONS_RESULTS_URL \
             (or ACTIONS_CACHE_URL), or token and url",
            self.flag
        ));
        false
    }

    /// What is said of a cache that is not read.
    fn left_out(&self, error: CacheError) -> String {
        let why = match &error {
            CacheError::Kind { .. } => "there is no such kind to read".to_owned(),
            other => other.to_string(),
        };
        let hints = super::hints(&error.into());
        let all: Vec<String> = [why].into_iter().chain(hints).collect();
        format!("{} type={} is left out: {}", self.flag, self.kind, all.join("; "))
    }

    /// Tells of what nothing has read.
    fn tell(&self, others: &[&str], noted: &mut Noted<'_>) {
        let served = known(&self.kind);
        for key in self.attrs.keys().filter(|key| !served.contains(&key.as_str())) {
            let near = suggest::nearest(key, served.iter().chain(others).copied(), false)
                .filter(|near| near != key)
                .map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
            noted.warnings.push(format!(
                "attribute {key:?} has no effect on {} type={}{near}",
                self.flag, self.kind
            ));
        }
    }

    fn service(&self, env: &Env, role: &'static str) -> Result<Place, CacheError> {
        match Place::read(&self.kind, &self.attrs, &|name| env.filled(name)) {
            Ok(Some(place)) => Ok(place),
            Ok(None) => Err(self.unserved_kind(&self.kind)),
            Err(error) => Err(CacheError::Service {
                kind: self.kind.clone(),
                role,
                error,
            }),
        }
    }

    fn export(&mut self, env: &Env) -> Result<CacheExport, CacheError> {
        // Anything but `max` is `min` (`control/control.go`).
        let mode_max = self.attrs.remove("mode").as_deref() == Some("max");
        let ignore_error = self
            .attrs
            .remove("ignore-error")
            .and_then(|text| parse_bool(&text))
            .unwrap_or(false);
        let target = match self.kind.as_str() {
            "inline" => CacheTarget::Inline,
            "registry" => CacheTarget::Registry(self.reference()?, self.form()?),
            "local" => {
                let dest = self.needed("local", "dest")?;
                CacheTarget::Directory {
                    dest: PathBuf::from(dest),
                    tag: self.attrs.remove("tag").unwrap_or_else(|| "latest".to_owned()),
                    form: self.form()?,
                    reset: self.bool("reset")?.unwrap_or(false),
                }
            }
            _ => CacheTarget::Service(self.service(env, "exporter")?),
        };
        Ok(CacheExport {
            target,
            mode_max,
            ignore_error,
        })
    }

    fn source(&mut self, env: &Env) -> Result<CacheSource, CacheError> {
        match self.kind.as_str() {
            "registry" => Ok(CacheSource::Registry(self.reference()?)),
            "local" => {
                let src = self.needed("local", "src")?;
                let digest = self.attrs.remove("digest").map(|text| {
                    Digest::parse(&text).map_err(|_| CacheError::Value {
                        key: "digest",
                        value: text,
                    })
                });
                Ok(CacheSource::Directory {
                    src: PathBuf::from(src),
                    tag: self.attrs.remove("tag"),
                    digest: digest.transpose()?,
                })
            }
            _ => Ok(CacheSource::Service(self.service(env, "importer")?)),
        }
    }

    fn unserved_kind(&self, kind: &str) -> CacheError {
        let (flag, kind) = (self.flag, kind.to_owned());
        CacheError::Kind { flag, kind }
    }

    fn reference(&mut self) -> Result<Reference, CacheError> {
        let text = self.needed("registry", "ref")?;
        match Reference::parse(&text) {
            Ok(reference) => {
                if self.bool("registry.insecure")? == Some(true) {
                    self.insecure = Some(reference.host().to_owned());
                }
                Ok(reference.or_latest())
            }
            Err(_) => Err(CacheError::Value {
                key: "ref",
                value: text,
            }),
        }
    }

    fn form(&mut self) -> Result<CacheForm, CacheError> {
        let oci_mediatypes = self.bool("oci-mediatypes")?.unwrap_or(true);
        let compression = match self.attrs.remove("compression").as_deref() {
            None | Some("gzip") => LayerCompression::Gzip,
            Some("estargz") => LayerCompression::EStargz,
            Some("zstd") => LayerCompression::Zstd,
            Some("uncompressed") => LayerCompression::Uncompressed,
            Some(other) => {
                return Err(CacheError::Value {
                    key: "compression",
                    value: other.to_owned(),
                });
            }
        };
        let text = self.attrs.remove("compression-level");
        let level = match text.as_deref().map(str::parse::<i32>) {
            // Go's word for the default of gzip (`compress/gzip`).
            None | Some(Ok(-1)) => None,
            Some(Ok(level)) if compression == LayerCompression::Zstd => Some(level.clamp(0, 22)),
            Some(Ok(level @ 0..=9)) => Some(level),
            Some(_) => {
                return Err(CacheError::Value {
                    key: "compression-level",
                    value: text.unwrap_or_default(),
                });
            }
        };
        Ok(CacheForm {
            oci_mediatypes,
            image_manifest: self.bool("image-manifest")?.unwrap_or(oci_mediatypes),
            compression,
            compression_level: level,
            force_compression: self.bool_or_empty("force-compression")?.unwrap_or(false),
        })
    }

    fn needed(&mut self, kind: &'static str, key: &'static str) -> Result<String, CacheError> {
        let found = self.attrs.remove(key).filter(|value| !value.is_empty());
        found.ok_or(CacheError::Missing { kind, key })
    }

    /// The same for an attribute that means true where its value is empty (`util/compression/attrs.go`).
    fn bool_or_empty(&mut self, key: &'static str) -> Result<Option<bool>, CacheError> {
        match self.attrs.get(key) {
            Some(value) if value.is_empty() => {
                self.attrs.remove(key);
                Ok(Some(true))
            }
            _ => self.bool(key),
        }
    }

    fn bool(&mut self, key: &'static str) -> Result<Option<bool>, CacheError> {
        let value = self.attrs.remove(key);
        let parse = |value: String| parse_bool(&value).ok_or(CacheError::Value { key, value });
        value.map(parse).transpose()
    }
}
