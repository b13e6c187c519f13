//! Copies that are packed straight from their sources: the archive is that of the copied files, byte for byte.

use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use proptest::prelude::*;
use rbuild_fileops::{SourceTree, StraightCopy, StraightError, pack_copies};
use rbuild_graph::{CopyAction, FileTime};
use rbuild_layer::{EntryKind, Limits, TarReader, WriteOptions, write_tar};
use rbuild_sys::overlay::Form;

use crate::support::{World, cp, run};

/// Later than anything these tests make, so that a directory's time of making is told from the times that are set.
const LATER: i64 = 4_000_000_000;

fn straight(w: &World, source: &SourceTree, actions: &[CopyAction]) -> Result<Vec<u8>, StraightError> {
    straight_beside(w, source, actions, &[])
}

fn straight_beside(
    w: &World,
    source: &SourceTree,
    actions: &[CopyAction],
    programs: &[PathBuf],
) -> Result<Vec<u8>, StraightError> {
    let copies: Vec<StraightCopy<'_>> = actions
        .iter()
        .map(|action| StraightCopy {
            action,
            source,
            owner: None,
        })
        .collect();
    let mut out = Vec::new();
    pack_copies(&copies, &w.root("dst"), programs, &mut out)?;
    Ok(out)
}

/// The archive of what the copies make of `dst`, which is `below` but for that.
fn by_way_of_files(w: &World, source: &SourceTree, actions: &[CopyAction]) -> Vec<u8> {
    let status = std::process::Command::new("cp")
        .args(["-a", "--", "dst", "below"])
        .current_dir(w.tmp.path())
        .status()
        .unwrap();
    assert!(status.success());
    for action in actions {
        run(source, &w.root("dst"), action, None).unwrap();
    }
    let below = w.root("below");
    let options = WriteOptions {
        lower: Some(&below),
        ..WriteOptions::default()
    };
    let mut out = Vec::new();
    write_tar(w.root("dst").as_fd(), Form::Trusted, &options, &mut out).unwrap();
    out
}

/// The entries, and the content of each; times of now are one time.
fn entries(tar: &[u8]) -> Vec<(String, EntryKind, [i64; 4], Vec<u8>)> {
    use std::io::Read as _;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    let mut reader = TarReader::new(tar, Limits::default());
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        let time = entry.mtime.seconds;
        let time = if (now - 60..=now).contains(&time) {
            -1
        } else {
            time
        };
        let facts = [entry.mode.into(), entry.uid.into(), entry.gid.into(), time];
        found.push((String::from_utf8(entry.path).unwrap(), entry.kind, facts, content));
    }
    found
}

/// Fails unless both ways give the same.
fn assert_same(w: &World, source: &SourceTree, actions: &[CopyAction]) -> Vec<String> {
    let packed = entries(&straight(w, source, actions).unwrap());
    let copied = entries(&by_way_of_files(w, source, actions));
    assert_eq!(packed, copied);
    packed.into_iter().map(|entry| entry.0).collect()
}

