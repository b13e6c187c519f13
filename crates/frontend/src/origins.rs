//! What is said of a vertex that several instructions ask for. A vertex is named by what it does, so two stages on the same
//! image share one; each of them is a place it comes from, and an error has to name them all. BuildKit's client keeps one
//! object for each asking and puts them together while it walks from the target (`client/llb/state.go`, `marshal` and
//! `mergeMetadata`; `sourcemap.go`): places in the order of that walk, the name of the one it meets last.

use rbuild_graph::{Edge, Graph, VertexDigest, VertexMeta};

/// An edge, and which asking for its vertex is meant.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) edge: Edge,
    origin: usize,
}

/// One asking for a vertex.
#[derive(Debug)]
struct Asked {
    vertex: VertexDigest,
    /// What it works on, in the order in which the walk goes there.
    inputs: Vec<usize>,
    /// `None` for what somebody else made, of which nothing is to be added.
    meta: Option<VertexMeta>,
}

/// All askings of one lowering.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    list: Vec<Asked>,
    /// Whether any vertex was asked for twice.
    shared: bool,
}

/// The inputs of a vertex in the making.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    /// Each edge once.
    pub(crate) edges: Vec<Edge>,
    origins: Vec<usize>,
}

impl Inputs {
    /// At most one input.
    pub(crate) fn of(made: Option<&Made>) -> Self {
        let mut inputs = Self::default();
        inputs.index(made);
        inputs
    }

    /// Position of `made` among the edges, added if it is not there.
    pub(crate) fn index(&mut self, made: Option<&Made>) -> Option<u32> {
        let made = made?;
        self.origins.push(made.origin);
        let known = self.edges.iter().position(|known| *known == made.edge);
        let at = known.unwrap_or_else(|| {
            self.edges.push(made.edge.clone());
            self.edges.len() - 1
        });
        u32::try_from(at).ok()
    }

    /// Of a file operation the walk sees first what it begins with, then what the last action reads, and so on to the first.
    pub(crate) fn last_action_first(&mut self, begins_with_input: bool) {
        self.origins[usize::from(begins_with_input)..].reverse();
    }
}

impl Origins {
    /// Notes that `edge` was asked for; `again` if its vertex had been asked for before.
    pub(crate) fn note(&mut self, edge: Edge, inputs: Inputs, meta: VertexMeta, again: bool) -> Made {
        self.shared |= again;
        self.push(edge, inputs.origins, Some(meta))
    }

    /// An edge of a graph that somebody else made.
    pub(crate) fn outside(&mut self, edge: Edge) -> Made {
        self.push(edge, Vec::new(), None)
    }

    fn push(&mut self, edge: Edge, inputs: Vec<usize>, meta: Option<VertexMeta>) -> Made {
        let vertex = edge.vertex.clone();
        self.list.push(Asked { vertex, inputs, meta });
        Made {
            edge,
            origin: self.list.len() - 1,
        }
    }

    /// Says of each shared vertex that `target` needs all that those who asked for it say.
    pub(crate) fn settle(self, graph: &mut Graph, target: &Made) {
        if !self.shared {
            return;
        }
        let mut said = std::collections::HashMap::new();
        for origin in self.walk(target.origin) {
            let Some(meta) = &origin.meta else { continue };
            match said.entry(&origin.vertex) {
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(meta.clone());
                }
                std::collections::hash_map::Entry::Occupied(mut entry) => entry.get_mut().extend(meta),
            }
        }
        for (vertex, meta) in said {
            graph.set_meta(vertex, meta);
        }
    }

    /// What `target` is made of, each behind its inputs and once.
    fn walk(&self, target: usize) -> impl Iterator<Item = &Asked> {
        let mut seen = vec![false; self.list.len()];
        let mut order = Vec::new();
        let mut open = vec![(target, false)];
        while let Some((at, leaving)) = open.pop() {
            if leaving {
                order.push(&self.list[at]);
            } else if !std::mem::replace(&mut seen[at], true) {
                open.push((at, true));
                open.extend(self.list[at].inputs.iter().rev().map(|input| (*input, false)));
            }
        }
        order.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use rbuild_graph::{Op, SourceLocation, SourceOp, Vertex};

    use super::*;

    fn ask(graph: &mut Graph, origins: &mut Origins, name: &str, line: u32, inputs: &[&Made]) -> Made {
        let op = Op::Source(SourceOp {
            identifier: name.to_owned(),
            attrs: std::collections::BTreeMap::new(),
        });
        let mut on = Inputs::default();
        for input in inputs {
            on.index(Some(input));
        }
        let mut vertex = Vertex::new(op, on.edges.clone());
        vertex.meta.name = format!("{name} {line}");
        vertex.meta.locations = vec![SourceLocation::lines(0, line, line)];
        let meta = vertex.meta.clone();
        let again = graph.get(&vertex.digest()).is_some();
        let vertex = graph.add(vertex).unwrap();
        origins.note(Edge { vertex, output: 0 }, on, meta, again)
    }

    #[test]
    fn a_shared_vertex_has_all_its_places_and_its_last_name() {
        let (mut graph, mut origins) = (Graph::default(), Origins::default());
        let first = ask(&mut graph, &mut origins, "image", 1, &[]);
        let unused = ask(&mut graph, &mut origins, "image", 2, &[]);
        let second = ask(&mut graph, &mut origins, "image", 3, &[]);
        ask(&mut graph, &mut origins, "unused", 4, &[&unused]);
        let target = ask(&mut graph, &mut origins, "copy", 5, &[&second, &first, &second]);
        assert_eq!(graph.get(&first.edge.vertex).unwrap().meta.locations.len(), 1);
        origins.settle(&mut graph, &target);
        let meta = &graph.get(&first.edge.vertex).unwrap().meta;
        let lines: Vec<i32> = meta
            .locations
            .iter()
            .map(|found| found.ranges[0].start.line)
            .collect();
        assert_eq!(
            (lines.as_slice(), meta.name.as_str()),
            ([3, 1].as_slice(), "image 1")
        );
    }

    #[test]
    fn the_walk_sees_the_last_action_of_a_file_operation_first() {
        let (mut graph, mut origins) = (Graph::default(), Origins::default());
        let made: Vec<Made> = (1..=3)
            .map(|line| ask(&mut graph, &mut origins, "image", line, &[]))
            .collect();
        let mut inputs = Inputs::default();
        for made in &made {
            inputs.index(Some(made));
        }
        assert_eq!(inputs.edges.len(), 1);
        inputs.last_action_first(true);
        assert_eq!(inputs.origins, [0, 2, 1]);
        let mut without = Inputs::of(Some(&made[0]));
        without.index(Some(&made[1]));
        without.last_action_first(false);
        assert_eq!(without.origins, [1, 0]);
    }
}
