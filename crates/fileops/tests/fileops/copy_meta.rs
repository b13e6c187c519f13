//! Owners, modes, times, attributes, links and special files.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use rbuild_fileops::CopyError;
use rbuild_graph::CopyAction;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use crate::support::{World, at, cp};

#[test]
fn privileged_item29_a_context_belongs_to_root_and_a_stage_keeps_owners() {
    let w = World::new();
    w.file("src/d/f", "")
        .chown("src/d/f", 7, 8)
        .link("src/d/l", "f")
        .chown("src/d/l", 7, 8);
    w.dir("src/d/sub").chown("src/d/sub", 7, 8).chown("src/d", 7, 8);
    w.copy_context("", &cp("d", "/ctx")).unwrap();
    w.copy(&cp("d", "/stage")).unwrap();
    for name in ["", "/f", "/l", "/sub"] {
        assert_eq!(w.owner(&format!("dst/ctx{name}")), (0, 0), "{name}");
        let kept = if name.is_empty() { (0, 0) } else { (7, 8) };
        assert_eq!(
            w.owner(&format!("dst/stage{name}")),
            kept,
            "the new top directory is root's: {name}"
        );
    }
}

#[test]
fn privileged_item29_an_existing_destination_keeps_owner_and_mode() {
    let w = World::new();
    w.file("src/d/f", "")
        .chmod("src/d", 0o700)
        .dir("dst/there")
        .chown("dst/there", 5, 6)
        .chmod("dst/there", 0o1777);
    w.copy_as(&cp("d", "/there"), 9, 9).unwrap();
    assert_eq!((w.owner("dst/there"), w.mode("dst/there")), ((5, 6), 0o1777));
    assert_eq!(w.owner("dst/there/f"), (9, 9));
}

#[test]
fn privileged_item30_existing_directories_below_take_the_sources_metadata() {
    let w = World::new();
    w.file("src/d/sub/f", "")
        .chmod("src/d/sub", 0o710)
        .chown("src/d/sub", 3, 4)
        .utime("src/d/sub", 1000);
    w.dir("dst/there/sub")
        .chmod("dst/there/sub", 0o777)
        .chown("dst/there/sub", 5, 6);
    w.copy(&cp("d", "/there")).unwrap();
    assert_eq!(
        (w.owner("dst/there/sub"), w.mode("dst/there/sub")),
        ((3, 4), 0o710)
    );
    assert_eq!(
        w.stat("dst/there/sub").mtime(),
        1000,
        "set after the directory was filled"
    );
}

#[test]
fn privileged_item32_made_parents_are_roots_or_the_chowned_owners() {
    let w = World::new();
    w.file("src/f", "").chown("src/f", 7, 7).chmod("src/f", 0o600);
    w.copy(&cp("f", "/a/b/f")).unwrap();
    assert_eq!((w.owner("dst/a/b"), w.mode("dst/a/b")), ((0, 0), 0o755));
    w.copy_as(
        &CopyAction {
            mode: Some(0o4711),
            ..cp("f", "/c/d/")
        },
        8,
        9,
    )
    .unwrap();
    assert_eq!((w.owner("dst/c"), w.mode("dst/c/d")), ((8, 9), 0o711));
    assert_eq!((w.owner("dst/c/d/f"), w.mode("dst/c/d/f")), ((8, 9), 0o4711));
    w.copy(&CopyAction {
        mode_str: Some("u=rwx,go=".to_owned()),
        ..cp("f", "/e/")
    })
    .unwrap();
    assert_eq!((w.mode("dst/e"), w.mode("dst/e/f")), (0o755, 0o700));
}

#[test]
fn item33_octal_modes_apply_to_directories_and_symbolic_ones_by_entry() {
    let w = World::new();
    w.file("src/d/sub/run", "")
        .file("src/d/f", "")
        .link("src/d/l", "f");
    w.chmod("src/d/sub/run", 0o700)
        .chmod("src/d/f", 0o600)
        .chmod("src/d/sub", 0o700);
    w.copy(&CopyAction {
        mode: Some(0o644),
        ..cp("d", "/octal")
    })
    .unwrap();
    assert_eq!(
        (
            w.mode("dst/octal/sub"),
            w.mode("dst/octal/sub/run"),
            w.mode("dst/octal/f")
        ),
        (0o644, 0o644, 0o644)
    );
    assert_eq!(w.mode("dst/octal"), 0o644, "the new top directory takes it too");
    w.copy(&CopyAction {
        mode_str: Some("u=rwX,go=rX".to_owned()),
        ..cp("d", "/sym")
    })
    .unwrap();
    assert_eq!(
        (
            w.mode("dst/sym/sub"),
            w.mode("dst/sym/sub/run"),
            w.mode("dst/sym/f")
        ),
        (0o755, 0o755, 0o644)
    );
    let bad = CopyAction {
        mode_str: Some("10000".to_owned()),
        ..cp("d", "/x")
    };
    assert!(matches!(w.copy(&bad), Err(CopyError::Mode(_))));
    assert!(matches!(
        w.copy(&CopyAction {
            mode: Some(0o10000),
            ..cp("d", "/x")
        }),
        Err(CopyError::Mode(_))
    ));
    assert!(!w.exists("dst/x"));
}

