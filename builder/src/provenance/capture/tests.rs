//! Captures of graphs made by hand.

use super::*;
use rbuild_graph::{Edge, ExecMeta, MergeOp, Mount, SecretEnv, SecurityMode, Vertex, VertexMeta};

fn vertex(op: Op, inputs: Vec<VertexDigest>) -> Vertex {
    Vertex {
        op,
        inputs: inputs
            .into_iter()
            .map(|vertex| Edge { vertex, output: 0 })
            .collect(),
        platform: Some(Platform::new("linux", "amd64")),
        constraints: vec![],
        meta: VertexMeta::default(),
    }
}

fn source(graph: &mut Graph, identifier: &str, attrs: &[(&str, &str)]) -> VertexDigest {
    let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let op = Op::Source(SourceOp {
        identifier: identifier.to_owned(),
        attrs: attrs.collect(),
    });
    graph.add(vertex(op, vec![])).unwrap()
}

fn all(graph: &mut Graph, inputs: Vec<VertexDigest>) -> VertexDigest {
    let list = (0..u32::try_from(inputs.len()).unwrap()).map(Some).collect();
    graph
        .add(vertex(Op::Merge(MergeOp { inputs: list }), inputs))
        .unwrap()
}

#[test]
fn row41_sources_are_listed_without_credentials() {
    let digest = Digest::sha256(b"image");
    let mut graph = Graph::default();
    let inputs = vec![
        source(
            &mut graph,
            &format!("docker-image://docker.io/library/busybox:latest@{digest}"),
            &[],
        ),
        source(
            &mut graph,
            &format!("docker-image://docker.io/library/busybox@{digest}"),
            &[],
        ),
        source(&mut graph, "local://context", &[]),
        source(&mut graph, "https://u:secret@host/file", &[]),
        source(
            &mut graph,
            "git://host/repo#main:dir",
            &[("git.fullurl", "https://u:secret@host/repo")],
        ),
    ];
    source(&mut graph, "local://unused", &[]);
    let target = all(&mut graph, inputs);
    let pin = |_: &VertexDigest, source: &SourceOp| match source.identifier.split_once(':')?.0 {
        "https" => Some(Pin::Digest(Digest::sha256(b"file"))),
        "git" => Some(Pin::Commit("a".repeat(40))),
        _ => None,
    };
    let found = Capture::of(&graph, &target, pin).unwrap();
    let images = found
        .images
        .iter()
        .map(|image| (image.reference.as_str(), image.digest.clone()));
    assert_eq!(
        images.collect::<Vec<_>>(),
        [("docker.io/library/busybox:latest", Some(digest))]
    );
    assert!(found.http.keys().eq(["https://xxxxx:xxxxx@host/file"]));
    assert!(found.git.keys().eq(["https://xxxxx:xxxxx@host/repo#main"]));
    assert!(found.locals.iter().eq(["context"]), "only what the target needs");
    assert!(!found.incomplete_materials && !found.network_access);
    assert!(!format!("{found:?}").contains("secret@"));
}

#[test]
fn a_source_nobody_can_pin_makes_the_list_incomplete() {
    let mut graph = Graph::default();
    let file = source(&mut graph, "https://host/file", &[]);
    assert!(
        Capture::of(&graph, &file, |_, _| None)
            .unwrap()
            .incomplete_materials
    );
    let tape = source(&mut graph, "tape://1", &[]);
    assert!(
        Capture::of(&graph, &tape, |_, _| None)
            .unwrap()
            .incomplete_materials
    );
}

fn step(network: NetMode, optional: bool) -> ExecOp {
    let secret = MountKind::Secret {
        id: "s".into(),
        uid: 0,
        gid: 0,
        mode: 0,
        optional,
    };
    let ssh = MountKind::Ssh {
        id: String::new(),
        uid: 0,
        gid: 0,
        mode: 0,
        optional: true,
    };
    ExecOp {
        meta: ExecMeta::default(),
        mounts: vec![Mount::new("/s", secret), Mount::new("/a", ssh)],
        network,
        security: SecurityMode::Sandbox,
        secret_env: vec![SecretEnv {
            id: "e".into(),
            name: "E".into(),
            optional: true,
        }],
        cdi_devices: vec![],
    }
}

fn capture(steps: Vec<ExecOp>) -> Capture {
    let mut graph = Graph::default();
    let mut inputs = Vec::new();
    for step in steps {
        inputs.push(graph.add(vertex(Op::Exec(Box::new(step)), vec![])).unwrap());
    }
    let target = all(&mut graph, inputs);
    Capture::of(&graph, &target, |_, _| None).unwrap()
}

#[test]
fn steps_say_their_secrets_agents_and_network() {
    let quiet = capture(vec![step(NetMode::None, true)]);
    assert!(!quiet.network_access);
    assert_eq!(
        quiet.secrets,
        BTreeMap::from([("e".to_owned(), true), ("s".to_owned(), true)])
    );
    assert_eq!(quiet.ssh, BTreeMap::from([("default".to_owned(), true)]));
    let both = capture(vec![step(NetMode::None, true), step(NetMode::Unset, false)]);
    assert!(both.network_access);
    assert!(!both.secrets["s"], "one step needs it");
    let mut merged = quiet;
    merged.merge(both.clone());
    assert_eq!(merged, both);
}

#[test]
fn blobs_and_bundles_are_materials_of_their_own() {
    let (blob, bundle) = (Digest::sha256(b"blob"), Digest::sha256(b"bundle"));
    let mut graph = Graph::default();
    let locator = format!("oci-layout+blob://a/bundle@{bundle}");
    let inputs = vec![
        source(
            &mut graph,
            &format!("docker-image+blob://localhost:5000/a/b@{blob}"),
            &[],
        ),
        source(&mut graph, "git://host/repo#main", &[("git.bundle", &locator)]),
    ];
    let target = all(&mut graph, inputs);
    let pin = |_: &VertexDigest, source: &SourceOp| match source.identifier.split_once(':')?.0 {
        "git" => Some(Pin::Commit("a".repeat(40))),
        _ => Some(Pin::Digest(blob.clone())),
    };
    let found = Capture::of(&graph, &target, pin).unwrap();
    assert!(!found.incomplete_materials);
    let listed = crate::provenance::materials::materials(&found);
    let listed: Vec<(&str, &str)> = listed
        .iter()
        .map(|material| {
            let (_, digest) = material["digest"].as_object().unwrap().iter().next().unwrap();
            (material["uri"].as_str().unwrap(), digest.as_str().unwrap())
        })
        .collect();
    assert_eq!(
        listed,
        [
            (
                format!("pkg:docker/localhost%3A5000/a/b?digest={blob}&ref_type=blob").as_str(),
                blob.hex()
            ),
            ("git://host/repo#main", "a".repeat(40).as_str()),
            (
                "pkg:oci/a/bundle@latest?ref_type=bundle&vcs_url=git%3A%2F%2Fhost%2Frepo%23main",
                bundle.hex()
            ),
        ]
    );
}
