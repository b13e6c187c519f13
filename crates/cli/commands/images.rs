//! `rbuild images`, in the forms of `docker images`.

use std::time::{Duration, SystemTime};

use rbuild_dockerfile::glob::Glob;
use rbuild_oci::Timestamp;
use rbuild_ui::units::{go_time, human_duration, human_size};
use rbuild_ui::values::scalar::{parse_bool, parse_duration};
use serde::Serialize;

use super::listing::{Column, Listing};
use super::{CommandError, Open};
use crate::args::ImagesArgs;
use crate::engine::{Engine, EngineOptions, ImageRow};
use crate::env::Env;

const NONE: &str = "<none>";
/// Docker's word for what it did not count.
const NOT_COUNTED: &str = "N/A";
/// Characters of a short id.
const SHORT_ID: usize = 12;

/// What docker means by the format `raw`.
const RAW: &str = "repository: {{.Repository}}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n";

const COLUMNS: [Column; 11] = [
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// One image under docker's names.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row<'a> {
    containers: &'static str,
    created_at: String,
    created_since: String,
    digest: &'a str,
    #[serde(rename = "ID")]
    id: &'a str,
    repository: &'a str,
    shared_size: &'static str,
    size: String,
    tag: &'a str,
    unique_size: &'static str,
    virtual_size: String,
}

/// Lists images.
pub(super) fn run(
    args: &ImagesArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let mut shown = vec!["Repository", "Tag", "ID", "CreatedSince", "Size"];
    if args.digests {
        shown.insert(2, "Digest");
    }
    let format = if args.format == "raw" { RAW } else { &args.format };
    let listing = Listing::parse(format, &COLUMNS, &shown)?;
    let now = SystemTime::now();
    let name = args.name.as_deref();
    // What is wrong with a filter is told before a store is made.
    Filters::parse(name, &args.filter, now)?;
    let engine = open(options)?;
    let rows = chosen(engine.as_ref(), name, &args.filter, args.all)?;
    if args.quiet {
        // One line for every name, as in the table.
        for row in &rows {
            writeln!(env.stdout, "{}", id(row, args.no_trunc))?;
        }
        return Ok(env.stdout.flush()?);
    }
    let rows: Result<Vec<serde_json::Value>, _> = rows
        .iter()
        .map(|row| serde_json::to_value(shown_as(row, args, now)))
        .collect();
    listing.write(&rows.map_err(std::io::Error::from)?, env)
}

/// The images that `name` and `filters` choose, the newest first: of those without a name too, if `all` are to be chosen
/// from, or if they are asked for.
pub(super) fn chosen(
    engine: &dyn Engine,
    name: Option<&str>,
    filters: &[String],
    all: bool,
) -> Result<Vec<ImageRow>, CommandError> {
    let filters = Filters::parse(name, filters, SystemTime::now())?;
    let all = all || filters.dangling.is_some();
    let before = filters.times(engine, &filters.before)?;
    let since = filters.times(engine, &filters.since)?;
    let mut rows = Vec::new();
    for row in engine.images()? {
        let is_in_time = before.iter().all(|time| row.created < *time)
            && since.iter().all(|time| row.created > *time)
            && filters.until.is_none_or(|time| row.created < Some(time));
        if (all || row.repository.is_some()) && is_in_time && filters.let_through(engine, &row)? {
            rows.push(row);
        }
    }
    rows.sort_by(|a, b| {
        let names = || self::name(a).cmp(&self::name(b));
        b.created.cmp(&a.created).then_with(names)
    });
    Ok(rows)
}

/// `--filter`, and the name that images are asked for by.
#[derive(Default)]
struct Filters<'a> {
    dangling: Option<bool>,
    /// Docker's patterns for a name with or without its tag, of which one has to match.
    references: Vec<Glob>,
    name: Option<Glob>,
    labels: Vec<(&'a str, Option<&'a str>)>,
    before: Vec<&'a str>,
    since: Vec<&'a str>,
    until: Option<SystemTime>,
}

