//! Messages of `solver/pb/ops.proto` that have grown since the generated ones, field number for field number.
//!
//! The generated `pb` stands at BuildKit v0.29; BuildKit has since added the passthrough operation and the resource
//! limits of a vertex. Decoding with these loses neither. What holds a definition inside holds it encoded here, so
//! that a client cannot make decoding recurse.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use prost::{DecodeError, Message};

mod exact;

/// `pb.Definition`.
#[derive(Clone, PartialEq, Message)]
pub struct Definition {
    /// Encoded [`Op`]s, the terminal one last.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub def: Vec<Vec<u8>>,
    /// By digest of an encoded operation.
    #[prost(btree_map = "string, message", tag = "2")]
    pub metadata: BTreeMap<String, OpMetadata>,
    /// Texts and what in them the operations come from.
    #[prost(message, optional, tag = "3")]
    pub source: Option<Source>,
}

/// `pb.Op`.
#[derive(Clone, PartialEq, Message)]
pub struct Op {
    /// Edges it depends on.
    #[prost(message, repeated, tag = "1")]
    pub inputs: Vec<pb::Input>,
    /// What it does; nothing in the terminal one.
    #[prost(oneof = "OpKind", tags = "2, 3, 4, 5, 6, 7, 8")]
    pub op: Option<OpKind>,
    /// What it is for.
    #[prost(message, optional, tag = "10")]
    pub platform: Option<pb::Platform>,
    /// Which worker may run it.
    #[prost(message, optional, tag = "11")]
    pub constraints: Option<pb::WorkerConstraints>,
}

/// What a `pb.Op` does.
#[derive(Clone, PartialEq, prost::Oneof)]
#[allow(missing_docs, reason = "named as the messages they hold")]
#[allow(
    clippy::large_enum_variant,
    reason = "as in the generated message, whose values it shares"
)]
pub enum OpKind {
    #[prost(message, tag = "2")]
    Exec(pb::ExecOp),
    #[prost(message, tag = "3")]
    Source(pb::SourceOp),
    #[prost(message, tag = "4")]
    File(pb::FileOp),
    #[prost(message, tag = "5")]
    Build(BuildOp),
    #[prost(message, tag = "6")]
    Merge(pb::MergeOp),
    #[prost(message, tag = "7")]
    Diff(pb::DiffOp),
    #[prost(message, tag = "8")]
    Passthrough(PassthroughOp),
}

/// `pb.BuildOp`.
#[derive(Clone, PartialEq, Message)]
pub struct BuildOp {
    /// Input that builds; -1 is the solver.
    #[prost(int64, tag = "1")]
    pub builder: i64,
    /// Named inputs.
    #[prost(btree_map = "string, message", tag = "2")]
    pub inputs: BTreeMap<String, pb::BuildInput>,
    /// Encoded definition.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub def: Option<Vec<u8>>,
    /// Attributes.
    #[prost(btree_map = "string, string", tag = "4")]
    pub attrs: BTreeMap<String, String>,
}

impl Op {
    /// The bytes that BuildKit's client writes for it, and so their digest: Go puts what an operation does behind the
    /// rest, whatever its field number.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let rest = Self {
            inputs: self.inputs.clone(),
            op: None,
            platform: self.platform.clone(),
            constraints: self.constraints.clone(),
        };
        let mut bytes = rest.encode_to_vec();
        match &self.op {
            None => {}
            Some(OpKind::Source(source)) => bytes.extend(exact::source(source)),
            Some(OpKind::Build(build)) => bytes.extend(exact::build(build)),
            Some(kind) => kind.encode(&mut bytes),
        }
        bytes
    }
}

/// `pb.PassthroughOp`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PassthroughOp {
    /// Its name.
    #[prost(string, tag = "1")]
    pub id: String,
    /// For each output the input that it is.
    #[prost(int64, repeated, tag = "2")]
    pub outputs: Vec<i64>,
}

