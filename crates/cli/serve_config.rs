//! `buildkitd.toml` as far as the server itself reads it (`cmd/buildkitd/config/config.go`); what it says of registries
//! is read by the registry client. Every key of BuildKit's is known. Those that promise protection which rbuild does not
//! give are refused; those without a meaning here, and those nobody knows, are named in a warning.

mod values;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Value;

pub(crate) use values::{DiskSpace, Time};

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
    /// It asks for what would not be done.
    #[error("{path:?}: {key}: {why}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is missing.
        why: &'static str,
    },
}

/// Keys of a table that are not read.
type Rest = BTreeMap<String, Value>;

/// What is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ServeConfig {
    /// Directory of everything that is kept.
    pub(crate) root: Option<PathBuf>,
    /// Old spelling of `log.level`.
    pub(crate) debug: bool,
    pub(crate) trace: bool,
    /// What builds may be given.
    #[serde(rename = "insecure-entitlements")]
    pub(crate) insecure_entitlements: Vec<String>,
    #[serde(rename = "proxyNetwork")]
    pub(crate) proxy_network: bool,
    pub(crate) log: Log,
    /// Where what provenance says of this machine is.
    #[serde(rename = "provenanceEnvDir")]
    pub(crate) provenance_env_dir: Option<PathBuf>,
    /// Sockets.
    pub(crate) grpc: Grpc,
    /// Workers.
    pub(crate) worker: Workers,
    pub(crate) dns: Dns,
    pub(crate) history: Option<History>,
    pub(crate) frontend: Frontends,
    pub(crate) cdi: Cdi,
    cache: Caches,
    /// Read by the registry client.
    #[serde(rename = "registry")]
    _registry: Rest,
    #[serde(flatten)]
    rest: Rest,
}

/// `[cache]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Caches {
    gha: GhaCaches,
    #[serde(flatten)]
    rest: Rest,
}

/// `[cache.gha]`: only whether signatures are wanted matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GhaCaches {
    sign: Option<Rest>,
    verify: GhaVerify,
}

/// `[cache.gha.verify]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GhaVerify {
    required: bool,
}

/// `[cdi]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Cdi {
    pub(crate) disabled: bool,
    #[serde(rename = "specDirs")]
    pub(crate) spec_dirs: Vec<PathBuf>,
    #[serde(rename = "autoAllowed")]
    pub(crate) auto_allowed: Vec<String>,
    #[serde(flatten)]
    rest: Rest,
}

/// `[log]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Log {
    pub(crate) format: String,
    pub(crate) level: String,
    #[serde(flatten)]
    rest: Rest,
}

/// `[grpc]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Grpc {
    pub(crate) address: Vec<String>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) tls: Tls,
    #[serde(flatten)]
    rest: Rest,
}

/// `[grpc.tls]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tls {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca: PathBuf,
    #[serde(flatten)]
    rest: Rest,
}

/// `[worker]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Workers {
    pub(crate) oci: Worker,
    containerd: Containerd,
}

/// `[worker.oci]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Worker {
    enabled: Option<bool>,
    pub(crate) labels: HashMap<String, String>,
    #[serde(rename = "max-parallelism")]
    pub(crate) max_parallelism: usize,
    pub(crate) gc: Option<bool>,
    pub(crate) gckeepstorage: DiskSpace,
    #[serde(rename = "reservedSpace")]
    pub(crate) reserved_space: DiskSpace,
    #[serde(rename = "maxUsedSpace")]
    pub(crate) max_used_space: DiskSpace,
    #[serde(rename = "minFreeSpace")]
    pub(crate) min_free_space: DiskSpace,
    pub(crate) gcpolicy: Vec<GcPolicy>,
    #[serde(rename = "networkMode")]
    network_mode: String,
    #[serde(rename = "userRemapUnsupported")]
    user_remap: String,
    #[serde(rename = "apparmor-profile")]
    apparmor_profile: String,
    selinux: bool,
    /// Does not matter: the sandbox is the same with and without.
    #[serde(rename = "rootless")]
    _rootless: bool,
    #[serde(flatten)]
    rest: Rest,
}

/// `[[worker.oci.gcpolicy]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GcPolicy {
    pub(crate) all: bool,
    pub(crate) filters: Vec<String>,
    #[serde(rename = "keepDuration")]
    pub(crate) keep_duration: Time,
    #[serde(rename = "keepBytes")]
    pub(crate) keep_bytes: DiskSpace,
    #[serde(rename = "reservedSpace")]
    pub(crate) reserved_space: DiskSpace,
    #[serde(rename = "maxUsedSpace")]
    pub(crate) max_used_space: DiskSpace,
    #[serde(rename = "minFreeSpace")]
    pub(crate) min_free_space: DiskSpace,
    #[serde(flatten)]
    rest: Rest,
}

