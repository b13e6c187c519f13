//! The program under the names of others: docker in a Makefile and in CI steps, kaniko's executor, BuildKit's buildctl.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::machine;
use rbuild_testkit::peer::{DockerRegistry, PASSWORD, USER};
use rbuild_testkit::registry::{RegistryAuth, TestRegistry};

use crate::e2e::fixture::{Fixture, RBUILD};

const DOCKERFILE: &str = "FROM scratch\nARG VERSION=none\nCOPY a /a\nLABEL version=$VERSION\n";

/// As projects have it: the tool is a variable, versions come from the shell, an image has two tags.
const MAKEFILE: &str = "\
DOCKER ?= docker
IMAGE ?= app
VERSION := $(shell echo 1.2.3)

.PHONY: all image push clean
all: image push
image:
\t$(DOCKER) build --pull=false --build-arg VERSION=$(VERSION) --label made=make -t $(IMAGE):$(VERSION) .
\t$(DOCKER) tag $(IMAGE):$(VERSION) $(IMAGE):latest
\t$(DOCKER) image inspect --format '{{index .Config.Labels \"version\"}}' $(IMAGE):latest > version.txt
push: image
\t$(DOCKER) push $(IMAGE):$(VERSION)
\t$(DOCKER) push $(IMAGE):latest
clean:
\t-$(DOCKER) rmi $(IMAGE):$(VERSION) $(IMAGE):latest
";

fn fixture() -> Fixture {
    let fixture = Fixture::new(DOCKERFILE);
    fixture.context.file("a", "a\n");
    fixture
}

/// The program under another name.
fn called(fixture: &Fixture, name: &str) -> PathBuf {
    let bin = fixture.home.work().join("bin");
    fs::create_dir_all(&bin).unwrap();
    let path = bin.join(name);
    if !path.exists() {
        symlink(RBUILD, &path).unwrap();
    }
    path
}

fn run<'a>(fixture: &Fixture, name: &str, args: impl IntoIterator<Item = &'a str>) -> RbuildCommand {
    let path = called(fixture, name);
    fixture.home.command(path.to_str().unwrap()).args(args)
}

fn make(fixture: &Fixture, tool: &str, image: &str, goal: &str) -> RbuildCommand {
    let make = machine::required("make", "make").expect("a tool of the tests");
    fixture
        .home
        .command(make.to_str().unwrap())
        .arg("-C")
        .arg(fixture.context.dir())
        .args([
            format!("DOCKER={tool}"),
            format!("IMAGE={image}"),
            goal.to_owned(),
        ])
}

/// The digest of what is pulled.
fn digest_of(fixture: &Fixture, image: &str) -> String {
    let printed = fixture.rbuild(["pull", image]).ok().stdout_text();
    let (name, digest) = printed.split_once('@').unwrap();
    assert_eq!(name, image);
    digest.to_owned()
}

#[test]
fn a_makefile_works_with_the_tools_name_changed_and_with_the_tool_installed_as_docker() {
    let registry = DockerRegistry::start().unwrap();
    for name in ["rbuild", "docker"] {
        let fixture = fixture();
        fixture.context.file("Makefile", MAKEFILE);
        let tool = called(&fixture, name).display().to_string();
        let image = format!("{}/made/by-{name}", registry.host());
        make(&fixture, &tool, &image, "all").ok();
        let version = fs::read_to_string(fixture.context.dir().join("version.txt")).unwrap();
        assert_eq!(version, "1.2.3\n");
        // What was pushed is what another machine pulls.
        let other = Fixture::new("FROM scratch\n");
        for tag in ["1.2.3", "latest"] {
            other.rbuild(["pull", &format!("{image}:{tag}")]).ok();
        }
        make(&fixture, &tool, &image, "clean").ok();
        assert_eq!(fixture.rbuild(["images", "-q"]).ok().stdout_text(), "");
    }
}

