//! Files behind URLs: redirects, credentials, retries, limits.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use rbuild_registry::{
    Client, ClientOptions, ConfigSources, Credentials, ErrorClass, FetchError, RegistryConfig, RegistryError,
    UrlHead, UrlRequest, UrlSink,
};
use rbuild_testkit::registry::{ResettingServer, TestRegistry};
use rbuild_testkit::web::{Manner, Page, WebServer};

use super::setup::{client, content, options};

/// A body and how often one began.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) bytes: Vec<u8>,
    begun: usize,
    full: bool,
}

impl UrlSink for Kept {
    fn begin(&mut self, _: &UrlHead) -> io::Result<()> {
        self.bytes.clear();
        self.begun += 1;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

const MAX: u64 = 1 << 20;

async fn get(server: &WebServer, path: &str, sink: &mut Kept) -> Result<UrlHead, FetchError> {
    let request = UrlRequest::new(&server.url(path)).expect("a URL");
    client().get_url(&request, MAX, sink).await
}

#[tokio::test]
async fn a_file_comes_with_its_headers_behind_redirects() {
    let server = WebServer::start();
    let bytes = content(300_000);
    server
        .put("/a", Page::redirect(301, "/b"))
        .put("/b", Page::redirect(307, &server.url("/c")))
        .put(
            "/c",
            Page::of(bytes.clone())
                .header("ETag", "W/\"1\"")
                .header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
                .header("Content-Disposition", "attachment; filename=x"),
        );
    let mut sink = Kept::default();
    let head = get(&server, "/a", &mut sink).await.expect("fetched");
    assert!(sink.bytes == bytes);
    assert_eq!(head.etag.as_deref(), Some("W/\"1\""));
    assert_eq!(
        head.last_modified.as_deref(),
        Some("Sun, 06 Nov 1994 08:49:37 GMT")
    );
    assert_eq!(
        head.content_disposition.as_deref(),
        Some("attachment; filename=x")
    );
}

/// HTTP/2 over TLS: a stream that is reset with `CANCEL` or `NO_ERROR` is no end of a file, whatever the HTTP library says.
#[tokio::test]
async fn a_stream_that_is_reset_is_asked_for_again_and_is_never_a_whole_file() {
    let authority = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(authority.path(), TestRegistry::authority_pem()).expect("written");
    let believed = authority.path().display().to_string();
    let config = RegistryConfig::load(&ConfigSources {
        env: BTreeMap::from([("SSL_CERT_FILE".to_owned(), believed)]),
        etc: "/nowhere".into(),
    });
    let client = Client::with_options(config.expect("loaded"), Credentials::default(), options());
    let bytes = content(20_000);
    let (no_error, internal, cancel) = (0, 2, 8);
    for reason in [no_error, internal, cancel] {
        let server = ResettingServer::start(bytes.clone(), 2, reason).await;
        let request = UrlRequest::new(server.url()).expect("a URL");
        let mut sink = Kept::default();
        client
            .get_url(&request, MAX, &mut sink)
            .await
            .expect("the third answer");
        assert!(sink.bytes == bytes, "{reason}: {} bytes", sink.bytes.len());
        assert_eq!(sink.begun, 3, "{reason}");
        let server = ResettingServer::start(bytes.clone(), usize::MAX, reason).await;
        let request = UrlRequest::new(server.url()).expect("a URL");
        let error = client
            .get_url(&request, MAX, &mut sink)
            .await
            .expect_err("never whole");
        assert!(error.to_string().contains("broke"), "{reason}: {error}");
    }
}

#[tokio::test]
async fn a_broken_body_and_a_busy_server_are_asked_again() {
    let server = WebServer::start();
    server
        .put("/busy", Page::of("x").failing(2))
        .put("/cut", Page::of(content(1000)).manner(Manner::CutTo(500)));
    let mut sink = Kept::default();
    get(&server, "/busy", &mut sink).await.expect("the third answer");
    assert_eq!((sink.begun, server.asked().len()), (1, 3));
    let mut sink = Kept::default();
    let error = get(&server, "/cut", &mut sink).await.expect_err("never whole");
    assert!(error.is_temporary(), "{error}");
    assert_eq!(
        sink.begun,
        options().attempts as usize,
        "each attempt begins anew"
    );
}

#[tokio::test]
async fn an_answer_without_content_is_told() {
    let server = WebServer::start();
    server.put("/bad", Page::of("no \x1b[2J").status(403));
    for (path, status) in [("/absent", "404"), ("/bad", "403")] {
        let error = get(&server, path, &mut Kept::default())
            .await
            .expect_err("refused");
        assert_eq!(error.to_string(), format!("invalid response status {status}"));
        let FetchError::Status(refusal) = &error else {
            panic!("{error}")
        };
        assert!(refusal.url.to_string().contains(path), "{refusal}");
    }
    assert_eq!(server.asked().len(), 2, "neither is asked again");
}

#[tokio::test]
async fn row33_credentials_go_to_the_origin_they_are_for() {
    let (server, other) = (WebServer::start(), WebServer::start());
    server
        .put("/own", Page::redirect(302, "/end"))
        .put("/end", Page::of("own"))
        .put("/away", Page::redirect(302, &other.url("/end")));
    other.put("/end", Page::of("other"));
    let with_user = server.url("/own").replace("http://", "http://us%3Aer:pa%40ss@");
    let request = UrlRequest::new(&with_user).expect("a URL");
    assert!(!format!("{request:?} {}", request.shown()).contains("pa"));
    client()
        .get_url(&request, MAX, &mut Kept::default())
        .await
        .expect("fetched");
    // base64 of "us:er:pa@ss".
    let sent = Some("Basic dXM6ZXI6cGFAc3M=".to_owned());
    for asked in server.asked() {
        assert_eq!(
            asked.headers.get("authorization").cloned(),
            sent,
            "{}",
            asked.path
        );
    }
    // With the user of its own URL, and with a header, another host gets nothing of either.
    let away = server.url("/away").replace("http://", "http://us%3Aer:pa%40ss@");
    let request = UrlRequest::new(&away).expect("a URL");
    client()
        .get_url(&request, MAX, &mut Kept::default())
        .await
        .expect("fetched");
    assert_eq!(other.asked().len(), 1);
    assert!(
        other
            .asked()
            .iter()
            .all(|asked| !asked.headers.contains_key("authorization")),
        "{:?}",
        other.asked()
    );
    let request = UrlRequest::new(&server.url("/away"))
        .and_then(|request| request.with_authorization("Bearer canary"))
        .expect("a request");
    client()
        .get_url(&request, MAX, &mut Kept::default())
        .await
        .expect("fetched");
    let asked = other.asked();
    assert_eq!(asked.len(), 2);
    assert!(!format!("{asked:?}").contains("canary"), "{asked:?}");
}

#[tokio::test]
async fn row36_addresses_that_no_request_may_go_to() {
    let server = WebServer::start();
    for (path, to) in [
        ("/meta", "http://169.254.169.254/latest"),
        ("/number", "http://2852039166/"),
        ("/six", "http://[::ffff:169.254.169.254]/"),
        ("/file", "file:///etc/passwd"),
    ] {
        server.put(path, Page::redirect(302, to));
        let error = get(&server, path, &mut Kept::default())
            .await
            .expect_err("refused");
        assert!(
            matches!(
                &error,
                FetchError::Transport(inner)
                    if matches!(**inner, RegistryError::Address { .. } | RegistryError::Redirect { .. })
            ),
            "{to}: {error}"
        );
    }
    for url in ["http://169.254.169.254/latest/", "http://[fd00:ec2::254]/"] {
        let request = UrlRequest::new(url).expect("a URL");
        let error = client()
            .get_url(&request, MAX, &mut Kept::default())
            .await
            .expect_err("refused");
        assert!(error.to_string().contains("link-local"), "{error}");
    }
    assert!(client().check_host("169.254.169.254").is_err());
    assert!(client().check_host("[fd00:ec2::254]:80").is_err());
    assert!(client().check_host("example.com:80").is_ok());
    server.put("/twin", Page::of("fine"));
    get(&server, "/twin", &mut Kept::default())
        .await
        .expect("this machine, asked for by its address, is fine");
}

#[tokio::test]
async fn row36_bodies_have_a_limit_in_size_and_in_patience() {
    let server = WebServer::start();
    server
        .put("/endless", Page::of(vec![b'x'; 60_000]).manner(Manner::Endless))
        .put("/large", Page::of(vec![0; 1 << 21]))
        .put("/exact", Page::of(vec![0; 1 << 20]))
        .put(
            "/slow",
            Page::of(vec![0; 10_000]).manner(Manner::Trickle(Duration::from_millis(10))),
        );
    for path in ["/endless", "/large"] {
        let mut sink = Kept::default();
        let error = get(&server, path, &mut sink).await.expect_err("too large");
        assert!(matches!(error, FetchError::TooLarge { .. }), "{path}: {error}");
        assert!(sink.bytes.len() as u64 <= MAX);
    }
    assert_eq!(
        server.asked().len(),
        2,
        "what is too large once is not asked for again"
    );
    get(&server, "/exact", &mut Kept::default())
        .await
        .expect("the limit itself");
    let impatient = Client::with_options(
        RegistryConfig::default(),
        Credentials::default(),
        ClientOptions {
            idle_timeout: Duration::from_millis(100),
            ..options()
        },
    );
    let request = UrlRequest::new(&server.url("/slow")).expect("a URL");
    let error = impatient
        .get_url(&request, MAX, &mut Kept::default())
        .await
        .expect_err("too slow");
    assert!(matches!(error, FetchError::TooSlow { .. }), "{error}");
}

#[tokio::test]
async fn row36_headers_have_a_limit() {
    let server = WebServer::start();
    server.put(
        "/tag",
        Page::of("x").header("ETag", &format!("\"{}\"", "e".repeat(1 << 20))),
    );
    let error = get(&server, "/tag", &mut Kept::default())
        .await
        .expect_err("a megabyte of a header");
    assert!(
        matches!(&error, FetchError::Transport(inner) if inner.class() == ErrorClass::Network),
        "{error}"
    );
    server.put(
        "/twin",
        Page::of("x").header("ETag", &format!("\"{}\"", "e".repeat(1 << 10))),
    );
    get(&server, "/twin", &mut Kept::default())
        .await
        .expect("a kilobyte");
    // What comes and is longer than a store would keep counts as absent.
    for (bytes, is_there) in [(4096, true), (4097, false)] {
        server.put("/long", Page::of("x").header("ETag", &"e".repeat(bytes)));
        let head = get(&server, "/long", &mut Kept::default())
            .await
            .expect("fetched");
        assert_eq!(head.etag.is_some(), is_there, "{bytes}");
    }
}

#[tokio::test]
async fn redirects_end_and_a_full_disk_is_told() {
    let server = WebServer::start();
    server
        .put("/loop", Page::redirect(302, "/loop"))
        .put("/f", Page::of("x"));
    let error = get(&server, "/loop", &mut Kept::default())
        .await
        .expect_err("a loop");
    assert!(error.to_string().contains("too many redirects"), "{error}");
    assert_eq!(server.asked().len(), 11);
    let mut full = Kept {
        full: true,
        ..Kept::default()
    };
    let error = get(&server, "/f", &mut full).await.expect_err("full");
    assert!(matches!(error, FetchError::Sink { .. }), "{error}");
}

#[tokio::test]
async fn an_unchanged_file_has_no_body() {
    let server = WebServer::start();
    server.put("/f", Page::of("x").header("ETag", "\"1\""));
    let request = UrlRequest::new(&server.url("/f"))
        .and_then(|request| request.with_header("if-none-match", "\"0\", \"1\""))
        .expect("a request");
    let mut sink = Kept::default();
    let head = client().get_url(&request, MAX, &mut sink).await.expect("asked");
    assert!(head.is_unchanged() && sink.begun == 0);
    let head = client().head_url(&request).await.expect("asked");
    assert_eq!((head.status, head.etag.as_deref()), (304, Some("\"1\"")));
    for text in ["ftp://h/x", "file:///x", "no url", "http://"] {
        assert!(UrlRequest::new(text).is_err(), "{text}");
    }
}
