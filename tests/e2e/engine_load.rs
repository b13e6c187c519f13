//! `--load=ENGINE`: a real dockerd and a real containerd are given what was built, and not what they have.

use std::fs;
use std::time::{Duration, Instant};

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::machine;
use rustix::process::Signal;

use crate::e2e::docker_engine::DockerEngine;
use crate::e2e::fixture::{Fixture, is_root};

fn app() -> Fixture {
    let fixture = Fixture::new("FROM busybox\nCOPY a /a\nCMD [\"cat\", \"/a\"]\n");
    fixture.context.file("a", "first\n");
    fixture
}

#[test]
fn privileged_docker_is_given_what_it_does_not_have_and_runs_it() {
    if !is_root("dockerd") {
        return;
    }
    let fixture = app();
    let engine = DockerEngine::start_in(&fixture.home.work());
    let load = format!("--load={}", engine.address());
    let iid = fixture.home.work().join("iid");
    let build = |tag: &str| {
        let build = fixture.build().args([&*load, "-t", tag]).arg("--iidfile");
        build.arg(&iid).ok()
    };
    let ids = |name: &str| {
        let listed = engine.docker(["images", "--no-trunc", "-q", name]).ok();
        (fs::read_to_string(&iid).unwrap(), listed.stdout_text())
    };
    let run = |name: &str| {
        let args = ["run", "--rm", "--network=none", name];
        engine.docker(args).run().stdout_text()
    };
    let first = build("example.invalid/app:1");
    assert!(first.stderr.contains("2 of 2 layers"), "{first}");
    assert_eq!(run("example.invalid/app:1"), "first");
    let (told, found) = ids("example.invalid/app:1");
    assert_eq!(told, found, "the engine answers to the id of --iidfile");
    let again = build("example.invalid/app:1");
    assert!(again.stderr.contains("has the image already"), "{again}");
    // A new name of what it has is a name.
    let named = build("example.invalid/other:2");
    assert!(named.stderr.contains("has the image already"), "{named}");
    assert_eq!(run("example.invalid/other:2"), "first");
    // The base is there: only the layer above it is sent.
    fixture.context.file("a", "second\n");
    let second = build("example.invalid/app:1");
    assert!(second.stderr.contains("1 of 2 layers"), "{second}");
    assert_eq!(run("example.invalid/app:1"), "second");
    // An image without a name is known by its id.
    fixture.context.file("a", "third\n");
    let id = fixture
        .build_of()
        .args([&*load, "-q", "--progress=quiet"])
        .arg(fixture.context.dir())
        .ok();
    assert_eq!(run(&id.stdout_text()), "third");
    engine.stop();
    let gone = fixture.build().arg(&load).fails();
    assert!(gone.stderr.contains("d.sock"), "{gone}");
    let unknown = fixture.build().arg("--load=nothing").fails();
    assert!(unknown.stderr.contains("containerd"), "{unknown}");
}

