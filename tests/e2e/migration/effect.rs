//! Rows of the migration pages carried out by both: the peer's command line and ours on one context, and what the two images
//! are. buildah stands for its own page; buildx before a real buildkitd, where there is one, for that of `docker build`, and so
//! does Debian's docker 20.10 with both of its builders.

use std::fs;
use std::path::PathBuf;

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::conformance::{ObservedImage, content_differences};
use rbuild_testkit::image::{Image, OciLayout};
use rbuild_testkit::{base, machine};
use serde_json::Value;

use super::{Here, Page, buildah, spellings};
use crate::e2e::docker_engine::DockerEngine;
use crate::e2e::fixture::{Fixture, is_root};
use crate::e2e::real_buildkit::RealBuildkit;

/// A flag of a row, what the peer is given, what we are given, and a Dockerfile on which it matters. `DIR` is a directory
/// with what the words name.
struct Effect {
    flag: &'static str,
    theirs: &'static [&'static str],
    ours: &'static [&'static str],
    dockerfile: &'static str,
}

const STAGES: &str = "FROM busybox AS one\nARG V=none\nRUN echo $V > /v\nFROM one AS two\nCOPY f /f\nENV A=b\nLABEL last=two\n";
const NOTHING_RUNS: &str = "FROM scratch\nCOPY f /f\n";

