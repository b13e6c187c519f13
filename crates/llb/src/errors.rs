//! Errors as BuildKit's clients understand them: a gRPC status whose details say which vertex, which lines and which
//! exit code (`util/grpcerrors`, `solver/errdefs`, `frontend/gateway/pb/exit.go`).
//!
//! Details are not protobuf inside: each is JSON under a type address of its own, as containerd's `typeurl` writes
//! what is registered with it.

use bollard_buildkit_proto::google::protobuf::Any;
use bollard_buildkit_proto::google::rpc::Status;
use prost::Message;
use rbuild_graph::{SourceRange, SourceText};
use rbuild_oci::Digest;
use serde_json::{Map, Value, json};

use crate::{op_json, wire};

/// `moby.buildkit.v1.sourcepolicy.PolicyAction.DENY`.
const POLICY_DENY: i32 = 1;

/// Type address of [`Detail::Reason`].
const REASON_TYPE: &str = "rbuild/errors.Reason+json";

/// Codes of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs, reason = "named as in the gRPC specification")]
pub enum Code {
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// A fact about an error.
///
/// Clients put a sentence of their own before the message for [`Detail::FrontendCap`],
/// [`Detail::CompatibilityFeature`] and [`Detail::Subrequest`], such as `unsupported request X`, so the message should
/// not say it again.
#[derive(Debug, Clone, PartialEq)]
pub enum Detail {
    /// The vertex that failed, by the client's digest.
    Vertex(Digest),
    /// Places it comes from, in one text. A client shows the first first.
    Source {
        /// The text.
        text: SourceText,
        /// The lines.
        ranges: Vec<SourceRange>,
    },
    /// The front end that failed.
    Frontend {
        /// `dockerfile.v0` or `gateway.v0`.
        name: String,
        /// Its image, if it is one.
        source: String,
    },
    /// The front end lacks a capability. Goes with [`Code::Unimplemented`].
    FrontendCap(String),
    /// A feature is newer than the version that results are to be compatible with.
    CompatibilityFeature {
        /// The version.
        version: i64,
        /// The feature.
        feature: String,
    },
    /// The front end does not know a subrequest.
    Subrequest(String),
    /// What failed while a vertex was solved.
    Solve(Box<SolveDetail>),
    /// How a process of a gateway container ended.
    Exit(u32),
    /// The client's own policy said no, for these reasons.
    Denied(Vec<String>),
    /// Provenance should name all that a build was made of, and these are not known.
    ProvenanceMaterialsIncomplete(Vec<IncompleteMaterial>),
    /// What kind of trouble it is, for our own command line: BuildKit has no word for it, and its clients pass over what they do
    /// not know.
    Reason(String),
    /// Where the error was made into an answer. Clients print it when they are asked for all they know.
    Stack {
        /// Of the program.
        version: String,
        /// The code.
        place: &'static std::panic::Location<'static>,
    },
}

/// What a build used without its being known what it was. Texts that do not apply are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IncompleteMaterial {
    /// The directory of the client, or the command of the step.
    pub name: String,
    /// The method of a step's request.
    pub method: String,
    /// What it asked for.
    pub uri: String,
    /// Why it is not known, such as `local_source`.
    pub reason: String,
}

/// What failed while a vertex was solved.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SolveDetail {
    /// References of the inputs, for a container to look into them.
    pub input_ids: Vec<String>,
    /// References of the mounts as the step left them.
    pub mount_ids: Vec<String>,
    /// The operation.
    pub op: Option<wire::Op>,
    /// Which part of it.
    pub subject: Option<SolveSubject>,
    /// Description of the vertex.
    pub description: std::collections::BTreeMap<String, String>,
}

/// Part of an operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SolveSubject {
    /// Index of the file action.
    FileAction(i64),
    /// Index of the input whose content was read for a key.
    ContentCache(i64),
}

/// An error for a client: the bytes of `grpc-status-details-bin`, an encoded `google.rpc.Status`.
///
/// Code and message stand in `grpc-status` and `grpc-message` too, and have to be the same there: Go's client takes
/// them from here, others from there.
#[must_use]
pub fn status_details(code: Code, message: &str, details: &[Detail]) -> Vec<u8> {
    Status {
        code: code as i32,
        message: message.to_owned(),
        details: details.iter().map(Detail::to_any).collect(),
    }
    .encode_to_vec()
}

