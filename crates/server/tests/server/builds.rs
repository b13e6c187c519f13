//! What clients get: results, progress, history; from the built-in front end, definitions, and front ends of theirs.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::moby::buildkit::v1::control_server::Control as _;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge as _;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    self as gateway, PingRequest, ReadFileRequest, ReturnRequest, StatFileRequest, result,
};
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryRequest, DiskUsageRequest, Exporter, ListWorkersRequest, PruneRequest, SolveRequest,
    UpdateBuildHistoryRequest,
};
use bollard_buildkit_proto::pb;
use futures_util::StreamExt as _;
use rbuild_graph::{Edge, FileAction, FileActionKind, FileOp, Graph, MkFileAction, Op, Vertex, VertexMeta};
use rbuild_server::newer::Newer;
use rbuild_session::fake::{FakeClient, ReceivedTree};
use tonic::Request;

use crate::bench::{Bench, dockerfile};

/// The files of a tar, by name.
pub(crate) fn files(tar: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(tar);
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        found.insert(entry.path().unwrap().display().to_string(), text);
    }
    found
}

/// A definition of one file, `/hello`.
pub(crate) fn hello(text: &str) -> pb::Definition {
    let mut graph = Graph::default();
    let action = FileAction {
        input: None,
        secondary_input: None,
        output: Some(0),
        kind: FileActionKind::MkFile(MkFileAction {
            path: "/hello".to_owned(),
            mode: 0o644,
            data: text.as_bytes().to_vec(),
            owner: None,
            time: None,
        }),
    };
    let vertex = graph
        .add(Vertex {
            op: Op::File(FileOp {
                actions: vec![action],
            }),
            inputs: Vec::new(),
            platform: None,
            constraints: Vec::new(),
            meta: VertexMeta {
                name: "make hello".to_owned(),
                ..VertexMeta::default()
            },
        })
        .unwrap();
    rbuild_llb::encode(&graph, &Edge { vertex, output: 0 }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_dockerfile_is_built_and_its_tree_streamed_back() {
    let bench = Bench::new();
    let context = bench.files(
        "context",
        &[
            ("Dockerfile", "FROM scratch\nCOPY a /b\n"),
            ("a", "text"),
            ("other", "x"),
        ],
    );
    let out = Arc::new(Mutex::new(Vec::new()));
    let _client = bench.client("s1", &context, &out).await;
    // As real clients do, progress is asked for before there is any.
    let (response, status) = tokio::join!(
        bench.solve(dockerfile("one", "s1", "tar", &[])),
        bench.status("one"),
    );
    response.unwrap();
    assert_eq!(
        files(&out.lock().unwrap()),
        BTreeMap::from([("b".to_owned(), "text".to_owned())])
    );
    let names: Vec<String> = status
        .unwrap()
        .iter()
        .flat_map(|part| part.vertexes.iter().map(|vertex| vertex.name.clone()))
        .collect();
    for name in [
        "[internal] load build definition from Dockerfile",
        "[1/1] COPY a /b",
    ] {
        assert!(
            names.iter().any(|found| found == name),
            "{name} is not in {names:?}"
        );
    }
    let again = bench.status("one").await.unwrap();
    assert!(!again.is_empty(), "a build that is over still tells what it said");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_second_build_fetches_and_runs_nothing() {
    let bench = Bench::new();
    let context = bench.files(
        "context",
        &[("Dockerfile", "FROM scratch\nCOPY a /b\n"), ("a", "text")],
    );
    let out = Arc::new(Mutex::new(Vec::new()));
    let _client = bench.client("s1", &context, &out).await;
    bench.solve(dockerfile("one", "s1", "tar", &[])).await.unwrap();
    bench.solve(dockerfile("two", "s1", "tar", &[])).await.unwrap();
    let cached: Vec<String> = bench
        .status("two")
        .await
        .unwrap()
        .into_iter()
        .flat_map(|part| part.vertexes)
        .filter(|vertex| vertex.cached)
        .map(|vertex| vertex.name)
        .collect();
    assert!(cached.contains(&"[1/1] COPY a /b".to_owned()), "{cached:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_definition_is_solved_into_a_directory_of_the_client() {
    let bench = Bench::new();
    let tree = Arc::new(Mutex::new(ReceivedTree::default()));
    let client = FakeClient::new("s").output_tree(0, &tree);
    let _client = client.connect(&bench.core.sessions).await.unwrap();
    let request = SolveRequest {
        r#ref: "llb".to_owned(),
        session: "s".to_owned(),
        definition: Some(hello("from llb")),
        exporters: vec![Exporter {
            r#type: "local".to_owned(),
            ..Exporter::default()
        }],
        ..SolveRequest::default()
    };
    bench.solve(request).await.unwrap();
    let tree = tree.lock().unwrap();
    assert_eq!(tree.content[std::path::Path::new("hello")], b"from llb");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_front_end_of_the_client_builds_reads_and_returns() {
    let bench = Bench::new();
    let out = Arc::new(Mutex::new(Vec::new()));
    let client = FakeClient::new("s").output(0, &out);
    let _client = client.connect(&bench.core.sessions).await.unwrap();
    let request = SolveRequest {
        r#ref: "gateway".to_owned(),
        session: "s".to_owned(),
        exporters: vec![Exporter {
            r#type: "tar".to_owned(),
            ..Exporter::default()
        }],
        ..SolveRequest::default()
    };
    let front_end = async {
        let call = |_: ()| {
            let mut request = Request::new(());
            let id = "gateway".parse().unwrap();
            request.metadata_mut().insert("buildkit-controlapi-buildid", id);
            request
        };
        let with = |request: Request<()>| request.into_parts().0;
        let ping = Request::from_parts(with(call(())), tonic::Extensions::default(), PingRequest {});
        let pong = bench.bridge.ping(ping).await.unwrap().into_inner();
        assert!(pong.llb_caps.iter().any(|cap| cap.id == "file.base"));
        let solve = gateway::SolveRequest {
            definition: Some(hello("of the gateway")),
            ..gateway::SolveRequest::default()
        };
        let solve = Request::from_parts(with(call(())), tonic::Extensions::default(), solve);
        let solved = bench
            .bridge
            .solve(solve)
            .await
            .unwrap()
            .into_inner()
            .result
            .unwrap();
        let Some(result::Result::Ref(found)) = solved.result.clone() else {
            panic!("one ref was expected, not {solved:?}");
        };
        assert!(found.def.is_some(), "clients go on from definitions");
        let read = ReadFileRequest {
            r#ref: found.id.clone(),
            file_path: "/hello".to_owned(),
            ..ReadFileRequest::default()
        };
        let read = Request::from_parts(with(call(())), tonic::Extensions::default(), read);
        let data = bench.bridge.read_file(read).await.unwrap().into_inner().data;
        assert_eq!(data, b"of the gateway");
        let stat = StatFileRequest {
            r#ref: found.id,
            path: "/absent".to_owned(),
            ..StatFileRequest::default()
        };
        let stat = Request::from_parts(with(call(())), tonic::Extensions::default(), stat);
        let missing = bench.bridge.stat_file(stat).await.unwrap_err();
        assert!(missing.message().contains("no such file"), "{missing}");
        let back = ReturnRequest {
            result: Some(solved),
            error: None,
        };
        let back = Request::from_parts(with(call(())), tonic::Extensions::default(), back);
        bench.bridge.r#return(back).await.unwrap();
    };
    let (done, ()) = tokio::join!(bench.solve(request), front_end);
    done.unwrap();
    assert_eq!(files(&out.lock().unwrap())["hello"], "of the gateway");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_history_and_cache_are_listed_and_cleared() {
    let bench = Bench::new();
    let request = SolveRequest {
        r#ref: "kept".to_owned(),
        session: "none".to_owned(),
        definition: Some(hello("x")),
        ..SolveRequest::default()
    };
    bench.solve(request).await.unwrap();
    let list = || async {
        let request = BuildHistoryRequest {
            early_exit: true,
            ..BuildHistoryRequest::default()
        };
        let stream = bench
            .control
            .listen_build_history(Request::new(request))
            .await
            .unwrap();
        stream
            .into_inner()
            .map(|event| event.unwrap().record.unwrap().r#ref)
            .collect::<Vec<_>>()
            .await
    };
    assert_eq!(list().await, ["kept"]);
    let delete = UpdateBuildHistoryRequest {
        r#ref: "kept".to_owned(),
        delete: true,
        ..UpdateBuildHistoryRequest::default()
    };
    bench
        .control
        .update_build_history(Request::new(delete))
        .await
        .unwrap();
    assert!(list().await.is_empty());
    let prune = PruneRequest {
        all: true,
        ..PruneRequest::default()
    };
    bench
        .control
        .prune(Request::new(prune))
        .await
        .unwrap()
        .into_inner()
        .collect::<Vec<_>>()
        .await;
    let usage = bench
        .control
        .disk_usage(Request::new(DiskUsageRequest::default()))
        .await
        .unwrap();
    assert!(usage.into_inner().record.is_empty());
    let workers = bench
        .control
        .list_workers(Request::new(ListWorkersRequest::default()))
        .await
        .unwrap();
    assert_eq!(workers.into_inner().record[0].platforms[0].os, "linux");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_another_version_are_refused_and_not_made_all_the_same() {
    let bench = Bench::new();
    for (version, told) in [
        (10, "compatibility-version 10 is not served"),
        (20, "compatibility-version 20 is not served"),
        (31, "unsupported compatibility-version 31: upgrade buildkit"),
        (-1, "unsupported compatibility-version -1"),
    ] {
        let mut request = Request::new(dockerfile("of-another", "none", "tar", &[]));
        request.extensions_mut().insert(Newer {
            compatibility_version: version,
            ..Newer::default()
        });
        let refused = bench.control.solve(request).await.unwrap_err();
        assert!(refused.message().contains(told), "{refused:?}");
    }
}
