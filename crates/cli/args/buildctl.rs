//! The program under the name `buildctl`: the flags and commands of BuildKit's client that build by a server, ask it about
//! itself, or carry bytes to it. `build` needs no server.

mod build;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::{api_version, go_bool};
pub(crate) use build::BuildArgs;

/// Builds as BuildKit's client does, and asks a BuildKit server about itself.
#[derive(Debug, Parser)]
#[command(name = "buildctl", version = api_version(), args_override_self = true)]
pub(crate) struct Buildctl {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(subcommand)]
    pub(crate) command: BuildctlCommand,
}

/// Which server, and how to reach it.
#[derive(Debug, Args, Default)]
pub(crate) struct ServerArgs {
    /// Address of the server, unix://PATH or tcp://HOST:PORT
    #[arg(long, global = true, value_name = "ADDR", env = "BUILDKIT_HOST")]
    pub(crate) addr: Option<String>,
    /// Authority of the server's certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) tlscacert: Option<PathBuf>,
    /// Certificate shown to the server
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        requires = "tlskey",
        requires = "tlscacert"
    )]
    pub(crate) tlscert: Option<PathBuf>,
    /// Its key
    #[arg(long, global = true, value_name = "FILE", requires = "tlscert")]
    pub(crate) tlskey: Option<PathBuf>,
    /// Directory with ca.pem, cert.pem and key.pem, or ca.crt, tls.crt and tls.key
    #[arg(long, global = true, value_name = "DIR", conflicts_with_all = ["tlscacert", "tlscert", "tlskey"])]
    pub(crate) tlsdir: Option<PathBuf>,
    /// Name that the server's certificate is for, if it is not the host's
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) tlsservername: Option<String>,
    /// Seconds to wait for a connection
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 5)]
    pub(crate) timeout: u64,
    /// Try until the connection becomes available
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = go_bool, value_name = "BOOL")]
    pub(crate) wait: Option<bool>,
    /// Accepted; there is no more to show
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = go_bool, value_name = "BOOL", hide = true)]
    _debug: Option<bool>,
    /// The same
    #[arg(long, global = true, value_name = "FORMAT", hide = true)]
    _log_format: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BuildctlCommand {
    /// Show what takes room
    Du(UsageArgs),
    /// Clear the build cache
    Prune(ClearArgs),
    /// Clear the history of builds
    PruneHistories,
    /// Ask the server about itself
    #[command(subcommand)]
    Debug(DebugCommand),
    /// Carry standard input to the server, and its answer to standard output
    DialStdio,
    /// Build: by the server that --addr names, or in this process
    #[command(visible_alias = "b")]
    Build(Box<BuildArgs>),
}

#[derive(Debug, Subcommand)]
pub(crate) enum DebugCommand {
    /// List workers
    Workers(WorkersArgs),
    /// Show the server's version
    Info(InfoArgs),
    /// List builds
    Histories,
}

#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// Show only records that match, e.g. "type==regular"
    #[arg(short, long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct ClearArgs {
    /// Keep what was used within this time
    #[arg(long, value_name = "DURATION", default_value = "0")]
    pub(crate) keep_duration: String,
    /// Keep no more than this, in MB
    #[arg(long, value_name = "MB", default_value_t = 0.0)]
    pub(crate) keep_storage: f64,
    /// Always keep this much, in MB
    #[arg(long, value_name = "MB", default_value_t = 0.0)]
    pub(crate) keep_storage_min: f64,
    /// Clear until this much of the disk is free, in MB
    #[arg(long, value_name = "MB", default_value_t = 0.0)]
    pub(crate) free_storage: f64,
    /// Clear only records that match
    #[arg(short, long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// Clear records of internal use too
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct WorkersArgs {
    /// List only workers that match
    #[arg(short, long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Form of the output: json
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "{{json .}}"])]
    pub(crate) format: Option<String>,
}

/// How records are shown.
#[derive(Debug, Args)]
pub(crate) struct Form {
    /// Show all that is known of each
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Form of the output: json
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "{{json .}}"])]
    pub(crate) format: Option<String>,
}
