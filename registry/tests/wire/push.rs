//! Pushing, and pulling back what was pushed.

use std::io::{self, Read, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rbuild_oci::media_type::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use rbuild_oci::{Descriptor, Digest, ImageConfig, Manifest};
use rbuild_registry::{
    BlobSource, Client, ClientOptions, Credentials, ErrorClass, Progress, PushBlobOptions, PushedBlob,
    RegistryConfig, RegistryError,
};
use rbuild_testkit::registry::{Fault, FaultAction, TestRegistry};

use super::setup::{client, content, options, quiet, reference};

fn source(bytes: &[u8]) -> Arc<dyn BlobSource> {
    Arc::new(bytes.to_vec())
}

fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::of(OCI_LAYER, bytes)
}

#[tokio::test]
async fn an_image_is_pushed_and_pulled_back() {
    let registry = TestRegistry::start();
    let client = client();
    let reference = reference(&registry, "a/b:1");
    let bytes = content(700_000);
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&bytes).expect("written");
    let from_file: Arc<dyn BlobSource> = Arc::new(file);
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let progress: Progress = Arc::new(move |done, _| counter.store(done, Ordering::SeqCst));
    let options = PushBlobOptions::default();
    let pushed = client
        .push_blob(&reference, &layer(&bytes), &from_file, &options, &progress)
        .await;
    assert_eq!(pushed.expect("pushed"), PushedBlob::Uploaded);
    assert_eq!(sent.load(Ordering::SeqCst), bytes.len() as u64);
    let again = client
        .push_blob(&reference, &layer(&bytes), &from_file, &options, &progress)
        .await;
    assert_eq!(again.expect("known"), PushedBlob::Existed);
    let put = registry
        .requests()
        .into_iter()
        .find(|r| r.method == "PUT")
        .expect("one upload");
    assert_eq!(
        put.header("content-length"),
        Some("700000"),
        "a length, not chunked encoding"
    );

    let config = ImageConfig::default().to_bytes();
    let config_descriptor = Descriptor::of(OCI_CONFIG, &config);
    client
        .push_blob(
            &reference,
            &config_descriptor,
            &source(&config),
            &options,
            &quiet(),
        )
        .await
        .expect("pushed");
    let manifest = Manifest::new(OCI_MANIFEST, config_descriptor, vec![layer(&bytes)]).to_bytes();
    let pushed = client
        .push_manifest(&reference, OCI_MANIFEST, &manifest)
        .await
        .expect("pushed");
    let pulled = client.manifest(&reference).await.expect("pulled");
    assert_eq!((pulled.bytes, &pulled.descriptor), (manifest, &pushed));
    assert_eq!(
        client
            .blob(&reference, &layer(&bytes), 1 << 20)
            .await
            .expect("pulled"),
        bytes
    );
}

#[tokio::test]
async fn a_blob_of_another_repository_is_mounted() {
    let registry = TestRegistry::start();
    let bytes = content(1000);
    registry.put_blob("base/image", &bytes);
    let options = PushBlobOptions {
        mount_from: Some("base/image".to_owned()),
        ..PushBlobOptions::default()
    };
    let push = || async {
        client()
            .push_blob(
                &reference(&registry, "a"),
                &layer(&bytes),
                &source(&bytes),
                &options,
                &quiet(),
            )
            .await
    };
    registry.allow_mounts(false);
    registry.fault(Fault::new(
        "HEAD",
        "blobs",
        FaultAction::Respond {
            status: 404,
            headers: vec![],
            body: vec![],
        },
    ));
    assert_eq!(
        push().await.expect("202: uploaded into the session it was given"),
        PushedBlob::Uploaded
    );
    assert_eq!(registry.count("POST", "uploads"), 1);
    registry.allow_mounts(true);
    assert_eq!(push().await.expect("201"), PushedBlob::Mounted);
    assert_eq!(registry.count("PUT", "uploads"), 1, "nothing more was sent");
}

