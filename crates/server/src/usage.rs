//! The cache as clients see and clear it.

use std::borrow::Cow;
use std::collections::HashSet;
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
use crate::filter::{self, Filter};

/// What takes room and can be cleared.
///
/// # Errors
/// The store's, and filters that cannot be understood.
pub async fn records(core: &Arc<Core>, request: &DiskUsageRequest) -> Result<Vec<UsageRecord>, Status> {
    let filters = parse(&request.filter)?;
    let least = u64::try_from(request.age_limit).map_or(Duration::ZERO, Duration::from_nanos);
    let mut entries = entries(core).await?;
    entries.retain(|entry| least.is_zero() || unused_for(entry) >= least);
    let records = entries.iter().map(record);
    Ok(records.filter(|record| matches(&filters, record)).collect())
}

/// Clears what `request` says; gives what is gone.
///
/// # Errors
/// The store's, and filters that cannot be understood.
pub async fn prune(core: &Arc<Core>, request: &PruneRequest) -> Result<Vec<UsageRecord>, Status> {
    let filters = parse(&request.filter)?;
    let known = entries(core).await?;
    let wanted = known.iter().filter(|entry| matches(&filters, &record(entry)));
    let only = (!filters.is_empty()).then(|| wanted.map(|entry| entry.name.clone()).collect());
    let bytes = |limit: i64| u64::try_from(limit).ok().filter(|limit| *limit > 0);
    let (used, reserved) = (bytes(request.max_used_space), bytes(request.reserved_space));
    let free = bytes(request.min_free_space);
    let policy = GcPolicy {
        // What is reserved is the bound where there is no other.
        max_bytes: used.or(reserved.filter(|_| free.is_none())),
        min_free_bytes: free,
        reserved_bytes: reserved,
        unused_for: u64::try_from(request.keep_duration)
            .ok()
            .filter(|nanoseconds| *nanoseconds > 0)
            .map(Duration::from_nanos),
        kinds: None,
        only,
        all: request.all,
        dry_run: false,
    };
    let store = core.engine.store.clone();
    let collected = blocking(move || store.gc(&policy)).await;
    let collected = collected.map_err(|error| Status::unknown(chain_text(&error)))?;
    let gone: HashSet<(UsageKind, &str)> = collected
        .parts
        .iter()
        .map(|(kind, name, _)| (*kind, name.as_str()))
        .collect();
    let known = known.iter();
    let gone = known.filter(|entry| gone.contains(&(entry.kind, entry.name.as_str())));
    Ok(gone.map(record).collect())
}

async fn entries(core: &Arc<Core>) -> Result<Vec<UsageEntry>, Status> {
    let store = core.engine.store.clone();
    let usage = blocking(move || store.du()).await;
    let mut entries = usage
        .map_err(|error| Status::unknown(chain_text(&error)))?
        .entries;
    entries.retain(|entry| is_cache(entry.kind));
    Ok(entries)
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
        in_use: entry.in_use,
        record_type: kind.to_owned(),
        ..UsageRecord::default()
    }
}

fn parse(filters: &[String]) -> Result<Vec<Filter>, Status> {
    filter::parse_all(filters).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Fields as BuildKit's cache has them (`cache/manager.go`, `adaptUsageInfo`).
fn matches(filters: &[Filter], record: &UsageRecord) -> bool {
    let text = |text: &'_ String| (!text.is_empty()).then(|| Cow::Owned(text.clone()));
    let flag = |is: bool| is.then_some(Cow::Borrowed(""));
    filter::any(filters, |field| match field {
        "id" => text(&record.id),
        "description" => text(&record.description),
        "type" => text(&record.record_type),
        "inuse" => flag(record.in_use),
        "mutable" => flag(record.mutable),
        "immutable" => flag(!record.mutable),
        "shared" => flag(record.shared),
        "private" => flag(!record.shared),
        _ => None,
    })
}

/// Nothing for what was not recorded.
fn time(ms: i64) -> Option<Timestamp> {
    let since = u64::try_from(ms).ok().filter(|ms| *ms > 0)?;
    Some(timestamp(UNIX_EPOCH + Duration::from_millis(since)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_by_buildkits_fields() {
        let entry = UsageEntry {
            kind: UsageKind::CacheMount,
            name: "abc".to_owned(),
            bytes: 1,
            created_ms: 1,
            used_ms: 1,
            description: "local source for context".to_owned(),
            in_use: true,
        };
        let record = record(&entry);
        for (filter, expected) in [
            ("type==source.local", true),
            ("type==regular", false),
            ("id~=^ab", true),
            ("mutable", true),
            ("immutable", false),
            ("inuse,private", true),
            ("shared", false),
            ("parents", false),
        ] {
            let filters = parse(&[filter.to_owned()]).unwrap();
            assert_eq!(matches(&filters, &record), expected, "{filter}");
        }
        assert!(matches(&[], &record));
        assert!(parse(&["type=x".to_owned()]).is_err());
    }
}
