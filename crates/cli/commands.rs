//! One module for each command. A command judges its arguments, asks the engine, and prints; it knows no store and
//! no registry. What goes wrong ends here as a [`Diagnostic`] and an exit code.

mod bake;
mod build;
mod buildctl;
mod builders;
mod call;
mod completions;
mod containers;
mod context;
mod df;
mod doctor;
mod du;
mod executor;
mod history;
mod images;
mod imagetools;
mod info;
mod inspect;
mod listing;
mod load;
mod login;
mod manifest;
mod manual;
mod prune;
mod rmi;
mod run;
mod save;
mod serve;
mod tag;
mod transfer;
mod usage;
mod version;

use std::io;
use std::path::PathBuf;

use rbuild_ui::diagnostic::{Diagnostic, ExitCode};
use rbuild_ui::template::Template;

use crate::args::{Buildctl, Buildkitd, Cli, Command, DockerArgs, Executor};
use crate::engine::{Engine, EngineError, EngineOptions, Names, Registries};
use crate::env::Env;

/// Opens the engine. Only called once the arguments are known to be right.
pub(crate) type Open<'a> = &'a dyn Fn(EngineOptions) -> Result<Box<dyn Engine>, EngineError>;

/// Names of the store at a place, or at the usual one, for whoever is typing one. Asking opens nothing.
pub(crate) type NamesAt<'a> = &'a dyn Fn(Option<PathBuf>) -> Names;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// It failed; the user is told.
    Failed(Box<Diagnostic>),
    /// It was stopped.
    Cancelled,
    /// It was done, and the answer, which was printed, is a bad one.
    Judged(ExitCode),
    /// Whoever read standard output went away: nothing is left to say.
    ReaderGone,
}

impl From<EngineError> for CommandError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Cancelled => Self::Cancelled,
            EngineError::Failed(diagnostic) => Self::Failed(diagnostic),
        }
    }
}

impl From<io::Error> for CommandError {
    /// An error of writing standard output.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ReaderGone;
        }
        Self::failed(&format!("cannot write standard output: {error}"))
    }
}

impl CommandError {
    fn failed(message: &dyn ToString) -> Self {
        Self::Failed(Box::new(Diagnostic::new(message.to_string())))
    }
}

/// The template that `--format` is, unless it is one of the `words` that mean something else, or absent.
fn template(format: Option<&str>, words: &[&str]) -> Result<Option<Template>, CommandError> {
    let text = format.filter(|text| !words.contains(text));
    let parsed = text.map(Template::parse).transpose();
    parsed.map_err(|error| CommandError::failed(&error))
}

/// Prints `data` as the template has it, or as a line of JSON.
fn show(template: Option<&Template>, data: &serde_json::Value, env: &mut Env) -> Result<(), CommandError> {
    match template {
        Some(template) => {
            let text = template
                .render(data)
                .map_err(|error| CommandError::failed(&error))?;
            writeln!(env.stdout, "{}", rbuild_ui::text::lines(&text))?;
        }
        None => {
            serde_json::to_writer(&mut env.stdout, data).map_err(io::Error::from)?;
            writeln!(env.stdout)?;
        }
    }
    Ok(env.stdout.flush()?)
}

