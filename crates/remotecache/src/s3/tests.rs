//! Attributes and addresses of caches in S3.

use std::collections::BTreeMap;

use super::*;

fn place(attrs: &[(&str, &str)], env: &[(&str, &str)]) -> Result<S3Place, AttrError> {
    let map = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
        list.iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    };
    let (attrs, env) = (map(attrs), map(env));
    let get = |name: &str| env.get(name).cloned();
    S3Place::read(&Attrs::new(&attrs, &get))
}

const NEEDED: [(&str, &str); 2] = [("bucket", "b"), ("region", "r")];

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    NEEDED.iter().chain(more).copied().collect()
}

#[test]
fn attributes_have_the_defaults_of_buildkit() {
    let read = place(&with(&[]), &[]).unwrap();
    assert_eq!(
        (read.manifests_prefix.as_str(), read.blobs_prefix.as_str()),
        ("manifests/", "blobs/")
    );
    assert_eq!(
        (read.names.as_slice(), read.uploads),
        (&["buildkit".to_owned()][..], 4)
    );
    assert_eq!(read.touch_refresh, Duration::from_secs(24 * 3600));
    assert!(
        matches!(read.keys, Err(CredentialsError::None { .. })),
        "that fails the transfer only"
    );
    let all = [
        ("prefix", "p/"),
        ("name", "a;b"),
        ("touch_refresh", "2h"),
        ("upload_parallelism", "7"),
        ("retry_max_attempts", "2"),
        ("retry_mode", "adaptive"),
        ("disable_accept_encoding", "true"),
        ("use_path_style", "true"),
    ];
    let read = place(&with(&all), &[]).unwrap();
    assert_eq!((read.uploads, read.attempts, read.names.len()), (7, Some(2), 2));
    assert_eq!(read.touch_refresh, Duration::from_secs(7200));
    assert!(!read.path_style, "it is for endpoints of one's own");
    let env = [
        ("AWS_BUCKET", "b"),
        ("AWS_REGION", "r"),
        ("AWS_ENDPOINT_URL", "http://x:1"),
    ];
    assert_eq!(
        place(&[], &env).unwrap().name(),
        "s3:b/manifests/buildkit at http://x:1"
    );
    assert_eq!(
        place(&with(&[("touch_refresh", "soon")]), &[])
            .unwrap()
            .touch_refresh,
        Duration::from_secs(24 * 3600),
        "as BuildKit passes over it"
    );
}

#[test]
fn errors_are_buildkits_sentences() {
    let error = |attrs: &[(&str, &str)]| place(attrs, &[]).unwrap_err().to_string();
    assert_eq!(error(&[]), "bucket ($AWS_BUCKET) not set for s3 cache");
    assert_eq!(error(&NEEDED[..1]), "region ($AWS_REGION) not set for s3 cache");
    for (key, value, text) in [
        (
            "upload_parallelism",
            "0",
            "upload_parallelism must be a positive integer",
        ),
        (
            "retry_max_attempts",
            "-1",
            "retry_max_attempts must be a positive integer",
        ),
        (
            "retry_mode",
            "x",
            "retry_mode must be \"standard\" or \"adaptive\"",
        ),
    ] {
        assert_eq!(error(&with(&[(key, value)])), text);
    }
    assert!(error(&[("bucket", "b/../c"), NEEDED[1]]).starts_with("bucket must be"));
    assert!(error(&[NEEDED[0], ("region", "a.evil.test/")]).starts_with("region must be"));
    let many = ";".repeat(64);
    assert!(error(&with(&[("name", &many)])).contains("names"));
    for url in ["x", "ftp://x", "http://user:pw@x"] {
        let text = error(&with(&[("endpoint_url", url)]));
        assert!(
            text.starts_with("endpoint_url is not") && !text.contains("pw"),
            "{text}"
        );
    }
}

#[test]
fn buckets_are_hosts_or_paths() {
    let base = |more: &[(&str, &str)]| {
        let (url, path) = place(more, &[]).unwrap().base().unwrap();
        format!("{}://{}{path}", url.scheme(), url.authority())
    };
    assert_eq!(base(&with(&[])), "https://b.s3.r.amazonaws.com/");
    assert_eq!(
        base(&[("bucket", "a.b"), NEEDED[1]]),
        "https://s3.r.amazonaws.com/a.b/"
    );
    assert_eq!(
        base(&[NEEDED[0], ("region", "cn-north-1")]),
        "https://b.s3.cn-north-1.amazonaws.com.cn/"
    );
    let at = |url: &'static str, style: &'static str| {
        base(&with(&[("endpoint_url", url), ("use_path_style", style)]))
    };
    assert_eq!(at("http://host:9000", "false"), "http://b.host:9000/");
    assert_eq!(at("http://host:9000/top/", "1"), "http://host:9000/top/b/");
    assert_eq!(at("http://127.0.0.1:9000", "false"), "http://127.0.0.1:9000/b/");
}
