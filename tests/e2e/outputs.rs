//! What comes out: every output type, read by tools that we did not write, and what is written beside it.

mod directories;
mod packed;

use std::fs;

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::facts::{FileFacts, Kind, sha256_hex};
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::machine;
use rbuild_testkit::run::Bundle;
use rbuild_testkit::validate;

use crate::e2e::docker_engine::DockerEngine;
use crate::e2e::fixture::{Fixture, is_root};

const APP: &str = "FROM busybox
WORKDIR /app
COPY --chmod=0755 run.sh .
RUN ln run.sh hard && ln -s run.sh soft && chown 12:34 hard && rm /bin/vi
USER daemon
ENV WHO=world
LABEL one=1
ENTRYPOINT [\"/app/run.sh\"]
";

fn app() -> Fixture {
    let fixture = Fixture::new(APP);
    fixture
        .context
        .file("run.sh", "#!/bin/sh\necho hello $WHO as $(id -u) in $(pwd)\n");
    fixture
}

fn tool(name: &str) -> RbuildCommand {
    RbuildCommand::new(machine::required(name, name).expect("a tool of the tests"))
}

#[test]
fn privileged_an_oci_archive_is_accepted_by_skopeo_and_umoci_and_runs() {
    if !is_root("umoci and runc") {
        return;
    }
    let fixture = app();
    let (_, image) = fixture.image(&["-t", "example.invalid/app:1"]);
    let archive = fixture.archive();
    let inspected = tool("skopeo")
        .args(["inspect", "--raw"])
        .arg(format!("oci-archive:{}", archive.display()))
        .ok();
    assert_eq!(
        format!("sha256:{}", sha256_hex(&inspected.stdout)),
        image.manifest_digest
    );
    let copy = fixture.home.work().join("copy");
    tool("skopeo")
        .args(["--insecure-policy", "copy", "-q"])
        .arg(format!("oci-archive:{}", archive.display()))
        .arg(format!("dir:{}", copy.display()))
        .ok();
    assert!(copy.join("manifest.json").exists());
    let bundle = Bundle::unpack(&OciLayout::open(&archive).unwrap()).expect("umoci unpacks it");
    assert!(
        !bundle.root().join("bin/vi").exists(),
        "a whiteout was not obeyed"
    );
    let ran = bundle.command(&[], &[]).unwrap().ok();
    assert_eq!(ran.stdout_text(), "hello world as 1 in /app");
}

#[test]
fn an_oci_layout_directory_is_the_same_as_the_archive() {
    let fixture = app();
    let (_, image) = fixture.image(&[]);
    let dir = fixture.home.work().join("layout");
    fixture
        .build()
        .arg(format!("--output=type=oci,tar=false,dest={}", dir.display()))
        .ok();
    let layout = OciLayout::open(&dir).unwrap();
    validate::assert_valid(&layout);
    assert_eq!(layout.image().unwrap().manifest_digest, image.manifest_digest);
}

#[test]
fn the_archive_is_the_same_twice_from_different_stores() {
    let read = || {
        let fixture =
            Fixture::new("FROM busybox\nCOPY . /ctx\nENV A=1\nRUN --network=none touch -d @1 /x /\n");
        for name in ["b", "a", "c/d", "c/B"] {
            fixture.context.file(name, name);
        }
        fixture.context.settle();
        fixture.image(&["--build-arg=SOURCE_DATE_EPOCH=1704067200"]);
        // The step writes into / and so changes its time; only the copied layer is free of clocks.
        let image = OciLayout::open(&fixture.archive()).unwrap().image().unwrap();
        image.config["rootfs"]["diff_ids"][1].clone()
    };
    assert_eq!(read(), read());
}

/// A real engine loads our archive and knows it by our config's digest.
#[test]
fn privileged_docker_load_takes_a_docker_archive() {
    if !is_root("dockerd") {
        return;
    }
    let fixture = app();
    let room = fixture.home.work().join("engine");
    fs::create_dir(&room).unwrap();
    let (archive, iid) = (room.join("docker.tar"), room.join("iid"));
    fixture
        .build()
        .args(["-t", "example.invalid/app:1"])
        .arg(format!("--iidfile={}", iid.display()))
        .arg(format!("--output=type=docker,dest={}", archive.display()))
        .ok();
    let engine = DockerEngine::start(&room);
    engine.docker(["load", "-i", &archive.display().to_string()]).ok();
    let images = engine
        .docker(["images", "--no-trunc", "--quiet", "example.invalid/app:1"])
        .ok();
    engine.stop();
    assert_eq!(images.stdout_text(), fs::read_to_string(iid).unwrap());
}

/// skopeo has a reader of its own for the same form.
#[test]
fn a_docker_archive_has_the_members_that_docker_load_reads() {
    let fixture = app();
    let archive = fixture.home.work().join("docker.tar");
    fixture
        .build()
        .args(["-t", "example.invalid/app:1", "-t", "example.invalid/app:2"])
        .arg(format!("--output=type=docker,dest={}", archive.display()))
        .ok();
    let inspected = tool("skopeo")
        .arg("inspect")
        .arg(format!(
            "docker-archive:{}:example.invalid/app:2",
            archive.display()
        ))
        .ok();
    assert!(inspected.stdout_text().contains("sha256:"));
    let room = fixture.home.work().join("unpacked");
    fs::create_dir(&room).unwrap();
    tool("tar").arg("-xf").arg(&archive).arg("-C").arg(&room).ok();
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(room.join("manifest.json")).expect("manifest.json")).unwrap();
    let image = &manifest[0];
    assert_eq!(
        image["RepoTags"],
        serde_json::json!(["example.invalid/app:1", "example.invalid/app:2"])
    );
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(room.join(image["Config"].as_str().unwrap())).unwrap()).unwrap();
    let layers = image["Layers"].as_array().unwrap();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!(layers.len(), diff_ids.len());
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        let bytes = fs::read(room.join(layer.as_str().unwrap())).unwrap();
        let tar = rbuild_testkit::image::decompressed(&bytes).unwrap();
        assert_eq!(*diff_id, format!("sha256:{}", sha256_hex(&tar)));
    }
}

