//! The seam between the commands and the engine: everything a command asks for is a method of [`Engine`], and
//! [`Native`] is the only place that calls the other crates. Commands are tested against an engine of their own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rbuild_builder::request::{BuildOutcome, BuildRequest};
use rbuild_graph::progress::Sink;
use rbuild_oci::Digest;
use rbuild_ui::diagnostic::Diagnostic;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::signals;

/// Why the engine did not do what it was asked.
#[derive(Debug)]
pub(crate) enum EngineError {
    /// It was stopped.
    Cancelled,
    /// It failed; this is what the user is told.
    Failed(Box<Diagnostic>),
}

impl EngineError {
    fn missing(what: &str) -> Self {
        Self::Failed(Box::new(Diagnostic::new(format!(
            "this build of rbuild cannot {what}"
        ))))
    }
}

/// What every command may set.
#[derive(Debug, Clone, Default)]
pub(crate) struct EngineOptions {
    /// Store to use instead of the default one.
    pub(crate) root: Option<PathBuf>,
    /// Most steps, and threads, at once.
    pub(crate) jobs: Option<usize>,
}

/// One name of an image in the store, or an image without a name.
#[derive(Debug, Clone)]
pub(crate) struct ImageRow {
    /// Repository in its short form; absent for an image without a name.
    pub(crate) repository: Option<String>,
    /// Tag.
    pub(crate) tag: Option<String>,
    /// Digest of the manifest or index.
    pub(crate) digest: Digest,
    /// Image id: the config's digest, or the index's.
    pub(crate) id: Digest,
    /// When it was made, as its config says.
    pub(crate) created: Option<SystemTime>,
    /// Compressed size of all its blobs.
    pub(crate) size_bytes: u64,
}

/// One thing that takes room in the store.
#[derive(Debug, Clone)]
pub(crate) struct UsageRow {
    pub(crate) id: String,
    pub(crate) parents: Vec<String>,
    pub(crate) created: SystemTime,
    pub(crate) mutable: bool,
    pub(crate) in_use: bool,
    pub(crate) shared: bool,
    pub(crate) size_bytes: u64,
    pub(crate) description: String,
    pub(crate) usage_count: u64,
    pub(crate) last_used: Option<SystemTime>,
    /// `regular`, `source.local`, `exec.cachemount`, …
    pub(crate) kind: String,
}

/// Records a command is about: those that match every one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UsageFilter {
    /// Not used for at least this long.
    pub(crate) unused_for: Option<Duration>,
    /// `key=value`, with BuildKit's keys (`id`, `parents`, `description`, `type`, `inuse`, `mutable`, `shared`,
    /// `private`).
    pub(crate) fields: Vec<(String, String)>,
}

/// What `prune` removes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PruneRequest {
    /// Records of internal use too.
    pub(crate) all: bool,
    /// Which.
    pub(crate) filter: UsageFilter,
    /// This much is always kept.
    pub(crate) reserved_bytes: Option<u64>,
    /// No more than this is kept.
    pub(crate) max_used_bytes: Option<u64>,
    /// This much of the disk shall be free.
    pub(crate) min_free_bytes: Option<u64>,
}

/// What removing an image did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    /// Names that are gone.
    pub(crate) untagged: Vec<String>,
    /// Manifests that nothing names any more.
    pub(crate) deleted: Vec<Digest>,
}

/// What the commands need.
pub(crate) trait Engine {
    /// Builds.
    fn build(&self, request: BuildRequest, sink: Arc<dyn Sink>) -> Result<BuildOutcome, EngineError>;
    /// Pushes images of the store; returns name and manifest digest of each.
    fn push(&self, names: &[String], sink: Arc<dyn Sink>) -> Result<Vec<(String, Digest)>, EngineError>;
    /// Pulls images into the store; returns name and manifest digest of each.
    fn pull(
        &self,
        names: &[String],
        platform: Option<&str>,
        sink: Arc<dyn Sink>,
    ) -> Result<Vec<(String, Digest)>, EngineError>;
    /// Every image.
    fn images(&self) -> Result<Vec<ImageRow>, EngineError>;
    /// Gives the image `source` the name `target` too.
    fn tag(&self, source: &str, target: &str) -> Result<(), EngineError>;
    /// Takes a name, or an image with all its names (`force`), out of the store.
    fn remove_image(&self, name: &str, force: bool) -> Result<Removed, EngineError>;
    /// What takes room.
    fn usage(&self, filter: &UsageFilter) -> Result<Vec<UsageRow>, EngineError>;
    /// Removes records; returns those that are gone.
    fn prune(&self, request: &PruneRequest) -> Result<Vec<UsageRow>, EngineError>;
}

