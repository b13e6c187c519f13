//! A graph becomes a definition, as BuildKit's client makes one (`client/llb/marshal.go`, `state.go`).
//!
//! Operations are the bytes that BuildKit's client writes, and so have its digests. A definition decodes to the graph
//! it was made from: an absent text is written as an empty one and is absent again when read. What LLB has no room
//! for is refused.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use prost::Message as _;
use rbuild_graph::{
    Edge, Graph, GraphError, InputIndex, LinuxResources, Op, SourceLocation, SourceText, Vertex,
    VertexDigest, VertexMeta,
};
use rbuild_oci::Digest;

use crate::caps;
use crate::decode::CUSTOM_NAME;
use crate::name::default_name;
use crate::platform::encode_platform;
use crate::wire::{self, OpKind};

mod exec;
mod file;

/// Why a graph cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The graph does not hold the target, or what it stands on.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A value that LLB has no room for.
    #[error("vertex {vertex}: {value} cannot be written in LLB")]
    Value {
        /// Which vertex.
        vertex: VertexDigest,
        /// Which of its values.
        value: NoRoom,
    },
    /// A definition that a text is said to come from is none.
    #[error("source {filename} comes from what is no definition")]
    SourceDefinition {
        /// The text's name.
        filename: String,
        /// Why.
        #[source]
        source: prost::DecodeError,
    },
    /// What was written cannot be read, or a text in it comes from what is no definition.
    #[error("a definition that is none")]
    Definition(#[from] prost::DecodeError),
}

/// A value that LLB has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// LLB counts nanoseconds since 1970 in 64 bits, and -1 is "not set".
    #[error("a time before 1678 or after 2262, or one nanosecond before 1970")]
    Time,
    /// -1 is "not set".
    #[error("mode 37777777777")]
    Mode,
    /// LLB counts bytes in 63 bits.
    #[error("a tmpfs size above 8 EiB")]
    TmpfsSize,
    /// LLB counts lines and sources in 31 bits.
    #[error("a source index above 2147483647")]
    SourceIndex,
}

/// Writes what `target` needs as a definition. The generated message has no room for resource limits; see
/// [`encode_wire`].
///
/// # Errors
/// [`EncodeError`].
pub fn encode(graph: &Graph, target: &Edge) -> Result<pb::Definition, EncodeError> {
    let mut definition = encode_wire(graph, target)?;
    let infos = definition
        .source
        .as_mut()
        .map(|source| std::mem::take(&mut source.infos));
    let mut pb_infos = Vec::new();
    for info in infos.into_iter().flatten() {
        let filename = info.filename.clone();
        pb_infos.push(
            info.try_into()
                .map_err(|source| EncodeError::SourceDefinition { filename, source })?,
        );
    }
    Ok(pb::Definition {
        def: definition.def,
        metadata: definition
            .metadata
            .into_iter()
            .map(|(digest, metadata)| (digest, metadata.into()))
            .collect(),
        source: definition.source.map(|source| pb::Source {
            locations: source.locations,
            infos: pb_infos,
        }),
    })
}

/// Writes what `target` needs as the bytes of a definition.
///
/// # Errors
/// [`EncodeError`].
pub fn encode_bytes(graph: &Graph, target: &Edge) -> Result<Vec<u8>, EncodeError> {
    encode_wire(graph, target).map(|definition| definition.encode_to_vec())
}

/// Writes what `target` needs as a definition.
///
/// # Errors
/// [`EncodeError`].
pub fn encode_wire(graph: &Graph, target: &Edge) -> Result<wire::Definition, EncodeError> {
    encode_named(graph, target).map(|(definition, _)| definition)
}

/// The same, with the digest that each vertex has there.
///
/// # Errors
/// [`EncodeError`].
pub fn encode_named(
    graph: &Graph,
    target: &Edge,
) -> Result<(wire::Definition, BTreeMap<VertexDigest, Digest>), EncodeError> {
    let mut digests: BTreeMap<VertexDigest, Digest> = BTreeMap::new();
    let mut definition = wire::Definition::default();
    let mut locations = BTreeMap::new();
    for digest in graph.reachable(std::slice::from_ref(&target.vertex))? {
        let vertex = graph
            .get(&digest)
            .ok_or_else(|| GraphError::MissingVertex(digest.clone()))?;
        let in_vertex = |value| EncodeError::Value {
            vertex: digest.clone(),
            value,
        };
        let bytes = op(vertex, &digests).map_err(in_vertex)?.to_bytes();
        let client = Digest::sha256(&bytes);
        definition.def.push(bytes);
        definition
            .metadata
            .insert(client.to_string(), metadata(graph, vertex));
        let found = vertex.meta.locations.iter().map(location);
        let found = found.collect::<Result<_, _>>().map_err(in_vertex)?;
        locations.insert(client.to_string(), pb::Locations { locations: found });
        digests.insert(digest, client);
    }
    terminal(&mut definition, input(target, &digests));
    // BuildKit's client always writes them (`client/llb/sourcemap.go`), for a vertex without any an empty list.
    definition.source = Some(wire::Source {
        locations,
        infos: graph.sources.iter().map(source).collect(),
    });
    Ok((definition, digests))
}

