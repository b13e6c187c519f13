//! What the store holds, and what of it nothing needs, as `du` and `prune` ask for it.

use std::time::{Duration, SystemTime};

use rbuild_store::{GcPolicy, Store, UsageEntry, UsageKind};

use super::{failed, from_ms, images};
use crate::engine::{EngineError, PruneRequest, UsageFilter, UsageRow};

/// What the store holds, as far as `filter` wants it.
pub(super) fn rows(store: &Store, filter: &UsageFilter) -> Result<Vec<UsageRow>, EngineError> {
    let usage = store.du().map_err(failed)?;
    let rows = usage.entries.into_iter().map(|entry| usage_row(&entry));
    Ok(rows.filter(|row| matches(row, filter)).collect())
}

/// Removes what nothing needs; gives what went.
pub(super) fn prune(store: &Store, request: &PruneRequest) -> Result<Vec<UsageRow>, EngineError> {
    let mut kinds = None;
    for (key, value) in &request.filter.fields {
        if key != "type" {
            return Err(EngineError::failed(format!("prune does not filter by {key} yet")));
        }
        kinds = Some(match value.as_str() {
            "exec.cachemount" => vec![UsageKind::CacheMount],
            "regular" => vec![UsageKind::Layer, UsageKind::Blob],
            _ => {
                return Err(EngineError::failed(format!(
                    "nothing in the store is of type {value}"
                )));
            }
        });
    }
    let before = store.du().map_err(failed)?;
    if kinds
        .as_ref()
        .is_none_or(|kinds| kinds.contains(&UsageKind::Blob))
    {
        images::forget_unnamed(store, request.filter.unused_for)?;
    }
    let policy = GcPolicy {
        max_bytes: request
            .max_used_bytes
            .into_iter()
            .chain(request.reserved_bytes)
            .max(),
        min_free_bytes: request.min_free_bytes,
        unused_for: request.filter.unused_for,
        kinds,
        all: request.all,
        dry_run: false,
        ..GcPolicy::default()
    };
    let collected = store.gc(&policy).map_err(failed)?;
    let row = |(kind, name, bytes): (UsageKind, String, u64)| {
        let known = before
            .entries
            .iter()
            .find(|entry| entry.kind == kind && entry.name == name)
            .cloned();
        let unknown = UsageEntry {
            kind,
            name,
            bytes,
            created_ms: 0,
            used_ms: 0,
            description: String::new(),
            in_use: false,
        };
        usage_row(&UsageEntry {
            bytes,
            ..known.unwrap_or(unknown)
        })
    };
    Ok(collected.parts.into_iter().map(row).collect())
}

fn usage_row(entry: &UsageEntry) -> UsageRow {
    let kind = match entry.kind {
        UsageKind::Blob | UsageKind::Layer => "regular",
        UsageKind::CacheMount => "exec.cachemount",
        UsageKind::Scratch | UsageKind::Index => "internal",
    };
    UsageRow {
        id: entry.name.clone(),
        parents: Vec::new(),
        created: from_ms(entry.created_ms).unwrap_or(SystemTime::UNIX_EPOCH),
        mutable: entry.kind == UsageKind::CacheMount,
        in_use: matches!(entry.kind, UsageKind::Scratch | UsageKind::Index),
        shared: false,
        size_bytes: entry.bytes,
        description: entry.description.clone(),
        usage_count: u64::from(entry.used_ms > 0),
        last_used: from_ms(entry.used_ms),
        kind: kind.to_owned(),
    }
}

fn matches(row: &UsageRow, filter: &UsageFilter) -> bool {
    let old = |least: Duration| {
        row.last_used
            .and_then(|used| used.elapsed().ok())
            .is_some_and(|elapsed| elapsed >= least)
    };
    filter.unused_for.is_none_or(old)
        && filter.fields.iter().all(|(key, value)| match key.as_str() {
            "id" => row.id == *value,
            "description" => row.description == *value,
            "type" => row.kind == *value,
            "inuse" => row.in_use.to_string() == *value,
            "mutable" => row.mutable.to_string() == *value,
            "shared" => row.shared.to_string() == *value,
            "private" => (!row.shared).to_string() == *value,
            _ => false,
        })
}