/// Runs this process as a step's init if it was started as one. Called before anything else.
pub(crate) fn init_if_requested() {
    // WIRE: rbuild_sandbox::init_if_requested()
}

/// No core dumps and no tracing: the memory of this process may hold credentials and secrets.
pub(crate) fn harden() {
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Failing here means the limit is already lower, or that a policy forbids even this: nothing to tell anyone.
    let _already_low = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    let _not_supported =
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    // WIRE: if a user namespace needs /proc/self/{uid,gid}_map to be writable, rbuild_sys::userns sets dumpable anew.
}

/// The engine of this program, with the runtime it lives on.
#[derive(Debug)]
pub(crate) struct Native {
    options: EngineOptions,
    runtime: Runtime,
    cancel: CancellationToken,
}

impl Native {
    /// Enters the namespaces, then starts the threads: a process with threads cannot change its user namespace.
    pub(crate) fn open(options: EngineOptions) -> Result<Box<dyn Engine>, EngineError> {
        // WIRE: rbuild_sys::userns::enter() if not root, then unshare the mount namespace.
        let workers = options.jobs.unwrap_or(usize::MAX).min(processors()).max(1);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_name("rbuild")
            .enable_all()
            .build()
            .map_err(|error| fail(format!("cannot start threads: {error}")))?;
        let cancel = CancellationToken::new();
        signals::watch(runtime.handle(), cancel.clone())
            .map_err(|error| fail(format!("cannot watch for signals: {error}")))?;
        Ok(Box::new(Self {
            options,
            runtime,
            cancel,
        }))
    }
}

fn fail(message: String) -> EngineError {
    EngineError::Failed(Box::new(Diagnostic::new(message)))
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

// WIRE: each of these is a call into rbuild_builder or rbuild_store with `self.options`, `self.runtime.block_on(…)`
// and `self.cancel`; `Cancelled` if the token is what ended it.
impl Engine for Native {
    fn build(&self, request: BuildRequest, sink: Arc<dyn Sink>) -> Result<BuildOutcome, EngineError> {
        drop((request, sink));
        self.runtime.block_on(async {
            if self.cancel.is_cancelled() {
                Err(EngineError::Cancelled)
            } else {
                Err(self.missing("build"))
            }
        })
    }

    fn push(&self, _names: &[String], _sink: Arc<dyn Sink>) -> Result<Vec<(String, Digest)>, EngineError> {
        Err(self.missing("push"))
    }

    fn pull(
        &self,
        _names: &[String],
        _platform: Option<&str>,
        _sink: Arc<dyn Sink>,
    ) -> Result<Vec<(String, Digest)>, EngineError> {
        Err(self.missing("pull"))
    }

    fn images(&self) -> Result<Vec<ImageRow>, EngineError> {
        Err(self.missing("list images"))
    }

    fn tag(&self, _source: &str, _target: &str) -> Result<(), EngineError> {
        Err(self.missing("tag"))
    }

    fn remove_image(&self, _name: &str, _force: bool) -> Result<Removed, EngineError> {
        Err(self.missing("remove images"))
    }

    fn usage(&self, _filter: &UsageFilter) -> Result<Vec<UsageRow>, EngineError> {
        Err(self.missing("measure its store"))
    }

    fn prune(&self, _request: &PruneRequest) -> Result<Vec<UsageRow>, EngineError> {
        Err(self.missing("prune"))
    }
}

impl Native {
    fn missing(&self, what: &str) -> EngineError {
        match &self.options.root {
            Some(root) => EngineError::missing(&format!("{what} in {}", root.display())),
            None => EngineError::missing(what),
        }
    }
}
