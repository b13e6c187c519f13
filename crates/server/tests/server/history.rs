//! What is kept of builds, and how clients read it: records over Control, blobs over the Content service, to the byte.

use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::moby::buildkit::v1::control_server::Control as _;
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryRecord, BuildHistoryRequest, Exporter, SolveRequest, UpdateBuildHistoryRequest,
};
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use prost::Message;
use rbuild_server::content::ContentService;
use rbuild_session::fake::FakeClient;
use rbuild_session::wire::{
    InfoRequest, InfoResponse, ListContentRequest, ListContentResponse, ReadContentRequest,
    ReadContentResponse,
};
use tonic::{Code, Request};
use tower_service::Service as _;

use crate::bench::Bench;
use crate::builds::hello;

async fn records(bench: &Bench) -> Vec<BuildHistoryRecord> {
    let request = BuildHistoryRequest {
        early_exit: true,
        ..BuildHistoryRequest::default()
    };
    let stream = bench.control.listen_build_history(Request::new(request)).await;
    let stream = stream.unwrap().into_inner();
    stream.map(|event| event.unwrap().record.unwrap()).collect().await
}

/// Calls a method of the Content service as it comes over a connection: its code, and its messages.
async fn call<A: Message + Default>(bench: &Bench, method: &str, question: &impl Message) -> (Code, Vec<A>) {
    let mut frame = vec![0];
    frame.extend(u32::try_from(question.encoded_len()).unwrap().to_be_bytes());
    frame.extend(question.encode_to_vec());
    let request = http::Request::post(format!("/containerd.services.content.v1.Content/{method}"))
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(http_body_util::Full::new(frame.into())))
        .unwrap();
    let mut service = ContentService::new(bench.core.history.clone());
    let response = service.call(request).await.unwrap();
    let status = |headers: &http::HeaderMap| {
        let status = headers.get("grpc-status")?.to_str().ok()?;
        status.parse::<i32>().ok()
    };
    let at_once = status(response.headers());
    let body = response.into_body().collect().await.unwrap();
    let later = body.trailers().and_then(status);
    let bytes = body.to_bytes();
    let mut rest = &bytes[..];
    let mut answers = Vec::new();
    while !rest.is_empty() {
        let size = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        answers.push(A::decode(&rest[5..5 + size]).unwrap());
        rest = &rest[5 + size..];
    }
    (Code::from_i32(at_once.or(later).unwrap()), answers)
}

/// Clients name a build by these when they list them (`util/history/name.go` of buildx).
#[tokio::test]
async fn privileged_what_a_client_calls_a_build_stands_in_its_record() {
    let bench = Bench::new();
    let attrs = [
        ("build-arg:BUILDKIT_BUILD_NAME", "nightly"),
        ("vcs:localdir:context", "sub"),
        ("vcs:source", "https://example.invalid/r.git"),
    ];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let request = SolveRequest {
        r#ref: "named".to_owned(),
        session: "none".to_owned(),
        definition: Some(hello("x")),
        frontend_attrs: attrs.map(owned).into(),
        ..SolveRequest::default()
    };
    bench.solve(request).await.unwrap();
    let records = records(&bench).await;
    let [record] = records.as_slice() else {
        panic!("one build, not {records:?}");
    };
    for (key, value) in attrs {
        assert_eq!(record.frontend_attrs.get(key).map(String::as_str), Some(value));
    }
}

async fn read(bench: &Bench, digest: &str, offset: i64, size: i64) -> (Code, Vec<u8>) {
    let question = ReadContentRequest {
        digest: digest.to_owned(),
        offset,
        size,
    };
    let (code, answers) = call::<ReadContentResponse>(bench, "Read", &question).await;
    (
        code,
        answers.iter().flat_map(|answer| answer.data.to_vec()).collect(),
    )
}

async fn listed(bench: &Bench, filters: &[&str]) -> Vec<String> {
    let question = ListContentRequest {
        filters: filters.iter().map(|text| (*text).to_owned()).collect(),
    };
    let (code, answers) = call::<ListContentResponse>(bench, "List", &question).await;
    assert_eq!(code, Code::Ok);
    let infos = answers.into_iter().flat_map(|answer| answer.info);
    infos.map(|info| info.digest).collect()
}

