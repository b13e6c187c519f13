//! `rbuild prune`: asks first, unless `--force`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::time::SystemTime;

use rbuild_ui::units::{human_size, parse_size};

use super::{CommandError, Open, usage};
use crate::args::PruneArgs;
use crate::engine::{EngineOptions, PruneRequest};
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
    let size = |text: &Option<String>| {
        text.as_deref()
            .map(parse_size)
            .transpose()
            .map_err(|error| CommandError::failed(&error))
    };
    let request = PruneRequest {
        all: args.all,
        filter: usage::filter(&args.filter).map_err(|error| CommandError::failed(&error))?,
        reserved_bytes: size(&args.reserved_space)?,
        max_used_bytes: size(&args.max_used_space)?,
        min_free_bytes: size(&args.min_free_space)?,
    };
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
