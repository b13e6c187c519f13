//! Docker's token protocol with Debian's `docker-registry` as the judge of what our token server signs for us.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use rbuild_oci::media_type::{Family, OCI_LAYER};
use rbuild_oci::{Descriptor, Manifest, Reference};
use rbuild_registry::{
    BlobSource, Client, Credential, Credentials, ErrorClass, PushBlobOptions, PushedBlob, RegistryConfig,
    RegistryError, Secret,
};
use rbuild_testkit::peer::DockerRegistry;
use rbuild_testkit::registry::{Fault, ISSUER, RegistryAuth, TestRegistry};

use super::peer::started;
use super::setup::{auths, client, client_with_auth, content, options, quiet};

const IDENTITY: &str = "r3fresh/me+now";

/// A registry, and who gives tokens for it.
struct Site {
    tokens: TestRegistry,
    registry: DockerRegistry,
}

impl Site {
    fn start(anonymous_pull: bool) -> Option<Self> {
        let tokens = TestRegistry::start_with(RegistryAuth::Bearer {
            user: "ann".to_owned(),
            password: "pw".to_owned(),
            identity_token: Some(IDENTITY.to_owned()),
            anonymous_pull,
            realm: None,
        });
        tokens.sign_tokens(300);
        let realm = format!("http://{}/token", tokens.host());
        let registry = started(DockerRegistry::with_tokens(&realm, ISSUER))?;
        Some(Self { tokens, registry })
    }

    fn name(&self, name: &str) -> Reference {
        Reference::parse(&format!("{}/{name}", self.registry.host())).expect("a reference")
    }

    fn ann(&self) -> Client {
        client_with_auth(&auths(&self.registry.host(), "ann", "pw"))
    }

    async fn push_blob(
        &self,
        client: &Client,
        name: &str,
        source: Arc<dyn BlobSource>,
        layer: &Descriptor,
        options: &PushBlobOptions,
    ) -> Result<PushedBlob, RegistryError> {
        client
            .push_blob(&self.name(name), layer, &source, options, &quiet())
            .await
    }

    /// A manifest and its only blob, which is its config too.
    async fn push(&self, client: &Client, name: &str) -> Result<Descriptor, RegistryError> {
        let bytes = b"{}".to_vec();
        let config = Descriptor::of(Family::Oci.config(), &bytes);
        let whole = PushBlobOptions::default();
        self.push_blob(client, name, Arc::new(bytes), &config, &whole)
            .await?;
        let manifest = Manifest::new(Family::Oci.manifest(), config, Vec::new());
        client
            .push_manifest(&self.name(name), Family::Oci.manifest(), &manifest.to_bytes())
            .await
    }

    fn asked(&self) -> Vec<String> {
        let requests = self.tokens.requests().into_iter();
        requests
            .map(|request| format!("{} {}", request.method, request.path))
            .collect()
    }
}

#[tokio::test]
async fn who_is_known_pushes_and_anyone_pulls_what_is_public() {
    let Some(site) = Site::start(true) else { return };
    let pushed = site.push(&site.ann(), "a/b:1").await.expect("pushed");
    let asked = site.asked();
    assert_eq!(asked.len(), 1, "one token for a whole push: {asked:?}");
    assert!(
        asked[0].contains("service=test&scope=repository%3Aa%2Fb%3Apull%2Cpush&account=ann"),
        "{asked:?}"
    );
    let found = client().resolve(&site.name("a/b:1")).await.expect("public");
    assert_eq!(found.descriptor.digest, pushed.digest);
    let requests = site.tokens.requests();
    assert!(requests[1].header("authorization").is_none(), "{:?}", requests[1]);
    let refused = site
        .push(&client(), "a/b:2")
        .await
        .expect_err("nobody in particular");
    assert_eq!(refused.class(), ErrorClass::Auth, "{refused}");
    site.ann()
        .resolve(&site.name("a/b:2"))
        .await
        .expect_err("nothing was pushed");
}

#[tokio::test]
async fn nobody_in_particular_gets_no_token_for_what_is_private() {
    let Some(site) = Site::start(false) else { return };
    site.push(&site.ann(), "a:1").await.expect("pushed");
    for (client, tried) in [
        (client(), "no credentials"),
        (
            client_with_auth(&auths(&site.registry.host(), "ann", "wrong")),
            "DOCKER_AUTH_CONFIG",
        ),
    ] {
        let refused = client.resolve(&site.name("a:1")).await.expect_err("private");
        assert_eq!(refused.class(), ErrorClass::Auth);
        let text = refused.to_string();
        assert!(
            matches!(refused, RegistryError::Token { .. }) && text.contains(tried) && !text.contains("wrong"),
            "{text}"
        );
    }
    site.ann().resolve(&site.name("a:1")).await.expect("ann's own");
}

