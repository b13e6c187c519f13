//! `rbuild serve`: BuildKit's API for clients of `buildkitd`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rbuild_builder::request::Entitlement;
use rbuild_ui::values::scalar::parse_duration;

use super::{CommandError, Open};
use crate::args::ServeArgs;
use crate::engine::{EngineOptions, ServeRequest};
use crate::serve_config::ServeConfig;

/// Where buildkitd looks for its configuration.
const CONFIG: &str = "/etc/buildkit/buildkitd.toml";

/// Serves until it is told to stop.
pub(super) fn run(args: &ServeArgs, mut options: EngineOptions, open: Open<'_>) -> Result<(), CommandError> {
    let path = args.config.clone().unwrap_or_else(|| PathBuf::from(CONFIG));
    let config = ServeConfig::read(&path)
        .map_err(|error| CommandError::failed(&rbuild_builder::error::chain_text(&error)))?;
    if args.oci_worker == "false" {
        return Err(CommandError::failed(
            &"--oci-worker=false leaves no worker: rbuild runs steps itself",
        ));
    }
    if args.containerd_worker == "true" {
        return Err(CommandError::failed(&"rbuild has no containerd worker"));
    }
    options.root = options.root.or_else(|| config.root.clone());
    let request = ServeRequest {
        addresses: addresses(args, &config, options.root.as_deref()),
        gid: gid(args, &config)?,
        idle: idle(args)?,
        entitlements: entitlements(args, &config)?,
        labels: labels(args, &config)?,
        config: args.config.clone(),
    };
    Ok(open(options)?.serve(request)?)
}

fn addresses(args: &ServeArgs, config: &ServeConfig, root: Option<&Path>) -> Vec<String> {
    if !args.addr.is_empty() {
        return args.addr.clone();
    }
    if !config.grpc.address.is_empty() {
        return config.grpc.address.clone();
    }
    let dir = match std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !rustix::process::geteuid().is_root()) {
        Some(dir) => PathBuf::from(dir),
        None if rustix::process::geteuid().is_root() => PathBuf::from("/run"),
        None => root.map_or_else(|| PathBuf::from("/tmp"), Path::to_owned),
    };
    vec![format!(
        "unix://{}",
        dir.join("buildkit/buildkitd.sock").display()
    )]
}

fn gid(args: &ServeArgs, config: &ServeConfig) -> Result<Option<u32>, CommandError> {
    let Some(group) = &args.group else {
        return Ok(config.grpc.gid);
    };
    if let Ok(gid) = group.parse() {
        return Ok(Some(gid));
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok())?
    });
    found
        .map(Some)
        .ok_or_else(|| CommandError::failed(&format!("there is no group {group:?}")))
}

fn idle(args: &ServeArgs) -> Result<Option<std::time::Duration>, CommandError> {
    let Some(text) = &args.idle_timeout else {
        return Ok(None);
    };
    let parsed = parse_duration(text);
    parsed
        .map(Some)
        .ok_or_else(|| CommandError::failed(&format!("--idle-timeout {text:?} is not a duration such as 5m")))
}

fn entitlements(args: &ServeArgs, config: &ServeConfig) -> Result<Vec<Entitlement>, CommandError> {
    let names = args
        .allow_insecure_entitlement
        .iter()
        .chain(&config.insecure_entitlements);
    names
        .map(|name| match name.as_str() {
            "network.host" => Ok(Entitlement::NetworkHost),
            "security.insecure" => Ok(Entitlement::SecurityInsecure),
            other => Err(CommandError::failed(&format!(
                "{other:?} is no entitlement: network.host and security.insecure are"
            ))),
        })
        .collect()
}

fn labels(args: &ServeArgs, config: &ServeConfig) -> Result<HashMap<String, String>, CommandError> {
    let mut labels = config.worker.oci.labels.clone();
    for list in &args.oci_worker_labels {
        for pair in list.split(',') {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| CommandError::failed(&format!("label {pair:?} is not KEY=VALUE")))?;
            labels.insert(key.to_owned(), value.to_owned());
        }
    }
    Ok(labels)
}
