//! Clients for tests: no file of this machine is read, waits are short.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rbuild_oci::{CONFIG_BYTES_MAX, Document, ImageConfig, Manifest, Platform, Reference};
use rbuild_registry::{
    Client, ClientOptions, ConfigSources, CredentialSources, Credentials, Progress, RegistryConfig,
};
use rbuild_testkit::registry::TestRegistry;

pub(super) fn options() -> ClientOptions {
    ClientOptions {
        backoff: Duration::from_millis(2),
        backoff_max: Duration::from_millis(50),
        idle_timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(5),
        ..ClientOptions::default()
    }
}

pub(super) fn client() -> Client {
    Client::with_options(RegistryConfig::default(), Credentials::default(), options())
}

/// A client with an inline Docker config.
pub(super) fn client_with_auth(auths: &str) -> Client {
    Client::with_options(RegistryConfig::default(), credentials(auths), options())
}

pub(super) fn credentials(auths: &str) -> Credentials {
    let env = BTreeMap::from([("DOCKER_AUTH_CONFIG".to_owned(), auths.to_owned())]);
    Credentials::load(&CredentialSources {
        env,
        helper_timeout: Duration::from_secs(5),
    })
}

/// A Docker config with one user.
pub(super) fn auths(host: &str, user: &str, password: &str) -> String {
    serde_json::json!({"auths": {host: {"username": user, "password": password}}}).to_string()
}

/// A configuration of one `registries.conf`.
pub(super) fn registries_conf(text: &str) -> RegistryConfig {
    let dir = tempfile::tempdir().expect("a directory");
    let containers = dir.path().join("containers");
    std::fs::create_dir(&containers).expect("a directory");
    std::fs::write(containers.join("registries.conf"), text).expect("a file");
    RegistryConfig::load(&ConfigSources {
        env: BTreeMap::new(),
        etc: dir.path().to_owned(),
    })
    .expect("a configuration")
}

pub(super) fn reference(registry: &TestRegistry, name: &str) -> Reference {
    Reference::parse(&registry.reference(name)).expect("a reference")
}

pub(super) fn quiet() -> Progress {
    Arc::new(|_, _| {})
}

/// Bytes that differ everywhere, so that a part out of place is seen.
pub(super) fn content(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(size)
    .collect()
}

/// The manifest and config that a reference leads to, through an index for this machine if there is one.
pub(super) async fn pull(client: &Client, reference: &Reference) -> (Manifest, ImageConfig) {
    let mut pulled = client.manifest(reference).await.expect("a document");
    if let Document::Index(index) = &pulled.document {
        let chosen = index
            .choose(&Platform::host())
            .expect("an image for this machine");
        pulled = client.manifest_of(reference, chosen).await.expect("a manifest");
    }
    let Document::Manifest(manifest) = pulled.document else {
        panic!("indexes are nested");
    };
    let config = client
        .blob(reference, &manifest.config, CONFIG_BYTES_MAX as u64)
        .await;
    let config = ImageConfig::parse(&config.expect("a config")).expect("a config");
    (*manifest, config)
}
