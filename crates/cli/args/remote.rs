//! Arguments of the commands on images that stay in their registries: `imagetools` and `manifest`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::go_bool;

/// Commands of `docker buildx imagetools`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImagetoolsCommand {
    /// Make an index of images that are in registries, and name it
    Create(CreateIndexArgs),
    /// Show what a registry has under a name
    Inspect(InspectRemoteArgs),
}

#[derive(Debug, Args, Default)]
pub(crate) struct CreateIndexArgs {
    /// References, digests or descriptors
    #[arg(value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,
    /// File with a source
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
    /// Name of the index
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Vec<String>,
    /// Add to what is under the first name already
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL")]
    pub(crate) append: Option<bool>,
    /// Annotations of the index or of its entries.
    #[arg(
        help = "Annotation: \"KEY=VALUE\" or \"index:KEY=VALUE\" of the index, \"manifest-descriptor[PLATFORM]:KEY=VALUE\" of an entry",
        long,
        value_name = "KEY=VALUE"
    )]
    pub(crate) annotation: Vec<String>,
    /// Print it instead of pushing it
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL")]
    pub(crate) dry_run: Option<bool>,
    /// A single source that is a manifest gets an index [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL")]
    pub(crate) prefer_index: Option<bool>,
    /// Only these platforms
    #[arg(short, long, value_name = "PLATFORM", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// Write the descriptor and the names to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// How progress is shown
    #[arg(long, value_name = "MODE", default_value = "auto", hide_default_value = true)]
    pub(crate) progress: String,
    #[arg(long, hide = true)]
    _builder: Option<String>,
}

#[derive(Debug, Args, Default)]
pub(crate) struct InspectRemoteArgs {
    /// Name
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub(crate) name: String,
    /// A template: '{{json .Manifest}}', '{{.Manifest.Digest}}', '{{json .Image}}'
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// The document as the registry has it, byte for byte
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL")]
    pub(crate) raw: Option<bool>,
    /// What refers to it in its repository: signatures, attestations
    #[arg(long, conflicts_with_all = ["raw", "format"])]
    pub(crate) referrers: bool,
    #[arg(long, hide = true)]
    _builder: Option<String>,
}

/// Commands of `docker manifest`.
#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Begin a list of images, on this machine
    Create(CreateListArgs),
    /// Say what an image of a list runs on
    Annotate(AnnotateArgs),
    /// Show a list of this machine, or what a registry has
    Inspect(InspectListArgs),
    /// Push a list to its registry
    Push(PushListArgs),
    /// Forget lists
    Rm(RemoveListArgs),
}

#[derive(Debug, Args, Default)]
pub(crate) struct CreateListArgs {
    /// Name of the list
    #[arg(value_name = "MANIFEST_LIST")]
    pub(crate) list: String,
    /// Images of registries
    #[arg(value_name = "MANIFEST", required = true)]
    pub(crate) manifests: Vec<String>,
    /// Add to a list that there is
    #[arg(short, long)]
    pub(crate) amend: bool,
    /// Plain HTTP, or nobody who vouches, is enough
    #[arg(long)]
    pub(crate) insecure: bool,
}

#[derive(Debug, Args, Default)]
pub(crate) struct AnnotateArgs {
    /// Name of the list
    #[arg(value_name = "MANIFEST_LIST")]
    pub(crate) list: String,
    /// Image in it
    #[arg(value_name = "MANIFEST")]
    pub(crate) manifest: String,
    /// Architecture
    #[arg(long, value_name = "NAME")]
    pub(crate) arch: Option<String>,
    /// Operating system
    #[arg(long, value_name = "NAME")]
    pub(crate) os: Option<String>,
    /// What it needs of the operating system
    #[arg(long, value_name = "NAME,…")]
    pub(crate) os_features: Vec<String>,
    /// Version of the operating system
    #[arg(long, value_name = "VERSION")]
    pub(crate) os_version: Option<String>,
    /// Variant of the architecture
    #[arg(long, value_name = "NAME")]
    pub(crate) variant: Option<String>,
}

#[derive(Debug, Args, Default)]
pub(crate) struct InspectListArgs {
    /// A list, or an image in it; or an image of a registry
    #[arg(value_name = "[MANIFEST_LIST] MANIFEST", num_args = 1..=2)]
    pub(crate) names: Vec<String>,
    /// Show each image's manifest too
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Plain HTTP, or nobody who vouches, is enough
    #[arg(long)]
    pub(crate) insecure: bool,
}

#[derive(Debug, Args, Default)]
pub(crate) struct PushListArgs {
    /// Name of the list
    #[arg(value_name = "MANIFEST_LIST")]
    pub(crate) list: String,
    /// Forget the list once it is pushed
    #[arg(short, long)]
    pub(crate) purge: bool,
    /// Plain HTTP, or nobody who vouches, is enough
    #[arg(long)]
    pub(crate) insecure: bool,
}

#[derive(Debug, Args, Default)]
pub(crate) struct RemoveListArgs {
    /// Names of lists
    #[arg(value_name = "MANIFEST_LIST", required = true)]
    pub(crate) lists: Vec<String>,
}
