//! The three services as builds use them, against stand-ins that check every signature.
#![expect(
    clippy::unwrap_used,
    reason = "clippy allows them in #[test] functions only, and this is nothing but tests"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rbuild_oci::{Descriptor, Digest};
use rbuild_registry::{
    BlobSource, Client, ClientOptions, ConfigSources, Credentials, Progress, RegistryConfig, chain_text,
};
use rbuild_remotecache::{Place, Service, ServiceError};
use rbuild_testkit::cloud::{ACCOUNT_KEY, Answer, Cloud, SECRET_ACCESS_KEY};

type Attrs = BTreeMap<String, String>;

fn config() -> RegistryConfig {
    let nowhere = tempfile::tempdir().unwrap();
    let sources = ConfigSources {
        env: [("HOME".to_owned(), nowhere.path().display().to_string())].into(),
        etc: nowhere.path().to_owned(),
    };
    RegistryConfig::load(&sources).unwrap()
}

fn client_of(config: RegistryConfig) -> Client {
    let options = ClientOptions {
        backoff: Duration::from_millis(1),
        backoff_max: Duration::from_millis(5),
        ..ClientOptions::default()
    };
    Client::with_options(config, Credentials::default(), options)
}

fn service(kind: &str, attrs: &Attrs) -> Service {
    try_service(kind, attrs).unwrap()
}

fn try_service(kind: &str, attrs: &Attrs) -> Result<Service, ServiceError> {
    let place = Place::read(kind, attrs, &|_| None).unwrap().unwrap();
    Service::new(&client_of(config()), &place)
}

fn quiet() -> Progress {
    Arc::new(|_, _| {})
}

fn blob(bytes: &[u8]) -> (Descriptor, Arc<dyn BlobSource>) {
    (Descriptor::of("application/x", bytes), Arc::new(bytes.to_vec()))
}

async fn put(service: &Service, bytes: &[u8]) -> Descriptor {
    let (descriptor, source) = blob(bytes);
    service.put_blob(&descriptor, &source, &quiet()).await.unwrap();
    descriptor
}

fn all(cloud: &Cloud) -> [(&'static str, Attrs); 4] {
    [
        ("s3", cloud.s3_attrs()),
        ("azblob", cloud.azblob_attrs()),
        ("gha", cloud.gha_attrs(1)),
        ("gha", cloud.gha_attrs(2)),
    ]
}

#[tokio::test]
async fn blobs_and_configs_come_back_from_every_service() {
    for at in 0..4 {
        let cloud = Cloud::start();
        let (kind, attrs) = all(&cloud)[at].clone();
        let service = service(kind, &attrs);
        assert_eq!(
            service.configs().await.unwrap().len(),
            0,
            "{kind}: nothing is there, and that is no error"
        );
        service.prepare().await.unwrap();
        service.prepare().await.unwrap();
        let bytes = b"a layer".to_vec();
        let (descriptor, source) = blob(&bytes);
        assert!(!service.has(&descriptor.digest).await.unwrap(), "{kind}");
        let seen = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&seen);
        let progress: Progress = Arc::new(move |now, _| {
            told.fetch_max(now, Ordering::Relaxed);
        });
        service.put_blob(&descriptor, &source, &progress).await.unwrap();
        service.put_blob(&descriptor, &source, &progress).await.unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 7, "{kind}");
        assert!(service.has(&descriptor.digest).await.unwrap(), "{kind}");
        for text in ["{\"a\":1}", "{\"b\":2}"] {
            service.put_config(text.as_bytes().to_vec()).await.unwrap();
            let found = service.configs().await.unwrap();
            assert_eq!(found, [text.as_bytes()], "{kind}: the newest counts");
        }
        let mut sink = Vec::new();
        service.fetch(&descriptor, &mut sink, &quiet()).await.unwrap();
        assert_eq!(sink, bytes, "{kind}");
        let gone = Descriptor::of("", b"another");
        let error = service.fetch(&gone, &mut Vec::new(), &quiet()).await.unwrap_err();
        assert!(!error.to_string().is_empty());
    }
}

