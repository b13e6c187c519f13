//! Arguments of the commands on images that are in the store or in archives.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Read from a file, compressed or not, instead of standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Platform to take when an archive has several and not all of them whole
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// Accepted: how far it is is never told
    #[arg(short, long, hide = true)]
    _quiet: bool,
}

#[derive(Debug, Args, Default)]
pub(crate) struct PruneImagesArgs {
    /// Remove images with a name too, but for those of containers
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Remove only images that match: "label=KEY[=VALUE]", "until=TIME"
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// "json", or a template: '{{.Id}}', '{{json .Config.Env}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Platform of a multi-platform image
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// Accepted: the sizes of containers are asked for
    #[arg(short, long, hide = true)]
    _size: bool,
    /// Only "image" is known here
    #[arg(long = "type", value_name = "TYPE", value_parser = ["image"], hide = true)]
    pub(crate) kind: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// "table", "json", or a template: '{{.CreatedBy}}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: String,
    /// Print sizes and dates for people
    #[arg(short = 'H', long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true",
        value_parser = super::go_bool, value_name = "BOOL", hide_possible_values = true)]
    pub(crate) human: bool,
    /// Show commands and ids in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Platform of a multi-platform image
    #[arg(long)]
    pub(crate) platform: Option<String>,
}
