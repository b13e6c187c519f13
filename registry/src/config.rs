//! Where images come from: mirrors, insecure hosts and certificates, as the files of every container tool say.
//!
//! Merges containers' `registries.conf`, Docker's `daemon.json` and BuildKit's `buildkitd.toml`, and looks into the
//! `certs.d` directories. Refuses to read anything but the places it is given: paths and environment are parameters.

mod buildkitd;
mod daemon_json;
mod network;
mod registries_conf;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rbuild_oci::{DEFAULT_HOST, Reference};

use crate::RegistryError;
use network::Network;
pub(crate) use network::{is_link_local, is_loopback, is_loopback_host};
use registries_conf::Rule;

/// The host that serves `docker.io`.
const HUB_HTTP_HOST: &str = "registry-1.docker.io";
/// Largest configuration file read, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Where configuration is looked for.
#[derive(Clone, Debug, Default)]
pub struct ConfigSources {
    /// The environment: `HOME`, `XDG_CONFIG_HOME`, `CONTAINERS_REGISTRIES_CONF`, `BUILDKITD_CONFIG`, the proxy
    /// variables, `SSL_CERT_FILE` and `SSL_CERT_DIR` are looked at.
    pub env: BTreeMap<String, String>,
    /// The directory of the system's configuration, `/etc`.
    pub etc: PathBuf,
}

impl ConfigSources {
    /// The environment of this process and `/etc`. Variables that are not UTF-8 are left out.
    #[must_use]
    pub fn from_process() -> Self {
        Self {
            env: environment(),
            etc: PathBuf::from("/etc"),
        }
    }

    fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    fn config_home(&self) -> Option<PathBuf> {
        let home = || self.var("HOME").map(|home| Path::new(home).join(".config"));
        self.var("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home)
    }
}

/// The variables of this process that are UTF-8.
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file is there but cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than any configuration.
    #[error("{} is larger than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A TOML file that is none, or has fields of the wrong type.
    #[error("{} is malformed", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A JSON file that is none, or has fields of the wrong type.
    #[error("{} is malformed", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A value that makes no sense.
    #[error("{}: {value:?} is not {expected}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// How a host may be talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchemePolicy {
    /// HTTPS with a verified certificate.
    HttpsOnly,
    /// A host of this machine: plain HTTP, else HTTPS. What listens there is this machine's either way.
    Loopback,
    /// Marked insecure: HTTPS without verification, else HTTP.
    Insecure,
    /// Marked as plain HTTP.
    HttpOnly,
}

/// One place a repository can be reached at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port requests go to.
    pub host: String,
    /// The name its credentials are stored under; differs from `host` for Docker Hub only.
    pub registry: String,
    /// The repository's path there.
    pub repository: String,
    /// Whether this is a mirror and not the registry itself.
    pub is_mirror: bool,
    /// How it may be talked to.
    pub policy: SchemePolicy,
    /// Which file named it; empty for the registry of the reference itself.
    pub source: String,
}

/// A mirror as a file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirror {
    /// Host and optional path, without scheme.
    location: String,
    policy: Option<SchemePolicy>,
    by_tag: bool,
    by_digest: bool,
    source: PathBuf,
}

/// What files say about one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct HostSettings {
    http: Option<bool>,
    insecure: Option<bool>,
    mirrors: Vec<Mirror>,
    ca: Vec<PathBuf>,
    keypairs: Vec<(PathBuf, PathBuf)>,
    cert_dirs: Vec<PathBuf>,
}

/// The certificates to use with a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TlsFiles {
    /// Additional roots, PEM.
    pub(crate) ca: Vec<PathBuf>,
    /// Client certificate and key, PEM.
    pub(crate) keypairs: Vec<(PathBuf, PathBuf)>,
}

/// The merged configuration of all registries.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    hosts: BTreeMap<String, HostSettings>,
    insecure_networks: Vec<Network>,
    rules: Vec<Rule>,
    cert_dirs: Vec<PathBuf>,
    env: BTreeMap<String, String>,
    files: BTreeSet<PathBuf>,
    offline: bool,
}

