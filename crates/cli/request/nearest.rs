//! The value that was probably meant, where one that does not exist is near one that does.

use rbuild_dockerfile::suggest;

use rbuild_builder::request::attestations::AttestationError;
use rbuild_graph::Ulimit;
use rbuild_ui::values::key_value::KeyValueError;
use rbuild_ui::values::resource::{self, ResourceError};
use rbuild_ui::values::secret::{self, SecretError};
use rbuild_ui::values::ulimit::UlimitError;

use super::UsageError;
use super::attests::AttestError;
use super::caches::CacheError;
use super::rego::{self, RegoError};

pub(crate) const PROGRESS: [&str; 6] = ["auto", "plain", "tty", "rawjson", "quiet", "none"];
pub(crate) const EXPORTERS: [&str; 7] = ["image", "registry", "oci", "docker", "local", "tar", "cacheonly"];
pub(crate) const NETWORKS: [&str; 3] = ["default", "none", "host"];
pub(crate) const ENTITLEMENTS: [&str; 4] = [
    "network.host",
    "security.insecure",
    "device",
    super::outputs::LOCAL_DELETE,
];
pub(crate) const QUESTIONS: [&str; 5] = ["build", "check", "outline", "targets", "subrequests.describe"];
pub(crate) const CALL_FIELDS: [&str; 2] = ["format", "ignorestatus"];
const LOCAL_MODES: [&str; 2] = ["copy", "delete"];
const ANNOTATED: [&str; 4] = ["manifest", "manifest-descriptor", "index", "index-descriptor"];
const ATTESTATIONS: [&str; 2] = ["provenance", "sbom"];
pub(crate) const CACHES: [&str; 6] = ["inline", "registry", "local", "gha", "s3", "azblob"];
pub(crate) const COMPRESSIONS: [&str; 4] = ["gzip", "estargz", "zstd", "uncompressed"];

/// The nearest of those that exist, or all of them.
pub(super) fn hint(error: &UsageError) -> Option<String> {
    let (word, known) = meant(error)?;
    // Most are lower case, and some are so on purpose: another case is a mistake too.
    let near = suggest::nearest(&word.trim().to_lowercase(), known.iter().copied(), false);
    let near = near.or_else(|| {
        let same = |name: &&&str| name.eq_ignore_ascii_case(word.trim());
        known.iter().find(same).map(|name| (*name).to_owned())
    });
    let all = || format!("there are {}", known.join(", "));
    Some(near.map_or_else(all, |name| format!("did you mean {name:?}?")))
}

/// What was written, and what could have been.
fn meant(error: &UsageError) -> Option<(&str, &[&str])> {
    Some(match error {
        UsageError::Progress(word) => (word, &PROGRESS),
        UsageError::ExportType(word) => (word, &EXPORTERS),
        UsageError::Network(word) => (word, &NETWORKS),
        UsageError::Entitlement(word) => (word, &ENTITLEMENTS),
        UsageError::CallUnknown(word) => (word.trim_start_matches("frontend."), &QUESTIONS),
        UsageError::CallField(field) => (key(field), &CALL_FIELDS),
        UsageError::Compression {
            key: "compression",
            value,
        } => (value, &COMPRESSIONS),
        UsageError::LocalMode(word) => (word, &LOCAL_MODES),
        UsageError::Secret(SecretError::Key { key, .. }) => (key, &secret::KEYS),
        UsageError::Secret(SecretError::Type(word)) => (word, &secret::TYPES),
        UsageError::Ulimit(UlimitError::Name(word)) => (word, &Ulimit::NAMES),
        UsageError::Resource(ResourceError::Key(word)) => (word, &resource::KEYS),
        UsageError::KeyValue(KeyValueError::AnnotationType(word) | KeyValueError::AnnotationShape(word)) => {
            (key(word), &ANNOTATED)
        }
        UsageError::Cache(CacheError::Kind { flag, kind }) => match *flag {
            "--cache-from" => (kind, &CACHES[1..]),
            _ => (kind, &CACHES),
        },
        UsageError::Attest(AttestError::Value(AttestationError::Kind(word))) => (word.trim(), &ATTESTATIONS),
        UsageError::Rego(RegoError::Key { key, .. }) => (key, &rego::KEYS),
        _ => return None,
    })
}

/// What stands before the value, or before the platform.
fn key(field: &str) -> &str {
    field.split(['=', '[']).next().unwrap_or_default()
}
