//! What a server says, as it is shown: in the JSON of BuildKit's client (`client/{workers,diskusage,info}.go`), as rows,
//! and as text.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::UsageRecord;
use bollard_buildkit_proto::moby::buildkit::v1::types::{BuildkitVersion, CdiDevice, GcPolicy, WorkerRecord};
use rbuild_ui::text::one_line;
use rbuild_ui::units::{human_size, rfc3339};
use serde_json::{Value, json};

use crate::engine::UsageRow;

/// A time, if it is one.
pub(super) fn time(at: Timestamp) -> Option<SystemTime> {
    let seconds = u64::try_from(at.seconds).ok()?;
    let nanos = u32::try_from(at.nanos).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos.min(999_999_999)))
}

/// A record of the cache as a row.
pub(super) fn row(record: UsageRecord) -> UsageRow {
    UsageRow {
        id: record.id,
        parents: record.parents,
        created: record.created_at.and_then(time).unwrap_or(SystemTime::UNIX_EPOCH),
        mutable: record.mutable,
        in_use: record.in_use,
        shared: record.shared,
        size_bytes: u64::try_from(record.size).unwrap_or(0),
        description: record.description,
        usage_count: u64::try_from(record.usage_count).unwrap_or(0),
        last_used: record.last_used_at.and_then(time),
        kind: record.record_type,
    }
}

/// The same as JSON.
pub(super) fn usage(record: &UsageRecord) -> Value {
    let parents = Some(&record.parents).filter(|parents| !parents.is_empty());
    let at = |at: Option<Timestamp>| at.and_then(time).map(rfc3339);
    json!({
        "id": record.id,
        "mutable": record.mutable,
        "inUse": record.in_use,
        "size": record.size,
        "createdAt": at(record.created_at),
        "lastUsedAt": at(record.last_used_at),
        "usageCount": record.usage_count,
        "parents": parents,
        "description": record.description,
        "recordType": record.record_type,
        "shared": record.shared,
    })
}

fn version(version: &BuildkitVersion) -> Value {
    json!({"package": version.package, "version": version.version, "revision": version.revision})
}

/// What `debug info` shows, as JSON.
pub(super) fn info(of: &BuildkitVersion) -> Value {
    json!({"buildkitVersion": version(of)})
}

/// A worker as JSON.
pub(super) fn worker(worker: &WorkerRecord) -> Value {
    let platforms: Vec<Value> = worker.platforms.iter().map(platform).collect();
    let policies: Vec<Value> = worker.gc_policy.iter().map(policy).collect();
    let labels: BTreeMap<_, _> = worker.labels.iter().collect();
    json!({
        "id": worker.id,
        "labels": labels,
        "platforms": platforms,
        "gcPolicy": policies,
        "buildkitVersion": version(&worker.buildkit_version.clone().unwrap_or_default()),
        "cdiDevices": devices(worker),
    })
}

/// The devices as JSON; Go's client shows an empty list as nothing.
fn devices(worker: &WorkerRecord) -> Option<Vec<Value>> {
    let device = |device: &CdiDevice| {
        let annotations: BTreeMap<_, _> = device.annotations.iter().collect();
        json!({
            "name": device.name,
            "autoAllow": device.auto_allow,
            "annotations": annotations,
            "onDemand": device.on_demand,
        })
    };
    let devices: Vec<Value> = worker.cdi_devices.iter().map(device).collect();
    Some(devices).filter(|devices| !devices.is_empty())
}

fn platform(platform: &bollard_buildkit_proto::pb::Platform) -> Value {
    let mut shown = json!({"architecture": platform.architecture, "os": platform.os});
    if !platform.variant.is_empty() {
        shown["variant"] = Value::from(platform.variant.as_str());
    }
    shown
}

fn policy(policy: &GcPolicy) -> Value {
    let filter = Some(&policy.filters).filter(|filters| !filters.is_empty());
    json!({
        "all": policy.all,
        "filter": filter,
        "keepDuration": policy.keep_duration,
        "reservedSpace": policy.reserved_space,
        "maxUsedSpace": policy.max_used_space,
        "minFreeSpace": policy.min_free_space,
    })
}

/// What a worker runs, with commas.
pub(super) fn platforms(worker: &WorkerRecord) -> String {
    let one = |platform: &bollard_buildkit_proto::pb::Platform| {
        let parts = [&platform.os, &platform.architecture, &platform.variant];
        let parts: Vec<&str> = parts
            .into_iter()
            .map(String::as_str)
            .filter(|part| !part.is_empty())
            .collect();
        parts.join("/")
    };
    worker.platforms.iter().map(one).collect::<Vec<_>>().join(",")
}

