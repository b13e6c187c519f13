//! `--progress=rawjson`: each batch is one JSON object on a line, in the form of BuildKit's `client.SolveStatus`
//! (`client/graph.go`), byte for byte what Go's encoder makes of it. A vertex has one member more, `missCause`.

use std::fmt;
use std::io::{self, Write};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_graph::progress::{Event, Stream, VertexLog, VertexState, VertexStatus, Warning};
use rbuild_oci::Digest;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use super::Renderer;
use crate::units::rfc3339;

/// The renderer.
pub struct RawJson<W> {
    out: W,
}

impl<W> fmt::Debug for RawJson<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawJson").finish_non_exhaustive()
    }
}

impl<W: Write + Send> RawJson<W> {
    /// A renderer that has printed nothing.
    #[must_use]
    pub const fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write + Send> Renderer for RawJson<W> {
    fn update(&mut self, events: Vec<Event>, _now: SystemTime) -> io::Result<()> {
        let mut status = SolveStatus::default();
        for event in &events {
            match event {
                Event::Vertex(state) => status.vertexes.push(vertex(state)),
                Event::Status(state) => status.statuses.push(vertex_status(state)),
                Event::Log(entry) => status.logs.push(log(entry)),
                Event::Warning(entry) => status.warnings.push(warning(entry)),
            }
        }
        let mut line = Vec::new();
        status.serialize(&mut Serializer::with_formatter(&mut line, GoText))?;
        line.push(b'\n');
        self.out.write_all(&line)?;
        self.out.flush()
    }

    fn refresh(&mut self, _now: SystemTime) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _now: SystemTime) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Serialize, Default)]
struct SolveStatus<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vertexes: Vec<VertexJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    statuses: Vec<StatusJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<LogJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<WarningJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VertexJson<'a> {
    digest: &'a Digest,
    #[serde(skip_serializing_if = "<[Digest]>::is_empty")]
    inputs: &'a [Digest],
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress_group: Option<GroupJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    miss_cause: Option<&'a str>,
}

#[derive(Serialize)]
struct GroupJson<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    weak: bool,
}

#[derive(Serialize)]
struct StatusJson<'a> {
    id: &'a str,
    vertex: &'a Digest,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    current: u64,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

#[derive(Serialize)]
struct LogJson<'a> {
    vertex: &'a Digest,
    stream: u8,
    data: String,
    timestamp: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WarningJson<'a> {
    vertex: &'a Digest,
    #[serde(skip_serializing_if = "is_zero_level")]
    level: u32,
    short: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<SourceInfoJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    range: Vec<RangeJson>,
}

#[derive(Serialize)]
struct SourceInfoJson<'a> {
    filename: &'a str,
}

#[derive(Serialize)]
struct RangeJson {
    start: PositionJson,
    end: PositionJson,
}

#[derive(Serialize)]
struct PositionJson {
    line: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
const fn is_zero_level(value: &u32) -> bool {
    *value == 0
}

fn vertex(state: &VertexState) -> VertexJson<'_> {
    VertexJson {
        digest: &state.digest,
        inputs: &state.inputs,
        name: &state.name,
        started: state.started.map(rfc3339),
        completed: state.completed.map(rfc3339),
        cached: state.cached,
        error: state.error.as_deref().filter(|error| !error.is_empty()),
        progress_group: state.group.as_ref().map(|group| GroupJson {
            id: &group.id,
            name: &group.name,
            weak: group.weak,
        }),
        miss_cause: state.miss_cause.as_deref(),
    }
}

fn vertex_status(state: &VertexStatus) -> StatusJson<'_> {
    StatusJson {
        id: &state.id,
        vertex: &state.vertex,
        total: state.total,
        current: state.current,
        timestamp: rfc3339(state.timestamp),
        started: state.started.map(rfc3339),
        completed: state.completed.map(rfc3339),
    }
}

fn log(entry: &VertexLog) -> LogJson<'_> {
    LogJson {
        vertex: &entry.vertex,
        stream: match entry.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        },
        data: STANDARD.encode(&entry.data),
        timestamp: rfc3339(entry.timestamp),
    }
}

fn warning(entry: &Warning) -> WarningJson<'_> {
    let (source_info, range) = match &entry.location {
        None => (None, Vec::new()),
        Some((filename, spans)) => (
            Some(SourceInfoJson { filename }),
            spans
                .iter()
                .map(|&(start, end)| RangeJson {
                    start: PositionJson { line: start },
                    end: PositionJson { line: end },
                })
                .collect(),
        ),
    };
    WarningJson {
        vertex: &entry.vertex,
        level: entry.level,
        short: STANDARD.encode(&entry.short),
        detail: entry.detail.iter().map(|line| STANDARD.encode(line)).collect(),
        url: &entry.url,
        source_info,
        range,
    }
}

/// Escapes what Go's encoder escapes (`<`, `>`, `&`, U+2028, U+2029) and what a terminal would obey.
struct GoText;

impl Formatter for GoText {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut start = 0;
        for (at, c) in fragment.char_indices() {
            if matches!(c, '<' | '>' | '&') || crate::text::is_unsafe(c) {
                writer.write_all(&fragment.as_bytes()[start..at])?;
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
                start = at + c.len_utf8();
            }
        }
        writer.write_all(&fragment.as_bytes()[start..])
    }
}

#[cfg(test)]
mod tests;
