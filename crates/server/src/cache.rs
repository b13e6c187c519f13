//! Caches of a request: what it imports and exports, in the engine's terms.

use std::collections::{BTreeMap, HashMap};

use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptions, CacheOptionsEntry};
use rbuild_builder::cache_transfer::import;
use rbuild_builder::job::Job;
use rbuild_builder::request::{CacheExport, CacheForm, CacheSource, CacheTarget};
use rbuild_builder::solve::Reporter;
use rbuild_llb::attrs::cache_imports;
use rbuild_llb::cache_options::{self, CacheImport, CacheOption, cache_exports, cache_import};
use rbuild_llb::errors::sentence;
use rbuild_oci::Digest;
use rbuild_registry::RegistryConfig;
use rbuild_remotecache::Place;
use rbuild_remotecache::attrs::SECRET_KEYS;
use serde_json::Value;
use tonic::Status;

use crate::errors::refused;
use crate::export::layer_compression;

/// Prefix of the ids of content stores that are directories of the client (`cache/remotecache/local`).
const STORE_PREFIX: &str = "local:";

/// The caches that a request writes.
///
/// # Errors
/// A refusal, in BuildKit's words.
pub fn exports(cache: Option<&CacheOptions>) -> Result<Vec<CacheExport>, Status> {
    let entries = cache.map_or(&[][..], |cache| &cache.exports);
    let options: Vec<CacheOption> = entries.iter().cloned().map(CacheOption::from).collect();
    let found = cache_exports(&options).map_err(|error| refused(sentence(&error)))?;
    found.into_iter().map(export).collect()
}

fn export(export: cache_options::CacheExport) -> Result<CacheExport, Status> {
    let target = match export.target {
        cache_options::CacheTarget::Inline => CacheTarget::Inline,
        cache_options::CacheTarget::Registry { reference, form, .. } => {
            CacheTarget::Registry(reference.or_latest(), self::form(&form))
        }
        cache_options::CacheTarget::Local { dest, form } => {
            CacheTarget::Client(format!("{STORE_PREFIX}{dest}"), self::form(&form))
        }
        cache_options::CacheTarget::Service(option) => CacheTarget::Service(service(&option, "exporter")?),
    };
    Ok(CacheExport {
        target,
        mode_max: export.mode_max,
        ignore_error: export.ignore_error,
    })
}

/// The place that a client's attributes name. What they do not say may be in the server's environment, as with
/// BuildKit, but for what belongs to a workflow's run.
fn service(option: &CacheOption, role: &str) -> Result<Place, Status> {
    let env = |name: &str| {
        let known = ["AWS_", "BUILDKIT_AZURE_", "HOME"]
            .iter()
            .any(|start| name.starts_with(start));
        std::env::var(name).ok().filter(|_| known)
    };
    let kind = &option.kind;
    let refuse =
        |why: &dyn std::fmt::Display| refused(format!("failed to configure {kind} cache {role}: {why}"));
    match Place::read(kind, &option.attrs, &env) {
        Ok(Some(place)) => Ok(place),
        Ok(None) => Err(refuse(&"there is no such service")),
        Err(error) => Err(refuse(&error)),
    }
}

fn form(form: &cache_options::CacheForm) -> CacheForm {
    CacheForm {
        oci_mediatypes: form.oci_mediatypes,
        image_manifest: form.image_manifest,
        compression: layer_compression(form.compression.kind),
        compression_level: form.compression.codec_level(),
        force_compression: form.compression.force,
    }
}

/// Makes the caches that a request or a front end names known to `job`: those of the call, and those of the options
/// `cache-imports` and `cache-from`. One that is named twice is read once; one that cannot be read, or that there cannot be, is
/// shown as a failed vertex and passed over (`solver/llbsolver/bridge.go`).
///
/// # Errors
/// A refusal for options that are malformed.
pub async fn import(
    job: &Job,
    entries: &[CacheOptionsEntry],
    attrs: &BTreeMap<String, String>,
) -> Result<(), Status> {
    let refuse = |error: &dyn std::error::Error| refused(sentence(error));
    let mut options: Vec<CacheOption> = entries.iter().cloned().map(CacheOption::from).collect();
    options.extend(cache_imports(attrs).map_err(|error| refuse(&error))?);
    let mut sources = Vec::new();
    for option in &options {
        match source(option) {
            Ok(source) if !sources.contains(&source) => sources.push(source),
            Ok(_) => {}
            Err(why) => pass_over(job, option, &why),
        }
    }
    let imported = import::all(job, &sources).await;
    imported.map_err(|error| Status::unavailable(sentence(&error)))
}

fn source(option: &CacheOption) -> Result<CacheSource, Status> {
    let found = cache_import(option).map_err(|error| refused(sentence(&error)))?;
    Ok(match found {
        CacheImport::Registry { reference, .. } => CacheSource::Registry(reference.or_latest()),
        CacheImport::Service(option) => CacheSource::Service(service(&option, "importer")?),
        CacheImport::Local { src, digest } => CacheSource::Client {
            store: format!("{STORE_PREFIX}{src}"),
            digest: Digest::parse(&digest)
                .map_err(|error| refused(format!("invalid digest {digest:?}: {error}")))?,
        },
    })
}

/// Shows that there is no such cache, once for each build.
fn pass_over(job: &Job, option: &CacheOption, why: &Status) {
    let reference = option.attrs.get("ref").filter(|reference| !reference.is_empty());
    let name = reference.unwrap_or(&option.kind);
    if job.book.name_cache(&format!("{name}: {}", why.message())) {
        let mut reporter = Reporter::internal(&job.sink, &format!("importing cache manifest from {name}"));
        reporter.start(None);
        reporter.failed(why.message().to_owned());
    }
}

