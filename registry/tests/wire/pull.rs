//! Resolving and pulling: what works, and what is tried again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rbuild_oci::media_type::OCI_LAYER;
use rbuild_oci::{Descriptor, Digest, Reference};
use rbuild_registry::{
    Client, ClientOptions, ConfigSources, Credentials, ErrorClass, Progress, RegistryConfig, RegistryError,
    USER_AGENT,
};
use rbuild_testkit::registry::{Fault, FaultAction, ImageSpec, TestRegistry};

use super::setup::{client, content, options, pull, quiet, reference, registries_conf};

#[tokio::test]
async fn an_image_is_resolved_and_pulled() {
    let registry = TestRegistry::start();
    let spec = ImageSpec {
        layers: vec![content(1000), content(5000)],
        index: true,
        ..ImageSpec::default()
    };
    let put = registry.put_image("a/b", "1", &spec);
    let client = client();
    let reference = reference(&registry, "a/b:1");
    let resolved = client.resolve(&reference).await.expect("resolved");
    assert_eq!(
        (&resolved.descriptor.digest, resolved.descriptor.size),
        (&put.root.digest, put.root.size)
    );
    assert_eq!(resolved.descriptor.media_type, put.root.media_type);
    assert_eq!(registry.count("GET", "manifests"), 0, "the head is enough");
    let (manifest, config) = pull(&client, &reference).await;
    assert_eq!((&manifest, config), (&put.manifest, put.config));
    let seen: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let watch = Arc::clone(&seen);
    let progress: Progress = Arc::new(move |done, all| watch.lock().expect("no panic").push((done, all)));
    for layer in &manifest.layers {
        let mut bytes = Vec::new();
        client
            .fetch_blob_to(&reference, layer, &mut bytes, &progress)
            .await
            .expect("a layer");
        assert_eq!(Digest::sha256(&bytes), layer.digest);
    }
    let last = seen.lock().expect("no panic").last().copied();
    assert_eq!(last.map(|(done, all)| done == all), Some(true));
    let agents = registry
        .requests()
        .into_iter()
        .map(|r| r.header("user-agent").unwrap_or_default().to_owned());
    assert!(agents.into_iter().all(|agent| agent == USER_AGENT));
}

#[tokio::test]
async fn a_registry_without_digest_headers_is_read_too() {
    let registry = TestRegistry::start();
    let put = registry.put_image("a", "1", &ImageSpec::default());
    registry.fault(Fault::new(
        "",
        "manifests",
        FaultAction::NoHeader("docker-content-digest".to_owned()),
    ));
    let resolved = client()
        .resolve(&reference(&registry, "a:1"))
        .await
        .expect("by its content");
    assert_eq!(resolved.descriptor.digest, put.root.digest);
    assert_eq!(registry.count("GET", "manifests"), 1);
}

#[tokio::test]
async fn what_is_missing_is_not_found_at_once() {
    let registry = TestRegistry::start();
    let error = client()
        .manifest(&reference(&registry, "a:none"))
        .await
        .expect_err("no such tag");
    assert_eq!(error.class(), ErrorClass::NotFound);
    assert!(
        error.to_string().contains("MANIFEST_UNKNOWN: manifest unknown"),
        "{error}"
    );
    assert_eq!(
        registry.count("GET", "manifests"),
        1,
        "asking again would not help"
    );
}

#[tokio::test]
async fn failures_that_pass_are_tried_again() {
    for action in [
        FaultAction::Reset,
        FaultAction::Respond {
            status: 503,
            headers: Vec::new(),
            body: Vec::new(),
        },
        FaultAction::Respond {
            status: 429,
            headers: vec![("retry-after".to_owned(), "0".to_owned())],
            body: Vec::new(),
        },
        FaultAction::Truncate(10),
    ] {
        let registry = TestRegistry::start();
        let put = registry.put_image("a", "1", &ImageSpec::default());
        registry.fault(Fault::new("GET", "manifests", action.clone()).times(3));
        let pulled = client()
            .manifest(&reference(&registry, "a:1"))
            .await
            .unwrap_or_else(|e| panic!("{action:?}: {e}"));
        assert_eq!(pulled.descriptor.digest, put.root.digest);
        assert_eq!(registry.count("GET", "manifests"), 4);
    }
}

