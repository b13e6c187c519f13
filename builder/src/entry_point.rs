//! The definition that a Dockerfile is loaded with, as front ends of BuildKit write it (`frontend/dockerui/config.go`,
//! `ReadEntrypoint`). It runs nothing here: it is what provenance, lint and the operations of a build tell of their text.

use std::collections::BTreeMap;

use rbuild_graph::{Edge, Graph, Op, SourceOp, Vertex};
use rbuild_llb::caps;

use crate::build::base_name;
use crate::context::Opened;
use crate::request::{BuildRequest, DockerfileSource};

/// Name of the client's directory that a Dockerfile is in.
const LOCAL: &str = "dockerfile";

/// Of the Dockerfile of `request`.
pub(crate) fn of_request(request: &BuildRequest, opened: &Opened) -> Option<Vec<u8>> {
    match (&opened.remote, &request.dockerfile) {
        (Some(remote), DockerfileSource::InContext(_)) => {
            let mut graph = Graph::default();
            let target = remote.add_to(&mut graph);
            noted(graph, &target)
        }
        _ => of_local(LOCAL, &base_name(&opened.filename), None),
    }
}

/// Of file `filename` in the directory that a client calls `name`, over that session; here without one.
#[must_use]
pub fn of_local(name: &str, filename: &str, session: Option<&str>) -> Option<Vec<u8>> {
    let mut paths = vec![filename.to_owned(), format!("{filename}.dockerignore")];
    let (directory, last) = filename
        .rsplit_once('/')
        .map_or(("", filename), |(dir, last)| (dir, last));
    if last == "Dockerfile" {
        paths.push(rbuild_dockerfile::path::join(&[directory, "dockerfile"]));
    }
    let mut attrs = BTreeMap::from([
        ("local.differ".to_owned(), "none".to_owned()),
        (
            "local.followpaths".to_owned(),
            serde_json::to_string(&paths).ok()?,
        ),
        ("local.sharedkeyhint".to_owned(), name.to_owned()),
    ]);
    if let Some(session) = session {
        attrs.insert("local.session".to_owned(), session.to_owned());
    }
    let mut source = Vertex::new(
        Op::Source(SourceOp {
            identifier: format!("local://{name}"),
            attrs,
        }),
        Vec::new(),
    );
    source.meta.name = format!("[internal] load build definition from {filename}");
    let mut graph = Graph::default();
    let vertex = graph.add(source).ok()?;
    noted(graph, &Edge { vertex, output: 0 })
}

fn noted(mut graph: Graph, target: &Edge) -> Option<Vec<u8>> {
    caps::note(&mut graph);
    encoded(&graph, target)
}

/// Of a graph that a client gave.
#[must_use]
pub fn encoded(graph: &Graph, target: &Edge) -> Option<Vec<u8>> {
    rbuild_llb::encode_bytes(graph, target).ok()
}
