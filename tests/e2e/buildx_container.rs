//! The real `docker buildx` on a real dockerd, and the image of docs/deploy/Dockerfile in the place of `moby/buildkit`:
//! the container is made, waited for, talked to and stopped as buildx's drivers do it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rbuild_testkit::debian::DebianBase;
use rbuild_testkit::machine;

use crate::e2e::buildx::{printed, program};
use crate::e2e::docker_engine::DockerEngine;
use crate::e2e::fixture::{Fixture, busybox_argument, is_root};

const IMAGE: &str = "example.invalid/rbuild:1";
const APP: &str = "example.invalid/app:1";
/// How long the server may take to answer.
const START: Duration = Duration::from_secs(30);
const CONFIG: &str = "[worker.oci]\n  labels = { \"of.the\" = \"configuration\" }\n";

/// buildx with an engine that has the image, and something to build.
struct Buildx {
    program: PathBuf,
    engine: DockerEngine,
    fixture: Fixture,
    dir: PathBuf,
}

impl Buildx {
    /// A line that says what is missing where not all of it can be had.
    fn start() -> Option<Self> {
        if !is_root("dockerd") {
            return None;
        }
        let program = program()?;
        let fixture = Fixture::new("FROM busybox\nCOPY a /a\nRUN cat /a > /made\nCMD [\"cat\", \"/made\"]\n");
        fixture.context.file("a", "built in a container\n");
        let dir = fixture.home.work().join("engine");
        fs::create_dir_all(dir.join("etc")).expect("a directory");
        fs::write(dir.join("etc/buildkitd.toml"), CONFIG).expect("a file");
        let engine = DockerEngine::start_privileging(&dir);
        if !image(&fixture, &engine) {
            engine.stop();
            return None;
        }
        Some(Self {
            program,
            engine,
            fixture,
            dir,
        })
    }

    fn build(&self, builder: &str, more: &[&str]) -> String {
        let (builder, base) = (format!("--builder={builder}"), busybox_argument("busybox"));
        let context = self.fixture.context.dir().display().to_string();
        let args = ["build", &builder, "--progress=plain", &base];
        self.ok(&[&args, more, &[&context]].concat())
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(&self.program)
            .args(args)
            .env("BUILDX_CONFIG", self.dir.join("buildx"))
            .env("DOCKER_CONFIG", self.dir.join("docker"))
            .env("DOCKER_HOST", self.engine.address())
            .output()
            .expect("buildx runs")
    }

    /// What a command printed that has to succeed.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        printed(args, &self.run(args))
    }
}

/// The image of docs/deploy/Dockerfile with the program under test in it, in the engine; a line that says why if the
/// base is not there.
fn image(fixture: &Fixture, engine: &DockerEngine) -> bool {
    let base = match DebianBase::Slim.layout() {
        Ok(dir) => format!(
            "--build-context=debian:12-slim=oci-layout://{}:{}",
            dir.display(),
            DebianBase::Slim.name()
        ),
        Err(error) => {
            machine::skip(&format!("deploy: {error:#}"));
            return false;
        }
    };
    let context = fixture.home.work().join("image");
    fs::create_dir(&context).expect("a directory");
    fs::copy(env!("CARGO_BIN_EXE_rbuild"), context.join("rbuild")).expect("a program");
    let dockerfile = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deploy/Dockerfile");
    let load = format!("--load={}", engine.address());
    fixture
        .build_of()
        .args(["--build-arg=PACKAGES=", &base, &load, "-t", IMAGE, "-f"])
        .arg(&dockerfile)
        .arg(&context)
        .ok();
    true
}

#[test]
fn slow_privileged_the_docker_container_driver_builds_in_our_image() {
    let Some(buildx) = Buildx::start() else { return };
    let config = buildx.dir.join("etc/buildkitd.toml");
    buildx.ok(&[
        "create",
        "--name=box",
        "--driver=docker-container",
        &format!("--driver-opt=image={IMAGE}"),
        "--driver-opt=network=host",
        &format!("--buildkitd-config={}", config.display()),
        "--buildkitd-flags=--debug --allow-insecure-entitlement network.host",
    ]);
    // The driver asks by `buildctl debug workers` until the server answers, and speaks to it by `buildctl dial-stdio`.
    let inspected = buildx.ok(&["inspect", "--bootstrap", "box"]);
    for told in ["running", "of.the", "configuration"] {
        assert!(inspected.contains(told), "{told}: {inspected}");
    }
    buildx.build("box", &["--load", "--tag", APP]);
    let ran = buildx.engine.docker(["run", "--rm", "--network=none", APP]).run();
    assert_eq!(ran.stdout_text(), "built in a container", "{ran}");
    buildx.build("box", &["--network=host", "--allow=network.host", "--no-cache"]);
    // The cache is in a volume, which outlives the container.
    buildx.ok(&["stop", "box"]);
    let again = buildx.build("box", &[]);
    assert!(again.contains("CACHED"), "{again}");
    buildx.ok(&["rm", "--force", "box"]);
    let left = buildx.engine.docker(["ps", "--all", "--quiet"]).run();
    assert_eq!(left.stdout_text(), "", "the driver removed its container");
    buildx.engine.stop();
}

/// There is no cluster here: the engine does to a container what the driver's manifest has a kubelet do to a pod.
#[test]
fn slow_privileged_what_the_kubernetes_driver_does_to_a_pod_is_answered_by_our_image() {
    let Some(buildx) = Buildx::start() else { return };
    let at = |name: &str, place: &str| format!("--volume={}:{place}", buildx.dir.join(name).display());
    let docker = |args: &[&str]| buildx.engine.docker(args);
    let (etc, root) = (at("etc", "/etc/buildkit:ro"), at("pod", "/var/lib/buildkit"));
    let pod = [
        "run",
        "--detach",
        "--name=pod",
        "--privileged",
        "--network=host",
        &etc,
        &root,
    ];
    docker(&[&pod[..], &[IMAGE, "--debug"]].concat()).ok();
    // Its probes, for being ready and for being alive.
    let deadline = Instant::now() + START;
    while !docker(&["exec", "pod", "buildctl", "debug", "workers"])
        .run()
        .status
        .success()
    {
        assert!(Instant::now() < deadline, "the server does not answer its probe");
        std::thread::sleep(Duration::from_millis(200));
    }
    let workers = docker(&["exec", "pod", "buildctl", "debug", "workers", "-v"]).ok();
    assert!(
        workers.stdout_text().contains("of.the"),
        "the mounted file was read: {workers}"
    );
    docker(&["exec", "pod", "test", "-S", "/run/buildkit/buildkitd.sock"]).ok();
    // buildx's way in, an exec of `buildctl dial-stdio`, by its twin for containers.
    buildx.ok(&[
        "create",
        "--name=pod",
        "--driver=remote",
        "docker-container://pod",
    ]);
    let out = buildx.dir.join("out");
    buildx.build("pod", &[&format!("--output=type=local,dest={}", out.display())]);
    let made = fs::read_to_string(out.join("made")).expect("a file");
    assert_eq!(made, "built in a container\n");
    // A kubelet ends what it runs by SIGTERM.
    docker(&["stop", "--time=20", "pod"]).ok();
    let code = docker(&["inspect", "--format={{.State.ExitCode}}", "pod"]).ok();
    assert_eq!(code.stdout_text(), "0");
    docker(&["rm", "pod"]).ok();
    buildx.engine.stop();
}