#[tokio::test]
async fn failures_that_stay_are_given_up() {
    let registry = TestRegistry::start();
    registry.fault(Fault::status(
        "GET",
        "manifests",
        502,
        ("x-y", "z"),
        "bad \u{1b}[31m gateway",
    ));
    let error = client()
        .manifest(&reference(&registry, "a:1"))
        .await
        .expect_err("it stays");
    assert_eq!(registry.count("GET", "manifests"), 5);
    assert_eq!(error.class(), ErrorClass::Server);
    assert!(
        error.is_temporary() && error.to_string().ends_with("bad \\u{1b}[31m gateway"),
        "{error}"
    );
    registry.clear_faults();
    registry.clear_requests();
    registry.fault(Fault::status("GET", "manifests", 418, ("x-y", "z"), ""));
    client()
        .manifest(&reference(&registry, "a:1"))
        .await
        .expect_err("not temporary");
    assert_eq!(registry.count("GET", "manifests"), 1);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let registry = TestRegistry::start();
    registry.put_image("a", "1", &ImageSpec::default());
    registry.fault(Fault::new(
        "GET",
        "manifests",
        FaultAction::Delay(Duration::from_secs(30)),
    ));
    let mut options = options();
    options.idle_timeout = Duration::from_millis(200);
    options.attempts = 2;
    let client = Client::with_options(registries_conf(""), Credentials::default(), options);
    let started = Instant::now();
    let error = client
        .manifest(&reference(&registry, "a:1"))
        .await
        .expect_err("silence");
    assert!(matches!(error, RegistryError::Timeout { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    let registry = TestRegistry::start();
    let bytes = content(300_000);
    let descriptor = Descriptor::of(OCI_LAYER, &bytes);
    registry.put_blob("a", &bytes);
    registry.fault(Fault::new("GET", "blobs", FaultAction::Truncate(100_000)).times(2));
    let mut got = Vec::new();
    client()
        .fetch_blob_to(&reference(&registry, "a"), &descriptor, &mut got, &quiet())
        .await
        .expect("resumed");
    assert_eq!(got, bytes);
    let ranges: Vec<_> = registry
        .requests()
        .iter()
        .filter_map(|r| r.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    assert!(ranges[0] < ranges[1], "each goes on later: {ranges:?}");
}

#[tokio::test]
async fn a_server_without_ranges_sends_the_whole_again() {
    let registry = TestRegistry::start();
    let bytes = content(50_000);
    let descriptor = Descriptor::of(OCI_LAYER, &bytes);
    registry.put_blob("a", &bytes);
    let whole = FaultAction::Respond {
        status: 200,
        headers: Vec::new(),
        body: bytes.clone(),
    };
    registry.fault(Fault::new("GET", "blobs", FaultAction::Truncate(20_000)).times(1));
    registry.fault(Fault::new("GET", "blobs", whole));
    let mut got = Vec::new();
    client()
        .fetch_blob_to(&reference(&registry, "a"), &descriptor, &mut got, &quiet())
        .await
        .expect("from the start");
    assert_eq!(got, bytes);
}

#[tokio::test]
async fn downloads_that_get_nowhere_end() {
    let registry = TestRegistry::start();
    let bytes = content(50_000);
    registry.put_blob("a", &bytes);
    registry.fault(Fault::new("GET", "blobs", FaultAction::Reset));
    let descriptor = Descriptor::of(OCI_LAYER, &bytes);
    let error = client()
        .blob(&reference(&registry, "a"), &descriptor, 1 << 20)
        .await
        .expect_err("no progress");
    assert_eq!(error.class(), ErrorClass::Network);
    assert_eq!(registry.count("GET", "blobs"), 5);
}

#[tokio::test]
async fn mirrors_are_asked_first_and_the_registry_last() {
    let (origin, mirror) = (TestRegistry::start(), TestRegistry::start());
    let put = mirror.put_image("cache/app", "1", &ImageSpec::default());
    let other = origin.put_image("app", "2", &ImageSpec::default());
    let config = registries_conf(&format!(
        "[[registry]]\nlocation=\"{}\"\n[[registry.mirror]]\nlocation=\"127.0.0.1:1/dead\"\n[[registry.mirror]]\nlocation=\"{}/cache\"\n",
        origin.host(),
        mirror.host()
    ));
    let client = Client::with_options(config, Credentials::default(), options());
    let pulled = client
        .manifest(&reference(&origin, "app:1"))
        .await
        .expect("from the mirror");
    assert_eq!(pulled.descriptor.digest, put.root.digest);
    assert_eq!(pulled.endpoint.host, mirror.host());
    assert_eq!(origin.requests().len(), 0);
    let pulled = client
        .manifest(&reference(&origin, "app:2"))
        .await
        .expect("from the registry");
    assert_eq!(pulled.descriptor.digest, other.root.digest);
    let error = client
        .manifest(&reference(&origin, "app:3"))
        .await
        .expect_err("nowhere");
    assert_eq!(error.class(), ErrorClass::NotFound);
    let text = error.to_string();
    assert!(
        text.contains(&format!("mirror {}", mirror.host())) && !text.contains("127.0.0.1:1"),
        "{text}"
    );
}

#[tokio::test]
async fn an_unreachable_registry_is_named_with_its_file() {
    let config = registries_conf("[[registry]]\nprefix=\"docker.io\"\nlocation=\"127.0.0.1:1/hub\"\n");
    let mut options = options();
    options.attempts = 1;
    let client = Client::with_options(config, Credentials::default(), options);
    let error = client
        .manifest(&Reference::parse("debian").expect("a name"))
        .await
        .expect_err("nobody there");
    assert_eq!(error.class(), ErrorClass::Network);
    let text = error.to_string();
    assert!(
        text.contains("127.0.0.1:1") && text.contains("registries.conf"),
        "{text}"
    );
}

#[tokio::test]
async fn localhost_needs_no_name_server() {
    let registry = TestRegistry::start();
    let put = registry.put_image("a", "1", &ImageSpec::default());
    let name = format!(
        "localhost:{}/a:1",
        registry.host().rsplit(':').next().expect("a port")
    );
    let reference = Reference::parse(&name).expect("a reference");
    let resolved = client().resolve(&reference).await.expect("resolved");
    assert_eq!(resolved.descriptor.digest, put.root.digest);
}

#[tokio::test]
async fn a_redirect_to_a_content_network_is_followed() {
    let (registry, cdn) = (TestRegistry::start(), TestRegistry::start());
    let bytes = content(10_000);
    let descriptor = Descriptor::of(OCI_LAYER, &bytes);
    cdn.put_blob("store", &bytes);
    let to = format!(
        "http://{}/v2/store/blobs/{}?sig=secret",
        cdn.host(),
        descriptor.digest
    );
    registry.fault(Fault::redirect("GET", "blobs", &to));
    let got = client()
        .blob(&reference(&registry, "a"), &descriptor, 1 << 20)
        .await
        .expect("from the other host");
    assert_eq!(got, bytes);
}

#[tokio::test]
async fn a_server_that_asks_to_wait_is_waited_for() {
    let registry = TestRegistry::start();
    registry.put_image("a", "1", &ImageSpec::default());
    let busy = Fault::status("GET", "manifests", 429, ("retry-after", "1"), "");
    registry.fault(busy.times(1));
    let patient = ClientOptions {
        backoff_max: Duration::from_secs(5),
        ..options()
    };
    let client = Client::with_options(RegistryConfig::default(), Credentials::default(), patient);
    let start = Instant::now();
    client
        .manifest(&reference(&registry, "a:1"))
        .await
        .expect("later");
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_server_may_name_the_time_to_wait_for_but_not_any() {
    let registry = TestRegistry::start();
    registry.put_image("a", "1", &ImageSpec::default());
    // A time that is over: at once. Neither seconds nor a time: our own wait.
    for value in ["Sun, 06 Nov 1994 08:49:37 GMT", "soon", "-5"] {
        registry.fault(Fault::status("GET", "manifests", 503, ("retry-after", value), "").times(1));
        client()
            .manifest(&reference(&registry, "a:1"))
            .await
            .expect(value);
    }
    registry.clear_requests();
    registry.fault(Fault::status(
        "GET",
        "manifests",
        429,
        ("retry-after", "3600"),
        "",
    ));
    let start = Instant::now();
    let error = client()
        .manifest(&reference(&registry, "a:1"))
        .await
        .expect_err("an hour");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert_eq!(registry.count("GET", "manifests"), 1, "it wants to be left alone");
    assert_eq!(error.class(), ErrorClass::Server);
    assert!(error.to_string().contains("3600 s"), "{error}");
}

#[tokio::test]
async fn a_proxy_is_used_but_for_hosts_it_is_not_for() {
    // The registry itself plays the proxy: what it is asked names the host that was meant.
    let registry = TestRegistry::start();
    registry.put_image("a", "1", &ImageSpec::default());
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("buildkitd.toml");
    std::fs::write(&file, "[registry.\"registry.invalid\"]\nhttp = true\n").expect("a file");
    let with = |more: &[(&str, &str)]| {
        let mut env = BTreeMap::from([
            ("HTTP_PROXY".to_owned(), format!("http://{}", registry.host())),
            ("BUILDKITD_CONFIG".to_owned(), file.display().to_string()),
        ]);
        env.extend(
            more.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let sources = ConfigSources {
            env,
            etc: "/nowhere".into(),
        };
        let config = RegistryConfig::load(&sources).expect("a configuration");
        Client::with_options(config, Credentials::default(), options())
    };
    let name = Reference::parse("registry.invalid/a:1").expect("a reference");
    with(&[]).manifest(&name).await.expect("through the proxy");
    let asked = registry.requests().len();
    let error = with(&[("no_proxy", "registry.invalid")]).manifest(&name).await;
    assert_eq!(
        error.expect_err("there is no such host").class(),
        ErrorClass::Network
    );
    assert_eq!(registry.requests().len(), asked);
}