#[test]
fn privileged_containerd_is_given_what_it_does_not_have() {
    if !is_root("containerd") {
        return;
    }
    let fixture = app();
    let room = fixture.home.work().join("containerd");
    fs::create_dir(&room).unwrap();
    let at = |name: &str| room.join(name).display().to_string();
    let config = format!(
        "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{}\"\n",
        at("root"),
        at("state"),
        at("c.sock"),
    );
    fs::write(room.join("config.toml"), config).unwrap();
    let containerd = machine::required("containerd", "containerd").unwrap();
    let daemon = RbuildCommand::new(containerd)
        .args(["--config", &at("config.toml")])
        .spawn();
    let ctr = |args: &[&str]| {
        RbuildCommand::new(machine::required("ctr", "containerd").unwrap())
            .args(["--address", &at("c.sock")])
            .args(args.iter().copied())
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ctr(&["version"]).run().status.success() {
        assert!(Instant::now() < deadline, "containerd does not come up");
        std::thread::sleep(Duration::from_millis(100));
    }
    let iid = fixture.home.work().join("iid");
    let build = |tag: &str| {
        let build = fixture
            .build()
            .args(["--load=containerd", "-t", tag])
            .arg("--iidfile");
        build.arg(&iid).env("CONTAINERD_ADDRESS", at("c.sock")).ok()
    };
    let first = build("example.invalid/app:1");
    assert!(first.stderr.contains("2 of 2 layers"), "{first}");
    let listed = ctr(&["images", "ls"]).ok().stdout_text();
    let told = fs::read_to_string(&iid).unwrap();
    let line = listed.lines().find(|line| line.contains("example.invalid/app:1"));
    assert!(
        line.is_some_and(|line| line.contains(&told)),
        "containerd knows no configs: {told}\n{listed}"
    );
    fixture.context.file("a", "second\n");
    let second = build("example.invalid/app:2");
    assert!(second.stderr.contains("1 of 2 layers"), "{second}");
    let listed = ctr(&["images", "check"]).ok().stdout_text();
    assert_eq!(listed.matches("complete (").count(), 2, "{listed}");
    daemon.signal(Signal::TERM);
    drop(daemon.wait());
}

#[test]
fn privileged_podman_is_given_what_it_does_not_have() {
    if !is_root("podman") {
        return;
    }
    let fixture = app();
    let room = fixture.home.work().join("podman");
    fs::create_dir(&room).unwrap();
    let at = |name: &str| room.join(name).display().to_string();
    let podman = |args: &[&str]| {
        RbuildCommand::new(machine::required("podman", "podman").unwrap())
            .args([
                "--root",
                &at("root"),
                "--runroot",
                &at("run"),
                "--storage-driver=vfs",
            ])
            .args(args.iter().copied())
    };
    let socket = format!("unix://{}", at("p.sock"));
    let service = podman(&["system", "service", "--time=0", &socket]).spawn();
    let deadline = Instant::now() + Duration::from_secs(30);
    while std::os::unix::net::UnixStream::connect(room.join("p.sock")).is_err() {
        assert!(Instant::now() < deadline, "podman does not come up");
        std::thread::sleep(Duration::from_millis(100));
    }
    let iid = fixture.home.work().join("iid");
    let build = || {
        let build = fixture
            .build()
            .args(["--load=podman", "-t", "example.invalid/app:1", "--iidfile"])
            .arg(&iid);
        build.env("CONTAINER_HOST", &socket).ok()
    };
    let first = build();
    assert!(first.stderr.contains("2 of 2 layers"), "{first}");
    let again = build();
    assert!(again.stderr.contains("has the image already"), "{again}");
    service.signal(Signal::TERM);
    drop(service.wait());
    let listed = podman(&["images", "--no-trunc", "-q", "example.invalid/app:1"]).ok();
    assert_eq!(listed.stdout_text(), fs::read_to_string(&iid).unwrap());
    // What it has is what was built.
    let id = podman(&["create", "example.invalid/app:1"]).ok().stdout_text();
    podman(&["cp", &format!("{id}:/a"), &at("a")]).ok();
    assert_eq!(fs::read_to_string(room.join("a")).unwrap(), "first\n");
}

#[test]
fn an_engine_that_is_not_there_is_told_with_what_else_can_be_done() {
    let fixture = app();
    let ran = fixture
        .build()
        .args(["-t", "app", "--load=docker"])
        .env("DOCKER_HOST", "unix:///nope/docker.sock")
        .fails();
    for part in [
        "ERROR: engine at unix:///nope/docker.sock: connect to \"/nope/docker.sock\": No such file or directory",
        "hint: the image is in rbuild's own store: start the engine",
        "--output type=docker,dest=image.tar",
    ] {
        assert!(ran.stderr.contains(part), "lacks {part:?}\n{ran}");
    }
    let kept = fixture.rbuild(["images", "-q", "app"]).ok();
    assert!(!kept.stdout_text().trim().is_empty(), "{kept}");
}

#[test]
fn a_table_of_steps_is_shown_on_request() {
    let fixture = Fixture::new("FROM busybox\nRUN echo x > /x\n");
    let first = fixture.build().arg("--steps").ok();
    let table = first.stderr.split("TIME").nth(1).unwrap_or_default().to_owned();
    assert!(
        table.contains("no") && table.contains("RUN echo x > /x"),
        "{first}"
    );
    let second = fixture.build().arg("--steps").ok();
    let line = second
        .stderr
        .lines()
        .rfind(|line| line.contains("RUN echo x > /x"))
        .unwrap_or_default();
    assert!(line.contains(" yes "), "{second}");
    assert!(second.stderr.contains("steps, "), "{second}");
    let none = fixture.build().ok();
    assert!(!none.stderr.contains("TIME"), "{none}");
}
