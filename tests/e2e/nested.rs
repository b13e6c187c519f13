//! rbuild inside of other containers: those of Debian's dockerd with its default profile and with the options that
//! docs/rootless.md names, and steps of rbuild itself. Which rung is taken is asserted, and that the image is the one from outside.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rbuild_testkit::command::{Ran, TestHome};
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::machine;

mod steps;

use crate::e2e::RBUILD;
use crate::e2e::docker_engine::DockerEngine;
use crate::e2e::fixture::{Fixture, busybox_argument, is_root};

const BUILT: &str = "FROM busybox\nRUN echo x > /f && chown 5:6 /f && mkdir -m 2750 /d && ln -s f /l && ln /f /g\nUSER daemon\nRUN id > /tmp/id\n";
const EPOCH: &str = "--build-arg=SOURCE_DATE_EPOCH=1704067200";

/// The arguments of a build of `context` into `archive` whose layers are the same everywhere.
fn build(context: &Path, archive: &Path) -> Vec<String> {
    vec![
        "build".to_owned(),
        "--progress=plain".to_owned(),
        EPOCH.to_owned(),
        busybox_argument("busybox"),
        format!(
            "--output=type=oci,rewrite-timestamp=true,dest={}",
            archive.display()
        ),
        context.display().to_string(),
    ]
}

fn config(archive: &Path) -> serde_json::Value {
    OciLayout::open(archive).unwrap().image().unwrap().config
}

/// An engine with an image to run, and a directory that its containers share with this test.
struct Docker {
    _home: TestHome,
    shared: PathBuf,
    engine: Option<DockerEngine>,
    expected: serde_json::Value,
}

impl Docker {
    fn start() -> Option<Self> {
        if !is_root("dockerd") {
            return None;
        }
        let home = TestHome::new();
        let shared = home.work().join("shared");
        let room = home.work().join("engine");
        fs::create_dir_all(shared.join("context")).unwrap();
        fs::create_dir(&room).unwrap();
        fs::write(shared.join("context/Dockerfile"), BUILT).unwrap();
        let outside = shared.join("outside.tar");
        home.command(RBUILD)
            .args(build(&shared.join("context"), &outside))
            .ok();
        let engine = DockerEngine::start(&room);
        let image = Fixture::new("FROM busybox\nENV PATH=/usr/bin:/bin\n");
        let load = format!("--load={}", engine.address());
        image.build().args([&*load, "-t", "example.invalid/host:1"]).ok();
        let expected = config(&outside);
        Some(Self {
            _home: home,
            shared,
            engine: Some(engine),
            expected,
        })
    }

    /// `rbuild` with `args` in a container that was started with `options`, for which it has a store of its own.
    fn rbuild(&self, user: u32, options: &[&str], args: &[String]) -> Ran {
        let program = Path::new(RBUILD).parent().unwrap().display().to_string();
        let bases = rbuild_testkit::base::layout().unwrap().display().to_string();
        let store = self.shared.join(format!("home-{user}"));
        fs::create_dir_all(&store).unwrap();
        std::os::unix::fs::chown(&store, Some(user), Some(user)).unwrap();
        std::os::unix::fs::chown(&self.shared, Some(user), Some(user)).unwrap();
        let mut command = vec!["run".to_owned(), "--rm".to_owned(), "--network=none".to_owned()];
        for place in ["/usr", "/lib", "/lib64", &program, &bases] {
            command.push(format!("--volume={place}:{place}:ro"));
        }
        let shared = self.shared.display();
        command.push(format!("--volume={shared}:{shared}"));
        command.push(format!("--env=HOME={}", store.display()));
        command.push(format!("--user={user}:{user}"));
        command.extend(options.iter().map(|option| (*option).to_owned()));
        command.push("example.invalid/host:1".to_owned());
        command.push(RBUILD.to_owned());
        command.extend_from_slice(args);
        let engine = self.engine.as_ref().expect("an engine that runs");
        engine.docker(&command).run()
    }

    /// The options by which a container has the programs that map ranges of ids with file capabilities, as docs/deploy/Dockerfile
    /// gives them.
    fn helpers(&self) -> Option<Vec<String>> {
        let Some(setcap) = machine::program("setcap") else {
            machine::skip("setcap is not here: no container with ranges of ids");
            return None;
        };
        let mut options = Vec::new();
        for (name, capability) in [("newuidmap", "cap_setuid=ep"), ("newgidmap", "cap_setgid=ep")] {
            let (there, made) = (machine::program(name)?, self.shared.join(name));
            fs::copy(&there, &made).unwrap();
            fs::set_permissions(&made, fs::Permissions::from_mode(0o755)).unwrap();
            let set = Command::new(&setcap).arg(capability).arg(&made).status();
            assert!(set.is_ok_and(|status| status.success()));
            options.push(format!("--volume={}:{}:ro", made.display(), there.display()));
        }
        Some(options)
    }

