//! Results as plain files: directories, tars of them, and directories that hold nothing else afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rbuild_testkit::image::{Files, entries};

use super::app;
use crate::e2e::fixture::{Fixture, is_root};

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
    let mut files = Files::default();
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

#[test]
fn the_local_directory_belongs_to_the_caller_when_files_are_exported_from_scratch() {
    let fixture = Fixture::new(
        "FROM busybox AS b\nRUN echo x > /x && chmod 0640 /x\nFROM scratch\nCOPY --from=b /x /\n",
    );
    let dir = fixture.home.work().join("out");
    fixture.build().arg(format!("--output={}", dir.display())).ok();
    let metadata = fs::metadata(dir.join("x")).unwrap();
    let own = rustix::process::geteuid().as_raw();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o640, own));
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
