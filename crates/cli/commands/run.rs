//! `rbuild run`: a program of an image in the sandbox of steps. The exit code is the program's, or docker's 125 where
//! nothing could be run.

mod mounts;

use std::io::Read as _;

use rbuild_builder::local_image::PullPolicy;
use rbuild_builder::run::RunRequest;
use rbuild_graph::NetMode;
use rbuild_oci::Platform;
use rbuild_ui::diagnostic::ExitCode;
use rbuild_ui::progress::Mode;
use rbuild_ui::values::{csv, host};

use super::{CommandError, Open};
use crate::args::{RunArgs, UnservedRun};
use crate::engine::EngineOptions;
use crate::env::Env;
use crate::view;

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
    unserved(&args.unserved)?;
    let request = request(args, env)?;
    let engine = open(options)?;
    let mode = if args.quiet { Mode::Quiet } else { Mode::Plain };
    let view = view::start(mode, "Running", engine.standing(), env)
        .map_err(|error| CommandError::failed(&format!("cannot show progress: {error}")))?;
    let done = engine.run(request, view.sink());
    drop(view.finish());
    Ok(done?)
}

fn unserved(flags: &UnservedRun) -> Result<(), CommandError> {
    let said = [
        ("--detach", flags.detach, "nothing runs when rbuild has ended"),
        (
            "--publish",
            !flags.publish.is_empty() || flags.publish_all,
            "the program has the network of steps, so its ports are there already",
        ),
        (
            "--privileged",
            flags.privileged || !flags.cap_add.is_empty() || !flags.cap_drop.is_empty(),
            "the sandbox is that of steps",
        ),
        (
            "--device",
            !flags.device.is_empty() || flags.gpus.is_some(),
            "the sandbox is that of steps",
        ),
        (
            "--memory",
            flags.memory.is_some() || flags.cpus.is_some(),
            "limit rbuild itself, for example with systemd-run",
        ),
        (
            "--restart",
            flags.restart.is_some(),
            "nothing runs when rbuild has ended",
        ),
        (
            "--cidfile",
            flags.cidfile.is_some(),
            "what runs has no id that anybody could use",
        ),
    ];
    match said.iter().find(|(_, given, _)| *given) {
        Some((name, _, instead)) => Err(CommandError::failed(&format!("not supported: {name}: {instead}"))),
        None => Ok(()),
    }
}

fn request(args: &RunArgs, env: &Env) -> Result<RunRequest, CommandError> {
    if args.tty && args.interactive && !env.stdin_is_terminal {
        return Err(CommandError::failed(&"the input device is not a TTY"));
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
        image: args.image.clone(),
        platform: platform.map(|platform| platform.normalized()),
        pull: pull_policy(&args.pull)?,
        args: args.command.clone(),
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
        terminal: args.tty,
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

/// Those of files first, then those of flags. A name alone takes the value it has here, and is left out if it has none.
fn variables(args: &RunArgs, env: &Env) -> Result<Vec<String>, CommandError> {
    let mut all = Vec::new();
    for path in &args.env_file {
        let mut text = String::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(ENV_FILE_BYTES_MAX).read_to_string(&mut text));
        read.map_err(|error| CommandError::failed(&format!("cannot read {}: {error}", path.display())))?;
        let lines = text.lines().map(str::trim_start);
        all.extend(
            lines
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(str::to_owned),
        );
    }
    all.extend(args.env.iter().cloned());
    Ok(all
        .into_iter()
        .filter_map(|text| match text.split_once('=') {
            Some(_) => Some(text),
            None => env.var(&text).map(|value| format!("{text}={value}")),
        })
        .collect())
}
