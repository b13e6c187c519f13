//! Registries as they are: what some do that the specification does not say, or says in a corner.

use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rbuild_oci::media_type::OCI_LAYER;
use rbuild_oci::{Descriptor, Reference};
use rbuild_registry::{
    BlobSink, BlobSource, Client, ClientOptions, Credentials, ErrorClass, PushBlobOptions, PushedBlob,
    RegistryConfig, RegistryError,
};
use rbuild_testkit::registry::{Fault, FaultAction, ImageSpec, RegistryAuth, TestRegistry};

use super::setup::{auths, client, client_with_auth, content, options, quiet, reference};

async fn push(
    client: &Client,
    registry: &TestRegistry,
    bytes: &[u8],
    chunk_bytes: Option<u64>,
) -> Result<PushedBlob, RegistryError> {
    let source: Arc<dyn BlobSource> = Arc::new(bytes.to_vec());
    let options = PushBlobOptions {
        mount_from: None,
        chunk_bytes,
    };
    let layer = Descriptor::of(OCI_LAYER, bytes);
    let name = reference(registry, "a");
    client.push_blob(&name, &layer, &source, &options, &quiet()).await
}

#[track_caller]
fn assert_there(registry: &TestRegistry, bytes: &[u8]) {
    let digest = Descriptor::of(OCI_LAYER, bytes).digest;
    assert!(registry.blob("a", &digest).as_deref() == Some(bytes));
}

/// go-containerregistry's own registry has no status of an upload.
#[tokio::test]
async fn an_upload_whose_progress_is_not_told_is_begun_anew() {
    for status in [400, 404, 405, 501] {
        let registry = TestRegistry::start();
        registry.fault(
            Fault::new("PATCH", "uploads", FaultAction::Reset)
                .skip(1)
                .times(1),
        );
        registry.fault(Fault::status(
            "GET",
            "uploads",
            status,
            ("x", "y"),
            "NAME_INVALID",
        ));
        let bytes = content(300_001);
        let pushed = push(&client(), &registry, &bytes, Some(100_000)).await;
        assert_eq!(
            pushed.unwrap_or_else(|error| panic!("{status}: {error}")),
            PushedBlob::Uploaded
        );
        assert_there(&registry, &bytes);
        assert_eq!(registry.count("POST", "uploads"), 2);
    }
}

/// Some answer HEAD with a redirect to storage whose signature is for GET; some tokens may write and not look.
#[tokio::test]
async fn a_look_that_is_refused_is_followed_by_the_upload() {
    let bytes = content(5_000);
    for status in [400, 403, 405, 501] {
        let registry = TestRegistry::start();
        registry.fault(Fault::status("HEAD", "/blobs/", status, ("x", "y"), ""));
        let pushed = push(&client(), &registry, &bytes, None).await;
        assert_eq!(
            pushed.unwrap_or_else(|error| panic!("{status}: {error}")),
            PushedBlob::Uploaded
        );
        assert_there(&registry, &bytes);
    }
    let (registry, storage) = (TestRegistry::start(), TestRegistry::start());
    let signed = format!("http://{}/v2/a/blobs/x?signature=of-get", storage.host());
    registry.fault(Fault::redirect("HEAD", "/blobs/", &signed));
    storage.fault(Fault::status("HEAD", "", 403, ("x", "y"), ""));
    let pushed = push(&client(), &registry, &bytes, None).await;
    assert_eq!(pushed.expect("pushed"), PushedBlob::Uploaded);
    assert_eq!(storage.count("HEAD", "signature"), 1);
    // Who may not write either is told so by the upload.
    let locked = TestRegistry::start_with(RegistryAuth::basic("ann", "pw"));
    let refused = push(&client(), &locked, &bytes, None).await.expect_err("locked");
    assert!(
        refused.class() == ErrorClass::Auth && refused.to_string().contains("begin upload"),
        "{refused}"
    );
}

