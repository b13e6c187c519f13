//! What is said of results: by the server, of how they were made; by front ends, of whatever they like.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge as _;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    self as gateway, Attestation, AttestationKind, Attestations, Ref, ReturnRequest, result,
};
use bollard_buildkit_proto::moby::buildkit::v1::{Exporter, SolveRequest};
use prost::Message as _;
use rbuild_session::fake::FakeClient;
use serde_json::Value;
use tonic::{Code, Request, Status};

use crate::bench::{Bench, dockerfile};
use crate::builds::hello;

/// The files of a tar, by name.
fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        found.insert(entry.path().unwrap().display().to_string(), bytes);
    }
    found
}

fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().unwrap();
    &files[&format!("blobs/{}", digest.replace(':', "/"))]
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// An archive of one copied file, built with these attributes, and the index in it.
async fn described(attrs: &[(&str, &str)]) -> (BTreeMap<String, Vec<u8>>, Value) {
    let bench = Bench::new();
    let context = bench.files(
        "context",
        &[("Dockerfile", "FROM scratch\nCOPY a /b\n"), ("a", "text")],
    );
    let out = Arc::new(Mutex::new(Vec::new()));
    let _client = bench.client("s1", &context, &out).await;
    bench.solve(dockerfile("one", "s1", "oci", attrs)).await.unwrap();
    let files = files(&out.lock().unwrap());
    let index = json(blob(&files, &json(&files["index.json"])["manifests"][0]));
    (files, index)
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row41_an_image_says_how_it_was_made_and_no_password() {
    let attrs = [
        ("attest:provenance", "mode=max"),
        ("build-arg:A", "b"),
        ("vcs:source", "https://me:secretpw@host/repository"),
    ];
    let (files, index) = described(&attrs).await;
    let [image, attestation] = index["manifests"].as_array().unwrap().as_slice() else {
        panic!("an image and what is said of it, not {index}");
    };
    assert_eq!(attestation["platform"]["os"], "unknown");
    assert_eq!(
        attestation["annotations"]["vnd.docker.reference.digest"],
        image["digest"]
    );
    let manifest = json(blob(&files, attestation));
    assert_eq!(manifest["subject"]["digest"], image["digest"]);
    assert_eq!(blob(&files, &manifest["config"]), b"{}");
    let statement = json(blob(&files, &manifest["layers"][0]));
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let definition = &statement["predicate"]["buildDefinition"];
    let request = &definition["externalParameters"]["request"];
    assert_eq!(request["args"]["build-arg:A"], "b");
    let locals: Vec<&Value> = request["locals"].as_array().unwrap().iter().collect();
    assert_eq!(
        locals.len(),
        2,
        "the context and where the Dockerfile is: {locals:?}"
    );
    let metadata = &statement["predicate"]["runDetails"]["metadata"]["buildkit_metadata"];
    assert_eq!(metadata["vcs"]["source"], "https://xxxxx:xxxxx@host/repository");
    assert_eq!(metadata["source"]["infos"][0]["filename"], "Dockerfile");
    assert!(metadata["layers"]["step1:0"].is_array(), "{metadata}");
    for bytes in files.values() {
        assert!(!String::from_utf8_lossy(bytes).contains("secretpw"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_arguments_of_the_build_ask_for_attestations() {
    let attrs = [("build-arg:BUILDKIT_ATTEST_PROVENANCE", "mode=max,version=v0.2")];
    let (files, index) = described(&attrs).await;
    let statement = json(blob(
        &files,
        &json(blob(&files, &index["manifests"][1]))["layers"][0],
    ));
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v0.2");
    // It is an argument like any other, and told as one.
    let told = &statement["predicate"]["invocation"]["parameters"]["args"];
    assert_eq!(told[attrs[0].0], attrs[0].1, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_nothing_is_said_unless_it_is_asked_for() {
    let bench = Bench::new();
    let context = bench.files("context", &[("Dockerfile", "FROM scratch\nLABEL a=b\n")]);
    let out = Arc::new(Mutex::new(Vec::new()));
    let _client = bench.client("s1", &context, &out).await;
    for (id, attrs) in [
        ("none", &[][..]),
        ("off", &[("attest:provenance", "disabled=true")]),
        // Only for exporters of images, which an archive is not.
        ("inline", &[("attest:provenance", "mode=min,inline-only=true")]),
    ] {
        out.lock().unwrap().clear();
        bench.solve(dockerfile(id, "s1", "oci", attrs)).await.unwrap();
        let files = files(&out.lock().unwrap());
        let top = &json(&files["index.json"])["manifests"][0];
        assert_eq!(
            top["mediaType"], "application/vnd.oci.image.manifest.v1+json",
            "{id}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row48_attestations_that_cannot_be_are_refused_before_anything_is_built() {
    let bench = Bench::new();
    for (attrs, text) in [
        (("attest:provenance", "mode=much"), "invalid mode \"much\""),
        (
            ("attest:provenance", "version=v9"),
            "invalid provenance SLSA version: v9",
        ),
        (("attest:sbom", "generator="), "sbom generator cannot be empty"),
        (("attest:other", ""), "unknown attestation type \"other\""),
        (
            ("build-arg:BUILDKIT_ATTEST_OTHER", "1"),
            "unknown attestation type \"other\"",
        ),
        (
            ("build-arg:BUILDKIT_ATTEST_SBOM", "generator="),
            "sbom generator cannot be empty",
        ),
    ] {
        let refused = bench
            .solve(dockerfile("x", "none", "image", &[attrs]))
            .await
            .unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unknown, text));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_what_provenance_does_not_know_is_a_detail_of_the_error() {
    let bench = Bench::new();
    let context = bench.files(
        "context",
        &[("Dockerfile", "FROM scratch\nCOPY a /b\n"), ("a", "x")],
    );
    let _client = bench.client("s1", &context, &Arc::default()).await;
    let complete = ("attest:provenance", "mode=min,complete-materials=true");
    let refused = bench
        .solve(dockerfile("b", "s1", "oci", &[complete]))
        .await
        .unwrap_err();
    let status = bollard_buildkit_proto::google::rpc::Status::decode(refused.details()).unwrap();
    let name = "github.com/moby/buildkit/errdefs.ProvenanceMaterialsIncomplete+json";
    let detail = status.details.iter().find(|any| any.type_url == name);
    let told = json(&detail.expect("the detail").value);
    let local = &told["incomplete"][0];
    assert_eq!(
        (&local["name"], &local["reason"]),
        (&"context".into(), &"local_source".into())
    );
    assert!(
        refused.message().contains("provenance materials are incomplete"),
        "{refused}"
    );
}

fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let id = "gateway".parse().unwrap();
    request.metadata_mut().insert("buildkit-controlapi-buildid", id);
    request
}

async fn solved(bench: &Bench, text: &str) -> Ref {
    let request = gateway::SolveRequest {
        definition: Some(hello(text)),
        ..gateway::SolveRequest::default()
    };
    let answer = bench.bridge.solve(call(request)).await.unwrap().into_inner();
    match answer.result.unwrap().result {
        Some(result::Result::Ref(found)) => found,
        other => unreachable!("one ref was expected, not {other:?}"),
    }
}

/// A build whose front end returns a result and says `attestation` of it; where that is, is a file with `said` in it.
async fn attested(said: &str, attestation: Attestation) -> Result<BTreeMap<String, Vec<u8>>, Status> {
    let bench = Bench::new();
    let bench = &bench;
    let out = Arc::new(Mutex::new(Vec::new()));
    let client = FakeClient::new("s").output(0, &out);
    let _client = client.connect(&bench.core.sessions).await.unwrap();
    let request = SolveRequest {
        r#ref: "gateway".to_owned(),
        session: "s".to_owned(),
        exporters: vec![Exporter {
            r#type: "tar".to_owned(),
            attrs: HashMap::from([("attestation-prefix".to_owned(), "of.".to_owned())]),
        }],
        ..SolveRequest::default()
    };
    let front_end = async {
        let found = solved(bench, "result").await;
        let place = solved(bench, said).await;
        let attestation = Attestation {
            r#ref: attestation.r#ref.clone().or(Some(place)),
            ..attestation
        };
        let list = Attestations {
            attestation: vec![attestation],
        };
        let platform = rbuild_oci::Platform::host().to_string();
        let returned = ReturnRequest {
            result: Some(gateway::Result {
                attestations: HashMap::from([(platform, list)]),
                result: Some(result::Result::Ref(found)),
                ..gateway::Result::default()
            }),
            error: None,
        };
        bench.bridge.r#return(call(returned)).await.unwrap();
    };
    let (done, ()) = tokio::join!(bench.solve(request), front_end);
    done?;
    let written = out.lock().unwrap();
    Ok(files(&written))
}

fn file(predicate_type: &str) -> Attestation {
    Attestation {
        kind: AttestationKind::InToto.into(),
        path: "/hello".to_owned(),
        in_toto_predicate_type: predicate_type.to_owned(),
        ..Attestation::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_what_a_front_end_says_stands_beside_the_files() {
    let found = attested(r#"{"good":true}"#, file("https://example.test/v1"))
        .await
        .unwrap();
    assert_eq!(found["hello"], b"result", "the result is as it was");
    let statement = json(&found["of.hello"]);
    assert_eq!(statement["predicateType"], "https://example.test/v1");
    assert_eq!(statement["predicate"]["good"], true);
    assert_eq!(statement["subject"][0]["name"], "hello");
    let digest = rbuild_oci::Digest::sha256(b"result");
    assert_eq!(statement["subject"][0]["digest"]["sha256"], digest.hex());
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_what_a_front_end_may_not_say_is_refused() {
    let refused = |said: &'static str, attestation: Attestation| async move {
        attested(said, attestation)
            .await
            .unwrap_err()
            .message()
            .to_owned()
    };
    let provenance = refused("{}", file("https://slsa.dev/provenance/v1")).await;
    assert!(
        provenance.contains("frontend may not set provenance attestations"),
        "{provenance}"
    );
    let no_json = refused("{", file("t")).await;
    assert!(no_json.contains("failed to marshal attestation"), "{no_json}");
    let nameless = Attestation {
        path: String::new(),
        ..file("t")
    };
    assert!(
        refused("{}", nameless)
            .await
            .contains("attestation does not have set path")
    );
    let strange = Attestation { kind: 7, ..file("t") };
    assert!(
        refused("{}", strange)
            .await
            .contains("unknown attestation kind 7")
    );
    let of_another = Attestation {
        r#ref: Some(Ref {
            id: "not-given-out".to_owned(),
            def: None,
        }),
        ..file("t")
    };
    assert!(refused("{}", of_another).await.contains("no such ref"));
}
