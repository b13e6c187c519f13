//! Security rows 1 to 8: what an archive can do to the directory it is unpacked into, and to nothing else.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rbuild_layer::ApplyError;

use crate::archive::{Block, Tar, record};
use crate::canary::{Place, form, xattr};

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn opaque(path: &Path) -> bool {
    xattr(path, &format!("{}opaque", form().xattr_prefix())).as_deref() == Some(b"y")
}

fn is_whiteout(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

#[test]
fn row01_dotted_and_absolute_names_end_in_the_root_however_they_are_written() {
    let cases: [(&[u8], &str); 5] = [
        (b"../e1", "e1"),
        (b"a/../../e2", "e2"),
        (b"/e3", "e3"),
        (b".//..//e4", "e4"),
        (b"e5/../../x", "x"),
    ];
    for (name, lands) in cases {
        let ustar = match name.iter().rposition(|b| *b == b'/') {
            Some(at) if at > 0 => {
                Tar::default().block(Block::new(&name[at + 1..], b'0', 2).prefix(&name[..at]))
            }
            _ => Tar::default().block(Block::new(name, b'0', 2)),
        };
        let gnu = Tar::default()
            .long(b'L', name)
            .block(Block::new(b"short", b'0', 2));
        let pax = Tar::default()
            .pax(&[record("path", name)])
            .block(Block::new(b"short", b'0', 2));
        for tar in [ustar, gnu, pax] {
            let place = Place::new();
            place.unpack(&tar.content(b"hi").end()).unwrap();
            assert_eq!(read(&place.root().join(lands)), "hi", "{}", name.escape_ascii());
            assert!(!place.root().parent().unwrap().join(lands).exists());
        }
    }
}

#[test]
fn row02_links_of_earlier_entries_lead_nowhere_outside() {
    let place = Place::new();
    let canary = place.canary_bytes("");
    let tar = Tar::default()
        .symlink(b"l", &canary)
        .file(b"l/pwn", b"1")
        .symlink(b"u", b"../../../../../../../../canary")
        .file(b"u/pwn", b"2")
        .symlink(b"p", b"q")
        .symlink(b"q", &canary)
        .file(b"p/pwn2", b"3")
        .symlink(b"s", b"..")
        .dir(b"s/newdir/")
        // Directories that the host has behind the link, so that nothing has to be made on the way.
        .file(b"l/dir/sub/pwn", b"4")
        .dir(b"l/emptyd/")
        .hardlink(b"l/dir/sub/pwn-too", b"l/dir/sub/pwn")
        .end();
    place.unpack(&tar).unwrap();
    let inside = place.root().join(place.canary().strip_prefix("/").unwrap());
    assert_eq!(
        read(&inside.join("pwn")),
        "1",
        "an absolute link starts at the root"
    );
    assert_eq!(read(&inside.join("pwn2")), "3");
    assert_eq!(read(&inside.join("dir/sub/pwn-too")), "4");
    assert_eq!(
        read(&place.root().join("canary/pwn")),
        "2",
        "too many dots end at the root"
    );
    assert!(place.root().join("newdir").is_dir());
}

#[test]
fn row02_legal_links_inside_a_layer_keep_working() {
    let place = Place::new();
    let tar = Tar::default()
        .dir(b"var/")
        .dir(b"run/")
        .symlink(b"var/run", b"/run")
        .file(b"var/run/x", b"x")
        .symlink(b"var/many", b"../../../../run")
        .file(b"var/many/y", b"y")
        .symlink(b"old", b"var")
        .file(b"old", b"now a file")
        .end();
    let unpacked = place.unpack(&tar).unwrap();
    assert_eq!(read(&place.root().join("run/x")), "x");
    assert_eq!(read(&place.root().join("run/y")), "y");
    assert_eq!(read(&place.root().join("old")), "now a file");
    assert!(unpacked.implied.is_empty());
}

#[test]
fn row02_a_link_loop_is_an_error() {
    let place = Place::new();
    let tar = Tar::default()
        .symlink(b"a", b"b")
        .symlink(b"b", b"a")
        .file(b"a/x", b"")
        .end();
    let error = place.unpack(&tar).unwrap_err();
    assert!(
        matches!(&error, ApplyError::Io { path, .. } if path == "a/x"),
        "{error}"
    );
}

#[test]
fn row03_metadata_never_goes_through_a_link() {
    let place = Place::new();
    let dir = place.canary_bytes("/dir");
    let mut tar = Tar::default()
        .symlink(b"d", &dir)
        .pax(&[record("SCHILY.xattr.user.x", b"1")])
        .block(Block::new(b"d", b'5', 0).mode(0o777).mtime(1).owner(12345, 12345))
        .block(Block::new(b"e", b'5', 0).mode(0o700).mtime(1));
    for n in 0..10 {
        tar = tar.file(format!("e/{n}").as_bytes(), b"");
    }
    let tar = tar
        .block(Block::new(b"e", b'2', 0).link(&dir).owner(12345, 12345).mtime(7))
        .end();
    if crate::canary::is_root() {
        place.unpack(&tar).unwrap();
        let made = std::fs::symlink_metadata(place.root().join("d")).unwrap();
        assert!(made.is_dir());
        assert_eq!(
            (made.mode() & 0o7777, made.uid(), made.mtime()),
            (0o777, 12345, 1)
        );
        let link = std::fs::symlink_metadata(place.root().join("e")).unwrap();
        assert!(link.is_symlink());
        assert_eq!((link.uid(), link.mtime()), (12345, 7));
    } else {
        println!("SKIP: row03 needs owners that only root can set");
    }
}

#[test]
fn row03_directory_times_are_those_of_the_archive_at_the_end() {
    let place = Place::new();
    let tar = Tar::default()
        .block(Block::new(b"a/", b'5', 0).mode(0o755).mtime(11))
        .pax(&[record("mtime", b"12.345678901")])
        .block(Block::new(b"a/b/", b'5', 0).mode(0o755))
        .file(b"a/b/f", b"")
        .file(b"i/f", b"")
        .end();
    let unpacked = place.unpack(&tar).unwrap();
    let mtime = |path: &str| {
        let meta = std::fs::metadata(place.root().join(path)).unwrap();
        (meta.mtime(), meta.mtime_nsec())
    };
    assert_eq!(mtime("a"), (11, 0));
    assert_eq!(mtime("a/b"), (12, 345_678_901));
    assert_eq!(
        mtime("i"),
        (0, 0),
        "a parent the archive leaves out has no clock in it"
    );
    assert_eq!(unpacked.implied, [Path::new("i")]);
}

#[test]
fn row04_hard_links_stay_inside() {
    let place = Place::new();
    let absolute = place.canary_bytes("/secret");
    let refused: [(&[u8], &[u8]); 7] = [
        (b"h", &absolute),
        (b"h", b"../canary/secret"),
        (b"h", b"../../canary/secret"),
        (b"h", b"secret"),
        (b"h", b"d"),
        (b"h", b"/"),
        (b"f", b"f"),
    ];
    for (name, target) in refused {
        let place = Place::new();
        let tar = Tar::default()
            .dir(b"d")
            .file(b"f", b"own")
            .hardlink(name, target)
            .end();
        let error = place.unpack(&tar).unwrap_err();
        assert!(
            matches!(error, ApplyError::HardLink { .. }),
            "{}: {error}",
            target.escape_ascii()
        );
    }
    let later = Tar::default().hardlink(b"h", b"later").file(b"later", b"").end();
    assert!(matches!(
        Place::new().unpack(&later),
        Err(ApplyError::HardLink { .. })
    ));
    let through = Tar::default()
        .symlink(b"l", &place.canary_bytes(""))
        .hardlink(b"h", b"l/secret")
        .file(b"h", b"new")
        .end();
    assert!(matches!(place.unpack(&through), Err(ApplyError::HardLink { .. })));
    assert_eq!(
        std::fs::metadata(place.canary().join("secret")).unwrap().nlink(),
        1
    );
}

#[test]
fn row04_legal_hard_links_and_files_after_them() {
    let place = Place::new();
    let tar = Tar::default()
        .file(b"a", b"content")
        .hardlink(b"b", b"/a")
        .hardlink(b"c", b"x/../a")
        .symlink(b"s", b"nowhere")
        .hardlink(b"t", b"s")
        .file(b"c", b"replaced")
        .end();
    place.unpack(&tar).unwrap();
    let root = place.root();
    assert_eq!(std::fs::metadata(root.join("a")).unwrap().nlink(), 2);
    assert_eq!(
        read(&root.join("b")),
        "content",
        "writing c again does not write through the link"
    );
    assert_eq!(read(&root.join("c")), "replaced");
    let (s, t) = (
        root.join("s").symlink_metadata().unwrap(),
        root.join("t").symlink_metadata().unwrap(),
    );
    assert_eq!(s.ino(), t.ino(), "a hard link to a symbolic link is one");
}

#[test]
fn row05_whiteouts_delete_nothing_outside_and_bad_ones_are_errors() {
    let place = Place::new();
    let tar = Tar::default()
        .symlink(b"l", &place.canary_bytes(""))
        .file(b"l/.wh.victim", b"")
        .file(b"l/.wh..wh..opq", b"")
        .end();
    place.unpack(&tar).unwrap();
    let inside = place.root().join(place.canary().strip_prefix("/").unwrap());
    assert!(is_whiteout(&inside.join("victim")) && opaque(&inside));
    for bad in [&b".wh."[..], b".wh..", b".wh...", b"a/.wh...", b"a/.wh."] {
        let error = Place::new()
            .unpack(&Tar::default().file(bad, b"").end())
            .unwrap_err();
        assert!(
            matches!(error, ApplyError::BadWhiteout { .. }),
            "{}: {error}",
            bad.escape_ascii()
        );
    }
    for below in [&b".wh.a/b"[..], b".wh..wh..opq/b"] {
        let error = Place::new()
            .unpack(&Tar::default().file(below, b"").end())
            .unwrap_err();
        assert!(
            matches!(error, ApplyError::BelowWhiteout { .. }),
            "{}: {error}",
            below.escape_ascii()
        );
    }
    let aufs = Tar::default()
        .dir(b".wh..wh.plnk/")
        .file(b".wh..wh.plnk/1.2", b"")
        .file(b".wh..wh.aufs", b"")
        .end();
    let place = Place::new();
    place.unpack(&aufs).unwrap();
    assert_eq!(std::fs::read_dir(place.root()).unwrap().count(), 0);
}

#[test]
fn row05_a_whiteout_and_its_name_in_one_layer_commute() {
    let parts = [
        Tar::default().file(b".wh.f", b"").0,
        Tar::default().file(b"f", b"new").0,
        Tar::default().file(b".wh.d", b"").0,
        Tar::default().dir(b"d/").file(b"d/x", b"1").0,
        Tar::default().file(b"o/.wh..wh..opq", b"").0,
        Tar::default().dir(b"o/").file(b"o/y", b"2").0,
        Tar::default().file(b".wh.gone", b"").0,
        Tar::default().file(b".wh.i", b"").0,
        Tar::default().file(b"i/implied", b"3").0,
    ];
    for backwards in [false, true] {
        let place = Place::new();
        let mut order: Vec<Vec<u8>> = parts.to_vec();
        if backwards {
            order.reverse();
        }
        place.unpack(&Tar(order.concat()).end()).unwrap();
        let root = place.root();
        assert_eq!(read(&root.join("f")), "new");
        assert_eq!(read(&root.join("d/x")), "1");
        assert_eq!(read(&root.join("i/implied")), "3");
        assert!(
            opaque(&root.join("d")) && opaque(&root.join("o")) && opaque(&root.join("i")),
            "{backwards}"
        );
        assert!(is_whiteout(&root.join("gone")) && !opaque(&root));
    }
}

#[test]
fn row05_an_opaque_root_is_reported() {
    let place = Place::new();
    assert!(
        place
            .unpack(&Tar::default().file(b".wh..wh..opq", b"").end())
            .unwrap()
            .root_opaque
    );
    assert!(opaque(&place.root()));
}

#[test]
fn row06_only_a_directory_may_name_the_root() {
    for name in [&b"."[..], b"/", b"./", b"a/..", b"", b"../.."] {
        for (flag, target) in [
            (b'2', &b"/canary"[..]),
            (b'0', b""),
            (b'3', b""),
            (b'1', b"x"),
            (b'6', b""),
        ] {
            if flag == b'0' && name.ends_with(b"/") {
                continue; // Refused by the reader already (row 10).
            }
            let place = Place::new();
            let inode = std::fs::metadata(place.root()).unwrap().ino();
            let tar = Tar::default()
                .block(Block::new(name, flag, 0).link(target).device(1, 1))
                .end();
            let error = place.unpack(&tar).unwrap_err();
            assert!(
                matches!(error, ApplyError::ReplacesRoot { .. }),
                "{}: {error}",
                name.escape_ascii()
            );
            assert_eq!(std::fs::metadata(place.root()).unwrap().ino(), inode);
        }
        let place = Place::new();
        let mode = std::fs::metadata(place.root()).unwrap().mode();
        place
            .unpack(&Tar::default().dir(name).file(b"legal", b"1").end())
            .unwrap();
        assert_eq!(read(&place.root().join("legal")), "1");
        assert_eq!(
            std::fs::metadata(place.root()).unwrap().mode(),
            mode,
            "the root keeps its own mode"
        );
    }
}

#[test]
fn row07_overlay_state_cannot_come_from_an_archive() {
    let place = Place::new();
    let forged = [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "user.overlay.redirect",
        "user.overlay.opaque",
        "user.overlay.metacopy",
        "user.overlay.whiteout",
        "user.overlay.origin",
        "user.rbuild.device",
        "trusted.other",
    ];
    let mut records: Vec<Vec<u8>> = forged
        .iter()
        .map(|name| record(&format!("SCHILY.xattr.{name}"), b"y"))
        .collect();
    records.push(record("SCHILY.xattr.user.legal", b"kept"));
    let tar = Tar::default()
        .pax(&records)
        .dir(b"d/")
        .pax(&records)
        .file(b"f", b"")
        .pax(&records)
        .symlink(b"l", b"f")
        .end();
    let unpacked = place.unpack(&tar).unwrap();
    for name in ["d", "f", "l"] {
        for attribute in forged {
            assert_eq!(
                xattr(&place.root().join(name), attribute),
                None,
                "{name} {attribute}"
            );
        }
    }
    assert_eq!(
        xattr(&place.root().join("d"), "user.legal").as_deref(),
        Some(&b"kept"[..])
    );
    assert_eq!(
        xattr(&place.root().join("f"), "user.legal").as_deref(),
        Some(&b"kept"[..])
    );
    // Links have no user attributes (xattr(7)): one more than the forged ones is skipped there.
    assert_eq!(unpacked.skipped_xattrs, 3 * forged.len() as u64 + 1);
    let device = Tar::default().block(Block::new(b"etc/shadow", b'3', 0)).end();
    assert!(matches!(
        Place::new().unpack(&device),
        Err(ApplyError::ForgedWhiteout { .. })
    ));
    // A hard link to a whiteout would be one under another name.
    let linked = Tar::default().file(b".wh.x", b"").hardlink(b"y", b"x").end();
    assert!(matches!(
        Place::new().unpack(&linked),
        Err(ApplyError::HardLink { .. })
    ));
}

/// A program without its capability would fail later, and nobody would know why.
#[test]
fn privileged_row08_a_capability_that_cannot_be_set_is_an_error_by_its_entry() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    if !crate::canary::is_root() {
        println!("SKIP: needs root");
        return;
    }
    let v2 = [1, 0, 0, 2, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = |name: &str| {
        Tar::default()
            .pax(&[record(&format!("SCHILY.xattr.{name}"), &v2)])
            .file(b"program", b"")
            .end()
    };
    let unpack = |name: &str| Place::new().unpack(&tar(name));
    assert_eq!(unpack("security.capability").unwrap().skipped_xattrs, 0);
    let without = || {
        let mut sets = capabilities(None).unwrap();
        sets.effective
            .remove(CapabilitySet::SETFCAP | CapabilitySet::SYS_ADMIN);
        set_capabilities(None, sets).unwrap();
        let error = unpack("security.capability").unwrap_err().to_string();
        assert_eq!(error, "entry \"program\": set file capability");
        assert_eq!(
            unpack("security.other").unwrap().skipped_xattrs,
            1,
            "the twin: another one is left out"
        );
    };
    std::thread::scope(|scope| scope.spawn(without).join().unwrap());
}

#[test]
fn privileged_row08_devices_set_id_bits_and_capabilities_are_kept() {
    if !crate::canary::is_root() {
        println!("SKIP: needs root");
        return;
    }
    let place = Place::new();
    let v2 = [1, 0, 0, 2, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = Tar::default()
        .block(Block::new(b"sda", b'4', 0).device(8, 0).mode(0o666))
        .block(Block::new(b"mem", b'3', 0).device(1, 1))
        .block(Block::new(b"pipe", b'6', 0).mode(0o640).owner(7, 8).mtime(9))
        .pax(&[record("SCHILY.xattr.security.capability", &v2)])
        .block(Block::new(b"su", b'0', 2).mode(0o6755).owner(1000, 1000))
        .content(b"hi")
        .end();
    place.unpack(&tar).unwrap();
    let meta = |name: &str| std::fs::symlink_metadata(place.root().join(name)).unwrap();
    assert!(meta("sda").file_type().is_block_device());
    assert_eq!((meta("sda").rdev(), meta("sda").mode() & 0o7777), (0x800, 0o666));
    assert_eq!(meta("mem").rdev(), 0x101);
    let pipe = meta("pipe");
    assert!(pipe.file_type().is_fifo());
    assert_eq!(
        (pipe.mode() & 0o7777, pipe.uid(), pipe.gid(), pipe.mtime()),
        (0o640, 7, 8, 9)
    );
    assert_eq!((meta("su").mode() & 0o7777, meta("su").uid()), (0o6755, 1000));
    assert_eq!(
        xattr(&place.root().join("su"), "security.capability").unwrap(),
        v2
    );
}

#[test]
fn what_is_in_the_way_is_replaced_and_directories_merge() {
    let place = Place::new();
    let tar = Tar::default()
        .dir(b"d/")
        .file(b"d/kept", b"1")
        .block(Block::new(b"d/", b'5', 0).mode(0o711))
        .file(b"e/deep/er/f", b"")
        .file(b"e", b"file now")
        .file(b"g", b"")
        .dir(b"g/")
        .file(b"g/h", b"2")
        .end();
    place.unpack(&tar).unwrap();
    assert_eq!(read(&place.root().join("d/kept")), "1");
    assert_eq!(
        std::fs::metadata(place.root().join("d")).unwrap().mode() & 0o7777,
        0o711
    );
    assert_eq!(read(&place.root().join("e")), "file now");
    assert_eq!(read(&place.root().join("g/h")), "2");
}

#[test]
fn implied_parents_take_over_from_the_layers_below() {
    use rbuild_sys::RootFd;
    let (upper, lower) = (Place::new(), Place::new());
    lower
        .unpack(
            &Tar::default()
                .block(Block::new(b"tmp", b'5', 0).mode(0o1777).mtime(5))
                .end(),
        )
        .unwrap();
    let unpacked = upper
        .unpack(&Tar::default().file(b"tmp/x", b"").file(b"other/y", b"").end())
        .unwrap();
    assert_eq!(unpacked.implied, [Path::new("tmp"), Path::new("other")]);
    let mode = |name: &str| std::fs::metadata(upper.root().join(name)).unwrap().mode() & 0o7777;
    assert_eq!(mode("tmp"), 0o755);
    let open = |place: &Place| RootFd::from_fd(place.open_root());
    rbuild_layer::adopt_implied(&open(&upper), &unpacked.implied, &open(&lower)).unwrap();
    assert_eq!((mode("tmp"), mode("other")), (0o1777, 0o755));
    assert_eq!(std::fs::metadata(upper.root().join("tmp")).unwrap().mtime(), 5);
}