/// An image was built and given to the client as an archive.
async fn image(bench: &Bench) -> BuildHistoryRecord {
    let out = Arc::new(Mutex::new(Vec::new()));
    let client = FakeClient::new("s").output(0, &out);
    let _client = client.connect(&bench.core.sessions).await.unwrap();
    let request = SolveRequest {
        r#ref: "image".to_owned(),
        session: "s".to_owned(),
        definition: Some(hello("text")),
        exporters: vec![Exporter {
            r#type: "oci".to_owned(),
            ..Exporter::default()
        }],
        ..SolveRequest::default()
    };
    bench.solve(request).await.unwrap();
    let mut records = records(bench).await;
    records.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_an_images_documents_are_read_by_the_digests_of_its_record() {
    let bench = Bench::new();
    let record = image(&bench).await;
    let result = record.result.unwrap();
    let made = &result.results[&0];
    assert_eq!(result.result_deprecated.as_ref(), Some(made));
    let (code, bytes) = read(&bench, &made.digest, 0, 0).await;
    assert_eq!((code, bytes.len() as i64), (Code::Ok, made.size));
    let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let info = InfoRequest {
        digest: config.to_owned(),
    };
    let (code, answers) = call::<InfoResponse>(&bench, "Info", &info).await;
    let info = answers[0].info.clone().unwrap();
    assert_eq!(
        (code, info.size),
        (Code::Ok, manifest["config"]["size"].as_i64().unwrap())
    );
    assert!(info.created_at.is_some());
    let kept = listed(&bench, &[]).await;
    let (logs, trace) = (record.logs.unwrap().digest, record.trace.unwrap().digest);
    for digest in [config, &made.digest, &logs, &trace] {
        assert!(kept.contains(&digest.to_owned()), "{digest}");
    }
    assert!(!kept.contains(&layer.to_owned()), "layers are the cache's");
    assert_eq!(listed(&bench, &[&format!("digest=={config}")]).await, [config]);
    let delete = UpdateBuildHistoryRequest {
        r#ref: "image".to_owned(),
        delete: true,
        ..UpdateBuildHistoryRequest::default()
    };
    bench
        .control
        .update_build_history(Request::new(delete))
        .await
        .unwrap();
    assert!(listed(&bench, &[]).await.is_empty());
    assert!(
        bench.status("image").await.is_err(),
        "what it said is gone with it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_content_is_read_within_its_bounds_and_never_written() {
    let bench = Bench::new();
    let digest = image(&bench).await.trace.unwrap().digest;
    let (_, whole) = read(&bench, &digest, 0, 0).await;
    let size = whole.len() as i64;
    assert_eq!(
        read(&bench, &digest, 2, 3).await,
        (Code::Ok, whole[2..5].to_vec())
    );
    for (offset, size) in [(0, i64::MAX), (-5, 0), (0, -1), (0, size)] {
        assert_eq!(
            read(&bench, &digest, offset, size).await,
            (Code::Ok, whole.clone())
        );
    }
    assert_eq!(read(&bench, &digest, size, 0).await, (Code::Ok, Vec::new()));
    for offset in [size + 1, i64::MAX] {
        assert_eq!(read(&bench, &digest, offset, 1).await.0, Code::OutOfRange);
    }
    for (bad, expected) in [
        ("", Code::InvalidArgument),
        ("sha256:../../../../etc/passwd", Code::InvalidArgument),
        ("sha256-abc", Code::InvalidArgument),
        (&format!("sha256:{}", "0".repeat(64)), Code::NotFound),
    ] {
        assert_eq!(read(&bench, bad, 0, 0).await.0, expected, "{bad}");
    }
    let filters = ListContentRequest {
        filters: vec!["digest=x".to_owned()],
    };
    let (code, _) = call::<ListContentResponse>(&bench, "List", &filters).await;
    assert_eq!(code, Code::InvalidArgument);
    for method in ["Write", "Delete", "Update", "Abort", "Status", "Nonsense"] {
        let (code, _) = call::<InfoResponse>(&bench, method, &InfoRequest::default()).await;
        assert_eq!(code, Code::Unimplemented, "{method}");
    }
    assert_eq!(
        read(&bench, &digest, 0, 0).await,
        (Code::Ok, whole),
        "nothing changed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_what_a_build_said_is_said_again_when_it_is_over() {
    let bench = Bench::new();
    let request = |id: &str| SolveRequest {
        r#ref: id.to_owned(),
        session: "none".to_owned(),
        definition: Some(hello("x")),
        ..SolveRequest::default()
    };
    let (done, live) = tokio::join!(bench.solve(request("one")), bench.status("one"));
    done.unwrap();
    let names = |said: Vec<bollard_buildkit_proto::moby::buildkit::v1::StatusResponse>| {
        let vertexes = said.into_iter().flat_map(|response| response.vertexes);
        vertexes
            .map(|vertex| vertex.name)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let live = names(live.unwrap());
    assert!(!live.is_empty());
    assert_eq!(names(bench.status("one").await.unwrap()), live);
    let record = records(&bench).await.remove(0);
    assert_eq!((record.num_total_steps, record.num_completed_steps), (1, 1));
    assert!(record.completed_at.is_some() && record.error.is_none());
}
