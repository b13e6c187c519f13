//! Graphs put together, and vertices replaced: what a front end does with graphs that are given to it, and with
//! sources of which it learns late how much is needed.

use std::collections::BTreeMap;

use crate::graph::{Edge, Graph, GraphError, Vertex, VertexDigest};
use crate::meta::SourceText;
use crate::op::Op;

impl Graph {
    /// Takes over what `target` of `other` needs, with the texts it comes from. A vertex is named by what it does, so
    /// `target` means the same in both graphs.
    ///
    /// # Errors
    /// [`GraphError::MissingVertex`] if `other` does not hold `target` or what it needs.
    pub fn merge(&mut self, other: &Self, target: &Edge) -> Result<(), GraphError> {
        let mut sources: BTreeMap<usize, usize> = BTreeMap::new();
        for digest in other.reachable(std::slice::from_ref(&target.vertex))? {
            let mut vertex = other
                .get(&digest)
                .cloned()
                .ok_or_else(|| GraphError::MissingVertex(digest.clone()))?;
            vertex.meta.locations.retain_mut(|location| {
                let at = sources.get(&location.source).copied().or_else(|| {
                    let at = self.source_index(other.sources.get(location.source)?);
                    sources.insert(location.source, at);
                    Some(at)
                });
                // A place in no text says nothing.
                at.is_some_and(|at| {
                    location.source = at;
                    true
                })
            });
            self.add(vertex)?;
        }
        Ok(())
    }

    /// The graph of what `target` needs with each vertex changed by `change`, and `target` in it.
    ///
    /// # Errors
    /// [`GraphError::MissingVertex`] if `target` or what it needs is not in the graph.
    pub fn rewritten(
        &self,
        target: &Edge,
        mut change: impl FnMut(&VertexDigest, &mut Op),
    ) -> Result<(Self, Edge), GraphError> {
        let mut graph = Self::default();
        graph.sources.clone_from(&self.sources);
        let mut names: BTreeMap<VertexDigest, VertexDigest> = BTreeMap::new();
        let new_edge = |names: &BTreeMap<VertexDigest, VertexDigest>, edge: &Edge| {
            let vertex = names
                .get(&edge.vertex)
                .ok_or_else(|| GraphError::MissingVertex(edge.vertex.clone()))?;
            Ok(Edge {
                vertex: vertex.clone(),
                output: edge.output,
            })
        };
        for digest in self.reachable(std::slice::from_ref(&target.vertex))? {
            let old = self
                .get(&digest)
                .ok_or_else(|| GraphError::MissingVertex(digest.clone()))?;
            let mut vertex = Vertex {
                inputs: old
                    .inputs
                    .iter()
                    .map(|edge| new_edge(&names, edge))
                    .collect::<Result<_, GraphError>>()?,
                ..old.clone()
            };
            change(&digest, &mut vertex.op);
            names.insert(digest, graph.add(vertex)?);
        }
        let target = new_edge(&names, target)?;
        Ok((graph, target))
    }

    fn source_index(&mut self, text: &SourceText) -> usize {
        let Some(at) = self.sources.iter().position(|known| known.is_same(text)) else {
            self.sources.push(text.clone());
            return self.sources.len() - 1;
        };
        let known = &mut self.sources[at].definition;
        if known.is_none() {
            known.clone_from(&text.definition);
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::{SourceLocation, VertexMeta};
    use crate::op::{MergeOp, SourceOp};

    fn text(name: &str) -> SourceText {
        SourceText {
            filename: name.to_owned(),
            ..SourceText::default()
        }
    }

    fn vertex(op: Op, inputs: Vec<Edge>, source: Option<usize>) -> Vertex {
        let locations = source.map(|at| SourceLocation::lines(at, 1, 1));
        Vertex {
            op,
            inputs,
            platform: None,
            constraints: Vec::new(),
            meta: VertexMeta {
                locations: locations.into_iter().collect(),
                ..VertexMeta::default()
            },
        }
    }

    fn source(name: &str) -> Op {
        Op::Source(SourceOp {
            identifier: format!("local://{name}"),
            attrs: BTreeMap::new(),
        })
    }

    fn edge(vertex: VertexDigest) -> Edge {
        Edge { vertex, output: 0 }
    }

    fn on_top(edges: &[Edge]) -> Op {
        Op::Merge(MergeOp {
            inputs: (0..).take(edges.len()).map(Some).collect(),
        })
    }

    #[test]
    fn merging_takes_what_the_target_needs_and_its_texts() {
        let mut other = Graph::default();
        other.sources = vec![text("unused"), text("shared"), text("own")];
        let a = edge(other.add(vertex(source("a"), vec![], Some(1))).unwrap());
        other.add(vertex(source("unneeded"), vec![], None)).unwrap();
        let inputs = vec![a.clone()];
        let top = edge(other.add(vertex(on_top(&inputs), inputs, Some(2))).unwrap());
        let mut graph = Graph::default();
        graph.sources = vec![text("mine"), text("shared")];
        graph.merge(&other, &top).unwrap();
        graph.merge(&other, &top).unwrap();
        assert_eq!(graph.len(), 2);
        let names: Vec<_> = graph.sources.iter().map(|text| text.filename.as_str()).collect();
        assert_eq!(names, ["mine", "shared", "own"]);
        assert_eq!(graph.get(&a.vertex).unwrap().meta.locations[0].source, 1);
        assert_eq!(graph.get(&top.vertex).unwrap().meta.locations[0].source, 2);
    }

    #[test]
    fn a_text_of_which_more_is_known_is_the_same_text() {
        let known = |definition: Option<&[u8]>| SourceText {
            definition: definition.map(<[u8]>::to_vec),
            ..text("a")
        };
        let mut graph = Graph::default();
        graph.sources = vec![known(None)];
        assert_eq!(graph.source_index(&known(Some(b"d"))), 0);
        assert_eq!(graph.sources, [known(Some(b"d"))]);
        assert_eq!(graph.source_index(&known(None)), 0);
        assert_eq!(
            graph.source_index(&known(Some(b"e"))),
            1,
            "it comes from elsewhere"
        );
    }

    #[test]
    fn merging_from_a_graph_without_the_target_is_refused() {
        let absent = edge(vertex(source("a"), vec![], None).digest());
        let merged = Graph::default().merge(&Graph::default(), &absent);
        assert_eq!(merged, Err(GraphError::MissingVertex(absent.vertex)));
    }

    #[test]
    fn rewriting_renames_what_stands_on_a_changed_vertex_and_nothing_else() {
        let mut graph = Graph::default();
        let a = edge(graph.add(vertex(source("a"), vec![], None)).unwrap());
        let b = edge(graph.add(vertex(source("b"), vec![], None)).unwrap());
        let inputs = vec![a.clone(), b.clone()];
        let top = edge(graph.add(vertex(on_top(&inputs), inputs, None)).unwrap());
        let (new, target) = graph
            .rewritten(&top, |digest, op| {
                if *digest == a.vertex {
                    *op = source("c");
                }
            })
            .unwrap();
        assert_ne!(target, top);
        let inputs = &new.get(&target.vertex).unwrap().inputs;
        assert_eq!(inputs[1], b);
        assert_eq!(new.get(&inputs[0].vertex).unwrap().op, source("c"));
        let (same, target) = graph.rewritten(&top, |_, _| {}).unwrap();
        assert_eq!((same.len(), target), (3, top));
    }
}
