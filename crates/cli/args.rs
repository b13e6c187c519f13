//! The command line as clap reads it: every flag of `docker buildx build`, and the commands on the store. Owns
//! spelling and help; what the values mean is decided by the commands.

mod bake;
mod build;
mod buildctl;
mod container;
mod docker;
mod executor;
mod image;
mod login;
mod manual;
mod remote;
mod report;
mod run;
mod serve;
mod step_rules;
mod unserved;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use rbuild_layer::Allowance;
use rbuild_snapshotter::Means;
use rbuild_sys::userns::{Choice, Rung};
use rbuild_ui::values::scalar::parse_bool;

pub(crate) use bake::BakeArgs;
pub(crate) use build::{LoadTo, LowBuild};
pub(crate) use buildctl::{
    BuildArgs, Buildctl, BuildctlCommand, ClearArgs, DebugCommand, ServerArgs, UsageArgs, WorkersArgs,
};
pub(crate) use container::{
    ContainerCommand, CpArgs, CreateContainerArgs, ExportArgs, PruneContainersArgs, PsArgs, RmArgs,
};
pub(crate) use docker::{BuilderCommand, CreateArgs, DfArgs, DockerArgs, SystemCommand};
pub(crate) use executor::{Executor, ExecutorUnserved};
pub(crate) use image::{HistoryArgs, InspectArgs, LoadArgs, PruneImagesArgs, SaveArgs};
pub(crate) use login::{LoginArgs, LogoutArgs};
pub(crate) use manual::{CompletionArgs, ManArgs};
pub(crate) use remote::{
    AnnotateArgs, CreateIndexArgs, CreateListArgs, ImagetoolsCommand, InspectListArgs, InspectRemoteArgs,
    ManifestCommand, PushListArgs, RemoveListArgs,
};
pub(crate) use report::{advised, help_of, report};
pub(crate) use run::{ContextArgs, InfoArgs, RunArgs};
pub(crate) use serve::{Buildkitd, ServeArgs};
pub(crate) use unserved::{Unserved, UnservedBuildx, UnservedContainer, UnservedImage, UnservedSystem};

/// Builds container images from Dockerfiles, without a daemon and without root.
#[derive(Debug, Parser)]
#[command(
    name = "rbuild",
    version,
    disable_version_flag = true,
    args_override_self = true,
    after_help = "\
The commands of docker are understood too: `rbuild buildx build`, `rbuild image ls`, `rbuild builder prune`.
Exit codes: 0 done, 1 failed, 130 stopped."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(flatten)]
    pub(crate) docker: DockerArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Args, Default)]
