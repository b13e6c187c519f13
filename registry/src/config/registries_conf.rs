//! containers' `registries.conf`, version 2, with its drop-in directories (containers-registries.conf.5).
//!
//! Reads `[[registry]]` tables: prefix, location, insecure, blocked, mirrors. Short-name search is not done: names
//! without a host are Docker Hub's, as everywhere in BuildKit.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, ConfigSources, Mirror, SchemePolicy, read_file};

/// One `[[registry]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) prefix: String,
    pub(super) location: Option<String>,
    pub(super) insecure: bool,
    pub(super) blocked: bool,
    pub(super) mirrors: Vec<Mirror>,
    pub(super) source: PathBuf,
}

impl Rule {
    /// What of `name` (host and path) follows the prefix; nothing when the prefix does not match.
    pub(super) fn rest_of<'n>(&self, name: &'n str) -> Option<&'n str> {
        if let Some(domain) = self.prefix.strip_prefix('*') {
            let host_end = name.find('/').unwrap_or(name.len());
            let host = name[..host_end].split(':').next().unwrap_or_default();
            return (host.ends_with(domain) && host.len() > domain.len()).then_some(&name[host_end..]);
        }
        name.strip_prefix(self.prefix.as_str())
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    registry: Vec<Registry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Registry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: String,
}

/// Reads the main file and the drop-ins; a later table for the same prefix replaces an earlier one. A main file of the
/// user's hides the system's with its drop-ins (containers-registries.conf.d.5).
pub(super) fn load(sources: &ConfigSources, files: &mut BTreeSet<PathBuf>) -> Result<Vec<Rule>, ConfigError> {
    let system = sources.etc.join("containers");
    let user = sources.config_home().map(|u| u.join("containers"));
    let mut paths = Vec::new();
    let mut drop_in_dirs: Vec<&PathBuf> = std::iter::once(&system).chain(&user).collect();
    if let Some(named) = sources.var("CONTAINERS_REGISTRIES_CONF") {
        paths.push(PathBuf::from(named));
    } else {
        let users = user
            .as_ref()
            .map(|u| u.join("registries.conf"))
            .filter(|p| p.exists());
        if users.is_some() {
            drop_in_dirs.remove(0);
        }
        paths.push(users.unwrap_or_else(|| system.join("registries.conf")));
    }
    for dir in drop_in_dirs {
        paths.extend(drop_ins(&dir.join("registries.conf.d"))?);
    }
    let mut rules: Vec<Rule> = Vec::new();
    for path in paths {
        let Some(text) = read_file(&path)? else { continue };
        for rule in parse(&path, &text)? {
            rules.retain(|earlier| earlier.prefix != rule.prefix);
            rules.push(rule);
        }
        files.insert(path);
    }
    Ok(rules)
}

fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: dir.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "conf") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn parse(path: &Path, text: &str) -> Result<Vec<Rule>, ConfigError> {
    let file: File = toml::from_str(text).map_err(|source| ConfigError::Toml {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let value = |value: &str, expected| ConfigError::Value {
        path: path.to_owned(),
        value: value.to_owned(),
        expected,
    };
    let mut rules = Vec::new();
    for registry in file.registry {
        let location = Some(registry.location.trim_end_matches('/').to_owned()).filter(|l| !l.is_empty());
        let prefix = if registry.prefix.is_empty() {
            location.clone().unwrap_or_default()
        } else {
            registry.prefix
        };
        let wildcard_ok = !prefix.contains('*') || (prefix.starts_with("*.") && prefix.rfind('*') == Some(0));
        if prefix.is_empty() || !wildcard_ok || prefix.contains("://") {
            return Err(value(
                &prefix,
                "a registry prefix such as host:port/path or *.host",
            ));
        }
        let mut mirrors = Vec::new();
        for mirror in registry.mirror {
            let (by_tag, by_digest) = match (mirror.pull_from_mirror.as_str(), registry.mirror_by_digest_only)
            {
                ("", only) => (!only, true),
                ("all", _) => (true, true),
                ("digest-only", _) => (false, true),
                ("tag-only", _) => (true, false),
                (other, _) => return Err(value(other, "all, digest-only or tag-only")),
            };
            let location = mirror.location.trim_end_matches('/').to_owned();
            if location.is_empty() || location.contains("://") {
                return Err(value(&location, "a mirror location such as host:port/path"));
            }
            let policy = mirror.insecure.then_some(SchemePolicy::Insecure);
            mirrors.push(Mirror {
                location,
                policy,
                by_tag,
                by_digest,
                source: path.to_owned(),
            });
        }
        rules.push(Rule {
            prefix: prefix.trim_end_matches('/').to_owned(),
            location,
            insecure: registry.insecure,
            blocked: registry.blocked,
            mirrors,
            source: path.to_owned(),
        });
    }
    Ok(rules)
}
