//! What the front end does with failed operations: it looks around in what they left.

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    EvaluateRequest, ReadFileRequest, ReleaseContainerRequest, SolveRequest, result,
};
use prost::Message as _;
use rbuild_graph::{
    Edge, ExecMeta, ExecOp, FileAction, FileActionKind, FileOp, Graph, MkFileAction, Mount, MountKind,
    NetMode, Op, SecurityMode, SourceOp, Vertex,
};

use crate::Client;
use crate::containers::{Exec, container, mount};

/// One line for each thing found in what a step, a file operation and the reading of an input left.
pub(crate) async fn look_into(client: &mut Client) -> Result<String, String> {
    let mut lines = Vec::new();
    step(client, &mut lines).await;
    file(client, &mut lines).await;
    content(client, &mut lines).await;
    Ok(lines.join("\n"))
}

/// A step that writes to its root, to an output, to a mount that nobody keeps, and fails.
async fn step(client: &mut Client, lines: &mut Vec<String>) {
    let mut graph = Graph::default();
    let root = add(&mut graph, local("busybox"), Vec::new());
    let mut of_root = Mount::new("/", MountKind::Bind);
    of_root.input = Some(0);
    let mut kept = Mount::new("/kept", MountKind::Bind);
    kept.output = Some(0);
    let mut dropped = Mount::new("/dropped", MountKind::Bind);
    dropped.input = Some(0);
    let memory = Mount::new("/memory", MountKind::Tmpfs { size_bytes: 0 });
    let script = "echo r > /root; echo k > /kept/f; echo d > /dropped/f; echo m > /memory/f; false";
    let exec = ExecOp {
        meta: ExecMeta {
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/".to_owned(),
            ..ExecMeta::default()
        },
        mounts: vec![of_root, kept, dropped, memory],
        network: NetMode::None,
        security: SecurityMode::Sandbox,
        secret_env: Vec::new(),
        cdi_devices: Vec::new(),
    };
    let step = add(&mut graph, Op::Exec(Box::new(exec)), vec![root]);
    let failure = fails(client, &graph, step).await;
    lines.push(format!("step {}", counts(&failure)));
    for (when, ids) in [("before", &failure["inputIDs"]), ("after", &failure["mountIDs"])] {
        let id = |at: usize| ids[at].as_str().unwrap();
        let mut mounts = vec![mount("/", id(0)), mount("/kept", id(1)), mount("/dropped", id(2))];
        mounts[1].input = -1;
        client.new_container(container(when, mounts)).await.unwrap();
        let mut exec = Exec::open(client).await;
        let done = exec
            .run(when, when, "cat /root /kept/f /dropped/f 2>&-; true")
            .await;
        lines.push(format!("{when} {:?} {:?}", done.out, id(3)));
        let release = ReleaseContainerRequest {
            container_id: when.to_owned(),
        };
        client.release_container(release).await.unwrap();
    }
}

/// A file operation whose second action fails.
async fn file(client: &mut Client, lines: &mut Vec<String>) {
    let mut graph = Graph::default();
    let make = |path: &str, input| FileAction {
        input,
        secondary_input: None,
        output: None,
        kind: FileActionKind::MkFile(MkFileAction {
            path: path.to_owned(),
            mode: 0o644,
            data: b"text".to_vec(),
            owner: None,
            time: None,
        }),
    };
    let mut last = make("/missing/b", Some(0));
    last.output = Some(0);
    let actions = vec![make("/a", None), last];
    let vertex = add(&mut graph, Op::File(FileOp { actions }), Vec::new());
    let failure = fails(client, &graph, vertex).await;
    lines.push(format!("file {} {}", counts(&failure), failure["file"]["index"]));
    let request = ReadFileRequest {
        r#ref: failure["mountIDs"][1].as_str().unwrap().to_owned(),
        file_path: "/a".to_owned(),
        ..ReadFileRequest::default()
    };
    let read = client.read_file(request).await.unwrap().into_inner();
    lines.push(format!("file a {:?}", String::from_utf8(read.data).unwrap()));
}

/// A step that counts by the content of something that is not there.
async fn content(client: &mut Client, lines: &mut Vec<String>) {
    let mut graph = Graph::default();
    let root = add(&mut graph, local("busybox"), Vec::new());
    let mut of_root = Mount::new("/", MountKind::Bind);
    of_root.input = Some(0);
    of_root.output = Some(0);
    let mut part = Mount::new("/part", MountKind::Bind);
    part.input = Some(1);
    part.readonly = true;
    part.selector = "/not/there".to_owned();
    let exec = ExecOp {
        meta: ExecMeta {
            args: vec!["/bin/true".to_owned()],
            cwd: "/".to_owned(),
            ..ExecMeta::default()
        },
        mounts: vec![of_root, part],
        network: NetMode::None,
        security: SecurityMode::Sandbox,
        secret_env: Vec::new(),
        cdi_devices: Vec::new(),
    };
    let exec = Op::Exec(Box::new(exec));
    let step = add(&mut graph, exec, vec![root.clone(), root]);
    let failure = fails(client, &graph, step).await;
    lines.push(format!(
        "content {} {}",
        counts(&failure),
        failure["cache"]["index"]
    ));
}

fn local(name: &str) -> Op {
    Op::Source(SourceOp {
        identifier: format!("local://{name}"),
        attrs: std::collections::BTreeMap::new(),
    })
}

fn add(graph: &mut Graph, op: Op, inputs: Vec<Edge>) -> Edge {
    let vertex = graph.add(Vertex::new(op, inputs));
    Edge {
        vertex: vertex.unwrap(),
        output: 0,
    }
}

/// What is told of the failure of `target`.
async fn fails(client: &mut Client, graph: &Graph, target: Edge) -> serde_json::Value {
    let request = SolveRequest {
        definition: Some(rbuild_llb::encode(graph, &target).unwrap()),
        ..SolveRequest::default()
    };
    let solved = client.solve(request).await.unwrap().into_inner();
    let Some(result::Result::Ref(made)) = solved.result.unwrap().result else {
        unreachable!("one file system was asked for");
    };
    let evaluate = EvaluateRequest { r#ref: made.id };
    let failed = client.evaluate(evaluate).await.unwrap_err();
    let status = rpc::Status::decode(failed.details()).unwrap();
    let mut details = status.details.iter();
    let solve = details.find(|detail| detail.type_url.ends_with("errdefs.Solve+json"));
    serde_json::from_slice(&solve.unwrap_or_else(|| unreachable!("{failed:?}")).value).unwrap()
}

fn counts(failure: &serde_json::Value) -> String {
    let count = |name: &str| failure[name].as_array().map_or(0, Vec::len);
    format!(
        "{} inputs {} mounts, op {}",
        count("inputIDs"),
        count("mountIDs"),
        failure["op"].is_object()
    )
}
