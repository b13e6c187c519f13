//! The value that was probably meant, where one that does not exist is near one that does.

use rbuild_dockerfile::suggest;

use super::UsageError;

const PROGRESS: [&str; 6] = ["auto", "plain", "tty", "rawjson", "quiet", "none"];
const EXPORTERS: [&str; 7] = ["image", "registry", "oci", "docker", "local", "tar", "cacheonly"];
const NETWORKS: [&str; 3] = ["default", "none", "host"];
const ENTITLEMENTS: [&str; 3] = ["network.host", "security.insecure", "device"];
const QUESTIONS: [&str; 5] = ["build", "check", "outline", "targets", "subrequests.describe"];
const COMPRESSIONS: [&str; 4] = ["gzip", "estargz", "zstd", "uncompressed"];

/// What the user is told besides the error.
pub(crate) fn hints(error: &UsageError) -> Vec<String> {
    let (word, known): (&str, &[&str]) = match error {
        UsageError::Progress(word) => (word, &PROGRESS),
        UsageError::ExportType(word) => (word, &EXPORTERS),
        UsageError::Network(word) => (word, &NETWORKS),
        UsageError::Entitlement(word) => (word, &ENTITLEMENTS),
        UsageError::CallUnknown(word) => (word.trim_start_matches("frontend."), &QUESTIONS),
        UsageError::Compression {
            key: "compression",
            value,
        } => (value, &COMPRESSIONS),
        _ => return Vec::new(),
    };
    let near = suggest::nearest(word, known.iter().copied(), false);
    let all = || format!("there are {}", known.join(", "));
    vec![near.map_or_else(all, |name| format!("did you mean {name:?}?"))]
}