#[test]
fn a_ci_step_of_buildx_works() {
    let registry = DockerRegistry::start().unwrap();
    let fixture = fixture();
    let created = run(
        &fixture,
        "docker",
        [
            "buildx",
            "create",
            "--use",
            "--name",
            "ci",
            "--driver",
            "docker-container",
        ],
    );
    assert_eq!(created.ok().stdout_text(), "ci");
    run(&fixture, "docker", ["buildx", "inspect", "--bootstrap"]).ok();
    let image = format!("{}/ci/app:1", registry.host());
    let metadata = fixture.home.work().join("meta.json");
    let built = run(
        &fixture,
        "docker",
        [
            "buildx",
            "build",
            "--builder",
            "ci",
            "--push",
            "-t",
            &image,
            "--metadata-file",
        ],
    );
    let built = built.arg(&metadata).arg(fixture.context.dir()).ok();
    assert!(built.stderr.contains("builder flag has no effect"), "{built}");
    let text = fs::read_to_string(&metadata).unwrap();
    let said: serde_json::Value = serde_json::from_str(&text).unwrap();
    let other = Fixture::new("FROM scratch\n");
    let pulled = digest_of(&other, &image);
    assert_eq!(said["containerimage.digest"], pulled.as_str());
}

#[test]
fn a_builder_elsewhere_is_refused() {
    let fixture = fixture();
    for (args, said) in [
        (
            &["buildx", "create", "--driver", "remote", "tcp://h:1"][..],
            "--driver remote",
        ),
        (&["buildx", "create", "tcp://h:1"], "tcp://h:1"),
        (&["-H", "tcp://h:1", "images"], "--host tcp://h:1"),
        (&["--context", "far", "images"], "--context far"),
    ] {
        run(&fixture, "docker", args.iter().copied()).fails().says(said);
    }
    run(&fixture, "docker", ["--context", "default", "images"]).ok();
}

