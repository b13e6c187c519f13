//! What `du` and `prune` share: filters, and records as tables and lists (`buildx/commands/diskusage.go`,
//! `prune.go`).

use std::io::{self, Write};
use std::time::SystemTime;

use rbuild_ui::table::Table;
use rbuild_ui::text::one_line;
use rbuild_ui::units::{human_duration, human_size, rfc3339};
use rbuild_ui::values::scalar::parse_duration;

use crate::engine::{UsageFilter, UsageRow};

/// Keys of BuildKit's cache records that can be asked for.
const FIELDS: [&str; 8] = [
    "id",
    "parents",
    "description",
    "type",
    "inuse",
    "mutable",
    "shared",
    "private",
];

/// Why a filter is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FilterError {
    /// `until` is not a duration.
    #[error("{0:?} filter expects a duration (e.g., '24h')")]
    Duration(String),
    /// A key is given twice.
    #[error("{0:?} filter expects only one value")]
    Twice(String),
    /// `until` and its old name.
    #[error("conflicting filters \"until\" and \"unused-for\"")]
    Conflict,
    /// A key that no record has.
    #[error("invalid filter {0:?}: there are until, unused-for, {known}", known = FIELDS.join(", "))]
    Key(String),
}

/// Reads `--filter key=value`; a key alone is a key whose value is true.
pub(super) fn filter(values: &[String]) -> Result<UsageFilter, FilterError> {
    let mut filter = UsageFilter::default();
    let mut until: Option<&str> = None;
    for text in values {
        let (key, value) = text.split_once('=').unwrap_or((text, "true"));
        match key {
            "until" | "unused-for" => {
                if until.is_some_and(|other| other != key) {
                    return Err(FilterError::Conflict);
                }
                if until.replace(key).is_some() {
                    return Err(FilterError::Twice(key.to_owned()));
                }
                let duration = parse_duration(value).ok_or_else(|| FilterError::Duration(key.to_owned()))?;
                filter.unused_for = Some(duration);
            }
            key if FIELDS.contains(&key) => {
                if filter.fields.iter().any(|(known, _)| known == key) {
                    return Err(FilterError::Twice(key.to_owned()));
                }
                filter.fields.push((key.to_owned(), value.to_owned()));
            }
            _ => return Err(FilterError::Key(text.clone())),
        }
    }
    Ok(filter)
}

/// Records as a table: a star marks what can change, and sizes that are shared.
pub(super) fn table(rows: &[UsageRow], now: SystemTime) -> Table {
    let mut table = Table::new(&["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"]);
    for row in rows {
        let star = |yes| if yes { "*" } else { "" };
        table.row([
            format!("{}{}", row.id, star(row.mutable)),
            (!row.in_use).to_string(),
            format!("{}{}", human_size(row.size_bytes), star(row.shared)),
            row.last_used.map_or_else(String::new, |time| ago(time, now)),
        ]);
    }
    table
}

/// Records with everything known of them.
pub(super) fn write_all(rows: &[UsageRow], now: SystemTime, out: &mut dyn Write) -> io::Result<()> {
    for row in rows {
        writeln!(out, "ID:           {}", one_line(&row.id))?;
        if !row.parents.is_empty() {
            writeln!(out, "Parents:")?;
            for parent in &row.parents {
                writeln!(out, " - {}", one_line(parent))?;
            }
        }
        writeln!(out, "Created at:   {}", rfc3339(row.created))?;
        writeln!(out, "Mutable:      {}", row.mutable)?;
        writeln!(out, "Reclaimable:  {}", !row.in_use)?;
        writeln!(out, "Shared:       {}", row.shared)?;
        writeln!(out, "Size:         {}", human_size(row.size_bytes))?;
        if !row.description.is_empty() {
            writeln!(out, "Description:  {}", one_line(&row.description))?;
        }
        writeln!(out, "Usage count:  {}", row.usage_count)?;
        if let Some(time) = row.last_used {
            writeln!(out, "Last used:    {}", ago(time, now))?;
        }
        if !row.kind.is_empty() {
            writeln!(out, "Type:         {}", one_line(&row.kind))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The sums below a list of everything.
pub(super) fn write_summary(rows: &[UsageRow], out: &mut dyn Write) -> io::Result<()> {
    let sum = |which: &dyn Fn(&UsageRow) -> bool| {
        rows.iter()
            .filter(|row| which(row))
            .map(|row| row.size_bytes)
            .sum::<u64>()
    };
    let total = sum(&|_| true);
    let shared = sum(&|row| row.shared);
    if shared > 0 {
        writeln!(out, "Shared:       {}", human_size(shared))?;
        writeln!(out, "Private:      {}", human_size(total - shared))?;
    }
    writeln!(out, "Reclaimable:  {}", human_size(sum(&|row| !row.in_use)))?;
    writeln!(out, "Total:        {}", human_size(total))
}

/// `3 days ago`.
pub(super) fn ago(time: SystemTime, now: SystemTime) -> String {
    format!(
        "{} ago",
        human_duration(now.duration_since(time).unwrap_or_default())
    )
}
