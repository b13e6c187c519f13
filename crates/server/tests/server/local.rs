//! Builds of this machine, as the command line asks for them, whose Dockerfile names a front end in a registry.

use std::sync::Arc;

use rbuild_builder::build::{Helpers, build};
use rbuild_builder::error::BuildError;
use rbuild_builder::request::{
    BuildOutcome, BuildRequest, ContextSource, DockerfileSource, Output, OutputKind, TreeDestination,
};
use rbuild_builder::subrequest::call;
use rbuild_frontend::subrequest::{Subrequest, SubrequestAnswer};
use rbuild_graph::progress::NullSink;
use rbuild_oci::{Digest, ImageConfig};
use rbuild_sandbox::Sandbox;
use rbuild_server::front_end::local::LocalFrontEnds;
use rbuild_testkit::registry::{ImageSpec, TestRegistry};
use tokio_util::sync::CancellationToken;

use crate::bench::Bench;
use crate::gateway::{libraries, program};

/// An image with the front end in `registry`.
fn publish(registry: &TestRegistry) -> String {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &std::path::Path, name: &str| {
        let mut header = tar::Header::new_gnu();
        let content = std::fs::read(path).unwrap();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, name, content.as_slice()).unwrap();
    };
    add(&program(), "front-end");
    for library in libraries(&program()) {
        add(&library, library.strip_prefix("/").unwrap().to_str().unwrap());
    }
    let mut config = ImageConfig::default();
    config.config.entrypoint = vec!["/front-end".to_owned()];
    let caps = (
        "moby.buildkit.frontend.caps",
        "moby.buildkit.frontend.subrequests",
    );
    config.config.labels.insert(caps.0.to_owned(), caps.1.to_owned());
    let spec = ImageSpec {
        layers: vec![tar.into_inner().unwrap()],
        config,
        ..ImageSpec::default()
    };
    registry.put_image("front", "1", &spec);
    registry.reference("front:1")
}

struct Local {
    bench: Bench,
    registry: TestRegistry,
}

impl Local {
    fn new() -> Self {
        let registry = TestRegistry::start();
        let bench = Bench::with_sandbox(Sandbox::with_program(program()).unwrap());
        let image = publish(&registry);
        let dockerfile = format!("# syntax={image} and words\nthis is no Dockerfile\n");
        bench.files(
            "context",
            &[
                ("Dockerfile", dockerfile.as_str()),
                (".dockerignore", "hidden\n"),
                ("hidden", ""),
                ("shown", ""),
            ],
        );
        Self { bench, registry }
    }

    /// An image with one file as the layout `near`.
    fn layout(&self) {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        tar.append_data(&mut header, "inside", &b"near"[..]).unwrap();
        let spec = ImageSpec {
            layers: vec![tar.into_inner().unwrap()],
            ..ImageSpec::default()
        };
        self.registry.put_image("near", "v1", &spec);
        let (kind, manifest) = self.registry.manifest("near", "v1").unwrap();
        let parsed: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let blobs = self.bench.dir.path().join("near/blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let top = Digest::sha256(&manifest);
        std::fs::write(blobs.join(top.hex()), &manifest).unwrap();
        for part in [&parsed["config"], &parsed["layers"][0]] {
            let digest = Digest::parse(part["digest"].as_str().unwrap()).unwrap();
            let blob = self.registry.blob("near", &digest).unwrap();
            std::fs::write(blobs.join(digest.hex()), blob).unwrap();
        }
        let entry = serde_json::json!({
            "mediaType": kind,
            "digest": top,
            "size": manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": "v1"},
        });
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
        std::fs::write(self.bench.dir.path().join("near/index.json"), index.to_string()).unwrap();
    }

    fn request(&self) -> BuildRequest {
        let context = self.bench.dir.path().join("context");
        BuildRequest {
            dockerfile: DockerfileSource::File(context.join("Dockerfile")),
            context: ContextSource::Dir(context),
            ..BuildRequest::default()
        }
    }

    async fn ask(&self, question: Subrequest) -> Result<SubrequestAnswer, BuildError> {
        let engine = Arc::clone(&self.bench.core.engine);
        let front_ends = LocalFrontEnds(Arc::clone(&self.bench.core));
        let (sink, cancel) = (Arc::new(NullSink), CancellationToken::new());
        call(engine, self.request(), question, sink, cancel, &front_ends).await
    }

    async fn build(&self, what: &str) -> Result<BuildOutcome, BuildError> {
        let dir = self.bench.dir.path();
        let output = Output::new(OutputKind::Local(TreeDestination::Dir(dir.join("out"))));
        let near = format!("oci-layout://{}:v1", dir.join("near").display());
        let request = BuildRequest {
            build_contexts: std::iter::once(("near".to_owned(), near)).collect(),
            build_args: std::iter::once(("DO".to_owned(), what.to_owned())).collect(),
            outputs: vec![output],
            ..self.request()
        };
        let front_ends = Arc::new(LocalFrontEnds(Arc::clone(&self.bench.core)));
        let engine = Arc::clone(&self.bench.core.engine);
        build(
            engine,
            request,
            Arc::new(NullSink),
            CancellationToken::new(),
            Helpers {
                front_ends,
                terminal: None,
            },
        )
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_build_of_this_machine_is_read_by_the_front_end_its_dockerfile_names() {
    let local = Local::new();
    local.layout();
    local.build("read").await.unwrap();
    let found = std::fs::read_to_string(local.bench.dir.path().join("out/found")).unwrap();
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines[0], "Dockerfile 2 lines");
    assert!(lines[1].ends_with("/front:1 and words"), "{found}");
    assert_eq!(
        lines[2], ".dockerignore Dockerfile shown",
        "ignored files are not shown"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_its_failure_is_told_at_the_line_that_named_it() {
    let local = Local::new();
    local.layout();
    let error = local.build("die").await.unwrap_err();
    let place = error.place().unwrap();
    assert_eq!((place.lines, place.source.text.is_empty()), ((1, 1), false));
    let message = error.message();
    assert!(
        message.starts_with("failed to build: failed to solve: ") && message.contains("no luck"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_questions_are_answered_by_the_front_end_the_dockerfile_names() {
    let local = Local::new();
    let answer = local.ask(Subrequest::Targets).await.unwrap();
    let (json, text) = (answer.json().unwrap(), answer.text().unwrap());
    assert_eq!(json, br#"{"own":"targets"}"#);
    let text = String::from_utf8(text).unwrap();
    let asked = "frontend.targets moby.buildkit.frontend.subrequests+forward ";
    assert!(
        text.starts_with(asked) && text.ends_with("/front:1 and words\n"),
        "{text}"
    );
    let SubrequestAnswer::Given(given) = local.ask(Subrequest::Lint).await.unwrap() else {
        panic!("it is not our own lint that answers");
    };
    let found = given.lint().unwrap();
    let failure = found.failure.unwrap();
    assert_eq!(found.warnings, 1);
    assert_eq!(
        (
            failure.message.as_str(),
            failure.spans.first().map(|span| span.start)
        ),
        ("all is wrong", Some(2))
    );
    assert_eq!(found.source, b"one\ntwo\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_question_it_does_not_know_is_answered_for_a_dockerfile() {
    let local = Local::new();
    let error = local.ask(Subrequest::Outline).await.unwrap_err();
    let message = error.message();
    assert!(message.contains("unknown instruction: this"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_context_that_is_a_layout_is_a_store_for_it() {
    let local = Local::new();
    local.layout();
    local.build("layout").await.unwrap();
    let found = std::fs::read_to_string(local.bench.dir.path().join("out/found")).unwrap();
    assert_eq!(found, "near");
}
