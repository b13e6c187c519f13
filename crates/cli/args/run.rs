//! Arguments of `run`, `context` and `info`. Flags of docker's `run` that need an engine are here too, to be refused by
//! name.

mod unserved;

use std::path::PathBuf;

use clap::Args;

use super::go_bool;
pub(crate) use unserved::UnservedRun;

#[derive(Debug, Args, Default)]
#[command(disable_help_flag = true)]
#[allow(clippy::struct_excessive_bools, reason = "flags of docker run")]
pub(crate) struct RunArgs {
    /// Name or id; and what runs instead of the image's command, to which all behind the image belongs
    #[arg(value_name = "IMAGE [COMMAND]", required = true, num_args = 1.., trailing_var_arg = true)]
    words: Vec<String>,
    /// Accepted: nothing stays of what ran
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        default_value = "false", action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    pub(crate) rm: bool,
    /// Connect standard input
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        default_value = "false", action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        default_value = "false", action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    pub(crate) tty: bool,
    /// Set a variable; a name alone takes its value from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// File with variables, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Instead of the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Instead of the image's directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Instead of the image's user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Host name
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Line of /etc/hosts
    #[arg(long, value_name = "HOST:IP")]
    pub(crate) add_host: Vec<String>,
    /// Network: default, none, host
    #[arg(
        long,
        alias = "net",
        value_name = "MODE",
        default_value = "default",
        hide_default_value = true
    )]
    pub(crate) network: String,
    /// Nothing can be written
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        default_value = "false", action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    pub(crate) read_only: bool,
    /// Show it a directory or file of this machine
    #[arg(short, long, value_name = "PATH:DESTINATION[:ro]")]
    pub(crate) volume: Vec<String>,
    /// The same, or memory: "type=bind,source=PATH,target=DESTINATION,readonly", "type=tmpfs,target=DESTINATION"
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub(crate) mount: Vec<String>,
    /// Show it an empty directory in memory
    #[arg(long, value_name = "DESTINATION[:size=SIZE]")]
    pub(crate) tmpfs: Vec<String>,
    /// Platform of a multi-platform image
    #[arg(long, env = "DOCKER_DEFAULT_PLATFORM", hide_env = true)]
    pub(crate) platform: Option<String>,
    /// When the registry is asked: missing, always, never
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "missing",
        hide_default_value = true
    )]
    pub(crate) pull: String,
    /// Show nothing of the pull
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        default_value = "false", action = clap::ArgAction::Set, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    pub(crate) quiet: bool,

    /// Of `run` it names nothing: what ran is gone before anybody could ask for it.
    #[arg(long, hide = true)]
    pub(crate) name: Option<String>,
    /// Of `create` the file for its id.
    #[arg(long, hide = true)]
    pub(crate) cidfile: Option<String>,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,

    #[command(flatten)]
    pub(crate) unserved: UnservedRun,
}

impl RunArgs {
    /// Name or id.
    pub(crate) fn image(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Instead of the image's command.
    pub(crate) fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}

#[derive(Debug, Args, Default)]
pub(crate) struct ContextArgs {
    /// Directory
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) path: PathBuf,
    /// Of the commands of `docker context`
    #[arg(hide = true)]
    pub(crate) names: Vec<String>,
    /// The same
    #[arg(short, long, hide = true)]
    pub(crate) quiet: bool,
    /// Dockerfile: it may have an ignore file of its own [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// How deep directories are told apart
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) depth: usize,
    /// Show every file with the rule that decided
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", hide_possible_values = true)]
    pub(crate) files: Option<bool>,
    /// Form of the output
    #[arg(long, value_name = "FORMAT", value_parser = ["table", "json"], default_value = "table")]
    pub(crate) format: String,
}

#[derive(Debug, Args, Default)]
pub(crate) struct InfoArgs {
    /// "json", or a template: '{{.Root}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}