#[tokio::test]
async fn row33_what_is_written_follows_a_redirect_without_credentials() {
    let bytes = content(70_000);
    for status in [307, 308] {
        let front = TestRegistry::start_with(RegistryAuth::basic("ann", "s3cret"));
        let behind = TestRegistry::start();
        let client = client_with_auth(&auths(&front.host(), "ann", "s3cret"));
        let to = format!("http://{}/v2/a/blobs/uploads/", behind.host());
        front.fault(Fault::status("POST", "uploads", status, ("location", &to), ""));
        let pushed = push(&client, &front, &bytes, None).await;
        assert_eq!(
            pushed.unwrap_or_else(|error| panic!("{status}: {error}")),
            PushedBlob::Uploaded
        );
        assert_there(&behind, &bytes);
        for request in behind.requests() {
            assert_eq!(request.header("authorization"), None, "{request:?}");
        }
    }
    // The body goes where its own redirect leads, too; in circles it goes ten times.
    let registry = TestRegistry::start();
    registry.fault(Fault::redirect("PUT", "uploads", "/v2/a/blobs/uploads/round"));
    let error = push(&client(), &registry, &bytes, None)
        .await
        .expect_err("in circles");
    assert!(matches!(error, RegistryError::Redirect { .. }), "{error}");
    assert_eq!(registry.count("PUT", "uploads"), 11);
    // Those that would turn what is written into something to read are not followed.
    for status in [301, 302, 303] {
        let registry = TestRegistry::start();
        registry.fault(Fault::status("POST", "uploads", status, ("location", "/v2/"), ""));
        let error = push(&client(), &registry, &bytes, None).await.expect_err("a GET");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        let last = registry.requests().pop().expect("a request");
        assert_eq!(last.method, "POST", "{last:?}");
    }
    for to in [
        "http://169.254.169.254/x",
        "file:///canary",
        "http://u:p@127.0.0.1/",
    ] {
        let registry = TestRegistry::start();
        registry.fault(Fault::redirect("POST", "uploads", to));
        let error = push(&client(), &registry, &bytes, None).await.expect_err(to);
        assert_eq!(error.class(), ErrorClass::Content, "{to}: {error}");
    }
}

/// `OCI-Chunk-Min-Length` (distribution spec 1.1, "Pushing a blob in chunks").
#[tokio::test]
async fn chunks_are_as_large_as_the_registry_wants_them() {
    let bytes = content(500_000);
    for (wanted, sent) in [
        ("200000", vec![200_000, 200_000, 100_000]),
        ("70000", vec![150_000, 150_000, 150_000, 50_000]),
        ("nonsense", vec![150_000, 150_000, 150_000, 50_000]),
        ("99999999999999", vec![]),
    ] {
        let registry = TestRegistry::start();
        let header = FaultAction::Header("oci-chunk-min-length".to_owned(), wanted.to_owned());
        registry.fault(Fault::new("POST", "uploads", header));
        let pushed = push(&client(), &registry, &bytes, Some(150_000)).await;
        assert_eq!(pushed.expect(wanted), PushedBlob::Uploaded);
        assert_there(&registry, &bytes);
        let requests = registry.requests();
        let patches = requests.iter().filter(|request| request.method == "PATCH");
        let lengths: Vec<usize> = patches.map(|request| request.body_len).collect();
        assert_eq!(lengths, sent, "{wanted}");
    }
}

#[tokio::test]
async fn success_has_other_numbers_too() {
    let bytes = content(100);
    for status in [200, 201, 204] {
        let registry = TestRegistry::start();
        registry.fault(Fault::status("PUT", "uploads", status, ("x", "y"), ""));
        let pushed = push(&client(), &registry, &bytes, None).await;
        assert_eq!(pushed.expect("taken"), PushedBlob::Uploaded);
    }
    for status in [200, 202, 204] {
        let registry = TestRegistry::start();
        let to = "/v2/a/blobs/uploads/x?_state=s%2F1";
        registry.fault(Fault::status("POST", "uploads", status, ("location", to), ""));
        registry.fault(Fault::status("PUT", "uploads", 201, ("x", "y"), ""));
        let pushed = push(&client(), &registry, &bytes, None).await;
        assert_eq!(pushed.expect("taken"), PushedBlob::Uploaded);
        let put = registry.requests().pop().expect("a request");
        assert!(
            put.path.starts_with(&format!("{to}&digest=sha256")),
            "{}",
            put.path
        );
    }
    // A success that does not say where to go on is none.
    let registry = TestRegistry::start();
    registry.fault(Fault::status("POST", "uploads", 202, ("x", "y"), ""));
    let error = push(&client(), &registry, &bytes, None)
        .await
        .expect_err("where to?");
    assert!(error.to_string().contains("Location"), "{error}");
}

