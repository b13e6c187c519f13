//! BuildKit's `buildkitd.toml`: the `[registry."host"]` tables (docs/buildkitd.toml.md). Other tables are not ours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, RegistryConfig, daemon_json};

#[derive(Deserialize)]
struct Buildkitd {
    #[serde(default)]
    registry: BTreeMap<String, Registry>,
}

#[derive(Deserialize)]
struct Registry {
    #[serde(default)]
    mirrors: Vec<String>,
    http: Option<bool>,
    insecure: Option<bool>,
    #[serde(default)]
    ca: Vec<PathBuf>,
    #[serde(default)]
    keypair: Vec<Keypair>,
    #[serde(default)]
    tlsconfigdir: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Keypair {
    key: PathBuf,
    cert: PathBuf,
}

/// Adds what `text` says to `config`.
pub(super) fn apply(config: &mut RegistryConfig, path: &Path, text: &str) -> Result<(), ConfigError> {
    let read: Buildkitd = toml::from_str(text).map_err(|source| ConfigError::Toml {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    for (host, registry) in read.registry {
        let mirrors: Vec<_> = registry
            .mirrors
            .iter()
            .map(|m| daemon_json::mirror(m, path))
            .collect::<Result<_, _>>()?;
        let settings = config.host_mut(&host);
        settings.mirrors.extend(mirrors);
        settings.http = registry.http.or(settings.http);
        settings.insecure = registry.insecure.or(settings.insecure);
        settings.ca.extend(registry.ca);
        settings
            .keypairs
            .extend(registry.keypair.into_iter().map(|pair| (pair.cert, pair.key)));
        settings.cert_dirs.extend(registry.tlsconfigdir);
    }
    Ok(())
}
