//! Authentication: every flow, and what the user is told when it fails.

use rbuild_oci::Descriptor;
use rbuild_oci::media_type::OCI_LAYER;
use rbuild_registry::{ErrorClass, PushBlobOptions, PushedBlob};
use rbuild_testkit::registry::{Fault, ImageSpec, RegistryAuth, TestRegistry};

use super::setup::{auths, client, client_with_auth, content, pull, quiet, reference};

#[tokio::test]
async fn basic_authentication() {
    let registry = TestRegistry::start_with(RegistryAuth::basic("ann", "pw:1"));
    let put = registry.put_image("a", "1", &ImageSpec::default());
    let client = client_with_auth(&auths(&registry.host(), "ann", "pw:1"));
    let pulled = client
        .manifest(&reference(&registry, "a:1"))
        .await
        .expect("authenticated");
    assert_eq!(pulled.descriptor.digest, put.root.digest);
    let first = registry
        .requests()
        .into_iter()
        .find(|r| r.path.contains("manifests"))
        .expect("a request");
    assert_eq!(first.header("authorization"), None, "nothing is sent unasked");
}

#[tokio::test]
async fn one_token_serves_a_whole_pull() {
    let registry = TestRegistry::start_with(RegistryAuth::bearer("ann", "pw"));
    let spec = ImageSpec {
        layers: vec![content(100), content(200)],
        index: true,
        ..ImageSpec::default()
    };
    registry.put_image("a/b", "1", &spec);
    let client = client_with_auth(&auths(&registry.host(), "ann", "pw"));
    let (manifest, _) = pull(&client, &reference(&registry, "a/b:1")).await;
    let fetches = manifest.layers.iter().map(|layer| {
        let (client, reference) = (client.clone(), reference(&registry, "a/b"));
        async move { client.blob(&reference, layer, 1 << 20).await.expect("a layer") }
    });
    assert_eq!(futures_util::future::join_all(fetches).await.len(), 2);
    assert_eq!(registry.count("GET", "/token"), 1);
    let asked = registry
        .requests()
        .into_iter()
        .find(|r| r.path.starts_with("/token"))
        .expect("asked");
    assert!(
        asked.path.contains("scope=repository%3Aa%2Fb%3Apull&"),
        "{}",
        asked.path
    );
    assert!(
        asked.path.contains("service=test") && asked.path.contains("account=ann"),
        "{}",
        asked.path
    );
    assert!(
        asked
            .header("authorization")
            .is_some_and(|h| h.starts_with("Basic "))
    );
}

#[tokio::test]
async fn requests_at_once_share_one_token() {
    let registry = TestRegistry::start_with(RegistryAuth::bearer("ann", "pw"));
    let blobs: Vec<_> = (1..20).map(|size| content(size * 10)).collect();
    for bytes in &blobs {
        registry.put_blob("a", bytes);
    }
    let client = client_with_auth(&auths(&registry.host(), "ann", "pw"));
    let fetches = blobs.iter().map(|bytes| {
        let (client, reference) = (client.clone(), reference(&registry, "a"));
        async move {
            client
                .blob(&reference, &Descriptor::of(OCI_LAYER, bytes), 1 << 20)
                .await
                .expect("a blob")
        }
    });
    futures_util::future::join_all(fetches).await;
    assert_eq!(registry.count("GET", "/token"), 1);
}