#[tokio::test]
async fn objects_have_buildkits_names() {
    let cloud = Cloud::start();
    let digest = Digest::sha256(b"x");
    let mut s3 = cloud.s3_attrs();
    s3.extend([
        ("prefix".to_owned(), "p/".to_owned()),
        ("name".to_owned(), "a;b".to_owned()),
    ]);
    let s3 = service("s3", &s3);
    put(&s3, b"x").await;
    s3.put_config(b"{}".to_vec()).await.unwrap();
    let mut names = vec![
        format!("p/blobs/{digest}"),
        "p/manifests/a".to_owned(),
        "p/manifests/b".to_owned(),
    ];
    assert_eq!(cloud.names(), names);
    let cloud = Cloud::start();
    let mut azblob = cloud.azblob_attrs();
    azblob.extend([
        ("prefix".to_owned(), "p".to_owned()),
        ("name".to_owned(), "a;b".to_owned()),
    ]);
    let azblob = service("azblob", &azblob);
    azblob.prepare().await.unwrap();
    put(&azblob, b"x").await;
    azblob.put_config(b"{}".to_vec()).await.unwrap();
    names = names
        .iter()
        .map(|name| format!("buildkit-cache/{name}"))
        .collect();
    assert_eq!(cloud.names(), names);
    assert_eq!(azblob.configs().await.unwrap().len(), 2, "all names are read");
    for version in [1, 2] {
        let cloud = Cloud::start();
        let gha = service("gha", &cloud.gha_attrs(version));
        put(&gha, b"x").await;
        gha.put_config(b"{}".to_vec()).await.unwrap();
        gha.put_config(b"{}".to_vec()).await.unwrap();
        let scope = &Digest::sha256(b"refs/heads/feature").hex()[..8].to_owned();
        let index = format!("index-buildkit-1-{scope}");
        let names = [
            format!("buildkit-blob-1-{digest}"),
            format!("{index}#1"),
            format!("{index}#2"),
        ];
        assert_eq!(cloud.names(), names);
    }
}

/// What the parts of a large blob are made of: no two of them are alike.
fn large(bytes: usize) -> Vec<u8> {
    (0..bytes / 4)
        .flat_map(|number| u32::try_from(number).unwrap().to_le_bytes())
        .collect()
}