impl RegistryConfig {
    /// Reads every file there is. A file that is not there says nothing.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that is there and cannot be understood: a setting such as a mirror or a block must
    /// not be lost silently.
    pub fn load(sources: &ConfigSources) -> Result<Self, ConfigError> {
        let mut config = Self {
            env: sources.env.clone(),
            ..Self::default()
        };
        let user = sources.config_home();
        config.rules = registries_conf::load(sources, &mut config.files)?;
        let daemon = [
            Some(sources.etc.join("docker/daemon.json")),
            user.as_ref().map(|u| u.join("docker/daemon.json")),
        ];
        for path in daemon.into_iter().flatten() {
            if let Some(text) = config.read(&path)? {
                daemon_json::apply(&mut config, &path, &text)?;
            }
        }
        let named = sources.var("BUILDKITD_CONFIG").map(PathBuf::from);
        let usual = [
            Some(sources.etc.join("buildkit/buildkitd.toml")),
            user.as_ref().map(|u| u.join("buildkit/buildkitd.toml")),
        ];
        let buildkitd = if named.is_some() {
            vec![named]
        } else {
            Vec::from(usual)
        };
        for path in buildkitd.into_iter().flatten() {
            if let Some(text) = config.read(&path)? {
                buildkitd::apply(&mut config, &path, &text)?;
            }
        }
        for tool in ["docker/certs.d", "containers/certs.d"] {
            config.cert_dirs.extend(user.as_ref().map(|u| u.join(tool)));
            config.cert_dirs.push(sources.etc.join(tool));
        }
        Ok(config)
    }

    /// The files that were read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// Marks a host as insecure, as `--output …,registry.insecure=true` does for its target.
    pub fn set_insecure(&mut self, host: &str) {
        self.host_mut(host).insecure = Some(true);
    }

    /// Adds a mirror of `host`: a host with an optional path, with or without scheme. What is said first is asked first,
    /// before what files say.
    pub fn add_mirror(&mut self, host: &str, location: &str) {
        let (policy, location) = match location.split_once("://") {
            Some(("http", rest)) => (Some(SchemePolicy::HttpOnly), rest),
            Some((_, rest)) => (None, rest),
            None => (None, location),
        };
        let mirror = Mirror {
            location: location.trim_end_matches('/').to_owned(),
            policy,
            by_tag: true,
            by_digest: true,
            source: PathBuf::from("the command line"),
        };
        let mirrors = &mut self.host_mut(host).mirrors;
        let said = |mirror: &&Mirror| mirror.source == Path::new("the command line");
        let at = mirrors.iter().take_while(said).count();
        mirrors.insert(at, mirror);
    }

    /// Adds a file, PEM, with who vouches for `host`.
    pub fn add_authority(&mut self, host: &str, file: PathBuf) {
        self.host_mut(host).ca.push(file);
    }

    /// Adds the certificate and key, PEM, that `host` is shown.
    pub fn add_own_certificate(&mut self, host: &str, cert: PathBuf, key: PathBuf) {
        self.host_mut(host).keypairs.push((cert, key));
    }

    /// Forbids every use of the network, of this machine's own registries too.
    pub fn set_offline(&mut self) {
        self.offline = true;
    }

    /// Refuses `what` where the network may not be used.
    ///
    /// # Errors
    /// [`RegistryError::Offline`].
    pub fn check_online(&self, what: &dyn std::fmt::Display) -> Result<(), RegistryError> {
        if self.offline {
            return Err(RegistryError::Offline {
                what: what.to_string(),
            });
        }
        Ok(())
    }

    /// Where `reference` is pulled from: its mirrors in order, then its registry.
    ///
    /// # Errors
    /// [`RegistryError::Blocked`], [`RegistryError::Offline`].
    pub(crate) fn pull_endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, RegistryError> {
        self.check_online(reference)?;
        let name = reference.name();
        let rule = self.rule(reference)?;
        let mut endpoints = Vec::new();
        let mut add = |mirror: &Mirror, location: &str| {
            if if reference.digest().is_some() {
                mirror.by_digest
            } else {
                mirror.by_tag
            } {
                let source = mirror.source.display().to_string();
                endpoints.push(self.endpoint(location, mirror.policy, true, source));
            }
        };
        if let Some((rule, rest)) = &rule {
            for mirror in &rule.mirrors {
                add(mirror, &format!("{}{rest}", mirror.location));
            }
        }
        if let Some(settings) = self.hosts.get(&canonical_host(reference.host())) {
            for mirror in &settings.mirrors {
                add(mirror, &format!("{}/{}", mirror.location, reference.path()));
            }
        }
        let mut seen = BTreeSet::new();
        endpoints.retain(|e| seen.insert((e.host.clone(), e.repository.clone())));
        endpoints.push(self.origin(&name, rule.as_ref()));
        Ok(endpoints)
    }

    /// Where `reference` is pushed to: its registry, never a mirror.
    ///
    /// # Errors
    /// [`RegistryError::Blocked`], [`RegistryError::Offline`].
    pub fn push_endpoint(&self, reference: &Reference) -> Result<Endpoint, RegistryError> {
        self.check_online(reference)?;
        Ok(self.origin(&reference.name(), self.rule(reference)?.as_ref()))
    }

