//! The graph itself: vertices, edges, their digests, pruning and order. Refuses graphs that refer to what is not
//! in them; cycles cannot be made, since a vertex is named by the digest of what it depends on.

use std::collections::{BTreeMap, HashSet};

use rbuild_oci::{Digest, Platform};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::meta::{SourceText, VertexMeta};
use crate::op::Op;

/// Name of a vertex: the digest of its operation and of its inputs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VertexDigest(pub Digest);

impl std::fmt::Display for VertexDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One output of a vertex.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Edge {
    /// The vertex.
    pub vertex: VertexDigest,
    /// Which of its outputs.
    pub output: u32,
}

/// One step of the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vertex {
    /// What it does.
    pub op: Op,
    /// What it works on.
    pub inputs: Vec<Edge>,
    /// What it is for; `None` if it does not matter.
    pub platform: Option<Platform>,
    /// Filters on the worker that may run it, containerd's syntax.
    pub constraints: Vec<String>,
    /// How it is shown and where it comes from.
    pub meta: VertexMeta,
}

impl Vertex {
    /// An operation on its inputs, of which nothing else is said.
    #[must_use]
    pub fn new(op: Op, inputs: Vec<Edge>) -> Self {
        Self {
            op,
            inputs,
            platform: None,
            constraints: Vec::new(),
            meta: VertexMeta::default(),
        }
    }
}

/// All vertices of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Graph {
    vertices: BTreeMap<VertexDigest, Vertex>,
    /// Texts that spans point into.
    pub sources: Vec<SourceText>,
}

/// What can be wrong with a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// An edge names a vertex that is not there.
    #[error("vertex {0} is not in the graph")]
    MissingVertex(VertexDigest),
}

impl Vertex {
    /// The digest that names this vertex.
    #[must_use]
    pub fn digest(&self) -> VertexDigest {
        #[derive(Serialize)]
        struct Definition<'a> {
            op: &'a Op,
            inputs: &'a [Edge],
            platform: &'a Option<Platform>,
            constraints: &'a [String],
        }
        let definition = Definition {
            op: &self.op,
            inputs: &self.inputs,
            platform: &self.platform,
            constraints: &self.constraints,
        };
        let mut hasher = Sha256::new();
        hasher.update(b"rbuild vertex 2\0");
        let mut writer = HashWriter(&mut hasher);
        let written = serde_json::to_writer(&mut writer, &definition);
        assert!(
            written.is_ok(),
            "an operation always serialises: its maps have string keys and a hash cannot fail"
        );
        VertexDigest(Digest::from_sha256(hasher.finalize().into()))
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Graph {
    /// Adds a vertex and returns its digest. Adding the same operation again keeps the first one's meta data, but
    /// `ignore_cache` holds if either asks for it.
    ///
    /// # Errors
    /// [`GraphError::MissingVertex`] if an input is not in the graph yet.
    pub fn add(&mut self, vertex: Vertex) -> Result<VertexDigest, GraphError> {
        if let Some(missing) = vertex
            .inputs
            .iter()
            .find(|edge| !self.vertices.contains_key(&edge.vertex))
        {
            return Err(GraphError::MissingVertex(missing.vertex.clone()));
        }
        let digest = vertex.digest();
        let ignore_cache = vertex.meta.ignore_cache;
        let kept = self.vertices.entry(digest.clone()).or_insert(vertex);
        kept.meta.ignore_cache |= ignore_cache;
        Ok(digest)
    }

    /// Says something else of a vertex; nothing happens if it is not there.
    pub fn set_meta(&mut self, digest: &VertexDigest, meta: VertexMeta) {
        if let Some(vertex) = self.vertices.get_mut(digest) {
            vertex.meta = meta;
        }
    }

    /// The vertices with their digests, by digest.
    pub fn iter(&self) -> impl Iterator<Item = (&VertexDigest, &Vertex)> {
        self.vertices.iter()
    }

    /// The vertex of that digest.
    #[must_use]
    pub fn get(&self, digest: &VertexDigest) -> Option<&Vertex> {
        self.vertices.get(digest)
    }

    /// All vertices, by digest.
    pub fn vertices(&self) -> impl Iterator<Item = &Vertex> {
        self.vertices.values()
    }

    /// Number of vertices.
    #[must_use]
    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }

