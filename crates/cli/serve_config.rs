//! `buildkitd.toml` as far as the server itself reads it (`cmd/buildkitd/config/config.go`); what it says of registries
//! is read by the registry client. Keys that are not served yet are accepted: the file describes another program.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Largest configuration file.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeConfigError {
    /// It cannot be read.
    #[error("read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML, or has values of another type.
    #[error("{path:?} is malformed")]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
}

/// What is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct ServeConfig {
    /// Directory of everything that is kept.
    pub(crate) root: Option<PathBuf>,
    /// What builds may be given.
    pub(crate) insecure_entitlements: Vec<String>,
    /// Sockets.
    pub(crate) grpc: Grpc,
    /// Workers.
    pub(crate) worker: Workers,
}

/// `[grpc]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Grpc {
    pub(crate) address: Vec<String>,
    pub(crate) gid: Option<u32>,
}

/// `[worker]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Workers {
    pub(crate) oci: Worker,
}

/// `[worker.oci]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Worker {
    pub(crate) labels: HashMap<String, String>,
}

impl ServeConfig {
    /// Reads `path`; a file that is not there says nothing.
    ///
    /// # Errors
    /// [`ServeConfigError`].
    pub(crate) fn read(path: &Path) -> Result<Self, ServeConfigError> {
        use std::io::Read as _;
        let fail = |source| ServeConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(fail(error)),
        };
        let mut text = String::new();
        file.take(CONFIG_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(fail)?;
        toml::from_str(&text).map_err(|source| ServeConfigError::Toml {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_that_count_are_read_and_others_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("buildkitd.toml");
        let text = "insecure-entitlements = [\"network.host\"]\n[registry.\"docker.io\"]\nmirrors=[\"localhost:1\"]\n\
                    [otel]\n  socketPath = \"/x\"\n[grpc]\naddress = [\"unix:///a\"]\ngid = 7\n[worker.oci]\nlabels = {a = \"b\"}\n";
        std::fs::write(&path, text).unwrap();
        let config = ServeConfig::read(&path).unwrap();
        assert_eq!(config.insecure_entitlements, ["network.host"]);
        assert_eq!((config.grpc.address.len(), config.grpc.gid), (1, Some(7)));
        assert_eq!(config.worker.oci.labels["a"], "b");
    }

    #[test]
    fn a_missing_file_says_nothing_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        assert_eq!(ServeConfig::read(&path).unwrap().root, None);
        std::fs::write(&path, "grpc = 3").unwrap();
        let error = ServeConfig::read(&path).unwrap_err();
        assert!(error.to_string().contains("x.toml"), "{error}");
    }
}
