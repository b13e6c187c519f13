//! `SOURCE_DATE_EPOCH` that is no number: contexts and stages that have a time.

use std::sync::Arc;

use rbuild_frontend::{ClientContexts, ContextOrigin, FrontendOptions, InputGraph, Lowered, RemoteContext};
use rbuild_graph::{Edge, Graph, Op, SourceOp, Vertex};

use crate::dump::dump;
use crate::fake::{Fake, lower_with, options};

const URL: &str = "https://h/src.tar";
const TIME: i64 = 1_700_000_402;

fn with_epoch(dockerfile: &str, value: &str) -> FrontendOptions {
    let mut options = options(dockerfile);
    options
        .build_args
        .insert("SOURCE_DATE_EPOCH".into(), value.into());
    options
}

fn seconds(lowered: &Lowered) -> Option<i64> {
    lowered.epoch.map(rbuild_oci::Timestamp::unix_seconds)
}

#[test]
fn a_stage_that_is_one_remote_add_has_the_time_of_what_it_adds() {
    let dockerfile = "ARG SOURCE_DATE_EPOCH=mysource\nARG HOST=h\nFROM scratch AS mysource\nARG FILE=src.tar\n\
         ADD https://$HOST/$FILE /\nFROM alpine\nARG SOURCE_DATE_EPOCH\nRUN x\n";
    let fake = Fake::new().time(URL, TIME);
    let lowered = lower_with(&options(dockerfile), &fake).unwrap();
    assert_eq!(seconds(&lowered), Some(TIME));
    assert_eq!(lowered.image.history.last().unwrap().created, lowered.epoch);
    assert!(dump(&lowered).contains("SOURCE_DATE_EPOCH=1700000402"));
    let asked = fake.asked();
    assert_eq!(
        asked[1],
        "time https://h/src.tar {\"http.filename\": \"src.tar\"} as [internal] resolve SOURCE_DATE_EPOCH source stage \
         mysource"
    );
    let mut other = options(dockerfile);
    other.build_args.insert("FILE".into(), "other.tar".into());
    let fake = Fake::new().time(URL, TIME);
    assert_eq!(
        seconds(&lower_with(&other, &fake).unwrap()),
        None,
        "{:?}",
        fake.asked()
    );
    let given = with_epoch(dockerfile, "5");
    let fake = Fake::new().time(URL, TIME);
    assert_eq!(seconds(&lower_with(&given, &fake).unwrap()), Some(5));
    assert_eq!(fake.asked(), ["docker.io/library/alpine:latest linux/amd64"]);
}

#[test]
fn a_repository_is_asked_for_as_add_would_ask() {
    let dockerfile =
        "FROM scratch AS SRC\nADD --keep-git-dir --checksum=abc https://h/r.git#v1:dir /\nFROM alpine\n";
    let fake = Fake::new().time("git://h/r.git#v1:dir", TIME);
    assert_eq!(
        seconds(&lower_with(&with_epoch(dockerfile, "src"), &fake).unwrap()),
        Some(TIME)
    );
    let asked = fake.asked();
    assert!(asked[1].contains("\"git.checksum\": \"abc\""), "{asked:?}");
    assert!(asked[1].contains("\"git.keepgitdir\": \"true\""), "{asked:?}");
}

#[test]
fn stages_that_are_more_than_a_remote_add_are_refused() {
    for (stage, text) in [
        (
            "FROM scratch AS src\nCOPY a /",
            "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported COPY instruction",
        ),
        (
            "FROM alpine AS src\nADD https://h/a /",
            "SOURCE_DATE_EPOCH stage must use FROM scratch",
        ),
        (
            "FROM scratch AS src",
            "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD",
        ),
        (
            "FROM scratch AS src\nADD https://h/a /\nADD https://h/b /",
            "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD",
        ),
        (
            "FROM scratch AS src\nADD https://h/a https://h/b /",
            "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source",
        ),
        (
            "FROM scratch AS src\nADD a /",
            "SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD",
        ),
    ] {
        let dockerfile = format!("{stage}\nFROM alpine\n");
        let error = lower_with(&with_epoch(&dockerfile, "src"), &Fake::new()).unwrap_err();
        assert_eq!(error.to_string(), text, "{stage}");
        assert_eq!(error.span().map(|span| span.start), Some(1), "{stage}");
    }
    let unknown = options("ARG SOURCE_DATE_EPOCH=nobody\nFROM alpine AS a\n");
    let error = lower_with(&unknown, &Fake::new()).unwrap_err();
    assert_eq!(error.to_string(), "invalid SOURCE_DATE_EPOCH: nobody");
    assert_eq!(error.span().map(|span| span.start), Some(1));
}

#[test]
fn the_main_context_has_the_time_of_where_it_comes_from() {
    let remote = RemoteContext::parse(URL, false, true).unwrap();
    let fake = Fake::new().time(URL, TIME);
    let mut asked = with_epoch("FROM alpine\nCOPY a /\n", "context");
    asked.remote_context = remote;
    assert_eq!(seconds(&lower_with(&asked, &fake).unwrap()), Some(TIME));
    assert!(fake.asked()[1].ends_with("as [internal] resolve main build context metadata"));

    let local = with_epoch("FROM alpine\nCOPY a /\n", "context");
    let fake = Fake::new().time(URL, TIME);
    let lowered = lower_with(&local, &fake).unwrap();
    assert_eq!((seconds(&lowered), fake.asked().len()), (None, 1));
    assert!(!dump(&lowered).contains("SOURCE_DATE_EPOCH"));
}

#[test]
fn named_contexts_have_the_time_of_what_they_are() {
    let dockerfile = "ARG SOURCE_DATE_EPOCH=mysource\nFROM alpine\n";
    for (value, time) in [(URL, Some(TIME)), ("docker-image://busybox", None), ("dir", None)] {
        let mut named = options(dockerfile);
        named.build_contexts.insert("mysource".into(), value.into());
        let fake = Fake::new().time(URL, TIME);
        assert_eq!(seconds(&lower_with(&named, &fake).unwrap()), time, "{value}");
    }
    let source = |identifier: &str| {
        Vertex::new(
            Op::Source(SourceOp {
                identifier: identifier.into(),
                attrs: std::collections::BTreeMap::new(),
            }),
            Vec::new(),
        )
    };
    let mut graph = Graph::default();
    graph.add(source("https://h/unused")).unwrap();
    let target = Edge {
        vertex: graph.add(source(URL)).unwrap(),
        output: 0,
    };
    let mut clients = ClientContexts::default();
    clients.inputs.insert(
        "in".into(),
        InputGraph {
            graph: Arc::new(graph),
            target: Some(target),
            config: None,
        },
    );
    let mut named = options(dockerfile);
    named.context_origin = ContextOrigin::Client(Box::new(clients));
    named.build_contexts.insert("mysource".into(), "input:in".into());
    let fake = Fake::new().time(URL, TIME);
    assert_eq!(seconds(&lower_with(&named, &fake).unwrap()), Some(TIME));
}
