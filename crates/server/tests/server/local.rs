//! Builds of this machine, as the command line asks for them, whose Dockerfile names a front end in a registry.

use std::sync::Arc;

use rbuild_builder::build::{Helpers, build};
use rbuild_builder::error::BuildError;
use rbuild_builder::request::{
    BuildOutcome, BuildRequest, ContextSource, DockerfileSource, Output, OutputKind, TreeDestination,
};
use rbuild_graph::progress::NullSink;
use rbuild_oci::ImageConfig;
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
    _registry: TestRegistry,
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
        Self {
            bench,
            _registry: registry,
        }
    }

    async fn build(&self, what: &str) -> Result<BuildOutcome, BuildError> {
        let dir = self.bench.dir.path();
        let output = Output::new(OutputKind::Local(TreeDestination::Dir(dir.join("out"))));
        let request = BuildRequest {
            context: ContextSource::Dir(dir.join("context")),
            dockerfile: DockerfileSource::File(dir.join("context/Dockerfile")),
            build_args: std::iter::once(("DO".to_owned(), what.to_owned())).collect(),
            outputs: vec![output],
            ..BuildRequest::default()
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
    let error = local.build("die").await.unwrap_err();
    let place = error.place().unwrap();
    assert_eq!((place.lines, place.source.text.is_empty()), ((1, 1), false));
    let message = error.message();
    assert!(
        message.starts_with("failed to build: failed to solve: ") && message.contains("no luck"),
        "{message}"
    );
}
