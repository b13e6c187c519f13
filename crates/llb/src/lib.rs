//! Between BuildKit's API and our own types: definitions and graphs, progress, front end and exporter attributes,
//! typed errors.
//!
//! Level 2. Pure functions from protobuf messages to plain data and back: no file, no network, no clock. The
//! other side of the API is not trusted, so whatever it sends is counted and checked here, and what is wrong with it
//! is said in BuildKit's words where it has some.
//!
//! ```
//! use rbuild_graph::{Graph, Op, SourceOp, Vertex, VertexMeta, Edge};
//!
//! let mut graph = Graph::default();
//! let op = Op::Source(SourceOp { identifier: "local://context".into(), attrs: Default::default() });
//! let meta = VertexMeta { name: "local://context".into(), ..VertexMeta::default() };
//! let vertex = graph.add(Vertex { op, inputs: vec![], platform: None, constraints: vec![], meta })?;
//! let edge = Edge { vertex, output: 0 };
//! let decoded = rbuild_llb::decode(&rbuild_llb::encode_wire(&graph, &edge)?, &rbuild_llb::Limits::default())?;
//! assert_eq!((decoded.graph, decoded.target), (graph, Some(edge)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod attrs;
pub mod cache_options;
pub mod caps;
pub mod container;
mod decode;
pub mod definition_json;
mod encode;
pub mod errors;
pub mod exporters;
mod go;
mod limits;
mod name;
mod op_json;
mod platform;
pub mod progress;
pub mod request;
mod resend;
pub mod status_reader;
pub mod steps;
pub mod wire;

/// Key of a call's metadata that names the build whose front end it is of (`control/gateway`).
pub const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// What a front end that is asked a question must be able to do.
pub const SUBREQUESTS_CAP: &str = "moby.buildkit.frontend.subrequests";

pub use bollard_buildkit_proto::pb;
pub use decode::{ClientDigests, Decoded, LlbError, OpError, decode};
pub use encode::{EncodeError, NoRoom, encode, encode_bytes, encode_named, encode_op, encode_wire};
pub use errors::sentence;
pub use go::ValueError;
pub use limits::{LimitExceeded, Limits};
pub use platform::{decode_platform, encode_platform};
pub use resend::sendable;
