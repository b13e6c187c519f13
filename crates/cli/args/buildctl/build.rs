//! The flags of `buildctl build`. What BuildKit's client leaves to its server is here too, to be refused by name.

use std::path::PathBuf;

use clap::Args;

use crate::args::go_bool;

#[derive(Debug, Args, Default)]
pub(crate) struct BuildArgs {
    /// Where the result goes, e.g. "type=image,name=docker.io/user/image,push=true"
    #[arg(short, long, value_name = "DEST")]
    pub(crate) output: Vec<String>,
    /// How progress is shown: auto, plain, tty, rawjson, quiet
    #[arg(long, value_name = "MODE", default_value = "auto", hide_default_value = true)]
    pub(crate) progress: String,
    /// Directory of this machine, by the name the front end knows it by, e.g. "context=."
    #[arg(long, value_name = "NAME=DIR")]
    pub(crate) local: Vec<String>,
    /// OCI layout of this machine, by the name that contexts know it by
    #[arg(long, value_name = "NAME=DIR")]
    pub(crate) oci_layout: Vec<String>,
    /// Front end: dockerfile.v0, gateway.v0; without one, a definition (LLB) is read from standard input
    #[arg(long, value_name = "NAME")]
    pub(crate) frontend: Option<String>,
    /// What it is told, e.g. "target=app", "build-arg:NAME=VALUE"
    #[arg(long, alias = "frontend-opt", value_name = "KEY=VALUE")]
    pub(crate) opt: Vec<String>,
    /// Take no step from the cache
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL")]
    pub(crate) no_cache: Option<bool>,
    /// Where the cache goes, e.g. "type=registry,ref=example.com/cache"
    #[arg(long, value_name = "DEST")]
    pub(crate) export_cache: Vec<String>,
    /// Where it comes from
    #[arg(long, value_name = "SOURCE")]
    pub(crate) import_cache: Vec<String>,
    /// Secret for steps, e.g. "id=token,src=token.txt"
    #[arg(long, value_name = "SECRET")]
    pub(crate) secret: Vec<String>,
    /// Permission that steps may use: network.host, security.insecure
    #[arg(long, value_name = "NAME")]
    pub(crate) allow: Vec<String>,
    /// SSH agent for steps, e.g. "default", "id=/path/agent.sock"
    #[arg(long, value_name = "AGENT")]
    pub(crate) ssh: Vec<String>,
    /// File with rules for sources, JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) source_policy_file: Option<PathBuf>,
    /// Write digests and names to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,

    #[arg(long, hide = true)]
    pub(crate) trace: Option<PathBuf>,
    /// Steps reach HTTP and HTTPS through a proxy that sees what they fetch, and nothing else
    #[arg(long)]
    pub(crate) proxy_network: bool,
    #[arg(long, hide = true)]
    pub(crate) ref_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    pub(crate) registry_auth_tlscontext: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) debug_json_cache_metrics: Option<String>,
}
