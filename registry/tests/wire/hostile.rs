//! Registries that lie: security rows 31 to 34, each with what is legal beside it.

use rbuild_oci::media_type::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use rbuild_oci::{Descriptor, Reference};
use rbuild_registry::{ErrorClass, PushBlobOptions, RegistryError};
use rbuild_testkit::registry::{Fault, FaultAction, ImageSpec, RegistryAuth, TestRegistry};

use super::setup::{auths, client, client_with_auth, content, quiet, reference};

/// Nothing that proves who we are to `A` may have come to this registry.
fn assert_no_secrets(b: &TestRegistry) {
    for request in b.requests() {
        for name in ["authorization", "cookie", "proxy-authorization"] {
            assert_eq!(request.header(name), None, "{} {}", request.method, request.path);
        }
        assert!(!format!("{request:?}").contains("s3cret"), "{request:?}");
    }
}

#[tokio::test]
async fn row31_digest_headers_are_parsed() {
    let hex = "a".repeat(64);
    for bad in [
        "sha256:../../../../canary/x".to_owned(),
        format!("sha256:{}", &hex[1..]),
        format!("sha256:{hex}a"),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{}%2f", &hex[3..]),
        "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        String::new(),
        "x:y".to_owned(),
    ] {
        let registry = TestRegistry::start();
        registry.put_image("a", "1", &ImageSpec::default());
        registry.fault(Fault::new(
            "",
            "manifests",
            FaultAction::Header("docker-content-digest".to_owned(), bad.clone()),
        ));
        let error = client()
            .resolve(&reference(&registry, "a:1"))
            .await
            .expect_err(&bad);
        assert!(matches!(error, RegistryError::Protocol { .. }), "{bad}: {error}");
        let error = client()
            .manifest(&reference(&registry, "a:1"))
            .await
            .expect_err(&bad);
        assert!(matches!(error, RegistryError::Protocol { .. }), "{bad}: {error}");
        assert!(registry.requests().iter().all(|r| !r.path.contains("canary")));
    }
}

/// Whoever asks by digest is not told of another, even before there is content to look at.
#[tokio::test]
async fn row31_a_head_of_another_digest_is_refused() {
    let registry = TestRegistry::start();
    let put = registry.put_image("a", "1", &ImageSpec::default());
    let other = rbuild_oci::Digest::sha256(b"other");
    let name = reference(&registry, &format!("a@{}", put.root.digest));
    let lie = FaultAction::Header("docker-content-digest".to_owned(), other.to_string());
    registry.fault(Fault::new("HEAD", "manifests", lie));
    let error = client().resolve(&name).await.expect_err("another");
    assert!(
        matches!(&error, RegistryError::WrongDigest { found, expected, .. } if *found == other && *expected == put.root.digest),
        "{error}"
    );
    registry.clear_faults();
    let resolved = client().resolve(&name).await.expect("the legal twin");
    assert_eq!(resolved.descriptor.digest, put.root.digest);
}

