//! Why a command line is refused.

use std::path::PathBuf;

use rbuild_builder::cdi::EntitlementError;
use rbuild_builder::error::chain_text;
use rbuild_builder::request::ResourceError;
use rbuild_builder::ssh::KeyFileError;
use rbuild_server::policy::PolicyFileError;
use rbuild_ui::units::SizeError;
use rbuild_ui::values::{csv, export, host, key_value, resource, scalar, secret, ulimit};

use super::{attests, caches, contexts, outputs, rego};
use crate::stdin::StdinError;

/// Why the flags make no build.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    /// A flag or value that is recognised but not served.
    #[error("not supported yet: {0}")]
    NotSupported(String),
    /// A way to fill a directory that there is not.
    #[error("invalid local exporter mode {0:?}")]
    LocalMode(String),
    /// A directory whose files are not to be removed just so.
    #[error("local output mode=delete for destination {0:?} requires --allow=buildx.local.delete")]
    LocalDelete(PathBuf),
    /// An annotation of an output, and what is wrong with it.
    #[error("invalid annotation {0:?}: {1}")]
    Annotation(String, String),
    /// `--progress` or `BUILDKIT_PROGRESS`.
    #[error("invalid progress mode {0}")]
    Progress(String),
    /// `--quiet` and something to show.
    #[error("progress={0} and quiet cannot be used together")]
    QuietProgress(String),
    /// `--progress=tty` without a terminal.
    #[error("failed to get console: standard error is not a terminal")]
    NoConsole,
    /// No context.
    #[error("please specify build context (e.g. \".\" for the current directory)")]
    NoContext,
    /// The context is not there.
    #[error("unable to prepare context: path {0:?} not found")]
    ContextNotFound(String),
    /// `rbuild build -f - -`.
    #[error("invalid argument: can't use stdin for both build context and dockerfile")]
    StdinTwice,
    /// A Dockerfile on standard input and another by `--file`.
    #[error("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")]
    TwoDockerfiles,
    /// Standard input is of no use.
    #[error(transparent)]
    Stdin(#[from] StdinError),
    /// `--output`.
    #[error(transparent)]
    Export(#[from] export::ExportError),
    /// An output of an unknown type.
    #[error("exporter {0:?} could not be found")]
    ExportType(String),
    /// A directory is written, and none is given.
    #[error("dest is required for {0} exporter")]
    DestRequired(String),
    /// A directory cannot be standard output.
    #[error("dest cannot be stdout for {0} exporter")]
    DestStdout(String),
    /// A URL that is none, as Dockerfile. Its text may hold a password and is not shown.
    #[error("invalid URL of --file: {0}")]
    FileUrl(String),
    /// `source-date-epoch` of an output is no number.
    #[error("invalid source-date-epoch: {0:?} is no number of seconds")]
    OutputEpoch(String),
    /// A directory is written where a file is.
    #[error("destination directory {0} is a file")]
    DestIsFile(String),
    /// A file is written where a directory is.
    #[error("destination file {0} is a directory")]
    DestIsDirectory(String),
    /// Two outputs to standard output.
    #[error("multiple outputs configured to write to stdout")]
    StdoutTwice,
    /// An archive to a terminal.
    #[error("dest file is required for {0} exporter. refusing to write to console")]
    Console(String),
    /// The file with rules for sources.
    #[error("cannot read source policy {path}: {error}")]
    PolicyRead {
        /// File.
        path: PathBuf,
        /// Cause.
        error: std::io::Error,
    },
    /// What is in it.
    #[error("source policy {path}: {error}")]
    Policy {
        /// File.
        path: PathBuf,
        /// What is wrong.
        error: PolicyFileError,
    },
    /// `--load=docker` where the engine is behind no unix socket.
    #[error("not supported yet: --load into {variable}={address}: only engines behind unix:// sockets")]
    LoadAddress {
        /// The variable that says so.
        variable: &'static str,
        /// What it says.
        address: String,
    },
    /// Nothing to push as.
    #[error("tag is needed when pushing to registry")]
    PushWithoutTag,
    /// There is no image to name.
    #[error("local and tar exporters are incompatible with image ID file")]
    IidfileWithoutImage,
    /// `type=docker` for several platforms.
    #[error("docker exporter does not support exporting manifest lists, use the oci exporter instead")]
    DockerPlatforms,
    /// A compression that Docker's media types have no name for.
    #[error("exporter option \"compression={0}\" conflicts with \"oci-mediatypes=false\"")]
    CompressionNeedsOci(&'static str),
    /// A compression, or a level of one.
    #[error("invalid {key}={value} of output")]
    Compression {
        /// Attribute.
        key: &'static str,
        /// Value.
        value: String,
    },
    /// `--attest`, `--provenance`, `--sbom`.
    #[error(transparent)]
    Attest(#[from] attests::AttestError),
    /// `--cache-to`, `--cache-from`.
    #[error(transparent)]
    Cache(#[from] caches::CacheError),
    /// `--call` that is no list.
    #[error("invalid print value: {text}: {error}")]
    CallText {
        /// Text.
        text: String,
        /// What is wrong.
        error: csv::CsvError,
    },
    /// `--call` with two names.
    #[error("invalid print value: {0}")]
    CallName(String),
    /// `--call` with an option there is not.
    #[error("invalid print field: {0}")]
    CallField(String),
    /// `--call` with `ignorestatus` that is no boolean.
    #[error("invalid ignorestatus print value: {0}")]
    CallStatus(String),
    /// `--call` with a question there is not.
    #[error("unsupported request {0}")]
    CallUnknown(String),
    /// `--build-arg`, `--label`, `--annotation`.
    #[error(transparent)]
    KeyValue(#[from] key_value::KeyValueError),
    /// `--secret`.
    #[error(transparent)]
    Secret(#[from] secret::SecretError),
    /// The file of a secret is not there.
    #[error("failed to stat {path}: {error}")]
    SecretFile {
        /// File.
        path: PathBuf,
        /// Cause.
        error: std::io::Error,
    },
    /// `--ssh` without an agent.
    #[error("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")]
    SshNoAgent,
    /// `--ssh` with several sockets.
    #[error("only single socket allowed")]
    SshSockets,
    /// `--ssh` with keys and a socket.
    #[error("invalid combination of keys and sockets")]
    SshMixed,
    /// A file of `--ssh` that gives no key.
    #[error("{}", chain_text(.0))]
    SshKey(#[from] KeyFileError),
    /// `--ssh` twice for one id.
    #[error("duplicate agent ID {0:?}")]
    SshTwice(String),
    /// The socket of `--ssh` is not there.
    #[error("failed to stat {path}: {error}")]
    SshFile {
        /// File.
        path: PathBuf,
        /// Cause.
        error: std::io::Error,
    },
    /// `--add-host`.
    #[error(transparent)]
    Host(#[from] host::HostError),
    /// `--add-host` is not a list.
    #[error("invalid host {text:?}: {error}")]
    HostList {
        /// Text.
        text: String,
        /// What is wrong.
        error: csv::CsvError,
    },
    /// `--ulimit`.
    #[error(transparent)]
    Ulimit(#[from] ulimit::UlimitError),
    /// `--resource`, `--memory` and their like.
    #[error(transparent)]
    Resource(#[from] resource::ResourceError),
    /// A limit of theirs.
    #[error(transparent)]
    Limit(#[from] ResourceError),
    /// `--on-error`.
    #[error("invalid value {0:?} for --on-error: keep, keep=DIR or shell")]
    OnError(String),
    /// `--on-error=shell` in a script.
    #[error("--on-error=shell needs a terminal; --on-error=keep does not")]
    ShellWithoutTerminal,
    /// `--on-error=shell --progress=tty`.
    #[error("--on-error=shell and progress=tty cannot be used together")]
    ShellWithLiveView,
    /// `--shm-size`.
    #[error("invalid argument for --shm-size: {0}")]
    ShmSize(SizeError),
    /// `--build-context`.
    #[error(transparent)]
    NamedContext(#[from] contexts::NamedContextError),
    /// `--policy`.
    #[error(transparent)]
    Rego(#[from] rego::RegoError),
    /// `--platform`.
    #[error(transparent)]
    Platform(#[from] scalar::PlatformError),
    /// `--network`.
    #[error("network mode {0:?} not supported by buildkit")]
    Network(String),
    /// `--allow`.
    #[error("unknown entitlement {0}")]
    Entitlement(String),
    /// `--allow buildx.local.delete=…`.
    #[error("{} does not accept a value", outputs::LOCAL_DELETE)]
    DeleteValue,
    /// `--allow device=…` that means nothing.
    #[error("invalid entitlement: {0}")]
    Device(EntitlementError),
    /// `BUILDKIT_SYNTAX=`.
    #[error(
        "empty BUILDKIT_SYNTAX build-arg is invalid, use --build-arg BUILDKIT_SYNTAX without '=' for optional behavior"
    )]
    EmptySyntax,
}
