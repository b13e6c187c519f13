//! Arguments of `completion` and `man`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::Shell;

#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// Shell: bash, zsh, fish, elvish, powershell
    #[arg(value_name = "SHELL", value_parser = shell)]
    pub(crate) shell: Shell,
    /// Name that the program is called by
    #[arg(long, value_name = "NAME", default_value = "rbuild")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Directory for them; made if it is not there
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

fn shell(text: &str) -> Result<Shell, String> {
    Shell::from_str(text, true)
}
