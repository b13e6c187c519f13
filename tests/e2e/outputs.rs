//! What comes out: every output type, read by tools that we did not write, and what is written beside it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::facts::{FileFacts, Kind, sha256_hex};
use rbuild_testkit::image::{OciLayout, entries};
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
fn privileged_a_local_directory_and_a_tar_hold_the_files_of_the_image() {
    if !is_root("owners in a directory") {
        return;
    }
    let fixture = app();
    let (_, image) = fixture.image(&[]);
    let expected = image.files().unwrap().table();
    let tar = fixture.home.work().join("root.tar");
    fixture
        .build()
        .arg(format!("--output=type=tar,dest={}", tar.display()))
        .ok();
    let mut files = rbuild_testkit::image::Files::default();
    files.apply(entries(&fs::read(&tar).unwrap()).unwrap()).unwrap();
    assert_eq!(files.table(), expected, "type=tar");
    let dir = fixture.home.work().join("root");
    fixture.build().arg("-o").arg(&dir).ok();
    let mut found = BTreeMap::new();
    walk(&dir, &dir, &mut found);
    let names: Vec<&String> = expected.keys().collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), names, "type=local");
    for (path, line) in &expected {
        let kind = line.split(' ').next().unwrap();
        let (have, mode) = &found[path];
        assert_eq!(have, kind, "{path}");
        if kind != "l" {
            assert_eq!(*mode, image.files().unwrap().get(path).unwrap().mode, "{path}");
        }
    }
}

fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<String, (String, u32)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let kind = if metadata.is_dir() {
            "d"
        } else if metadata.is_symlink() {
            "l"
        } else {
            "f"
        };
        let name = path.strip_prefix(root).unwrap().display().to_string();
        found.insert(name, (kind.to_owned(), metadata.permissions().mode() & 0o7777));
        if metadata.is_dir() {
            walk(root, &path, found);
        }
    }
}

#[test]
fn a_tar_on_standard_output_is_nothing_but_the_tar() {
    let fixture = Fixture::new("FROM scratch\nCOPY a /a\n");
    fixture.context.file("a", "a\n");
    let ran = fixture.build().args(["-o", "-"]).ok();
    let list = entries(&ran.stdout).expect("standard output is a tar");
    let names: Vec<&str> = list
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| !name.is_empty())
        .collect();
    assert_eq!(names, ["a"], "{ran}");
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

