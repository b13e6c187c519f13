//! TLS: whose certificates are believed, and that nothing leaves it.

use std::collections::BTreeMap;

use rbuild_oci::Descriptor;
use rbuild_oci::media_type::OCI_LAYER;
use rbuild_registry::{Client, ConfigSources, Credentials, ErrorClass, RegistryConfig, RegistryError};
use rbuild_testkit::registry::{Fault, ImageSpec, RegistryAuth, TestRegistry};
use tempfile::TempDir;

use super::setup::{auths, client, credentials, options, reference};

/// A configuration whose `certs.d`, in `dir`, trusts the test authority for `host`.
fn trusting(dir: &TempDir, host: &str) -> RegistryConfig {
    let certs = dir.path().join("docker/certs.d").join(host);
    std::fs::create_dir_all(&certs).expect("a directory");
    std::fs::write(certs.join("ca.crt"), TestRegistry::authority_pem()).expect("a file");
    let sources = ConfigSources {
        env: BTreeMap::new(),
        etc: dir.path().to_owned(),
    };
    RegistryConfig::load(&sources).expect("a configuration")
}

#[tokio::test]
async fn a_certificate_of_certs_d_is_believed_for_its_host() {
    let registry = TestRegistry::start_tls(RegistryAuth::bearer("ann", "pw"));
    let put = registry.put_image("a", "1", &ImageSpec::default());
    let dir = tempfile::tempdir().expect("a directory");
    let client = Client::with_options(
        trusting(&dir, &registry.host()),
        credentials(&auths(&registry.host(), "ann", "pw")),
        options(),
    );
    let resolved = client
        .resolve(&reference(&registry, "a:1"))
        .await
        .expect("over TLS, token server too");
    assert_eq!(resolved.descriptor.digest, put.root.digest);
    let dir = tempfile::tempdir().expect("a directory");
    let other = Client::with_options(trusting(&dir, "127.0.0.1:1"), Credentials::default(), options());
    let error = other
        .resolve(&reference(&registry, "a:1"))
        .await
        .expect_err("for another host");
    assert_eq!(error.class(), ErrorClass::Network, "{error}");
}

#[tokio::test]
async fn a_certificate_that_signed_itself_is_believed_if_it_is_the_one_in_certs_d() {
    let registry = TestRegistry::start_self_signed(RegistryAuth::None);
    let put = registry.put_image("a", "1", &ImageSpec::default());
    let dir = tempfile::tempdir().expect("a directory");
    let resolve = |config| {
        let client = Client::with_options(config, Credentials::default(), options());
        let image = reference(&registry, "a:1");
        async move { client.resolve(&image).await }
    };
    let error = resolve(trusting(&dir, &registry.host()))
        .await
        .expect_err("another is trusted");
    let words = "x509: certificate signed by unknown authority";
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(registry.requests().len(), 0);
    let own = dir
        .path()
        .join("docker/certs.d")
        .join(registry.host())
        .join("ca.crt");
    std::fs::write(own, TestRegistry::self_signed_pem()).expect("a file");
    let sources = ConfigSources {
        env: BTreeMap::new(),
        etc: dir.path().to_owned(),
    };
    let config = RegistryConfig::load(&sources).expect("a configuration");
    let resolved = resolve(config).await.expect("believed");
    assert_eq!(resolved.descriptor.digest, put.root.digest);
}

#[tokio::test]
async fn ssl_cert_file_is_believed() {
    let registry = TestRegistry::start_tls(RegistryAuth::None);
    registry.put_image("a", "1", &ImageSpec::default());
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), TestRegistry::authority_pem()).expect("written");
    let env = BTreeMap::from([("SSL_CERT_FILE".to_owned(), file.path().display().to_string())]);
    let config = RegistryConfig::load(&ConfigSources {
        env,
        etc: "/nowhere".into(),
    })
    .expect("a configuration");
    let client = Client::with_options(config, Credentials::default(), options());
    client
        .resolve(&reference(&registry, "a:1"))
        .await
        .expect("believed");
}

#[tokio::test]
async fn an_unknown_certificate_is_refused_unless_the_host_is_insecure() {
    let registry = TestRegistry::start_tls(RegistryAuth::None);
    registry.put_image("a", "1", &ImageSpec::default());
    let error = client()
        .resolve(&reference(&registry, "a:1"))
        .await
        .expect_err("nobody vouches for it");
    assert!(
        matches!(error, RegistryError::Unreachable { .. }) && !error.is_temporary(),
        "{error}"
    );
    assert!(
        error.to_string().contains("https://"),
        "the certificate's error, not that of plain HTTP: {error}"
    );
    assert_eq!(registry.requests().len(), 0);
    let mut config = RegistryConfig::default();
    config.set_insecure(&registry.host());
    let client = Client::with_options(config.clone(), Credentials::default(), options());
    client
        .resolve(&reference(&registry, "a:1"))
        .await
        .expect("marked insecure");
    let plain = TestRegistry::start();
    plain.put_image("a", "1", &ImageSpec::default());
    config.set_insecure(&plain.host());
    let client = Client::with_options(config, Credentials::default(), options());
    client
        .resolve(&reference(&plain, "a:1"))
        .await
        .expect("insecure falls back to http");
}

#[tokio::test]
async fn row33_a_redirect_out_of_tls_is_refused() {
    let (registry, plain) = (TestRegistry::start_tls(RegistryAuth::None), TestRegistry::start());
    plain.put_blob("a", b"x");
    let descriptor = Descriptor::of(OCI_LAYER, b"x");
    let to = format!("http://{}/v2/a/blobs/{}", plain.host(), descriptor.digest);
    registry.fault(Fault::redirect("GET", "blobs", &to));
    let dir = tempfile::tempdir().expect("a directory");
    let client = Client::with_options(
        trusting(&dir, &registry.host()),
        Credentials::default(),
        options(),
    );
    let error = client
        .blob(&reference(&registry, "a"), &descriptor, 9)
        .await
        .expect_err("a downgrade");
    assert!(matches!(error, RegistryError::Redirect { .. }), "{error}");
    assert_eq!(plain.requests().len(), 0);
}

#[tokio::test]
async fn row34_a_plain_token_server_of_a_tls_registry_is_refused() {
    let plain = TestRegistry::start_with(RegistryAuth::bearer("ann", "s3cret"));
    let auth = RegistryAuth::Bearer {
        user: "ann".to_owned(),
        password: "s3cret".to_owned(),
        identity_token: None,
        anonymous_pull: true,
        realm: Some(format!("http://{}/token", plain.host())),
    };
    let registry = TestRegistry::start_tls(auth);
    let secret = credentials(&auths(&registry.host(), "ann", "s3cret"));
    let dir = tempfile::tempdir().expect("a directory");
    let client = Client::with_options(trusting(&dir, &registry.host()), secret, options());
    let error = client
        .resolve(&reference(&registry, "a:1"))
        .await
        .expect_err("plain http");
    assert!(matches!(error, RegistryError::Challenge { .. }), "{error}");
    assert_eq!(plain.requests().len(), 0);
}