#[tokio::test]
async fn large_blobs_go_in_parts() {
    let cloud = Cloud::start();
    for (kind, attrs) in all(&cloud) {
        let service = service(kind, &attrs);
        service.prepare().await.unwrap();
        let bytes = large((64 << 20) + 40);
        let descriptor = put(&service, &bytes).await;
        let stored = cloud
            .names()
            .into_iter()
            .find(|name| name.ends_with(descriptor.digest.as_str()));
        let stored = stored.unwrap();
        assert!(cloud.object(&stored).unwrap() == bytes, "{kind} put it together");
        let queries: Vec<String> = cloud.asked().into_iter().map(|asked| asked.path).collect();
        let parts = |text: &str| queries.iter().filter(|path| path.contains(text)).count();
        match kind {
            "s3" => assert_eq!(parts("partNumber="), 2),
            "azblob" => assert_eq!((parts("comp=block&"), parts("comp=blocklist")), (3, 1)),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_download_that_breaks_goes_on_where_it_was() {
    for at in 0..4 {
        let cloud = Cloud::start();
        let (kind, attrs) = all(&cloud)[at].clone();
        let service = service(kind, &attrs);
        service.prepare().await.unwrap();
        let bytes = large(400_000);
        let descriptor = put(&service, &bytes).await;
        cloud.cut(150_000, 2);
        let mut sink = Vec::new();
        service.fetch(&descriptor, &mut sink, &quiet()).await.unwrap();
        assert!(sink == bytes, "{kind}");
        let ranges = cloud
            .asked()
            .iter()
            .filter(|asked| asked.headers.contains_key("range"))
            .count();
        assert!(ranges >= 2, "{kind}: {ranges}");
    }
}

#[tokio::test]
async fn row31_a_blob_that_is_another_one_is_refused() {
    for at in 0..4 {
        let cloud = Cloud::start();
        let (kind, attrs) = all(&cloud)[at].clone();
        let service = service(kind, &attrs);
        service.prepare().await.unwrap();
        let descriptor = put(&service, b"the right one").await;
        let name = cloud.names().pop().unwrap();
        cloud.put(&name, b"the wrong one");
        let error = service
            .fetch(&descriptor, &mut Vec::new(), &quiet())
            .await
            .unwrap_err();
        assert!(
            chain_text(&error).contains("content has digest"),
            "{kind}: {}",
            chain_text(&error)
        );
        cloud.put(&name, b"the right one, and more than there may be");
        let error = service
            .fetch(&descriptor, &mut Vec::new(), &quiet())
            .await
            .unwrap_err();
        assert!(
            chain_text(&error).contains("its descriptor says 13"),
            "{kind}: {}",
            chain_text(&error)
        );
    }
}

async fn refusal(kind: &str, attrs: &Attrs) -> String {
    let service = match try_service(kind, attrs) {
        Ok(service) => service,
        Err(error) => return chain_text(&error),
    };
    let (descriptor, source) = blob(b"x");
    // As a build goes about it: what is there already is asked first.
    let result = match service.prepare().await {
        Ok(()) => service.has(&descriptor.digest).await,
        Err(failed) => Err(failed),
    };
    match result {
        // The answer to HEAD does not tell a bucket that is missing from an object that is.
        Ok(_) => chain_text(
            &service
                .put_blob(&descriptor, &source, &quiet())
                .await
                .unwrap_err(),
        ),
        Err(error) => chain_text(&error),
    }
}

#[tokio::test]
async fn row42_refusals_say_what_to_do_and_hold_no_secret() {
    let cloud = Cloud::start();
    let s3 = |key: &str, value: &str| {
        let mut attrs = cloud.s3_attrs();
        attrs.insert(key.to_owned(), value.to_owned());
        attrs
    };
    let mut azblob = cloud.azblob_attrs();
    azblob.insert("secret_access_key".into(), "b3RoZXItc2VjcmV0".into());
    let mut gha = cloud.gha_attrs(2);
    let mut other = cloud.gha_attrs(2)["token"].clone();
    other.push('x');
    gha.insert("token".into(), other.clone());
    let mut nowhere = cloud.gha_attrs(2);
    nowhere.insert("url_v2".into(), format!("{}/gha/elsewhere", cloud.url()));
    let cases = [
        (
            "s3",
            s3("bucket", "other"),
            "bucket other: it does not exist: make it",
            "NoSuchBucket",
        ),
        (
            "s3",
            s3("access_key_id", "other-id"),
            "the access key is not known",
            "InvalidAccessKeyId",
        ),
        (
            "s3",
            s3("secret_access_key", "other-secret"),
            "the secret key is not that",
            "SignatureDoesNotMatch",
        ),
        (
            "s3",
            s3("region", "us-other-1"),
            "it is in another region",
            "AuthorizationHeaderMalformed",
        ),
        (
            "azblob",
            azblob,
            "the key is not that of the account",
            "AuthenticationFailed",
        ),
        ("gha", gha, "the token is not accepted", "401"),
        ("gha", nowhere, "no cache service of version 2", "404"),
    ];
    for (kind, attrs, advice, code) in cases {
        let text = refusal(kind, &attrs).await;
        assert!(text.contains(advice) && text.contains(code), "{text}");
        for secret in [
            SECRET_ACCESS_KEY,
            ACCOUNT_KEY,
            "other-secret",
            "b3RoZXI",
            "secrets and all",
            &other,
        ] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    for code in ["ExpiredToken", "InvalidToken"] {
        let body = format!("<Error><Code>{code}</Code><Message>gone</Message></Error>");
        // Once for HEAD, whose answer has no body, and once for what is asked to learn why.
        cloud.plan(Answer::new(400, "")).plan(Answer::new(400, body));
        let text = refusal("s3", &cloud.s3_attrs()).await;
        assert!(text.contains("get new ones"), "{text}");
    }
    let mut none = cloud.s3_attrs();
    none.remove("access_key_id");
    assert!(refusal("s3", &none).await.contains("go together"));
    none.remove("secret_access_key");
    assert!(refusal("s3", &none).await.contains("AWS_ACCESS_KEY_ID"));
}

#[tokio::test]
async fn a_session_token_is_signed_and_sent() {
    let cloud = Cloud::start();
    let mut attrs = cloud.s3_attrs();
    attrs.insert("session_token".into(), "a-session".into());
    put(&service("s3", &attrs), b"x").await;
    let asked = cloud.asked();
    assert!(!asked.is_empty());
    for asked in asked {
        assert_eq!(asked.headers["x-amz-security-token"], "a-session");
        assert!(asked.headers["authorization"].contains("x-amz-security-token"));
    }
}

#[tokio::test]
async fn old_blobs_are_touched_and_new_ones_are_not() {
    let cloud = Cloud::start();
    let service = service("s3", &cloud.s3_attrs());
    let digest = put(&service, b"x").await.digest;
    let copies = || {
        let asked = cloud.asked();
        asked
            .iter()
            .filter(|asked| asked.headers.contains_key("x-amz-copy-source"))
            .count()
    };
    assert!(service.has(&digest).await.unwrap());
    assert_eq!(copies(), 0);
    cloud.set_modified("Fri, 26 Jun 2015 23:39:12 GMT");
    assert!(service.has(&digest).await.unwrap());
    assert_eq!(copies(), 1);
}

#[tokio::test]
async fn failures_that_pass_are_tried_again() {
    for at in 0..4 {
        let cloud = Cloud::start();
        let (kind, attrs) = all(&cloud)[at].clone();
        let service = service(kind, &attrs);
        service.prepare().await.unwrap();
        cloud.plan(Answer::new(503, "")).plan(Answer::new(500, ""));
        let descriptor = put(&service, b"x").await;
        cloud.plan(Answer::new(503, ""));
        service
            .fetch(&descriptor, &mut Vec::new(), &quiet())
            .await
            .unwrap();
        assert_eq!(
            cloud.asked().iter().filter(|asked| asked.path.is_empty()).count(),
            0,
            "{kind}"
        );
    }
    // A service that is busy is waited for beyond the attempts of others.
    let cloud = Cloud::start();
    let gha = service("gha", &cloud.gha_attrs(2));
    for _ in 0..9 {
        cloud.plan(Answer::new(429, "").header("Retry-After", "0"));
    }
    assert!(!gha.has(&Digest::sha256(b"x")).await.unwrap());
}

#[tokio::test]
async fn an_upload_in_parts_that_fails_is_given_up() {
    let cloud = Cloud::start();
    let service = service("s3", &cloud.s3_attrs());
    let bytes = large((64 << 20) + 4);
    let (descriptor, source) = blob(&bytes);
    cloud.plan(Answer::new(200, "<R><UploadId>id+/&amp;1</UploadId></R>"));
    cloud.plan(Answer::new(403, "")).plan(Answer::new(403, ""));
    let error = service
        .put_blob(&descriptor, &source, &quiet())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("s3:PutObject"), "{error}");
    assert!(cloud.asked().iter().any(|asked| asked.method == "DELETE"));
    assert_eq!(cloud.names(), [""; 0]);
}

#[tokio::test]
async fn blobs_of_github_are_listed_where_that_is_allowed() {
    let cloud = Cloud::start();
    let mut attrs = cloud.gha_attrs(2);
    let digest = put(&service("gha", &attrs), b"x").await.digest;
    let token = attrs["token"].clone();
    attrs.extend([
        ("repository".to_owned(), "owner/name".to_owned()),
        ("ghtoken".to_owned(), token),
    ]);
    let api = format!("{}/gha", cloud.url());
    let place = Place::read("gha", &attrs, &|name| {
        (name == "GITHUB_API_URL").then(|| api.clone())
    });
    let service = Service::new(&client_of(config()), &place.unwrap().unwrap()).unwrap();
    service.prepare().await.unwrap();
    let before = cloud.asked().len();
    assert!(service.has(&digest).await.unwrap());
    assert!(!service.has(&Digest::sha256(b"y")).await.unwrap());
    assert_eq!(cloud.asked().len(), before, "nothing more is asked");
}

#[tokio::test]
async fn row33_a_token_goes_to_its_service_alone() {
    let cloud = Cloud::start();
    for version in [1, 2] {
        let gha = service("gha", &cloud.gha_attrs(version));
        let descriptor = put(&gha, &[version]).await;
        gha.fetch(&descriptor, &mut Vec::new(), &quiet()).await.unwrap();
    }
    let elsewhere: Vec<_> = cloud
        .asked()
        .into_iter()
        .filter(|asked| !asked.path.contains("_apis/") && !asked.path.contains("twirp/"))
        .collect();
    assert!(elsewhere.len() >= 3, "{elsewhere:?}");
    assert!(
        elsewhere
            .iter()
            .all(|asked| !asked.headers.contains_key("authorization"))
    );
}

#[tokio::test]
async fn row36_a_service_leads_neither_to_metadata_nor_out_of_tls() {
    for (url, why) in [
        ("http://169.254.169.254/latest", "refused"),
        ("file:///etc/passwd", "no Host in request URL"),
        ("http://user:pw@127.0.0.1/", "it contains credentials"),
    ] {
        let cloud = Cloud::start();
        let gha = service("gha", &cloud.gha_attrs(2));
        let body = format!(
            r#"{{"ok":true,"signed_download_url":"{url}","matched_key":"buildkit-blob-1-{}"}}"#,
            Digest::sha256(b"x")
        );
        cloud.plan(Answer::new(200, body));
        let descriptor = Descriptor::of("", b"x");
        let error = gha
            .fetch(&descriptor, &mut Vec::new(), &quiet())
            .await
            .unwrap_err();
        let text = chain_text(&error);
        assert!(text.contains(why), "{url}: {text}");
        assert!(!text.contains("pw"), "{text}");
    }
}

#[tokio::test]
async fn row50_answers_have_limits() {
    let cloud = Cloud::start();
    let gha = service("gha", &cloud.gha_attrs(2));
    cloud.plan(Answer::new(200, vec![b' '; 64 << 10]));
    let text = chain_text(&gha.has(&Digest::sha256(b"x")).await.unwrap_err());
    assert!(text.contains("or more"), "{text}");
    let s3 = service("s3", &cloud.s3_attrs());
    cloud.plan(Answer::new(200, vec![b' '; (64 << 20) + 1]));
    let text = chain_text(&s3.configs().await.unwrap_err());
    assert!(text.contains("or more"), "{text}");
    cloud.plan(Answer::new(200, vec![b' '; 64 << 20]));
    assert_eq!(s3.configs().await.unwrap().len(), 1, "as much as may be");
}

#[tokio::test]
async fn offline_asks_nobody() {
    let cloud = Cloud::start();
    for (kind, attrs) in all(&cloud) {
        let mut config = config();
        config.set_offline();
        let place = Place::read(kind, &attrs, &|_| None).unwrap().unwrap();
        let service = Service::new(&client_of(config), &place).unwrap();
        let text = chain_text(&service.configs().await.unwrap_err());
        assert!(text.contains("--offline forbids"), "{text}");
    }
    assert_eq!(cloud.asked().len(), 0);
}

/// A name that another build reserved and never filled is passed over after a while.
#[tokio::test]
async fn a_row_of_entries_goes_on_behind_one_that_was_left() {
    let cloud = Cloud::start();
    let mut attrs = cloud.gha_attrs(2);
    attrs.insert("timeout".into(), "1ms".into());
    let gha = service("gha", &attrs);
    let scope = Digest::sha256(b"refs/heads/feature").hex()[..8].to_owned();
    let row = format!("index-buildkit-1-{scope}");
    cloud.reserve(&format!("{row}#1")).reserve(&format!("{row}#2"));
    gha.put_config(b"{}".to_vec()).await.unwrap();
    assert_eq!(cloud.names(), [format!("{row}#3")]);
    assert_eq!(gha.configs().await.unwrap(), [b"{}"]);
}