#[tokio::test]
async fn a_public_image_needs_no_credentials() {
    let auth = RegistryAuth::Bearer {
        user: "ann".to_owned(),
        password: "pw".to_owned(),
        identity_token: None,
        anonymous_pull: true,
        realm: None,
    };
    let registry = TestRegistry::start_with(auth);
    registry.put_image("a", "1", &ImageSpec::default());
    client()
        .resolve(&reference(&registry, "a:1"))
        .await
        .expect("public");
    assert!(
        registry
            .requests()
            .iter()
            .all(|r| r.header("authorization").is_none_or(|h| h.starts_with("Bearer ")))
    );
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post() {
    let auth = RegistryAuth::Bearer {
        user: "ann".to_owned(),
        password: "pw".to_owned(),
        identity_token: Some("refresh+me&now".to_owned()),
        anonymous_pull: false,
        realm: None,
    };
    let registry = TestRegistry::start_with(auth);
    registry.put_image("a", "1", &ImageSpec::default());
    let config = serde_json::json!({"auths": {registry.host(): {"identitytoken": "refresh+me&now"}}});
    client_with_auth(&config.to_string())
        .resolve(&reference(&registry, "a:1"))
        .await
        .expect("exchanged");
    assert_eq!(
        (registry.count("POST", "/token"), registry.count("GET", "/token")),
        (1, 0)
    );
}

#[tokio::test]
async fn a_token_that_ended_is_replaced() {
    let registry = TestRegistry::start_with(RegistryAuth::bearer("ann", "pw"));
    registry.put_image("a", "1", &ImageSpec::default());
    let client = client_with_auth(&auths(&registry.host(), "ann", "pw"));
    let reference = reference(&registry, "a:1");
    client.resolve(&reference).await.expect("first token");
    registry.expire_tokens();
    client.resolve(&reference).await.expect("second token");
    assert_eq!(registry.count("GET", "/token"), 2);
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_of_a_push_is_replaced() {
    let registry = TestRegistry::start_with(RegistryAuth::bearer("ann", "pw"));
    let client = client_with_auth(&auths(&registry.host(), "ann", "pw"));
    let bytes = content(500_000);
    let unauthorized = format!(
        "Bearer realm=\"http://{}/token\",service=\"test\"",
        registry.host()
    );
    registry.fault(Fault::status("PUT", "uploads", 401, ("www-authenticate", &unauthorized), "").times(1));
    let source: std::sync::Arc<dyn rbuild_registry::BlobSource> = std::sync::Arc::new(bytes.clone());
    let options = PushBlobOptions {
        mount_from: Some("base".to_owned()),
        ..PushBlobOptions::default()
    };
    let descriptor = Descriptor::of(OCI_LAYER, &bytes);
    let pushed = client
        .push_blob(
            &reference(&registry, "a"),
            &descriptor,
            &source,
            &options,
            &quiet(),
        )
        .await;
    assert_eq!(pushed.expect("pushed"), PushedBlob::Uploaded);
    assert_eq!(registry.blob("a", &descriptor.digest), Some(bytes));
    let mount = registry
        .requests()
        .into_iter()
        .find(|r| r.path.contains("base%3Apull"))
        .expect("a token for both");
    assert!(
        mount
            .path
            .contains("scope=repository%3Aa%3Apull%2Cpush&scope=repository%3Abase%3Apull"),
        "{}",
        mount.path
    );
}

#[tokio::test]
async fn wrong_credentials_are_named() {
    let registry = TestRegistry::start_with(RegistryAuth::basic("ann", "pw"));
    let client = client_with_auth(&auths(&registry.host(), "ann", "wrong"));
    let error = client
        .resolve(&reference(&registry, "a:1"))
        .await
        .expect_err("wrong");
    assert_eq!(error.class(), ErrorClass::Auth);
    let text = error.to_string();
    assert!(
        text.contains("DOCKER_AUTH_CONFIG") && text.contains("401") && !text.contains("wrong"),
        "{text}"
    );

    let registry = TestRegistry::start_with(RegistryAuth::bearer("ann", "pw"));
    let client = client_with_auth(&auths("other.example", "ann", "pw"));
    let error = client
        .resolve(&reference(&registry, "a:1"))
        .await
        .expect_err("none for this host");
    assert_eq!(error.class(), ErrorClass::Auth);
    let text = error.to_string();
    assert!(
        text.contains(&format!("no credentials for {}", registry.host())),
        "{text}"
    );
    assert!(
        registry
            .requests()
            .iter()
            .all(|r| r.header("authorization").is_none())
    );
}

#[tokio::test]
async fn a_token_server_that_wants_a_form_gets_the_password_in_one() {
    for status in [401, 404, 405] {
        let registry = TestRegistry::start_with(RegistryAuth::bearer("ann", "p&w="));
        registry.put_image("a", "1", &ImageSpec::default());
        registry.fault(Fault::status("GET", "/token", status, ("x", "y"), ""));
        client_with_auth(&auths(&registry.host(), "ann", "p&w="))
            .resolve(&reference(&registry, "a:1"))
            .await
            .unwrap_or_else(|error| panic!("{status}: {error}"));
        assert_eq!(registry.count("POST", "/token"), 1);
        assert!(
            registry
                .requests()
                .iter()
                .all(|request| !request.path.contains("p%26w")),
            "no password in a URL"
        );
    }
    // A server that refuses is not one that wants something else; and where the form does not help either, the first
    // answer is told.
    let registry = TestRegistry::start_with(RegistryAuth::bearer("ann", "pw"));
    let client = client_with_auth(&auths(&registry.host(), "ann", "wrong"));
    registry.fault(Fault::status("POST", "/token", 404, ("x", "y"), "no such page"));
    let error = client
        .resolve(&reference(&registry, "a:1"))
        .await
        .expect_err("wrong");
    assert_eq!(error.class(), ErrorClass::Auth);
    assert!(
        error.to_string().contains("401") && !error.to_string().contains("no such page"),
        "{error}"
    );
    registry.clear_requests();
    registry.fault(Fault::status("GET", "/token", 403, ("x", "y"), ""));
    client
        .resolve(&reference(&registry, "a:1"))
        .await
        .expect_err("forbidden");
    assert_eq!(registry.count("POST", "/token"), 0);
}

#[tokio::test]
async fn a_registry_that_takes_no_token_is_not_asked_without_end() {
    let registry = TestRegistry::start_with(RegistryAuth::bearer("ann", "pw"));
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"test\",error=\"insufficient_scope\"",
        registry.host()
    );
    registry.fault(Fault::status(
        "GET",
        "/manifests/",
        401,
        ("www-authenticate", &challenge),
        "",
    ));
    let client = client_with_auth(&auths(&registry.host(), "ann", "pw"));
    let error = client
        .manifest(&reference(&registry, "a:1"))
        .await
        .expect_err("never enough");
    assert_eq!(error.class(), ErrorClass::Auth);
    assert_eq!(
        registry.count("GET", "/manifests/"),
        3,
        "once without, and with two tokens"
    );
    assert_eq!(registry.count("GET", "/token"), 2);
}

#[tokio::test]
async fn every_request_of_a_push_may_find_its_token_ended() {
    let registry = TestRegistry::start_with(RegistryAuth::bearer("ann", "pw"));
    let client = client_with_auth(&auths(&registry.host(), "ann", "pw"));
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"test\"",
        registry.host()
    );
    let requests = [
        ("HEAD", "/blobs/"),
        ("POST", "/uploads/"),
        ("PATCH", "/uploads/"),
        ("PUT", "/uploads/"),
    ];
    for (method, part) in requests {
        registry.fault(Fault::status(method, part, 401, ("www-authenticate", &challenge), "").times(1));
    }
    let bytes = content(150_000);
    let descriptor = Descriptor::of(OCI_LAYER, &bytes);
    let source: std::sync::Arc<dyn rbuild_registry::BlobSource> = std::sync::Arc::new(bytes.clone());
    let options = PushBlobOptions {
        chunk_bytes: Some(70_000),
        ..PushBlobOptions::default()
    };
    let name = reference(&registry, "a");
    let pushed = client
        .push_blob(&name, &descriptor, &source, &options, &quiet())
        .await;
    assert_eq!(pushed.expect("pushed"), PushedBlob::Uploaded);
    assert_eq!(registry.blob("a", &descriptor.digest), Some(bytes));
    assert!(
        registry.count("GET", "/token") == requests.len(),
        "each 401 was answered by a new token"
    );
}

