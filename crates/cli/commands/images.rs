//! `rbuild images`, in the forms of `docker images`.

use std::time::SystemTime;

use rbuild_dockerfile::glob::Glob;
use rbuild_ui::table::Table;
use rbuild_ui::text::lines;
use rbuild_ui::units::{human_duration, human_size, rfc3339};
use rbuild_ui::values::scalar::parse_bool;
use serde::Serialize;

use super::{CommandError, Open};
use crate::args::ImagesArgs;
use crate::engine::{Engine, EngineOptions, ImageRow};
use crate::env::Env;

const NONE: &str = "<none>";
/// Characters of a short id.
const SHORT_ID: usize = 12;

/// One image as `--format json` prints it: docker's keys.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ImageJson<'a> {
    created_at: String,
    created_since: String,
    digest: &'a str,
    #[serde(rename = "ID")]
    id: &'a str,
    repository: &'a str,
    size: String,
    tag: &'a str,
}

/// Lists images.
pub(super) fn run(
    args: &ImagesArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let template = super::template(Some(&args.format), &["", "table", "json"])?;
    let filters = filters(&args.filter)?;
    let engine = open(options)?;
    // Those without a name are shown where they are asked for.
    let all = args.all || filters.iter().any(|filter| matches!(filter, Filter::Dangling(_)));
    let mut rows = Vec::new();
    for row in engine.images()? {
        let is_shown = (all || row.repository.is_some()) && is_asked_for(&row, args.name.as_deref());
        if is_shown && is_let_through(engine.as_ref(), &row, &filters)? {
            rows.push(row);
        }
    }
    rows.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| name(a).cmp(&name(b))));
    let now = SystemTime::now();
    if args.quiet {
        let mut seen = std::collections::HashSet::new();
        for row in rows.iter().filter(|row| seen.insert(row.id.clone())) {
            writeln!(env.stdout, "{}", id(row, args.no_trunc))?;
        }
        return Ok(env.stdout.flush()?);
    }
    match template {
        Some(template) => {
            for row in &rows {
                let data = serde_json::to_value(json(row, args, now)).map_err(std::io::Error::from)?;
                let text = template
                    .render(&data)
                    .map_err(|error| CommandError::failed(&error))?;
                writeln!(env.stdout, "{}", lines(&text))?;
            }
        }
        None if args.format == "json" => {
            for row in &rows {
                serde_json::to_writer(&mut env.stdout, &json(row, args, now))
                    .map_err(std::io::Error::from)?;
                writeln!(env.stdout)?;
            }
        }
        None => table(&rows, args, now).write(&mut env.stdout)?,
    }
    Ok(env.stdout.flush()?)
}

/// `--filter`.
enum Filter<'a> {
    Dangling(bool),
    /// Docker's pattern for a name with or without its tag.
    Reference(Glob),
    Label(&'a str, Option<&'a str>),
}

fn filters(texts: &[String]) -> Result<Vec<Filter<'_>>, CommandError> {
    let invalid = |text: &str| {
        CommandError::failed(&format!(
            "invalid filter {text:?}: there are dangling=BOOL, reference=PATTERN and label=KEY[=VALUE]"
        ))
    };
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some(("dangling", value)) => parse_bool(value)
                .map(Filter::Dangling)
                .ok_or_else(|| invalid(text)),
            Some(("reference", pattern)) => Glob::new(pattern)
                .map(Filter::Reference)
                .map_err(|_bad| invalid(text)),
            Some(("label", label)) => Ok(match label.split_once('=') {
                Some((key, value)) => Filter::Label(key, Some(value)),
                None => Filter::Label(label, None),
            }),
            _ => Err(invalid(text)),
        })
        .collect()
}

fn is_let_through(engine: &dyn Engine, row: &ImageRow, filters: &[Filter<'_>]) -> Result<bool, CommandError> {
    for filter in filters {
        let is_match = match filter {
            Filter::Dangling(asked) => row.repository.is_none() == *asked,
            Filter::Reference(pattern) => {
                let (repository, tag) = name(row);
                row.repository.is_some()
                    && (pattern.is_match(repository) || pattern.is_match(&format!("{repository}:{tag}")))
            }
            Filter::Label(key, value) => {
                let config = engine.image(row.digest.as_str(), None)?.config.config;
                let found = config.labels.get(*key);
                found.is_some_and(|found| value.is_none_or(|value| found == value))
            }
        };
        if !is_match {
            return Ok(false);
        }
    }
    Ok(true)
}

fn json<'a>(row: &'a ImageRow, args: &ImagesArgs, now: SystemTime) -> ImageJson<'a> {
    let (repository, tag) = name(row);
    ImageJson {
        created_at: row.created.map_or_else(String::new, rfc3339),
        created_since: since(row.created, now),
        digest: row.digest.as_str(),
        id: id(row, args.no_trunc),
        repository,
        size: human_size(row.size_bytes),
        tag,
    }
}

fn table(rows: &[ImageRow], args: &ImagesArgs, now: SystemTime) -> Table {
    let mut header = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    if args.digests {
        header.insert(2, "DIGEST");
    }
    let mut table = Table::new(&header);
    for row in rows {
        let (repository, tag) = name(row);
        let mut cells = vec![
            repository.to_owned(),
            tag.to_owned(),
            id(row, args.no_trunc).to_owned(),
            since(row.created, now),
            human_size(row.size_bytes),
        ];
        if args.digests {
            cells.insert(2, row.digest.as_str().to_owned());
        }
        table.row(cells);
    }
    table
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
        None => "N/A".to_owned(),
    }
}

fn is_asked_for(row: &ImageRow, asked: Option<&str>) -> bool {
    let Some(asked) = asked else { return true };
    let (repository, tag) = name(row);
    // A colon before the last slash belongs to a port.
    match asked.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
        Some((asked, asked_tag)) => asked == repository && asked_tag == tag,
        None => asked == repository,
    }
}
