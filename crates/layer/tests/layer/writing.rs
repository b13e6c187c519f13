//! Layer directories to tars: BuildKit's order and rules, overlay state, depth, and back again.

use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use proptest::prelude::*;
use rbuild_layer::{
    EntryKind, ExportedXattrs, Limits, TarReader, TarWriteError, UnpackOptions, WriteError, WriteOptions,
    Written, unpack, write_tar,
};
use rbuild_sys::RootFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};

use crate::archive::{Block, Tar, record};
use crate::canary::{Place, describe, form, xattr};

fn write_with(place: &Place, options: &WriteOptions<'_>) -> Result<Vec<u8>, WriteError> {
    let mut out = Vec::new();
    let Written { bytes, .. } = write_tar(place.open_root().as_fd(), form(), options, &mut out)?;
    assert_eq!(bytes, out.len() as u64);
    Ok(out)
}

fn write(place: &Place) -> Vec<u8> {
    write_with(place, &WriteOptions::default()).unwrap()
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut reader = TarReader::new(
        tar,
        Limits {
            max_path_bytes: usize::MAX,
            ..Limits::default()
        },
    );
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8_lossy(&entry.path).into_owned());
    }
    names
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn mark_opaque(path: &Path) {
    set_xattr(path, &format!("{}opaque", form().xattr_prefix()), b"y");
}

fn make_whiteout(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

#[test]
fn order_names_and_links_are_those_of_buildkit() {
    let place = Place::new();
    let root = place.root();
    std::fs::create_dir_all(root.join("a")).unwrap();
    for name in ["a/z", "a.b", "a/B", "b"] {
        std::fs::write(root.join(name), name).unwrap();
    }
    std::fs::hard_link(root.join("b"), root.join("a/link")).unwrap();
    std::os::unix::fs::symlink("a/z", root.join("s")).unwrap();
    make_whiteout(&root.join("gone"));
    std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let tar = write(&place);
    // Siblings by name alone, `a` with all that is in it before `a.b`; sockets are left out.
    assert_eq!(
        names(&tar),
        ["a/", "a/B", "a/link", "a/z", "a.b", "b", ".wh.gone", "s"]
    );
    let mut reader = TarReader::new(tar.as_slice(), Limits::default());
    while let Some(entry) = reader.next_entry().unwrap() {
        match entry.path.as_slice() {
            b"b" => assert_eq!(
                entry.kind,
                EntryKind::HardLink {
                    target: b"a/link".to_vec()
                }
            ),
            b".wh.gone" => {
                assert_eq!((entry.mode, entry.mtime.seconds, entry.uid), (0, 0, 0));
                assert_eq!(entry.kind, EntryKind::File { size: 0 });
            }
            b"s" => assert_eq!(
                (entry.kind, entry.mode),
                (
                    EntryKind::Symlink {
                        target: b"a/z".to_vec()
                    },
                    0o777
                )
            ),
            _ => {}
        }
    }
}

#[test]
fn times_are_whole_seconds_and_none_newer_than_asked() {
    let place = Place::new();
    std::fs::write(place.root().join("f"), "").unwrap();
    std::fs::write(place.root().join("g"), "").unwrap();
    set_mtime(&place.root().join("f"), 1000, 999_999_999);
    set_mtime(&place.root().join("g"), 10, 0);
    let mtimes = |newest_mtime| {
        let tar = write_with(
            &place,
            &WriteOptions {
                newest_mtime,
                ..WriteOptions::default()
            },
        )
        .unwrap();
        let mut reader = TarReader::new(tar.as_slice(), Limits::default());
        let mut times = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            assert_eq!(entry.mtime.nanoseconds, 0);
            times.push(entry.mtime.seconds);
        }
        times
    };
    assert_eq!(mtimes(None), [1000, 10]);
    assert_eq!(mtimes(Some(500)), [500, 10]);
}

#[test]
fn times_before_1970_are_for_entries_with_records() {
    let place = Place::new();
    std::fs::write(place.root().join("\u{e9}"), "").unwrap();
    let with = |newest| {
        write_with(
            &place,
            &WriteOptions {
                newest_mtime: Some(newest),
                ..WriteOptions::default()
            },
        )
    };
    let mtime = |newest| {
        let tar = with(newest).unwrap();
        let mut reader = TarReader::new(tar.as_slice(), Limits::default());
        reader.next_entry().unwrap().unwrap().mtime.seconds
    };
    assert_eq!((mtime(-1), mtime(-62_135_596_800)), (-1, 0));
    std::fs::write(place.root().join("plain"), "").unwrap();
    let refused = with(-1).unwrap_err();
    assert!(
        matches!(&refused, WriteError::Tar(TarWriteError::Time { path, seconds: -1 }) if path == "plain"),
        "{refused:?}"
    );
    assert!(with(0).is_ok() && with(-62_135_596_800).is_ok());
}

