//! Making and removing single things.

use std::os::unix::fs::MetadataExt as _;

use rbuild_fileops::{ActionError, CopyReport, apply};
use rbuild_graph::{ChownOpt, FileActionKind, MkDirAction, MkFileAction, RmAction, SymlinkAction};
use rbuild_layer::DevicePolicy;

use crate::support::{World, at};

fn act(w: &World, kind: &FileActionKind) -> Result<CopyReport, ActionError> {
    let root = w.root("dst");
    apply(kind, &root, None, &root, DevicePolicy::Make)
}

fn mkdir(path: &str) -> MkDirAction {
    MkDirAction {
        path: path.to_owned(),
        mode: 0o750,
        make_parents: true,
        owner: None,
        time: None,
    }
}

fn mkfile(path: &str, data: &str) -> MkFileAction {
    MkFileAction {
        path: path.to_owned(),
        mode: 0o640,
        data: data.into(),
        owner: None,
        time: None,
    }
}

fn rm(path: &str) -> RmAction {
    RmAction {
        path: path.to_owned(),
        allow_not_found: false,
        allow_wildcard: false,
    }
}

fn user(spec: &str) -> Option<ChownOpt> {
    Some(ChownOpt::parse(spec, Some(0)))
}

#[test]
fn privileged_item65_directories_are_made_with_owner_and_time_and_existing_ones_stay() {
    let w = World::new();
    w.file("dst/etc/passwd", "bob:x:1000:100::/:\n")
        .dir("dst/there")
        .chmod("dst/there", 0o700);
    let action = MkDirAction {
        owner: user("bob"),
        time: at(50),
        ..mkdir("/there/a/b")
    };
    act(&w, &FileActionKind::MkDir(action)).unwrap();
    for path in ["dst/there/a", "dst/there/a/b"] {
        assert_eq!(
            (w.owner(path), w.mode(path), w.stat(path).mtime()),
            ((1000, 100), 0o750, 50),
            "{path}"
        );
    }
    assert_eq!((w.owner("dst/there"), w.mode("dst/there")), ((0, 0), 0o700));
    act(
        &w,
        &FileActionKind::MkDir(MkDirAction {
            owner: user("7"),
            ..mkdir("/there/a")
        }),
    )
    .unwrap();
    assert_eq!(w.owner("dst/there/a"), (1000, 100));
    act(&w, &FileActionKind::MkDir(mkdir("/"))).unwrap();
}

#[test]
fn directories_without_parents() {
    let w = World::new();
    let single = |path: &str| {
        FileActionKind::MkDir(MkDirAction {
            make_parents: false,
            ..mkdir(path)
        })
    };
    assert!(act(&w, &single("/a/b")).is_err());
    act(&w, &single("/a")).unwrap();
    act(&w, &single("/a")).unwrap();
    act(&w, &single("/a/b")).unwrap();
    w.file("dst/f", "");
    act(&w, &single("/f")).unwrap();
    assert!(act(&w, &FileActionKind::MkDir(mkdir("/f"))).is_err());
    assert!(act(&w, &FileActionKind::MkDir(mkdir("/f/x"))).is_err());
}

#[test]
fn directories_are_made_through_links_inside_the_root() {
    let w = World::new();
    let canary = w.path("canary");
    w.link("dst/out", canary.to_str().unwrap())
        .dir("dst/real")
        .link("dst/in", "real");
    act(&w, &FileActionKind::MkDir(mkdir("/in/a"))).unwrap();
    act(&w, &FileActionKind::MkDir(mkdir("/out/a"))).unwrap();
    assert!(w.exists("dst/real/a"));
    assert!(!w.exists("canary/a"));
}

#[test]
fn privileged_item41_files_are_written_with_owner_mode_and_time() {
    let w = World::new();
    let action = MkFileAction {
        owner: user("3:4"),
        time: at(60),
        ..mkfile("/f", "text")
    };
    act(&w, &FileActionKind::MkFile(action)).unwrap();
    assert_eq!(
        (w.read("dst/f"), w.mode("dst/f"), w.owner("dst/f")),
        ("text".to_owned(), 0o640, (3, 4))
    );
    assert_eq!(w.stat("dst/f").mtime(), 60);
    act(&w, &FileActionKind::MkFile(mkfile("/f", "t"))).unwrap();
    assert_eq!(
        w.read("dst/f"),
        "t",
        "shorter text leaves nothing of the longer one"
    );
    assert!(act(&w, &FileActionKind::MkFile(mkfile("/no/f", ""))).is_err());
    assert!(matches!(
        act(&w, &FileActionKind::MkFile(mkfile("/", ""))),
        Err(ActionError::IsRoot(_))
    ));
    w.dir("dst/d")
        .link("dst/l", "made")
        .link("dst/out", w.path("canary/new").to_str().unwrap());
    assert!(matches!(
        act(&w, &FileActionKind::MkFile(mkfile("/d", ""))),
        Err(ActionError::NotRegular(_))
    ));
    act(&w, &FileActionKind::MkFile(mkfile("/l", "via"))).unwrap();
    assert_eq!(w.read("dst/made"), "via");
    act(&w, &FileActionKind::MkFile(mkfile("/out", "x"))).ok();
    assert!(!w.exists("canary/new"));
}

