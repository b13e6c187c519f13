//! `rbuild run`: a program of an image in the sandbox of steps. The exit code is the program's, or docker's 125 where
//! nothing could be run.

mod mounts;

use std::io::Read as _;

use rbuild_builder::local_image::PullPolicy;
use rbuild_builder::run::RunRequest;
use rbuild_graph::NetMode;
use rbuild_oci::Platform;
use rbuild_ui::diagnostic::{Diagnostic, ExitCode};
use rbuild_ui::progress::Mode;
use rbuild_ui::values::{csv, host};

use super::{CommandError, Open};
use crate::args::RunArgs;
use crate::engine::EngineOptions;
use crate::env::Env;
use crate::{terminal, view};

/// What docker ends with when it is at fault, not the program.
const NOT_RUN: ExitCode = ExitCode::Program(125);
/// Largest file with variables, bytes.
const ENV_FILE_BYTES_MAX: u64 = 1 << 20;

/// Runs it.
pub(super) fn run(
    args: &RunArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let code = ran(args, options, env, open).map_err(|error| match error {
        CommandError::Failed(mut diagnostic) => {
            if diagnostic.exit_code == ExitCode::Failure {
                diagnostic.exit_code = NOT_RUN;
            }
            CommandError::Failed(diagnostic)
        }
        other => other,
    })?;
    match code {
        0 => Ok(()),
        code => Err(CommandError::Judged(ExitCode::Program(code))),
    }
}

fn ran(args: &RunArgs, options: EngineOptions, env: &mut Env, open: Open<'_>) -> Result<u8, CommandError> {
    unserved(args)?;
    let request = request(args, env)?;
    let engine = open(options)?;
    let mode = if args.quiet { Mode::Quiet } else { Mode::Plain };
    let view = view::start_with(mode, "Running", engine.as_ref(), env)
        .map_err(|error| CommandError::failed(&format!("cannot show progress: {error}")))?;
    let done = engine.run(request, view.sink());
    drop(view.finish());
    Ok(done?)
}

fn unserved(args: &RunArgs) -> Result<(), CommandError> {
    let refused = args
        .unserved
        .0
        .iter()
        .find_map(|flag| Some((flag.name, flag.why?)));
    let cidfile = args
        .cidfile
        .as_ref()
        .map(|_| ("cidfile", "what runs has no id that anybody could use"));
    if let Some((name, why)) = refused.or(cidfile) {
        return Err(CommandError::failed(&format!("not supported: --{name}: {why}")));
    }
    let is_name = |name: &str| {
        let rest = name.strip_prefix(|first: char| first.is_ascii_alphanumeric());
        rest.is_some_and(|rest| {
            !rest.is_empty()
                && rest
                    .chars()
                    .all(|next| next.is_ascii_alphanumeric() || "_.-".contains(next))
        })
    };
    match args
        .name
        .as_deref()
        .filter(|name| !name.is_empty() && !is_name(name))
    {
        Some(name) => Err(CommandError::failed(&format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        ))),
        None => Ok(()),
    }
}

fn request(args: &RunArgs, env: &Env) -> Result<RunRequest, CommandError> {
    if args.tty && args.interactive && !env.stdin_is_terminal {
        // The client's own failure in docker, which has another code.
        let mut told = Diagnostic::new("the input device is not a TTY".to_owned());
        told.exit_code = ExitCode::Program(1);
        return Err(CommandError::Failed(Box::new(told)));
    }
    if let Some(dir) = args
        .workdir
        .as_deref()
        .filter(|dir| !dir.is_empty() && !dir.starts_with('/'))
    {
        return Err(CommandError::failed(&format!(
            "the working directory '{dir}' is invalid, it needs to be an absolute path"
        )));
    }
    let platform = args.platform.as_deref().map(Platform::parse).transpose();
    let platform = platform.map_err(|error| CommandError::failed(&error))?;
    let mut extra_hosts = Vec::new();
    for text in &args.add_host {
        for entry in csv::fields(text).map_err(|error| CommandError::failed(&error))? {
            extra_hosts.extend(host::parse(&entry).map_err(|error| CommandError::failed(&error))?);
        }
    }
    Ok(RunRequest {
        image: args.image().to_owned(),
        platform: platform.map(|platform| platform.normalized()),
        pull: pull_policy(&args.pull)?,
        args: args.command().to_vec(),
        entrypoint: args.entrypoint.clone(),
        env: variables(args, env)?,
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        network: match args.network.as_str() {
            "" | "default" | "bridge" => NetMode::Unset,
            "none" => NetMode::None,
            "host" => NetMode::Host,
            other => {
                return Err(CommandError::failed(&format!(
                    "not supported: --network {other}: there are default, none and host"
                )));
            }
        },
        extra_hosts,
        readonly: args.read_only,
        mounts: mounts::mounts(args).map_err(|error| CommandError::failed(&error))?,
        terminal: args.tty.then(|| terminal::size(std::io::stdout())),
        interactive: args.interactive,
    })
}

/// When the registry is asked.
pub(super) fn pull_policy(text: &str) -> Result<PullPolicy, CommandError> {
    match text {
        "missing" => Ok(PullPolicy::Missing),
        "always" => Ok(PullPolicy::Always),
        "never" => Ok(PullPolicy::Never),
        other => Err(CommandError::failed(&format!(
            "invalid --pull {other:?}: must be one of always, missing, never"
        ))),
    }
}

/// Those of files first, then those of flags. A name alone takes the value it has here; without one a file says nothing of it,
/// and a flag takes it away (`cli/command/container/opts.go` of docker, `daemon` of moby).
fn variables(args: &RunArgs, env: &Env) -> Result<Vec<String>, CommandError> {
    let of_here = |name: &str| env.var(name).map(|value| format!("{name}={value}"));
    let mut all = Vec::new();
    for path in &args.env_file {
        let mut text = String::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(ENV_FILE_BYTES_MAX).read_to_string(&mut text));
        read.map_err(|error| CommandError::failed(&format!("cannot read {}: {error}", path.display())))?;
        let invalid =
            |why: String| CommandError::failed(&format!("invalid env file ({}): {why}", path.display()));
        for line in text.trim_start_matches('\u{feff}').lines().map(str::trim_start) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line
                .split_once('=')
                .map_or((line, None), |(name, value)| (name, Some(value)));
            if name.contains([' ', '\t']) {
                return Err(invalid(format!("variable '{name}' contains whitespaces")));
            }
            if name.is_empty() {
                return Err(invalid(format!("no variable name on line '{line}'")));
            }
            all.extend(value.map_or_else(|| of_here(name), |_| Some(line.to_owned())));
        }
    }
    for text in &args.env {
        match text.split_once('=') {
            _ if text.is_empty() || text.starts_with('=') => {
                let told = format!("invalid --env: invalid environment variable: {text}");
                return Err(CommandError::failed(&told));
            }
            Some(_) => all.push(text.clone()),
            None => all.push(of_here(text).unwrap_or_else(|| text.clone())),
        }
    }
    Ok(all)
}