#[test]
fn setuid_setgid_and_sticky_bits_survive_a_context() {
    let w = World::new();
    w.file("src/d/s", "")
        .chmod("src/d/s", 0o6755)
        .dir("src/d/t")
        .chmod("src/d/t", 0o1777);
    w.copy_context("", &cp("d", "/out")).unwrap();
    assert_eq!((w.mode("dst/out/s"), w.mode("dst/out/t")), (0o6755, 0o1777));
}

#[test]
fn the_umask_changes_nothing() {
    let old = rustix::process::umask(Mode::from_raw_mode(0o077));
    let w = World::new();
    w.file("src/d/sub/f", "")
        .chmod("src/d/sub", 0o777)
        .chmod("src/d/sub/f", 0o666);
    w.copy(&cp("d", "/a/b")).unwrap();
    rustix::process::umask(old);
    assert_eq!(
        (w.mode("dst/a"), w.mode("dst/a/b/sub"), w.mode("dst/a/b/sub/f")),
        (0o755, 0o777, 0o666)
    );
}

#[test]
fn copied_entries_keep_their_times_and_an_epoch_overrides_them() {
    let w = World::new();
    w.file("src/d/sub/f", "").link("src/d/l", "x");
    for (path, seconds) in [
        ("src/d/sub/f", 100),
        ("src/d/l", 200),
        ("src/d/sub", 300),
        ("src/d", 400),
    ] {
        w.utime(path, seconds);
    }
    w.copy(&cp("d", "/out")).unwrap();
    for (path, seconds) in [
        ("dst/out/sub/f", 100),
        ("dst/out/l", 200),
        ("dst/out/sub", 300),
        ("dst/out", 400),
    ] {
        assert_eq!(
            (w.stat(path).mtime(), w.stat(path).mtime_nsec()),
            (seconds, 5),
            "{path}"
        );
    }
    w.copy(&CopyAction {
        time: at(77),
        ..cp("d", "/p/q/epoch")
    })
    .unwrap();
    for path in [
        "p",
        "p/q",
        "p/q/epoch",
        "p/q/epoch/l",
        "p/q/epoch/sub",
        "p/q/epoch/sub/f",
    ] {
        assert_eq!(w.stat(&format!("dst/{path}")).mtime(), 77, "{path}");
    }
}

#[test]
fn item35_hard_links_inside_one_copy_are_kept() {
    let w = World::new();
    w.file("src/d/a/1", "x").dir("src/d/b").file("dst/out/b/2", "old");
    std::fs::hard_link(w.path("src/d/a/1"), w.path("src/d/b/2")).unwrap();
    std::fs::hard_link(w.path("src/d/a/1"), w.path("src/outside")).unwrap();
    let report = w.copy(&cp("d", "/out")).unwrap();
    assert_eq!(w.stat("dst/out/a/1").ino(), w.stat("dst/out/b/2").ino());
    assert_eq!(w.stat("dst/out/a/1").nlink(), 2);
    assert_eq!((report.files, report.bytes), (2, 1));
    w.copy(&cp("outside", "/alone")).unwrap();
    assert_ne!(w.stat("dst/alone").ino(), w.stat("dst/out/a/1").ino());
}