    /// The vertices that `targets` need, each after its inputs. What is not in the list is not built.
    ///
    /// # Errors
    /// [`GraphError::MissingVertex`] if a target is not in the graph.
    pub fn reachable(&self, targets: &[VertexDigest]) -> Result<Vec<VertexDigest>, GraphError> {
        let mut order = Vec::new();
        let mut done: HashSet<&VertexDigest> = HashSet::new();
        // An explicit stack: a chain of 100,000 stages must not end the process.
        let mut stack: Vec<(&VertexDigest, bool)> = Vec::new();
        for target in targets.iter().rev() {
            let (key, _) = self
                .vertices
                .get_key_value(target)
                .ok_or_else(|| GraphError::MissingVertex(target.clone()))?;
            stack.push((key, false));
        }
        while let Some((digest, inputs_done)) = stack.pop() {
            if inputs_done {
                order.push(digest.clone());
                continue;
            }
            if !done.insert(digest) {
                continue;
            }
            stack.push((digest, true));
            for edge in self.vertices[digest].inputs.iter().rev() {
                if !done.contains(&edge.vertex) {
                    stack.push((&edge.vertex, false));
                }
            }
        }
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{FileAction, FileActionKind, FileOp, MkDirAction, SourceOp};

    fn source(name: &str) -> Vertex {
        let op = Op::Source(SourceOp {
            identifier: format!("local://{name}"),
            attrs: BTreeMap::new(),
        });
        Vertex::new(op, Vec::new())
    }

    fn mkdir(path: &str, on: &VertexDigest) -> Vertex {
        let kind = FileActionKind::MkDir(MkDirAction {
            path: path.to_owned(),
            mode: 0o755,
            make_parents: true,
            owner: None,
            time: None,
        });
        let action = FileAction {
            input: Some(0),
            secondary_input: None,
            output: Some(0),
            kind,
        };
        Vertex {
            op: Op::File(FileOp {
                actions: vec![action],
            }),
            inputs: vec![Edge {
                vertex: on.clone(),
                output: 0,
            }],
            platform: None,
            constraints: Vec::new(),
            meta: VertexMeta::default(),
        }
    }

    #[test]
    fn unreached_vertices_are_pruned_and_inputs_come_first() {
        let mut graph = Graph::default();
        let a = graph.add(source("a")).unwrap();
        let b = graph.add(mkdir("/b", &a)).unwrap();
        let unused = graph.add(mkdir("/unused", &a)).unwrap();
        let c = graph.add(mkdir("/c", &b)).unwrap();
        let order = graph.reachable(std::slice::from_ref(&c)).unwrap();
        assert_eq!(order, [a, b, c]);
        assert!(!order.contains(&unused));
    }

    #[test]
    fn equal_operations_are_one_vertex_and_ignore_cache_sticks() {
        let mut graph = Graph::default();
        let first = graph.add(source("a")).unwrap();
        let mut again = source("a");
        again.meta.ignore_cache = true;
        assert_eq!(graph.add(again).unwrap(), first);
        assert_eq!(graph.len(), 1);
        assert!(graph.get(&first).unwrap().meta.ignore_cache);
    }

    #[test]
    fn a_chain_of_100_000_vertices_is_ordered_without_recursion() {
        let mut graph = Graph::default();
        let mut last = graph.add(source("a")).unwrap();
        for i in 0..100_000 {
            last = graph.add(mkdir(&format!("/{i}"), &last)).unwrap();
        }
        assert_eq!(graph.reachable(&[last]).unwrap().len(), 100_001);
    }

    #[test]
    fn an_edge_to_nothing_is_refused() {
        let mut graph = Graph::default();
        let absent = source("absent").digest();
        assert_eq!(
            graph.add(mkdir("/x", &absent)),
            Err(GraphError::MissingVertex(absent))
        );
    }
}
