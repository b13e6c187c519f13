//! Arguments of the commands on containers that were created and never run: `create`, `cp`, `export`, `ps`, `rm`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{RunArgs, UnservedContainer};

/// Commands of `docker container`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum ContainerCommand {
    /// Run a program of an image, and forget what it wrote
    Run(Box<RunArgs>),
    /// Give an image's files an id, to take them out by
    Create(CreateContainerArgs),
    /// Copy files out of what was created
    Cp(CpArgs),
    /// Write all files of what was created as a tar
    Export(ExportArgs),
    /// List what was created
    #[command(visible_alias = "list", visible_alias = "ps")]
    Ls(PsArgs),
    /// Remove what was created
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Remove all that was created
    Prune(PruneContainersArgs),
    /// Commands that have no counterpart
    #[command(flatten)]
    Unserved(UnservedContainer),
}

#[derive(Debug, Args, Default)]
#[command(
    after_help = "Nothing runs in it: the flags of `run` are accepted, and of them only --name, --platform, \
--pull and --cidfile say something."
)]
pub(crate) struct CreateContainerArgs {
    #[command(flatten)]
    pub(crate) run: Box<RunArgs>,
}

#[derive(Debug, Args, Default)]
pub(crate) struct CpArgs {
    /// Where from
    #[arg(value_name = "CONTAINER:PATH")]
    pub(crate) source: String,
    /// Where to: a path of this machine, or "-" for a tar on standard output
    #[arg(value_name = "PATH|-", allow_hyphen_values = true)]
    pub(crate) dest: String,
    /// A source that is a link stands for what it leads to
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// Keep owners
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// Accepted: nothing is said in any case
    #[arg(short, long, hide = true)]
    _quiet: bool,
}

#[derive(Debug, Args, Default)]
pub(crate) struct ExportArgs {
    /// Its name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args, Default)]
pub(crate) struct PsArgs {
    /// Show those that were created too; nothing runs when rbuild has ended
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show the newest, whatever became of it
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Show the N newest, whatever became of them
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) last: Option<i64>,
    /// Show sizes: a container's files are those of its image
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Show ids in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show only those that match: "name=TEXT", "id=DIGITS", "ancestor=IMAGE", "status=created"
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// "table", "json", or a template: '{{.ID}}'
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "table",
        hide_default_value = true
    )]
    pub(crate) format: String,
}

#[derive(Debug, Args, Default)]
pub(crate) struct RmArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,
    /// That there is none is no error
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Accepted: there are no volumes
    #[arg(short, long, hide = true)]
    _volumes: bool,
}

#[derive(Debug, Args, Default)]
pub(crate) struct PruneContainersArgs {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}
