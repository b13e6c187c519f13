//! The build graph: operations, vertices and edges, one to one with BuildKit's LLB (`solver/pb/ops.proto`).
//!
//! Level 1. Pure data and pure functions: the Dockerfile front end and API clients produce graphs, the builder
//! solves them. Nothing here runs, reads or mounts anything.
#![forbid(unsafe_code)]

mod graph;
mod merge;
mod meta;
mod op;
pub mod progress;

pub use graph::{Edge, Graph, GraphError, Vertex, VertexDigest};
pub use meta::{
    LinuxResources, SourceLocation, SourcePosition, SourceRange, SourceSpan, SourceText, VertexMeta,
};
pub use op::{
    BuildOp, CacheSharing, CdiDevice, ChownOpt, ContentCache, CopyAction, DEFAULT_SSH_ID, DiffOp, ExecMeta,
    ExecOp, FileAction, FileActionKind, FileOp, FileTime, HostIp, InputIndex, MergeOp, MkDirAction,
    MkFileAction, Mount, MountKind, NetMode, Op, OutputIndex, PassthroughOp, ProxyEnv, RmAction, SecretEnv,
    SecurityMode, SourceOp, SymlinkAction, Ulimit, UserOpt,
};