impl<'a> Filters<'a> {
    fn parse(name: Option<&str>, texts: &'a [String], now: SystemTime) -> Result<Self, CommandError> {
        let mut filters = Self::default();
        let glob = |pattern: &str, text: &str| {
            Glob::new(pattern).map_err(|_bad| CommandError::failed(&format!("invalid filter '{text}'")))
        };
        filters.name = name.map(|name| glob(name, name)).transpose()?;
        for text in texts {
            let Some((key, value)) = text.split_once('=') else {
                let what = format!("bad format of filter {text:?} (expected name=value)");
                return Err(CommandError::failed(&what));
            };
            match key {
                "dangling" => filters.dangling = Some(parse_bool(value).ok_or_else(|| invalid(text))?),
                "reference" => filters.references.push(glob(value, text)?),
                "label" => filters.labels.push(match value.split_once('=') {
                    Some((key, value)) => (key, Some(value)),
                    None => (value, None),
                }),
                "before" => filters.before.push(value),
                "since" => filters.since.push(value),
                "until" => filters.until = Some(instant(value, now).ok_or_else(|| invalid(text))?),
                _ => return Err(invalid(text)),
            }
        }
        Ok(filters)
    }

    /// When the images of `before` and `since` were made.
    fn times(&self, engine: &dyn Engine, texts: &[&str]) -> Result<Vec<Option<SystemTime>>, CommandError> {
        let mut times = Vec::new();
        for text in texts {
            let id = engine.image(text, None)?.id;
            let found = engine.images()?.into_iter().find(|row| row.id == id);
            times.push(found.and_then(|row| row.created));
        }
        Ok(times)
    }

    fn let_through(&self, engine: &dyn Engine, row: &ImageRow) -> Result<bool, CommandError> {
        let (repository, tag) = name(row);
        let is_named = |pattern: &Glob| {
            row.repository.is_some()
                && (pattern.is_match(repository) || pattern.is_match(&format!("{repository}:{tag}")))
        };
        let is_asked_for = self.name.as_ref().is_none_or(is_named)
            && (self.references.is_empty() || self.references.iter().any(is_named))
            && self
                .dangling
                .is_none_or(|asked| row.repository.is_none() == asked);
        if !is_asked_for || self.labels.is_empty() {
            return Ok(is_asked_for);
        }
        let config = engine.image(row.digest.as_str(), None)?.config.config;
        Ok(self.labels.iter().all(|(key, value)| {
            let found = config.labels.get(*key);
            found.is_some_and(|found| value.is_none_or(|value| found == value))
        }))
    }
}

fn invalid(text: &str) -> CommandError {
    CommandError::failed(&format!(
        "invalid filter '{text}': there are dangling=BOOL, reference=PATTERN, label=KEY[=VALUE], before=IMAGE, since=IMAGE and until=TIME"
    ))
}

/// A time, or one that lies so far back.
fn instant(text: &str, now: SystemTime) -> Option<SystemTime> {
    if let Some(age) = parse_duration(text) {
        return now.checked_sub(age);
    }
    let seconds = Timestamp::parse(text).ok()?.unix_seconds();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

fn shown_as<'a>(row: &'a ImageRow, args: &ImagesArgs, now: SystemTime) -> Row<'a> {
    let (repository, tag) = name(row);
    let size = human_size(row.size_bytes);
    Row {
        containers: NOT_COUNTED,
        created_at: row.created.map_or_else(String::new, go_time),
        created_since: since(row.created, now),
        digest: row.digest.as_str(),
        id: id(row, args.no_trunc),
        repository,
        shared_size: NOT_COUNTED,
        size: size.clone(),
        tag,
        unique_size: NOT_COUNTED,
        virtual_size: size,
    }
}

fn name(row: &ImageRow) -> (&str, &str) {
    (
        row.repository.as_deref().unwrap_or(NONE),
        row.tag.as_deref().unwrap_or(NONE),
    )
}

fn id(row: &ImageRow, whole: bool) -> &str {
    if whole {
        row.id.as_str()
    } else {
        &row.id.hex()[..SHORT_ID]
    }
}

fn since(created: Option<SystemTime>, now: SystemTime) -> String {
    match created.and_then(|time| now.duration_since(time).ok()) {
        Some(age) => format!("{} ago", human_duration(age)),
        None => NOT_COUNTED.to_owned(),
    }
}
