//! Contexts as clients of the API name them, and graphs that are given to the front end.

use std::collections::BTreeMap;
use std::sync::Arc;

use rbuild_frontend::{ClientContexts, ContextOrigin, FrontendOptions, InputGraph};
use rbuild_graph::{Edge, Graph, Op, SourceOp, Vertex};

use crate::dump::dump;
use crate::fake::{ALPINE, Fake, lower_with, options};

/// A graph of one source.
fn input(name: &str) -> InputGraph {
    let source = SourceOp {
        identifier: format!("git://{name}"),
        attrs: BTreeMap::new(),
    };
    let vertex = Vertex::new(Op::Source(source), Vec::new());
    let mut graph = Graph::default();
    let vertex = graph.add(vertex).unwrap();
    InputGraph {
        graph: Arc::new(graph),
        target: Some(Edge { vertex, output: 0 }),
        config: None,
    }
}

fn client(dockerfile: &str, contexts: &[(&str, &str)]) -> FrontendOptions {
    let given = contexts
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let with_config = InputGraph {
        config: Some(ALPINE.as_bytes().to_vec()),
        ..input("with-config")
    };
    let clients = ClientContexts {
        session_id: "own".to_owned(),
        local_session_ids: BTreeMap::from([("dir".to_owned(), "other".to_owned())]),
        shared_keys: BTreeMap::new(),
        inputs: BTreeMap::from([("base".to_owned(), with_config)]),
    };
    FrontendOptions {
        build_contexts: given.collect(),
        context_origin: ContextOrigin::Client(Box::new(clients)),
        ..options(dockerfile)
    }
}

fn failure(value: &str) -> String {
    let options = client("FROM named\n", &[("named", value)]);
    lower_with(&options, &Fake::new()).unwrap_err().to_string()
}

#[test]
fn a_directory_brings_what_is_used_of_it_from_the_session_that_has_it() {
    let fake = Fake::new().ignore_file("src", "*.log\n");
    let file = "FROM scratch\nCOPY --from=src a /a\nCOPY --from=src b/c /c\nCOPY main /m\n";
    let lowered = lower_with(&client(file, &[("src", "local:dir")]), &fake).unwrap();
    let text = dump(&lowered);
    for part in [
        r#"source local://dir local.excludepatterns=["*.log"] local.followpaths=["a","b/c"] local.session=other local.sharedkeyhint=context:src-"#,
        r#"source local://context local.followpaths=["main"] local.session=own local.sharedkeyhint=context"#,
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn a_directory_that_is_built_on_comes_whole() {
    let file = "FROM src\nCOPY --from=src a /a\n";
    let lowered = lower_with(&client(file, &[("src", "local:dir")]), &Fake::new()).unwrap();
    let text = dump(&lowered);
    assert!(
        text.contains("source local://dir") && !text.contains("followpaths"),
        "{text}"
    );
}

#[test]
fn an_image_of_a_content_store_is_named_by_its_digest() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let value = format!("oci-layout://store:tag@{digest}");
    let fake = Fake::new().image("store", ALPINE);
    let lowered = lower_with(&client("FROM named\nRUN x\n", &[("named", &value)]), &fake).unwrap();
    assert_eq!(fake.asked(), [format!("store own store {digest}")]);
    let text = dump(&lowered);
    let part = "oci.session=own oci.store=store";
    assert!(
        text.contains("source oci-layout://docker.io/library/named@") && text.contains(part),
        "{text}"
    );
}

#[test]
fn given_graphs_are_contexts_with_their_config() {
    let options = FrontendOptions {
        main_context: Some(input("main")),
        ..client("FROM named\nRUN x\nCOPY a /a\n", &[("named", "input:base")])
    };
    let lowered = lower_with(&options, &Fake::new()).unwrap();
    assert_eq!(lowered.image.config.env, ["PATH=/bin"]);
    let text = dump(&lowered);
    assert!(
        text.contains("git://with-config") && text.contains("git://main"),
        "{text}"
    );
    assert!(!text.contains("local://"), "{text}");
}

#[test]
fn contexts_that_mean_nothing_are_told_when_they_are_used() {
    for (value, text) in [
        ("dir", "invalid context specifier dir for named"),
        ("input:none", "invalid input none for named"),
        ("target:x", "unsupported context source target for named"),
        (
            "oci-layout://store",
            "oci-layout reference \"store\" has no digest",
        ),
    ] {
        assert_eq!(failure(value), text);
    }
    let options = client("FROM scratch\nCOPY a /a\n", &[("named", "dir")]);
    assert!(lower_with(&options, &Fake::new()).is_ok());
}
