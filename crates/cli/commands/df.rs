//! `docker system df`: what takes room in the store, by kind (docker CLI, `formatter/disk_usage.go`). With `--verbose` each
//! record is told of, as `du` does.

use std::collections::BTreeMap;
use std::time::SystemTime;

use rbuild_ui::units::human_size;
use serde_json::{Value, json};

use super::listing::{Column, Listing};
use super::{CommandError, Open, usage};
use crate::args::DfArgs;
use crate::engine::{Engine, EngineOptions, UsageFilter};
use crate::env::Env;

const COLUMNS: [Column; 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

/// Shows it.
pub(super) fn run(
    args: &DfArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let listing = Listing::parse(&args.format, &COLUMNS, &COLUMNS.map(|(field, _)| field))?;
    let engine = open(options)?;
    if args.verbose {
        let rows = engine.usage(&UsageFilter::default())?;
        usage::write_all(&rows, SystemTime::now(), &mut env.stdout)?;
        return Ok(env.stdout.flush()?);
    }
    listing.write(&kinds(engine.as_ref())?, env)
}

fn kinds(engine: &dyn Engine) -> Result<Vec<Value>, CommandError> {
    let containers = engine.containers()?;
    let images: BTreeMap<String, u64> = engine
        .images()?
        .into_iter()
        .map(|row| (row.id.to_string(), row.size_bytes))
        .collect();
    let is_used = |id: &str| {
        containers
            .iter()
            .any(|container| container.image_id.as_str() == id)
    };
    let used: Vec<u64> = images
        .iter()
        .filter(|(id, _)| is_used(id))
        .map(|(_, bytes)| *bytes)
        .collect();
    let whole: u64 = images.values().sum();
    let records = engine.usage(&UsageFilter::default())?;
    let records: Vec<_> = records.iter().filter(|row| row.kind != "internal").collect();
    let cached: u64 = records.iter().map(|row| row.size_bytes).sum();
    let free = records.iter().filter(|row| !row.in_use);
    Ok(vec![
        row(
            "Images",
            images.len(),
            used.len(),
            whole,
            &share(whole - used.iter().sum::<u64>(), whole),
        ),
        // Nothing runs, and a container's files are its image's.
        row("Containers", containers.len(), 0, 0, "0B"),
        row("Local Volumes", 0, 0, 0, "0B"),
        row(
            "Build Cache",
            records.len(),
            records.iter().filter(|row| row.in_use).count(),
            cached,
            &human_size(free.map(|row| row.size_bytes).sum()),
        ),
    ])
}

fn row(kind: &str, count: usize, active: usize, bytes: u64, reclaimable: &str) -> Value {
    json!({
        "Type": kind,
        "TotalCount": count.to_string(),
        "Active": active.to_string(),
        "Size": human_size(bytes),
        "Reclaimable": reclaimable,
    })
}

/// An amount, and how much of all it is.
fn share(bytes: u64, of: u64) -> String {
    let text = human_size(bytes);
    match (bytes * 100).checked_div(of) {
        Some(percent) => format!("{text} ({percent}%)"),
        None => text,
    }
}
