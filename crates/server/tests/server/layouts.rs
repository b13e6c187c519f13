//! Image layouts in a content store of the client (`tar=false`).

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use bollard_buildkit_proto::moby::buildkit::v1::{SolveRequest, SolveResponse};
use rbuild_oci::Digest;
use rbuild_session::fake::{Dialogue, FakeClient, FakeConnection, SentNames};
use rbuild_session::wire::{WriteAction, WriteContentRequest, WriteContentResponse};
use serde_json::Value;
use tonic::Status;

use crate::bench::{Bench, dockerfile};

const WRITE: &str = "/containerd.services.content.v1.Content/Write";

/// Blobs by digest, in the order in which they were whole.
type Blobs = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A store called `export` that takes each blob once.
fn with_store(client: FakeClient, blobs: &Blobs) -> FakeClient {
    let blobs = Arc::clone(blobs);
    client.script(
        WRITE,
        move |mut talk: Dialogue<WriteContentRequest, WriteContentResponse>| {
            let blobs = Arc::clone(&blobs);
            async move {
                if talk.header("buildkit-attachable-store-id") != "export" {
                    return Err(Status::not_found("no such store"));
                }
                let mut bytes = Vec::new();
                while let Some(question) = talk.next().await? {
                    let known = || {
                        blobs
                            .lock()
                            .unwrap()
                            .iter()
                            .any(|(name, _)| *name == question.expected)
                    };
                    if known() {
                        return Err(Status::already_exists("it is here"));
                    }
                    bytes.extend_from_slice(&question.data);
                    let answer = WriteContentResponse {
                        action: question.action,
                        offset: i64::try_from(bytes.len()).unwrap(),
                        ..WriteContentResponse::default()
                    };
                    if question.action == i32::from(WriteAction::Commit) {
                        blobs.lock().unwrap().push((question.expected, bytes));
                        return talk.say(answer).await;
                    }
                    talk.say(answer).await?;
                }
                Ok(())
            }
        },
    )
}

async fn connect(bench: &Bench, id: &str, blobs: Option<&Blobs>) -> FakeConnection {
    let context = bench.files(
        "context",
        &[
            ("Dockerfile", "FROM scratch\nCOPY a /b\nCOPY a /c\n"),
            ("a", "text"),
        ],
    );
    let sent = SentNames::default();
    let client = FakeClient::new(id)
        .directory("context", &context, &sent)
        .directory("dockerfile", &context, &sent);
    let client = match blobs {
        Some(blobs) => with_store(client, blobs),
        None => client,
    };
    client.connect(&bench.core.sessions).await.unwrap()
}

fn request(id: &str, session: &str, kind: &str) -> SolveRequest {
    let mut request = dockerfile(
        id,
        session,
        kind,
        &[("build-arg:SOURCE_DATE_EPOCH", "1700000000")],
    );
    let attrs = [("tar", "false"), ("name", "docker.io/library/one:1,two")];
    let attrs = attrs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    request.exporters[0].attrs = attrs.into_iter().collect();
    request
}

fn descriptor(response: &SolveResponse) -> Value {
    let text = &response.exporter_response["containerimage.descriptor"];
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_layout_goes_into_the_clients_store_blob_by_blob() {
    let bench = Bench::new();
    for kind in ["oci", "docker"] {
        let blobs = Blobs::default();
        let _client = connect(&bench, kind, Some(&blobs)).await;
        let response = bench
            .solve(request(&format!("build {kind}"), kind, kind))
            .await
            .unwrap();
        assert_eq!(
            response.exporter_response["image.name"],
            "docker.io/library/one:1,docker.io/library/two:latest"
        );
        let described = descriptor(&response);
        let blobs = blobs.lock().unwrap();
        for (digest, bytes) in blobs.iter() {
            assert_eq!(*digest, Digest::sha256(bytes).to_string());
        }
        let (last, bytes) = blobs.last().unwrap();
        assert_eq!(described["digest"], last.as_str(), "the manifest comes last");
        assert_eq!(described["size"], bytes.len());
        assert_eq!(
            described["annotations"]["org.opencontainers.image.created"],
            "2023-11-14T22:13:20Z"
        );
        assert_eq!(described["platform"]["os"], "linux");
        let manifest: Value = serde_json::from_slice(bytes).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 2);
        for blob in layers.iter().chain([&manifest["config"]]) {
            let digest = blob["digest"].as_str().unwrap();
            assert!(
                blobs.iter().any(|(known, _)| known == digest),
                "{digest} is missing"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_a_client_without_the_store_is_told_so_and_others_are_served() {
    let bench = Bench::new();
    let blobs = Blobs::default();
    let _without = connect(&bench, "without", None).await;
    let _with = connect(&bench, "with", Some(&blobs)).await;
    let refused = bench.solve(request("one", "without", "oci")).await.unwrap_err();
    assert!(
        refused.message().contains("failed to copy sha256:"),
        "{refused:?}"
    );
    bench.solve(request("two", "with", "oci")).await.unwrap();
    let first = blobs.lock().unwrap().len();
    bench.solve(request("three", "with", "oci")).await.unwrap();
    assert_eq!(
        blobs.lock().unwrap().len(),
        first,
        "what the store has is not sent again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_an_exporters_attributes_describe_the_image_in_place_of_the_front_end() {
    let bench = Bench::new();
    let blobs = Blobs::default();
    let _client = connect(&bench, "own", Some(&blobs)).await;
    let mut request = request("own", "own", "oci");
    let attrs = &mut request.exporters[0].attrs;
    let config = r#"{"os":"linux","architecture":"riscv64","config":{"User":"7"},"rootfs":{"type":"layers","diff_ids":[]}}"#;
    attrs.insert("containerimage.config".to_owned(), config.to_owned());
    let created = "org.opencontainers.image.created";
    attrs.insert(
        format!("annotation-manifest-descriptor.{created}"),
        "at dawn".to_owned(),
    );
    let response = bench.solve(request).await.unwrap();
    let described = descriptor(&response);
    assert_eq!(described["annotations"][created], "at dawn");
    let blobs = blobs.lock().unwrap();
    let read = |digest: &Value| -> Value {
        let (_, bytes) = blobs.iter().find(|(known, _)| digest == known).unwrap();
        serde_json::from_slice(bytes).unwrap()
    };
    let config = read(&read(&described["digest"])["config"]["digest"]);
    assert_eq!(config["architecture"], "riscv64");
    assert_eq!(config["config"]["User"], "7");
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
}
