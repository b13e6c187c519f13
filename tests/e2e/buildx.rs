//! The real `docker buildx` on a server of ours, by its remote driver. Debian 12 does not have it; where somebody installed it
//! these run, elsewhere they say that they do not.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rbuild_testkit::peer::DockerRegistry;

use crate::e2e::daemon::Daemon;
use crate::e2e::fixture::busybox_argument;

/// Where packages and people put the plugin.
const PLACES: [&str; 4] = [
    "/usr/libexec/docker/cli-plugins/docker-buildx",
    "/usr/lib/docker/cli-plugins/docker-buildx",
    "/usr/local/lib/docker/cli-plugins/docker-buildx",
    "/usr/local/libexec/docker/cli-plugins/docker-buildx",
];
const DOCKERFILE: &str = "FROM busybox AS base\nRUN echo built > /made\nFROM scratch AS out\nCOPY --from=base /made /made\nCOPY a /a\n";

/// buildx with a builder that is a server of ours.
pub(crate) struct Buildx {
    program: PathBuf,
    daemon: Daemon,
}

/// Where it is instead, if it is not in any of those places.
const VARIABLE: &str = "RBUILD_BUILDX";

/// The program, or a line that says it is not there.
pub(crate) fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home =
        std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker/cli-plugins/docker-buildx"));
    let places = std::env::split_paths(&path).map(|dir| dir.join("docker-buildx"));
    let named = std::env::var_os(VARIABLE).map(PathBuf::from);
    let mut places = named
        .into_iter()
        .chain(places)
        .chain(PLACES.map(PathBuf::from))
        .chain(home);
    let found = places.find(|place| place.is_file());
    if found.is_none() {
        println!(
            "SKIP: docker-buildx is not installed (Debian 13 has it as docker-buildx, Debian 12 does not), \
             and {VARIABLE} names none"
        );
    }
    found
}

/// What a command printed that has to succeed.
#[track_caller]
pub(crate) fn printed(args: &[&str], output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout) + &text(&output.stderr)
}

impl Buildx {
    pub(crate) fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP: the server runs as root here");
            return None;
        }
        let program = program()?;
        let this = Self {
            program,
            daemon: Daemon::start(&[]),
        };
        this.daemon.asked(&["--wait", "--timeout=20", "debug", "workers"]);
        let context = this.dir().join("context");
        std::fs::create_dir(&context).expect("a directory");
        std::fs::write(context.join("Dockerfile"), DOCKERFILE).expect("a file");
        std::fs::write(context.join("a"), "a\n").expect("a file");
        let socket = format!("unix://{}", this.daemon.socket().display());
        this.ok(&["create", "--name=ours", "--driver=remote", &socket]);
        Some(this)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.daemon.dir.path()
    }

    fn run(&self, args: &[&str]) -> Output {
        self.run_on("ours", args)
    }

    /// Another builder: what answers at `address`.
    pub(crate) fn add_builder(&self, name: &str, address: &str) {
        self.ok(&["create", "--name", name, "--driver=remote", address]);
    }

    /// A command on builder `name`.
    pub(crate) fn run_on(&self, name: &str, args: &[impl AsRef<str>]) -> Output {
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        Command::new(&self.program)
            .args(&args)
            .current_dir(self.dir().join("context"))
            .env("BUILDX_BUILDER", if args[0] == "create" { "" } else { name })
            .env("BUILDX_CONFIG", self.dir().join("buildx"))
            .env("DOCKER_CONFIG", self.dir().join("docker"))
            .env_remove("DOCKER_HOST")
            .output()
            .expect("buildx runs")
    }

    /// What a command printed that has to succeed.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        printed(args, &self.run(args))
    }
}

#[test]
fn privileged_buildx_builds_bakes_and_asks() {
    let Some(buildx) = Buildx::start() else { return };
    let context = buildx.dir().join("context");
    let base = busybox_argument("busybox");
    let inspected = buildx.ok(&["inspect", "--bootstrap"]);
    assert!(
        inspected.contains("Status:") && inspected.contains("running"),
        "{inspected}"
    );
    buildx.ok(&[
        "build",
        "--progress=plain",
        &base,
        "--output=type=local,dest=out",
        ".",
    ]);
    assert_eq!(
        std::fs::read_to_string(context.join("out/made")).expect("a file"),
        "built\n"
    );
    assert_eq!(
        std::fs::read_to_string(context.join("out/a")).expect("a file"),
        "a\n"
    );
    // The same again runs nothing, and a check of the file is answered.
    let again = buildx.ok(&[
        "build",
        "--progress=plain",
        &base,
        "--output=type=tar,dest=out.tar",
        ".",
    ]);
    assert!(again.contains("CACHED"), "{again}");
    assert!(
        buildx
            .ok(&["build", "--check", &base, "."])
            .contains("no warnings found")
    );
    let failed = buildx.run(&["build", "--progress=plain", &base, "--target=absent", "."]);
    let said = String::from_utf8_lossy(&failed.stderr);
    assert!(
        !failed.status.success() && said.contains("target stage \"absent\" could not be found"),
        "{said}"
    );

    let bake = format!(
        "group \"default\" {{ targets = [\"one\", \"two\"] }}\n\
         target \"one\" {{\n contexts = {{ busybox = \"{}\" }}\n output = [\"type=local,dest=one\"]\n}}\n\
         target \"two\" {{\n inherits = [\"one\"]\n output = [\"type=local,dest=two\"]\n}}\n",
        base.trim_start_matches("--build-context=busybox=")
    );
    std::fs::write(context.join("docker-bake.hcl"), bake).expect("a file");
    buildx.ok(&["bake", "--progress=plain", "--allow=fs=*"]);
    for name in ["one", "two"] {
        let made = std::fs::read_to_string(context.join(name).join("made"));
        assert_eq!(made.expect("a file"), "built\n");
    }

    let used = buildx.ok(&["du"]);
    assert!(used.contains("Total:"), "{used}");
    let history = buildx.ok(&["history", "ls"]);
    assert!(
        history.contains("Completed") && history.contains("Error"),
        "{history}"
    );
    let last = buildx.ok(&["history", "inspect"]);
    assert!(last.contains("Build Steps:"), "{last}");
    assert!(
        buildx
            .ok(&["history", "logs", "--progress=plain"])
            .contains("/made")
    );
    assert!(buildx.ok(&["prune", "--all", "--force"]).contains("Total:"));
}

#[test]
fn privileged_buildx_pushes_and_reads_what_it_pushed() {
    let Some(buildx) = Buildx::start() else { return };
    let registry = DockerRegistry::start().expect("docker-registry");
    let base = busybox_argument("busybox");
    let name = format!("{}/app:1", registry.host());
    buildx.ok(&["build", "--progress=plain", &base, "--tag", &name, "--push", "."]);
    let told = buildx.ok(&["imagetools", "inspect", &name]);
    assert!(told.contains("Digest:") && told.contains(&name), "{told}");
    let other = format!("{}/app:2", registry.host());
    buildx.ok(&["imagetools", "create", "--tag", &other, &name]);
    let cache = format!("type=registry,ref={}/cache", registry.host());
    let (to, from) = (
        format!("--cache-to={cache},mode=max"),
        format!("--cache-from={cache}"),
    );
    buildx.ok(&["build", "--progress=plain", &base, &to, "."]);
    buildx.ok(&["prune", "--all", "--force"]);
    let cached = buildx.ok(&[
        "build",
        "--progress=plain",
        &base,
        &from,
        "--output=type=local,dest=out",
        ".",
    ]);
    assert!(cached.contains("CACHED"), "{cached}");
}
