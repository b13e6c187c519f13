//! `rbuild history`: how an image was made, newest step first. Sizes are those of the compressed layers.

use std::time::{Duration, SystemTime};

use rbuild_oci::{History, Timestamp};
use rbuild_ui::units::{human_duration, human_size};
use serde::Serialize;

use super::listing::{Column, Listing};
use super::{CommandError, Open};
use crate::args::HistoryArgs;
use crate::engine::{EngineOptions, ImageDetails};
use crate::env::Env;

/// Characters of a command that is cut off, the dots included.
const COMMAND_MAX: usize = 45;
/// Characters of a short id.
const SHORT_ID: usize = 12;
/// Steps below the last one have no image of their own.
const MISSING: &str = "<missing>";

const COLUMNS: [Column; 6] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

/// One step, under docker's names.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    comment: String,
    created_at: String,
    created_by: String,
    created_since: String,
    #[serde(rename = "ID")]
    id: String,
    size: String,
}

/// Shows the history.
pub(super) fn run(
    args: &HistoryArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let when = if args.human { "CreatedSince" } else { "CreatedAt" };
    let shown = ["ID", when, "CreatedBy", "Size", "Comment"];
    let listing = Listing::parse(&args.format, &COLUMNS, &shown)?;
    let image = open(options)?.image(&args.image, args.platform.as_deref())?;
    let rows = rows(&image, args, SystemTime::now());
    if args.quiet {
        for row in &rows {
            writeln!(env.stdout, "{}", row.id)?;
        }
        return Ok(env.stdout.flush()?);
    }
    let rows: Result<Vec<serde_json::Value>, _> = rows.iter().map(serde_json::to_value).collect();
    listing.write(&rows.map_err(std::io::Error::from)?, env)
}

fn rows(image: &ImageDetails, args: &HistoryArgs, now: SystemTime) -> Vec<Row> {
    let mut sizes = image.layers.iter().map(|layer| layer.size);
    let steps = image.config.history.iter();
    let mut rows: Vec<Row> = steps
        .map(|step| {
            let size = if step.empty_layer {
                0
            } else {
                sizes.next().unwrap_or(0)
            };
            row(step, size, args, now)
        })
        .collect();
    rows.reverse();
    if let Some(first) = rows.first_mut() {
        first.id = if args.no_trunc {
            image.id.to_string()
        } else {
            image.id.hex()[..SHORT_ID].to_owned()
        };
    }
    rows
}

fn row(step: &History, size: u64, args: &HistoryArgs, now: SystemTime) -> Row {
    let command = step.created_by.replace(['\t', '\n'], " ");
    Row {
        comment: step.comment.clone(),
        created_at: step.created.map(whole_seconds).unwrap_or_default(),
        created_since: since(step.created, now),
        created_by: if args.no_trunc {
            command
        } else {
            ellipsis(&command)
        },
        id: MISSING.to_owned(),
        size: if args.human {
            human_size(size)
        } else {
            size.to_string()
        },
    }
}

fn since(created: Option<Timestamp>, now: SystemTime) -> String {
    let seconds = created.and_then(|time| u64::try_from(time.unix_seconds()).ok());
    let then = seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    match then.and_then(|then| now.duration_since(then).ok()) {
        Some(age) => format!("{} ago", human_duration(age)),
        None => "N/A".to_owned(),
    }
}

/// Docker shows no fractions here.
fn whole_seconds(time: Timestamp) -> String {
    Timestamp::from_unix(time.unix_seconds(), 0)
        .unwrap_or(time)
        .to_string()
}

fn ellipsis(text: &str) -> String {
    match text.char_indices().nth(COMMAND_MAX) {
        None => text.to_owned(),
        Some(_) => text.chars().take(COMMAND_MAX - 1).chain(['…']).collect(),
    }
}
