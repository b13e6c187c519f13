//! A client's definition becomes a graph (BuildKit's `solver/llbsolver/vertex.go`, `Load`).
//!
//! The client is not trusted: everything it says is counted, looked up or checked before the graph is made, and what
//! is wrong is named with the digest of the operation. What the engine cannot run decodes all the same; the engine
//! says so by name. Fields that no version of BuildKit knows are dropped, as BuildKit drops them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard_buildkit_proto::pb;
use prost::Message;
use rbuild_graph::{Edge, Graph, GraphError, Vertex, VertexDigest};
use rbuild_oci::Digest;

use crate::limits::{LimitExceeded, Limits};
use crate::name::default_name;
use crate::platform::decode_platform;
use crate::wire;

mod convert;
pub(crate) mod exec;
mod file;
mod metadata;
mod order;
mod validate;

pub use validate::OpError;

use convert::convert;
use metadata::Metadata;
use order::Dependencies;

/// A definition, understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decoded {
    /// What the target needs. Operations that it does not need are dropped, as BuildKit does.
    pub graph: Graph,
    /// What is to be built; `None` is an empty file system (a definition without operations).
    pub target: Option<Edge>,
    /// Which of our vertices is which of the client's.
    pub digests: ClientDigests,
    /// API capabilities the client says the definition needs, those of its vertices included. See
    /// [`crate::caps::check`].
    pub caps: BTreeSet<String>,
}

/// Digests of a client's encoded operations, and the vertices they became.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientDigests {
    vertices: BTreeMap<Digest, VertexDigest>,
    clients: BTreeMap<VertexDigest, Digest>,
}

impl ClientDigests {
    /// Our vertex for a client's digest.
    #[must_use]
    pub fn vertex(&self, client: &Digest) -> Option<&VertexDigest> {
        self.vertices.get(client)
    }

    /// The client's digest of a vertex; the first, if the client has two operations that do the same.
    #[must_use]
    pub fn client(&self, vertex: &VertexDigest) -> Option<&Digest> {
        self.clients.get(vertex)
    }

    /// All pairs, by the client's digest.
    pub fn iter(&self) -> impl Iterator<Item = (&Digest, &VertexDigest)> {
        self.vertices.iter()
    }

    pub(crate) fn insert(&mut self, client: Digest, vertex: VertexDigest) {
        self.clients
            .entry(vertex.clone())
            .or_insert_with(|| client.clone());
        self.vertices.insert(client, vertex);
    }
}

/// Why a definition is refused. Digests are the client's: those of encoded operations.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LlbError {
    /// There is too much of it.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// An operation is no protobuf message.
    #[error("failed to parse llb proto op {digest}")]
    Parse {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: prost::DecodeError,
    },
    /// An edge to an output that no operation has.
    #[error("invalid input {input} output index {index} of vertex {digest}")]
    OutputIndex {
        /// The operation with the edge.
        digest: Digest,
        /// Which of its inputs.
        input: usize,
        /// The output it names.
        index: i64,
    },
    /// An edge to nothing.
    #[error("invalid missing input digest {missing} of vertex {digest}")]
    MissingInput {
        /// The operation with the edge.
        digest: Digest,
        /// What it names.
        missing: String,
    },
    /// Fewer operations than the terminal one and its input.
    #[error("invalid LLB with {count} vertexes")]
    TooFew {
        /// How many.
        count: usize,
    },
    /// The last operation names no target.
    #[error("invalid LLB with no inputs on last vertex {digest}")]
    NoTarget {
        /// The last operation.
        digest: Digest,
    },
    /// The last operation does something, so it is not the one that names the target.
    #[error("invalid LLB whose last vertex {digest} is an operation")]
    NotTerminal {
        /// The last operation.
        digest: Digest,
    },
    /// An operation stands on itself.
    #[error("invalid LLB with a cycle at vertex {digest}")]
    Cycle {
        /// One of those in the cycle.
        digest: String,
    },
    /// Too many operations stand on each other.
    #[error("invalid LLB with more than {limit} vertexes on each other at vertex {digest}")]
    TooDeep {
        /// The first that is too high.
        digest: String,
        /// The limit.
        limit: usize,
    },
    /// An operation that cannot be.
    #[error("vertex {digest}")]
    Op {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: OpError,
    },
    /// An operation is said to come from a text that is not there.
    #[error("vertex {digest} is located in source {index} of {count}")]
    SourceIndex {
        /// Which.
        digest: Digest,
        /// The text it names.
        index: i32,
        /// How many there are.
        count: usize,
    },
}