#[test]
fn privileged_item35_capabilities_survive_a_change_of_owner() {
    let w = World::new();
    // VFS_CAP_REVISION_2, permitted cap_net_bind_service (linux/capability.h).
    let caps = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    w.file("src/d/tool", "x").chown("src/d/tool", 5, 5);
    rustix::fs::setxattr(
        w.path("src/d/tool"),
        c"security.capability",
        &caps,
        XattrFlags::empty(),
    )
    .unwrap();
    rustix::fs::setxattr(w.path("src/d/tool"), c"user.note", b"n", XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(w.path("src/d"), c"user.note", b"top", XattrFlags::empty()).unwrap();
    let get = |path: &str, name: &std::ffi::CStr| {
        let mut value = [0; 64];
        rustix::fs::getxattr(w.path(path), name, &mut value[..]).map(|len| value[..len].to_vec())
    };
    w.copy_as(&cp("d", "/out"), 1, 2).unwrap();
    assert_eq!(get("dst/out/tool", c"security.capability").unwrap(), caps);
    assert_eq!(get("dst/out/tool", c"user.note").unwrap(), b"n");
    assert!(
        get("dst/out", c"user.note").is_err(),
        "the top directory is a new one"
    );
    w.copy_context("", &cp("d", "/ctx")).unwrap();
    assert!(
        get("dst/ctx/tool", c"security.capability").is_err(),
        "BuildKit's sync of a context drops them"
    );
    assert_eq!(get("dst/ctx/tool", c"user.note").unwrap(), b"n");
    assert_ne!(
        w.hash(&cp("d", "/")),
        w.hash_context("", &cp("d", "/")),
        "and the hash knows"
    );
}

#[test]
fn privileged_item36_sockets_become_empty_files_and_fifos_and_devices_are_kept() {
    let w = World::new();
    w.dir("src/d");
    let _socket = std::os::unix::net::UnixListener::bind(w.path("src/d/sock")).unwrap();
    w.chmod("src/d/sock", 0o751);
    rustix::fs::mknodat(
        CWD,
        w.path("src/d/fifo"),
        FileType::Fifo,
        Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(
        CWD,
        w.path("src/d/null"),
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        null,
    )
    .unwrap();
    w.chmod("src/d/fifo", 0o640)
        .chmod("src/d/null", 0o666)
        .utime("src/d/fifo", 9);
    for out in ["stage", "ctx"] {
        match out {
            "stage" => w.copy(&cp("d", out)).unwrap(),
            _ => w.copy_context("", &cp("d", out)).unwrap(),
        };
        let sock = w.stat(&format!("dst/{out}/sock"));
        assert!(sock.is_file() && sock.len() == 0);
        assert_eq!(w.mode(&format!("dst/{out}/sock")), 0o751);
        let fifo = w.stat(&format!("dst/{out}/fifo"));
        assert!(fifo.file_type().is_fifo() && fifo.mtime() == 9);
        assert_eq!(w.mode(&format!("dst/{out}/fifo")), 0o640);
        let device = w.stat(&format!("dst/{out}/null"));
        assert!(device.file_type().is_char_device() && device.rdev() == null);
        assert_eq!(w.mode(&format!("dst/{out}/null")), 0o666);
    }
    w.copy(&cp("d/fifo", "/single")).unwrap();
    assert!(w.stat("dst/single").file_type().is_fifo(), "and does not block");
}

#[test]
fn sparse_files_stay_sparse_and_whole() {
    use std::os::unix::fs::FileExt as _;
    let w = World::new();
    w.dir("src/d");
    let file = std::fs::File::create(w.path("src/d/sparse")).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(b"middle", 32 << 20).unwrap();
    let tail = std::fs::File::create(w.path("src/d/tail")).unwrap();
    tail.write_all_at(&[7; 100_000], 1 << 20).unwrap();
    tail.set_len(3 << 20).unwrap();
    std::fs::File::create(w.path("src/d/hole"))
        .unwrap()
        .set_len(1 << 50)
        .ok();
    w.copy(&cp("d", "/out")).unwrap();
    for name in ["sparse", "tail"] {
        let (from, to) = (format!("src/d/{name}"), format!("dst/out/{name}"));
        assert_eq!(w.stat(&from).len(), w.stat(&to).len());
        assert!(
            std::fs::read(w.path(&from)).unwrap() == std::fs::read(w.path(&to)).unwrap(),
            "{name}"
        );
        assert!(
            w.stat(&to).blocks() * 512 < 2 << 20,
            "{name} takes {} blocks",
            w.stat(&to).blocks()
        );
    }
    assert_eq!(w.stat("src/d/hole").len(), w.stat("dst/out/hole").len());
}

#[test]
fn large_files_are_copied_whole() {
    let w = World::new();
    let bytes: Vec<u8> = (0..5_000_003_u32)
        .flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes())
        .collect();
    w.dir("src");
    std::fs::write(w.path("src/big"), &bytes).unwrap();
    std::fs::write(w.path("src/edge"), &bytes[..65_537]).unwrap();
    let report = w.copy(&cp("/", "/")).unwrap();
    assert!(std::fs::read(w.path("dst/big")).unwrap() == bytes);
    assert!(std::fs::read(w.path("dst/edge")).unwrap() == bytes[..65_537]);
    assert_eq!((report.files, report.bytes), (2, bytes.len() as u64 + 65_537));
}