impl Detail {
    /// The detail under its type address.
    #[must_use]
    pub(crate) fn to_any(&self) -> Any {
        let (name, value) = match self {
            Self::Vertex(digest) => ("errdefs.Vertex", json!({ "digest": digest.as_str() })),
            Self::Source { text, ranges } => {
                let ranges: Vec<Value> = ranges.iter().map(range).collect();
                (
                    "errdefs.Source",
                    json!({ "info": source_info(text), "ranges": ranges }),
                )
            }
            Self::Frontend { name, source } => {
                ("errdefs.Frontend", json!({ "name": name, "source": source }))
            }
            Self::FrontendCap(name) => ("errdefs.FrontendCap", json!({ "name": name })),
            Self::CompatibilityFeature { version, feature } => (
                "errdefs.CompatibilityFeature",
                json!({ "version": version, "feature": feature }),
            ),
            Self::Subrequest(name) => ("errdefs.Subrequest", json!({ "name": name })),
            Self::Solve(solve) => ("errdefs.Solve", solve_json(solve)),
            Self::Denied(messages) => {
                let messages = messages.iter().map(|message| json!({ "message": message }));
                let messages: Vec<Value> = messages.collect();
                (
                    "policysession.DecisionResponse",
                    json!({ "action": POLICY_DENY, "denyMessages": messages }),
                )
            }
            Self::ProvenanceMaterialsIncomplete(all) => (
                "errdefs.ProvenanceMaterialsIncomplete",
                json!({ "incomplete": all.iter().map(incomplete).collect::<Vec<_>>() }),
            ),
            Self::Stack { version, place } => {
                let frame = json!({ "Name": "rbuild", "File": place.file(), "Line": place.line() });
                let stack = json!({ "frames": [frame], "version": version, "pid": std::process::id() });
                ("stack.Stack", stack)
            }
            Self::Reason(reason) => {
                return Any {
                    type_url: REASON_TYPE.to_owned(),
                    value: json!({ "reason": reason }).to_string().into_bytes(),
                };
            }
            Self::Exit(code) => ("gatewayapi.ExitMessage", json!({ "Code": code })),
        };
        Any {
            type_url: format!("github.com/moby/buildkit/{name}+json"),
            value: value.to_string().into_bytes(),
        }
    }
}

/// The [`Detail::Reason`] of the bytes of `grpc-status-details-bin`.
#[must_use]
pub fn reason(details: &[u8]) -> Option<String> {
    let told = Status::decode(details).ok()?;
    let detail = told
        .details
        .iter()
        .find(|detail| detail.type_url == REASON_TYPE)?;
    let json: Value = serde_json::from_slice(&detail.value).ok()?;
    Some(json.get("reason")?.as_str()?.to_owned())
}

fn incomplete(material: &IncompleteMaterial) -> Value {
    let texts = [
        ("name", &material.name),
        ("method", &material.method),
        ("uri", &material.uri),
        ("reason", &material.reason),
    ];
    let told = texts.into_iter().filter(|(_, text)| !text.is_empty());
    told.map(|(name, text)| (name.to_owned(), json!(text))).collect()
}

/// Of what the text comes from, only the operations: no client shows more.
fn source_info(text: &SourceText) -> Value {
    let mut info = json!({
        "filename": text.filename,
        "data": op_json::base64(&text.text),
        "language": text.language,
    });
    let definition = text
        .definition
        .as_deref()
        .and_then(|bytes| wire::Definition::decode(bytes).ok());
    if let Some(definition) = definition {
        let def: Vec<String> = definition.def.iter().map(|op| op_json::base64(op)).collect();
        info["definition"] = json!({ "def": def });
    }
    info
}

fn range(range: &SourceRange) -> Value {
    let position = |at: rbuild_graph::SourcePosition| json!({ "line": at.line, "character": at.character });
    json!({ "start": position(range.start), "end": position(range.end) })
}

/// Protobuf's own JSON, in which numbers of 64 bits are texts.
fn solve_json(solve: &SolveDetail) -> Value {
    let mut object = Map::new();
    object.insert("inputIDs".into(), json!(solve.input_ids));
    object.insert("mountIDs".into(), json!(solve.mount_ids));
    object.insert("description".into(), json!(solve.description));
    if let Some(op) = &solve.op {
        object.insert("op".into(), json!(op_json::protojson(op)));
    }
    match solve.subject {
        None => {}
        Some(SolveSubject::FileAction(index)) => {
            object.insert("file".into(), json!({ "index": index.to_string() }));
        }
        Some(SolveSubject::ContentCache(index)) => {
            object.insert("cache".into(), json!({ "index": index.to_string() }));
        }
    }
    Value::Object(object)
}

/// The error and its causes in one line, as Go writes wrapped errors.
#[must_use]
pub fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