#[test]
fn row07_only_the_form_in_use_counts_and_nothing_of_overlayfs_is_exported() {
    let place = Place::new();
    let root = place.root();
    for name in ["mine", "other", "odd"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    mark_opaque(&root.join("mine"));
    set_xattr(
        &root.join("odd"),
        &format!("{}opaque", form().xattr_prefix()),
        b"x",
    );
    if crate::canary::is_root() {
        set_xattr(&root.join("other"), "user.overlay.opaque", b"y");
        set_xattr(&root.join("other"), "user.overlay.redirect", b"/etc");
    }
    set_xattr(&root.join("other"), "user.kept", b"1");
    let all = WriteOptions {
        xattrs: ExportedXattrs::CapabilityAndUser,
        ..WriteOptions::default()
    };
    let tar = write_with(&place, &all).unwrap();
    assert_eq!(names(&tar), ["mine/", "mine/.wh..wh..opq", "odd/", "other/"]);
    let text = String::from_utf8_lossy(&tar);
    assert!(!text.contains("overlay") && text.contains("SCHILY.xattr.user.kept=1"));
    assert!(
        !String::from_utf8_lossy(&write(&place)).contains("user.kept"),
        "BuildKit exports capabilities alone"
    );

    set_xattr(
        &root.join("mine"),
        &format!("{}redirect", form().xattr_prefix()),
        b"/x",
    );
    let error = write_with(&place, &all).unwrap_err();
    assert!(matches!(error, WriteError::NotSelfContained { .. }), "{error}");
}

#[test]
fn privileged_row08_a_capability_bound_to_a_user_namespace_is_exported_unbound() {
    if !crate::canary::is_root() {
        println!("SKIP: needs root");
        return;
    }
    let place = Place::new();
    std::fs::write(place.root().join("f"), "x").unwrap();
    std::fs::hard_link(place.root().join("f"), place.root().join("g")).unwrap();
    let v2 = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut v3 = [v2.to_vec(), 100_000_u32.to_le_bytes().to_vec()].concat();
    v3[3] = 3;
    set_xattr(&place.root().join("f"), "security.capability", &v3);
    assert_eq!(
        xattr(&place.root().join("f"), "security.capability").unwrap(),
        v3,
        "the host id is on disk"
    );
    let tar = write(&place);
    let mut reader = TarReader::new(tar.as_slice(), Limits::default());
    for _ in 0..2 {
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!(
            entry.xattrs,
            [(b"security.capability".to_vec(), v2.to_vec())],
            "links carry it, too"
        );
    }
}

/// Two places with the same `base` tree, as a layer below and as the start of the one above.
fn pair(base: &Tar) -> (Place, Place) {
    let (lower, upper) = (Place::new(), Place::new());
    lower.unpack(&base.clone().end()).unwrap();
    (lower, upper)
}

fn names_over(upper: &Place, lower: &Place) -> Vec<String> {
    let lower = RootFd::from_fd(lower.open_root());
    names(
        &write_with(
            upper,
            &WriteOptions {
                lower: Some(&lower),
                ..WriteOptions::default()
            },
        )
        .unwrap(),
    )
}

#[test]
fn with_the_layers_below_only_changes_are_written() {
    let dir = |name: &[u8]| Block::new(name, b'5', 0).mode(0o755);
    let base = Tar::default()
        .block(dir(b"same/"))
        .block(dir(b"same/empty/"))
        .block(Block::new(b"same/old", b'0', 1).mtime(7))
        .content(b"1")
        .file(b"removed", b"")
        .block(dir(b"mode/"));
    let (lower, upper) = pair(&base);
    let tar = Tar::default()
        .block(dir(b"same/"))
        .block(dir(b"same/empty/"))
        .block(Block::new(b"same/old", b'0', 1).mtime(7))
        .content(b"1")
        .file(b".wh.removed", b"")
        .file(b".wh.never", b"")
        .block(Block::new(b"mode/", b'5', 0).mode(0o700));
    upper.unpack(&tar.clone().end()).unwrap();
    assert_eq!(names_over(&upper, &lower), ["mode/", ".wh.removed"]);
    // One new file brings its unchanged parent, not the unchanged sibling.
    std::fs::write(upper.root().join("same/new"), "").unwrap();
    assert_eq!(
        names_over(&upper, &lower),
        ["mode/", ".wh.removed", "same/", "same/new"]
    );
    // Same size and time, other bytes: whole seconds are not trusted.
    let other = Tar(tar.0)
        .block(Block::new(b"same/old", b'0', 1).mtime(7))
        .content(b"2");
    let (lower, upper) = pair(&base);
    upper.unpack(&other.end()).unwrap();
    assert_eq!(
        names_over(&upper, &lower),
        ["mode/", ".wh.removed", "same/", "same/old"]
    );
}

#[test]
fn opaque_directories_become_whiteouts_of_what_they_hide() {
    let base = Tar::default()
        .dir(b"d/")
        .file(b"d/a", b"")
        .dir(b"d/sub/")
        .file(b"d/sub/x", b"1")
        .dir(b"d/gone/")
        .file(b"d/gone/y", b"")
        .file(b"d/tofile/z", b"");
    let (lower, upper) = pair(&base);
    upper
        .unpack(
            &Tar::default()
                .block(Block::new(b"d/", b'5', 0).mode(0o700))
                .file(b"d/.wh..wh..opq", b"")
                .file(b"d/b", b"")
                .dir(b"d/sub/")
                .file(b"d/sub/w", b"2")
                .file(b"d/tofile", b"3")
                .dir(b"new/")
                .file(b"new/.wh..wh..opq", b"")
                .end(),
        )
        .unwrap();
    assert_eq!(
        names_over(&upper, &lower),
        [
            "d/",
            "d/.wh.a",
            "d/b",
            "d/.wh.gone",
            "d/sub/",
            "d/sub/w",
            "d/sub/.wh.x",
            "d/tofile",
            "new/"
        ]
    );
    assert_eq!(names(&write(&upper))[..2], ["d/", "d/.wh..wh..opq"]);
}

#[test]
fn privileged_the_kernels_own_overlay_is_read_right() {
    if !crate::canary::is_root() {
        println!("SKIP: needs root to mount");
        return;
    }
    let place = Place::new();
    let sub = |name: &str| place.root().join(name);
    for name in ["lower/d", "upper", "work", "merged"] {
        std::fs::create_dir_all(sub(name)).unwrap();
    }
    for name in ["lower/d/old", "lower/f", "lower/kept"] {
        std::fs::write(sub(name), "x").unwrap();
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off",
        sub("lower").display(),
        sub("upper").display(),
        sub("work").display()
    );
    let mounted = std::process::Command::new("mount")
        .args(["-t", "overlay", "overlay", "-o", &options])
        .arg(sub("merged"))
        .output()
        .unwrap();
    if !mounted.status.success() {
        println!(
            "SKIP: this machine mounts no overlay: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        return;
    }
    let merged = |name: &str| sub("merged").join(name);
    std::fs::remove_dir_all(merged("d")).unwrap();
    std::fs::create_dir(merged("d")).unwrap();
    std::fs::write(merged("d/new"), "1").unwrap();
    std::fs::remove_file(merged("f")).unwrap();
    std::fs::create_dir(merged("fresh")).unwrap();
    std::fs::set_permissions(merged("kept"), std::fs::Permissions::from_mode(0o600)).unwrap();
    rustix::fs::mknodat(CWD, merged("forged"), FileType::CharacterDevice, Mode::empty(), 0).ok();
    std::process::Command::new("umount")
        .arg(sub("merged"))
        .status()
        .unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let upper = rustix::fs::open(sub("upper"), flags, Mode::empty()).unwrap();
    let lower = RootFd::open(&sub("lower")).unwrap();
    let written = |lower| {
        let mut out = Vec::new();
        let options = WriteOptions {
            lower,
            ..WriteOptions::default()
        };
        write_tar(
            upper.as_fd(),
            rbuild_sys::overlay::Form::Trusted,
            &options,
            &mut out,
        )
        .unwrap();
        names(&out)
    };
    assert_eq!(
        written(Some(&lower)),
        ["d/", "d/new", "d/.wh.old", ".wh.f", "fresh/", "kept"]
    );
    let alone = written(None);
    assert!(
        alone.contains(&"d/.wh..wh..opq".to_owned()) && alone.contains(&".wh.f".to_owned()),
        "{alone:?}"
    );
}

#[test]
fn row13_deep_trees_need_neither_stack_nor_descriptors() {
    const DEPTH: usize = 3_000;
    let place = Place::new();
    let name = "n".repeat(20);
    let mut dir = place.open_root();
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&dir, name.as_str(), Mode::from_raw_mode(0o755)).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        dir = rustix::fs::openat(&dir, name.as_str(), flags, Mode::empty()).unwrap();
    }
    let raw = b"bad\xff\nname".as_slice();
    rustix::fs::openat(&dir, raw, OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0)).unwrap();
    let limit = rustix::process::Rlimit {
        current: Some(64),
        maximum: Some(64),
    };
    let before = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let root = place.open_root();
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit {
            current: limit.current,
            maximum: before.maximum,
        },
    )
    .unwrap();
    let written = std::thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(move || write_tar(root.as_fd(), form(), &WriteOptions::default(), std::io::sink()).unwrap())
        .unwrap()
        .join()
        .unwrap();
    assert_eq!(written.entries, DEPTH as u64 + 1);
    // Removing it is the engine's, too: a file takes the tree's place.
    let tar = Tar::default().file(name.as_bytes(), b"flat").end();
    unpack(
        tar.as_slice(),
        place.open_root().as_fd(),
        &UnpackOptions::new(form()),
    )
    .unwrap();
    rustix::process::setrlimit(rustix::process::Resource::Nofile, before).unwrap();
    assert!(place.root().join(&name).is_file());
}

