//! `rbuild du`.

use std::time::SystemTime;

use rbuild_ui::units::rfc3339;
use serde::Serialize;

use super::{CommandError, Open, usage};
use crate::args::DuArgs;
use crate::engine::{EngineOptions, UsageRow};
use crate::env::Env;

/// One record as `--format json` prints it: buildx's keys.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct UsageJson<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    parents: &'a [String],
    created_at: String,
    mutable: bool,
    reclaimable: bool,
    shared: bool,
    size: u64,
    description: &'a str,
    usage_count: u64,
    last_used_at: Option<String>,
    #[serde(rename = "Type")]
    kind: &'a str,
}

/// Shows what takes room.
pub(super) fn run(
    args: &DuArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let filter = usage::filter(&args.filter).map_err(|error| CommandError::failed(&error))?;
    let rows = open(options)?.usage(&filter)?;
    let now = SystemTime::now();
    match args.format.as_deref() {
        Some("json") => {
            for row in &rows {
                serde_json::to_writer(&mut env.stdout, &json(row)).map_err(std::io::Error::from)?;
                writeln!(env.stdout)?;
            }
            return Ok(env.stdout.flush()?);
        }
        Some("pretty") => usage::write_all(&rows, now, &mut env.stdout)?,
        _ if args.verbose => usage::write_all(&rows, now, &mut env.stdout)?,
        _ => usage::table(&rows, now).write(&mut env.stdout)?,
    }
    if args.filter.is_empty() {
        usage::write_summary(&rows, &mut env.stdout)?;
    }
    Ok(env.stdout.flush()?)
}

fn json(row: &UsageRow) -> UsageJson<'_> {
    UsageJson {
        id: &row.id,
        parents: &row.parents,
        created_at: rfc3339(row.created),
        mutable: row.mutable,
        reclaimable: !row.in_use,
        shared: row.shared,
        size: row.size_bytes,
        description: &row.description,
        usage_count: row.usage_count,
        last_used_at: row.last_used.map(rfc3339),
        kind: &row.kind,
    }
}
