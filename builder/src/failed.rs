//! What failed operations leave for whoever wants to look into them (`solver/llbsolver/errdefs/exec.go`): the file systems
//! they began with, and those they had come to when they failed. Kept only by builds whose client may ask for it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rbuild_graph::{Graph, Vertex, VertexDigest};

use crate::value::Value;

/// Most failures that a build keeps; a client that looks into them looks into the last ones.
const FAILURES_MAX: usize = 1000;

/// What a failed operation leaves.
#[derive(Debug, Clone, Default)]
pub struct Left {
    /// The part that failed, where an operation has several.
    pub part: Option<FailedPart>,
    /// What it began with: of each mount of a step, of each input of a file operation, the input that was read. Nothing
    /// for what is no input.
    pub inputs: Vec<Option<Value>>,
    /// What became of it: of each mount of a step, of each action of a file operation.
    pub outputs: Vec<Option<Value>>,
}

/// Part of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedPart {
    /// An action of a file operation, by its number.
    Action(usize),
    /// The content of an input that was read for a key, by the input's number.
    Content(usize),
}

/// An operation that failed.
#[derive(Debug, Clone)]
pub struct FailedVertex {
    /// What it does.
    pub vertex: Vertex,
    /// What it left.
    pub left: Left,
}

/// What the failed operations of a build left.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<VertexDigest, Left>>);

impl Failures {
    /// Keeps what `digest` left. What an earlier try of it left, nobody asks for any more.
    pub(crate) fn note(&self, digest: &VertexDigest, left: Left) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < FAILURES_MAX || all.contains_key(digest) {
            all.insert(digest.clone(), left);
        }
    }

    /// The vertex `digest` of `graph`, with what it left.
    pub(crate) fn of(&self, graph: &Graph, digest: &VertexDigest) -> Option<Box<FailedVertex>> {
        let vertex = graph.get(digest)?.clone();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = all.remove(digest)?;
        Some(Box::new(FailedVertex { vertex, left }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_graph::{Op, SourceOp};

    fn source(name: &str) -> Vertex {
        Vertex::new(
            Op::Source(SourceOp {
                identifier: format!("local://{name}"),
                attrs: std::collections::BTreeMap::new(),
            }),
            Vec::new(),
        )
    }

    #[test]
    fn row48_failures_are_kept_once_and_not_without_end() {
        let mut graph = Graph::default();
        let failures = Failures::default();
        let digests: Vec<VertexDigest> = (0..=FAILURES_MAX)
            .map(|number| graph.add(source(&number.to_string())).unwrap())
            .collect();
        for digest in &digests {
            failures.note(digest, Left::default());
        }
        assert!(failures.of(&graph, &digests[FAILURES_MAX]).is_none());
        assert!(failures.of(&graph, &digests[0]).is_some());
        assert!(failures.of(&graph, &digests[0]).is_none(), "it was taken");
    }
}
