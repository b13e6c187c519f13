//! BuildKit's `Status` stream as events of a build: what a client of a server shows (`client/solve.go`,
//! `client/status.go`). What makes no sense is left out: a server that says nonsense is no reason to stop.

use bollard_buildkit_proto::moby::buildkit::v1 as api;
use rbuild_graph::progress::{Event, ProgressGroup, Stream, VertexLog, VertexState, VertexStatus, Warning};
use rbuild_oci::Digest;

use crate::progress::system_time;

/// The events of a response, in the order in which they can be shown.
#[must_use]
pub fn events(response: api::StatusResponse) -> Vec<Event> {
    let vertexes = response
        .vertexes
        .into_iter()
        .filter_map(vertex)
        .map(Event::Vertex);
    let statuses = response
        .statuses
        .into_iter()
        .filter_map(status)
        .map(Event::Status);
    let logs = response.logs.into_iter().filter_map(log).map(Event::Log);
    let warnings = response
        .warnings
        .into_iter()
        .filter_map(warning)
        .map(Event::Warning);
    vertexes.chain(statuses).chain(logs).chain(warnings).collect()
}

fn digest(text: &str) -> Option<Digest> {
    Digest::parse(text).ok()
}

fn vertex(vertex: api::Vertex) -> Option<VertexState> {
    Some(VertexState {
        digest: digest(&vertex.digest)?,
        inputs: vertex.inputs.iter().filter_map(|input| digest(input)).collect(),
        name: vertex.name,
        started: vertex.started.as_ref().and_then(system_time),
        completed: vertex.completed.as_ref().and_then(system_time),
        cached: vertex.cached,
        error: Some(vertex.error).filter(|error| !error.is_empty()),
        miss_cause: None,
        group: vertex.progress_group.map(|group| ProgressGroup {
            id: group.id,
            name: group.name,
            weak: group.weak,
        }),
    })
}

fn status(status: api::VertexStatus) -> Option<VertexStatus> {
    Some(VertexStatus {
        id: status.id,
        vertex: digest(&status.vertex)?,
        current: u64::try_from(status.current).unwrap_or(0),
        total: u64::try_from(status.total).unwrap_or(0),
        timestamp: status.timestamp.as_ref().and_then(system_time)?,
        started: status.started.as_ref().and_then(system_time),
        completed: status.completed.as_ref().and_then(system_time),
    })
}

fn log(log: api::VertexLog) -> Option<VertexLog> {
    Some(VertexLog {
        vertex: digest(&log.vertex)?,
        stream: match log.stream {
            2 => Stream::Stderr,
            _ => Stream::Stdout,
        },
        data: log.msg,
        timestamp: log.timestamp.as_ref().and_then(system_time)?,
    })
}

fn warning(warning: api::VertexWarning) -> Option<Warning> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let line = |at: Option<&bollard_buildkit_proto::pb::Position>| {
        at.and_then(|at| u32::try_from(at.line).ok()).unwrap_or(0)
    };
    let ranges = warning.ranges.iter();
    let lines = ranges
        .map(|range| (line(range.start.as_ref()), line(range.end.as_ref())))
        .collect();
    Some(Warning {
        vertex: digest(&warning.vertex)?,
        level: u32::try_from(warning.level).unwrap_or(0),
        short: text(&warning.short),
        detail: warning.detail.iter().map(|line| text(line)).collect(),
        url: warning.url,
        location: warning.info.map(|info| (info.filename, lines)),
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::progress::StatusWriter;

    #[test]
    fn what_a_server_of_ours_says_is_read_as_it_was_and_nonsense_is_left_out() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        let vertex = Digest::sha256(b"v");
        let told = vec![
            Event::Vertex(VertexState {
                digest: vertex.clone(),
                inputs: vec![Digest::sha256(b"i")],
                name: "step".to_owned(),
                started: Some(at),
                completed: None,
                cached: true,
                error: Some("why".to_owned()),
                miss_cause: None,
                group: None,
            }),
            Event::Status(VertexStatus {
                id: "sha256:x".to_owned(),
                vertex: vertex.clone(),
                current: 1,
                total: 2,
                timestamp: at,
                started: Some(at),
                completed: None,
            }),
            Event::Log(VertexLog {
                vertex: vertex.clone(),
                stream: Stream::Stderr,
                data: b"out".to_vec(),
                timestamp: at,
            }),
            Event::Warning(Warning {
                vertex,
                level: 1,
                short: "short".to_owned(),
                detail: vec!["more".to_owned()],
                url: "https://e.example".to_owned(),
                location: Some(("Dockerfile".to_owned(), vec![(2, 3)])),
            }),
        ];
        let mut responses = StatusWriter::default().responses(told.clone());
        responses[0].vertexes.push(api::Vertex {
            digest: "none".to_owned(),
            ..api::Vertex::default()
        });
        let read: Vec<Event> = responses.into_iter().flat_map(events).collect();
        assert_eq!(format!("{read:?}"), format!("{told:?}"));
    }
}