/// `pb.OpMetadata`.
#[derive(Clone, PartialEq, Message)]
pub struct OpMetadata {
    /// Not from the cache.
    #[prost(bool, tag = "1")]
    pub ignore_cache: bool,
    /// Free words, `llb.customname` among them.
    #[prost(btree_map = "string, string", tag = "2")]
    pub description: BTreeMap<String, String>,
    /// Whether a cache export may hold it.
    #[prost(message, optional, tag = "4")]
    pub export_cache: Option<pb::ExportCache>,
    /// Capabilities it needs.
    #[prost(btree_map = "string, bool", tag = "5")]
    pub caps: BTreeMap<String, bool>,
    /// How it is shown.
    #[prost(message, optional, tag = "6")]
    pub progress_group: Option<pb::ProgressGroup>,
    /// Limits of its cgroup.
    #[prost(message, optional, tag = "7")]
    pub linux_resources: Option<LinuxResources>,
}

/// `pb.LinuxResources`.
#[derive(Clone, PartialEq, Eq, Message)]
#[allow(
    missing_docs,
    reason = "units and meaning stand at rbuild_graph::LinuxResources"
)]
pub struct LinuxResources {
    #[prost(int64, tag = "1")]
    pub memory: i64,
    #[prost(int64, tag = "2")]
    pub memory_swap: i64,
    #[prost(uint64, tag = "3")]
    pub cpu_shares: u64,
    #[prost(uint64, tag = "4")]
    pub cpu_period: u64,
    #[prost(int64, tag = "5")]
    pub cpu_quota: i64,
    #[prost(string, tag = "6")]
    pub cpuset_cpus: String,
    #[prost(string, tag = "7")]
    pub cpuset_mems: String,
}

/// `pb.Source`.
#[derive(Clone, PartialEq, Message)]
pub struct Source {
    /// By digest of an encoded operation.
    #[prost(btree_map = "string, message", tag = "1")]
    pub locations: BTreeMap<String, pb::Locations>,
    /// The texts.
    #[prost(message, repeated, tag = "2")]
    pub infos: Vec<SourceInfo>,
}

/// `pb.SourceInfo`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SourceInfo {
    /// File name.
    #[prost(string, tag = "1")]
    pub filename: String,
    /// Content.
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
    /// Encoded definition the text comes from.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub definition: Option<Vec<u8>>,
    /// What it is written in.
    #[prost(string, tag = "4")]
    pub language: String,
}

impl From<&pb::Definition> for Definition {
    fn from(definition: &pb::Definition) -> Self {
        Self {
            def: definition.def.clone(),
            metadata: definition
                .metadata
                .iter()
                .map(|(digest, metadata)| (digest.clone(), metadata.into()))
                .collect(),
            source: definition.source.as_ref().map(Into::into),
        }
    }
}

impl From<&pb::OpMetadata> for OpMetadata {
    fn from(metadata: &pb::OpMetadata) -> Self {
        Self {
            ignore_cache: metadata.ignore_cache,
            description: metadata.description.clone(),
            export_cache: metadata.export_cache,
            caps: metadata.caps.clone(),
            progress_group: metadata.progress_group.clone(),
            linux_resources: None,
        }
    }
}

impl From<&pb::Source> for Source {
    fn from(source: &pb::Source) -> Self {
        Self {
            locations: source.locations.clone(),
            infos: source.infos.iter().map(Into::into).collect(),
        }
    }
}

impl From<&pb::SourceInfo> for SourceInfo {
    fn from(info: &pb::SourceInfo) -> Self {
        Self {
            filename: info.filename.clone(),
            data: info.data.clone(),
            definition: info.definition.as_ref().map(Message::encode_to_vec),
            language: info.language.clone(),
        }
    }
}

impl From<OpMetadata> for pb::OpMetadata {
    fn from(metadata: OpMetadata) -> Self {
        Self {
            ignore_cache: metadata.ignore_cache,
            description: metadata.description,
            export_cache: metadata.export_cache,
            caps: metadata.caps,
            progress_group: metadata.progress_group,
        }
    }
}

impl TryFrom<SourceInfo> for pb::SourceInfo {
    type Error = DecodeError;

    fn try_from(info: SourceInfo) -> Result<Self, DecodeError> {
        Ok(Self {
            filename: info.filename,
            data: info.data,
            definition: info
                .definition
                .map(|definition| pb::Definition::decode(definition.as_slice()))
                .transpose()?,
            language: info.language,
        })
    }
}