#[test]
fn a_tree_into_a_new_directory() {
    let w = World::new();
    w.file("src/d/a", "1")
        .file("src/d/sub/b", "22")
        .link("src/d/l", "sub/b")
        .dir("src/d/empty");
    w.file("src/d/a.b", "")
        .file("src/d/sub.x", "3")
        .chmod("src/d/sub", 0o2750)
        .chmod("src/d/a", 0o4711);
    w.utime("src/d", 1000)
        .utime("src/d/a", 2000)
        .utime("src/d/sub", 3000);
    let names = assert_same(&w, &w.snapshot(), &[cp("d", "/opt/app")]);
    let expected = [
        "opt/",
        "opt/app/",
        "opt/app/a",
        "opt/app/a.b",
        "opt/app/empty/",
        "opt/app/l",
        "opt/app/sub/",
        "opt/app/sub/b",
        "opt/app/sub.x",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_tree_beside_what_is_there() {
    let w = World::new();
    w.file("src/d/new", "1")
        .file("src/d/tree/f", "2")
        .file("dst/usr/share/old", "x")
        .chmod("dst/usr", 0o711);
    w.utime("dst/usr/share/old", 5)
        .utime("dst/usr/share", 7)
        .utime("dst/usr", 9)
        .utime("src/d", 11);
    let names = assert_same(&w, &w.snapshot(), &[cp("d", "/usr/share")]);
    assert_eq!(
        names,
        [
            "usr/",
            "usr/share/",
            "usr/share/new",
            "usr/share/tree/",
            "usr/share/tree/f"
        ]
    );
    let below = World::new();
    below.file("src/d/new", "1").dir("dst/usr");
    below.utime("dst/usr", 9);
    assert_same(&below, &below.snapshot(), &[cp("d", "/usr/share/x")]);
}

#[test]
fn files_of_many_sources_in_the_order_of_their_names() {
    let w = World::new();
    w.file("src/z", "z")
        .file("src/a", "a")
        .file("src/m/in", "m")
        .dir("dst/there");
    let whole = CopyAction {
        dir_copy_contents: false,
        ..cp("m", "/there/")
    };
    let names = assert_same(
        &w,
        &w.snapshot(),
        &[cp("z", "/there/"), whole, cp("a", "/there/b")],
    );
    assert_eq!(names, ["there/", "there/b", "there/m/", "there/m/in", "there/z"]);
}

#[test]
fn times_that_are_set_and_times_of_now() {
    let at = |src: &str, dest: &str| CopyAction {
        time: Some(FileTime {
            seconds: LATER,
            nanoseconds: 0,
        }),
        ..cp(src, dest)
    };
    for actions in [
        vec![at("a", "/x/y/z")],
        vec![at("a", "/x/y/"), at("b", "/x/y/")],
        vec![cp("a", "/x/y/"), at("b", "/x/y/")],
        vec![at("[ab]", "/x/y/")],
        vec![at("d", "/x/y")],
    ] {
        let w = World::new();
        w.file("src/a", "a").file("src/b", "b").file("src/d/f", "f");
        assert_same(&w, &w.snapshot(), &actions);
    }
}

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    let w = World::new();
    w.file("src/d/one", "x");
    std::fs::create_dir(w.path("src/d/s")).unwrap();
    std::fs::hard_link(w.path("src/d/one"), w.path("src/d/s/two")).unwrap();
    std::fs::hard_link(w.path("src/d/one"), w.path("src/outside")).unwrap();
    assert_eq!(std::fs::metadata(w.path("src/d/one")).unwrap().nlink(), 3);
    assert_same(&w, &w.snapshot(), &[cp("d", "/")]);
    let links = entries(&straight(&w, &w.snapshot(), &[cp("d", "/q")]).unwrap());
    assert!(
        links
            .iter()
            .any(|entry| matches!(&entry.1, EntryKind::HardLink { target } if target == b"q/one"))
    );
}

#[test]
fn what_is_not_only_added_is_unsuited() {
    let w = World::new();
    w.file("src/d/f", "1")
        .file("src/f", "2")
        .file("src/.wh.x", "3")
        .dir("src/empty");
    w.file("dst/f", "old")
        .dir("dst/e/d")
        .dir("dst/e/f")
        .link("dst/link", "e");
    let unpacking = CopyAction {
        attempt_unpack: true,
        ..cp("f", "/new")
    };
    let whole = CopyAction {
        dir_copy_contents: false,
        ..cp("d", "/e")
    };
    for (what, action) in [
        ("a file is replaced", cp("f", "/f")),
        ("a file is replaced in a directory", cp("d", "/")),
        ("a directory is in the way", cp("d", "/e/")),
        ("a directory is merged", whole),
        ("a link is followed", cp("f", "/link")),
        ("a link is on the way", cp("f", "/link/x")),
        ("a whiteout", cp(".wh.x", "/e/")),
        ("nothing", cp("empty", "/e")),
        ("an archive", unpacking),
    ] {
        let packed = straight(&w, &w.snapshot(), std::slice::from_ref(&action));
        assert!(
            matches!(packed, Err(StraightError::Unsuited(_))),
            "{what}: {packed:?}"
        );
    }
    let fifo = rustix::fs::mknodat(
        rustix::fs::CWD,
        w.path("src/d/fifo"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    );
    fifo.unwrap();
    assert!(straight(&w, &w.snapshot(), &[cp("d", "/new")]).is_err());
    assert!(
        straight(&w, &w.snapshot(), &[cp("f", "/n"), cp("f", "/n")]).is_err(),
        "copied over itself"
    );
    assert!(
        straight(&w, &w.snapshot(), &[cp("f", "/a/"), cp("f", "/b/")]).is_err(),
        "two places"
    );
}

#[test]
fn an_images_program_is_not_packed_away() {
    let w = World::new();
    w.file("src/d/bin/app", "x").file("src/f", "y").dir("dst/opt/lib");
    let packs = |action: &CopyAction, program: &str| {
        let programs = [PathBuf::from(program)];
        straight_beside(&w, &w.snapshot(), std::slice::from_ref(action), &programs).is_ok()
    };
    assert!(!packs(&cp("d", "/opt"), "/opt/bin/app"));
    assert!(packs(&cp("d", "/opt"), "/opt/lib/app"), "that is below already");
    assert!(packs(&cp("d", "/opt"), "/usr/bin/app"));
    assert!(!packs(&cp("f", "/start"), "/start"));
    assert!(packs(&cp("f", "/start"), "/starter"));
}

#[test]
fn a_context_gives_its_files_to_root_and_keeps_back_what_is_ignored() {
    let w = World::new();
    w.file("src/keep/a", "1")
        .file("src/drop/b", "2")
        .file("src/keep/c.log", "3");
    let packed = entries(&straight(&w, &w.context("drop"), &[cp("/", "/app/")]).unwrap());
    assert!(
        packed
            .iter()
            .all(|entry| entry.2[1..3] == [0, 0] && !entry.0.contains("drop"))
    );
    if rustix::process::geteuid().is_root() {
        w.chown("src/keep/a", 1000, 1000);
        let source = w.context("drop\n**/*.log\n");
        let names = assert_same(&w, &source, &[cp("/", "/app/")]);
        assert_eq!(names, ["app/", "app/keep/", "app/keep/a"]);
    }
}

fn paths() -> impl Strategy<Value = Vec<(String, u8)>> {
    prop::collection::vec(("[abc]{1,2}(/[abc.]{1,2}){0,2}", 0_u8..4), 0..8)
}

fn fill(w: &World, top: &str, files: &[(String, u8)]) {
    w.dir(top);
    for (path, kind) in files {
        let path = format!("{top}/{path}");
        let full = w.path(&path);
        let parent = full.parent().unwrap();
        if path.split('/').any(|part| part == "." || part == "..")
            || std::fs::create_dir_all(parent).is_err()
            || full.symlink_metadata().is_ok()
        {
            continue;
        }
        match kind {
            0 => drop(w.link(&path, "elsewhere")),
            1 => drop(w.dir(&path)),
            kind => {
                w.file(&path, &path)
                    .chmod(&path, if *kind == 2 { 0o640 } else { 0o755 });
                w.utime(&path, i64::from(*kind) * 1_000_000);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever is packed is what would have been copied.
    #[test]
    fn both_ways_give_the_same(
        files in paths(),
        below in paths(),
        src in prop::sample::select(vec!["t", "t/a", "t/*", "t/[ab]*", "t/."]),
        dest in prop::sample::select(vec!["/", "/a", "/a/", "/n/m", "/n/m/", "/b/c"]),
        second in prop::sample::select(vec!["", "t/b", "t/c"]),
        (contents, wildcard, parents) in any::<(bool, bool, bool)>(),
        pattern in prop::sample::select(vec!["", "a", "**/b", "a/*"]),
        time in prop::sample::select(vec![None, Some(LATER)]),
        mode in prop::sample::select(vec![None, Some(0o700)]),
    ) {
        let list = |p: &str| if p.is_empty() { Vec::new() } else { vec![p.to_owned()] };
        let action = |src: &str| CopyAction {
            dir_copy_contents: contents,
            allow_wildcard: wildcard,
            allow_empty_wildcard: true,
            create_dest_path: parents,
            mode,
            time: time.map(|seconds| FileTime { seconds, nanoseconds: 0 }),
            include_patterns: list(pattern),
            ..cp(src, dest)
        };
        let actions: Vec<CopyAction> = [src, second].iter().filter(|src| !src.is_empty()).map(|src| action(src)).collect();
        let w = World::new();
        fill(&w, "src/t", &files);
        fill(&w, "dst", &below);
        let source = w.snapshot();
        if let Ok(packed) = straight(&w, &source, &actions) {
            prop_assert_eq!(entries(&packed), entries(&by_way_of_files(&w, &source, &actions)));
        }
    }
}