/// Something that is no file at `dst/p`, and what comes of writing a file there.
fn written_over(kind: rustix::fs::FileType, device: u64) -> Result<(), ActionError> {
    let w = World::new();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, w.path("dst/p"), kind, mode, device).unwrap();
    act(&w, &FileActionKind::MkFile(mkfile("/p", "x"))).map(drop)
}

#[test]
fn a_fifo_in_the_way_of_a_file_does_not_block() {
    let done = written_over(rustix::fs::FileType::Fifo, 0);
    assert!(matches!(done, Err(ActionError::NotRegular(_))), "{done:?}");
}

#[test]
fn privileged_a_device_in_the_way_of_a_file_is_not_opened() {
    // Numbers for experiments, of no driver: what opens it is told that there is no such device.
    let device = rustix::fs::makedev(240, 0);
    let done = written_over(rustix::fs::FileType::CharacterDevice, device);
    assert!(matches!(done, Err(ActionError::NotRegular(_))), "{done:?}");
}

#[test]
fn privileged_links_are_made_with_owner_and_time() {
    let w = World::new();
    let link = |path: &str| {
        FileActionKind::Symlink(SymlinkAction {
            target: "../any/text".to_owned(),
            path: path.to_owned(),
            owner: user("8"),
            time: at(70),
        })
    };
    act(&w, &link("/l")).unwrap();
    assert_eq!(
        std::fs::read_link(w.path("dst/l")).unwrap().to_str(),
        Some("../any/text")
    );
    assert_eq!((w.owner("dst/l"), w.stat("dst/l").mtime()), ((8, 8), 70));
    w.file("dst/f", "");
    assert!(act(&w, &link("/f")).is_err(), "nothing is replaced");
}

#[test]
fn removing() {
    let w = World::new();
    w.file("dst/d/a", "")
        .file("dst/d/b/c", "")
        .file("dst/x1", "")
        .file("dst/x2", "")
        .file("dst/keep", "");
    w.link("dst/l", w.path("canary").to_str().unwrap())
        .link("dst/d/b/out", "/keep");
    act(&w, &FileActionKind::Rm(rm("/l"))).unwrap();
    act(&w, &FileActionKind::Rm(rm("d"))).unwrap();
    act(
        &w,
        &FileActionKind::Rm(RmAction {
            allow_wildcard: true,
            ..rm("/x*")
        }),
    )
    .unwrap();
    assert_eq!(w.names(), ["keep"]);
    assert!(w.exists("canary/secret"));
    assert!(matches!(
        act(&w, &FileActionKind::Rm(rm("/gone"))),
        Err(ActionError::NotFound(_))
    ));
    assert!(matches!(
        act(&w, &FileActionKind::Rm(rm("/no/gone"))),
        Err(ActionError::NotFound(_))
    ));
    let lax = |path: &str| {
        FileActionKind::Rm(RmAction {
            allow_not_found: true,
            allow_wildcard: true,
            ..rm(path)
        })
    };
    for path in ["/gone", "/no/gone", "/gone*", "/no/gone*", "/keep/x"] {
        act(&w, &lax(path)).unwrap();
    }
    assert!(matches!(act(&w, &lax("/")), Err(ActionError::IsRoot(_))));
    assert_eq!(w.names(), ["keep"]);
}

#[test]
fn removing_behind_a_link_stays_inside() {
    let w = World::new();
    w.link("dst/out", w.path("canary").to_str().unwrap())
        .file("dst/real/f", "")
        .link("dst/in", "real");
    assert!(matches!(
        act(&w, &FileActionKind::Rm(rm("/out/secret"))),
        Err(ActionError::NotFound(_))
    ));
    act(&w, &FileActionKind::Rm(rm("/in/f"))).unwrap();
    assert!(w.exists("canary/secret") && !w.exists("dst/real/f"));
}
