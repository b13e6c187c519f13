//! Events of a build as BuildKit's `Status` stream sends them (`control/control.go`, `client/status.go`,
//! `solver/progress.go`).

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1 as api;
use bollard_buildkit_proto::pb;
use rbuild_graph::progress::{Event, ProgressGroup, Stream, VertexLog, VertexState, VertexStatus, Warning};
use rbuild_graph::{SourceText, VertexDigest};
use rbuild_oci::Digest;

use crate::decode::ClientDigests;

/// Log bytes in one response. Clients refuse a message above 16 MiB.
pub const LOG_BYTES_MAX: usize = 1 << 20;
/// What a log message takes beside its bytes: digest, time, keys.
const LOG_OVERHEAD: usize = 128;

/// Turns events into responses, with the digests and texts the client knows them by.
#[derive(Debug, Clone, Default)]
pub struct StatusWriter {
    digests: BTreeMap<Digest, String>,
    sources: BTreeMap<String, pb::SourceInfo>,
}

impl StatusWriter {
    /// Vertices of a client's definition are called by the client's digests from now on.
    pub fn name_vertices(&mut self, digests: &ClientDigests) {
        for (client, VertexDigest(ours)) in digests.iter() {
            self.digests
                .entry(ours.clone())
                .or_insert_with(|| client.to_string());
        }
    }

    /// Warnings about lines of a text of that name are sent with the text from now on.
    pub fn add_source(&mut self, text: &SourceText) {
        let info = pb::SourceInfo {
            filename: text.filename.clone(),
            data: text.text.clone(),
            definition: None,
            language: text.language.clone(),
        };
        self.sources.insert(text.filename.clone(), info);
    }

    /// The responses for a batch of events; none for none.
    ///
    /// As BuildKit, a response holds at most [`LOG_BYTES_MAX`] of logs and the first one all that is no log. Vertices
    /// are sorted by when they began, those that have not first; statuses and logs by when they were true. BuildKit
    /// repeats warnings in every response of a batch, which clients would show twice: here they are in the first.
    #[must_use]
    pub fn responses(&self, events: impl IntoIterator<Item = Event>) -> Vec<api::StatusResponse> {
        let mut first = api::StatusResponse::default();
        let mut vertexes: Vec<VertexState> = Vec::new();
        let mut statuses: Vec<VertexStatus> = Vec::new();
        let mut logs: Vec<VertexLog> = Vec::new();
        for event in events {
            match event {
                Event::Vertex(vertex) => vertexes.push(vertex),
                Event::Status(status) => statuses.push(status),
                Event::Log(log) => logs.push(log),
                Event::Warning(warning) => first.warnings.push(self.warning(warning)),
            }
        }
        // Stable sorts: states of one vertex stay in order.
        vertexes.sort_by_key(|vertex| vertex.started);
        statuses.sort_by_key(|status| status.timestamp);
        logs.sort_by_key(|log| log.timestamp);
        first.vertexes = vertexes.into_iter().map(|vertex| self.vertex(vertex)).collect();
        first.statuses = statuses.into_iter().map(|status| self.status(status)).collect();
        let mut responses = vec![first];
        let mut room = LOG_BYTES_MAX;
        for log in &logs {
            for data in chunks(&log.data) {
                let size = data.len() + LOG_OVERHEAD;
                if size > room {
                    responses.push(api::StatusResponse::default());
                    room = LOG_BYTES_MAX;
                }
                room -= size;
                if let Some(last) = responses.last_mut() {
                    last.logs.push(self.log(log, data));
                }
            }
        }
        responses.retain(|response| *response != api::StatusResponse::default());
        responses
    }

    fn digest(&self, digest: &Digest) -> String {
        let client = self.digests.get(digest).cloned();
        client.unwrap_or_else(|| digest.to_string())
    }