#[tokio::test]
async fn who_may_not_read_the_other_repository_uploads() {
    let registry = TestRegistry::start_with(RegistryAuth::bearer("ann", "pw"));
    let bytes = content(1000);
    let descriptor = Descriptor::of(OCI_LAYER, &bytes);
    let source: std::sync::Arc<dyn rbuild_registry::BlobSource> = std::sync::Arc::new(bytes.clone());
    let options = PushBlobOptions {
        mount_from: Some("secret/base".to_owned()),
        ..PushBlobOptions::default()
    };
    for (at, fault) in [
        // The token server gives none for both; the registry forbids; it has no such repository; it fails.
        Fault::status("GET", "secret", 403, ("x", "y"), ""),
        Fault::status("POST", "mount=", 403, ("x", "y"), ""),
        Fault::status("POST", "mount=", 404, ("x", "y"), ""),
        Fault::status("POST", "mount=", 500, ("x", "y"), ""),
    ]
    .into_iter()
    .enumerate()
    {
        registry.clear_faults();
        registry.fault(fault);
        let client = client_with_auth(&auths(&registry.host(), "ann", "pw"));
        let name = format!("mine-{at}");
        let pushed = client
            .push_blob(
                &reference(&registry, &name),
                &descriptor,
                &source,
                &options,
                &quiet(),
            )
            .await;
        assert_eq!(
            pushed.unwrap_or_else(|error| panic!("{at}: {error}")),
            PushedBlob::Uploaded
        );
        assert_eq!(registry.blob(&name, &descriptor.digest), Some(bytes.clone()));
    }
}
