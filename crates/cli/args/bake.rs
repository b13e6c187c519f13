//! The flags of `rbuild bake`: all those of `docker buildx bake`.

use std::path::PathBuf;

use clap::Args;

use super::go_bool;

#[derive(Debug, Args, Default)]
pub(crate) struct BakeArgs {
    /// Targets and groups, or patterns of them [default: default]
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// Bake file or compose file, or - for standard input [default: those of the usual names]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Vec<String>,
    /// Change an attribute of targets, e.g. "*.platform=linux/amd64", "app.args.VERSION=1"
    #[arg(long, value_name = "TARGET.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Set a variable of the files
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) var: Vec<String>,
    /// Print what would be built, as JSON
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL")]
    pub(crate) print: Option<bool>,
    /// List targets or variables, e.g. "targets", "type=variables,format=json"
    #[arg(long, value_name = "WHAT")]
    pub(crate) list: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) list_targets: bool,
    #[arg(long, hide = true)]
    pub(crate) list_variables: bool,
    /// Ask about the Dockerfiles instead of building: check, outline, targets
    #[arg(long, value_name = "METHOD")]
    pub(crate) call: Option<String>,
    /// Lint the Dockerfiles: --call=check
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL")]
    pub(crate) check: Option<bool>,
    /// Push the images
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL")]
    pub(crate) push: Option<bool>,
    /// Put the images into the store (the default)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL")]
    pub(crate) load: Option<bool>,
    /// Take no step from the cache
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL")]
    pub(crate) no_cache: Option<bool>,
    /// Ask registries for base images even if the store has them
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL")]
    pub(crate) pull: Option<bool>,
    /// Attest how the images were made
    #[arg(long, value_name = "BOOL|CSV")]
    pub(crate) provenance: Option<String>,
    /// Attest what packages the images have
    #[arg(long, value_name = "BOOL|CSV")]
    pub(crate) sbom: Option<String>,
    /// What targets may do: network.host, security.insecure, device=NAME, ssh, fs=PATH, fs.read=PATH, fs.write=PATH
    #[arg(long, value_name = "PERMISSION")]
    pub(crate) allow: Vec<String>,
    /// Write digests and names by target to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// How progress is shown: auto, plain, tty, rawjson, quiet, none [env: BUILDKIT_PROGRESS]
    #[arg(long, value_name = "MODE", default_value = "auto", hide_default_value = true)]
    pub(crate) progress: String,
    #[arg(long, hide = true)]
    pub(crate) policy: Vec<String>,
    #[arg(long, hide = true)]
    _builder: Option<String>,
}
