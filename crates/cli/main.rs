//! The `rbuild` program: standard output carries data only, everything else goes to standard error.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod docker_config;
mod doctor;
mod engine;
mod env;
mod lend_terminal;
mod native;
mod provenance_keys;
mod request;
mod result_files;
mod serve_config;
mod serve_log;
mod signals;
mod stdin;
mod terminal;
mod view;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

fn main() -> ExitCode {
    // First of all, and before any thread: in the hidden mode this process is a step's init and never comes back.
    rbuild_sandbox::init_if_requested();
    native::harden();
    let args: Vec<OsString> = std::env::args_os().collect();
    let name = args.first().cloned().unwrap_or_default();
    match Path::new(&name).file_name().and_then(OsStr::to_str) {
        Some("buildkitd") => run(false, |args: args::Buildkitd, env, open| {
            commands::buildkitd(&args, env, open)
        }),
        Some("buildctl" | "buildctl-daemonless.sh") => run(false, |args: args::Buildctl, env, open| {
            commands::buildctl(&args, env, open)
        }),
        Some("executor") => run(false, |args: args::Executor, env, open| {
            commands::executor(&args, env, open)
        }),
        // Docker, a plugin of it, or this program by its own name.
        _ => match commands::asked(&args) {
            Some(words) => ended(|env, _| commands::complete(&words, env, &native::names)),
            None => run(true, commands::run),
        },
    }
}

/// What the command line says. The description of all commands is left to the system to free, which does not walk through
/// it: that would take as long as to read a command line.
fn parse<A: Parser>() -> Result<A, clap::Error> {
    let mut command = std::mem::ManuallyDrop::new(A::command());
    let read = command.try_get_matches_from_mut(std::env::args_os());
    let mut matches = match read {
        Ok(matches) => matches,
        // Docker shows what there is, and is content.
        Err(error) if error.kind() == ErrorKind::MissingSubcommand => {
            let asked = args::help_of(&error);
            command.try_get_matches_from_mut(asked)?
        }
        Err(error) => return Err(args::advised(error)),
    };
    A::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Reads the arguments of one of the programs this is, carries them out, and says how it went.
fn run<A: Parser>(
    is_docker: bool,
    program: impl FnOnce(A, &mut env::Env, commands::Open<'_>) -> Result<(), commands::CommandError>,
) -> ExitCode {
    let args = match parse::<A>() {
        Ok(args) => args,
        Err(error) => return args::report(&error, is_docker),
    };
    ended(|env, open| program(args, env, open))
}

/// Carries something out in these surroundings, and says how it went.
fn ended(
    what: impl FnOnce(&mut env::Env, commands::Open<'_>) -> Result<(), commands::CommandError>,
) -> ExitCode {
    let mut env = env::Env::of_process();
    let done = what(&mut env, &native::Native::open);
    ExitCode::from(commands::report(done, &mut env).code())
}