/// Runs the command.
///
/// # Errors
/// [`CommandError`].
pub(crate) fn run(cli: Cli, env: &mut Env, open: Open<'_>) -> Result<(), CommandError> {
    let global = cli.global;
    let debug = global.debug.unwrap_or_default();
    docker_flags(&cli.docker, env)?;
    if let Some(allowance) = global.archive_limits {
        allowance.hold();
    }
    let options = EngineOptions {
        root: global.root,
        docker_config: cli.docker.config,
        registries: Registries {
            offline: global.offline.unwrap_or_default(),
            ..Registries::default()
        },
        rung: global.rung.unwrap_or_default(),
        snapshotter: global.snapshotter.unwrap_or_default().0,
        ..EngineOptions::default()
    };
    match cli.command.flatten() {
        Command::Build(low) => build::build(*low, debug, options, env, open).map(drop),
        Command::Bake(args) => bake::run(&args, options, env, open),
        Command::Images(args) => images::run(&args, options, env, open),
        Command::Tag(args) => tag::run(&args, options, open),
        Command::Rmi(args) => rmi::run(&args, options, env, open),
        Command::Save(args) => save::run(&args, options, env, open),
        Command::Load(args) => load::run(&args, options, env, open),
        Command::Inspect(args) => inspect::run(&args, options, env, open),
        Command::History(args) => history::run(&args, options, env, open),
        Command::Pull(args) => transfer::pull(&args, options, env, open),
        Command::Push(args) => transfer::push(&args, options, env, open),
        Command::Container(command) => containers::run(&command, options, env, open),
        Command::Context(args) => context::run(&args, env),
        Command::Imagetools(command) => imagetools::run(&command, options, env, open),
        Command::Manifest(command) => manifest::run(&command, options, env, open),
        Command::Info(args) => info::run(&args, options, env, open),
        Command::Login(args) => login::login(&args, &options, env),
        Command::Logout(args) => login::logout(&args, env),
        Command::Builders(command) => builders::run(&command, env),
        Command::Du(args) => du::run(&args, options, env, open),
        Command::Prune(args) => prune::run(&args, options, env, open),
        Command::PruneImages(args) => prune::images(&args, options, env, open),
        Command::PruneSystem(args) => prune::system(&args, options, env, open),
        Command::Df(args) => df::run(&args, options, env, open),
        Command::Serve(args) => serve::run(&args, debug, options, env, open),
        Command::Completion(args) => completions::write(&args, env),
        Command::Man(args) => manual::man(&args, env),
        Command::Doctor(args) => doctor::run(&args, options, env),
        Command::Version(args) => version::run(&args, env),
        Command::Forgotten(told) => {
            write!(env.stdout, "{told}")?;
            Ok(env.stdout.flush()?)
        }
        Command::Refused(name, instead) => {
            Err(CommandError::failed(&format!("not supported: {name}: {instead}")))
        }
        Command::Buildx(_)
        | Command::Image(_)
        | Command::Builder(_)
        | Command::Run(_)
        | Command::Create(_)
        | Command::Cp(_)
        | Command::Export(_)
        | Command::Ps(_)
        | Command::Rm(_)
        | Command::System(_)
        | Command::Unserved(_) => {
            unreachable!("flatten() leaves no other spelling")
        }
    }
}

/// Judges what docker takes before its command.
fn docker_flags(flags: &DockerArgs, env: &mut Env) -> Result<(), CommandError> {
    if let Some(host) = flags.host.first() {
        return Err(CommandError::failed(&format!(
            "not supported: --host {host}: rbuild has no engine to ask"
        )));
    }
    if let Some(name) = flags
        .context
        .as_deref()
        .filter(|name| !matches!(*name, "" | "default"))
    {
        return Err(CommandError::failed(&format!(
            "not supported: --context {name}: rbuild has no engine to ask"
        )));
    }
    if let Some(directory) = &flags.config {
        env.set("DOCKER_CONFIG", directory.as_os_str());
    }
    Ok(())
}

pub(crate) use completions::asked;

/// Tells a shell what may stand in the place of the last of `words`.
///
/// # Errors
/// [`CommandError`] where it cannot be told.
pub(crate) fn complete(words: &[String], env: &mut Env, names: NamesAt<'_>) -> Result<(), CommandError> {
    completions::complete(words, env, names)
}

/// Runs the program under the name `executor`.
///
/// # Errors
/// [`CommandError`].
pub(crate) fn executor(args: &Executor, env: &mut Env, open: Open<'_>) -> Result<(), CommandError> {
    executor::run(args, env, open)
}

/// Runs the program under the name `buildkitd`.
///
/// # Errors
/// [`CommandError`].
pub(crate) fn buildkitd(args: &Buildkitd, env: &mut Env, open: Open<'_>) -> Result<(), CommandError> {
    serve::run_buildkitd(args, env, open)
}

/// Runs the program under the name `buildctl`.
///
/// # Errors
/// [`CommandError`].
pub(crate) fn buildctl(args: &Buildctl, env: &mut Env, open: Open<'_>) -> Result<(), CommandError> {
    buildctl::run(args, env, open)
}

/// Tells the user what went wrong and says how the program ends.
pub(crate) fn report(done: Result<(), CommandError>, env: &mut Env) -> ExitCode {
    // Standard error may be closed too; there is no third place to complain.
    match done {
        Ok(()) | Err(CommandError::ReaderGone) => ExitCode::Success,
        Err(CommandError::Judged(code)) => code,
        Err(CommandError::Cancelled) => {
            let _unwritten = writeln!(env.stderr, "ERROR: canceled: context canceled");
            ExitCode::Cancelled
        }
        Err(CommandError::Failed(diagnostic)) => {
            let _unwritten = diagnostic.write(&mut env.stderr);
            match diagnostic.exit_code {
                ExitCode::Success => ExitCode::Failure,
                code => code,
            }
        }
    }
}

#[cfg(test)]
mod tests;