/// `[worker.containerd]`: only whether it is wanted matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Containerd {
    enabled: Option<bool>,
}

/// `[dns]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Dns {
    pub(crate) nameservers: Vec<std::net::IpAddr>,
    pub(crate) options: Vec<String>,
    #[serde(rename = "searchDomains")]
    pub(crate) search_domains: Vec<String>,
    #[serde(flatten)]
    rest: Rest,
}

/// `[history]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct History {
    #[serde(rename = "maxAge")]
    pub(crate) max_age: Time,
    #[serde(rename = "maxEntries")]
    pub(crate) max_entries: usize,
    #[serde(flatten)]
    rest: Rest,
}

/// `[frontend]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Frontends {
    #[serde(rename = "dockerfile.v0")]
    pub(crate) dockerfile: Frontend,
    #[serde(rename = "gateway.v0")]
    pub(crate) gateway: Frontend,
    #[serde(flatten)]
    rest: Rest,
}

/// `[frontend."gateway.v0"]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Frontend {
    pub(crate) enabled: Option<bool>,
    #[serde(rename = "allowedRepositories")]
    pub(crate) allowed_repositories: Vec<String>,
    #[serde(flatten)]
    rest: Rest,
}

impl ServeConfig {
    /// Reads `path`; a file that is not there says nothing. Also gives the keys that have no effect.
    ///
    /// # Errors
    /// [`ServeConfigError`].
    pub(crate) fn read(path: &Path) -> Result<(Self, Vec<String>), ServeConfigError> {
        use std::io::Read as _;
        let fail = |source| ServeConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default().judged()),
            Err(error) => return Err(fail(error)),
        };
        let mut text = String::new();
        file.take(CONFIG_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(fail)?;
        let read: Self = toml::from_str(&text).map_err(|source| ServeConfigError::Toml {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        if let Some((key, why)) = read.refused() {
            return Err(ServeConfigError::Refused {
                path: path.to_owned(),
                key,
                why,
            });
        }
        Ok(read.judged())
    }

    fn judged(self) -> (Self, Vec<String>) {
        let idle = self.without_effect();
        (self, idle)
    }

    /// The first key that asks for what would not be done, and what is missing.
    fn refused(&self) -> Option<(&'static str, &'static str)> {
        let oci = &self.worker.oci;
        let network = oci.network_mode.as_str();
        let refusals = [
            (
                oci.enabled == Some(false),
                "worker.oci.enabled",
                "rbuild has no other worker",
            ),
            (
                self.worker.containerd.enabled == Some(true),
                "worker.containerd.enabled",
                "rbuild has no containerd worker",
            ),
            (
                !matches!(network, "" | "auto" | "host"),
                "worker.oci.networkMode",
                "steps have the network of the host, or none",
            ),
            (
                !oci.apparmor_profile.is_empty(),
                "worker.oci.apparmor-profile",
                "rbuild does not apply AppArmor profiles",
            ),
            (
                oci.selinux,
                "worker.oci.selinux",
                "rbuild does not apply SELinux labels",
            ),
            (
                self.cache.gha.sign.is_some(),
                "cache.gha.sign",
                "rbuild does not sign caches",
            ),
            (
                self.cache.gha.verify.required,
                "cache.gha.verify.required",
                "rbuild does not check signatures of caches",
            ),
            (
                !oci.user_remap.is_empty(),
                "worker.oci.userRemapUnsupported",
                "run rbuild without root instead",
            ),
        ];
        let found = refusals.into_iter().find(|(is_asked, ..)| *is_asked);
        found.map(|(_, key, why)| (key, why))
    }

    /// Keys that were given and change nothing here.
    fn without_effect(&self) -> Vec<String> {
        let oci = &self.worker.oci;
        let tables = [
            ("", &self.rest),
            ("cache.", &self.cache.rest),
            ("log.", &self.log.rest),
            ("grpc.", &self.grpc.rest),
            ("grpc.tls.", &self.grpc.tls.rest),
            ("worker.oci.", &oci.rest),
            ("dns.", &self.dns.rest),
            ("cdi.", &self.cdi.rest),
            ("frontend.", &self.frontend.rest),
            ("frontend.\"dockerfile.v0\".", &self.frontend.dockerfile.rest),
            ("frontend.\"gateway.v0\".", &self.frontend.gateway.rest),
        ];
        let history = self.history.iter().map(|history| ("history.", &history.rest));
        let policies = oci
            .gcpolicy
            .iter()
            .map(|policy| ("worker.oci.gcpolicy.", &policy.rest));
        tables
            .into_iter()
            .chain(policies)
            .chain(history)
            .flat_map(|(table, rest)| rest.keys().map(move |key| format!("{table}{key}")))
            .collect()
    }
}

#[cfg(test)]
mod tests;