#[test]
fn kanikos_executor_pushes_and_writes_digests() {
    let registry = DockerRegistry::start().unwrap();
    let fixture = fixture();
    let work = fixture.home.work();
    let at = |name: &str| work.join(name).display().to_string();
    let image = format!("{}/kaniko/app:1", registry.host());
    let context = format!("dir://{}", fixture.context.dir().display());
    let args = |more: &[&str]| {
        let mut all = vec![
            "--context",
            &context,
            "--dockerfile",
            "Dockerfile",
            "--destination",
            &image,
        ];
        all.extend(more);
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let first = args(&[
        "--build-arg",
        "VERSION=7",
        "--cache=true",
        "--cache-ttl=24h",
        "--digest-file",
        &at("digest"),
        "--image-name-with-digest-file",
        &at("name"),
        "--image-name-tag-with-digest-file",
        &at("tag"),
    ]);
    let ran = run(&fixture, "executor", first.iter().map(String::as_str)).ok();
    assert!(ran.stderr.contains("--cache-ttl has no effect"), "{ran}");
    let other = Fixture::new("FROM scratch\n");
    let pulled = digest_of(&other, &image);
    let read = |name: &str| fs::read_to_string(work.join(name)).unwrap();
    assert_eq!(read("digest"), pulled);
    assert_eq!(read("tag"), format!("{image}@{pulled}\n"));
    let repository = image.strip_suffix(":1").unwrap();
    assert_eq!(read("name"), format!("{repository}@{pulled}\n"));
    let asked = [
        "inspect",
        "--format",
        "{{index .Config.Labels \"version\"}}",
        &image,
    ];
    assert_eq!(other.rbuild(asked).ok().stdout_text(), "7");

    // An empty store takes everything from the cache beside the image.
    let fresh = self::fixture();
    let again = run(&fresh, "executor", first.iter().map(String::as_str)).ok();
    assert!(again.stderr.contains("CACHED"), "{again}");

    let tar = at("image.tar");
    let layout = at("layout");
    let second = args(&["--no-push", "--tar-path", &tar, "--oci-layout-path", &layout]);
    run(&fixture, "executor", second.iter().map(String::as_str)).ok();
    assert!(OciLayout::open(std::path::Path::new(&layout)).is_ok());
    let loaded = other.rbuild(["load", "-i", &tar]).ok();
    assert!(loaded.stdout_text().contains("kaniko/app:1"), "{loaded}");
}

#[test]
fn kanikos_executor_reads_archives_and_refuses_by_name() {
    let fixture = fixture();
    let tar = fixture.home.work().join("context.tar");
    let mut archive = tar::Builder::new(fs::File::create(&tar).unwrap());
    archive.append_dir_all(".", fixture.context.dir()).unwrap();
    archive.finish().unwrap();
    let context = format!("--context=tar://{}", tar.display());
    run(&fixture, "executor", [context.as_str(), "--no-push"]).ok();
    for (args, said) in [
        (&["--no-push", "--insecure-pull"][..], "--insecure-pull"),
        (&["--no-push", "--git=branch=x"], "--git"),
        (&["--no-push", "--context=s3://b/c"], "s3://b/c"),
        (&["--context=."], "--destination"),
        (&["--no-push", "--registry-map=x"], "--registry-map"),
        (&["--no-push", "--snapshot-mode=none"], "snapshot-mode"),
    ] {
        run(&fixture, "executor", args.iter().copied()).fails().says(said);
    }
}

#[test]
fn buildctl_builds_in_its_own_process() {
    let fixture = fixture();
    let dir = fixture.context.dir().display().to_string();
    let out = fixture.home.work().join("out.tar");
    let local = |name: &str| format!("--local={name}={dir}");
    let output = format!("--output=type=oci,dest={}", out.display());
    let metadata = fixture.home.work().join("meta.json");
    run(
        &fixture,
        "buildctl",
        [
            "build",
            "--frontend=dockerfile.v0",
            &local("context"),
            &local("dockerfile"),
            "--opt=build-arg:VERSION=9",
            "--opt=label:k=v",
            "--opt=platform=linux/amd64",
            &output,
            "--metadata-file",
            metadata.to_str().unwrap(),
        ],
    )
    .ok();
    let image = OciLayout::open(&out).unwrap().image().unwrap();
    assert_eq!(image.run_config()["Labels"]["version"], "9");
    assert_eq!(image.run_config()["Labels"]["k"], "v");
    assert!(metadata.exists());
    assert_eq!(
        fixture.rbuild(["images", "-aq"]).ok().stdout_text(),
        "",
        "nothing is kept that was not asked for"
    );
    for (args, said) in [
        (&["build"][..], "no definition (LLB) on standard input"),
        (&["build", "--frontend=other.v0"], "other.v0"),
        (&["build", "--frontend=dockerfile.v0"], "no context"),
        (&["build", "--frontend=gateway.v0"], "source=IMAGE"),
        (&["build", "--trace=x"], "--trace"),
        (
            &["--addr=tcp://h:1", "build", "--frontend=dockerfile.v0"],
            "tcp://h:1",
        ),
        (
            &[
                "build",
                "--frontend=dockerfile.v0",
                "--opt=context=.",
                "--opt=hostname=x",
            ],
            "--opt hostname=x",
        ),
    ] {
        run(&fixture, "buildctl", args.iter().copied()).fails().says(said);
    }
}

#[test]
fn a_directory_of_configuration_is_named_by_a_flag() {
    let registry = DockerRegistry::with_password().unwrap();
    let fixture = fixture();
    let elsewhere = fixture.home.work().join("elsewhere");
    let dir = elsewhere.display().to_string();
    let login = [
        "--config",
        &dir,
        "login",
        "-u",
        USER,
        "--password-stdin",
        &registry.host(),
    ];
    run(&fixture, "docker", login).stdin(PASSWORD).ok();
    assert!(elsewhere.join("config.json").exists());
    assert!(!fixture.home.home().join(".docker/config.json").exists());
    let image = format!("{}/private:1", registry.host());
    fixture.build().args(["-t", &image]).ok();
    run(&fixture, "docker", ["push", &image]).fails();
    run(&fixture, "docker", ["--config", &dir, "push", &image]).ok();
}

#[test]
fn kanikos_flags_that_have_nothing_to_act_on_are_accepted() {
    let fixture = fixture();
    fixture.context.dockerfile(
        "FROM scratch AS first\nARG TARGETARCH\nCOPY below/b /b\nLABEL arch=$TARGETARCH\nFROM scratch\nLABEL last=yes\n",
    );
    fixture.context.file("sub/below/b", "b\n");
    let work = fixture.home.work();
    let (layout, token) = (work.join("layout"), work.join("token"));
    fs::write(&token, "s3cret").unwrap();
    let args = [
        format!("--context={}", fixture.context.dir().display()),
        "--context-sub-path=sub".to_owned(),
        format!("--dockerfile={}/Dockerfile", fixture.context.dir().display()),
        format!("--oci-layout-path={}", layout.display()),
        format!("--secret=id=token,src={}", token.display()),
        "--destination=app:1".to_owned(),
    ];
    let moot = "--no-push --target=first --label=l=1 --annotation=a=2 --custom-platform=linux/arm64 --reproducible \
        --compression=zstd --compression-level=3 --image-format=OCI --verbosity=debug --cache-copy-layers=true \
        --cache-run-layers --compressed-caching=false --cleanup --pre-cleanup --preserve-context --materialize --force \
        --ignore-path=/x --ignore-var-run=false --image-download-retry=3 --image-fs-extract-retry=1 --push-retry=2 \
        --kaniko-dir=/kaniko --log-format=text --log-timestamp=true --skip-push-permission-check \
        --skip-unused-stages --snapshot-mode=redo --snapshotMode=time --use-new-run";
    let all = args.iter().map(String::as_str).chain(moot.split_whitespace());
    let ran = run(&fixture, "executor", all).ok();
    assert!(!ran.stderr.contains("WARNING"), "{ran}");
    let image = OciLayout::open(&layout).unwrap().image().unwrap();
    assert_eq!(image.run_config()["Labels"]["arch"], "arm64");
    assert_eq!(image.run_config()["Labels"]["l"], "1");
    assert_eq!(image.config["created"], "1970-01-01T00:00:00Z");
    let manifest = &image.manifest;
    assert_eq!(manifest["annotations"]["a"], "2");
    assert_eq!(
        manifest["layers"][0]["mediaType"],
        "application/vnd.oci.image.layer.v1.tar+zstd"
    );
    assert_eq!(image.files().unwrap().text("b"), Some("b\n"));
}

#[test]
fn kanikos_flags_for_registries_are_obeyed() {
    let (mirror, cache) = (DockerRegistry::start().unwrap(), DockerRegistry::start().unwrap());
    let secure = TestRegistry::start_tls(RegistryAuth::None);
    let fixture = fixture();
    let base = format!("{}/library/base:1", mirror.host());
    fixture.build().args(["--push", "-t", &base]).ok();
    let authority = fixture.home.work().join("ca.pem");
    fs::write(&authority, TestRegistry::authority_pem()).unwrap();

    let fresh = self::fixture();
    let of_map = "registry.invalid/library/base:1";
    fresh.context.dockerfile(&format!(
        "FROM {of_map}\nLABEL from=map\nFROM base:1\nCOPY a /other\n"
    ));
    let context = format!("--context={}", fresh.context.dir().display());
    let destination = format!("--destination={}/app:1", secure.host());
    let certificate = format!("--registry-certificate={}={}", secure.host(), authority.display());
    let mapped = format!("--registry-map=registry.invalid={}", mirror.host());
    let mirrored = format!("--registry-mirror={}", mirror.host());
    let repository = format!("--cache-repo={}/cache", cache.host());
    let args = [
        &*context,
        &*destination,
        &*mapped,
        &*mirrored,
        "--cache",
        &*repository,
    ];
    run(&fresh, "executor", args).fails().says(&secure.host());
    run(&fresh, "executor", args.into_iter().chain([&*certificate])).ok();
    assert!(secure.manifest("app", "1").is_some());
    let cached = format!("{}/cache", cache.host());
    fresh.rbuild(["imagetools", "inspect", "--raw", &cached]).ok();

    // Nobody needs to vouch where that is said of the one registry, or of the destination.
    for flag in [
        &*format!("--insecure-registry={}", secure.host()),
        &*format!("--skip-tls-verify-registry={}", secure.host()),
        "--insecure",
        "--skip-tls-verify",
    ] {
        let before = secure.count("PUT", "/manifests/");
        run(
            &fresh,
            "executor",
            args.into_iter().chain([flag, "--no-push-cache"]),
        )
        .ok();
        assert!(secure.count("PUT", "/manifests/") > before, "{flag}");
    }
    let half = format!("--registry-client-cert={}=/one", secure.host());
    run(&fresh, "executor", args.into_iter().chain([&*half]))
        .fails()
        .says("does not name two files");
}

/// A field of a message that has a length: bytes, a text or another message.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = value.len();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap());
    bytes.extend_from_slice(value);
    bytes
}

