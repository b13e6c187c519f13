//! The scripts for shells. Those of bash, zsh and fish only ask; the others know what the commands were when they were
//! written.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::{Cli, CompletionArgs};
use crate::commands::CommandError;
use crate::env::Env;

const BASH: &str = include_str!("bash.sh");
const ZSH: &str = include_str!("zsh.sh");
const FISH: &str = include_str!("fish.fish");

/// Writes a shell's script to standard output.
pub(in crate::commands) fn write(args: &CompletionArgs, env: &mut Env) -> Result<(), CommandError> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if args.name.is_empty() || args.name.starts_with('-') || !args.name.chars().all(is_name) {
        return Err(CommandError::failed(&format!(
            "{:?} cannot be the name of a program",
            args.name
        )));
    }
    let asking = match args.shell {
        Shell::Bash => Some(BASH),
        Shell::Zsh => Some(ZSH),
        Shell::Fish => Some(FISH),
        _ => None,
    };
    let script = match asking {
        Some(script) => script.replace("PROGRAM", &args.name).into_bytes(),
        None => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), &args.name, &mut script);
            script
        }
    };
    env.stdout.write_all(&script)?;
    Ok(env.stdout.flush()?)
}