pub(crate) struct GlobalArgs {
    /// Directory of the store
    #[arg(
        long,
        global = true,
        env = "RBUILD_ROOT",
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub(crate) root: Option<PathBuf>,
    /// How steps are kept apart: root, subids, one-id or chroot instead of the first that works; namespaces for any but chroot (see `rbuild doctor`)
    #[arg(long, global = true, env = RUNG_VARIABLE, value_name = "RUNG", value_parser = rung, help_heading = "Global options")]
    pub(crate) rung: Option<Choice>,
    /// How layers become file systems: overlayfs, fuse-overlayfs or native, instead of the first that works (auto)
    #[arg(long, global = true, env = SNAPSHOTTER_VARIABLE, value_name = "SNAPSHOTTER", value_parser = snapshotter,
        help_heading = "Global options")]
    pub(crate) snapshotter: Option<SnapshotterChoice>,
    /// What archives of layers, contexts and ADD may cost: bytes, entries, directories, zstd-window, xz-memory (bytes=200g,entries=20000000)
    #[arg(long, global = true, env = ARCHIVE_LIMITS_VARIABLE, value_name = "NAME=NUMBER,…", value_parser = archive_limits,
        help_heading = "Global options")]
    pub(crate) archive_limits: Option<Allowance>,
    /// Show everything there is to say about warnings
    #[arg(short = 'D', long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = go_bool, value_name = "BOOL", hide_possible_values = true, help_heading = "Global options")]
    pub(crate) debug: Option<bool>,
    /// Use no network: what would need it is an error that names it
    #[arg(long, global = true, env = "RBUILD_OFFLINE", hide_env = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = go_bool, value_name = "BOOL", hide_possible_values = true,
        help_heading = "Global options")]
    pub(crate) offline: Option<bool>,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Box<LowBuild>),
    /// Build the targets of bake files and compose files
    Bake(Box<BakeArgs>),
    /// List the images of the store
    Images(ImagesArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Remove images from the store
    Rmi(RmiArgs),
    /// Show an image's config
    Inspect(InspectArgs),
    /// Show how an image was made
    History(HistoryArgs),
    /// Write images into an archive
    Save(SaveArgs),
    /// Take the images of an archive
    Load(LoadArgs),
    /// Pull images into the store
    Pull(PullArgs),
    /// Push images to their registries
    Push(PushArgs),
    /// Run a program of an image, and forget what it wrote
    Run(Box<RunArgs>),
    /// Give an image's files an id, to take them out by
    Create(CreateContainerArgs),
    /// Copy files out of what was created
    Cp(CpArgs),
    /// Write all files of what was created as a tar
    Export(ExportArgs),
    /// List what was created
    Ps(PsArgs),
    /// Remove what was created
    Rm(RmArgs),
    /// Show what a build is sent of a directory, and which ignore rule kept each file in or out
    Context(ContextArgs),
    /// Make and show indexes of images that registries have
    #[command(subcommand)]
    Imagetools(ImagetoolsCommand),
    /// Put lists of images together on this machine, and push them
    #[command(subcommand)]
    Manifest(ManifestCommand),
    /// Store a credential for a registry, once it has taken it
    Login(LoginArgs),
    /// Remove the credential for a registry
    Logout(LogoutArgs),
    /// Show what takes room in the store
    Du(DuArgs),
    /// Remove build cache
    Prune(PruneArgs),
    /// Serve BuildKit's API to buildctl, docker buildx and other clients
    Serve(Box<ServeArgs>),
    /// Write what a shell needs to complete commands and flags
    Completion(CompletionArgs),
    /// Write the manual pages
    Man(ManArgs),
    /// Show whether steps can run here, and what to change if they cannot
    Doctor(DoctorArgs),
    /// Show the version
    Version(VersionArgs),
    /// Show what this installation is
    Info(InfoArgs),
    /// The commands of `docker buildx`
    #[command(hide = true)]
    Buildx(BuildxArgs),
    /// The commands of `docker image`
    #[command(hide = true, subcommand)]
    Image(ImageCommand),
    /// The commands of `docker builder`
    #[command(hide = true)]
    Builder(BuildxArgs),
    /// The commands of `docker container`
    #[command(hide = true, subcommand)]
    Container(ContainerCommand),
    /// The commands of `docker system`
    #[command(hide = true, subcommand)]
    System(SystemCommand),
    /// Answer to the commands that manage builders: there is one, and it is always there
    #[command(skip)]
    Builders(BuilderCommand),
    /// Answer to the commands of docker that have no counterpart
    #[command(flatten)]
    Unserved(Unserved),
    /// Answer to what removes things of which there are none
    #[command(skip)]
    Forgotten(&'static str),
    /// The same, whichever command it is below: its name, and what to do instead
    #[command(skip)]
    Refused(&'static str, &'static str),
    /// What takes room, by kind
    #[command(skip)]
    Df(DfArgs),
    /// Remove images that no container is of
    #[command(skip)]
    PruneImages(PruneImagesArgs),
    /// Remove what nothing needs
    #[command(skip)]
    PruneSystem(PruneArgs),
}

// Commands describe their flags only when they are used (`defer`): all of them would take longer than what many commands do.
// What a variant says of itself is then overruled by the documentation of its struct, which is why the structs
// they share have none.

// `docker buildx`, with what it takes before its command.
#[derive(Debug, Args)]
pub(crate) struct BuildxArgs {
    /// A builder: there is one
    #[arg(long, hide = true)]
    _builder: Option<String>,
    #[command(subcommand)]
    pub(crate) command: BuildxCommand,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum BuildxCommand {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Box<LowBuild>),
    /// Build the targets of bake files and compose files
    #[command(alias = "f")]
    Bake(Box<BakeArgs>),
    /// Show what takes room in the store
    Du(DuArgs),
    /// Remove build cache
    Prune(PruneArgs),
    /// Make and show indexes of images that registries have
    #[command(subcommand)]
    Imagetools(ImagetoolsCommand),
    /// Show the version
    Version(VersionArgs),
    /// Commands that manage builders
    #[command(flatten)]
    Builders(BuilderCommand),
    /// Commands that have no counterpart
    #[command(flatten)]
    Unserved(UnservedBuildx),
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum ImageCommand {
    /// Build an image from a Dockerfile
    Build(Box<LowBuild>),
    /// List the images of the store
    #[command(visible_alias = "list")]
    Ls(ImagesArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Remove images from the store
    #[command(visible_alias = "remove")]
    Rm(RmiArgs),
    /// Show an image's config
    Inspect(InspectArgs),
    /// Show how an image was made
    History(HistoryArgs),
    /// Write images into an archive
    Save(SaveArgs),
    /// Take the images of an archive
    Load(LoadArgs),
    /// Pull images into the store
    Pull(PullArgs),
    /// Push images to their registries
    Push(PushArgs),
    /// Remove images without a name
    Prune(PruneImagesArgs),
    /// Commands that have no counterpart
    #[command(flatten)]
    Unserved(UnservedImage),
}

impl Command {
    /// The one spelling of each command: docker has several.
    pub(crate) fn flatten(self) -> Self {
        match self {
            Self::Buildx(buildx) | Self::Builder(buildx) => match buildx.command {
                BuildxCommand::Build(args) => Self::Build(args),
                BuildxCommand::Bake(args) => Self::Bake(args),
                BuildxCommand::Du(args) => Self::Du(args),
                BuildxCommand::Prune(args) => Self::Prune(args),
                BuildxCommand::Imagetools(command) => Self::Imagetools(command),
                BuildxCommand::Version(args) => Self::Version(args),
                BuildxCommand::Builders(command) => Self::Builders(command),
                BuildxCommand::Unserved(command) => Self::refused(command.told()),
            },
            Self::Unserved(command) => match command.forgets() {
                Some(told) => Self::Forgotten(told),
                None => Self::refused(command.told()),
            },
            Self::Container(ContainerCommand::Unserved(command)) => Self::refused(command.told()),
            Self::Run(args) => Self::Container(ContainerCommand::Run(args)),
            Self::Create(args) => Self::Container(ContainerCommand::Create(args)),
            Self::Cp(args) => Self::Container(ContainerCommand::Cp(args)),
            Self::Export(args) => Self::Container(ContainerCommand::Export(args)),
            Self::Ps(args) => Self::Container(ContainerCommand::Ls(args)),
            Self::Rm(args) => Self::Container(ContainerCommand::Rm(args)),
            Self::System(command) => match command {
                SystemCommand::Info(args) => Self::Info(args),
                SystemCommand::Df(args) => Self::Df(args),
                SystemCommand::Prune(args) => Self::PruneSystem(args.prune),
                SystemCommand::Unserved(command) => Self::refused(command.told()),
            },
            Self::Image(command) => match command {
                ImageCommand::Build(args) => Self::Build(args),
                ImageCommand::Ls(args) => Self::Images(args),
                ImageCommand::Tag(args) => Self::Tag(args),
                ImageCommand::Rm(args) => Self::Rmi(args),
                ImageCommand::Inspect(args) => Self::Inspect(args),
                ImageCommand::History(args) => Self::History(args),
                ImageCommand::Save(args) => Self::Save(args),
                ImageCommand::Load(args) => Self::Load(args),
                ImageCommand::Pull(args) => Self::Pull(args),
                ImageCommand::Push(args) => Self::Push(args),
                ImageCommand::Prune(args) => Self::PruneImages(args),
                ImageCommand::Unserved(command) => Self::refused(command.told()),
            },
            command => command,
        }
    }

    const fn refused((name, instead): (&'static str, &'static str)) -> Self {
        Self::Refused(name, instead)
    }
}

#[derive(Debug, Args, Default)]
#[allow(clippy::struct_excessive_bools, reason = "flags of docker images")]
pub(crate) struct ImagesArgs {
    /// Show only images of this repository, or this repository:tag
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(crate) name: Option<String>,
    /// Show images without a name too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show digests
    #[arg(long)]
    pub(crate) digests: bool,
    /// Show ids in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show only images that match: "dangling=true", "reference=PATTERN", "label=KEY[=VALUE]", "before=IMAGE", "since=IMAGE",
    /// "until=TIME"
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// "table", "json", a template, or a table by one: '{{.Repository}}:{{.Tag}}', 'table {{.ID}}\t{{.Size}}'
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "table",
        hide_default_value = true
    )]
    pub(crate) format: String,
}

#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Image of the store
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    pub(crate) source: String,
    /// Name it gets
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    pub(crate) target: String,
}

