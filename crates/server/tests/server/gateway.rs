//! Front ends that are images, and the containers they make: a front end of our own (`tests/front_end`) in a file system made
//! of this machine's libraries.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bollard_buildkit_proto::moby::buildkit::v1::{Exporter, SolveRequest};
use bollard_buildkit_proto::pb;
use rbuild_graph::{Edge, Graph, Op, SourceOp, Vertex};
use rbuild_sandbox::Sandbox;
use rbuild_server::core::{FrontEnds, Settings};
use rbuild_session::fake::{FakeClient, FakeConnection, SentNames};
use tonic::{Code, Status};

use crate::bench::Bench;
use crate::builds::files;

const CAPS: &str = r#""moby.buildkit.frontend.caps":"moby.buildkit.frontend.inputs""#;

/// The front end's program, which is built with these tests.
pub(crate) fn program() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let profile = here.parent().and_then(Path::parent).unwrap();
    let program = profile.join("examples/test-front-end");
    assert!(
        program.exists(),
        "{} is missing: cargo build --examples",
        program.display()
    );
    program
}

/// Everything a test needs.
struct Stage {
    bench: Bench,
    out: Arc<Mutex<Vec<u8>>>,
    _client: FakeConnection,
}

impl Stage {
    /// `None`, with the reason printed, where there is no static busybox.
    #[expect(clippy::print_stdout, reason = "a skipped test says so")]
    async fn new() -> Option<Self> {
        let busybox = Path::new("/bin/busybox");
        if !busybox.exists() {
            assert!(
                std::env::var_os("RBUILD_REQUIRE_PEERS").is_none(),
                "RBUILD_REQUIRE_PEERS is set and there is no /bin/busybox"
            );
            println!("SKIP: /bin/busybox is missing (apt-get install busybox-static)");
            return None;
        }
        let bench = Bench::with_sandbox(Sandbox::with_program(program()).unwrap());
        let image = bench.dir.path().join("image");
        copy(&program(), &image.join("front-end"));
        for library in libraries(&program()) {
            copy(&library, &image.join(library.strip_prefix("/").unwrap()));
        }
        std::fs::create_dir(image.join("work")).unwrap();
        let root = bench.dir.path().join("root");
        copy(busybox, &root.join("bin/busybox"));
        for name in [
            "sh", "cat", "ls", "grep", "tr", "test", "echo", "hostname", "pidof", "true", "sleep", "stty",
            "mknod", "mkfifo", "ln",
        ] {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        let context = bench.files(
            "context",
            &[("Dockerfile", "# syntax=some/front:end with words\nFROM scratch\n")],
        );
        let sent = SentNames::default();
        let out = Arc::new(Mutex::new(Vec::new()));
        let client = FakeClient::new("s")
            .directory("image", &image, &sent)
            .directory("busybox", &root, &sent)
            .directory("context", &context, &sent)
            .directory("dockerfile", &context, &sent)
            .output(0, &out);
        let client = client.connect(&bench.core.sessions).await.unwrap();
        Some(Self {
            bench,
            out,
            _client: client,
        })
    }

    /// A build by the front end, which is told to do `what`.
    fn request(what: &str, more: &[(&str, &str)]) -> SolveRequest {
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Entrypoint":["/front-end"],"WorkingDir":"/work",
               "Env":["OF_IMAGE=yes"],"Labels":{{{CAPS},"moby.buildkit.frontend.network.none":"1"}}}}}}"#
        );
        let config = base64::engine::general_purpose::STANDARD.encode(config);
        let metadata = format!(r#"{{"containerimage.config":"{config}"}}"#);
        let mut attrs: HashMap<String, String> = [
            ("source", "some/front:end"),
            ("context:some/front:end", "input:image"),
            ("input-metadata:image", &metadata),
            ("do", what),
        ]
        .into_iter()
        .chain(more.iter().copied())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
        let frontend = attrs
            .remove("frontend")
            .unwrap_or_else(|| "gateway.v0".to_owned());
        let inputs = ["image", "busybox"].map(|name| (name.to_owned(), local(name)));
        SolveRequest {
            r#ref: what.to_owned(),
            session: "s".to_owned(),
            frontend,
            frontend_attrs: attrs,
            frontend_inputs: inputs.into_iter().collect(),
            exporters: vec![Exporter {
                r#type: "tar".to_owned(),
                attrs: HashMap::new(),
            }],
            ..SolveRequest::default()
        }
    }

    async fn build(&self, request: SolveRequest) -> Result<Vec<String>, Status> {
        self.bench.solve(request).await?;
        let found: BTreeMap<String, String> = files(&self.out.lock().unwrap());
        Ok(found["found"].lines().map(str::to_owned).collect())
    }

    async fn found(&self, what: &str) -> Vec<String> {
        self.build(Self::request(what, &[])).await.unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// What the dynamic linker loads for a program, itself included.
pub(crate) fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(PathBuf::from).collect()
}

