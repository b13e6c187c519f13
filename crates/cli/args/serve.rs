//! `rbuild serve`, which is also what the program does when it is called as `buildkitd`: the flags that daemon takes.
//! Those that choose among what it has several of (workers, snapshotters) are accepted where their value is what this
//! program does, and refused by name otherwise.

use std::path::PathBuf;

use clap::{Args, Parser};

use super::go_bool;

/// Serves BuildKit's API on rbuild's engine.
#[derive(Debug, Parser)]
#[command(name = "buildkitd", version, args_override_self = true)]
pub(crate) struct Buildkitd {
    /// Directory of everything that is kept
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    /// Log what is done
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub(crate) debug: Option<bool>,
}

#[derive(Debug, Args, Default)]
pub(crate) struct ServeArgs {
    /// Address to listen on, unix://PATH; may be given several times
    #[arg(long, value_name = "ADDR", env = "BUILDKIT_HOST")]
    pub(crate) addr: Vec<String>,
    /// Configuration file, as of buildkitd
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Group that may use the sockets, name or number
    #[arg(long)]
    pub(crate) group: Option<String>,
    /// End when nothing was built for this long, e.g. 5m
    #[arg(long, value_name = "DURATION")]
    pub(crate) idle_timeout: Option<String>,
    /// Let builds have this: network.host, security.insecure
    #[arg(long, value_name = "ENTITLEMENT")]
    pub(crate) allow_insecure_entitlement: Vec<String>,
    /// Labels of the worker
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) oci_worker_labels: Vec<String>,
    /// Whether there is the worker that runs steps itself
    #[arg(long, value_name = "auto|true|false", default_value = "auto", hide = true)]
    pub(crate) oci_worker: String,
    /// Whether there is the worker that asks containerd
    #[arg(long, value_name = "auto|true|false", default_value = "auto", hide = true)]
    pub(crate) containerd_worker: String,
    /// Whether the cache is collected by itself
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", hide = true)]
    pub(crate) oci_worker_gc: Option<bool>,
    /// How steps see the network
    #[arg(long, value_name = "auto|host", default_value = "auto", value_parser = ["auto", "host"], hide = true)]
    pub(crate) oci_worker_net: String,
    /// How layers are kept
    #[arg(long, value_name = "auto|overlayfs", default_value = "auto", value_parser = ["auto", "overlayfs"], hide = true)]
    pub(crate) oci_worker_snapshotter: String,
    /// Without root
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", hide = true)]
    pub(crate) rootless: Option<bool>,
}