/// Reads a definition.
///
/// # Errors
/// [`LlbError`].
pub fn decode(definition: &wire::Definition, limits: &Limits) -> Result<Decoded, LlbError> {
    if definition.def.is_empty() {
        return Ok(Decoded::default());
    }
    limits.check(&definition.def)?;
    let (ops, last) = parse(&definition.def)?;
    let dependencies = dependencies(&ops)?;
    if ops.len() < 2 {
        return Err(LlbError::TooFew { count: ops.len() });
    }
    let target = target(&ops, &last)?;
    let metadata = Metadata::new(definition);
    let mut decoded = Decoded {
        caps: metadata.caps(last.as_str()).collect(),
        ..Decoded::default()
    };
    decoded.graph.sources = metadata.sources();
    for name in order::order(&dependencies, &target.digest, limits.depth)? {
        let Some((digest, op)) = ops.get(name) else {
            unreachable!("every dependency has been looked up");
        };
        add(&mut decoded, digest, op, &metadata)?;
    }
    decoded.target = Some(edge(&decoded, &last, 0, target)?);
    Ok(decoded)
}

/// Operations by the text of their digest.
type Ops = HashMap<String, (Digest, wire::Op)>;

fn parse(encoded: &[Vec<u8>]) -> Result<(Ops, Digest), LlbError> {
    let mut ops = Ops::with_capacity(encoded.len());
    let mut last = None;
    for bytes in encoded {
        let digest = Digest::sha256(bytes);
        let op = wire::Op::decode(bytes.as_slice()).map_err(|source| LlbError::Parse {
            digest: digest.clone(),
            source,
        })?;
        let negative = op.inputs.iter().enumerate().find(|(_, input)| input.index < 0);
        if let Some((input, pb::Input { index, .. })) = negative {
            let index = *index;
            return Err(LlbError::OutputIndex { digest, input, index });
        }
        last = Some(digest.clone());
        ops.insert(digest.to_string(), (digest, op));
    }
    match last {
        Some(last) => Ok((ops, last)),
        None => Err(LlbError::TooFew { count: 0 }),
    }
}

/// What each operation stands on. All of it is there, even for what the target does not need.
fn dependencies(ops: &Ops) -> Result<Dependencies<'_>, LlbError> {
    let mut all = Dependencies::with_capacity(ops.len());
    for (name, (digest, op)) in ops {
        let missing = op.inputs.iter().find(|input| !ops.contains_key(&input.digest));
        if let Some(input) = missing {
            return Err(LlbError::MissingInput {
                digest: digest.clone(),
                missing: input.digest.clone(),
            });
        }
        let inputs = op.inputs.iter().map(|input| input.digest.as_str()).collect();
        all.insert(name, inputs);
    }
    Ok(all)
}

/// The edge of the terminal operation. As in BuildKit, further ones mean nothing.
fn target<'a>(ops: &'a Ops, last: &Digest) -> Result<&'a pb::Input, LlbError> {
    let (_, op) = &ops[last.as_str()];
    if op.op.is_some() {
        return Err(LlbError::NotTerminal { digest: last.clone() });
    }
    op.inputs
        .first()
        .ok_or_else(|| LlbError::NoTarget { digest: last.clone() })
}

fn add(
    decoded: &mut Decoded,
    digest: &Digest,
    op: &wire::Op,
    metadata: &Metadata<'_>,
) -> Result<(), LlbError> {
    let inputs = op
        .inputs
        .iter()
        .enumerate()
        .map(|(at, input)| edge(decoded, digest, at, input))
        .collect::<Result<Vec<_>, _>>()?;
    let kind = convert(op).map_err(|source| LlbError::Op {
        digest: digest.clone(),
        source,
    })?;
    let mut vertex = Vertex {
        op: kind,
        inputs,
        platform: op.platform.as_ref().map(decode_platform),
        constraints: op
            .constraints
            .as_ref()
            .map(|constraints| constraints.filter.clone())
            .unwrap_or_default(),
        meta: metadata.of(digest)?,
    };
    match vertex.meta.description.remove(CUSTOM_NAME) {
        Some(name) => vertex.meta.name = name,
        None => vertex.meta.name = default_name(&decoded.graph, &vertex),
    }
    decoded.caps.extend(vertex.meta.caps.iter().cloned());
    match decoded.graph.add(vertex) {
        Ok(vertex) => decoded.digests.insert(digest.clone(), vertex),
        Err(GraphError::MissingVertex(missing)) => {
            unreachable!("inputs come before what stands on them, and {missing} was one")
        }
    }
    Ok(())
}

/// Key of the description under which a client gives a name.
pub(crate) const CUSTOM_NAME: &str = "llb.customname";

fn edge(decoded: &Decoded, of: &Digest, at: usize, input: &pb::Input) -> Result<Edge, LlbError> {
    let no_output = || LlbError::OutputIndex {
        digest: of.clone(),
        input: at,
        index: input.index,
    };
    let vertex = Digest::parse(&input.digest)
        .ok()
        .and_then(|digest| decoded.digests.vertex(&digest))
        .ok_or_else(|| LlbError::MissingInput {
            digest: of.clone(),
            missing: input.digest.clone(),
        })?;
    let output = u32::try_from(input.index).map_err(|_| no_output())?;
    let outputs = decoded.graph.get(vertex).map_or(0, |vertex| vertex.op.outputs());
    if output as usize >= outputs {
        return Err(no_output());
    }
    Ok(Edge {
        vertex: vertex.clone(),
        output,
    })
}

#[cfg(test)]
mod tests;
