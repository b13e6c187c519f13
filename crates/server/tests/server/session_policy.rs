//! Clients that decide on sources and exporters over their session.

use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    AttestationChain, ResolveSourceImageRequest, ResolveSourceMetaRequest,
};
use bollard_buildkit_proto::moby::buildkit::v1::{SolveRequest, SolveResponse};
use bollard_buildkit_proto::pb;
use rbuild_graph::{Edge, Graph, Op, SourceOp, Vertex};
use rbuild_oci::media_type::Family;
use rbuild_oci::{Descriptor, Index, Manifest, Platform};
use rbuild_session::fake::{FakeClient, SentNames};
use rbuild_session::policy::{CheckPolicyRequest, CheckPolicyResponse, Decision, DenyMessage, PolicyAnswer};
use rbuild_session::wire::{
    ExporterEntry, FinalizeExportRequest, FinalizeExportResponse, FindExportersRequest, FindExportersResponse,
};
use rbuild_testkit::registry::{ImageSpec, TestRegistry};
use tonic::Status;

use crate::bench::Bench;
use crate::builds::hello;

const CHECK: &str = "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy";

/// A definition of a client's directory.
fn local(name: &str) -> pb::Definition {
    source(format!("local://{name}"))
}

/// A definition of a source.
fn source(identifier: String) -> pb::Definition {
    let mut graph = Graph::default();
    let op = Op::Source(SourceOp {
        identifier,
        attrs: std::collections::BTreeMap::new(),
    });
    let vertex = graph.add(Vertex::new(op, Vec::new())).unwrap();
    rbuild_llb::encode(&graph, &Edge { vertex, output: 0 }).unwrap()
}

fn decision(action: i32, update: Option<&str>) -> CheckPolicyResponse {
    CheckPolicyResponse {
        result: Some(PolicyAnswer::Decision(Decision {
            action,
            deny_messages: vec![DenyMessage {
                message: "use another".to_owned(),
            }],
            update: update.map(|identifier| pb::SourceOp {
                identifier: identifier.to_owned(),
                ..pb::SourceOp::default()
            }),
        })),
    }
}

fn question(identifier: &str) -> CheckPolicyResponse {
    let source = pb::SourceOp {
        identifier: identifier.to_owned(),
        ..pb::SourceOp::default()
    };
    CheckPolicyResponse {
        result: Some(PolicyAnswer::Request(Box::new(ResolveSourceMetaRequest {
            source: Some(source),
            ..ResolveSourceMetaRequest::default()
        }))),
    }
}

