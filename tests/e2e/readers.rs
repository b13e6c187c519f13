//! Every form of an image that is written, read by skopeo and unpacked by umoci: forms × compressions × media types ×
//! platforms × attestations. What is refused is refused by its sentence.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::machine;
use rbuild_testkit::peer::DockerRegistry;
use rbuild_testkit::validate;

use crate::e2e::docker_engine::DockerEngine;
use crate::e2e::fixture::{Fixture, is_root};

const NAME: &str = "example.invalid/app:1";
/// Files with owners, modes, a link and a whiteout, without a step: for any platform.
const APP: &str = "FROM scratch
ARG TARGETARCH
COPY --chown=12:34 --chmod=4750 a /d/a
COPY --chown=7:8 --link b /d/b
COPY $TARGETARCH /arch
USER 12:34
CMD [\"/d/a\"]
";
const COMPRESSIONS: [&str; 4] = ["gzip", "estargz", "zstd", "uncompressed"];

fn app() -> Fixture {
    let fixture = Fixture::new(APP);
    for name in ["a", "b", "amd64", "arm64"] {
        fixture.context.file(name, format!("{name}\n"));
    }
    fixture
}

fn tool(name: &str) -> RbuildCommand {
    RbuildCommand::new(machine::required(name, name).expect("a tool of the tests"))
}

/// One way to ask for an image.
#[derive(Debug, Clone, Copy)]
struct Asked {
    compression: &'static str,
    oci_types: bool,
    platforms: &'static [&'static str],
    attested: bool,
}

impl Asked {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for compression in COMPRESSIONS {
            for oci_types in [true, false] {
                // Refused by its sentence, of one platform and of several.
                if compression == "estargz" && !oci_types {
                    continue;
                }
                for platforms in [&["amd64"][..], &["amd64", "arm64"]] {
                    for attested in [false, true] {
                        all.push(Self {
                            compression,
                            oci_types,
                            platforms,
                            attested,
                        });
                    }
                }
            }
        }
        all
    }

    fn is_index(self) -> bool {
        self.platforms.len() > 1 || self.attested
    }

    /// Whether a build of it makes an image; what cannot be is refused by its sentence.
    #[track_caller]
    fn is_made(self, build: RbuildCommand) -> bool {
        let is_legal = !self.attested || self.oci_types;
        if is_legal {
            build.ok();
        } else {
            build
                .fails()
                .says("cannot export attestations with \"oci-mediatypes=false\"");
        }
        is_legal
    }

    /// The build of `fixture` as it is asked for, to `output`.
    fn build(self, fixture: &Fixture, output: &str) -> RbuildCommand {
        let platforms: Vec<String> = self
            .platforms
            .iter()
            .map(|arch| format!("linux/{arch}"))
            .collect();
        let provenance = if self.attested { "mode=max" } else { "false" };
        fixture
            .build()
            .arg(format!("--platform={}", platforms.join(",")))
            .arg(format!("--provenance={provenance}"))
            .arg(format!(
                "--output={output},compression={},oci-mediatypes={}",
                self.compression, self.oci_types
            ))
    }

    /// skopeo copies all of `source`, and umoci unpacks the image of each platform with its owners and modes.
    #[track_caller]
    fn read(self, fixture: &Fixture, source: &str) {
        let room = tempfile::tempdir_in(fixture.home.work()).unwrap();
        let skopeo = || tool("skopeo").args(["--insecure-policy"]);
        if self.compression == "zstd" && !self.oci_types {
            // BuildKit's name for such a layer, which skopeo does not know.
            let dest = format!("dir:{}", room.path().join("all").display());
            skopeo()
                .args(["copy", "-q", "--all", "--src-tls-verify=false", source, &dest])
                .fails()
                .says("unsupported docker v2s2 media type");
            return;
        }
        let dest = format!("oci:{}:all", room.path().join("all").display());
        skopeo()
            .args(["copy", "-q", "--all", "--src-tls-verify=false", source, &dest])
            .ok();
        for arch in self.platforms {
            let layout = room.path().join(arch);
            skopeo()
                .args([
                    "--override-os=linux",
                    "--override-arch",
                    arch,
                    "copy",
                    "-q",
                    "--src-tls-verify=false",
                ])
                // umoci knows no zstd.
                .args(["--dest-compress-format=gzip", source])
                .arg(format!("oci:{}:one", layout.display()))
                .ok();
            let bundle = room.path().join(format!("{arch}-bundle"));
            tool("umoci")
                .args(["unpack", "--image"])
                .arg(format!("{}:one", layout.display()))
                .arg(&bundle)
                .ok();
            assert_files(&bundle.join("rootfs"), arch, self);
        }
    }
}

