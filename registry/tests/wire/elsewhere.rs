//! Servers that lead elsewhere: from another machine to this one, and from a registry to a host that has not its rights. A
//! proxy of the test plays the other machine, since every address here is this machine's (security rows 33, 34 and 36).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rbuild_oci::media_type::OCI_LAYER;
use rbuild_oci::{Descriptor, Reference};
use rbuild_registry::{
    BlobSource, Client, ConfigSources, Credentials, ErrorClass, Exchange, FetchError, Patience,
    PushBlobOptions, RegistryConfig, RegistryError, RelayError, ServiceUrl, UrlRequest,
};
use rbuild_testkit::peer::{AUTHORITY, CLIENT_CERTIFICATE, CLIENT_KEY, DockerRegistry};
use rbuild_testkit::registry::{Fault, RegistryAuth, TestRegistry};
use reqwest::Method;
use tempfile::TempDir;

use super::fetch::Kept;
use super::setup::{auths, client_with_auth, content, credentials, options, quiet};

/// A client that reaches every name through `proxy`; `registry.invalid` speaks plain HTTP.
fn through(proxy: &TestRegistry, dir: &TempDir, credentials: Credentials) -> Client {
    let file = dir.path().join("buildkitd.toml");
    std::fs::write(&file, "[registry.\"registry.invalid\"]\nhttp = true\n").expect("a file");
    let env = BTreeMap::from([
        ("HTTP_PROXY".to_owned(), format!("http://{}", proxy.host())),
        ("BUILDKITD_CONFIG".to_owned(), file.display().to_string()),
    ]);
    let sources = ConfigSources {
        env,
        etc: "/nowhere".into(),
    };
    let config = RegistryConfig::load(&sources).expect("a configuration");
    Client::with_options(config, credentials, options())
}

fn far(name: &str) -> Reference {
    Reference::parse(&format!("registry.invalid/{name}")).expect("a reference")
}

/// Ways of writing where `server` is.
fn spellings(server: &TestRegistry) -> [String; 6] {
    let host = server.host();
    let port = host.rsplit(':').next().expect("a port");
    [
        "127.0.0.1",
        "localhost",
        "x.localhost",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "2130706433",
    ]
    .map(|name| format!("http://{name}:{port}"))
}

#[tokio::test]
async fn row36_a_registry_elsewhere_does_not_lead_to_this_machine() {
    let (proxy, local) = (TestRegistry::start(), TestRegistry::start());
    let dir = tempfile::tempdir().expect("a directory");
    let client = through(&proxy, &dir, Credentials::default());
    let bytes = content(1000);
    let descriptor = Descriptor::of(OCI_LAYER, &bytes);
    let path = format!("/v2/a/blobs/{}", descriptor.digest);
    for server in [&proxy, &local] {
        server.put_blob("a", &bytes);
    }
    let source: Arc<dyn BlobSource> = Arc::new(content(500));
    let other = Descriptor::of(OCI_LAYER, &content(500));
    for to in spellings(&local) {
        proxy.clear_faults();
        proxy.fault(Fault::redirect("GET", "blobs", &format!("{to}{path}")));
        let error = client.blob(&far("a"), &descriptor, 1 << 20).await.expect_err(&to);
        assert!(matches!(error, RegistryError::Address { .. }), "{to}: {error}");
        let upload = format!("{to}/v2/a/blobs/uploads/x");
        proxy.fault(Fault::status("POST", "uploads", 202, ("location", &upload), ""));
        let error = client
            .push_blob(&far("a"), &other, &source, &PushBlobOptions::default(), &quiet())
            .await
            .expect_err(&to);
        assert!(matches!(error, RegistryError::Address { .. }), "{to}: {error}");
    }
    assert_eq!(local.requests().len(), 0, "{:?}", local.requests());
    // The twin: another place that only the proxy knows.
    proxy.clear_faults();
    proxy.clear_requests();
    let to = format!("http://storage.invalid{path}");
    proxy.fault(Fault::redirect("GET", "blobs", &to).times(1));
    let got = client.blob(&far("a"), &descriptor, 1 << 20).await.expect("there");
    assert_eq!(got, bytes);
    assert_eq!(proxy.count("GET", "blobs"), 2);
}

#[tokio::test]
async fn row34_a_registry_elsewhere_names_no_token_server_of_this_machine() {
    let local = TestRegistry::start_with(RegistryAuth::bearer("ann", "s3cret"));
    for to in spellings(&local) {
        let proxy = TestRegistry::start_with(RegistryAuth::Bearer {
            user: "ann".to_owned(),
            password: "s3cret".to_owned(),
            identity_token: None,
            anonymous_pull: false,
            realm: Some(format!("{to}/token")),
        });
        let dir = tempfile::tempdir().expect("a directory");
        let auths = auths("registry.invalid", "ann", "s3cret");
        let client = through(&proxy, &dir, credentials(&auths));
        let error = client.resolve(&far("a:1")).await.expect_err(&to);
        assert!(
            matches!(
                error,
                RegistryError::Challenge { .. } | RegistryError::Address { .. }
            ),
            "{to}: {error}"
        );
    }
    assert_eq!(local.requests().len(), 0, "{:?}", local.requests());
}

