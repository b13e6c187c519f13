//! The operations: what each is made of (its key) and how it runs. One file for each kind.

pub mod content;
pub mod define;
pub mod exec;
pub mod file;
pub mod host_ca;
pub mod local;
pub mod network_files;
pub mod source;
pub mod stack;
pub mod view;

use std::sync::{Arc, Mutex, PoisonError};

use rbuild_fileops::{ActionError, HashError, MissingSource};
use rbuild_graph::InputIndex;
use rbuild_sandbox::{SpawnError, WaitError};
use rbuild_snapshotter::{ExplicitError, StackError};
use rbuild_store::{IndexError, LayerEntry, LayerId, MountError, StoreError};

use crate::client::LocalError;
use crate::images::ImageError;
use crate::job::Job;
use crate::pull::PullError;
use crate::request::Entitlement;
use crate::secrets::SecretError;
use crate::source_policy::PolicyError;
use crate::ssh::SshError;
use crate::straight;
use crate::value::{Chain, Value};

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// A step's process failed.
    #[error("process {command:?} did not complete successfully: {exit}")]
    Process {
        /// Program and arguments, joined by spaces.
        command: String,
        /// `exit code: 1`, `signal: killed`.
        exit: String,
        /// What helps.
        hint: Option<String>,
    },
    /// A step did not end in time.
    #[error("process {command:?} was ended: it did not complete within {after:?}")]
    TimeIsUp {
        /// Program and arguments, joined by spaces.
        command: String,
        /// How long it had.
        after: std::time::Duration,
    },
    /// There is no network of the build's own.
    #[error(transparent)]
    Network(#[from] crate::private_network::PrivateNetworkError),
    /// There is no proxy for the step.
    #[error(transparent)]
    ProxyNetwork(#[from] crate::proxy_network::ProxyNetworkError),
    /// A limit that cannot be one.
    #[error(transparent)]
    Limit(#[from] exec::limits::LimitError),
    /// A step could not be started.
    #[error("process {command:?}")]
    Spawn {
        /// Program and arguments, joined by spaces.
        command: String,
        /// Why.
        #[source]
        source: SpawnError,
    },
    /// A step's program is not there, or cannot be run. The words are BuildKit's, which tells how the runtime ended that
    /// could not start it; the reason is in the step's output there.
    #[error("process {command:?} did not complete successfully: exit code: {code}")]
    NotRun {
        /// Program and arguments, joined by spaces.
        command: String,
        /// What the runtime would have ended with.
        code: i32,
        /// Why, in words.
        why: String,
    },
    /// A step's sandbox could not be made, or its program is for another processor.
    #[error("process {command:?} did not complete successfully")]
    Sandbox {
        /// Program and arguments, joined by spaces.
        command: String,
        /// Why.
        #[source]
        source: WaitError,
    },
    /// A part of a tmpfs is to be mounted, which is empty.
    #[error("process {command:?} did not complete successfully: open {path}: no such file or directory")]
    NothingInMemory {
        /// Program and arguments, joined by spaces.
        command: String,
        /// The selected path.
        path: String,
    },
    /// The user of a step is not in the image.
    #[error("process {command:?} did not complete successfully{}", source.whose(user))]
    User {
        /// Program and arguments, joined by spaces.
        command: String,
        /// As written.
        user: String,
        /// Why.
        #[source]
        source: exec::user::UserError,
    },
    /// A step asks for what the build was not allowed.
    #[error("failed to load LLB: {0} is not allowed")]
    Entitlement(&'static str, Entitlement),
    /// What was tried when it went wrong, in words that BuildKit has for it.
    #[error("{words}")]
    During {
        /// Such as `failed to load cache key`.
        words: &'static str,
        /// Why.
        #[source]
        source: Box<OpError>,
    },
    /// A mount of a step could not be made. Which one is a hint: the words are those of BuildKit, which does not tell.
    #[error("{source}")]
    Mount {
        /// Mount point.
        dest: String,
        /// Why.
        #[source]
        source: Box<OpError>,
    },
    /// What is mounted at the root is no file system (`frontend/gateway/container/container.go`).
    #[error("invalid mount type {0} for /")]
    RootKind(&'static str),
    /// An ssh agent.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// A path selected for a mount is not in its input.
    #[error("{path:?} is not in the mounted input")]
    NoSuchPath {
        /// The selected path.
        path: String,
        /// Why.
        #[source]
        source: rbuild_sys::RootFdError,
    },
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] ActionError),
    /// An owner is a name, and what is changed began as nothing: there are no accounts to look it up in
    /// (`solver/llbsolver/ops/file.go`).
    #[error("invalid user index: -1")]
    NoAccounts,
    /// What a copy takes is not there. Of what is counted by its content that is known before, and told in other words
    /// (`solver/llbsolver/file/backend.go`).
    #[error("lstat {}: no such file or directory", .0.path.display())]
    NoSource(Box<MissingSource>),
    /// Content could not be read for a key.
    #[error("failed to calculate checksum")]
    Hash(#[from] HashError),
    /// A key's selector is damaged.
    #[error("read selector")]
    Selector(#[source] serde_json::Error),
    /// An operation refers to an input it does not have.
    #[error("operation has no input {0:?}, or it is no file system")]
    NoSuchInput(InputIndex),
    /// A device of the host.
    #[error(transparent)]
    Device(#[from] crate::cdi::CdiError),
    /// An operation names an output past those it has.
    #[error("operation has no output {0}")]
    NoSuchOutput(u32),
    /// A layer of changes, for a merge or a difference.
    #[error(transparent)]
    Explicit(#[from] ExplicitError),
    /// An operation of a kind that is not served yet.
    #[error("operation {0} is not supported yet")]
    UnsupportedOp(&'static str),
    /// A source of a kind that is not served yet.
    #[error("source {0} is not supported yet")]
    UnsupportedSource(String),
    /// A local directory.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A source may not be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A policy's say on a source that is only asked about, in BuildKit's words (`solver/llbsolver/bridge.go`).
    #[error("could not resolve image due to policy")]
    PolicyOfMeta(#[source] PolicyError),
    /// A blob as a file.
    #[error(transparent)]
    Blob(#[from] source::blob::BlobError),
    /// A file that the client offers.
    #[error(transparent)]
    Upload(#[from] source::upload::UploadError),
    /// A file behind a URL.
    #[error(transparent)]
    Http(Box<source::http::HttpError>),
    /// A git repository.
    #[error(transparent)]
    Git(Box<source::git::GitSourceError>),
    /// A base image.
    #[error(transparent)]
    Image(Box<ImageError>),
    /// A layer of a base image.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A cache mount.
    #[error(transparent)]
    CacheMount(#[from] MountError),
    /// The host's certificates.
    #[error(transparent)]
    HostCa(#[from] host_ca::HostCaError),
    /// A snapshot.
    #[error(transparent)]
    Snapshot(#[from] StackError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store's index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A file of the host.
    #[error("read {path:?}")]
    Host {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The build was stopped.
    #[error("context canceled")]
    Canceled,
}

impl From<ImageError> for OpError {
    fn from(error: ImageError) -> Self {
        Self::Image(Box::new(error))
    }
}

impl From<source::http::HttpError> for OpError {
    fn from(error: source::http::HttpError) -> Self {
        Self::Http(Box::new(error))
    }
}

impl From<source::git::GitSourceError> for OpError {
    fn from(error: source::git::GitSourceError) -> Self {
        Self::Git(Box::new(error))
    }
}

impl OpError {
    /// Whether a step's own process failed, so that it may do better when it is run again.
    pub(crate) const fn is_of_the_process(&self) -> bool {
        matches!(self, Self::Process { .. } | Self::TimeIsUp { .. })
    }

    /// The missing COPY source, if that is what went wrong.
    #[must_use]
    pub(crate) fn missing_source(&self) -> Option<&MissingSource> {
        match self {
            Self::File(ActionError::Copy(error)) => error.missing(),
            Self::Hash(error) => error.missing(),
            Self::NoSource(missing) => Some(missing),
            Self::Mount { source, .. } | Self::During { source, .. } => source.missing_source(),
            _ => None,
        }
    }

    /// The same behind words that say what was tried.
    pub(crate) fn during(self, words: &'static str) -> Self {
        match self {
            Self::Canceled => self,
            source => Self::During {
                words,
                source: Box::new(source),
            },
        }
    }

    /// What went wrong, whatever was tried then.
    #[must_use]
    pub fn itself(&self) -> &Self {
        match self {
            Self::During { source, .. } => source.itself(),
            error => error,
        }
    }
}

/// The chain an operation refers to; nothing is an empty file system, and a directory of the client becomes a layer.
///
/// # Errors
/// [`OpError::NoSuchInput`], and those of copying the directory.
pub(crate) async fn chain_of(job: &Job, input: InputIndex, inputs: &[Value]) -> Result<Chain, OpError> {
    let Some(index) = input else {
        return Ok(Chain::default());
    };
    let value = inputs.get(index as usize).ok_or(OpError::NoSuchInput(input))?;
    local::chain(job, value).await
}

/// A layer as a record names it: with the place it can be fetched from, where it has one.
#[must_use]
pub(crate) fn layer_entry(job: &Job, id: &LayerId, output: u32) -> LayerEntry {
    let descriptor = job
        .remote(id)
        .and_then(|remote| serde_json::to_string(&straight::recorded(&remote)).ok());
    LayerEntry {
        id: id.clone(),
        output,
        diff_id: id.diff_id(),
        descriptor,
    }
}

/// Runs blocking work on a thread that may block, from when it is first waited for. A panic in it goes on here.
pub fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> + Send + 'static {
    let result = Arc::new(Mutex::new(None));
    let put = Arc::clone(&result);
    value_of(
        Box::new(move || *put.lock().unwrap_or_else(PoisonError::into_inner) = Some(work())),
        result,
    )
}

async fn value_of<T>(work: BlockingWork, result: Arc<Mutex<Option<T>>>) -> T {
    run_blocking(work).await;
    let value = result.lock().unwrap_or_else(PoisonError::into_inner).take();
    value.unwrap_or_else(|| unreachable!("work that has ended has put its value there"))
}

/// Work whose types nobody sees: a runtime's task is compiled for each type else, and there are a hundred of them.
type BlockingWork = Box<dyn FnOnce() + Send>;

async fn run_blocking(work: BlockingWork) {
    match tokio::task::spawn_blocking(work).await {
        Ok(()) => {}
        Err(error) => match error.try_into_panic() {
            Ok(reason) => std::panic::resume_unwind(reason),
            // Only a runtime that is being dropped cancels blocking work, and then nobody waits for it.
            Err(_) => std::future::pending().await,
        },
    }
}
