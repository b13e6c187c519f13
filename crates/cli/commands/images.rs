//! `rbuild images`, in the forms of `docker images`.

use std::time::SystemTime;

use rbuild_ui::table::Table;
use rbuild_ui::text::lines;
use rbuild_ui::units::{human_duration, human_size, rfc3339};
use serde::Serialize;

use super::{CommandError, Open};
use crate::args::ImagesArgs;
use crate::engine::{EngineOptions, ImageRow};
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
    let mut rows = open(options)?.images()?;
    rows.retain(|row| (args.all || row.repository.is_some()) && is_asked_for(row, args.name.as_deref()));
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
