//! A build as spans of OpenTelemetry, one JSON document behind the other, with the fields that `buildx history trace`
//! reads (`application/vnd.buildkit.otlp.json.v0`): one span for the build, and below it one for every vertex that ran.

use std::collections::BTreeMap;
use std::time::SystemTime;

use rbuild_graph::progress::{Event, VertexState};
use rbuild_oci::{Digest, Timestamp};
use serde_json::{Value as Json, json};

/// Type of the blob.
pub(super) const MEDIA_TYPE: &str = "application/vnd.buildkit.otlp.json.v0";
/// Most vertices that get a span.
const SPANS_MAX: usize = 10_000;

/// The blob of a build that ran from `started` to `completed`.
#[must_use]
pub(super) fn encode(
    id: &str,
    error: Option<&str>,
    (started, completed): (SystemTime, SystemTime),
    events: &[Event],
) -> Vec<u8> {
    let trace = Digest::sha256(format!("{id} {started:?}").as_bytes());
    let trace = &trace.hex()[..32];
    let root = span_id(id);
    let vertices = last_states(events);
    let mut bytes = Vec::new();
    let mut put = |span: &Span<'_>, children: usize| {
        let text = span.json(trace, children).to_string();
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(b'\n');
    };
    let ran = vertices.iter().filter_map(|vertex| {
        let times = (vertex.started?, vertex.completed?);
        Some((vertex, times))
    });
    let ran: Vec<_> = ran.take(SPANS_MAX).collect();
    let solve = Span {
        name: "moby.buildkit.v1.Control/Solve",
        id: &root,
        parent: None,
        times: (started, completed),
        attributes: vec![("ref", id.to_owned())],
        error,
    };
    put(&solve, ran.len());
    for (vertex, times) in ran {
        let digest = vertex.digest.to_string();
        let span = Span {
            name: &vertex.name,
            id: &span_id(&digest),
            parent: Some(&root),
            times,
            attributes: vec![("vertex", digest), ("cached", vertex.cached.to_string())],
            error: vertex.error.as_deref(),
        };
        put(&span, 0);
    }
    bytes
}

/// The last that was said of each vertex, in the order in which they were first named.
fn last_states(events: &[Event]) -> Vec<&VertexState> {
    let mut places = BTreeMap::new();
    let mut states: Vec<&VertexState> = Vec::new();
    for event in events {
        let Event::Vertex(vertex) = event else { continue };
        match places.get(&vertex.digest) {
            Some(place) => states[*place] = vertex,
            None => {
                places.insert(&vertex.digest, states.len());
                states.push(vertex);
            }
        }
    }
    states
}

fn span_id(of: &str) -> String {
    Digest::sha256(of.as_bytes()).hex()[..16].to_owned()
}

struct Span<'a> {
    name: &'a str,
    id: &'a str,
    parent: Option<&'a str>,
    times: (SystemTime, SystemTime),
    attributes: Vec<(&'static str, String)>,
    error: Option<&'a str>,
}

impl Span<'_> {
    fn json(&self, trace: &str, children: usize) -> Json {
        let context = |span: &str, trace: &str, flags: &str| json!({"TraceID": trace, "SpanID": span, "TraceFlags": flags, "TraceState": "", "Remote": false});
        let parent = match self.parent {
            Some(parent) => context(parent, trace, "01"),
            None => context(&"0".repeat(16), &"0".repeat(32), "00"),
        };
        let status = match self.error {
            Some(error) => json!({"Code": "Error", "Description": error}),
            None => json!({"Code": "Unset", "Description": ""}),
        };
        let text = |key: &str, value: &str| json!({"Key": key, "Value": {"Type": "STRING", "Value": value}});
        let attributes = self.attributes.iter().map(|(key, value)| text(key, value));
        json!({
            "Name": self.name,
            "SpanContext": context(self.id, trace, "01"),
            "Parent": parent,
            // SpanKindInternal
            "SpanKind": 1,
            "StartTime": time(self.times.0),
            "EndTime": time(self.times.1),
            "Attributes": attributes.collect::<Vec<_>>(),
            "Events": null,
            "Links": null,
            "Status": status,
            "DroppedAttributes": 0,
            "DroppedEvents": 0,
            "DroppedLinks": 0,
            "ChildSpanCount": children,
            "Resource": [text("service.name", "buildkitd")],
            "InstrumentationLibrary": {"Name": "rbuild", "Version": "", "SchemaURL": "", "Attributes": null},
        })
    }
}

fn time(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(0);
    let time = Timestamp::from_unix(seconds, since.subsec_nanos()).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_vertex_that_ran_is_a_span_below_the_build() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let vertex = |name: &str, started: Option<u64>, completed: Option<u64>| {
            Event::Vertex(VertexState {
                digest: Digest::sha256(name.as_bytes()),
                inputs: Vec::new(),
                name: name.to_owned(),
                started: started.map(at),
                completed: completed.map(at),
                cached: false,
                error: None,
                miss_cause: None,
                group: None,
            })
        };
        let events = [
            vertex("ran", None, None),
            vertex("waits", None, None),
            vertex("ran", Some(2), Some(3)),
        ];
        let blob = encode("build", Some("failed"), (at(1), at(4)), &events);
        let spans: Vec<Json> = serde_json::Deserializer::from_slice(&blob)
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(spans.len(), 2, "what did not run took no time");
        let (root, ran) = (&spans[0], &spans[1]);
        assert_eq!(root["Status"]["Description"], "failed");
        assert_eq!(root["ChildSpanCount"], 1);
        assert_eq!(ran["Name"], "ran");
        assert_eq!(ran["Parent"]["SpanID"], root["SpanContext"]["SpanID"]);
        assert_eq!(ran["SpanContext"]["TraceID"], root["SpanContext"]["TraceID"]);
        assert_eq!(
            (&ran["StartTime"], &ran["EndTime"]),
            (&json!("1970-01-01T00:00:02Z"), &json!("1970-01-01T00:00:03Z"))
        );
    }
}