/// Builds `local://a` for a client with the directories a and b that answers so; gives how often it was asked.
async fn judged(
    answer: impl Fn(&str) -> CheckPolicyResponse + Send + Sync + 'static,
) -> (Result<SolveResponse, Status>, usize) {
    let bench = Bench::new();
    let (a, b) = (bench.files("a", &[("x", "a")]), bench.files("b", &[("x", "b")]));
    let sent = SentNames::default();
    let asked = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&asked);
    let client = FakeClient::new("s")
        .directory("a", &a, &sent)
        .directory("b", &b, &sent)
        .unary(CHECK, move |_, question: CheckPolicyRequest| {
            *counter.lock().unwrap() += 1;
            Ok(answer(&question.source.unwrap().source.unwrap().identifier))
        });
    let _client = client.connect(&bench.core.sessions).await.unwrap();
    let request = SolveRequest {
        r#ref: "b".to_owned(),
        session: "s".to_owned(),
        source_policy_session: "s".to_owned(),
        definition: Some(local("a")),
        ..SolveRequest::default()
    };
    let done = bench.solve(request).await;
    let asked = *asked.lock().unwrap();
    (done, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row49_a_client_allows_denies_and_converts_its_sources() {
    let (done, asked) = judged(|_| decision(0, None)).await;
    done.unwrap();
    assert_eq!(asked, 1);
    let (done, _) = judged(|_| decision(1, None)).await;
    let denied = done.unwrap_err();
    assert!(
        denied.message().contains("not allowed by policy: action DENY"),
        "{denied}"
    );
    let details = String::from_utf8_lossy(denied.details()).into_owned();
    assert!(details.contains("policysession.DecisionResponse+json") && details.contains("use another"));
    // The other source is asked about too.
    let (done, asked) = judged(|id| match id {
        "local://a" => decision(2, Some("local://b")),
        _ => decision(0, None),
    })
    .await;
    done.unwrap();
    assert_eq!(asked, 2);
    let (done, asked) = judged(|_| question("local://a")).await;
    assert!(done.unwrap_err().message().contains("too many policy requests"));
    assert_eq!(asked, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_answers_that_are_none_end_the_build() {
    for (answer, expected) in [
        (
            question("local://b"),
            "policy requested different source identifier",
        ),
        (CheckPolicyResponse::default(), "no decision in policy response"),
        (decision(2, None), "convert action requires updated source"),
        (decision(77, None), "not allowed by policy"),
        (decision(2, Some("local://a")), "too many policy requests"),
    ] {
        let (done, _) = judged(move |_| answer.clone()).await;
        let error = done.unwrap_err();
        assert!(error.message().contains(expected), "{error}");
    }
}

const PREDICATE: &str = "in-toto.io/predicate-type";

/// An image with two statements about it; gives its digest, the manifest's of the statements, and that of the first.
fn put_attested(registry: &TestRegistry) -> [String; 3] {
    let put = registry.put_image("attested", "plain", &ImageSpec::default());
    let statement = |kind: &str| {
        let bytes = format!("{{\"predicateType\":\"{kind}\"}}").into_bytes();
        registry.put_blob("attested", &bytes);
        let mut layer = Descriptor::of("application/vnd.in-toto+json", &bytes);
        layer.annotations.insert(PREDICATE.to_owned(), kind.to_owned());
        layer
    };
    let statements = vec![statement("wanted"), statement("other")];
    let first = statements[0].digest.to_string();
    registry.put_blob("attested", b"{}");
    let config = Descriptor::of(Family::Oci.config(), b"{}");
    let manifest = Manifest::new(Family::Oci.manifest(), config, statements).to_bytes();
    let mut about = registry.put_manifest("attested", "said", Family::Oci.manifest(), &manifest);
    about.platform = Some(Platform {
        os: "unknown".to_owned(),
        architecture: "unknown".to_owned(),
        ..Platform::host()
    });
    for (key, value) in [
        ("vnd.docker.reference.type", "attestation-manifest".to_owned()),
        ("vnd.docker.reference.digest", put.descriptor.digest.to_string()),
    ] {
        about.annotations.insert(key.to_owned(), value);
    }
    let mut image = put.descriptor.clone();
    image.platform = Some(Platform::host());
    let said = about.digest.to_string();
    let index = Index::new(Family::Oci.index(), vec![image, about]);
    registry.put_manifest("attested", "1", Family::Oci.index(), &index.to_bytes());
    [put.descriptor.digest.to_string(), said, first]
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_client_sees_what_is_attested_of_an_image_before_it_decides() {
    let bench = Bench::new();
    let registry = TestRegistry::start();
    let [image, said, statement] = put_attested(&registry);
    let name = format!("docker-image://{}", registry.reference("attested:1"));
    let known: Arc<Mutex<Vec<Option<AttestationChain>>>> = Arc::default();
    let heard = Arc::clone(&known);
    let client = FakeClient::new("s").unary(CHECK, move |_, question: CheckPolicyRequest| {
        let asked = question.source.unwrap();
        let mut known = heard.lock().unwrap();
        known.push(asked.image.and_then(|image| image.attestation_chain));
        if known.len() > 1 {
            return Ok(decision(0, None));
        }
        let request = ResolveSourceMetaRequest {
            source: asked.source,
            platform: question.platform,
            image: Some(ResolveSourceImageRequest {
                no_config: true,
                resolve_attestations: vec!["wanted".to_owned()],
                ..ResolveSourceImageRequest::default()
            }),
            ..ResolveSourceMetaRequest::default()
        };
        Ok(CheckPolicyResponse {
            result: Some(PolicyAnswer::Request(Box::new(request))),
        })
    });
    let _client = client.connect(&bench.core.sessions).await.unwrap();
    let request = SolveRequest {
        r#ref: "b".to_owned(),
        session: "s".to_owned(),
        source_policy_session: "s".to_owned(),
        definition: Some(source(name)),
        ..SolveRequest::default()
    };
    bench.solve(request).await.unwrap();
    let known = known.lock().unwrap();
    let [None, Some(chain)] = known.as_slice() else {
        panic!("it is asked before anything is known, and then once more: {known:?}");
    };
    assert_eq!(
        (&chain.image_manifest, &chain.attestation_manifest),
        (&image, &said)
    );
    // The index, the manifest of the statements, and the statement that was asked for.
    assert_eq!(chain.blobs.len(), 3, "{:?}", chain.blobs.keys());
    assert_eq!(chain.blobs[&statement].data, b"{\"predicateType\":\"wanted\"}");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_client_chooses_exporters_and_has_the_last_word() {
    let bench = Bench::new();
    let build = async |id: &str, finalize: Result<(), Status>| {
        let out = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&told);
        let client = FakeClient::new(id)
            .output(0, &out)
            .unary(
                "/moby.exporter.v1.Exporter/FindExporters",
                |_, q: FindExportersRequest| {
                    assert_eq!(q.refs.len(), 1);
                    let entry = ExporterEntry {
                        kind: "oci".to_owned(),
                        ..ExporterEntry::default()
                    };
                    Ok(FindExportersResponse {
                        exporters: vec![entry],
                    })
                },
            )
            .unary(
                "/moby.exporter.v1.Exporter/FinalizeExport",
                move |_, q: FinalizeExportRequest| {
                    let digest = q.exporter_response["containerimage.digest"].clone();
                    *heard.lock().unwrap() = digest;
                    finalize.clone().map(|()| FinalizeExportResponse {})
                },
            );
        let _client = client.connect(&bench.core.sessions).await.unwrap();
        let request = SolveRequest {
            r#ref: id.to_owned(),
            session: id.to_owned(),
            enable_session_exporter: true,
            definition: Some(hello("x")),
            ..SolveRequest::default()
        };
        let done = bench.solve(request).await;
        let (told, empty) = (told.lock().unwrap().clone(), out.lock().unwrap().is_empty());
        assert!(told.starts_with("sha256:") && !empty);
        done
    };
    build("fine", Ok(())).await.unwrap();
    build("gone", Err(Status::unavailable("x"))).await.unwrap();
    let refused = build("no", Err(Status::unknown("it did not fit")))
        .await
        .unwrap_err();
    assert!(refused.message().contains("it did not fit"), "{refused}");
}