/// Attributes of a front end as a history may keep them: without the keys and tokens of the caches among them. What
/// cannot be read is left out.
#[must_use]
pub fn without_secrets(attrs: &HashMap<String, String>) -> HashMap<String, String> {
    let mut kept = attrs.clone();
    if let Some(text) = kept.remove("cache-imports")
        && let Ok(mut imports) = serde_json::from_str::<Vec<serde_json::Map<String, Value>>>(&text)
    {
        for (key, value) in imports.iter_mut().flatten() {
            if !key.eq_ignore_ascii_case("attrs") {
                continue;
            }
            let Value::Object(attrs) = value else { continue };
            for (_, secret) in attrs
                .iter_mut()
                .filter(|(key, _)| SECRET_KEYS.contains(&key.as_str()))
            {
                *secret = Value::String("…".to_owned());
            }
        }
        if let Ok(text) = serde_json::to_string(&imports) {
            kept.insert("cache-imports".to_owned(), text);
        }
    }
    kept
}

/// Marks the registries as insecure that a cache of the request says so of.
pub fn allow_insecure(registries: &mut RegistryConfig, cache: Option<&CacheOptions>) {
    let Some(cache) = cache else { return };
    for entry in cache.exports.iter().chain(&cache.imports) {
        let insecure = entry
            .attrs
            .get("registry.insecure")
            .is_some_and(|text| text == "true" || text == "1");
        let reference = entry
            .attrs
            .get("ref")
            .and_then(|text| rbuild_oci::Reference::parse(text).ok());
        if let Some(reference) = reference.filter(|_| insecure) {
            registries.set_insecure(reference.host());
        }
    }
}

#[cfg(test)]
mod tests {
    use rbuild_builder::request::LayerCompression;

    use super::*;

    fn entry(kind: &str, attrs: &[(&str, &str)]) -> CacheOptionsEntry {
        CacheOptionsEntry {
            r#type: kind.to_owned(),
            attrs: attrs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn services_are_read_with_the_attributes_of_clients() {
        let of = |kind: &str, attrs: &[(&str, &str)]| {
            let exports = CacheOptions {
                exports: vec![entry(kind, attrs)],
                ..CacheOptions::default()
            };
            exports_of(&exports)
        };
        let s3 = [
            ("bucket", "b"),
            ("region", "r"),
            ("access_key_id", "i"),
            ("secret_access_key", "s"),
        ];
        let found = of("s3", &s3).unwrap();
        let CacheTarget::Service(place) = &found[0].target else {
            panic!("{found:?}");
        };
        assert_eq!(place.name(), "s3:b/manifests/buildkit");
        let error = |kind: &str, attrs: &[(&str, &str)]| of(kind, attrs).unwrap_err().message().to_owned();
        assert_eq!(
            error("gha", &[]),
            "failed to configure gha cache exporter: token not set for github actions cache"
        );
        assert!(error("azblob", &[]).starts_with(
            "failed to configure azblob cache exporter: failed to create azblob config: either"
        ));
    }

    fn exports_of(cache: &CacheOptions) -> Result<Vec<CacheExport>, Status> {
        exports(Some(cache))
    }

    #[test]
    fn row42_a_history_keeps_no_keys_of_caches() {
        let imports = r#"[{"Type":"gha","Attrs":{"token":"a-secret","scope":"s"}},{"Type":"s3","attrs":{"secret_access_key":"a-secret","session_token":"a-secret"}}]"#;
        let of = |text: &str| {
            let attrs = [("cache-imports", text), ("target", "t")];
            without_secrets(
                &attrs
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            )
        };
        let kept = of(imports);
        assert!(!kept["cache-imports"].contains("a-secret"), "{kept:?}");
        assert!(kept["cache-imports"].contains(r#""scope":"s""#), "{kept:?}");
        assert_eq!(of("a-secret").len(), 1, "what cannot be read is left out");
    }

    #[test]
    fn what_a_client_exports_is_what_the_engine_is_told() {
        let options = CacheOptions {
            exports: vec![
                entry("inline", &[]),
                entry(
                    "local",
                    &[
                        ("dest", "/home/me/cache"),
                        ("mode", "max"),
                        ("compression", "zstd"),
                    ],
                ),
                entry(
                    "registry",
                    &[("ref", "localhost:5000/a"), ("ignore-error", "true")],
                ),
            ],
            ..CacheOptions::default()
        };
        let found = exports(Some(&options)).unwrap();
        assert_eq!(found[0].target, CacheTarget::Inline);
        let zstd = CacheForm {
            compression: LayerCompression::Zstd,
            ..CacheForm::default()
        };
        assert_eq!(
            found[1].target,
            CacheTarget::Client("local:/home/me/cache".to_owned(), zstd)
        );
        assert!(found[1].mode_max && !found[1].ignore_error);
        let CacheTarget::Registry(reference, form) = &found[2].target else {
            panic!("a registry")
        };
        assert_eq!(
            (reference.to_string().as_str(), *form),
            ("localhost:5000/a:latest", CacheForm::default())
        );
        assert!(found[2].ignore_error && !found[2].mode_max);
        let unknown = CacheOptions {
            exports: vec![entry("floppy", &[])],
            ..CacheOptions::default()
        };
        assert_eq!(exports(Some(&unknown)).unwrap_err().code(), tonic::Code::Unknown);
    }
}