    /// Builds there, on `rung`, what was built outside.
    #[track_caller]
    fn builds(&self, user: u32, options: &[&str], rung: &str) {
        let inside = self.shared.join("inside.tar");
        fs::remove_file(&inside).ok();
        let ran = self.rbuild(user, options, &build(&self.shared.join("context"), &inside));
        let ran = ran.succeeded();
        assert!(ran.stderr.contains(&format!("building on rung {rung}")), "{ran}");
        assert_eq!(config(&inside), self.expected, "{options:?}");
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.stop();
        }
    }
}

/// The options of `docker run` that mean what the line of `config.toml` in docs/rootless.md does.
fn documented_options() -> Vec<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rootless.md")).unwrap();
    let line = page
        .lines()
        .find_map(|line| line.trim().strip_prefix("security_opt = "))
        .expect("the line for GitLab's docker executor");
    let words: Vec<String> = serde_json::from_str(line).expect("a list of words");
    assert!(words.len() > 1, "{line}");
    words
        .iter()
        .map(|word| format!("--security-opt={word}"))
        .collect()
}

/// The lines of the Kubernetes job in docs/rootless.md that have an option of `docker run`.
fn documented_pod() -> Vec<String> {
    const MEANT: [(&str, &str); 5] = [
        (
            "allowPrivilegeEscalation: false",
            "--security-opt=no-new-privileges",
        ),
        ("capabilities: {drop: [ALL]}", "--cap-drop=ALL"),
        (
            "seccompProfile: {type: Unconfined}",
            "--security-opt=seccomp=unconfined",
        ),
        (
            "appArmorProfile: {type: Unconfined}",
            "--security-opt=apparmor=unconfined",
        ),
        ("procMount: Unmasked", "--security-opt=systempaths=unconfined"),
    ];
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rootless.md")).unwrap();
    let lines: Vec<&str> = page.lines().map(str::trim).collect();
    assert!(lines.contains(&"runAsUser: 1000"), "the user of the job");
    let options = MEANT.iter().filter(|(line, _)| lines.contains(line));
    let options: Vec<String> = options.map(|(_, option)| (*option).to_owned()).collect();
    assert_eq!(options.len(), MEANT.len(), "a line of the job is gone");
    options
}

#[test]
fn privileged_docker_containers_build_on_the_rung_that_their_options_allow() {
    let Some(docker) = Docker::start() else { return };
    let documented = documented_options();
    let documented: Vec<&str> = documented.iter().map(String::as_str).collect();
    // `--privileged` asks for more than the root of a virtual machine may have itself.
    docker.builds(0, &[&["--cap-add=SYS_ADMIN"], &*documented].concat(), "1 (root)");
    docker.builds(1000, &documented, "3 (one-id)");
    if let (Some(user), Some(helpers)) = (machine::ordinary_user(), docker.helpers()) {
        let files =
            ["/etc/passwd", "/etc/subuid", "/etc/subgid"].map(|file| format!("--volume={file}:{file}:ro"));
        let with = |more: &[String]| -> Vec<String> {
            let all = files.iter().chain(more).cloned();
            all.chain(documented.iter().map(|option| (*option).to_owned()))
                .collect()
        };
        let options = with(&helpers);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        docker.builds(user.uid, &options, "2 (subids)");
        // Debian's own are root while they write the map, which root of a container may not.
        let options = with(&[]);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let told = docker.rbuild(user.uid, &options, &["doctor".to_owned()]);
        assert!(
            told.stdout_text()
                .contains("setcap cap_setuid=ep /usr/bin/newuidmap"),
            "{told}"
        );
    }
    let pod = documented_pod();
    let pod: Vec<&str> = pod.iter().map(String::as_str).collect();
    docker.builds(1000, &pod, "3 (one-id)");
    docker.builds(0, &["--env=RBUILD_RUNG=chroot"], "4 (chroot)");
    // What an engine's profile does not know it hides: whether the last rung is taken by itself is the profile's doing.
    let unasked = docker.rbuild(
        0,
        &[],
        &build(&docker.shared.join("context"), &docker.shared.join("unasked.tar")),
    );
    if unasked.status.success() {
        unasked.says("building on rung 4 (chroot)");
    } else {
        unasked.says("--rung=chroot would work");
    }
    let user = docker.rbuild(
        1000,
        &[],
        &build(&docker.shared.join("context"), &docker.shared.join("user.tar")),
    );
    user.failed().says("no way to run steps here");
}
