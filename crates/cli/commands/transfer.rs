//! `rbuild pull` and `rbuild push`.

use std::sync::Arc;

use rbuild_graph::progress::Sink;
use rbuild_oci::{Digest, Reference};
use rbuild_ui::progress::Mode;
use rbuild_ui::text::one_line;

use super::{CommandError, Open};
use crate::args::{PullArgs, PushArgs};
use crate::engine::{Engine, EngineError, EngineOptions};
use crate::env::Env;
use crate::{request, view};

/// Pulls images into the store.
pub(super) fn pull(
    args: &PullArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    if args.all_tags {
        return Err(CommandError::failed(
            &"not supported: --all-tags: registries are not asked for the tags they have; name those you want",
        ));
    }
    transfer(
        ("Pulling", &args.progress, args.quiet),
        options,
        env,
        open,
        |engine, sink| engine.pull(&args.images, args.platform.as_deref(), sink),
    )
}

/// Pushes images of the store.
pub(super) fn push(
    args: &PushArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    transfer(
        ("Pushing", &args.progress, args.quiet),
        options,
        env,
        open,
        |engine, sink| {
            if !args.all_tags {
                return engine.push(&args.images, sink);
            }
            let mut names = Vec::new();
            for name in &args.images {
                names.extend(tags(engine, name)?);
            }
            engine.push(&names, sink)
        },
    )
}

/// All names that the store has of a repository.
fn tags(engine: &dyn Engine, text: &str) -> Result<Vec<String>, EngineError> {
    let asked = Reference::parse(text).map_err(|error| EngineError::failed(error.to_string()))?;
    if asked.tag().is_some() || asked.digest().is_some() {
        return Err(EngineError::failed("tag can't be used with --all-tags/-a"));
    }
    let repository = asked.repository().familiar();
    let rows = engine.images()?.into_iter();
    let named = rows.filter(|row| row.repository.as_ref() == Some(&repository));
    let names: Vec<String> = named
        .filter_map(|row| Some(format!("{repository}:{}", row.tag?)))
        .collect();
    if names.is_empty() {
        return Err(EngineError::failed(format!(
            "An image does not exist locally with the tag: {repository}"
        )));
    }
    Ok(names)
}

type Done = Result<Vec<(String, Digest)>, EngineError>;

fn transfer(
    (phase, progress, quiet): (&str, &str, bool),
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
    work: impl FnOnce(&dyn Engine, Arc<dyn Sink>) -> Done,
) -> Result<(), CommandError> {
    let asked = Mode::parse(progress)
        .ok_or_else(|| CommandError::failed(&request::UsageError::Progress(progress.to_owned())))?;
    let mode = if quiet {
        Ok(Mode::Quiet)
    } else {
        request::shown_mode(asked, env)
    };
    let mode = mode.map_err(|error| CommandError::failed(&error))?;
    let engine = open(options)?;
    let view = view::start(mode, phase, None, env)
        .map_err(|error| CommandError::failed(&format!("cannot show progress: {error}")))?;
    let done = work(engine.as_ref(), view.sink());
    drop(view.finish());
    for (name, digest) in done? {
        if quiet {
            // As docker: with the host and the tag, so that it means the same everywhere.
            let whole = Reference::parse(&name).map(|name| name.or_latest().to_string());
            writeln!(env.stdout, "{}", one_line(&whole.unwrap_or(name)))?;
        } else {
            writeln!(env.stdout, "{}@{digest}", one_line(&name))?;
        }
    }
    Ok(env.stdout.flush()?)
}