/// Docker Hub's and Artifactory's ways to say that it is too much.
#[tokio::test]
async fn what_a_registry_says_of_a_limit_is_told() {
    for (body, said) in [
        (
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#,
            "TOOMANYREQUESTS: You have reached your pull rate limit.",
        ),
        (r#"{"detail":"too many"}"#, r#"{"detail":"too many"}"#),
        (
            r#"{"errors":[{"status":429,"message":"slow down"}]}"#,
            "slow down",
        ),
        (r#"{"errors":"plain"}"#, "plain"),
        ("<html>429</html>", "<html>429</html>"),
    ] {
        let registry = TestRegistry::start();
        // A time of day in the place of seconds asks for more patience than there is.
        registry.fault(Fault::status(
            "",
            "/manifests/",
            429,
            ("retry-after", "1795430000"),
            body,
        ));
        let error = client()
            .manifest(&reference(&registry, "a:1"))
            .await
            .expect_err("429");
        assert_eq!(error.class(), ErrorClass::Server);
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(registry.count("GET", "/manifests/"), 1);
    }
}

#[tokio::test]
async fn a_type_that_says_nothing_leaves_it_to_the_document() {
    for said in [
        "application/json",
        "application/octet-stream",
        "text/plain; charset=utf-8",
        "",
    ] {
        let registry = TestRegistry::start();
        let put = registry.put_image("a", "1", &ImageSpec::default());
        let action = match said {
            "" => FaultAction::NoHeader("content-type".to_owned()),
            said => FaultAction::Header("content-type".to_owned(), said.to_owned()),
        };
        registry.fault(Fault::new("", "/manifests/", action));
        let name = reference(&registry, "a:1");
        let resolved = client().resolve(&name).await;
        let resolved = resolved.unwrap_or_else(|error| panic!("{said:?}: {error}"));
        assert_eq!(resolved.descriptor.digest, put.root.digest);
        assert_eq!(resolved.descriptor.media_type, put.root.media_type);
    }
}

#[tokio::test]
async fn a_pushed_manifest_needs_no_answer_but_success() {
    for status in [200, 201, 202] {
        let registry = TestRegistry::start();
        registry.fault(Fault::status("PUT", "/manifests/", status, ("x", "y"), ""));
        let media_type = rbuild_oci::media_type::OCI_MANIFEST;
        let pushed = client()
            .push_manifest(&reference(&registry, "a:1"), media_type, b"{}")
            .await;
        assert_eq!(pushed.expect("taken"), Descriptor::of(media_type, b"{}"));
    }
}

/// Answers every request with `head` and then `chunk` after `chunk`, with a pause, for ever.
fn endless(head: &'static str, chunk: &'static [u8], pause: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = listener.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                let mut write = || -> io::Result<()> {
                    stream.read(&mut request).map(drop)?;
                    stream.write_all(head.as_bytes())?;
                    loop {
                        write!(stream, "{:x}\r\n", chunk.len())?;
                        stream.write_all(chunk)?;
                        stream.write_all(b"\r\n")?;
                        std::thread::sleep(pause);
                    }
                };
                // Until the client has had enough.
                write().ok();
            });
        }
    });
    host
}

#[tokio::test]
async fn row36_an_error_that_never_ends_is_shown_as_far_as_it_came() {
    let head = "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n";
    let host = endless(head, b"x", Duration::from_millis(20));
    let limited = ClientOptions {
        idle_timeout: Duration::from_millis(400),
        ..options()
    };
    let client = Client::with_options(RegistryConfig::default(), Credentials::default(), limited);
    let begun = Instant::now();
    let error = client
        .manifest(&Reference::parse(&format!("{host}/a:1")).expect("a reference"))
        .await
        .expect_err("404");
    assert_eq!(error.class(), ErrorClass::NotFound, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

/// Keeps what it is given, and knows how much that was at most.
#[derive(Default)]
struct Counted {
    held: u64,
    most: u64,
}

impl BlobSink for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.held += bytes.len() as u64;
        self.most = self.most.max(self.held);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.held = 0;
        Ok(())
    }
}

#[tokio::test]
async fn row32_what_never_ends_is_read_up_to_its_size() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let host = endless(head, &[b'x'; 1000], Duration::ZERO);
    let name = Reference::parse(&format!("{host}/a:1")).expect("a reference");
    let layer = Descriptor::of(OCI_LAYER, &[b'x'; 4500]);
    let mut sink = Counted::default();
    let error = client()
        .fetch_blob_to(&name, &layer, &mut sink, &quiet())
        .await
        .expect_err("it is longer than its descriptor says");
    assert!(matches!(error, RegistryError::WrongSize { .. }), "{error}");
    assert!((1..=4500).contains(&sink.most), "{} bytes", sink.most);
    assert_eq!(sink.held, 0, "what came is thrown away");
    // A manifest, too: as far as one may be long, or as its descriptor says.
    let error = client()
        .manifest(&name)
        .await
        .expect_err("no manifest is so long");
    assert!(matches!(error, RegistryError::WrongSize { .. }), "{error}");
    let manifest = Descriptor::of(rbuild_oci::media_type::OCI_MANIFEST, &[b'x'; 300]);
    let error = client()
        .manifest_of(&name, &manifest)
        .await
        .expect_err("nor that one");
    assert!(
        matches!(error, RegistryError::WrongSize { expected: 300, .. }),
        "{error}"
    );
}
