//! What a build uses of a client's directories, so that no more is fetched (`filterPaths` of BuildKit's
//! `dockerfile2llb/convert.go`). Known only when all instructions have been read, and then written into the sources.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_dockerfile::path;
use rbuild_graph::{Edge, Graph, Op, VertexDigest};

use crate::error::{FrontendError, FrontendErrorKind};
use crate::lowering::json;
use crate::scan::ScanTargets;

/// The paths used of each directory that is watched.
#[derive(Debug, Default)]
pub(crate) struct LocalPaths(BTreeMap<VertexDigest, Used>);

/// What is used of a directory.
#[derive(Debug, Default)]
struct Used {
    paths: BTreeSet<String>,
    /// Whoever reads the directory has to know.
    is_asked: bool,
}

impl LocalPaths {
    /// From now on, counts what is used of the directory that `edge` is. With `is_asked` no more is to be had of it; one of this
    /// machine is read where it is, whatever is used.
    pub(crate) fn watch(&mut self, edge: &Edge, is_asked: bool) {
        self.0.entry(edge.vertex.clone()).or_default().is_asked |= is_asked;
    }

    /// What is made of `edge` depends on what of it is used: a pattern would find more there.
    pub(crate) fn matter(&mut self, edge: Option<&Edge>) {
        if let Some(used) = edge.and_then(|edge| self.0.get_mut(&edge.vertex)) {
            used.is_asked = true;
        }
    }

    /// `path` of `edge` is used; an edge that is no watched directory does not matter.
    pub(crate) fn add(&mut self, edge: Option<&Edge>, path: String) {
        if let Some(used) = edge.and_then(|edge| self.0.get_mut(&edge.vertex)) {
            used.paths.insert(path);
        }
    }

    /// Makes the sources that `target` and `extras` need ask for what is used of them. Gives the new name of `target`;
    /// `extras` get theirs.
    pub(crate) fn follow(
        mut self,
        graph: &mut Graph,
        target: &Edge,
        extras: &mut ScanTargets,
    ) -> Result<Edge, FrontendError> {
        if !self.0.values().any(|used| used.is_asked) {
            return Ok(target.clone());
        }
        let whole = self.used_whole(graph, target, extras)?;
        self.0.retain(|vertex, Used { paths, is_asked }| {
            *is_asked && !paths.is_empty() && !paths.contains("/") && !whole.contains(vertex)
        });
        if self.0.is_empty() {
            return Ok(target.clone());
        }
        let change = |vertex: &VertexDigest, op: &mut Op| {
            let (Some(used), Op::Source(source)) = (self.0.get(vertex), op) else {
                return;
            };
            let paths: Vec<String> = used.paths.iter().map(|used| path::join(&[".", used])).collect();
            source.attrs.insert("local.followpaths".to_owned(), json(&paths));
        };
        let (mut rewritten, target) = graph
            .rewritten(target, change)
            .map_err(FrontendErrorKind::Input)?;
        for extra in extras.values_mut().flatten() {
            let (more, renamed) = graph.rewritten(extra, change).map_err(FrontendErrorKind::Input)?;
            rewritten
                .merge(&more, &renamed)
                .map_err(FrontendErrorKind::Input)?;
            *extra = renamed;
        }
        *graph = rewritten;
        Ok(target)
    }

    /// Directories that are more than copied or mounted from: a root, or all there is.
    fn used_whole(
        &self,
        graph: &Graph,
        target: &Edge,
        extras: &ScanTargets,
    ) -> Result<BTreeSet<VertexDigest>, FrontendError> {
        let targets = extras.values().flatten().chain([target]);
        let targets: Vec<VertexDigest> = targets.map(|edge| edge.vertex.clone()).collect();
        let needed = graph.reachable(&targets).map_err(FrontendErrorKind::Input)?;
        let mut whole = BTreeSet::from([target.vertex.clone()]);
        for vertex in needed.iter().filter_map(|digest| graph.get(digest)) {
            let roots: Vec<Option<u32>> = match &vertex.op {
                Op::Exec(exec) => {
                    let roots = exec.mounts.iter().filter(|mount| mount.dest == "/");
                    roots.map(|mount| mount.input).collect()
                }
                Op::File(file) => file.actions.iter().map(|action| action.input).collect(),
                _ => (0..).take(vertex.inputs.len()).map(Some).collect(),
            };
            let roots = roots.into_iter().flatten();
            let edges = roots.filter_map(|input| vertex.inputs.get(input as usize));
            whole.extend(edges.map(|edge| edge.vertex.clone()));
        }
        Ok(whole)
    }
}
