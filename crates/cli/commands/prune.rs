//! `rbuild prune`, and what docker calls so of images and of the system: asks first, unless `--force`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::time::SystemTime;

use rbuild_ui::text::one_line;
use rbuild_ui::units::{human_size, parse_size};

use super::{CommandError, Open, containers, images, usage};
use crate::args::{PruneArgs, PruneImagesArgs};
use crate::engine::{Engine, EngineOptions, PruneRequest};
use crate::env::Env;

/// Longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 1024;

/// Removes build cache.
pub(super) fn run(
    args: &PruneArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let request = request(args)?;
    let what = if args.all {
        "all build cache"
    } else {
        "all dangling build cache"
    };
    if !args.force && !is_confirmed(what, env)? {
        return Ok(());
    }
    let rows = open(options)?.prune(&request)?;
    let now = SystemTime::now();
    if args.verbose {
        usage::write_all(&rows, now, &mut env.stdout)?;
    } else if !rows.is_empty() {
        usage::table(&rows, now).write(&mut env.stdout)?;
    }
    let total = rows.iter().map(|row| row.size_bytes).sum();
    writeln!(env.stdout, "Total:   {}", human_size(total))?;
    Ok(env.stdout.flush()?)
}

fn request(args: &PruneArgs) -> Result<PruneRequest, CommandError> {
    let size = |text: &Option<String>| {
        text.as_deref()
            .map(parse_size)
            .transpose()
            .map_err(|error| CommandError::failed(&error))
    };
    Ok(PruneRequest {
        all: args.all,
        filter: usage::filter(&args.filter).map_err(|error| CommandError::failed(&error))?,
        reserved_bytes: size(&args.reserved_space)?,
        max_used_bytes: size(&args.max_used_space)?,
        min_free_bytes: size(&args.min_free_space)?,
    })
}

/// `docker image prune`: images without a name, or all that no container is of. The build cache keeps its layers.
pub(super) fn images(
    args: &PruneImagesArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let what = if args.all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    if !args.force && !is_confirmed(what, env)? {
        return Ok(());
    }
    let engine = open(options)?;
    if remove_images(engine.as_ref(), args.all, &args.filter, env)? {
        let rest = "their layers stay as build cache, until `builder prune`";
        writeln!(env.stderr, "{rest}")?;
    }
    reclaimed(0, env)
}

/// `docker system prune`: containers, images without a name (or all) and the build cache that nothing needs.
pub(super) fn system(
    args: &PruneArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let request = request(args)?;
    let what = if args.all {
        "all containers, all images and all build cache"
    } else {
        "all containers, all dangling images and unused build cache"
    };
    if !args.force && !is_confirmed(what, env)? {
        return Ok(());
    }
    let engine = open(options)?;
    // What is younger than a time that is given stays, and no container is asked for its age.
    if args.filter.is_empty() {
        containers::remove_all(engine.as_ref(), env)?;
    }
    remove_images(engine.as_ref(), args.all, &args.filter, env)?;
    let rows = engine.prune(&request)?;
    let total = rows.iter().map(|row| row.size_bytes).sum();
    deleted("build cache objects", rows.into_iter().map(|row| row.id), env)?;
    reclaimed(total, env)
}

/// Removes images without a name, or all, but for those of containers; whether there were any.
fn remove_images(
    engine: &dyn Engine,
    all: bool,
    filters: &[String],
    env: &mut Env,
) -> Result<bool, CommandError> {
    let of_containers: Vec<_> = engine.containers()?.into_iter().map(|row| row.image_id).collect();
    let rows = images::chosen(engine, None, filters, true)?;
    let all = all || filters.iter().any(|filter| filter == "dangling=false");
    let mut told = Vec::new();
    for row in rows {
        if of_containers.contains(&row.id) || (row.repository.is_some() && !all) {
            continue;
        }
        let text = match (&row.repository, &row.tag) {
            (Some(repository), Some(tag)) => format!("{repository}:{tag}"),
            (Some(repository), None) => format!("{repository}@{}", row.digest),
            (None, _) => row.digest.to_string(),
        };
        let removed = engine.remove_image(&text, false)?;
        let untagged = removed.untagged.iter().map(|name| format!("untagged: {name}"));
        let gone = removed.deleted.iter().map(|digest| format!("deleted: {digest}"));
        told.extend(untagged.chain(gone));
    }
    let is_any = !told.is_empty();
    deleted("Images", told.into_iter(), env)?;
    Ok(is_any)
}

/// Docker's list of what is gone; nothing where nothing is.
pub(super) fn deleted(
    what: &str,
    names: impl Iterator<Item = String>,
    env: &mut Env,
) -> Result<(), CommandError> {
    let mut names = names.peekable();
    if names.peek().is_none() {
        return Ok(());
    }
    writeln!(env.stdout, "Deleted {what}:")?;
    for name in names {
        writeln!(env.stdout, "{}", one_line(&name))?;
    }
    Ok(writeln!(env.stdout)?)
}

/// Docker's last line.
pub(super) fn reclaimed(bytes: u64, env: &mut Env) -> Result<(), CommandError> {
    writeln!(env.stdout, "Total reclaimed space: {}", human_size(bytes))?;
    Ok(env.stdout.flush()?)
}

/// Asks whether `what` is to be removed.
pub(super) fn is_confirmed(what: &str, env: &mut Env) -> Result<bool, CommandError> {
    write!(
        env.stdout,
        "WARNING! This will remove {what}. Are you sure you want to continue? [y/N] "
    )?;
    env.stdout.flush()?;
    let mut answer = String::new();
    BufReader::new(env.stdin.as_mut().take(MAX_ANSWER_BYTES))
        .read_line(&mut answer)
        .map_err(|error| CommandError::failed(&format!("cannot read the answer: {error}")))?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}