    /// The longest matching rule of `registries.conf`, and what of the name follows its prefix.
    fn rule(&self, reference: &Reference) -> Result<Option<(&Rule, String)>, RegistryError> {
        let name = reference.name();
        let rule = self
            .rules
            .iter()
            .filter_map(|rule| Some((rule, rule.rest_of(&name)?.to_owned())))
            .max_by_key(|(rule, _)| rule.prefix.len());
        match rule {
            Some((rule, _)) if rule.blocked => Err(RegistryError::Blocked {
                reference: reference.to_string(),
                file: rule.source.display().to_string(),
            }),
            other => Ok(other),
        }
    }

    fn origin(&self, name: &str, rule: Option<&(&Rule, String)>) -> Endpoint {
        match rule {
            Some((rule, rest)) => {
                let location = match &rule.location {
                    Some(location) => format!("{location}{rest}"),
                    None => name.to_owned(),
                };
                let policy = rule.insecure.then_some(SchemePolicy::Insecure);
                let moved = if location == name {
                    String::new()
                } else {
                    rule.source.display().to_string()
                };
                self.endpoint(&location, policy, false, moved)
            }
            None => self.endpoint(name, None, false, String::new()),
        }
    }

    fn endpoint(
        &self,
        location: &str,
        policy: Option<SchemePolicy>,
        is_mirror: bool,
        source: String,
    ) -> Endpoint {
        let (host, repository) = location.split_once('/').unwrap_or((location, ""));
        let registry = canonical_host(host);
        let http_host = if registry == DEFAULT_HOST {
            HUB_HTTP_HOST.to_owned()
        } else {
            registry.clone()
        };
        Endpoint {
            policy: policy.unwrap_or_else(|| self.scheme_policy(&registry)),
            host: http_host,
            registry,
            repository: repository.to_owned(),
            is_mirror,
            source,
        }
    }

    /// How `host` (with its port) may be talked to.
    pub(crate) fn scheme_policy(&self, host: &str) -> SchemePolicy {
        let settings = self.hosts.get(host);
        let named = self.rules.iter().find(|r| r.prefix == host && r.insecure);
        if settings.is_some_and(|s| s.http == Some(true)) {
            SchemePolicy::HttpOnly
        } else if settings.is_some_and(|s| s.insecure == Some(true)) || named.is_some() {
            SchemePolicy::Insecure
        } else if is_loopback_host(host) {
            SchemePolicy::Loopback
        } else if self.insecure_networks.iter().any(|n| n.contains_host(host)) {
            SchemePolicy::Insecure
        } else {
            SchemePolicy::HttpsOnly
        }
    }

    /// The certificates for `host`: from `buildkitd.toml`, then from the `certs.d` directories.
    pub(crate) fn tls_files(&self, host: &str) -> TlsFiles {
        let settings = self.hosts.get(host).cloned().unwrap_or_default();
        let mut files = TlsFiles {
            ca: settings.ca,
            keypairs: settings.keypairs,
        };
        let hub = host == HUB_HTTP_HOST;
        let dirs = self
            .cert_dirs
            .iter()
            .map(|dir| dir.join(if hub { DEFAULT_HOST } else { host }));
        for dir in settings.cert_dirs.into_iter().chain(dirs) {
            let Ok(entries) = std::fs::read_dir(&dir) else {
                continue;
            };
            let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
            paths.sort();
            for path in paths {
                match path.extension().and_then(|e| e.to_str()) {
                    Some("crt") => files.ca.push(path),
                    Some("cert") => files
                        .keypairs
                        .push((path.with_extension("cert"), path.with_extension("key"))),
                    _ => {}
                }
            }
        }
        files
    }

    /// A variable of the environment given to [`Self::load`], also under its lower-case name.
    pub(crate) fn env(&self, name: &str) -> Option<&str> {
        let lower = name.to_ascii_lowercase();
        [lower.as_str(), name]
            .iter()
            .find_map(|n| self.env.get(*n))
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    }

    fn host_mut(&mut self, host: &str) -> &mut HostSettings {
        self.hosts.entry(canonical_host(host)).or_default()
    }

    fn read(&mut self, path: &Path) -> Result<Option<String>, ConfigError> {
        let text = read_file(path)?;
        if text.is_some() {
            self.files.insert(path.to_owned());
        }
        Ok(text)
    }
}

/// The text of a file, if there is one.
fn read_file(path: &Path) -> Result<Option<String>, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(Some(text))
}

/// One spelling for a host: lower case, Docker Hub under one name, no default HTTPS port.
pub(crate) fn canonical_host(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix(":443").unwrap_or(&host);
    match host {
        "index.docker.io" | HUB_HTTP_HOST => DEFAULT_HOST.to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests;