/// `pb.Definition` of a local directory, as `buildctl debug dump-llb` reads it.
fn local_definition(name: &str) -> Vec<u8> {
    let source = field(3, &field(1, format!("local://{name}").as_bytes()));
    let digest = rbuild_oci::Digest::sha256(&source).to_string();
    let end = field(1, &field(1, digest.as_bytes()));
    [field(1, &source), field(1, &end)].concat()
}

#[test]
fn buildctl_builds_a_definition_on_standard_input() {
    let fixture = fixture();
    fixture.context.file("other/b", "b\n");
    let work = fixture.home.work();
    let here = format!("--local=src={}", fixture.context.dir().display());
    let there = format!("--local=other={}/other", fixture.context.dir().display());
    let out = work.join("out");
    let output = format!("--output=type=local,dest={}", out.display());
    let build = |more: &[&str]| {
        let args = ["build", &*here, &*there, &*output]
            .into_iter()
            .chain(more.iter().copied());
        run(&fixture, "buildctl", args.collect::<Vec<_>>()).stdin(local_definition("src"))
    };
    build(&[]).ok();
    assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "a\n");

    // Rules for sources: one that denies, one that puts another in its place.
    let policy = work.join("policy.json");
    let file = format!("--source-policy-file={}", policy.display());
    fs::write(
        &policy,
        r#"{"rules": [{"action": "DENY", "selector": {"identifier": "local://src"}}]}"#,
    )
    .unwrap();
    build(&[&*file]).fails().says("local://src");
    let convert = r#"{"rules": [{"action": "CONVERT", "selector": {"identifier": "local://src"},
        "updates": {"identifier": "local://other"}}]}"#;
    fs::write(&policy, convert).unwrap();
    fs::remove_dir_all(&out).unwrap();
    build(&[&*file]).ok();
    assert!(out.join("b").exists() && !out.join("a").exists());
    fs::write(&policy, "{").unwrap();
    build(&[&*file]).fails().says("policy.json");

    let broken = run(&fixture, "buildctl", ["build", &*output]);
    broken.stdin("nonsense").fails();
    let nowhere = run(&fixture, "buildctl", ["build", &*output]);
    nowhere.stdin(local_definition("src")).fails().says("src");
}

#[test]
fn rules_for_sources_are_obeyed_by_build_too() {
    let fixture = fixture();
    let policy = fixture.home.work().join("policy.json");
    fs::write(
        &policy,
        r#"{"rules": [{"action": "DENY", "selector": {"identifier": "docker-image://registry.invalid/*"}}]}"#,
    )
    .unwrap();
    let build = || {
        let build = fixture.build().arg("--offline");
        build.env("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", &policy)
    };
    build().ok();
    fixture.context.dockerfile("FROM registry.invalid/base:1\n");
    let denied = build().fails();
    assert!(denied.stderr.contains("denied by policy"), "{denied}");
}