    fn vertex(&self, vertex: VertexState) -> api::Vertex {
        let group = |group: ProgressGroup| pb::ProgressGroup {
            id: group.id,
            name: group.name,
            weak: group.weak,
        };
        api::Vertex {
            digest: self.digest(&vertex.digest),
            inputs: vertex.inputs.iter().map(|input| self.digest(input)).collect(),
            name: vertex.name,
            cached: vertex.cached,
            started: vertex.started.map(timestamp),
            completed: vertex.completed.map(timestamp),
            error: vertex.error.unwrap_or_default(),
            progress_group: vertex.group.map(group),
        }
    }

    fn status(&self, status: VertexStatus) -> api::VertexStatus {
        api::VertexStatus {
            // What is done, apart from what it is done to: clients sum transfers by it.
            name: action(&status.id).to_owned(),
            id: status.id,
            vertex: self.digest(&status.vertex),
            current: i64::try_from(status.current).unwrap_or(i64::MAX),
            total: i64::try_from(status.total).unwrap_or(i64::MAX),
            timestamp: Some(timestamp(status.timestamp)),
            started: status.started.map(timestamp),
            completed: status.completed.map(timestamp),
        }
    }

    fn log(&self, log: &VertexLog, data: &[u8]) -> api::VertexLog {
        api::VertexLog {
            vertex: self.digest(&log.vertex),
            timestamp: Some(timestamp(log.timestamp)),
            stream: match log.stream {
                Stream::Stdout => 1,
                Stream::Stderr => 2,
            },
            msg: data.to_vec(),
        }
    }

    fn warning(&self, warning: Warning) -> api::VertexWarning {
        let line = |line: u32| {
            Some(pb::Position {
                line: i32::try_from(line).unwrap_or(i32::MAX),
                character: 0,
            })
        };
        let (info, lines) = match warning.location {
            None => (None, Vec::new()),
            Some((filename, lines)) => {
                let known = self.sources.get(&filename).cloned();
                let info = known.unwrap_or_else(|| pb::SourceInfo {
                    filename,
                    ..pb::SourceInfo::default()
                });
                (Some(info), lines)
            }
        };
        api::VertexWarning {
            vertex: self.digest(&warning.vertex),
            level: i64::from(warning.level),
            short: warning.short.into_bytes(),
            detail: warning.detail.into_iter().map(String::into_bytes).collect(),
            url: warning.url,
            info,
            ranges: lines
                .into_iter()
                .map(|(start, end)| pb::Range {
                    start: line(start),
                    end: line(end),
                })
                .collect(),
        }
    }
}

/// Pieces that fit into a response; one for no data, since an empty message says that a stream was opened.
fn chunks(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let empty = data.is_empty().then_some(data);
    empty.into_iter().chain(data.chunks(LOG_BYTES_MAX - LOG_OVERHEAD))
}

/// `transferring` of `transferring context:` (`source/local/source.go`); nothing for other statuses.
fn action(id: &str) -> &str {
    match id.split_once(' ') {
        Some((action @ "transferring", _)) => action,
        _ => "",
    }
}

/// The time as protobuf has it.
#[must_use]
pub fn timestamp(time: SystemTime) -> Timestamp {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp {
            seconds: seconds(after),
            nanos: after.subsec_nanos().cast_signed(),
        },
        Err(error) => {
            // Nanoseconds count forward from a second that lies further back.
            let before = error.duration();
            let nanos = before.subsec_nanos();
            Timestamp {
                seconds: -seconds(before) - i64::from(nanos > 0),
                nanos: (1_000_000_000 - nanos).cast_signed() % 1_000_000_000,
            }
        }
    }
}

/// Seconds that protobuf allows: the years 1 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A time from protobuf; `None` if it is none.
#[must_use]
pub fn system_time(timestamp: &Timestamp) -> Option<SystemTime> {
    let nanos = u32::try_from(timestamp.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)?;
    if !SECONDS.contains(&timestamp.seconds) {
        return None;
    }
    let whole = Duration::from_secs(timestamp.seconds.unsigned_abs());
    let second = if timestamp.seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)?
    } else {
        UNIX_EPOCH.checked_add(whole)?
    };
    second.checked_add(Duration::from_nanos(u64::from(nanos)))
}

#[cfg(test)]
mod tests;