#[track_caller]
fn assert_files(root: &Path, arch: &str, asked: Asked) {
    for (name, owner, mode) in [
        ("d/a", (12, 34), 0o4750),
        ("d/b", (7, 8), 0o644),
        ("d", (7, 8), 0o755),
    ] {
        let found = fs::symlink_metadata(root.join(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), owner, "{name} {asked:?}");
        assert_eq!(found.mode() & 0o7777, mode, "{name} {asked:?}");
    }
    assert_eq!(
        fs::read_to_string(root.join("arch")).unwrap(),
        format!("{arch}\n"),
        "{asked:?}"
    );
}

/// Builds into `dest` as `kind` and looks at what is there; what cannot be is refused.
#[track_caller]
fn layout(kind: &str, is_tar: bool) {
    if !is_root("umoci with owners") {
        return;
    }
    let fixture = app();
    for (at, asked) in Asked::all().into_iter().enumerate() {
        let dest = fixture.home.work().join(format!("out-{at}"));
        let output = format!("type={kind},tar={is_tar},name={NAME},dest={}", dest.display());
        let build = asked.build(&fixture, &output);
        if kind == "docker" && asked.is_index() {
            build
                .fails()
                .says("docker exporter does not support exporting manifest lists");
            continue;
        }
        if !asked.is_made(build) {
            continue;
        }
        validate::assert_valid(&OciLayout::open(&dest).unwrap());
        if is_tar {
            asked.read(&fixture, &format!("oci-archive:{}", dest.display()));
        } else {
            // Without its tag: by that skopeo finds none but OCI's own types.
            asked.read(&fixture, &format!("oci:{}", dest.display()));
        }
        if kind == "docker" && is_tar {
            asked_by_docker(&fixture, &dest, asked);
        }
    }
}

/// The same archive as `docker load` reads it: by its `manifest.json`.
#[track_caller]
fn asked_by_docker(fixture: &Fixture, archive: &Path, asked: Asked) {
    let room = tempfile::tempdir_in(fixture.home.work()).unwrap();
    let layout = format!("oci:{}:one", room.path().join("layout").display());
    tool("skopeo")
        .args(["--insecure-policy", "copy", "-q"])
        .arg(format!("docker-archive:{}:{NAME}", archive.display()))
        .arg(&layout)
        .ok();
    let bundle = room.path().join("bundle");
    tool("umoci")
        .args(["unpack", "--image", layout.trim_start_matches("oci:")])
        .arg(&bundle)
        .ok();
    assert_files(&bundle.join("rootfs"), "amd64", asked);
}

#[test]
fn privileged_every_oci_archive_is_read_by_skopeo_and_umoci() {
    layout("oci", true);
}

#[test]
fn privileged_every_oci_directory_is_read_by_skopeo_and_umoci() {
    layout("oci", false);
}

#[test]
fn privileged_every_docker_archive_is_read_by_skopeo_and_umoci() {
    layout("docker", true);
}

#[test]
fn privileged_every_docker_directory_is_read_by_skopeo_and_umoci() {
    layout("docker", false);
}

#[test]
fn privileged_every_pushed_image_is_read_by_skopeo_and_umoci() {
    if !is_root("umoci with owners") {
        return;
    }
    let registry = DockerRegistry::start().unwrap();
    let fixture = app();
    for (at, asked) in Asked::all().into_iter().enumerate() {
        let name = format!("{}/app:{at}", registry.host());
        let build = asked.build(&fixture, &format!("type=image,push=true,name={name}"));
        if !asked.is_made(build) {
            continue;
        }
        asked.read(&fixture, &format!("docker://{name}"));
    }
}

#[test]
fn privileged_a_real_engine_loads_archives_of_every_compression() {
    if !is_root("dockerd") {
        return;
    }
    let fixture = app();
    let room = fixture.home.work();
    let engine = DockerEngine::start_in(&room);
    let single = Asked::all().into_iter().filter(|asked| !asked.is_index());
    for (at, asked) in single.enumerate() {
        let (archive, iid) = (room.join(format!("{at}.tar")), room.join(format!("{at}.iid")));
        let name = format!("example.invalid/app:{at}");
        asked
            .build(
                &fixture,
                &format!("type=docker,name={name},dest={}", archive.display()),
            )
            .arg(format!("--iidfile={}", iid.display()))
            .ok();
        engine
            .docker(["load", "-q", "-i", &archive.display().to_string()])
            .ok();
        let found = engine.docker(["images", "--no-trunc", "--quiet", &name]).ok();
        assert_eq!(found.stdout_text(), fs::read_to_string(iid).unwrap(), "{asked:?}");
        // What was loaded has its files.
        let out = room.join(format!("{at}-out.tar"));
        let id = engine.docker(["create", &name]).ok().stdout_text();
        engine
            .docker(["cp", &format!("{id}:/d/a"), &out.display().to_string()])
            .ok();
        assert_eq!(fs::read_to_string(out).unwrap(), "a\n", "{asked:?}");
    }
    engine.stop();
}
