//! Failures as clients get them: a gRPC status with the words BuildKit would use.

use base64::Engine as _;
use bollard_buildkit_proto::google::rpc;
use prost::Message as _;
use rbuild_builder::client::LocalError;
use rbuild_builder::entry_point;
use rbuild_builder::error::{BuildError, Place, chain_text, class_of};
use rbuild_builder::ops::OpError;
use rbuild_builder::source_policy::PolicyError;
use rbuild_graph::{SourceLocation, SourceRange, SourceText};
use rbuild_llb::errors::{self as llb_errors, Detail, status_details};
use rbuild_registry::ErrorClass;
use rbuild_session::CallError;
use serde::Deserialize;
use tonic::{Code, Status};

use crate::builds::BuildsError;
use crate::client::client_answer;

/// A failed build, with the vertex and the lines it comes from.
#[must_use]
#[track_caller]
pub(crate) fn build_status(error: &BuildError) -> Status {
    if error.is_canceled() {
        return Status::cancelled("context canceled");
    }
    let message = error.message();
    let message = message.strip_prefix("failed to build: ").unwrap_or(&message);
    let message = message.strip_prefix("failed to solve: ").unwrap_or(message);
    let mut details = vec![Detail::Stack {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        place: std::panic::Location::caller(),
    }];
    if let Some(class) = class_of(error) {
        details.push(Detail::Reason(reason_of(class).to_owned()));
    }
    if let BuildError::Step {
        vertex: Some(vertex), ..
    } = error
    {
        details.push(Detail::Vertex(vertex.0.clone()));
    }
    if let BuildError::Step { error, .. } = error
        && let OpError::Policy(PolicyError::Refused { messages, .. })
        | OpError::PolicyOfMeta(PolicyError::Refused { messages, .. }) = error.itself()
    {
        details.push(Detail::Denied(messages.clone()));
    }
    if let Some(place) = error.place() {
        let (first, last) = place.lines;
        let lines = || vec![(place.source.clone(), SourceLocation::lines(0, first, last).ranges)];
        let all = if place.all.is_empty() {
            lines()
        } else {
            place.all.clone()
        };
        // Clients take the first for the outermost.
        details.extend(all.into_iter().rev().map(source_detail));
    }
    let bytes = status_details(rbuild_llb::errors::Code::Unknown, message, &details);
    let told = Status::with_details(client_code(error), message.to_owned(), bytes.into());
    annotated(&told, &[])
}