/// With several outputs and caches at once each layer is packed once, and every blob is in the store once.
#[test]
fn one_layer_is_packed_once_for_all_outputs() {
    let registry = rbuild_testkit::registry::TestRegistry::start();
    let fixture = Fixture::new("FROM scratch AS one\nCOPY a /a\nFROM one\nCOPY b /b\n");
    fixture.context.file("a", rbuild_testkit::context::noise(3 << 20));
    fixture.context.file("b", rbuild_testkit::context::noise(2 << 20));
    let work = fixture.home.work();
    let name = registry.reference("app:1");
    fixture
        .build()
        .args(["-t", &name, "--push"])
        .arg(format!(
            "--output=type=oci,dest={}",
            work.join("oci.tar").display()
        ))
        .arg(format!(
            "--output=type=docker,dest={}",
            work.join("docker.tar").display()
        ))
        .arg(format!(
            "--cache-to=type=local,mode=max,dest={}",
            work.join("cache").display()
        ))
        .arg(format!(
            "--cache-to=type=registry,mode=max,ref={}",
            registry.reference("app:cache")
        ))
        .args(["--cache-to=type=inline"])
        .ok();
    let blobs = |root: &Path| -> Vec<(String, u64)> {
        let dir = fs::read_dir(root.join("blobs/sha256")).unwrap();
        let mut large: Vec<_> = dir
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (
                    entry.file_name().into_string().unwrap(),
                    entry.metadata().unwrap().len(),
                )
            })
            .filter(|(_, size)| *size > 1 << 20)
            .collect();
        large.sort();
        large
    };
    let stored = blobs(&fixture.home.store());
    assert_eq!(
        stored.len(),
        2,
        "one blob a layer, whatever was written of it: {stored:?}"
    );
    assert_eq!(blobs(&work.join("cache")), stored, "the cache has the same blobs");
    let manifest = registry.manifest("app", "1").unwrap().1;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    for archive in ["oci.tar", "docker.tar"] {
        let layout = OciLayout::open(&work.join(archive)).unwrap().image().unwrap();
        let digests = |manifest: &serde_json::Value| -> Vec<String> {
            let layers = manifest["layers"].as_array().unwrap().iter();
            layers
                .map(|layer| layer["digest"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(digests(&layout.manifest), digests(&manifest), "{archive}");
    }
    let bodies = registry.requests();
    let large = bodies.iter().filter(|request| request.body_len > 1 << 20).count();
    assert_eq!(
        large, 2,
        "the image and the cache are in one repository: each layer was sent once"
    );
}

/// `mode=delete`: what the directory holds besides goes, below the directory the command runs in, or where it is allowed.
#[test]
fn a_directory_may_be_made_to_hold_the_result_and_nothing_else() {
    let fixture = Fixture::new("FROM scratch\nARG TARGETARCH\nCOPY a /kept/a\nCOPY a /$TARGETARCH\n");
    fixture.context.file("a", "a\n");
    let here = fixture.home.work().join("here");
    let (out, apart) = (here.join("out"), fixture.home.work().join("apart"));
    let fill = || {
        for dir in ["kept/deep/er", "gone/deep"] {
            fs::create_dir_all(out.join(dir)).unwrap();
        }
        fs::create_dir_all(&apart).unwrap();
        for file in ["kept/other", "kept/deep/er/x", "gone/deep/y", "z"] {
            fs::write(out.join(file), "old\n").unwrap();
        }
        fs::write(apart.join("mine"), "mine\n").unwrap();
        if out.join("link").symlink_metadata().is_err() {
            std::os::unix::fs::symlink(&apart, out.join("link")).unwrap();
        }
    };
    let names = || {
        let mut found = BTreeMap::new();
        walk(&out, &out, &mut found);
        found.into_keys().collect::<Vec<_>>()
    };
    let build = |dest: &str, more: &[&str]| {
        let output = format!("--output=type=local,dest={dest},mode=delete");
        let build = fixture.build().current_dir(&here).arg(output);
        build.args(more.iter().copied())
    };
    fill();
    // Without being asked to nothing is removed.
    fixture.build().arg("-o").arg(&out).ok();
    assert!(names().contains(&"gone/deep/y".to_owned()), "{:?}", names());
    build("out", &["--platform=linux/amd64"]).ok();
    assert_eq!(names(), ["amd64", "kept", "kept/a"]);
    assert_eq!(
        fs::read_to_string(apart.join("mine")).unwrap(),
        "mine\n",
        "links are not followed"
    );
    // Several platforms: their directories are what is wanted.
    fill();
    build("out", &["--platform=linux/amd64,linux/arm64"]).ok();
    let kept = names();
    let tops: Vec<&String> = kept.iter().filter(|name| !name.contains('/')).collect();
    assert_eq!(tops, ["linux_amd64", "linux_arm64"], "{kept:?}");
    // Not the directory itself, nothing beside it, and nothing behind a link; all of it for who allows it.
    fill();
    std::os::unix::fs::symlink(&apart, here.join("leads-away")).unwrap();
    let beside = apart.display().to_string();
    for dest in [".", "../apart", "leads-away", "leads-away/new", beside.as_str()] {
        build(dest, &[])
            .fails()
            .says("requires --allow=buildx.local.delete");
        assert!(apart.join("mine").exists() && out.join("z").exists(), "{dest}");
    }
    build("../apart", &["--allow=buildx.local.delete"]).ok();
    assert!(!apart.join("mine").exists());
    // What fails before there is a result removes nothing.
    fixture.context.dockerfile("FROM scratch\nCOPY missing /\n");
    build("out", &[]).fails();
    assert!(out.join("z").exists());
}

/// Forms that differ are packed once each, and a build that is repeated sends and packs nothing.
#[test]
fn each_form_of_a_layer_is_packed_once_and_sent_once() {
    let registry = rbuild_testkit::registry::TestRegistry::start();
    let fixture = Fixture::new("FROM scratch AS one\nCOPY a /a\nFROM one\nCOPY b /b\n");
    for name in ["a", "b"] {
        fixture
            .context
            .file(name, rbuild_testkit::context::noise(2 << 20));
    }
    let work = fixture.home.work();
    let build = || {
        let forms = ["gzip", "estargz", "zstd"].into_iter().flat_map(|form| {
            let (image, cache) = (
                registry.reference(&format!("app:{form}")),
                registry.reference(&format!("cache:{form}")),
            );
            [
                format!("--output=type=image,push=true,name={image},compression={form}"),
                format!(
                    "--output=type=oci,compression={form},dest={}",
                    work.join(form).display()
                ),
                format!(
                    "--cache-to=type=registry,mode=max,ref={cache},compression={form},force-compression=true"
                ),
            ]
        });
        fixture.build().args(forms).ok()
    };
    let large = || -> Vec<(String, u64, std::time::SystemTime)> {
        let blobs = fs::read_dir(fixture.home.store().join("blobs/sha256")).unwrap();
        let blobs = blobs.map(|blob| blob.unwrap());
        let of = |blob: fs::DirEntry| {
            let metadata = blob.metadata().unwrap();
            let name = blob.file_name().into_string().unwrap();
            (name, metadata.len(), metadata.modified().unwrap())
        };
        let mut large: Vec<_> = blobs.map(of).filter(|(_, size, _)| *size > 1 << 20).collect();
        large.sort();
        large
    };
    let sent = || {
        let requests = registry.requests();
        let large = requests.iter().filter(|request| request.body_len > 1 << 20);
        (large.count(), registry.count("POST", "/blobs/uploads/"))
    };
    build();
    let packed = large();
    assert_eq!(packed.len(), 6, "two layers in three forms: {packed:?}");
    let (bodies, _) = sent();
    assert_eq!(
        bodies, 6,
        "the caches' blobs are mounted from the images' or the other way about"
    );
    registry.clear_requests();
    build();
    assert_eq!(large(), packed, "nothing is packed again");
    assert_eq!(sent(), (0, 0), "nothing is sent that is there");
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
fn the_local_directory_belongs_to_the_caller_when_files_are_exported_from_scratch() {
    let fixture = Fixture::new(
        "FROM busybox AS b\nRUN echo x > /x && chmod 0640 /x\nFROM scratch\nCOPY --from=b /x /\n",
    );
    let dir = fixture.home.work().join("out");
    fixture.build().arg(format!("--output={}", dir.display())).ok();
    let metadata = fs::metadata(dir.join("x")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o640, rustix_uid()));
}

fn rustix_uid() -> u32 {
    fs::metadata("/proc/self")
        .map(|metadata| metadata.uid())
        .unwrap_or(u32::MAX)
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
