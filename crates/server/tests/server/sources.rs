//! What front ends of clients learn of sources, and what becomes of the time a front end answers with.

use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge as _;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    self as gateway, ResolveSourceMetaRequest, ResolveSourceMetaResponse, ReturnRequest, result,
};
use bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy::{
    Policy, PolicyAction, Rule, Selector, Update,
};
use bollard_buildkit_proto::moby::buildkit::v1::{Exporter, SolveRequest};
use bollard_buildkit_proto::pb;
use rbuild_session::fake::FakeClient;
use rbuild_testkit::web::{Page, WebServer};
use tonic::{Request, Status};

use crate::bench::Bench;
use crate::builds::hello;

const ID: &str = "gateway";

fn of_build<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let id = ID.parse().unwrap();
    request.metadata_mut().insert("buildkit-controlapi-buildid", id);
    request
}

/// Runs `front_end` as the front end of a build and gives the build's response.
async fn with_front_end(
    bench: &Bench,
    exporters: Vec<Exporter>,
    front_end: impl Future<Output = gateway::Result>,
) -> Result<(), Status> {
    let request = SolveRequest {
        r#ref: ID.to_owned(),
        session: "s".to_owned(),
        exporters,
        ..SolveRequest::default()
    };
    let front_end = async {
        let back = ReturnRequest {
            result: Some(front_end.await),
            error: None,
        };
        bench.bridge.r#return(of_build(back)).await.unwrap();
    };
    let (done, ()) = tokio::join!(bench.solve(request), front_end);
    done.map(drop)
}

async fn ask(
    bench: &Bench,
    identifier: &str,
    change: impl FnOnce(&mut ResolveSourceMetaRequest),
) -> Result<ResolveSourceMetaResponse, Status> {
    let mut request = ResolveSourceMetaRequest {
        source: Some(pb::SourceOp {
            identifier: identifier.to_owned(),
            ..pb::SourceOp::default()
        }),
        ..ResolveSourceMetaRequest::default()
    };
    change(&mut request);
    let answer = bench.bridge.resolve_source_meta(of_build(request)).await;
    answer.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_files_behind_urls_are_described() {
    let bench = Bench::new();
    let server = WebServer::start();
    server.put(
        "/f",
        Page::of("content").header("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT"),
    );
    let front_end = async {
        let file = ask(&bench, &server.url("/f"), |_| {})
            .await
            .unwrap()
            .http
            .unwrap();
        assert_eq!(file.checksum, rbuild_oci::Digest::sha256(b"content").to_string());
        assert_eq!(file.filename, "f");
        assert_eq!(file.last_modified.map(|time| time.seconds), Some(1_700_000_000));
        let gone = ask(&bench, &server.url("/gone"), |_| {}).await.unwrap_err();
        assert!(gone.message().contains("404"), "{gone:?}");
        gateway::Result::default()
    };
    with_front_end(&bench, Vec::new(), front_end).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_policies_decide_before_anything_is_asked() {
    let bench = Bench::new();
    let server = WebServer::start();
    server.put("/f", Page::of("content"));
    let policy = |action: PolicyAction, to: Option<String>| Policy {
        version: 1,
        rules: vec![Rule {
            action: action.into(),
            selector: Some(Selector {
                identifier: server.url("/asked"),
                ..Selector::default()
            }),
            updates: to.map(|identifier| Update {
                identifier,
                ..Update::default()
            }),
        }],
    };
    let front_end = async {
        let asked = server.url("/asked");
        let denied = ask(&bench, &asked, |request| {
            request.source_policies = vec![policy(PolicyAction::Deny, None)];
        });
        let denied = denied.await.unwrap_err();
        assert!(denied.message().contains("source denied by policy"), "{denied:?}");
        assert!(server.asked().is_empty());
        let converted = ask(&bench, &asked, |request| {
            request.source_policies = vec![policy(PolicyAction::Convert, Some(server.url("/f")))];
        });
        let converted = converted.await.unwrap();
        assert_eq!(converted.source.unwrap().identifier, server.url("/f"));
        assert!(converted.http.is_some());
        let nothing = bench
            .bridge
            .resolve_source_meta(of_build(ResolveSourceMetaRequest::default()))
            .await;
        assert_eq!(nothing.unwrap_err().message(), "source is required");
        let local = ask(&bench, "local://context", |_| {}).await.unwrap();
        assert!(local.git.is_none() && local.http.is_none() && local.image.is_none());
        gateway::Result::default()
    };
    with_front_end(&bench, Vec::new(), front_end).await.unwrap();
}

/// What a build whose front end answers with `metadata` says of the time of its image.
async fn created(metadata: &[(&str, &str)]) -> Result<String, Status> {
    let bench = Bench::new();
    let out = Arc::new(Mutex::new(Vec::new()));
    let client = FakeClient::new("s").output(0, &out);
    let _client = client.connect(&bench.core.sessions).await.unwrap();
    let oci = Exporter {
        r#type: "oci".to_owned(),
        ..Exporter::default()
    };
    let front_end = async {
        let solve = gateway::SolveRequest {
            definition: Some(hello("x")),
            ..gateway::SolveRequest::default()
        };
        let solved = bench.bridge.solve(of_build(solve)).await.unwrap().into_inner();
        let mut solved = solved.result.unwrap();
        assert!(matches!(solved.result, Some(result::Result::Ref(_))));
        for (key, value) in metadata {
            let value = value.as_bytes().to_vec();
            solved.metadata.insert((*key).to_owned(), value);
        }
        solved
    };
    with_front_end(&bench, vec![oci], front_end).await?;
    let out = out.lock().unwrap();
    let mut archive = tar::Archive::new(out.as_slice());
    let index = archive
        .entries()
        .unwrap()
        .map(Result::unwrap)
        .find(|entry| entry.path().unwrap().as_os_str() == "index.json");
    let index: serde_json::Value = serde_json::from_reader(index.unwrap()).unwrap();
    let created = &index["manifests"][0]["annotations"]["org.opencontainers.image.created"];
    Ok(created.as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_front_ends_time_is_the_images() {
    const PLATFORMS: &str =
        r#"{"Platforms":[{"ID":"linux/amd64","Platform":{"os":"linux","architecture":"amd64"}}]}"#;
    let expected = "2023-11-14T22:13:20Z";
    let said = [("source.date.epoch", "1700000000")];
    assert_eq!(created(&said).await.unwrap(), expected);
    let refused = created(&[("source.date.epoch", "soon")]).await.unwrap_err();
    assert_eq!(
        refused.message(),
        "invalid SOURCE_DATE_EPOCH from frontend: \"soon\""
    );
    let of_platform = [
        ("source.date.epoch/linux/amd64", "1700000000"),
        ("refs.platforms", PLATFORMS),
    ];
    assert_eq!(created(&of_platform).await.unwrap(), expected);
    for unset in [
        &[("source.date.epoch", "")][..],
        &[("source.date.epoch/linux/arm64", "1700000000")],
    ] {
        assert_ne!(created(unset).await.unwrap(), expected, "{unset:?}");
    }
}