/// The code that the client itself answered with, which it is to get back; unknown where it did not answer with any.
fn client_code(error: &(dyn std::error::Error + 'static)) -> Code {
    let mut cause = Some(error);
    while let Some(found) = cause {
        if let Some(code) = client_answer(found).and_then(CallError::code) {
            return code;
        }
        cause = found.source();
    }
    Code::Unknown
}

/// A directory of the client that did not come.
#[must_use]
pub(crate) fn local_status(error: &LocalError) -> Status {
    Status::new(client_code(error), chain_text(error))
}

/// A failure in its own words, with the kind of trouble that it is.
#[must_use]
pub(crate) fn unknown_status(error: &(dyn std::error::Error + 'static)) -> Status {
    let status = Status::unknown(llb_errors::sentence(error));
    match class_of(error) {
        Some(class) => annotated(&status, &[Detail::Reason(reason_of(class).to_owned())]),
        None => status,
    }
}

/// Kinds of trouble with servers, in the words of details.
const REASONS: [(ErrorClass, &str); 6] = [
    (ErrorClass::Network, "NETWORK"),
    (ErrorClass::Auth, "AUTHORIZATION"),
    (ErrorClass::NotFound, "NOT_FOUND"),
    (ErrorClass::Server, "SERVER"),
    (ErrorClass::Content, "CONTENT"),
    (ErrorClass::Local, "LOCAL"),
];

fn reason_of(class: ErrorClass) -> &'static str {
    let found = REASONS.iter().find(|(known, _)| *known == class);
    found.map_or("", |(_, reason)| reason)
}

/// The kind of trouble that a failure of ours tells, also one that a front end passed on.
#[must_use]
pub fn class(status: &Status) -> Option<ErrorClass> {
    let reason = llb_errors::reason(status.details())?;
    let found = REASONS.iter().find(|(_, known)| *known == reason);
    found.map(|(class, _)| *class)
}

/// A text and the places in it. Of a Dockerfile it is known where it comes from.
fn source_detail((mut text, ranges): (SourceText, Vec<SourceRange>)) -> Detail {
    if text.language != rbuild_frontend::LANGUAGE {
        return Detail::Source { text, ranges };
    }
    if text.definition.is_none() {
        text.definition = entry_point::of_local("dockerfile", &text.filename, None);
    }
    Detail::Source { text, ranges }
}

/// A failure of an operation that is no vertex.
#[must_use]
#[track_caller]
pub(crate) fn op_status(error: OpError) -> Status {
    build_status(&BuildError::Step {
        vertex: None,
        place: None,
        failed: None,
        error: Box::new(error),
    })
}

/// A request that cannot be meant. BuildKit's errors have no code of their own, and its clients show one that there is in
/// front of the words (`util/grpcerrors`).
#[must_use]
pub fn refused(text: impl Into<String>) -> Status {
    Status::unknown(text)
}

/// A definition that is refused.
#[must_use]
pub(crate) fn llb_status(error: &rbuild_llb::LlbError) -> Status {
    refused(chain_text(error))
}

/// A build that is not there.
#[must_use]
pub(crate) fn builds_status(error: &BuildsError) -> Status {
    match error {
        BuildsError::Unknown(_) | BuildsError::Refused(_) => Status::not_found(error.to_string()),
        BuildsError::Exists(_) => Status::already_exists(error.to_string()),
        BuildsError::TooMany => Status::resource_exhausted(error.to_string()),
    }
}

/// The same failure with more that is known of it, behind what it says itself.
#[must_use]
pub fn annotated(status: &Status, more: &[Detail]) -> Status {
    let mut told = rpc::Status::decode(status.details()).unwrap_or_default();
    told.code = status.code().into();
    told.message = status.message().to_owned();
    let more = status_details(rbuild_llb::errors::Code::Unknown, "", more);
    told.details
        .extend(rpc::Status::decode(more.as_slice()).unwrap_or_default().details);
    Status::with_details(status.code(), told.message.clone(), told.encode_to_vec().into())
}

/// The same failure with words before it.
#[must_use]
pub fn prefixed(status: &Status, words: &str) -> Status {
    let text = format!("{words}: {}", status.message());
    let told = Status::with_details(status.code(), text, status.details().to_vec().into());
    annotated(&told, &[])
}

/// The same failure at a line of a Dockerfile, unless it names a place already.
#[must_use]
pub(crate) fn at_line(status: &Status, filename: &str, dockerfile: &[u8], line: u32) -> Status {
    let told = rpc::Status::decode(status.details()).unwrap_or_default();
    if told
        .details
        .iter()
        .any(|detail| detail.type_url.contains("errdefs.Source+"))
    {
        return status.clone();
    }
    let text = SourceText {
        filename: filename.to_owned(),
        text: dockerfile.to_vec(),
        language: rbuild_frontend::LANGUAGE.to_owned(),
        definition: None,
    };
    let source = source_detail((text, SourceLocation::lines(0, line, line).ranges));
    annotated(status, &[source])
}

/// A place as details of a failure tell it (`errdefs.Source`, as JSON).
#[derive(Deserialize)]
struct ToldSource {
    info: ToldInfo,
    ranges: Vec<ToldRange>,
}

#[derive(Deserialize)]
struct ToldInfo {
    #[serde(default)]
    filename: String,
    /// Base64.
    #[serde(default)]
    data: String,
    #[serde(default)]
    language: String,
}

#[derive(Deserialize)]
struct ToldRange {
    start: ToldPosition,
    end: ToldPosition,
}

#[derive(Deserialize)]
struct ToldPosition {
    #[serde(default)]
    line: u32,
}

/// The lines that a failure names, if it names any.
#[must_use]
pub fn place(status: &Status) -> Option<Place> {
    let told = rpc::Status::decode(status.details()).ok()?;
    let is_source = |url: &str| url.ends_with("errdefs.Source+json");
    let detail = told.details.iter().find(|detail| is_source(&detail.type_url))?;
    let told: ToldSource = serde_json::from_slice(&detail.value).ok()?;
    let text = base64::engine::general_purpose::STANDARD
        .decode(told.info.data)
        .ok()?;
    let first = told.ranges.iter().map(|range| range.start.line).min()?;
    let last = told.ranges.iter().map(|range| range.end.line).max()?;
    Some(Place {
        source: SourceText {
            filename: told.info.filename,
            text,
            language: told.info.language,
            definition: None,
        },
        lines: (first, last.max(first)),
        all: Vec::new(),
    })
}

/// Whether a front end says that it does not know the question; in words too, since not all of them know typed errors.
#[must_use]
pub(crate) fn is_unsupported_question(status: &Status) -> bool {
    let told = rpc::Status::decode(status.details()).unwrap_or_default();
    let is_one = |url: &str| url.ends_with("errdefs.Subrequest+json");
    told.details.iter().any(|detail| is_one(&detail.type_url))
        || status.message().contains("unsupported request frontend.")
}

/// The failure that a client's front end returned, with everything it says of it. It was told outermost first, and BuildKit
/// wraps it in that order and tells it outermost first again (`util/grpcerrors`), so that every hop turns the order around; the
/// client counts on it, having been told the same failure before.
#[must_use]
pub(crate) fn from_proto(mut error: rpc::Status) -> Status {
    error.details.reverse();
    let details = error.encode_to_vec();
    Status::with_details(Code::from_i32(error.code), error.message, details.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_failure_is_told_in_the_other_order() {
        let detail = |name: &str| bollard_buildkit_proto::google::protobuf::Any {
            type_url: name.to_owned(),
            value: Vec::new(),
        };
        let returned = rpc::Status {
            code: 2,
            message: "no".to_owned(),
            details: vec![detail("inner"), detail("outer")],
        };
        let told = rpc::Status::decode(from_proto(returned).details()).unwrap();
        let names = told.details.iter().map(|detail| detail.type_url.as_str());
        assert_eq!(names.collect::<Vec<_>>(), ["outer", "inner"]);
    }

    #[test]
    fn a_place_goes_through_a_failure_and_the_first_stays() {
        let plain = Status::unknown("no");
        assert!(place(&plain).is_none());
        let told = at_line(&plain, "Dockerfile", b"a\nb\n", 2);
        let found = place(&told).unwrap();
        assert_eq!(
            (found.lines, found.source.text.as_slice()),
            ((2, 2), &b"a\nb\n"[..])
        );
        let again = at_line(&told, "other", b"", 1);
        assert_eq!(place(&again).unwrap().source.filename, "Dockerfile");
        let worded = prefixed(&told, "before");
        assert_eq!(
            (worded.message(), place(&worded).unwrap().lines),
            ("before: no", (2, 2))
        );
        let broken = Status::with_details(Code::Unknown, "x", b"\xff\xff".to_vec().into());
        assert!(place(&broken).is_none());
    }
}
