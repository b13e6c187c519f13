//! The `rbuild` program: standard output carries data only, everything else goes to standard error.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod docker_config;
mod engine;
mod env;
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

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // First of all, and before any thread: in the hidden mode this process is a step's init and never comes back.
    rbuild_sandbox::init_if_requested();
    native::harden();
    let name = std::env::args_os().next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(OsStr::to_str) {
        Some("buildkitd") => return buildkitd(),
        Some("buildctl") => return buildctl(),
        _ => {}
    }
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return args::report(&error),
    };
    let mut env = env::Env::of_process();
    let done = commands::run(cli, &mut env, &native::Native::open);
    ExitCode::from(commands::report(done, &mut env).code())
}

/// The program under the name of BuildKit's daemon.
fn buildkitd() -> ExitCode {
    let args = match args::Buildkitd::try_parse() {
        Ok(args) => args,
        Err(error) => return args::report(&error),
    };
    let mut env = env::Env::of_process();
    let done = commands::buildkitd(&args, &mut env, &native::Native::open);
    ExitCode::from(commands::report(done, &mut env).code())
}

/// The program under the name of BuildKit's client.
fn buildctl() -> ExitCode {
    let args = match args::Buildctl::try_parse() {
        Ok(args) => args,
        Err(error) => return args::report(&error),
    };
    let mut env = env::Env::of_process();
    let done = commands::buildctl(&args, &mut env);
    ExitCode::from(commands::report(done, &mut env).code())
}
