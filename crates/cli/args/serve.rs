//! `rbuild serve`, which is also what the program does when it is called as `buildkitd`: the flags that daemon takes.
//! Those that choose among what it has several of (workers, snapshotters) are accepted where their value is what this
//! program does, and refused by name otherwise; so are those that promise protection that it does not give.

use std::path::PathBuf;

use clap::{Args, Parser};

use super::{SnapshotterChoice, api_version, go_bool, snapshotter};

/// Serves BuildKit's API on rbuild's engine.
#[derive(Debug, Parser)]
#[command(name = "buildkitd", version = api_version(), args_override_self = true)]
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
    /// Address to listen on: unix://PATH, tcp://HOST:PORT with TLS, fd://; may be given several times
    #[arg(long, value_name = "ADDR")]
    pub(crate) addr: Vec<String>,
    /// Authority of the certificates that clients on TCP must show
    #[arg(long, value_name = "FILE")]
    pub(crate) tlscacert: Option<PathBuf>,
    /// Certificate shown to clients on TCP
    #[arg(long, value_name = "FILE")]
    pub(crate) tlscert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE")]
    pub(crate) tlskey: Option<PathBuf>,
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
    /// Most steps at once, of all builds together
    #[arg(long, value_name = "NUMBER")]
    pub(crate) oci_max_parallelism: Option<usize>,
    /// How much cache is kept, in MB
    #[arg(long, value_name = "RESERVED[,FREE[,MAXIMUM]]")]
    pub(crate) oci_worker_gc_keepstorage: Option<String>,
    /// Give builds no devices of the host
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL")]
    pub(crate) cdi_disabled: Option<bool>,
    /// Where devices of the host are described
    #[arg(long, value_name = "DIR")]
    pub(crate) cdi_spec_dir: Vec<PathBuf>,
    /// How log lines look: text or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// What is logged: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", env = "BUILDKITD_LOG_LEVEL")]
    pub(crate) log_level: Option<String>,
    #[command(flatten)]
    pub(crate) only: OnlyOne,
    #[command(flatten)]
    pub(crate) idle: WithoutEffect,
}

// Flags that choose what there is only one of here.
#[derive(Debug, Args, Default)]
pub(crate) struct OnlyOne {
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
    #[arg(long, value_name = "SNAPSHOTTER", value_parser = snapshotter, hide = true)]
    pub(crate) oci_worker_snapshotter: Option<SnapshotterChoice>,
    /// Protection by profile
    #[arg(long, value_name = "PROFILE", default_value = "", hide = true)]
    pub(crate) oci_worker_apparmor_profile: String,
    /// Protection by label
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", hide = true)]
    pub(crate) oci_worker_selinux: Option<bool>,
    /// Steps of all builds reach HTTP and HTTPS through a proxy that sees what they fetch, and nothing else
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", hide = true)]
    pub(crate) proxy_network: Option<bool>,
}

// Flags of buildkitd for parts that this program does not have, or does not need to be told of.
#[derive(Debug, Args, Default)]
pub(crate) struct WithoutEffect {
    /// The same sandbox with and without root
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", hide = true)]
    _rootless: Option<bool>,
    /// The same
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", hide = true)]
    _oci_worker_rootless: Option<bool>,
    /// Steps have a process namespace always
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", hide = true)]
    pub(crate) oci_worker_no_process_sandbox: Option<bool>,
    /// Steps are run by this program itself
    #[arg(long, value_name = "FILE", hide = true)]
    _oci_worker_binary: Option<String>,
    /// No traces are collected
    #[arg(long, value_name = "PATH", hide = true)]
    _otel_socket_path: Option<String>,
    /// No profiles are served
    #[arg(long, value_name = "ADDR", hide = true)]
    _debugaddr: Option<String>,
    /// Misses name their cause anyway
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", hide = true)]
    _save_cache_debug: Option<bool>,
    /// Old spelling of --log-level=trace
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", hide = true)]
    _trace: Option<bool>,
}