#[tokio::test]
async fn a_mount_is_asked_for_with_a_token_for_both_repositories() {
    let Some(site) = Site::start(false) else { return };
    let bytes = content(50_000);
    let layer = Descriptor::of(OCI_LAYER, &bytes);
    let source: Arc<dyn BlobSource> = Arc::new(bytes);
    let ann = site.ann();
    let push = |name, from: Option<&str>| {
        let options = PushBlobOptions {
            mount_from: from.map(str::to_owned),
            chunk_bytes: None,
        };
        let (source, site, ann, layer) = (Arc::clone(&source), &site, &ann, &layer);
        async move { site.push_blob(ann, name, source, layer, &options).await }
    };
    assert_eq!(push("base", None).await.expect("pushed"), PushedBlob::Uploaded);
    assert_eq!(
        push("app", Some("base")).await.expect("mounted"),
        PushedBlob::Mounted
    );
    let both = "scope=repository%3Aapp%3Apull%2Cpush&scope=repository%3Abase%3Apull&";
    let asked = site.asked();
    assert!(asked.iter().any(|path| path.contains(both)), "{asked:?}");
    // A token server gives less than was asked for: then the registry says 401, and the blob is uploaded.
    site.tokens.close_repository("base");
    assert_eq!(
        push("other", Some("base")).await.expect("uploaded"),
        PushedBlob::Uploaded
    );
}

/// Takes its time.
struct Slow(Vec<u8>);

impl BlobSource for Slow {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        std::thread::sleep(Duration::from_millis(900));
        self.0.open(offset)
    }
}

#[tokio::test]
async fn a_token_ends_while_a_blob_is_pushed() {
    let Some(site) = Site::start(false) else { return };
    // The registry believes a token for a minute longer than it says (its leeway): this one for a second or two.
    site.tokens.sign_tokens(-58);
    let bytes = content(400_000);
    let layer = Descriptor::of(OCI_LAYER, &bytes);
    let chunks = PushBlobOptions {
        mount_from: None,
        chunk_bytes: Some(100_000),
    };
    let ann = site.ann();
    let pushed = site.push_blob(&ann, "a", Arc::new(Slow(bytes.clone())), &layer, &chunks);
    assert_eq!(pushed.await.expect("pushed"), PushedBlob::Uploaded);
    let given = site.asked().len();
    assert!((2..8).contains(&given), "{given} tokens");
    site.tokens.sign_tokens(300);
    let got = site
        .ann()
        .blob(&site.name("a"), &layer, 1 << 20)
        .await
        .expect("pulled");
    assert_eq!(got, bytes);
}

#[tokio::test]
async fn a_login_gets_a_refresh_token_that_is_as_good_as_the_password() {
    let Some(site) = Site::start(false) else { return };
    let host = site.registry.host();
    let log_in = |password: &str| {
        let credential = Credential::Basic {
            username: "ann".to_owned(),
            password: Secret::new(password.to_owned()),
        };
        let credentials = Credentials::one(&host, credential);
        let client = Client::with_options(RegistryConfig::default(), credentials, options());
        let host = host.clone();
        async move { client.check_login(&host).await }
    };
    let got = log_in("pw").await.expect("known");
    assert_eq!(got, Some(Secret::new(IDENTITY.to_owned())));
    let asked = site.asked();
    assert!(
        asked.len() == 1 && asked[0].contains("offline_token=true") && !asked[0].contains("scope="),
        "{asked:?}"
    );
    let wrong = log_in("wrong").await.expect_err("unknown");
    assert_eq!(wrong.class(), ErrorClass::Auth);

    let config = serde_json::json!({"auths": {host.as_str(): {"identitytoken": IDENTITY}}});
    site.tokens.clear_requests();
    let known = client_with_auth(&config.to_string());
    site.push(&known, "a:1")
        .await
        .expect("pushed by the refresh token");
    assert_eq!(site.asked(), ["POST /token"]);

    // A server that knows the form only is asked for one there too.
    site.tokens
        .fault(Fault::status("GET", "/token", 405, ("x", "y"), ""));
    let got = log_in("pw").await.expect("known");
    assert_eq!(got, Some(Secret::new(IDENTITY.to_owned())));
}