#[derive(Clone, Debug)]
enum Node {
    File(Vec<u8>, u32),
    Dir(u32),
    Link(String),
    Hard(usize),
    Gone,
    Opaque,
}

fn nodes() -> impl Strategy<Value = Vec<(String, Node)>> {
    let name = prop_oneof!["[a-c]{1,2}", "é[a-b]", "[a-b]{101}"];
    let path = prop::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"));
    let node = prop_oneof![
        (prop::collection::vec(any::<u8>(), 0..2000), 0_u32..0o7777).prop_map(|(c, m)| Node::File(c, m)),
        (0_u32..0o7777).prop_map(Node::Dir),
        "[a-z/.]{1,120}".prop_map(Node::Link),
        (0_usize..8).prop_map(Node::Hard),
        Just(Node::Gone),
        Just(Node::Opaque),
    ];
    prop::collection::vec((path, node), 0..25)
}

/// Makes what can be made of `nodes`; what cannot (a file as parent, a link to nothing) is left out.
fn grow(root: &Path, nodes: &[(String, Node)]) {
    let mut files: Vec<std::path::PathBuf> = Vec::new();
    for (at, (path, node)) in nodes.iter().enumerate() {
        let path = root.join(path);
        let parent = path.parent().unwrap();
        // Links are never parents here: the host would follow them out of the root.
        if parent
            .ancestors()
            .take_while(|p| *p != root)
            .any(|p| p.is_symlink())
            || std::fs::create_dir_all(parent).is_err()
            || path.symlink_metadata().is_ok()
        {
            continue;
        }
        match node {
            Node::File(content, mode) => {
                std::fs::write(&path, content).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
                set_mtime(&path, 1000 + at as i64, 5);
                files.push(path);
            }
            Node::Dir(mode) => {
                std::fs::create_dir(&path).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
            }
            Node::Link(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
            Node::Hard(index) => {
                if let Some(file) = files.get(index % files.len().max(1)) {
                    std::fs::hard_link(file, &path).unwrap();
                }
            }
            Node::Gone => make_whiteout(&path),
            Node::Opaque => {
                std::fs::create_dir(&path).unwrap();
                mark_opaque(&path);
            }
        }
    }
}

/// A tree without inode numbers, and without the root's own line and the fraction of its times.
fn comparable(root: &Path) -> Vec<String> {
    describe(root)
        .into_iter()
        .filter(|line| !line.starts_with(' '))
        .map(|line| {
            if line.ends_with(" dev 0") {
                // A whiteout has a name and nothing else that counts.
                return line.split(' ').next().unwrap_or_default().to_owned();
            }
            let words = line
                .split(' ')
                .filter(|word| !word.starts_with('i') || word.len() < 2);
            let words = words.map(
                |word| match word.strip_prefix('m').and_then(|w| w.split_once('.')) {
                    Some((seconds, _)) => seconds.to_owned(),
                    None => word.to_owned(),
                },
            );
            words.collect::<Vec<_>>().join(" ")
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_layer_unpacked_from_its_tar_is_the_same_layer(nodes in nodes()) {
        let (first, second) = (Place::new(), Place::new());
        grow(&first.root(), &nodes);
        let tar = write(&first);
        prop_assert_eq!(&tar, &write(&first), "the same directory, the same bytes");
        second.unpack(&tar).unwrap();
        prop_assert_eq!(comparable(&first.root()), comparable(&second.root()));
        prop_assert_eq!(&tar, &write(&second), "and back again");
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096), at in 0_usize..600) {
        let mut tar = Tar::default().pax(&[record("path", b"p")]).file(b"f", &[b'x'; 600]).dir(b"d").end();
        for (offset, byte) in bytes.iter().take(64).enumerate() {
            let length = tar.len();
            tar[(at * 7 + offset * 131) % length] = *byte;
        }
        for input in [&bytes, &tar] {
            let mut reader = TarReader::new(input.as_slice(), Limits::default());
            while let Ok(Some(_)) = reader.next_entry() {}
        }
    }
}
