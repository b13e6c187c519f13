//! Docker's `daemon.json`: `insecure-registries` and `registry-mirrors` (which are mirrors of Docker Hub only).

use std::path::Path;

use serde::Deserialize;

use super::network::Network;
use super::{ConfigError, DEFAULT_HOST, Mirror, RegistryConfig, SchemePolicy};

#[derive(Deserialize)]
struct Daemon {
    #[serde(default, rename = "insecure-registries")]
    insecure_registries: Vec<String>,
    #[serde(default, rename = "registry-mirrors")]
    registry_mirrors: Vec<String>,
}

/// Adds what `text` says to `config`.
pub(super) fn apply(config: &mut RegistryConfig, path: &Path, text: &str) -> Result<(), ConfigError> {
    let daemon: Daemon = serde_json::from_str(text).map_err(|source| ConfigError::Json {
        path: path.to_owned(),
        source,
    })?;
    for entry in &daemon.insecure_registries {
        let host = entry
            .split_once("://")
            .map_or(entry.as_str(), |(_, rest)| rest)
            .trim_end_matches('/');
        if host.contains('/') {
            let network = Network::parse(host).ok_or_else(|| ConfigError::Value {
                path: path.to_owned(),
                value: entry.clone(),
                expected: "a registry host or a network such as 10.0.0.0/8",
            })?;
            config.insecure_networks.push(network);
        } else {
            config.host_mut(host).insecure = Some(true);
        }
    }
    for entry in &daemon.registry_mirrors {
        let mirror = mirror(entry, path)?;
        config.host_mut(DEFAULT_HOST).mirrors.push(mirror);
    }
    Ok(())
}

/// A mirror written as a URL or as a host, with or without path; `http://` means plain HTTP.
pub(super) fn mirror(entry: &str, path: &Path) -> Result<Mirror, ConfigError> {
    let (policy, location) = match entry.split_once("://") {
        Some(("https", location)) => (None, location),
        Some(("http", location)) => (Some(SchemePolicy::HttpOnly), location),
        None => (None, entry),
        // No other scheme has a location: the check below refuses it.
        Some(_) => (None, ""),
    };
    let location = location.trim_end_matches('/');
    if location.is_empty() || location.contains(['@', '?', '#', ' ']) {
        return Err(ConfigError::Value {
            path: path.to_owned(),
            value: entry.to_owned(),
            expected: "a mirror such as https://host:port",
        });
    }
    Ok(Mirror {
        location: location.to_owned(),
        policy,
        by_tag: true,
        by_digest: true,
        source: path.to_owned(),
    })
}