const fn same(flag: &'static str, words: &'static [&'static str], dockerfile: &'static str) -> Effect {
    Effect {
        flag,
        theirs: words,
        ours: words,
        dockerfile,
    }
}

/// Flags that both have.
const OF_BOTH: &[Effect] = &[
    same(
        "--add-host",
        &["--add-host=far:10.1.2.3"],
        "FROM busybox\nRUN grep far /etc/hosts | tr '\\t' ' ' > /h\n",
    ),
    same("--build-arg", &["--build-arg=V=given"], STAGES),
    same(
        "--build-context",
        &["--build-context=other=DIR/other"],
        "FROM scratch\nCOPY --from=other g /g\n",
    ),
    same("--label", &["--label=k=v", "--label=last=mine"], STAGES),
    same("--annotation", &["--annotation=k=v"], NOTHING_RUNS),
    same("--target", &["--target=one"], STAGES),
    same(
        "--secret",
        &["--secret=id=s,src=DIR/secret"],
        "FROM busybox\nRUN --mount=type=secret,id=s wc -c < /run/secrets/s > /n\n",
    ),
    same("--platform", &["--platform=linux/arm64"], NOTHING_RUNS),
    same(
        "--shm-size",
        &["--shm-size=3m"],
        "FROM busybox\nRUN df -k /dev/shm | awk 'END {print $2}' > /k\n",
    ),
    same(
        "--ulimit",
        &["--ulimit=nofile=99:199"],
        "FROM busybox\nRUN ulimit -Sn > /s; ulimit -Hn > /h\n",
    ),
    same(
        "--network",
        &["--network=none"],
        "FROM busybox\nRUN ls /sys/class/net > /n\n",
    ),
    same("--file", &["--file=DIR/other/Dockerfile.other"], "FROM scratch\n"),
    same("--no-cache", &["--no-cache"], STAGES),
    same("--force-rm", &["--force-rm"], STAGES),
    same("--rm", &["--rm"], STAGES),
    same("--compress", &["--compress"], STAGES),
];

/// Flags of buildah's that are other words here.
const OF_BUILDAH: &[Effect] = &[
    Effect {
        flag: "--arch",
        theirs: &["--arch=arm64"],
        ours: &["--platform=linux/arm64"],
        dockerfile: NOTHING_RUNS,
    },
    Effect {
        flag: "--variant",
        theirs: &["--os=linux", "--arch=arm", "--variant=v7"],
        ours: &["--platform=linux/arm/v7"],
        dockerfile: NOTHING_RUNS,
    },
    Effect {
        flag: "--from",
        theirs: &["--from=localhost/otherlibc"],
        ours: &["OTHERLIBC"],
        dockerfile: "FROM busybox\nCOPY f /f\n",
    },
    Effect {
        flag: "--ignorefile",
        theirs: &["--ignorefile=DIR/ignored"],
        ours: &["--file=DIR/ignored.Dockerfile"],
        dockerfile: "FROM scratch\nCOPY . /all\n",
    },
    Effect {
        flag: "--timestamp",
        theirs: &["--timestamp=1000000000"],
        ours: &["--build-arg=SOURCE_DATE_EPOCH=1000000000"],
        dockerfile: NOTHING_RUNS,
    },
    Effect {
        flag: "--layers",
        theirs: &["--layers"],
        ours: &[],
        dockerfile: STAGES,
    },
    Effect {
        flag: "--jobs",
        theirs: &["--jobs=2"],
        ours: &["--jobs=2"],
        dockerfile: STAGES,
    },
];

/// Flags of buildah's page that change nothing about an image that a build makes, and why.
const NOT_OF_AN_IMAGE: [(&[&str], &str); 5] = [
    (
        &[
            "--tag",
            "--manifest",
            "--all-platforms",
            "--output",
            "--iidfile",
            "--metadata-file",
            "--logfile",
        ],
        "where it goes, and what is told",
    ),
    (
        &["--ssh", "--authfile", "--cert-dir", "--tls-verify", "--creds"],
        "who asks",
    ),
    (&["--cache-from", "--cache-to", "--pull"], "where it comes from"),
    (&["--cgroup-parent", "--isolation"], "how steps are kept"),
    // The three below: the form of an image is another, as the row says; a peer of Debian 12 has only one of the times.
    (
        &[
            "--format",
            "--squash",
            "--squash-all",
            "--rewrite-timestamp",
            "--source-date-epoch",
            "--os",
        ],
        "the row says what differs",
    ),
];

/// A directory with a context and all that the words of rows name.
struct Scene {
    fixture: Fixture,
}

impl Scene {
    fn new() -> Self {
        let fixture = Fixture::new("");
        fixture.context.file("f", "f\n");
        fixture.context.file("skipped", "s\n");
        let dir = fixture.home.work();
        fs::create_dir_all(dir.join("other")).unwrap();
        fs::write(dir.join("other/g"), "g\n").unwrap();
        fs::write(
            dir.join("other/Dockerfile.other"),
            "FROM scratch\nCOPY f /f\nLABEL of=other\n",
        )
        .unwrap();
        fs::write(dir.join("secret"), "hidden").unwrap();
        for name in ["ignored", "ignored.Dockerfile.dockerignore"] {
            fs::write(dir.join(name), "skipped\nDockerfile\n").unwrap();
        }
        Self { fixture }
    }

    fn dir(&self) -> PathBuf {
        self.fixture.home.work()
    }

    fn lay_out(&self, effect: &Effect) {
        self.fixture.context.dockerfile(effect.dockerfile);
        fs::write(self.dir().join("ignored.Dockerfile"), effect.dockerfile).unwrap();
    }

    fn words(&self, words: &[&str]) -> Vec<String> {
        let other = format!(
            "--build-context=busybox=oci-layout://{}:otherlibc",
            base::layout().unwrap().display()
        );
        let dir = self.dir().display().to_string();
        let whole = |word: &&str| word.replace("DIR", &dir).replace("OTHERLIBC", &other);
        words.iter().map(whole).collect()
    }

    fn ours(&self, effect: &Effect) -> Image {
        let out = self.dir().join("ours.tar");
        let build = self.fixture.build_of().args(self.words(effect.ours));
        build
            .arg(format!("--output=type=oci,dest={}", out.display()))
            .arg(self.fixture.context.dir())
            .ok();
        OciLayout::open(&out).unwrap().image().unwrap()
    }
}

/// What of two images is not alike, files and config.
fn unlike(theirs: &Image, ours: &Image) -> Vec<String> {
    let bases = OciLayout::open(&base::layout().unwrap())
        .unwrap()
        .images()
        .unwrap();
    let mut theirs_observed = ObservedImage::of(theirs, &bases).unwrap();
    let mut ours_observed = ObservedImage::of(ours, &bases).unwrap();
    for observed in [&mut theirs_observed, &mut ours_observed] {
        let config = observed.config.as_object_mut().unwrap();
        if let Some(config) = config.get_mut("config").and_then(Value::as_object_mut) {
            // The directory of an image that names none.
            config.retain(|name, value| name != "WorkingDir" || value != "/");
            // Empty and absent mean the same to whoever runs an image.
            config.retain(|_, value| {
                !matches!(value, Value::Null) && value != "" && value != &Value::Array(Vec::new())
            });
            if let Some(labels) = config.get_mut("Labels").and_then(Value::as_object_mut) {
                labels.retain(|name, _| !name.starts_with("io.buildah."));
            }
            config.retain(|_, value| value.as_object().is_none_or(|all| !all.is_empty()));
        }
    }
    let mut found = content_differences(&theirs_observed, &ours_observed);
    let of_builder = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run"];
    found.retain(|line| !of_builder.iter().any(|path| line.contains(&path[1..])));
    let annotation = |image: &Image| image.manifest["annotations"]["k"].clone();
    if annotation(theirs) != annotation(ours) {
        found.push("annotations".to_owned());
    }
    found
}

#[test]
fn rows_of_buildahs_page_make_what_buildah_makes() {
    if !is_root("buildah with steps") {
        return;
    }
    let program = machine::required("buildah", "buildah").unwrap();
    let scene = Scene::new();
    let command = |words: &[&str]| {
        let place = |name: &str| scene.dir().join(name).display().to_string();
        let command =
            RbuildCommand::new(&program).args(["--storage-driver=overlay", "--root", &place("store-b")]);
        command.args(["--runroot", &place("run-b")]).args(words)
    };
    let skopeo = machine::required("skopeo", "skopeo").unwrap();
    for name in ["busybox", "otherlibc"] {
        let store = format!(
            "overlay@{}/store-b+{}/run-b",
            scene.dir().display(),
            scene.dir().display()
        );
        let to = format!("containers-storage:[{store}]localhost/{name}:latest");
        let from = format!("oci:{}:{name}", base::layout().unwrap().display());
        RbuildCommand::new(&skopeo)
            .args(["--insecure-policy", "copy", "-q", &from, &to])
            .ok();
    }
    let mut wrong = Vec::new();
    for effect in OF_BOTH.iter().chain(OF_BUILDAH) {
        scene.lay_out(effect);
        let runtime = machine::program("runc").map(|runc| format!("--runtime={}", runc.display()));
        command(&[
            "build",
            "--quiet",
            // Debian 12's takes `--rm` beside nothing else, and labels of the command line are not of its cached layers.
            "--no-cache",
            "--identity-label=false",
            "--pull=never",
            "--isolation=oci",
            "-t",
            "made",
        ])
        .args(runtime)
        .args(scene.words(effect.theirs))
        .arg(scene.fixture.context.dir())
        .ok();
        let out = scene.dir().join("theirs");
        command(&["push", "--quiet", "made"])
            .arg(format!("oci:{}:x", out.display()))
            .ok();
        let theirs = OciLayout::open(&out).unwrap().image().unwrap();
        let ours = scene.ours(effect);
        let mut unlike = unlike(&theirs, &ours);
        if effect.flag == "--timestamp" && theirs.config["created"] != ours.config["created"] {
            unlike.push(format!("{} {}", theirs.config["created"], ours.config["created"]));
        }
        fs::remove_dir_all(&out).unwrap();
        if !unlike.is_empty() {
            wrong.push(format!("{}: {}", effect.flag, unlike.join("; ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn privileged_rows_of_the_flags_make_what_buildx_makes() {
    let Some(server) = RealBuildkit::start() else {
        return;
    };
    let scene = Scene::new();
    let mut wrong = Vec::new();
    for effect in OF_BOTH {
        scene.lay_out(effect);
        let out = scene.dir().join("theirs.tar");
        server
            .build()
            .args(scene.words(effect.theirs))
            .arg(crate::e2e::fixture::busybox_argument("busybox"))
            .args([
                "--provenance=false",
                &format!("--output=type=oci,dest={}", out.display()),
            ])
            .arg(scene.fixture.context.dir())
            .ok();
        let theirs = OciLayout::open(&out).unwrap().image().unwrap();
        let unlike = unlike(&theirs, &scene.ours(effect));
        if !unlike.is_empty() {
            wrong.push(format!("{}: {}", effect.flag, unlike.join("; ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Flags that docker 20.10 does not have, or that the one builder or the other (`DOCKER_BUILDKIT`) passes over in silence.
const NOT_OF_DOCKER_20: [(&[&str], &[&str]); 3] = [
    (&["0", "1"], &["--annotation", "--build-context"]),
    (&["0"], &["--secret"]),
    (&["1"], &["--shm-size", "--ulimit"]),
];
/// What its BuildKit leaves of the places that it mounts names of hosts on: ours and today's takes it away again.
const LEFT_BY_DOCKER_20: &str = "files /etc:\n    want d 0755 0:0\n    have nothing";

/// The client of docker 20.10, which has BuildKit's in itself.
fn docker_20() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let programs = std::env::split_paths(&path).map(|dir| dir.join("docker"));
    let is_it = |program: &PathBuf| {
        program.is_file() && {
            let told = RbuildCommand::new(program).arg("--version").run();
            told.stdout_text().starts_with("Docker version 20.10.")
        }
    };
    programs.into_iter().find(is_it)
}

#[test]
fn privileged_rows_of_the_flags_make_what_docker_20_makes() {
    if !is_root("the engine") {
        return;
    }
    let Some(docker) = docker_20() else {
        machine::skip("docker 20.10 (Debian: docker.io) is not installed");
        return;
    };
    let scene = Scene::new();
    let skopeo = machine::required("skopeo", "skopeo").unwrap();
    let convert = |from: &str, to: &str| {
        let copy = ["--insecure-policy", "copy", "-q", from, to];
        RbuildCommand::new(&skopeo).args(copy).ok();
    };
    let place = |name: &str| scene.dir().join(name).display().to_string();
    convert(
        &format!("oci:{}:busybox", base::layout().unwrap().display()),
        &format!("docker-archive:{}:busybox:latest", place("busybox.tar")),
    );
    let room = scene.dir().join("engine");
    fs::create_dir(&room).unwrap();
    let engine = DockerEngine::start_with_bridge(&room);
    engine.docker(["load", "-q", "-i", &place("busybox.tar")]).ok();
    let mut wrong = Vec::new();
    for effect in OF_BOTH {
        scene.lay_out(effect);
        for buildkit in ["0", "1"] {
            let is_left_out = |(which, flags): &(&[&str], &[&str])| {
                which.contains(&buildkit) && flags.contains(&effect.flag)
            };
            if NOT_OF_DOCKER_20.iter().any(is_left_out) {
                continue;
            }
            RbuildCommand::new(&docker)
                .env("DOCKER_BUILDKIT", buildkit)
                // Its older builder takes layers of other platforms from its cache.
                .args(["-H", &engine.address(), "build", "-q", "--no-cache", "-t", "made"])
                .args(scene.words(effect.theirs))
                .arg(scene.fixture.context.dir())
                .ok();
            let (archive, out) = (place("theirs.tar"), scene.dir().join("theirs-20"));
            engine.docker(["save", "made", "-o", &archive]).ok();
            convert(
                &format!("docker-archive:{archive}"),
                &format!("oci:{}:x", out.display()),
            );
            let theirs = OciLayout::open(&out).unwrap().image().unwrap();
            let mut unlike = unlike(&theirs, &scene.ours(effect));
            unlike.retain(|line| buildkit == "0" || line != LEFT_BY_DOCKER_20);
            fs::remove_dir_all(&out).unwrap();
            if !unlike.is_empty() {
                wrong.push(format!("{} ({buildkit}): {}", effect.flag, unlike.join("; ")));
            }
        }
    }
    engine.stop();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A row that is new is carried out too, or somebody says why not.
#[test]
fn every_row_of_buildahs_page_is_carried_out_or_told_why_not() {
    let page = Page {
        file: "",
        title: "",
        program: "",
        rows: buildah::ROWS,
    };
    let carried: Vec<&str> = OF_BOTH
        .iter()
        .chain(OF_BUILDAH)
        .map(|effect| effect.flag)
        .collect();
    let mut missing = Vec::new();
    for (row, here) in page.rows {
        if !matches!(here, Here::Instead(..)) {
            continue;
        }
        for flag in spellings(row).into_iter().flatten() {
            let is_told = NOT_OF_AN_IMAGE.iter().any(|(flags, _)| flags.contains(&flag));
            if carried.contains(&flag) == is_told {
                missing.push(flag);
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}