#[tokio::test]
async fn row31_content_with_another_digest_is_refused() {
    let registry = TestRegistry::start();
    let bytes = content(10_000);
    registry.put_blob("a", &bytes);
    let put = registry.put_image("a", "1", &ImageSpec::default());
    let descriptor = Descriptor::of(OCI_LAYER, &bytes);
    registry.fault(Fault::new("GET", "blobs", FaultAction::Flip(9_999)));
    let error = client()
        .blob(&reference(&registry, "a"), &descriptor, 1 << 20)
        .await
        .expect_err("the last byte");
    assert!(matches!(error, RegistryError::WrongDigest { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Content);
    assert_eq!(registry.count("GET", "blobs"), 1, "it would not become right");
    registry.fault(Fault::new("GET", "manifests", FaultAction::Flip(3)));
    for name in ["a:1".to_owned(), format!("a@{}", put.root.digest)] {
        let error = client()
            .manifest(&reference(&registry, &name))
            .await
            .expect_err("a flipped bit");
        assert!(matches!(error, RegistryError::WrongDigest { .. }), "{error}");
    }
    registry.clear_faults();
    client()
        .blob(&reference(&registry, "a"), &descriptor, 1 << 20)
        .await
        .expect("the legal twin");
}

#[tokio::test]
async fn row31_parts_of_two_objects_are_not_joined() {
    let registry = TestRegistry::start();
    let bytes = content(100_000);
    let descriptor = Descriptor::of(OCI_LAYER, &bytes);
    registry.put_blob("a", &bytes);
    registry.fault(Fault::new("GET", "blobs", FaultAction::Truncate(40_000)).times(1));
    let part = |from: usize, bytes: &[u8]| {
        let range = format!("bytes {from}-{}/{}", from + bytes.len() - 1, from + bytes.len());
        FaultAction::Respond {
            status: 206,
            headers: vec![("content-range".to_owned(), range)],
            body: bytes.to_vec(),
        }
    };
    registry.fault(Fault::new("GET", "blobs", part(40_000, &vec![7; 60_000])).times(1));
    let got = client()
        .blob(&reference(&registry, "a"), &descriptor, 1 << 20)
        .await
        .expect("the whole, once more");
    assert_eq!(got, bytes);

    // A server that always joins something else never gets it accepted.
    registry.clear_faults();
    registry.fault(Fault::new("GET", "blobs", FaultAction::Truncate(40_000)).times(1));
    registry.fault(Fault::new("GET", "blobs", part(40_000, &vec![7; 60_000])).times(1));
    registry.fault(Fault::new("GET", "blobs", FaultAction::Flip(0)));
    let error = client()
        .blob(&reference(&registry, "a"), &descriptor, 1 << 20)
        .await
        .expect_err("never right");
    assert!(matches!(error, RegistryError::WrongDigest { .. }), "{error}");

    // Nor does one that answers with another range.
    registry.clear_faults();
    registry.fault(Fault::new("GET", "blobs", FaultAction::Truncate(40_000)).times(1));
    registry.fault(Fault::new("GET", "blobs", part(0, &bytes)).times(1));
    let got = client()
        .blob(&reference(&registry, "a"), &descriptor, 1 << 20)
        .await
        .expect("asked for the whole");
    assert_eq!(got, bytes);
}

#[tokio::test]
async fn row32_sizes_must_be_the_descriptors() {
    let registry = TestRegistry::start();
    let bytes = content(50_000);
    let right = Descriptor::of(OCI_LAYER, &bytes);
    registry.put_blob("a", &bytes);
    for size in [right.size - 1, right.size + 1, 0, i64::MAX.unsigned_abs()] {
        let wrong = Descriptor {
            size,
            ..right.clone()
        };
        let mut got = Vec::new();
        let error = client()
            .fetch_blob_to(&reference(&registry, "a"), &wrong, &mut got, &quiet())
            .await;
        let error = error.expect_err("another size");
        assert!(
            matches!(error, RegistryError::WrongSize { .. }),
            "{size}: {error}"
        );
        assert!(got.is_empty(), "refused by the length it announces");
    }
    let put = registry.put_image("a", "1", &ImageSpec::default());
    for size in [put.root.size - 1, put.root.size + 1] {
        let wrong = Descriptor {
            size,
            ..put.root.clone()
        };
        let error = client()
            .manifest_of(&reference(&registry, "a"), &wrong)
            .await
            .expect_err("another size");
        assert!(
            matches!(error, RegistryError::WrongSize { .. }),
            "{size}: {error}"
        );
    }
    client()
        .manifest_of(&reference(&registry, "a"), &put.root)
        .await
        .expect("the legal twin");
}

#[tokio::test]
async fn row32_the_type_must_stay_the_same() {
    let registry = TestRegistry::start();
    let put = registry.put_image("a", "1", &ImageSpec::default());
    let client = client();
    let resolved = client
        .resolve(&reference(&registry, "a:1"))
        .await
        .expect("resolved");
    registry.fault(Fault::new(
        "GET",
        "manifests",
        FaultAction::Header("content-type".to_owned(), OCI_INDEX.to_owned()),
    ));
    let error = client
        .manifest_of(&reference(&registry, "a"), &resolved.descriptor)
        .await
        .expect_err("changed");
    assert!(matches!(error, RegistryError::Document { .. }), "{error}");
    registry.clear_faults();
    let lie = Descriptor {
        media_type: OCI_INDEX.to_owned(),
        ..put.root.clone()
    };
    let error = client
        .manifest_of(&reference(&registry, "a"), &lie)
        .await
        .expect_err("the descriptor lies");
    assert!(matches!(error, RegistryError::Document { .. }), "{error}");
}

#[tokio::test]
async fn row32_ambiguous_documents_are_refused() {
    let registry = TestRegistry::start();
    let config = Descriptor::of(OCI_CONFIG, b"{}");
    registry.put_blob("a", b"{}");
    let both = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}}"#,
        serde_json::to_string(&config).expect("json")
    );
    registry.put_manifest("a", "both", OCI_MANIFEST, both.as_bytes());
    let error = client()
        .manifest(&reference(&registry, "a:both"))
        .await
        .expect_err("both");
    assert!(matches!(error, RegistryError::Document { .. }), "{error}");
}