#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// Remove an image with all its names
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Accepted: images have no parents
    #[arg(long, hide = true)]
    _no_prune: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Names
    #[arg(value_name = "NAME[:TAG|@DIGEST]", required = true)]
    pub(crate) images: Vec<String>,
    /// Every tag that the registry has: it is not asked for them
    #[arg(short, long, hide = true)]
    pub(crate) all_tags: bool,
    /// Accepted: as in docker, where it has no effect any more
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    _disable_content_trust: Option<bool>,
    /// Platform of a multi-platform image
    #[arg(long, env = "DOCKER_DEFAULT_PLATFORM", hide_env = true)]
    pub(crate) platform: Option<String>,
    /// Print the names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How progress is shown
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub(crate) progress: String,
}

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Names
    #[arg(value_name = "NAME[:TAG]", required = true)]
    pub(crate) images: Vec<String>,
    /// Push every tag that the store has of the names
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Accepted: as in docker, where it has no effect any more
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    _disable_content_trust: Option<bool>,
    /// Print the names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How progress is shown
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub(crate) progress: String,
}

#[derive(Debug, Args, Default)]
pub(crate) struct VersionArgs {
    /// "json", or a template: '{{.Client.Version}}', '{{.Server.Version}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args, Default)]
pub(crate) struct DuArgs {
    /// Show only records that match, e.g. "until=24h", "type=exec.cachemount"
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Show all that is known of each record
    #[arg(long)]
    pub(crate) verbose: bool,
    /// Form of the output
    #[arg(long, value_name = "FORMAT", value_parser = ["table", "pretty", "json"], conflicts_with = "verbose")]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args, Default)]
pub(crate) struct PruneArgs {
    /// Remove records of internal use too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Remove only records that match, e.g. "until=24h"
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Always keep this much
    #[arg(long, value_name = "SIZE", alias = "keep-storage")]
    pub(crate) reserved_space: Option<String>,
    /// Keep no more than this much
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_used_space: Option<String>,
    /// Remove until this much of the disk is free
    #[arg(long, value_name = "SIZE")]
    pub(crate) min_free_space: Option<String>,
    /// Show all that is known of each record
    #[arg(long)]
    pub(crate) verbose: bool,
}

/// What the program says it is where BuildKit's programs are expected: clients split it into package, version and
/// revision.
pub(crate) fn api_version() -> String {
    let version = rbuild_server::core::version();
    format!("{} {} {}", version.package, version.version, version.revision)
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The environment's way to say `--rung`.
pub(crate) const RUNG_VARIABLE: &str = "RBUILD_RUNG";

/// A rung by its number or name, or all that have namespaces.
pub(crate) fn rung(text: &str) -> Result<Choice, String> {
    Choice::parse(text).ok_or_else(|| {
        let names = Rung::ALL.map(Rung::name).join(", ");
        format!("{text:?} is none of {names}, namespaces")
    })
}

/// The environment's way to say `--snapshotter`.
pub(crate) const SNAPSHOTTER_VARIABLE: &str = "RBUILD_SNAPSHOTTER";

/// The one way to show stacks of layers, or nothing for the first that works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SnapshotterChoice(pub(crate) Option<Means>);

/// The environment's way to say `--archive-limits`.
pub(crate) const ARCHIVE_LIMITS_VARIABLE: &str = "RBUILD_ARCHIVE_LIMITS";

/// What archives may cost.
pub(crate) fn archive_limits(text: &str) -> Result<Allowance, String> {
    Allowance::parse(text).map_err(|error| error.to_string())
}

/// A snapshotter by its name.
pub(crate) fn snapshotter(text: &str) -> Result<SnapshotterChoice, String> {
    if text == "auto" {
        return Ok(SnapshotterChoice(None));
    }
    let means = Means::parse(text).ok_or_else(|| {
        let names = Means::ALL.map(Means::name).join(", ");
        format!("{text:?} is none of auto, {names}")
    })?;
    Ok(SnapshotterChoice(Some(means)))
}

/// What Go's flag package takes for a bool.
pub(crate) fn go_bool(text: &str) -> Result<bool, String> {
    parse_bool(text).ok_or_else(|| format!("{text:?} is not a bool"))
}

#[cfg(test)]
mod tests;
