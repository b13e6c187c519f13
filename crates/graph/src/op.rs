//! The operations of a build graph, field for field those of BuildKit's `solver/pb/ops.proto`.
//!
//! Every field takes part in the definition digest: it is the serialised form that is hashed, and no field is
//! skipped. Two operations that differ in any field are different vertices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Index of an input of the vertex (position in [`crate::Vertex::inputs`]); `None` is "empty" (scratch).
pub type InputIndex = Option<u32>;
/// Index of an output of the vertex; `None` is "not an output".
pub type OutputIndex = Option<u32>;

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Brings a root file system from outside the graph.
    Source(SourceOp),
    /// Runs a process.
    Exec(Box<ExecOp>),
    /// Changes files without running a process.
    File(FileOp),
    /// Stacks inputs on each other.
    Merge(MergeOp),
    /// What the upper input has over the lower.
    Diff(DiffOp),
}

/// `docker-image://ref`, `local://name`, `git://…`, `https://…`, `oci-layout://…`, with the attributes of
/// `solver/pb/attr.go`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceOp {
    /// Scheme and reference.
    pub identifier: String,
    /// Attributes such as `local.excludepatterns`, each a JSON text where BuildKit's is.
    pub attrs: BTreeMap<String, String>,
}

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
    /// Key the input by the content under the selector instead of by its definition
    /// (`MountContentCache` of BuildKit).
    pub content_cache: bool,
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
        /// Its id.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetMode {
    /// The builder's choice.
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

/// File changes, applied in order; each works on an input or on the result of an earlier action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOp {
    /// The actions.
    pub actions: Vec<FileAction>,
}

/// One action. Inputs are numbered: first the vertex's inputs, then the results of the actions in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAction {
    /// What it changes; `None` is an empty root.
    pub input: InputIndex,
    /// What it copies from (copy) or takes the user database from (others).
    pub secondary_input: InputIndex,
    /// Output it makes.
    pub output: OutputIndex,
    /// What is done.
    pub kind: FileActionKind,
}

/// Kinds of file action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileActionKind {
    /// Copy from the secondary input.
    Copy(CopyAction),
    /// Write a file.
    MkFile(MkFileAction),
    /// Make a directory.
    MkDir(MkDirAction),
    /// Remove.
    Rm(RmAction),
    /// Make a symbolic link.
    Symlink(SymlinkAction),
}

/// Owner given by name or number, resolved in the user database of the changed root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserOpt {
    /// `user`, `uid`, `user:group`, …, as written.
    pub spec: String,
}

/// Time set on what an action makes: seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTime {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds below one second.
    pub nanoseconds: u32,
}

/// `FileActionCopy` of BuildKit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "field for field BuildKit's message")]
pub struct CopyAction {
    /// Source path, absolute in the secondary input; may hold wildcards.
    pub src: String,
    /// Destination path.
    pub dest: String,
    /// Owner of what is copied; `None` keeps the source's.
    pub owner: Option<UserOpt>,
    /// Octal mode for files and directories.
    pub mode: Option<u32>,
    /// Symbolic mode such as `u=rwX,go=rX`.
    pub mode_str: Option<String>,
    /// Follow the source if it is a link.
    pub follow_symlink: bool,
    /// Copy what is in a directory, not the directory.
    pub dir_copy_contents: bool,
    /// Unpack the source if it is an archive.
    pub attempt_unpack: bool,
    /// Make missing parents of the destination.
    pub create_dest_path: bool,
    /// Wildcards are allowed in `src`.
    pub allow_wildcard: bool,
    /// A wildcard without a match is not an error.
    pub allow_empty_wildcard: bool,
    /// Patterns that limit what is copied.
    pub include_patterns: Vec<String>,
    /// Patterns that are left out.
    pub exclude_patterns: Vec<String>,
    /// Replace a destination of another type.
    pub always_replace_existing: bool,
    /// Patterns that must match something.
    pub required_paths: Vec<String>,
    /// Time for everything copied.
    pub time: Option<FileTime>,
}

/// `FileActionMkFile` of BuildKit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MkFileAction {
    /// Path.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// Content.
    pub data: Vec<u8>,
    /// Owner.
    pub owner: Option<UserOpt>,
    /// Time.
    pub time: Option<FileTime>,
}

/// `FileActionMkDir` of BuildKit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MkDirAction {
    /// Path.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// Make missing parents, and accept an existing directory.
    pub make_parents: bool,
    /// Owner.
    pub owner: Option<UserOpt>,
    /// Time.
    pub time: Option<FileTime>,
}

/// `FileActionRm` of BuildKit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RmAction {
    /// Path; may hold wildcards.
    pub path: String,
    /// A missing path is not an error.
    pub allow_not_found: bool,
    /// Wildcards are allowed.
    pub allow_wildcard: bool,
}

/// `FileActionSymlink` of BuildKit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SymlinkAction {
    /// Text of the link.
    pub target: String,
    /// Where it is made.
    pub path: String,
    /// Owner.
    pub owner: Option<UserOpt>,
    /// Time.
    pub time: Option<FileTime>,
}

/// Inputs stacked on each other, first at the bottom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeOp {
    /// Inputs.
    pub inputs: Vec<InputIndex>,
}

/// What `upper` has over `lower`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffOp {
    /// Lower input.
    pub lower: InputIndex,
    /// Upper input.
    pub upper: InputIndex,
}
