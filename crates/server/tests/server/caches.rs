//! Caches of clients in services: one server writes what another, which has nothing, reads.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptions, CacheOptionsEntry, Exporter, SolveRequest};
use rbuild_session::fake::{FakeClient, ReceivedTree};
use rbuild_testkit::cloud::{Cloud, SECRET_ACCESS_KEY};

use crate::bench::Bench;
use crate::builds::hello;

fn entry(kind: &str, attrs: &BTreeMap<String, String>) -> CacheOptionsEntry {
    CacheOptionsEntry {
        r#type: kind.to_owned(),
        attrs: attrs.clone().into_iter().collect(),
    }
}

/// Solves one file on a server of its own; the names of the vertices that came from a cache.
async fn solved(cache: CacheOptions) -> Result<Vec<String>, tonic::Status> {
    let bench = Bench::new();
    let tree = Arc::new(Mutex::new(ReceivedTree::default()));
    let client = FakeClient::new("s").output_tree(0, &tree);
    let _client = client.connect(&bench.core.sessions).await.unwrap();
    let request = SolveRequest {
        r#ref: "build".to_owned(),
        session: "s".to_owned(),
        definition: Some(hello("kept")),
        cache: Some(cache),
        exporters: vec![Exporter {
            r#type: "local".to_owned(),
            attrs: HashMap::new(),
        }],
        ..SolveRequest::default()
    };
    bench.solve(request).await?;
    assert_eq!(
        tree.lock().unwrap().content[std::path::Path::new("hello")],
        b"kept"
    );
    let statuses = bench.status("build").await?;
    Ok(statuses
        .iter()
        .flat_map(|status| &status.vertexes)
        .filter(|vertex| vertex.cached)
        .map(|vertex| vertex.name.clone())
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_caches_of_services_go_from_one_server_to_another() {
    let cloud = Cloud::start();
    for (kind, attrs) in [
        ("s3", cloud.s3_attrs()),
        ("azblob", cloud.azblob_attrs()),
        ("gha", cloud.gha_attrs(1)),
        ("gha", cloud.gha_attrs(2)),
    ] {
        let to = CacheOptions {
            exports: vec![entry(kind, &attrs)],
            ..CacheOptions::default()
        };
        let from = CacheOptions {
            imports: vec![entry(kind, &attrs)],
            ..CacheOptions::default()
        };
        assert!(
            !solved(to).await.unwrap().contains(&"make hello".to_owned()),
            "{kind}"
        );
        let cached = solved(from).await.unwrap();
        assert!(cached.contains(&"make hello".to_owned()), "{kind}: {cached:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row42_a_cache_that_is_refused_fails_the_build_without_its_key() {
    let cloud = Cloud::start();
    let mut attrs = cloud.s3_attrs();
    attrs.insert("bucket".to_owned(), "other".to_owned());
    let to = |attrs: &BTreeMap<String, String>| CacheOptions {
        exports: vec![entry("s3", attrs)],
        ..CacheOptions::default()
    };
    let error = solved(to(&attrs)).await.unwrap_err();
    assert!(error.message().contains("NoSuchBucket"), "{error:?}");
    assert!(!format!("{error:?}").contains(SECRET_ACCESS_KEY), "{error:?}");
    attrs.insert("ignore-error".to_owned(), "true".to_owned());
    solved(to(&attrs)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_cache_to_read_that_there_cannot_be_is_passed_over() {
    let cases: [(&str, &[(&str, &str)]); 6] = [
        ("nope", &[]),
        ("registry", &[]),
        ("registry", &[("ref", "UPPER")]),
        ("local", &[("src", "x")]),
        ("local", &[("src", "x"), ("digest", "x")]),
        ("s3", &[("region", "r")]),
    ];
    for (kind, attrs) in cases {
        let attrs = attrs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let from = CacheOptions {
            imports: vec![entry(kind, &attrs.collect())],
            ..CacheOptions::default()
        };
        let done = solved(from).await;
        assert!(done.is_ok(), "{kind}: {done:?}");
    }
}