#[tokio::test]
async fn row36_a_file_elsewhere_does_not_lead_to_this_machine() {
    let (proxy, local) = (TestRegistry::start(), TestRegistry::start());
    let dir = tempfile::tempdir().expect("a directory");
    let client = through(&proxy, &dir, Credentials::default());
    let digest = proxy.put_blob("a", b"far");
    local.put_blob("a", b"near");
    let request = UrlRequest::new("http://files.invalid/v2/moved").expect("a URL");
    for to in spellings(&local) {
        proxy.clear_faults();
        proxy.fault(Fault::redirect("GET", "/v2/moved", &format!("{to}/v2/")));
        let error = client
            .get_url(&request, 1 << 20, &mut Kept::default())
            .await
            .expect_err(&to);
        assert!(
            matches!(&error, FetchError::Transport(inner) if matches!(**inner, RegistryError::Address { .. })),
            "{to}: {error}"
        );
    }
    assert_eq!(local.requests().len(), 0, "{:?}", local.requests());
    proxy.clear_faults();
    let to = format!("http://storage.invalid/v2/a/blobs/{digest}");
    proxy.fault(Fault::redirect("GET", "/v2/moved", &to));
    let mut body = Kept::default();
    client.get_url(&request, 1 << 20, &mut body).await.expect("there");
    assert_eq!(body.bytes, b"far");
}

#[test]
fn row36_what_a_service_names_is_judged_by_the_service() {
    let url = |text: &str| ServiceUrl::given(text).expect(text);
    let (tls, plain) = (url("https://far.example/a"), url("http://far.example/a"));
    for (from, to) in [
        (&tls, "http://far.example/b"),
        (&tls, "https://u:p@far.example/b"),
        (&tls, "ftp://far.example/b"),
        (&plain, "http://u@far.example/"),
        (&plain, "file:///etc/passwd"),
    ] {
        from.named(to).expect_err(to);
    }
    for (from, to) in [
        (&tls, "https://storage.example/b"),
        (&plain, "http://storage.example/b"),
        (&plain, "https://storage.example/b"),
    ] {
        from.named(to).expect(to);
    }
    for (path, sent) in [("/a/../b", "/b"), ("/a b", "/a%20b"), ("/%2e%2e/b", "/b")] {
        let error = tls.with(path, "").expect_err(path).to_string();
        assert!(error.contains(sent), "{path}: {error}");
    }
    assert_eq!(tls.with("/a%2F..", "q=1").expect("as it is").path(), "/a%2F..");
}

fn get(url: &ServiceUrl) -> Exchange {
    Exchange::new("ask", Method::GET, url.clone(), |_| None)
}

#[tokio::test]
async fn row36_a_service_elsewhere_does_not_lead_to_this_machine() {
    let (proxy, local) = (TestRegistry::start(), TestRegistry::start());
    let dir = tempfile::tempdir().expect("a directory");
    let client = through(&proxy, &dir, Credentials::default());
    let service = ServiceUrl::given("http://service.invalid/v2/").expect("a URL");
    for to in spellings(&local) {
        let named = service.named(&format!("{to}/v2/")).expect(&to);
        let error = client
            .exchange(Patience::default(), || Ok(get(&named)))
            .await
            .expect_err(&to);
        assert!(
            matches!(error, RelayError::Request(RegistryError::Address { .. })),
            "{to}: {error}"
        );
    }
    // A redirect is an answer without success: what was signed for one place is good for no other.
    proxy.fault(Fault::redirect(
        "GET",
        "/v2/",
        &format!("http://{}/v2/", local.host()),
    ));
    let error = client
        .exchange(Patience::default(), || {
            get(&service).header("authorization", "canary")
        })
        .await
        .expect_err("a redirect");
    assert!(!error.to_string().contains("canary"), "{error}");
    assert_eq!(local.requests().len(), 0, "{:?}", local.requests());
    proxy.clear_faults();
    client
        .exchange(Patience::default(), || Ok(get(&service)))
        .await
        .expect("the twin");
}

/// The files of `certs.d` for `host`.
fn certificates(etc: &Path, host: &str, files: &[(&str, &str)]) {
    let dir = etc.join("docker/certs.d").join(host);
    std::fs::create_dir_all(&dir).expect("a directory");
    for (name, text) in files {
        std::fs::write(dir.join(name), text).expect("a file");
    }
}

fn of_etc(dir: &TempDir) -> RegistryConfig {
    let sources = ConfigSources {
        env: BTreeMap::new(),
        etc: dir.path().to_owned(),
    };
    RegistryConfig::load(&sources).expect("a configuration")
}