#[tokio::test]
async fn failed_uploads_are_begun_anew() {
    for (method, action) in [
        ("PUT", FaultAction::Reset),
        (
            "PUT",
            FaultAction::Respond {
                status: 500,
                headers: vec![],
                body: vec![],
            },
        ),
        (
            "PUT",
            FaultAction::Respond {
                status: 404,
                headers: vec![],
                body: vec![],
            },
        ),
        (
            "POST",
            FaultAction::Respond {
                status: 503,
                headers: vec![],
                body: vec![],
            },
        ),
    ] {
        let registry = TestRegistry::start();
        let bytes = content(400_000);
        registry.fault(Fault::new(method, "uploads", action.clone()).times(2));
        let options = PushBlobOptions::default();
        let pushed = client()
            .push_blob(
                &reference(&registry, "a"),
                &layer(&bytes),
                &source(&bytes),
                &options,
                &quiet(),
            )
            .await;
        assert_eq!(
            pushed.unwrap_or_else(|e| panic!("{action:?}: {e}")),
            PushedBlob::Uploaded
        );
        assert_eq!(registry.blob("a", &Digest::sha256(&bytes)), Some(bytes));
    }
}

#[tokio::test]
async fn chunks_are_resumed() {
    let registry = TestRegistry::start();
    let bytes = content(300_001);
    registry.fault(
        Fault::new("PATCH", "uploads", FaultAction::Reset)
            .skip(1)
            .times(1),
    );
    let options = PushBlobOptions {
        chunk_bytes: Some(100_000),
        ..PushBlobOptions::default()
    };
    let pushed = client()
        .push_blob(
            &reference(&registry, "a"),
            &layer(&bytes),
            &source(&bytes),
            &options,
            &quiet(),
        )
        .await;
    assert_eq!(pushed.expect("pushed"), PushedBlob::Uploaded);
    assert_eq!(registry.blob("a", &Digest::sha256(&bytes)), Some(bytes));
    assert_eq!(registry.count("POST", "uploads"), 1, "one upload");
    assert_eq!(registry.count("GET", "uploads"), 1, "asked how far it got");
    let ranges: Vec<_> = registry
        .requests()
        .iter()
        .filter_map(|r| r.header("content-range").map(str::to_owned))
        .collect();
    assert_eq!(
        ranges,
        [
            "0-99999",
            "100000-199999",
            "100000-199999",
            "200000-299999",
            "300000-300000"
        ]
    );
}

#[tokio::test]
async fn an_empty_blob_is_pushed() {
    let registry = TestRegistry::start();
    for chunk_bytes in [None, Some(100_000)] {
        let name = if chunk_bytes.is_some() { "chunks" } else { "whole" };
        let options = PushBlobOptions {
            chunk_bytes,
            ..PushBlobOptions::default()
        };
        let pushed = client()
            .push_blob(
                &reference(&registry, name),
                &layer(b""),
                &source(b""),
                &options,
                &quiet(),
            )
            .await;
        assert_eq!(pushed.expect("pushed"), PushedBlob::Uploaded);
        assert_eq!(registry.blob(name, &Digest::sha256(b"")), Some(Vec::new()));
    }
}

struct Failing;

impl BlobSource for Failing {
    fn open(&self, _: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::repeat(0).take(10)))
    }
}