#[tokio::test]
async fn row33_foreign_urls_are_not_used() {
    let (a, b) = (TestRegistry::start(), TestRegistry::start());
    let bytes = content(100);
    b.put_blob("x", &bytes);
    let mut descriptor = Descriptor::of(OCI_LAYER, &bytes);
    descriptor.urls = vec![format!("http://{}/v2/x/blobs/{}", b.host(), descriptor.digest)];
    let error = client()
        .blob(&reference(&a, "a"), &descriptor, 1 << 20)
        .await
        .expect_err("only from the registry");
    assert_eq!(error.class(), ErrorClass::NotFound);
    assert_eq!(b.requests().len(), 0);
}

#[tokio::test]
async fn row33_credentials_do_not_follow_a_redirect() {
    for auth in [
        RegistryAuth::basic("ann", "s3cret"),
        RegistryAuth::bearer("ann", "s3cret"),
    ] {
        let (a, b) = (TestRegistry::start_with(auth), TestRegistry::start());
        let bytes = content(5_000);
        let descriptor = Descriptor::of(OCI_LAYER, &bytes);
        a.put_blob("a", &bytes);
        b.put_blob("a", &bytes);
        let client = client_with_auth(&auths(&a.host(), "ann", "s3cret"));
        // The first answer asks for authentication; then it redirects.
        a.fault(
            Fault::redirect(
                "GET",
                "blobs",
                &format!("http://{}/v2/a/blobs/{}", b.host(), descriptor.digest),
            )
            .skip(1),
        );
        let got = client
            .blob(&reference(&a, "a"), &descriptor, 1 << 20)
            .await
            .expect("the legal twin: without them");
        assert_eq!(got, bytes);
        assert_eq!(b.requests().len(), 1);
        for challenge in [
            format!("Bearer realm=\"http://{}/token\",service=\"test\"", a.host()),
            format!("Bearer realm=\"http://{}/token\"", b.host()),
            "Basic realm=\"b\"".to_owned(),
        ] {
            b.clear_faults();
            b.fault(Fault::status(
                "GET",
                "blobs",
                401,
                ("www-authenticate", &challenge),
                "",
            ));
            let tokens = a.count("GET", "/token");
            let error = client
                .blob(&reference(&a, "a"), &descriptor, 1 << 20)
                .await
                .expect_err(&challenge);
            assert_eq!(error.class(), ErrorClass::Auth, "{error}");
            assert_eq!(a.count("GET", "/token"), tokens, "its challenge is not answered");
            assert_eq!(b.count("GET", "/token"), 0);
        }
        assert_no_secrets(&b);
    }
}

#[tokio::test]
async fn row33_redirects_that_are_not_followed() {
    for to in [
        "file:///canary/secret",
        "unix:///run/docker.sock",
        "ftp://127.0.0.1/x",
        "http://u:p@127.0.0.1/x",
        "http://169.254.169.254/latest",
        "http://[fe80::1]/",
        "",
    ] {
        let registry = TestRegistry::start();
        registry.fault(Fault::redirect("GET", "blobs", to));
        let descriptor = Descriptor::of(OCI_LAYER, b"x");
        let error = client()
            .blob(&reference(&registry, "a"), &descriptor, 1 << 20)
            .await
            .expect_err(to);
        assert_eq!(error.class(), ErrorClass::Content, "{to}: {error}");
        assert_eq!(registry.count("GET", "blobs"), 1);
    }
    let registry = TestRegistry::start();
    registry.fault(Fault::redirect("GET", "blobs", "/v2/a/blobs/again"));
    let error = client()
        .blob(&reference(&registry, "a"), &Descriptor::of(OCI_LAYER, b"x"), 9)
        .await;
    assert!(matches!(
        error.expect_err("in circles"),
        RegistryError::Redirect { .. }
    ));
    assert_eq!(registry.count("GET", "blobs"), 11);
}