#[test]
fn compression_and_media_types_are_as_asked() {
    let fixture = Fixture::new("FROM scratch\nCOPY a /a\n");
    fixture.context.file("a", "a\n");
    for (attributes, media_type) in [
        ("", "application/vnd.oci.image.layer.v1.tar+gzip"),
        (
            ",compression=estargz",
            "application/vnd.oci.image.layer.v1.tar+gzip",
        ),
        (",compression=zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
        (
            ",compression=uncompressed",
            "application/vnd.oci.image.layer.v1.tar",
        ),
        (
            ",oci-mediatypes=false",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ),
    ] {
        let dest = fixture.archive();
        fixture
            .build()
            .arg(format!("--output=type=oci,dest={}{attributes}", dest.display()))
            .ok();
        let layout = OciLayout::open(&dest).unwrap();
        validate::assert_valid(&layout);
        assert_eq!(
            layout.image().unwrap().manifest["layers"][0]["mediaType"],
            media_type,
            "{attributes}"
        );
    }
}

/// The same content, packed with more and with less effort.
#[test]
fn levels_of_compression_change_the_size_and_not_the_content() {
    let fixture = Fixture::new("FROM scratch\nCOPY numbers /numbers\n");
    let numbers: String = (0..40_000_u64)
        .map(|number| format!("{}\n", number * 7_919 % 65_521))
        .collect();
    fixture.context.file("numbers", numbers);
    for (compression, low, high) in [("gzip", "1", "9"), ("zstd", "1", "19"), ("estargz", "1", "9")] {
        let packed = |level: &str| {
            let dest = fixture.archive();
            let form = format!("compression={compression},compression-level={level},force-compression=true");
            let to = format!("--output=type=oci,dest={},{form}", dest.display());
            fixture.build().arg(to).ok();
            let layout = OciLayout::open(&dest).unwrap();
            validate::assert_valid(&layout);
            let image = layout.image().unwrap();
            (
                image.manifest["layers"][0]["size"].as_u64().unwrap(),
                image.files().unwrap().table(),
            )
        };
        let (quick, thorough) = (packed(low), packed(high));
        assert_eq!(quick.1, thorough.1, "{compression}");
        assert!(
            thorough.0 < quick.0 * 98 / 100,
            "{compression}: {quick:?} {thorough:?}"
        );
    }
}

#[test]
fn iidfile_metadata_file_and_quiet_name_the_same_image() {
    let fixture = app();
    let (iid, metadata) = (
        fixture.home.work().join("iid"),
        fixture.home.work().join("metadata.json"),
    );
    let ran = fixture
        .rbuild(["build", "-q", "-t", "example.invalid/app:1"])
        .arg(crate::e2e::fixture::busybox_argument("busybox"))
        .arg("--iidfile")
        .arg(&iid)
        .arg("--metadata-file")
        .arg(&metadata)
        .arg(fixture.context.dir())
        .ok();
    let id = fs::read_to_string(&iid).expect("the id file");
    assert_eq!(
        ran.stdout_text(),
        id.trim(),
        "-q prints the id and nothing else\n{ran}"
    );
    assert_eq!(ran.stderr, "", "-q is silent");
    let written: serde_json::Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
    assert_eq!(written["image.name"], "example.invalid/app:1");
    let digest = written["containerimage.digest"]
        .as_str()
        .expect("a manifest digest");
    let config = written["containerimage.config.digest"]
        .as_str()
        .expect("a config digest");
    assert!(
        id.trim() == config || id.trim() == digest,
        "{id} is neither {config} nor {digest}"
    );
}

#[test]
fn an_image_is_kept_in_the_store_as_its_output_says() {
    let fixture = Fixture::new("FROM scratch\nCOPY a /a\n");
    fixture.context.file("a", "a\n");
    let build = |output: &str| fixture.build().args(["--output", output]).ok();
    let kept = || {
        let listed = fixture
            .rbuild([
                "images",
                "-a",
                "--digests",
                "--no-trunc",
                "--format",
                "{{.Repository}}:{{.Tag}}",
            ])
            .ok();
        let mut names: Vec<String> = listed.stdout_text().lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    build("type=image,name=gone:1,store=false");
    assert_eq!(kept(), Vec::<String>::new());
    build("type=image,name=named:1,dangling-name-prefix=old,danging-name-empty-only=true");
    assert_eq!(kept(), ["named:1"]);
    build("type=image,dangling-name-prefix=old");
    let index = fs::read_to_string(fixture.home.store().join("index.json")).unwrap();
    assert!(index.contains("old@sha256:"), "{index}");
    build("type=image,name=canonical:2,name-canonical=true");
    let index = fs::read_to_string(fixture.home.store().join("index.json")).unwrap();
    assert!(index.contains("docker.io/library/canonical:2@sha256:"), "{index}");
    fixture.rbuild(["rmi", "canonical:2"]).ok();
}

#[test]
fn each_output_has_its_own_time() {
    let fixture = Fixture::new("FROM scratch\nCOPY a /a\n");
    fixture.context.file("a", "a\n");
    let archive = |name: &str| fixture.home.work().join(name);
    fixture
        .build()
        .arg("--build-arg=SOURCE_DATE_EPOCH=1000")
        .arg(format!(
            "--output=type=oci,dest={}",
            archive("build.tar").display()
        ))
        .arg(format!(
            "--output=type=oci,dest={},source-date-epoch=7",
            archive("own.tar").display()
        ))
        .ok();
    let created = |name: &str| {
        let image = OciLayout::open(&archive(name)).unwrap().image().unwrap();
        image.config["created"].as_str().unwrap().to_owned()
    };
    assert_eq!(created("build.tar"), "1970-01-01T00:16:40Z");
    assert_eq!(created("own.tar"), "1970-01-01T00:00:07Z");
    // A time that no document can hold is no reason to take the build's.
    let far = archive("far.tar");
    let output = format!(
        "--output=type=oci,dest={},source-date-epoch=253402300800",
        far.display()
    );
    let told = fixture.build().arg(output).fails().stderr;
    assert!(
        told.contains("source-date-epoch 253402300800 is not in the years 0 to 9999"),
        "{told}"
    );
    assert!(!far.exists());
}

#[test]
fn privileged_more_layers_than_the_kernel_stacks_are_built_on() {
    let copies: String = (0..520).map(|n| format!("COPY a /d/{n}\n")).collect();
    let text = format!("FROM busybox\n{copies}RUN rm /d/3 && ls /d | wc -l > /count && ln -s 4 /d/three\n");
    let fixture = Fixture::new(&text);
    fixture.context.file("a", "a\n");
    let (_, image) = fixture.image(&[]);
    assert!(image.config["rootfs"]["diff_ids"].as_array().unwrap().len() > 521);
    let made = image.files().unwrap();
    assert_eq!(made.text("count"), Some("519\n"));
    assert!(made.get("d/3").is_none() && made.get("d/519").is_some());
}

#[test]
fn label_and_target_and_build_arg_of_the_command_line() {
    let fixture = Fixture::new("FROM busybox AS first\nARG A\nLABEL a=$A\nFROM first\nRUN false\n");
    let (_, image) = fixture.image(&["--target=first", "--build-arg=A=1", "--label=b=2"]);
    assert_eq!(
        image.run_config()["Labels"],
        serde_json::json!({"a": "1", "b": "2"})
    );
}

#[test]
fn a_failed_build_leaves_the_old_output_alone() {
    let fixture = Fixture::new("FROM busybox\nRUN echo one > /f\n");
    fixture.image(&[]);
    let before = fs::read(fixture.archive()).unwrap();
    fixture.context.dockerfile("FROM busybox\nRUN false\n");
    fixture
        .build()
        .arg(format!("--output=type=oci,dest={}", fixture.archive().display()))
        .fails();
    assert!(
        fs::read(fixture.archive()).unwrap() == before,
        "the archive was touched"
    );
    let beside: Vec<_> = fs::read_dir(fixture.home.work())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(beside.len(), 2, "left beside it: {beside:?}");
}

#[test]
fn times_of_parents_are_as_if_nothing_had_been_mounted() {
    let fixture =
        Fixture::new("FROM busybox\nRUN --mount=type=tmpfs,target=/usr/new true\nRUN touch /marker\n");
    let (_, image) = fixture.image(&[]);
    let first: Vec<(String, FileFacts)> = image.layer_entries(1).unwrap();
    assert!(
        first.is_empty(),
        "a step that changed nothing has entries: {first:?}"
    );
    assert!(
        image
            .layer_entries(2)
            .unwrap()
            .iter()
            .any(|(path, f)| path == "marker" && matches!(f.kind, Kind::File(_)))
    );
}

#[test]
fn a_tagged_image_is_the_base_of_the_next_build_and_can_be_listed_and_removed() {
    let fixture = Fixture::new("FROM busybox\nRUN echo below > /below\n");
    fixture.build().args(["-t", "local/base:v1"]).ok();
    let listed = fixture.rbuild(["images"]).ok().stdout_text();
    assert!(listed.contains("local/base") && listed.contains("v1"), "{listed}");
    fixture.rbuild(["tag", "local/base:v1", "local/other:v2"]).ok();
    fixture
        .context
        .dockerfile("FROM local/other:v2\nRUN cat /below > /seen\n");
    let (_, image) = fixture.image(&[]);
    assert_eq!(image.files().unwrap().text("seen"), Some("below\n"));
    fixture.rbuild(["rmi", "local/base:v1", "local/other:v2"]).ok();
    assert!(
        !fixture.rbuild(["images"]).ok().stdout_text().contains("local/"),
        "still listed"
    );
    fixture.build().fails().says("local/other:v2");
}

#[test]
fn layers_with_rewritten_times_say_up_to_when() {
    let fixture = Fixture::new("FROM scratch\nCOPY run.sh /run.sh\n");
    fixture.context.file("run.sh", "x");
    let archive = fixture.archive();
    let annotation = |output: &str| {
        fixture
            .build()
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .arg(format!("--output=type=oci,dest={}{output}", archive.display()))
            .ok();
        let inspected = tool("skopeo")
            .args(["inspect", "--raw"])
            .arg(format!("oci-archive:{}", archive.display()))
            .ok();
        let manifest: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
        manifest["layers"][0]["annotations"]["buildkit/rewritten-timestamp"].clone()
    };
    assert_eq!(annotation(",rewrite-timestamp=true"), "1700000000");
    assert_eq!(annotation(""), serde_json::Value::Null);
}
