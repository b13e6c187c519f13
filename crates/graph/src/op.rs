//! The operations of a build graph, field for field those of BuildKit's `solver/pb/ops.proto`.
//!
//! Every field takes part in the definition digest: it is the serialised form that is hashed, and no field is
//! skipped. Two operations that differ in any field are different vertices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod exec;
mod file;

pub use exec::{
    CacheSharing, CdiDevice, ContentCache, DEFAULT_SSH_ID, ExecMeta, ExecOp, HostIp, Mount, MountKind,
    NetMode, ProxyEnv, SecretEnv, SecurityMode, Ulimit,
};
pub use file::{
    ChownOpt, CopyAction, FileAction, FileActionKind, FileOp, FileTime, MkDirAction, MkFileAction, RmAction,
    SymlinkAction, UserOpt,
};

/// Index of an input of the vertex (position in [`crate::Vertex::inputs`]); `None` is "empty" (scratch).
pub type InputIndex = Option<u32>;
/// Index of an output of the vertex; `None` is "not an output".
pub type OutputIndex = Option<u32>;

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Brings a root file system from outside the graph.
    Source(SourceOp),
    /// Runs a process.
    Exec(Box<ExecOp>),
    /// Changes files without running a process.
    File(FileOp),
    /// Stacks inputs on each other.
    Merge(MergeOp),
    /// What the upper input has over the lower.
    Diff(DiffOp),
    /// Builds a definition that an input holds.
    Build(BuildOp),
    /// Gives its inputs on under a name.
    Passthrough(PassthroughOp),
}

impl Op {
    /// How many outputs an edge to this operation may name.
    #[must_use]
    pub fn outputs(&self) -> usize {
        match self {
            Self::Exec(exec) => exec.outputs(),
            Self::File(file) => file.outputs(),
            Self::Passthrough(passthrough) => passthrough.outputs.len(),
            Self::Source(_) | Self::Merge(_) | Self::Diff(_) | Self::Build(_) => 1,
        }
    }
}

/// `docker-image://ref`, `local://name`, `git://…`, `https://…`, `oci-layout://…`, with the attributes of
/// `solver/pb/attr.go`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceOp {
    /// Scheme and reference.
    pub identifier: String,
    /// Attributes such as `local.excludepatterns`, each a JSON text where BuildKit's is.
    pub attrs: BTreeMap<String, String>,
}

/// Inputs stacked on each other, first at the bottom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeOp {
    /// Inputs.
    pub inputs: Vec<InputIndex>,
}

/// What `upper` has over `lower`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffOp {
    /// Lower input.
    pub lower: InputIndex,
    /// Upper input.
    pub upper: InputIndex,
}

/// A nested build (`BuildOp` of BuildKit, experimental there).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BuildOp {
    /// Input that builds; `None` is the solver itself, BuildKit's only builder so far.
    pub builder: InputIndex,
    /// Named inputs; `buildkit.llb.definition` holds the definition as a file.
    pub inputs: BTreeMap<String, InputIndex>,
    /// Definition given in place: an encoded `pb.Definition`, which BuildKit ignores.
    pub definition: Option<Vec<u8>>,
    /// Attributes such as `llbbuild.filename`.
    pub attrs: BTreeMap<String, String>,
}

/// Inputs given on under a name of their own (`PassthroughOp` of BuildKit).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PassthroughOp {
    /// What tells it from another passthrough of the same inputs.
    pub id: String,
    /// For each output the input that it is.
    pub outputs: Vec<u32>,
}