#[tokio::test]
async fn row33_an_upload_elsewhere_gets_no_credentials() {
    let (a, b) = (
        TestRegistry::start_with(RegistryAuth::basic("ann", "s3cret")),
        TestRegistry::start(),
    );
    let bytes = content(5_000);
    let descriptor = Descriptor::of(OCI_LAYER, &bytes);
    let client = client_with_auth(&auths(&a.host(), "ann", "s3cret"));
    let to = format!("http://{}/v2/a/blobs/uploads/x?_state=s%2F1", b.host());
    a.fault(Fault::status("POST", "uploads", 202, ("location", &to), ""));
    b.fault(Fault::status(
        "PUT",
        "uploads",
        401,
        ("www-authenticate", "Basic realm=\"b\""),
        "",
    ));
    let source: std::sync::Arc<dyn rbuild_registry::BlobSource> = std::sync::Arc::new(bytes);
    let error = client
        .push_blob(
            &reference(&a, "a"),
            &descriptor,
            &source,
            &PushBlobOptions::default(),
            &quiet(),
        )
        .await
        .expect_err("it wants credentials that are not for it");
    assert_eq!(error.class(), ErrorClass::Auth, "{error}");
    assert_no_secrets(&b);
    for to in ["file:///canary/x", "http://169.254.169.254/x"] {
        a.clear_faults();
        a.fault(Fault::status("POST", "uploads", 202, ("location", to), ""));
        let error = client
            .push_blob(
                &reference(&a, "a"),
                &descriptor,
                &source,
                &PushBlobOptions::default(),
                &quiet(),
            )
            .await;
        assert_eq!(error.expect_err(to).class(), ErrorClass::Content);
    }
}

#[tokio::test]
async fn row34_token_servers_that_are_not_asked() {
    for realm in [
        "http://169.254.169.254/token",
        "https://u:p@127.0.0.1/token",
        "file:///canary/secret",
        "nonsense",
        "http://[fe80::1]/",
    ] {
        let auth = RegistryAuth::Bearer {
            user: "ann".to_owned(),
            password: "s3cret".to_owned(),
            identity_token: None,
            anonymous_pull: false,
            realm: Some(realm.to_owned()),
        };
        let registry = TestRegistry::start_with(auth);
        let client = client_with_auth(&auths(&registry.host(), "ann", "s3cret"));
        let error = client
            .resolve(&reference(&registry, "a:1"))
            .await
            .expect_err(realm);
        assert!(
            matches!(error, RegistryError::Challenge { .. }),
            "{realm}: {error}"
        );
        assert_no_secrets(&registry);
    }
}

#[tokio::test]
async fn row34_a_token_server_is_asked_once_and_not_followed() {
    let (a, b) = (
        TestRegistry::start_with(RegistryAuth::bearer("ann", "s3cret")),
        TestRegistry::start(),
    );
    let client = client_with_auth(&auths(&a.host(), "ann", "s3cret"));
    a.fault(Fault::redirect(
        "GET",
        "/token",
        &format!("http://{}/token", b.host()),
    ));
    let error = client
        .resolve(&reference(&a, "a:1"))
        .await
        .expect_err("a redirect");
    assert!(matches!(error, RegistryError::Token { .. }), "{error}");
    assert_eq!(b.requests().len(), 0);
    for body in [
        r#"{"token":"a\nb"}"#.to_owned(),
        "{".to_owned(),
        format!("{}{{\"token\":\"t\"}}", " ".repeat(3 << 20)),
    ] {
        a.clear_faults();
        a.fault(Fault::status(
            "GET",
            "/token",
            200,
            ("content-type", "application/json"),
            &body,
        ));
        client.resolve(&reference(&a, "a:1")).await.expect_err("no token");
        assert!(
            a.requests()
                .iter()
                .all(|r| r.header("authorization").is_none_or(|h| h.starts_with("Basic ")))
        );
    }
    a.clear_faults();
    a.put_image("a", "1", &ImageSpec::default());
    client
        .resolve(&reference(&a, "a:1"))
        .await
        .expect("the legal twin");
}

#[tokio::test]
async fn row34_the_scope_asked_for_is_our_own() {
    let registry = TestRegistry::start_with(RegistryAuth::bearer("ann", "s3cret"));
    registry.put_image("a", "1", &ImageSpec::default());
    let client = client_with_auth(&auths(&registry.host(), "ann", "s3cret"));
    let greedy = format!(
        "Bearer realm=\"http://{}/token\",service=\"test\",scope=\"repository:other:pull,push&account=root\"",
        registry.host()
    );
    registry.fault(Fault::status("HEAD", "manifests", 401, ("www-authenticate", &greedy), "").times(1));
    client
        .resolve(&reference(&registry, "a:1"))
        .await
        .expect("resolved");
    let asked = registry
        .requests()
        .into_iter()
        .find(|r| r.path.starts_with("/token"))
        .expect("asked");
    assert!(
        !asked.path.contains("other") && !asked.path.contains("root"),
        "{}",
        asked.path
    );
}

#[tokio::test]
async fn row36_a_registry_at_a_metadata_address_is_refused() {
    for name in ["169.254.169.254/a", "[fe80::1]:80/a", "[::ffff:a9fe:a9fe]/a"] {
        let error = client()
            .resolve(&Reference::parse(name).expect(name))
            .await
            .expect_err(name);
        assert!(matches!(error, RegistryError::Address { .. }), "{name}: {error}");
    }
}
