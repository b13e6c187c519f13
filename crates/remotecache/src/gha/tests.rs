//! Attributes and the environment of caches in GitHub's service.

use std::collections::BTreeMap;

use super::*;

fn map(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn place(attrs: &[(&str, &str)]) -> Result<GhaPlace, String> {
    GhaPlace::read(&Attrs::new(&map(attrs), &|_| None)).map_err(|error| error.to_string())
}

#[test]
fn the_version_is_said_or_seen() {
    let token = ("token", "a-token");
    let v2 = |attrs: &[(&str, &str)]| place(attrs).unwrap().v2;
    assert!(!v2(&[token, ("url", "https://x/")]));
    assert!(v2(&[token, ("url", "https://x/"), ("url_v2", "https://y/")]));
    assert!(!v2(&[
        token,
        ("url", "https://x/"),
        ("url_v2", "https://y/"),
        ("version", "1")
    ]));
    assert!(v2(&[token, ("url", "https://x/"), ("version", "2")]));
    assert!(v2(&[
        token,
        ("url", "https://results-receiver.actions.githubusercontent.com/")
    ]));
    assert_eq!(place(&[]).unwrap_err(), "token not set for github actions cache");
    assert_eq!(
        place(&[token]).unwrap_err(),
        "url not set for github actions cache"
    );
    let only_v2 = place(&[token, ("url_v2", "https://y/"), ("version", "1")]);
    assert_eq!(only_v2.unwrap_err(), "url not set for github actions cache");
    assert!(
        place(&[token, ("url", "https://x/"), ("version", "x")])
            .unwrap_err()
            .starts_with("version must be")
    );
    assert!(
        place(&[token, ("url", "https://x/"), ("timeout", "x")])
            .unwrap_err()
            .starts_with("timeout must be")
    );
    assert_eq!(
        place(&[token, ("url", "https://x/"), ("timeout", "1m")])
            .unwrap()
            .timeout,
        Duration::from_secs(60)
    );
}

#[test]
fn row42_names_and_debug_text_do_not_hold_the_token() {
    let attrs = [
        ("token", "a-token"),
        ("url", "https://x/"),
        ("repository", "a/b"),
        ("ghtoken", "b-token"),
    ];
    let one = place(&attrs).unwrap();
    assert!(!format!("{one:?}{}", one.name()).contains("-token"));
    let other = place(&[("token", "c-token"), ("url", "https://x/")]).unwrap();
    assert_ne!(one.name(), other.name(), "the caches of two repositories are two");
}

/// As buildx does it (`addGithubToken`, `isActive`).
#[test]
fn a_workflows_environment_says_what_attributes_do_not() {
    let filled = |attrs: &[(&str, &str)], env: &[(&str, &str)]| {
        let (mut attrs, env) = (map(attrs), map(env));
        let active = fill(&mut attrs, &|name| env.get(name).cloned());
        (attrs, active)
    };
    let env = [
        ("ACTIONS_RUNTIME_TOKEN", "t"),
        ("ACTIONS_RESULTS_URL", "https://results/"),
        ("ACTIONS_CACHE_URL", "https://cache/"),
    ];
    let (attrs, active) = filled(&[("scope", "s")], &env);
    assert!(active);
    assert_eq!(
        attrs,
        map(&[("scope", "s"), ("token", "t"), ("url", "https://cache/")])
    );
    let second = [&env[..], &[("ACTIONS_CACHE_SERVICE_V2", "True")]].concat();
    let (attrs, _) = filled(&[], &second);
    assert_eq!(attrs["url_v2"], "https://results/");
    let (attrs, _) = filled(&[("version", "1")], &second);
    assert!(!attrs.contains_key("url_v2"));
    let (attrs, _) = filled(&[("token", "own"), ("url", "https://own/")], &env);
    assert_eq!(attrs, map(&[("token", "own"), ("url", "https://own/")]));
    let (attrs, _) = filled(&[], &env[..2]);
    assert_eq!(attrs["url"], "https://results/");
    assert!(!filled(&[], &env[..1]).1 && !filled(&[], &env[1..]).1 && !filled(&[], &[]).1);
}

#[test]
fn names_are_buildkits() {
    let one = place(&[("token", "t"), ("url", "https://x/"), ("scope", "s")]).unwrap();
    // `digest.FromBytes([]byte("refs/heads/main")).Hex()[:8]`
    let hash = &sha256_hex(b"refs/heads/main")[..8];
    assert_eq!(one.index_key("refs/heads/main"), format!("index-s-1-{hash}"));
    let digest = Digest::sha256(b"");
    assert_eq!(
        blob_key(&digest),
        "buildkit-blob-1-sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
}