#[tokio::test]
async fn row33_a_client_certificate_is_shown_to_its_own_host_alone() {
    // Both know the authority; the second one asks who is there.
    let registry = TestRegistry::start_tls(RegistryAuth::None);
    let asking = DockerRegistry::with_client_certificates().expect("docker-registry");
    let descriptor = Descriptor::of(OCI_LAYER, b"x");
    let to = format!("https://{}/v2/a/blobs/{}", asking.host(), descriptor.digest);
    registry.fault(Fault::redirect("GET", "blobs", &to));
    let own = [
        ("ca.crt", AUTHORITY),
        ("client.cert", CLIENT_CERTIFICATE),
        ("client.key", CLIENT_KEY),
    ];
    let dir = tempfile::tempdir().expect("a directory");
    certificates(dir.path(), &registry.host(), &own);
    let name = |host: &str| Reference::parse(&format!("{host}/a")).expect("a reference");
    let behind = |client: Client| {
        let (name, descriptor) = (name(&registry.host()), descriptor.clone());
        async move { client.blob(&name, &descriptor, 9).await.expect_err("not there") }
    };
    let client = || Client::with_options(of_etc(&dir), Credentials::default(), options());
    let error = behind(client()).await;
    assert_eq!(
        error.class(),
        ErrorClass::Network,
        "nobody was shown to it: {error}"
    );
    let request = UrlRequest::new(&to).expect("a URL");
    let error = client().get_url(&request, 9, &mut Kept::default()).await;
    assert!(
        matches!(&error, Err(FetchError::Transport(inner)) if inner.class() == ErrorClass::Network),
        "{error:?}"
    );
    // The twin: its own is shown to it, also behind a redirect; a file of it is asked for without.
    certificates(dir.path(), &asking.host(), &own);
    let error = behind(client()).await;
    assert_eq!(error.class(), ErrorClass::NotFound, "{error}");
    let error = client().get_url(&request, 9, &mut Kept::default()).await;
    assert!(
        matches!(&error, Err(FetchError::Transport(inner)) if inner.class() == ErrorClass::Network),
        "a certificate of a registry is for its registry: {error:?}"
    );
}

/// Who asked for nothing gets nothing of ours, and neither does the host it leads to.
#[tokio::test]
async fn row33_credentials_are_not_for_whoever_asks_behind_a_redirect_of_an_open_registry() {
    let open = TestRegistry::start();
    let bytes = content(100);
    let descriptor = Descriptor::of(OCI_LAYER, &bytes);
    open.put_blob("a", &bytes);
    let name = Reference::parse(&open.reference("a")).expect("a reference");
    for auth in [
        RegistryAuth::basic("ann", "s3cret"),
        RegistryAuth::bearer("ann", "s3cret"),
    ] {
        let asking = TestRegistry::start_with(auth);
        asking.put_blob("a", &bytes);
        let to = format!("http://{}/v2/a/blobs/{}", asking.host(), descriptor.digest);
        open.clear_faults();
        open.fault(Fault::redirect("GET", "blobs", &to));
        let client = client_with_auth(&auths(&open.host(), "ann", "s3cret"));
        let error = client
            .blob(&name, &descriptor, 1 << 20)
            .await
            .expect_err("closed");
        assert_eq!(error.class(), ErrorClass::Auth, "{error}");
        assert_eq!(asking.requests().len(), 1, "{:?}", asking.requests());
        assert!(!format!("{:?}", asking.requests()).contains("s3cret"));
    }
    // The twin: asked by name, it gets what is for it.
    let asking = TestRegistry::start_with(RegistryAuth::bearer("ann", "s3cret"));
    asking.put_blob("a", &bytes);
    let name = Reference::parse(&asking.reference("a")).expect("a reference");
    let client = client_with_auth(&auths(&asking.host(), "ann", "s3cret"));
    let got = client.blob(&name, &descriptor, 1 << 20).await;
    assert_eq!(got.expect("open to us"), bytes);
}

#[tokio::test]
async fn row33_an_insecure_registry_makes_no_other_host_insecure() {
    let (registry, storage) = (TestRegistry::start(), TestRegistry::start_tls(RegistryAuth::None));
    let descriptor = Descriptor::of(OCI_LAYER, b"x");
    storage.put_blob("a", b"x");
    let to = format!("https://{}/v2/a/blobs/{}", storage.host(), descriptor.digest);
    registry.fault(Fault::redirect("GET", "blobs", &to));
    let with = |hosts: &[String]| {
        let mut config = RegistryConfig::default();
        for host in hosts {
            config.set_insecure(host);
        }
        Client::with_options(config, Credentials::default(), options())
    };
    let name = Reference::parse(&registry.reference("a")).expect("a reference");
    let error = with(&[registry.host()]).blob(&name, &descriptor, 9).await;
    let error = error.expect_err("nobody vouches for the other");
    assert_eq!(error.class(), ErrorClass::Network, "{error}");
    assert_eq!(storage.requests().len(), 0);
    let both = with(&[registry.host(), storage.host()]);
    both.blob(&name, &descriptor, 9)
        .await
        .expect("the twin: both are");
}
