//! Caches in S3, Azure Blob Storage and GitHub's cache service, against stand-ins that check every signature: a store that
//! has nothing takes all of it from there; what fails says what to do; and no secret is seen.

use std::collections::BTreeMap;

use rbuild_testkit::cloud::{ACCOUNT_KEY, Cloud, SECRET_ACCESS_KEY};
use rbuild_testkit::command::Ran;
use rbuild_testkit::registry::TestRegistry;
use rbuild_testkit::web::{Page, WebServer};

use crate::e2e::fixture::Fixture;

const STEPS: &str = "FROM busybox AS build
RUN head -c 16 /dev/urandom > /unique
COPY src /src
FROM busybox
COPY --from=build /unique /copied
";

fn fixture() -> Fixture {
    let fixture = Fixture::new(STEPS);
    fixture.context.file("src", "s\n");
    fixture
}

/// A cache as a flag's value has it.
fn cache(kind: &str, attrs: &BTreeMap<String, String>) -> String {
    let attrs: String = attrs
        .iter()
        .map(|(key, value)| format!(",{key}={value}"))
        .collect();
    format!("type={kind}{attrs}")
}

#[track_caller]
fn assert_ran(ran: &Ran, expected: bool) {
    let step = "RUN head -c 16 /dev/urandom > /unique";
    let names = ran.executed();
    assert_eq!(names.iter().any(|name| name.ends_with(step)), expected, "{ran}");
}

/// Writes a cache by one build and reads it by another, whose store has nothing.
#[track_caller]
fn goes_and_comes(cache: &str, env: &[(&str, &str)]) -> [String; 2] {
    let (first, image) = fixture().image_with(&["--cache-to", &format!("{cache},mode=max")], env);
    assert_ran(&first, true);
    let fresh = fixture();
    let (second, again) = fresh.image_with(&["--cache-from", cache], env);
    assert_ran(&second, false);
    assert_eq!(again.manifest_digest, image.manifest_digest, "{second}");
    [first.to_string(), second.to_string()]
}

#[track_caller]
fn assert_hidden(texts: &[String], secrets: &[&str]) {
    for secret in secrets {
        assert!(
            texts.iter().all(|text| !text.contains(secret)),
            "{secret} is shown"
        );
    }
}

#[test]
fn a_cache_in_s3_is_written_and_read() {
    let cloud = Cloud::start();
    // The command of a failed test would show what stands in it, so the keys come from the environment.
    let mut attrs = cloud.s3_attrs();
    let (id, secret) = (
        attrs.remove("access_key_id").unwrap(),
        attrs.remove("secret_access_key").unwrap(),
    );
    let env = [
        ("AWS_ACCESS_KEY_ID", id.as_str()),
        ("AWS_SECRET_ACCESS_KEY", secret.as_str()),
    ];
    let texts = goes_and_comes(&cache("s3", &attrs), &env);
    assert!(texts[0].contains("exporting cache to Amazon S3"), "{}", texts[0]);
    assert!(
        texts[1].contains("importing cache manifest from s3:bucket/"),
        "{}",
        texts[1]
    );
    assert_hidden(&texts, &[SECRET_ACCESS_KEY, &id]);
}

#[test]
fn a_cache_in_azure_blob_storage_is_written_and_read() {
    let cloud = Cloud::start();
    let texts = goes_and_comes(&cache("azblob", &cloud.azblob_attrs()), &[]);
    assert!(
        texts[0].contains("exporting cache to Azure Blob Storage"),
        "{}",
        texts[0]
    );
    assert!(
        cloud
            .names()
            .contains(&"buildkit-cache/manifests/buildkit".to_owned())
    );
}

#[test]
fn a_cache_of_a_github_workflow_is_written_and_read() {
    for version in [1, 2] {
        let cloud = Cloud::start();
        let attrs = cloud.gha_attrs(version);
        let url = attrs.get("url").or_else(|| attrs.get("url_v2")).unwrap();
        let name = if version == 1 {
            "ACTIONS_CACHE_URL"
        } else {
            "ACTIONS_RESULTS_URL"
        };
        let env = [
            ("ACTIONS_RUNTIME_TOKEN", attrs["token"].as_str()),
            (name, url.as_str()),
            (
                "ACTIONS_CACHE_SERVICE_V2",
                if version == 1 { "false" } else { "true" },
            ),
        ];
        let texts = goes_and_comes("type=gha,scope=x", &env);
        assert!(
            texts[0].contains("exporting to GitHub Actions Cache"),
            "{}",
            texts[0]
        );
        assert_hidden(&texts, &[&attrs["token"]]);
        let kinds = cloud
            .names()
            .iter()
            .filter(|name| name.starts_with("index-x-1-"))
            .count();
        assert_eq!(kinds, 1, "{:?}", cloud.names());
    }
}

