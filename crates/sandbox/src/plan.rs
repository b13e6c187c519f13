//! What to run and in which surroundings: pure data, complete before anything is started.
//!
//! A plan names nothing of images, layers or the store; paths outside the step's root are the caller's own and
//! trusted, everything inside the root is hostile.

use std::ffi::OsString;
use std::path::PathBuf;

use rbuild_sys::overlay::{Form, OverlaySpec};
use serde::{Deserialize, Serialize};

use crate::wire;

mod injected;
mod limits;

pub use injected::{DeviceKind, DeviceNode, HostTree};
pub use limits::{Limits, Swap};

/// One process and its sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The root file system.
    pub root: RootPlan,
    /// Mounts beyond the usual ones (`/proc`, `/sys`, `/dev`, …), in any order: parents are mounted first. A mount
    /// at the place of a usual one (`/dev/shm`, `/etc/hosts`) takes its place; on or below `/proc` and `/sys`
    /// none is accepted.
    pub mounts: Vec<MountPlan>,
    /// What runs in there.
    pub process: Process,
    /// The host name of its uts namespace. BuildKit's default is `buildkitsandbox`.
    pub hostname: String,
    /// What it can reach.
    pub network: Network,
    /// What it may do.
    pub security: Security,
    /// Content of `/etc/resolv.conf`, mounted read-only; `None` leaves the image's own.
    #[serde(with = "wire::optional_bytes")]
    pub resolv_conf: Option<Vec<u8>>,
    /// Content of `/etc/hosts`, mounted read-only; `None` leaves the image's own.
    #[serde(with = "wire::optional_bytes")]
    pub hosts: Option<Vec<u8>>,
    /// Size of `/dev/shm` in bytes; `None` is Docker's 64 MiB.
    pub shm_size_bytes: Option<u64>,
    /// Put the step into cgroups of its own below this path of every hierarchy there is.
    #[serde(with = "wire::optional_path")]
    pub cgroup_parent: Option<PathBuf>,
    /// What it may use.
    pub limits: Limits,
    /// What keeps it apart.
    pub confinement: Confinement,
    /// Its processes may speak with those of other steps, and so pass descriptors on: a directory is shared with them, or a
    /// network on which nothing keeps abstract sockets apart. [`Exit::is_in_use`](crate::Exit::is_in_use) is found out then.
    pub meets_others: bool,
}

impl Plan {
    /// A plan for `args` as root of `root`, with nothing else: `/` as working directory, no environment, no network.
    #[must_use]
    pub fn new(root: RootPlan, args: Vec<OsString>) -> Self {
        Self {
            root,
            mounts: Vec::new(),
            process: Process::new(args),
            hostname: "buildkitsandbox".to_owned(),
            network: Network::None,
            security: Security::Sandbox,
            resolv_conf: None,
            hosts: None,
            shm_size_bytes: None,
            cgroup_parent: None,
            limits: Limits::default(),
            confinement: Confinement::Namespaces,
            meets_others: false,
        }
    }
}

/// A program and what it starts with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments. A program without `/` is looked for in the `PATH` of `env`, inside the root.
    #[serde(with = "wire::os_strings")]
    pub args: Vec<OsString>,
    /// The whole environment, as `NAME=value`; nothing is added.
    #[serde(with = "wire::os_strings")]
    pub env: Vec<OsString>,
    /// Working directory inside the root. Made if it is missing, owned by `ids` (as BuildKit's executor does).
    #[serde(with = "wire::path")]
    pub cwd: PathBuf,
    /// Who the process is.
    pub ids: Ids,
    /// Resource limits that differ from the caller's own. Core dumps are off unless named here.
    pub rlimits: Vec<Rlimit>,
    /// Its standard streams.
    pub stdio: Stdio,
}

impl Process {
    /// `args` as root in `/`, with no environment and nothing to read.
    #[must_use]
    pub fn new(args: Vec<OsString>) -> Self {
        Self {
            args,
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            ids: Ids {
                uid: 0,
                gid: 0,
                groups: vec![0],
            },
            rlimits: Vec::new(),
            stdio: Stdio::Pipes { stdin: None },
        }
    }
}

/// The standard streams of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// Output and errors are read from [`crate::Running`].
    Pipes {
        /// The n-th of the descriptors given to `Sandbox::spawn` is its input; without one there is nothing to read.
        stdin: Option<usize>,
    },
    /// All three are a new terminal of the sandbox's own, which controls the process; the caller's end of it comes with
    /// [`crate::Ready`].
    Terminal(TerminalSize),
}

/// How large a terminal is when its process starts: what asks at once gets an answer. Nothing is said of it by the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// The root of a step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootPlan {
    /// What is mounted at `/`.
    pub source: Source,
    /// Make `/` itself read-only once all mounts are in place.
    pub readonly: bool,
}