#[tokio::test]
async fn a_source_that_ends_too_early_is_our_own_fault() {
    let registry = TestRegistry::start();
    let bytes = content(400_000);
    let failing: Arc<dyn BlobSource> = Arc::new(Failing);
    let options = PushBlobOptions::default();
    let error = client()
        .push_blob(
            &reference(&registry, "a"),
            &layer(&bytes),
            &failing,
            &options,
            &quiet(),
        )
        .await;
    let error = error.expect_err("too short");
    assert!(matches!(error, RegistryError::Source { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Local);
    assert_eq!(registry.count("POST", "uploads"), 1, "not tried again");
}

#[tokio::test]
async fn a_manifest_is_pushed_by_digest_or_tag() {
    let registry = TestRegistry::start();
    let bytes = Manifest::new(OCI_MANIFEST, Descriptor::of(OCI_CONFIG, b"{}"), vec![]).to_bytes();
    let digest = Digest::sha256(&bytes);
    let by_digest = reference(&registry, "a").with_digest(digest.clone());
    client()
        .push_manifest(&by_digest, OCI_MANIFEST, &bytes)
        .await
        .expect("by digest");
    assert_eq!(registry.count("PUT", digest.as_str()), 1);
    let wrong = reference(&registry, "a").with_digest(Digest::sha256(b"other"));
    let error = client()
        .push_manifest(&wrong, OCI_MANIFEST, &bytes)
        .await
        .expect_err("another digest");
    assert!(matches!(error, RegistryError::WrongDigest { .. }));
    let lie = Digest::sha256(b"lie").to_string();
    registry.fault(Fault::new(
        "PUT",
        "manifests",
        FaultAction::Header("docker-content-digest".to_owned(), lie),
    ));
    let error = client()
        .push_manifest(&reference(&registry, "a:1"), OCI_MANIFEST, &bytes)
        .await;
    assert!(matches!(
        error.expect_err("it stored something else"),
        RegistryError::WrongDigest { .. }
    ));
}

#[tokio::test]
async fn a_stream_that_broke_is_sent_in_chunks_that_go_on_where_the_server_is() {
    let registry = TestRegistry::start();
    let bytes = content(300_001);
    registry.fault(Fault::new("PUT", "uploads", FaultAction::Reset).times(1));
    registry.fault(
        Fault::new("PATCH", "uploads", FaultAction::Reset)
            .skip(1)
            .times(1),
    );
    let client = chunking(100_000);
    let options = PushBlobOptions::default();
    let (name, source) = (reference(&registry, "a"), source(&bytes));
    let pushed = client
        .push_blob(&name, &layer(&bytes), &source, &options, &quiet())
        .await;
    assert_eq!(pushed.expect("pushed"), PushedBlob::Uploaded);
    assert_eq!(registry.blob("a", &Digest::sha256(&bytes)), Some(bytes));
    let ranges: Vec<_> = registry
        .requests()
        .iter()
        .filter_map(|r| r.header("content-range").map(str::to_owned))
        .collect();
    assert_eq!(ranges[..3], ["0-99999", "100000-199999", "100000-199999"]);
}

#[tokio::test]
async fn a_registry_that_takes_no_chunks_is_sent_the_whole_again() {
    let registry = TestRegistry::start();
    let bytes = content(300_001);
    registry.fault(Fault::new("PUT", "uploads", FaultAction::Reset).times(1));
    registry.fault(Fault::status("PATCH", "uploads", 405, ("x", "y"), ""));
    let options = PushBlobOptions::default();
    let (name, source) = (reference(&registry, "a"), source(&bytes));
    let client = chunking(100_000);
    let pushed = client
        .push_blob(&name, &layer(&bytes), &source, &options, &quiet())
        .await;
    assert_eq!(pushed.expect("pushed"), PushedBlob::Uploaded);
    assert_eq!(registry.blob("a", &Digest::sha256(&bytes)), Some(bytes));
    assert_eq!(registry.count("PATCH", "uploads"), 1);
}

fn chunking(resumed_chunk_bytes: u64) -> Client {
    let options = ClientOptions {
        resumed_chunk_bytes,
        ..options()
    };
    Client::with_options(RegistryConfig::default(), Credentials::default(), options)
}

#[tokio::test]
async fn blobs_are_pushed_at_once() {
    let registry = TestRegistry::start();
    let client = client();
    let blobs: Vec<Vec<u8>> = (1..=6).map(|size| content(size * 100)).collect();
    let all_wait = Arc::new(tokio::sync::Barrier::new(blobs.len()));
    registry.fault(Fault::new("POST", "uploads", FaultAction::Meet(all_wait)));
    let pushes = blobs.iter().map(|bytes| {
        let (client, name, source) = (client.clone(), reference(&registry, "a"), source(bytes));
        async move {
            let options = PushBlobOptions::default();
            client
                .push_blob(&name, &layer(bytes), &source, &options, &quiet())
                .await
        }
    });
    let pushes = futures_util::future::join_all(pushes);
    let pushed = tokio::time::timeout(std::time::Duration::from_secs(60), pushes).await;
    for pushed in pushed.expect("one upload waits for another's end") {
        assert_eq!(pushed.expect("pushed"), PushedBlob::Uploaded);
    }
    assert_eq!(registry.count("PUT", "uploads"), 6);
    // And nothing that is there is sent again.
    for bytes in &blobs {
        let options = PushBlobOptions::default();
        let (name, source) = (reference(&registry, "a"), source(bytes));
        let again = client
            .push_blob(&name, &layer(bytes), &source, &options, &quiet())
            .await;
        assert_eq!(again.expect("asked"), PushedBlob::Existed);
    }
    assert_eq!(registry.count("PUT", "uploads"), 6);
}
