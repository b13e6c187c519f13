//! What docker and buildx take besides commands on images: flags before the command, and the commands that manage
//! builders. There is one builder here, so the latter answer and change nothing; one that names another machine's
//! builder is refused when it is carried out.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand};

use super::{InfoArgs, PruneArgs, UnservedSystem};

/// Flags that docker takes before its command.
#[derive(Debug, Args, Default)]
pub(crate) struct DockerArgs {
    /// Show the version
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version, help_heading = "Global options")]
    version: Option<bool>,
    /// Directory of docker's config.json, with credentials and proxies
    #[arg(
        long,
        value_name = "DIR",
        env = "DOCKER_CONFIG",
        hide_env = true,
        help_heading = "Global options"
    )]
    pub(crate) config: Option<PathBuf>,
    /// An engine: there is none to ask
    #[arg(short = 'H', long, hide = true)]
    pub(crate) host: Vec<String>,
    /// A context of docker: there is one
    #[arg(short = 'c', long, hide = true)]
    pub(crate) context: Option<String>,
    /// How much is logged: there is no log
    #[arg(short = 'l', long, hide = true, value_parser = ["debug", "info", "warn", "error", "fatal"])]
    pub(crate) log_level: Option<String>,
}

// Commands of `docker buildx` that manage builders.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum BuilderCommand {
    /// Accepted: there is one builder, and it is there
    Create(CreateArgs),
    /// Accepted: there is one builder
    Use(NamedArgs),
    /// Show the builder
    Ls,
    /// Show the builder
    Inspect(InspectBuilderArgs),
    /// Accepted: nothing runs
    Stop(NamedArgs),
    /// Accepted: there is nothing to remove
    Rm(RemoveArgs),
    /// Accepted: `docker build` is this program's already
    Install,
    /// Accepted: `docker build` stays this program's
    #[command(hide = true)]
    Uninstall,
}

#[derive(Debug, Args, Default)]
pub(crate) struct CreateArgs {
    /// Name that is printed
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Only those that build on this machine
    #[arg(long, value_name = "DRIVER")]
    pub(crate) driver: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) driver_opt: Vec<String>,
    #[arg(long = "use", hide = true)]
    _use: bool,
    #[arg(long, hide = true)]
    _bootstrap: bool,
    #[arg(long, hide = true)]
    _append: bool,
    #[arg(long, hide = true)]
    _node: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) platform: Vec<String>,
    #[arg(long, hide = true, alias = "config")]
    pub(crate) buildkitd_config: Option<String>,
    #[arg(long, hide = true, alias = "buildkitd-flags", allow_hyphen_values = true)]
    pub(crate) buildkitd_flags: Option<String>,
    /// A docker context or an address
    #[arg(value_name = "ENDPOINT")]
    pub(crate) endpoint: Option<String>,
}

#[derive(Debug, Args, Default)]
pub(crate) struct NamedArgs {
    #[arg(long, hide = true)]
    _default: bool,
    #[arg(long, hide = true)]
    _global: bool,
    /// Name of the builder
    #[arg(value_name = "NAME")]
    _name: Option<String>,
}

#[derive(Debug, Args, Default)]
pub(crate) struct RemoveArgs {
    #[arg(long, hide = true)]
    _all_inactive: bool,
    #[arg(short, long, hide = true)]
    _force: bool,
    #[arg(long, hide = true)]
    _keep_state: bool,
    #[arg(long, hide = true)]
    _keep_daemon: bool,
    /// Name of the builder
    #[arg(value_name = "NAME")]
    _name: Vec<String>,
}

#[derive(Debug, Args, Default)]
pub(crate) struct InspectBuilderArgs {
    #[arg(long, hide = true)]
    _bootstrap: bool,
    /// Name that is shown
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// Commands of `docker system`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum SystemCommand {
    /// Show what takes room in the store
    Df(DfArgs),
    /// Show what this installation is
    Info(InfoArgs),
    /// Remove containers, images without a name, and build cache
    Prune(PruneSystemArgs),
    /// Commands that have no counterpart
    #[command(flatten)]
    Unserved(UnservedSystem),
}

#[derive(Debug, Args, Default)]
pub(crate) struct DfArgs {
    /// Show all that is known of each record
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// "table", "json", or a template: '{{.Type}} {{.Size}}'
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "table",
        hide_default_value = true,
        conflicts_with = "verbose"
    )]
    pub(crate) format: String,
}

#[derive(Debug, Args, Default)]
pub(crate) struct PruneSystemArgs {
    #[command(flatten)]
    pub(crate) prune: PruneArgs,
    /// Accepted: there are no volumes
    #[arg(long, hide = true)]
    _volumes: bool,
}
