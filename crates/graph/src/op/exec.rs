//! Operations that run a process: command, mounts, limits. Says nothing of how a sandbox makes them so.

use serde::{Deserialize, Serialize};

use super::{InputIndex, OutputIndex};

/// A process in a sandbox, with its mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOp {
    /// What is run, and as whom.
    pub meta: ExecMeta,
    /// The mounts; the one at `/` is the root.
    pub mounts: Vec<Mount>,
    /// Network of the process.
    pub network: NetMode,
    /// Whether the sandbox is lifted.
    pub security: SecurityMode,
    /// Secrets given as variables.
    pub secret_env: Vec<SecretEnv>,
    /// Devices of the host by their CDI names.
    pub cdi_devices: Vec<CdiDevice>,
}

impl ExecOp {
    /// How many outputs an edge to this operation may name.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.mounts.iter().filter(|mount| mount.output.is_some()).count()
    }
}

/// Process part of an exec.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExecMeta {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `KEY=value`, in order.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// `user`, `uid`, `user:group`; empty is root.
    pub user: String,
    /// Proxy variables, which are not part of the cache key (the definition digest leaves their values out by
    /// the solver's choice, see `builder::solve::key`).
    pub proxy_env: Option<ProxyEnv>,
    /// Lines for `/etc/hosts`.
    pub extra_hosts: Vec<HostIp>,
    /// Host name; empty is `buildkitsandbox`.
    pub hostname: String,
    /// Resource limits.
    pub ulimit: Vec<Ulimit>,
    /// Parent cgroup.
    pub cgroup_parent: String,
    /// Remove made mount points with their made parents.
    pub remove_mount_stubs_recursive: bool,
    /// Exit codes that are no failure; empty for 0 alone.
    pub valid_exit_codes: Vec<i32>,
}

/// Proxy variables for a step.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the variables they become")]
pub struct ProxyEnv {
    pub http_proxy: String,
    pub https_proxy: String,
    pub ftp_proxy: String,
    pub no_proxy: String,
    pub all_proxy: String,
}

/// One extra host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIp {
    /// Name.
    pub host: String,
    /// Address.
    pub ip: String,
}

/// One limit of `setrlimit(2)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Name without `RLIMIT_`, lower case.
    pub name: String,
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}

impl Ulimit {
    /// Names that may be limited (`docker/go-units/ulimit.go`), `as` is not among them.
    pub const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
}

/// A mount of an exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Input that is mounted, if any.
    pub input: InputIndex,
    /// Path inside the input.
    pub selector: String,
    /// Mount point.
    pub dest: String,
    /// Output that the changed mount becomes, if any.
    pub output: OutputIndex,
    /// No writing.
    pub readonly: bool,
    /// What is mounted.
    pub kind: MountKind,
    /// Whether the input may count by content.
    pub content_cache: ContentCache,
    /// Name under which a failed step's mount can be asked for.
    pub result_id: String,
}

impl Mount {
    /// A mount of `kind` at `dest`, writable, without input or output.
    #[must_use]
    pub fn new(dest: &str, kind: MountKind) -> Self {
        Self {
            input: None,
            selector: String::new(),
            dest: dest.to_owned(),
            output: None,
            readonly: false,
            kind,
            content_cache: ContentCache::Default,
            result_id: String::new(),
        }
    }

    /// Whether counting the input by content cannot give a wrong result (`exec.go`, `getMountDeps`).
    ///
    /// A writable mount of a part carries what was not selected into its output, so it counts by definition.
    #[must_use]
    pub fn may_count_by_content(&self) -> bool {
        self.output.is_none() || self.readonly || selects_everything(&self.selector)
    }

    /// Whether the input counts by the content under the selector instead of by its definition.
    #[must_use]
    pub fn counts_by_content(&self) -> bool {
        match self.content_cache {
            ContentCache::Off => false,
            ContentCache::On => self.may_count_by_content(),
            // Hashing a whole root costs more than it brings.
            ContentCache::Default => self.dest != "/" && self.may_count_by_content(),
        }
    }
}

fn selects_everything(selector: &str) -> bool {
    let mut depth = 0_usize;
    for part in selector.split('/') {
        match part {
            "" | "." => {}
            ".." => depth = depth.saturating_sub(1),
            _ => depth += 1,
        }
    }
    depth == 0
}

/// `MountContentCache` of BuildKit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentCache {
    /// Where it is safe, except for the root.
    #[default]
    Default,
    /// Required; an error where it is not safe.
    On,
    /// Never.
    Off,
}

/// A device of the host by its CDI name, such as `vendor.com/gpu=0`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CdiDevice {
    /// Qualified name.
    pub name: String,
    /// A missing device is not an error.
    pub optional: bool,
}

/// What a mount is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// The input itself.
    Bind,
    /// A persistent directory.
    Cache {
        /// Its id, as BuildKit makes it.
        id: String,
        /// Who may use it at the same time.
        sharing: CacheSharing,
    },
    /// Memory.
    Tmpfs {
        /// Bytes, 0 for no limit.
        size_bytes: u64,
    },
    /// A secret file.
    Secret {
        /// Its id.
        id: String,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permissions.
        mode: u32,
        /// A missing secret is not an error.
        optional: bool,
    },
    /// An ssh agent socket.
    Ssh {
        /// Its id; empty for [`DEFAULT_SSH_ID`].
        id: String,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permissions.
        mode: u32,
        /// A missing agent is not an error.
        optional: bool,
    },
}

/// The ssh agent that is meant where none is named (`session/sshforward`).
pub const DEFAULT_SSH_ID: &str = "default";

/// Sharing of a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheSharing {
    /// Any number at once.
    Shared,
    /// A new directory when another uses it.
    Private,
    /// Others wait.
    Locked,
}

/// A secret given as a variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEnv {
    /// Secret id.
    pub id: String,
    /// Variable.
    pub name: String,
    /// A missing secret is not an error.
    pub optional: bool,
}

/// Network of an exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetMode {
    /// The builder's choice.
    #[default]
    Unset,
    /// The host's.
    Host,
    /// Loopback only.
    None,
}

/// Security of an exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityMode {
    /// Docker's default profile.
    Sandbox,
    /// Nothing taken away; needs the `security.insecure` entitlement.
    Insecure,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mount_that_cannot_leak_counts_by_content() {
        let plain = Mount::new("/src", MountKind::Bind);
        let case = |change: &dyn Fn(&mut Mount)| {
            let mut mount = plain.clone();
            change(&mut mount);
            (mount.may_count_by_content(), mount.counts_by_content())
        };
        assert_eq!(case(&|_| {}), (true, true));
        assert_eq!(case(&|m| m.dest = "/".into()), (true, false));
        assert_eq!(
            case(&|m| {
                m.dest = "/".into();
                m.content_cache = ContentCache::On;
            }),
            (true, true)
        );
        assert_eq!(case(&|m| m.content_cache = ContentCache::Off), (true, false));
        let written = |selector: &str, readonly: bool| {
            case(&|m| {
                m.output = Some(0);
                m.selector = selector.into();
                m.readonly = readonly;
            })
        };
        assert_eq!(written("bar", false), (false, false));
        assert_eq!(written("bar", true), (true, true));
        assert_eq!(written("", false), (true, true));
        assert_eq!(written("/./", false), (true, true));
        assert_eq!(written("a/../..", false), (true, true));
        assert_eq!(written("../a", false), (false, false));
    }
}