/// A directory of the client as a definition.
fn local(name: &str) -> pb::Definition {
    let mut graph = Graph::default();
    let vertex = graph.add(Vertex::new(
        Op::Source(SourceOp {
            identifier: format!("local://{name}"),
            attrs: BTreeMap::new(),
        }),
        Vec::new(),
    ));
    let target = Edge {
        vertex: vertex.unwrap(),
        output: 0,
    };
    rbuild_llb::encode(&graph, &target).unwrap()
}

fn processes(text: &str) -> usize {
    let lines = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.unwrap().path().join("cmdline");
        std::fs::read(path).ok()
    });
    lines
        .filter(|line| String::from_utf8_lossy(line).contains(text))
        .count()
}

/// Nothing of a build is left: no process with `text` in its arguments, no mount of the store.
fn nothing_is_left(stage: &Stage, text: &str) {
    let start = Instant::now();
    while processes(text) > 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "{text} still runs");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let store = stage.bench.dir.path().display().to_string();
    assert!(!mounts.contains(&store), "{mounts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_front_end_that_is_an_image_answers_a_build() {
    let Some(stage) = Stage::new().await else { return };
    let found = stage
        .build(Stage::request("look", &[("build-arg:A", "an argument")]))
        .await
        .unwrap();
    assert_eq!(
        found,
        [
            "exec true",
            "BUILDKIT_SESSION_ID=s",
            "BUILDKIT_EXPORTEDPRODUCT=buildkit",
            "OF_IMAGE=yes",
            "option an argument",
            "cwd /work",
            "definition of 2 operations",
            "inputs busybox,image",
            "interfaces 1",
            "pid 1, host in mounts false",
            "Seccomp:\t2",
        ]
    );
    nothing_is_left(&stage, "/front-end");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_the_first_line_of_a_dockerfile_hands_the_build_over() {
    let Some(stage) = Stage::new().await else { return };
    let more = [
        ("frontend", "dockerfile.v0"),
        ("build-arg:A", "b"),
        ("source", ""),
    ];
    let found = stage.build(Stage::request("look", &more)).await.unwrap();
    assert!(found.contains(&"option b".to_owned()), "{found:?}");
    let named = [
        ("frontend", "dockerfile.v0"),
        ("build-arg:BUILDKIT_SYNTAX", "docker/dockerfile:1"),
    ];
    // The one that is in this program is not fetched.
    stage.bench.solve(Stage::request("own", &named)).await.unwrap();
    let error = stage
        .build(Stage::request("error", &[("frontend", "dockerfile.v0")]))
        .await
        .unwrap_err();
    let details = String::from_utf8_lossy(error.details()).into_owned();
    for part in [
        "the front end says no",
        "errdefs.Frontend+json",
        "gateway.v0",
        "errdefs.Source+json",
    ] {
        assert!(details.contains(part), "{part} is not in {details}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_containers_have_processes_streams_files_and_terminals() {
    let Some(stage) = Stage::new().await else { return };
    let found = stage.found("containers").await;
    assert_eq!(
        found,
        [
            r#"first ["started"] 0 "inside\n10.1.2.3 far\n/bin\n""#,
            r#"second ["started", "exit", "done"] 2 "1\n" "err\n" 0"#,
            r#"file "text\n""#,
            r#"list ["file"]"#,
            "stat 5",
            // The node is made, and no disk of the host is read by it.
            "special files made 0",
            "read disk false",
            "read zero false",
            "read pipe false",
            "read link true",
            "mount 2 true",
            "mount 7 true",
            "mount -1 true",
            r#"first ["exit", "done"] 2 "through" 0"#,
            "late 255 container has stopped",
            "released true",
            "again NotFound",
            "tty true true",
            r#"signal 9 "exit code: 9" gatewayapi.ExitMessage+json {"Code":9}"#,
            r#"released "exit code: 9""#,
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_front_ends_look_into_what_failed() {
    let Some(stage) = Stage::new().await else { return };
    let found = stage.found("failures").await;
    assert_eq!(
        found,
        [
            "step 4 inputs 4 mounts, op true",
            r#"before "" """#,
            r#"after "r\nk\nd\n" """#,
            r#"file 0 inputs 2 mounts, op true "1""#,
            r#"file a "text""#,
            r#"content 1 inputs 0 mounts, op true "1""#,
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row49_containers_get_nothing_that_the_build_was_not_allowed() {
    let Some(stage) = Stage::new().await else { return };
    let found = stage.found("forbidden").await;
    let line = |start: &str| {
        let found = found.iter().find(|line| line.starts_with(start));
        found
            .unwrap_or_else(|| panic!("{start} is not in {found:#?}"))
            .as_str()
    };
    assert!(
        line("network 1:").contains("network.host is not allowed"),
        "{found:#?}"
    );
    assert!(line("network 7:").contains("network mode"), "{found:#?}");
    assert!(line("network -1:").contains("network mode"), "{found:#?}");
    assert_eq!(line("network 2:"), r#"network 2: "lo " None"#);
    assert!(
        line("security 1:").contains("security.insecure is not allowed"),
        "{found:#?}"
    );
    assert!(
        line("security 7:").contains("invalid security mode 7"),
        "{found:#?}"
    );
    assert!(
        line("security -1:").contains("invalid security mode -1"),
        "{found:#?}"
    );
    assert!(
        line("security 0:").contains("CapEff: 00000000a80425fb Seccomp: 2"),
        "{found:#?}"
    );
    assert!(
        line("join insecure:").contains("security.insecure is not allowed"),
        "{found:#?}"
    );
    for rest in [
        "selector of the root true",
        "secret: true",
        "no root: true",
        "strange ref: true",
        "bounded true",
    ] {
        assert_eq!(line(rest), rest);
    }
    nothing_is_left(&stage, "/front-end");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row49_a_dockerfile_names_no_front_end_that_the_configuration_forbids() {
    let allowed = |front_ends: FrontEnds| Settings {
        front_ends,
        ..Settings::default()
    };
    for (settings, told) in [
        (
            allowed(FrontEnds {
                no_gateway: true,
                ..FrontEnds::default()
            }),
            "invalid frontend: gateway.v0",
        ),
        (
            allowed(FrontEnds {
                repositories: vec!["docker.io/trusted/front".to_owned()],
                ..FrontEnds::default()
            }),
            "'some/front:end' is not an allowed gateway source",
        ),
    ] {
        let bench = Bench::with_settings(Sandbox::new().unwrap(), settings);
        let context = bench.files(
            "context",
            &[("Dockerfile", "# syntax=some/front:end\nFROM scratch\n")],
        );
        let _client = bench.client("s", &context, &Arc::default()).await;
        for (frontend, source) in [("dockerfile.v0", ""), ("gateway.v0", "some/front:end")] {
            let attrs: HashMap<String, String> = [("source", source)]
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect();
            let request = SolveRequest {
                r#ref: format!("forbidden {frontend}"),
                session: "s".to_owned(),
                frontend: frontend.to_owned(),
                frontend_attrs: attrs,
                ..SolveRequest::default()
            };
            let error = bench.solve(request).await.unwrap_err();
            assert!(error.message().contains(told), "{frontend}: {error}");
        }
        // The front end that is in this program is no image.
        std::fs::write(
            context.join("Dockerfile"),
            "# syntax=docker/dockerfile:1\nFROM scratch\n",
        )
        .unwrap();
        bench
            .solve(crate::bench::dockerfile("own", "s", "tar", &[]))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_front_ends_that_die_lie_or_loop_fail_their_build_only() {
    let Some(stage) = Stage::new().await else { return };
    let error = stage.build(Stage::request("die", &[])).await.unwrap_err();
    assert!(
        error.message().contains("exit code: 3") && error.message().contains("no luck"),
        "{error}"
    );
    let error = stage.build(Stage::request("garbage", &[])).await.unwrap_err();
    assert!(error.message().contains("frontend"), "{error}");
    let error = stage.build(Stage::request("error", &[])).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::Unknown, "the front end says no")
    );
    let found = stage.found("call-itself").await;
    assert_eq!(found, ["answered"]);
    let lacking = [("frontend.caps", "moby.buildkit.frontend.other")];
    let error = stage.build(Stage::request("look", &lacking)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    nothing_is_left(&stage, "/front-end");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_row48_a_front_end_ends_with_its_build_and_so_do_its_containers() {
    let Some(stage) = Stage::new().await else { return };
    let found = stage.found("leave").await;
    assert_eq!(found, ["left"]);
    nothing_is_left(&stage, "86479");
    nothing_is_left(&stage, "/front-end");
    // One that never answers ends with its client's wish to wait for it.
    let waiting = stage.bench.solve(Stage::request("silence", &[]));
    tokio::time::timeout(Duration::from_secs(5), waiting)
        .await
        .unwrap_err();
    nothing_is_left(&stage, "/front-end");
}