/// Where a tree comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Source {
    /// A trusted path of the caller's mount namespace.
    Path(#[serde(with = "wire::path")] PathBuf),
    /// The n-th of the descriptors given to `Sandbox::spawn`: a directory or file (`O_PATH` will do), or a
    /// detached mount, which on kernels before 6.15 can be used only once.
    Fd(usize),
    /// The mount that [`Sandbox::spawn_on`](crate::Sandbox::spawn_on) is given; of a root only.
    Given,
    /// A stack of layers.
    Overlay(OverlayPlan),
}

/// An overlay to be mounted; see [`OverlaySpec`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OverlayPlan {
    /// Which attributes carry the metadata.
    #[serde(with = "wire::form")]
    pub form: Form,
    /// Read-only layers, top first.
    #[serde(with = "wire::paths")]
    pub lowers: Vec<PathBuf>,
    /// Where writes go.
    #[serde(with = "wire::optional_path")]
    pub upper: Option<PathBuf>,
    /// The kernel's work directory; needed with `upper`.
    #[serde(with = "wire::optional_path")]
    pub work: Option<PathBuf>,
    /// Skip syncs to the upper file system. Without it the end of each step waits for the disk: set it for a step
    /// whose layer is synced, or thrown away, by what comes after.
    pub volatile: bool,
}

impl OverlayPlan {
    /// The same, to be mounted by the caller.
    #[must_use]
    pub fn spec(&self) -> OverlaySpec {
        OverlaySpec {
            form: self.form,
            lowers: self.lowers.clone(),
            upper_work: self.upper.clone().zip(self.work.clone()),
            volatile: self.volatile,
        }
    }
}

/// One mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountPlan {
    /// Where, inside the root. Links are followed and end inside the root; missing parts are made, and taken away
    /// after the step if they are still empty.
    #[serde(with = "wire::path")]
    pub dest: PathBuf,
    /// What.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum MountKind {
    /// A directory, file or socket. (An ssh agent is a bind of its socket file.)
    Bind {
        /// The tree.
        source: Source,
        /// Path inside the tree, resolved with links ending inside it; empty for the tree itself.
        #[serde(with = "wire::path")]
        selector: PathBuf,
        /// No writes through this mount. An insecure step has the right to undo that; give it an overlay without
        /// an upper where the source must not change.
        readonly: bool,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Limit in bytes; `None` is the kernel's half of the memory.
        size_bytes: Option<u64>,
        /// Permission bits of its root; `None` is those of the directory it covers, and 1777 where there was none (runc's
        /// `mountToRootfs`).
        mode: Option<u32>,
    },
    /// A read-only file that exists only in memory, for secrets.
    File {
        /// Its bytes.
        #[serde(with = "wire::bytes")]
        content: Vec<u8>,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permission bits.
        mode: u32,
    },
    /// A device of the host, which can be opened.
    Device(DeviceNode),
    /// What comes with a device.
    HostTree(HostTree),
}

/// Who a process is. `groups` is the complete supplementary list; it should hold `gid`, as BuildKit makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// What a step can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The network namespace of the caller.
    Host,
    /// A network namespace with a loopback interface only.
    None,
    /// The network namespace that is the n-th of the descriptors given to `Sandbox::spawn`, as it is.
    Given(usize),
}

/// What keeps a step apart from everything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Confinement {
    /// Namespaces of its own, of all kinds but users.
    #[default]
    Namespaces,
    /// A root directory of its own and rights that are given up, where there can be no namespaces. Its root and mounts are
    /// directories of the caller's ([`Source::Path`]) on one file system, which the step can all write to.
    Chroot,
}

/// What a step may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Security {
    /// Docker's default capabilities, seccomp profile, masked and read-only paths. `no_new_privs` is off, as
    /// BuildKit runs build steps (`oci.WithNewPrivileges` in executor/oci/spec.go): set-user-id programs such as
    /// `sudo` and `su` work.
    Sandbox,
    /// All capabilities of the caller, no seccomp, nothing masked, `/sys` writable, host devices present.
    Insecure,
}

/// One resource limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Which.
    pub resource: RlimitResource,
    /// The soft limit; `None` is no limit.
    pub soft: Option<u64>,
    /// The hard limit; `None` is no limit.
    pub hard: Option<u64>,
    /// The user asked for this: it is an error when the machine does not allow it. Otherwise it is lowered to
    /// what is allowed, with a warning.
    pub required: bool,
}

macro_rules! rlimits {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// The resources `--ulimit` names (github.com/docker/go-units, ulimit.go).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum RlimitResource {
            $(
                #[doc = concat!("`", $name, "` of `--ulimit`.")]
                $variant,
            )*
        }

        impl RlimitResource {
            /// The name as `--ulimit` and error texts have it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The resource of that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }

            pub(crate) const fn kernel(self) -> rustix::process::Resource {
                match self { $(Self::$variant => rustix::process::Resource::$variant,)* }
            }
        }
    };
}

rlimits! {
    Core = "core", Cpu = "cpu", Data = "data", Fsize = "fsize", Locks = "locks", Memlock = "memlock",
    Msgqueue = "msgqueue", Nice = "nice", Nofile = "nofile", Nproc = "nproc", Rss = "rss", Rtprio = "rtprio",
    Rttime = "rttime", Sigpending = "sigpending", Stack = "stack",
}