/// Everything known of a worker.
pub(super) fn write_worker(worker: &WorkerRecord, out: &mut dyn Write) -> io::Result<()> {
    let version = worker.buildkit_version.clone().unwrap_or_default();
    writeln!(out, "ID:         {}", one_line(&worker.id))?;
    writeln!(out, "Platforms:  {}", one_line(&platforms(worker)))?;
    let version = [version.package, version.version, version.revision].join(" ");
    writeln!(out, "BuildKit:   {}", one_line(&version))?;
    writeln!(out, "Labels:")?;
    for (key, value) in worker.labels.iter().collect::<BTreeMap<_, _>>() {
        writeln!(out, "  {}: {}", one_line(key), one_line(value))?;
    }
    if !worker.cdi_devices.is_empty() {
        writeln!(out, "Devices:")?;
    }
    for device in &worker.cdi_devices {
        writeln!(out, "  Name:       {}", one_line(&device.name))?;
        writeln!(out, "  AutoAllow:  {}", device.auto_allow)?;
        for (key, value) in device.annotations.iter().collect::<BTreeMap<_, _>>() {
            writeln!(out, "  Annotations:  {}: {}", one_line(key), one_line(value))?;
        }
    }
    for (number, policy) in worker.gc_policy.iter().enumerate() {
        writeln!(out, "GC Policy rule#{number}:")?;
        writeln!(out, "  All:                 {}", policy.all)?;
        if !policy.filters.is_empty() {
            writeln!(
                out,
                "  Filters:             {}",
                one_line(&policy.filters.join(" "))
            )?;
        }
        if let Some(nanos) = u64::try_from(policy.keep_duration)
            .ok()
            .filter(|nanos| *nanos > 0)
        {
            let seconds = Duration::from_nanos(nanos).as_secs();
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            writeln!(out, "  Keep duration:       {hours}h{minutes}m{}s", seconds % 60)?;
        }
        for (name, bytes) in [
            ("Reserved space:     ", policy.reserved_space),
            ("Minimum free space: ", policy.min_free_space),
            ("Maximum used space: ", policy.max_used_space),
        ] {
            if let Some(bytes) = u64::try_from(bytes).ok().filter(|bytes| *bytes > 0) {
                writeln!(out, "  {name} {}", human_size(bytes))?;
            }
        }
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_shown_as_buildkits_client_shows_it() {
        let record = WorkerRecord {
            id: "w".to_owned(),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            platforms: vec![bollard_buildkit_proto::pb::Platform {
                os: "linux".to_owned(),
                architecture: "arm".to_owned(),
                variant: "v7".to_owned(),
                ..Default::default()
            }],
            gc_policy: vec![GcPolicy {
                all: true,
                keep_duration: 172_800_000_000_000,
                filters: vec!["type==regular".to_owned()],
                max_used_space: 512_000_000,
                ..GcPolicy::default()
            }],
            cdi_devices: vec![CdiDevice {
                name: "a.b/c=d".to_owned(),
                auto_allow: true,
                annotations: [("x".to_owned(), "y".to_owned())].into(),
                on_demand: false,
            }],
            ..WorkerRecord::default()
        };
        assert_eq!(worker(&WorkerRecord::default())["cdiDevices"], Value::Null);
        assert_eq!(
            worker(&record),
            json!({
                "id": "w",
                "labels": {"k": "v"},
                "platforms": [{"architecture": "arm", "os": "linux", "variant": "v7"}],
                "gcPolicy": [{
                    "all": true, "filter": ["type==regular"], "keepDuration": 172_800_000_000_000_u64,
                    "reservedSpace": 0, "maxUsedSpace": 512_000_000, "minFreeSpace": 0,
                }],
                "buildkitVersion": {"package": "", "version": "", "revision": ""},
                "cdiDevices": [
                    {"name": "a.b/c=d", "autoAllow": true, "annotations": {"x": "y"}, "onDemand": false},
                ],
            })
        );
        let mut text = Vec::new();
        write_worker(&record, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            "Platforms:  linux/arm/v7",
            "  k: v",
            "  Name:       a.b/c=d",
            "  Keep duration:       48h0m0s",
            "  Maximum used space:  512MB",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line:?} is not in\n{text}"
            );
        }
    }

    #[test]
    fn a_record_keeps_what_the_server_says_and_nonsense_is_no_time() {
        let record = UsageRecord {
            id: "r".to_owned(),
            size: -1,
            parents: vec!["below".to_owned()],
            created_at: Some(Timestamp {
                seconds: -5,
                nanos: 0,
            }),
            last_used_at: Some(Timestamp {
                seconds: 60,
                nanos: 0,
            }),
            ..UsageRecord::default()
        };
        let shown = usage(&record);
        assert_eq!(
            (&shown["createdAt"], &shown["parents"]),
            (&Value::Null, &json!(["below"]))
        );
        let row = row(record);
        assert_eq!((row.size_bytes, row.parents), (0, vec!["below".to_owned()]));
        assert_eq!(
            row.last_used,
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(60))
        );
    }
}