/// Adds the operation that names the target, with the capabilities BuildKit's client says it needs.
fn terminal(definition: &mut wire::Definition, target: pb::Input) {
    let mut caps: BTreeMap<String, bool> = [caps::CONSTRAINTS, caps::PLATFORM]
        .map(|cap| (cap.to_owned(), true))
        .into();
    for metadata in definition.metadata.values() {
        for (cap, used) in [
            (caps::META_IGNORE_CACHE, metadata.ignore_cache),
            (caps::META_DESCRIPTION, !metadata.description.is_empty()),
            (caps::META_EXPORT_CACHE, metadata.export_cache.is_some()),
        ] {
            if used {
                caps.insert(cap.to_owned(), true);
            }
        }
    }
    let terminal = wire::Op {
        inputs: vec![target],
        ..wire::Op::default()
    };
    let bytes = terminal.to_bytes();
    let metadata = wire::OpMetadata {
        caps,
        ..wire::OpMetadata::default()
    };
    definition
        .metadata
        .insert(Digest::sha256(&bytes).to_string(), metadata);
    definition.def.push(bytes);
}

fn input(edge: &Edge, digests: &BTreeMap<VertexDigest, Digest>) -> pb::Input {
    let Some(digest) = digests.get(&edge.vertex) else {
        unreachable!("a vertex comes after what it stands on");
    };
    pb::Input {
        digest: digest.to_string(),
        index: i64::from(edge.output),
    }
}

fn op(vertex: &Vertex, digests: &BTreeMap<VertexDigest, Digest>) -> Result<wire::Op, NoRoom> {
    let kind = match &vertex.op {
        Op::Source(source) => OpKind::Source(pb::SourceOp {
            identifier: source.identifier.clone(),
            attrs: source.attrs.clone(),
        }),
        Op::Exec(exec) => OpKind::Exec(exec::exec(exec)?),
        Op::File(file) => OpKind::File(file::file(file)?),
        Op::Merge(merge) => {
            let merged = |input: &InputIndex| pb::MergeInput { input: index(*input) };
            OpKind::Merge(pb::MergeOp {
                inputs: merge.inputs.iter().map(merged).collect(),
            })
        }
        Op::Diff(diff) => OpKind::Diff(pb::DiffOp {
            lower: Some(pb::LowerDiffInput {
                input: index(diff.lower),
            }),
            upper: Some(pb::UpperDiffInput {
                input: index(diff.upper),
            }),
        }),
        Op::Build(build) => {
            let named = |(name, input): (&String, &InputIndex)| {
                (name.clone(), pb::BuildInput { input: index(*input) })
            };
            OpKind::Build(wire::BuildOp {
                builder: index(build.builder),
                inputs: build.inputs.iter().map(named).collect(),
                def: build.definition.clone(),
                attrs: build.attrs.clone(),
            })
        }
        Op::Passthrough(passthrough) => OpKind::Passthrough(wire::PassthroughOp {
            id: passthrough.id.clone(),
            outputs: passthrough.outputs.iter().copied().map(i64::from).collect(),
        }),
    };
    Ok(wire::Op {
        inputs: vertex.inputs.iter().map(|edge| input(edge, digests)).collect(),
        op: Some(kind),
        platform: vertex.platform.as_ref().map(encode_platform),
        // BuildKit's client always writes them.
        constraints: Some(pb::WorkerConstraints {
            filter: vertex.constraints.clone(),
        }),
    })
}

/// Writes one vertex alone; its inputs have the names they have in the graph.
///
/// # Errors
/// [`NoRoom`].
pub fn encode_op(vertex: &Vertex) -> Result<wire::Op, NoRoom> {
    let inputs = vertex.inputs.iter().map(|edge| &edge.vertex);
    op(
        vertex,
        &inputs.map(|name| (name.clone(), name.0.clone())).collect(),
    )
}

fn index(index: InputIndex) -> i64 {
    index.map_or(-1, i64::from)
}

fn metadata(graph: &Graph, vertex: &Vertex) -> wire::OpMetadata {
    let VertexMeta {
        name,
        ignore_cache,
        locations: _,
        progress_group,
        description,
        export_cache,
        caps,
        linux_resources,
    } = &vertex.meta;
    let mut description = description.clone();
    if *name != default_name(graph, vertex) {
        description.insert(CUSTOM_NAME.to_owned(), name.clone());
    }
    wire::OpMetadata {
        ignore_cache: *ignore_cache,
        description,
        export_cache: export_cache.map(|value| pb::ExportCache { value }),
        caps: caps.iter().map(|cap| (cap.clone(), true)).collect(),
        progress_group: progress_group.as_ref().map(|group| pb::ProgressGroup {
            id: group.id.clone(),
            name: group.name.clone(),
            weak: group.weak,
        }),
        linux_resources: linux_resources.as_ref().map(resources),
    }
}

fn resources(resources: &LinuxResources) -> wire::LinuxResources {
    wire::LinuxResources {
        memory: resources.memory,
        memory_swap: resources.memory_swap,
        cpu_shares: resources.cpu_shares,
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
    }
}

fn location(location: &SourceLocation) -> Result<pb::Location, NoRoom> {
    Ok(pb::Location {
        source_index: i32::try_from(location.source).map_err(|_| NoRoom::SourceIndex)?,
        ranges: location.ranges.iter().map(range).collect(),
    })
}

fn range(range: &rbuild_graph::SourceRange) -> pb::Range {
    let position = |position: rbuild_graph::SourcePosition| {
        Some(pb::Position {
            line: position.line,
            character: position.character,
        })
    };
    pb::Range {
        start: position(range.start),
        end: position(range.end),
    }
}

fn source(text: &SourceText) -> wire::SourceInfo {
    wire::SourceInfo {
        filename: text.filename.clone(),
        data: text.text.clone(),
        definition: text.definition.clone(),
        language: text.language.clone(),
    }
}
