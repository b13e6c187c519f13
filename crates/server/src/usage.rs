//! The cache as clients see and clear it.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{DiskUsageRequest, PruneRequest, UsageRecord};
use rbuild_builder::error::chain_text;
use rbuild_builder::ops::blocking;
use rbuild_llb::progress::timestamp;
use rbuild_store::{GcPolicy, UsageEntry, UsageKind};
use tonic::Status;

use crate::core::Core;

/// What takes room and can be cleared.
///
/// # Errors
/// The store's.
pub async fn records(core: &Arc<Core>, request: &DiskUsageRequest) -> Result<Vec<UsageRecord>, Status> {
    let store = core.engine.store.clone();
    let usage = blocking(move || store.du()).await;
    let usage = usage.map_err(|error| Status::unknown(chain_text(&error)))?;
    let least = u64::try_from(request.age_limit).map_or(Duration::ZERO, Duration::from_nanos);
    let records = usage.entries.iter().filter(|entry| is_cache(entry.kind));
    let old = records.filter(|entry| least.is_zero() || unused_for(entry) >= least);
    let records: Vec<UsageRecord> = old.map(record).collect();
    filtered(records, &request.filter)
}

/// Clears what `request` says; gives what is gone.
///
/// # Errors
/// The store's, and filters that cannot be understood.
pub async fn prune(core: &Arc<Core>, request: &PruneRequest) -> Result<Vec<UsageRecord>, Status> {
    if !request.filter.is_empty() {
        return Err(Status::unimplemented("prune does not take filters yet"));
    }
    let bytes = |limit: i64| u64::try_from(limit).ok().filter(|limit| *limit > 0);
    let policy = GcPolicy {
        max_bytes: bytes(request.max_used_space)
            .into_iter()
            .chain(bytes(request.reserved_space))
            .max(),
        min_free_bytes: bytes(request.min_free_space),
        unused_for: u64::try_from(request.keep_duration)
            .ok()
            .filter(|nanoseconds| *nanoseconds > 0)
            .map(Duration::from_nanos),
        kinds: None,
        all: request.all,
        dry_run: false,
    };
    let store = core.engine.store.clone();
    let collected = blocking(move || store.gc(&policy)).await;
    let collected = collected.map_err(|error| Status::unknown(chain_text(&error)))?;
    let gone = collected.parts.into_iter().filter(|(kind, ..)| is_cache(*kind));
    Ok(gone
        .map(|(kind, name, bytes)| {
            record(&UsageEntry {
                kind,
                name,
                bytes,
                created_ms: 0,
                used_ms: 0,
                description: String::new(),
            })
        })
        .collect())
}

/// Blobs belong to images, which the API does not show.
const fn is_cache(kind: UsageKind) -> bool {
    matches!(kind, UsageKind::Layer | UsageKind::CacheMount)
}

fn unused_for(entry: &UsageEntry) -> Duration {
    let now = rbuild_builder::time::now_ms();
    Duration::from_millis(u64::try_from(now - entry.used_ms).unwrap_or(0))
}

fn record(entry: &UsageEntry) -> UsageRecord {
    let local = entry.description.starts_with("local ");
    let kind = match entry.kind {
        UsageKind::CacheMount if local => "source.local",
        UsageKind::CacheMount => "exec.cachemount",
        _ => "regular",
    };
    UsageRecord {
        id: entry.name.clone(),
        mutable: entry.kind == UsageKind::CacheMount,
        size: i64::try_from(entry.bytes).unwrap_or(i64::MAX),
        created_at: time(entry.created_ms),
        last_used_at: time(entry.used_ms),
        usage_count: i64::from(entry.used_ms > 0),
        description: entry.description.clone(),
        record_type: kind.to_owned(),
        ..UsageRecord::default()
    }
}

/// Keeps what any of the filters matches (`field==value`, containerd's syntax); all if there are none.
fn filtered(records: Vec<UsageRecord>, filters: &[String]) -> Result<Vec<UsageRecord>, Status> {
    if filters.is_empty() {
        return Ok(records);
    }
    let mut wanted = Vec::new();
    for filter in filters {
        let (field, value) = filter
            .split_once("==")
            .ok_or_else(|| Status::invalid_argument(format!("filter {filter:?} is not field==value")))?;
        wanted.push((field.trim(), value.trim().trim_matches('"')));
    }
    let matches = |record: &UsageRecord, (field, value): (&str, &str)| match field {
        "id" => record.id == value,
        "type" => record.record_type == value,
        "description" => record.description == value,
        "mutable" => record.mutable.to_string() == value,
        "inuse" => record.in_use.to_string() == value,
        "shared" => record.shared.to_string() == value,
        _ => false,
    };
    Ok(records
        .into_iter()
        .filter(|record| wanted.iter().any(|pair| matches(record, *pair)))
        .collect())
}

/// Nothing for what was not recorded.
fn time(ms: i64) -> Option<Timestamp> {
    let since = u64::try_from(ms).ok().filter(|ms| *ms > 0)?;
    Some(timestamp(UNIX_EPOCH + Duration::from_millis(since)))
}