#[test]
fn a_cache_of_a_workflow_is_left_out_where_there_is_none() {
    let fixture = fixture();
    let (ran, _) = fixture.image(&["--cache-to=type=gha,mode=max", "--cache-from=type=gha"]);
    assert_ran(&ran, true);
    for flag in ["--cache-to", "--cache-from"] {
        assert!(
            ran.stderr.contains(&format!("{flag} type=gha is left out")),
            "{ran}"
        );
    }
}

#[test]
fn a_cache_that_cannot_be_written_fails_the_build_unless_that_is_ignored() {
    let cloud = Cloud::start();
    let mut attrs = cloud.s3_attrs();
    attrs.insert("bucket".to_owned(), "other".to_owned());
    let to = cache("s3", &attrs);
    let fixture = fixture();
    let ran = fixture.build().args(["--cache-to", &to]).run();
    assert!(!ran.status.success(), "{ran}");
    assert!(
        ran.stderr.contains("bucket other: it does not exist: make it"),
        "{ran}"
    );
    assert!(ran.stderr.contains("NoSuchBucket"), "{ran}");
    assert!(!ran.stderr.contains(SECRET_ACCESS_KEY), "{ran}");
    let (ran, _) = fixture.image(&[
        "--cache-to",
        &format!("{to},ignore-error=true"),
        "--cache-from",
        &to,
    ]);
    assert!(ran.stderr.contains("NoSuchBucket"), "{ran}");
}

/// What BuildKit says of the same caches, up to where the words of a system, a library or a server begin: one that cannot be read
/// stops nothing, one that cannot be written fails the build.
#[test]
fn caches_that_cannot_be_read_or_written_are_told_in_buildkits_words() {
    let (registry, cloud, web) = (TestRegistry::start(), Cloud::start(), WebServer::start());
    web.put("/v2/r/manifests/page", Page::of("<html>"));
    web.put("/v2/r/manifests/closed", Page::of("").status(403));
    let (host, page) = (registry.host(), web.host());
    let mut attrs = cloud.s3_attrs();
    attrs.insert("bucket".to_owned(), "other".to_owned());
    let bucket = cache("s3", &attrs);
    let token = "type=gha,version=2,url_v2=http://127.0.0.1:1/,token=x";
    let fixture = fixture();
    let mut sources = Vec::new();
    for (source, words) in [
        (
            format!("type=registry,ref={host}/no:x"),
            format!("failed to configure registry cache importer: {host}/no:x: not found"),
        ),
        (
            format!("type=registry,ref={page}/r:page"),
            "failed to configure registry cache importer: ".to_owned(),
        ),
        (
            format!("type=registry,ref={page}/r:closed"),
            "failed to configure registry cache importer: ".to_owned(),
        ),
        (
            token.to_owned(),
            "failed to configure gha cache importer: ".to_owned(),
        ),
        (
            "type=local,src=/nope/here".to_owned(),
            "local cache import at /nope/here skipped due to err: ".to_owned(),
        ),
    ] {
        sources.push((format!("--cache-from={source}"), words));
    }
    let flags: Vec<&str> = sources.iter().map(|(flag, _)| flag.as_str()).collect();
    let (ran, _) = fixture.image(&flags);
    for (flag, words) in &sources {
        assert!(
            ran.stderr.contains(&format!(" ERROR: {words}")),
            "{flag}: {words}: {ran}"
        );
    }
    for (dest, words) in [
        (
            format!("type=registry,ref={page}/r:x"),
            "error writing layer blob: ",
        ),
        (
            bucket,
            "error writing layer blob: bucket other: it does not exist",
        ),
        (token.to_owned(), "failed to configure gha cache exporter: "),
    ] {
        let ran = fixture.build().args(["--cache-to", &dest]).run();
        assert!(!ran.status.success(), "{dest}: {ran}");
        let line = format!("\nERROR: failed to build: failed to solve: {words}");
        assert!(ran.stderr.contains(&line), "{dest}: {words}: {ran}");
    }
}

#[test]
fn row42_secrets_of_caches_are_in_no_progress_and_no_provenance() {
    let cloud = Cloud::start();
    let to = cache("azblob", &cloud.azblob_attrs());
    let fixture = fixture();
    let (ran, _) = fixture.image(&[
        "--cache-to",
        &to,
        "--cache-from",
        &to,
        "--progress=rawjson",
        "--provenance=mode=max",
    ]);
    let archive = std::fs::read(fixture.archive()).unwrap();
    assert!(!ran.stderr.contains(ACCOUNT_KEY), "{ran}");
    let holds = archive
        .windows(ACCOUNT_KEY.len())
        .any(|window| window == ACCOUNT_KEY.as_bytes());
    assert!(!holds, "the key is in the image's archive");
}

#[test]
fn caches_of_services_are_not_asked_offline() {
    let cloud = Cloud::start();
    let to = cache("s3", &cloud.s3_attrs());
    let fixture = fixture();
    fixture.image(&[]);
    let ran = fixture.build().args(["--offline", "--cache-to", &to]).run();
    assert!(
        !ran.status.success() && ran.stderr.contains("--offline forbids"),
        "{ran}"
    );
    assert_eq!(cloud.asked().len(), 0);
}
