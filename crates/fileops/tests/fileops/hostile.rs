//! Trees made to break a copy: exchanged names, depth, odd names, few descriptors.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rbuild_fileops::{ActionError, apply};
use rbuild_graph::{CopyAction, FileActionKind, MkDirAction, RmAction};
use rbuild_layer::DevicePolicy;
use rbuild_testkit::racing::racing;
use rustix::fs::{CWD, Mode, OFlags};

use crate::support::{World, cp, listing, run, try_hash};

const ROUNDS: usize = 40;

/// The same of names in `w`.
fn racing_in(w: &World, a: &str, b: &str, work: impl FnOnce()) -> u64 {
    racing(&w.path(a), &w.path(b), work)
}

/// What was tried while names were exchanged, by its name.
#[derive(Default)]
struct Tried(std::collections::BTreeMap<&'static str, (u32, u32)>);

impl Tried {
    fn note<T, E>(&mut self, what: &'static str, result: Result<T, E>) {
        let counts = self.0.entry(what).or_default();
        match result {
            Ok(_) => counts.0 += 1,
            Err(_) => counts.1 += 1,
        }
    }

    /// There was a race, and each thing that was tried was done at least once: what always fails shows nothing.
    #[track_caller]
    fn assert_raced(&self, exchanges: u64) {
        assert!(exchanges >= 1000, "only {exchanges} exchanges");
        for (what, (done, failed)) in &self.0 {
            assert!(*done > 0, "{what} never worked, {failed} times");
        }
    }
}

fn canary(w: &World) -> Vec<String> {
    listing(&w.path("canary"))
        .into_iter()
        .map(|(name, what)| format!("{name} {what}"))
        .collect()
}

#[test]
fn row09_a_destination_exchanged_for_a_link_is_never_left() {
    let w = World::new();
    for i in 0..100 {
        w.file(&format!("src/d/sub/f{i}"), "payload");
    }
    w.dir("dst/d/sub")
        .link("dst/link", w.path("canary").to_str().unwrap());
    w.dir("dst/e").link("dst/e/sub", "../../canary").dir("dst/outer");
    let before = canary(&w);
    let mut tried = Tried::default();
    let exchanges = racing_in(&w, "dst/d", "dst/link", || {
        for _ in 0..ROUNDS {
            tried.note("a tree onto the name", w.copy(&cp("d", "/d")));
            tried.note("a tree below the name", w.copy(&cp("d/sub", "/d/sub")));
            let replacing = CopyAction {
                always_replace_existing: true,
                ..cp("d", "/d")
            };
            tried.note("a tree in place of what stands", w.copy(&replacing));
        }
    });
    tried.assert_raced(exchanges);
    w.dir("dst/x/sub")
        .link("dst/y", w.path("canary").to_str().unwrap());
    let mut tried = Tried::default();
    let exchanges = racing_in(&w, "dst/x/sub", "dst/y", || {
        for _ in 0..ROUNDS {
            tried.note("a tree whose directory is exchanged", w.copy(&cp("d", "/x")));
            tried.note("new directories", w.copy(&cp("d", "/x/sub/new/deep")));
        }
    });
    tried.assert_raced(exchanges);
    assert_eq!(canary(&w), before);
}

#[test]
fn row09_the_legal_twin_without_a_race_works_through_the_same_names() {
    let w = World::new();
    w.file("src/d/sub/f", "payload")
        .dir("dst/d/sub")
        .link("dst/link", "/d");
    w.copy(&cp("d", "/link")).unwrap();
    assert_eq!(w.read("dst/d/sub/f"), "payload");
}

#[test]
fn row09_a_source_exchanged_for_a_link_gives_no_foreign_bytes() {
    let w = World::new();
    for i in 0..50 {
        w.file(&format!("src/t/d/secret{i}"), "inside")
            .file(&format!("canary/secret{i}"), "outside");
    }
    w.file("src/t/file", "inside").file("src/t/d/secret", "inside");
    w.link("src/t/link", w.path("canary").to_str().unwrap());
    let honest = |w: &World| {
        for (name, what) in w.dst() {
            assert!(!what.contains("outside"), "{name}: {what}");
        }
    };
    let mut tried = Tried::default();
    let exchanges = racing_in(&w, "src/t/d", "src/t/link", || {
        for _ in 0..ROUNDS {
            w.clear_dst();
            tried.note("a tree of a stage", w.copy(&cp("t", "/out")));
            tried.note("the name itself", w.copy(&cp("t/d", "/d")));
            tried.note("a tree of a context", w.copy_context("", &cp("t", "/ctx")));
            tried.note(
                "a file below the name",
                w.copy_context("", &cp("t/d/secret", "/one")),
            );
            tried.note("a hash", try_hash(&w.snapshot(), &cp("t", "/")));
            honest(&w);
        }
    });
    tried.assert_raced(exchanges);
    w.link("src/t/l2", w.path("canary/secret").to_str().unwrap());
    let mut tried = Tried::default();
    let exchanges = racing_in(&w, "src/t/file", "src/t/l2", || {
        for _ in 0..ROUNDS * 4 {
            w.clear_dst();
            tried.note("a tree with the file", w.copy_context("", &cp("t", "/ctx")));
            tried.note("the file", w.copy_context("", &cp("t/file", "/one")));
            honest(&w);
        }
    });
    tried.assert_raced(exchanges);
}

#[test]
fn row09_removing_and_making_stay_inside_while_names_are_exchanged() {
    let w = World::new();
    w.dir("dst/a").link("dst/b", w.path("canary").to_str().unwrap());
    let before = canary(&w);
    let root = w.root("dst");
    let act = |kind: &FileActionKind| apply(kind, &root, None, &root, DevicePolicy::Make);
    let mut tried = Tried::default();
    let exchanges = racing_in(&w, "dst/a", "dst/b", || {
        for i in 0..ROUNDS * 20 {
            let path = format!("/a/new{i}/deep");
            let mkdir = MkDirAction {
                path,
                mode: 0o755,
                make_parents: true,
                owner: None,
                time: None,
            };
            tried.note("directories", act(&FileActionKind::MkDir(mkdir)));
            let rm = |path: &str| RmAction {
                path: path.to_owned(),
                allow_not_found: true,
                allow_wildcard: true,
            };
            tried.note("a removal", act(&FileActionKind::Rm(rm("/a/secret"))));
            tried.note("a removal by pattern", act(&FileActionKind::Rm(rm("/a/*"))));
        }
    });
    tried.assert_raced(exchanges);
    assert_eq!(canary(&w), before);
}

/// Directories one in the other, deeper than any path can say, with a file at the bottom.
fn deep(at: &Path, levels: usize, name: &OsStr) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let mut dir = rustix::fs::open(at, flags, Mode::empty()).unwrap();
    for _ in 0..levels {
        rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)).unwrap();
        dir = rustix::fs::openat(&dir, name, flags, Mode::empty()).unwrap();
    }
    let create = OFlags::WRONLY | OFlags::CREATE;
    let bottom = rustix::fs::openat(&dir, "bottom", create, Mode::from_raw_mode(0o644)).unwrap();
    rustix::io::write(&bottom, b"x").unwrap();
    dir
}

fn depth(at: &Path) -> usize {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let mut dir = rustix::fs::open(at, flags, Mode::empty()).unwrap();
    let mut levels = 0;
    loop {
        match rustix::fs::openat(&dir, "n", flags, Mode::empty()) {
            Ok(below) => dir = below,
            Err(_) => break,
        }
        levels += 1;
    }
    assert!(rustix::fs::statat(&dir, "bottom", rustix::fs::AtFlags::empty()).is_ok());
    levels
}

fn remove(w: &World, root: &str, path: &str) -> Result<(), ActionError> {
    let root = w.root(root);
    let rm = RmAction {
        path: path.to_owned(),
        allow_not_found: false,
        allow_wildcard: false,
    };
    apply(&FileActionKind::Rm(rm), &root, None, &root, DevicePolicy::Make).map(drop)
}

/// Runs with few descriptors and a small stack, as the row asks. The limit holds for the process, which nextest
/// gives each test for itself.
fn confined(work: impl FnOnce() + Send) {
    let old = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let few = rustix::process::Rlimit {
        current: Some(256),
        maximum: old.maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(1 << 20)
            .spawn_scoped(scope, work)
            .unwrap();
    });
    rustix::process::setrlimit(rustix::process::Resource::Nofile, old).unwrap();
}

#[test]
fn row13_twenty_thousand_levels_are_copied_hashed_and_removed() {
    const LEVELS: usize = 20_000;
    let w = World::new();
    w.dir("src/t");
    drop(deep(&w.path("src/t"), LEVELS, OsStr::new("n")));
    confined(|| {
        let report = w.copy(&cp("t", "/out")).unwrap();
        assert_eq!((report.files, report.dirs), (1, LEVELS as u64 + 1));
        let snapshot = w.snapshot();
        let one = try_hash(&snapshot, &cp("t", "/")).unwrap();
        let dst = rbuild_fileops::SourceTree::Snapshot(w.root("dst"));
        let two = try_hash(&dst, &cp("out", "/")).unwrap();
        assert_eq!(one.digest, two.digest);
        assert_eq!(depth(&w.path("dst/out")), LEVELS);
        remove(&w, "dst", "out").unwrap();
        remove(&w, "src", "t").unwrap();
    });
    assert!(w.names().is_empty() && !w.exists("src/t"));
}

#[test]
fn row13_parents_that_wait_for_a_match_far_below() {
    let w = World::new();
    w.dir("src/t");
    drop(deep(&w.path("src/t"), 300, OsStr::new("n")));
    confined(|| {
        let action = CopyAction {
            include_patterns: vec!["**/bottom".to_owned()],
            ..cp("t", "/out")
        };
        let report = w.copy(&action).unwrap();
        assert_eq!((report.files, report.dirs), (1, 301));
        assert_eq!(depth(&w.path("dst/out")), 300);
    });
}

#[test]
fn row13_patterns_on_two_thousand_levels() {
    let w = World::new();
    w.dir("src/t");
    drop(deep(&w.path("src/t"), 2000, OsStr::new("n")));
    confined(|| {
        assert_eq!(w.copy_context("x\n", &cp("t", "/ctx")).unwrap().dirs, 2001);
        let include_patterns = vec!["n".to_owned()];
        let filtered = CopyAction {
            include_patterns,
            ..cp("t", "/some")
        };
        assert_eq!(w.copy(&filtered).unwrap().files, 1);
    });
    assert_eq!(depth(&w.path("dst/some")), 2000);
}

#[test]
fn row13_names_of_255_bytes_at_every_level() {
    let w = World::new();
    w.dir("src/t");
    let name = "n".repeat(255);
    drop(deep(&w.path("src/t"), 1500, OsStr::new(&name)));
    confined(|| {
        assert_eq!(w.copy(&cp("t", "/out")).unwrap().dirs, 1501);
        try_hash(&w.snapshot(), &cp("t", "/")).unwrap();
        remove(&w, "dst", "out").unwrap();
        remove(&w, "src", "t").unwrap();
    });
}

#[test]
fn row13_odd_names_and_closed_directories() {
    let w = World::new();
    let odd: [&[u8]; 4] = [b"\xff\xfe", b"new\nline", b"*?[", b" "];
    w.dir("src/d");
    for name in odd {
        std::fs::write(w.path("src/d").join(OsStr::from_bytes(name)), name).unwrap();
    }
    w.file("src/d/closed/f", "x").chmod("src/d/closed", 0);
    for ignore in [None, Some("nothing\n")] {
        w.clear_dst();
        match ignore {
            None => w.copy(&cp("d", "/")).unwrap(),
            Some(rules) => w.copy_context(rules, &cp("d", "/")).unwrap(),
        };
        for name in odd {
            assert_eq!(
                std::fs::read(w.path("dst").join(OsStr::from_bytes(name))).unwrap(),
                name
            );
        }
        assert_eq!(
            (w.mode("dst/closed"), w.read("dst/closed/f")),
            (0, "x".to_owned())
        );
    }
    assert_ne!(w.hash(&cp("d", "/")), {
        std::fs::rename(
            w.path("src/d").join(OsStr::from_bytes(b"\xff\xfe")),
            w.path("src/d/\u{fffd}"),
        )
        .unwrap();
        w.hash(&cp("d", "/"))
    });
    w.clear_dst();
    w.copy(&cp("d/[^a]*", "/w/")).unwrap();
    assert_eq!(
        std::fs::read_dir(w.path("dst/w")).unwrap().count(),
        5,
        "the closed directory's file among them"
    );
}

#[test]
fn row13_ten_thousand_directories_with_few_descriptors() {
    let w = World::new();
    for i in 0..10_000 {
        w.dir(&format!("src/d/{}/{i}", i % 100));
        if i % 10 == 0 {
            w.file(&format!("src/d/{}/{i}/f", i % 100), "x");
        }
    }
    confined(|| {
        let report = w.copy(&cp("d", "/")).unwrap();
        assert_eq!((report.files, report.dirs), (1000, 10_101));
        try_hash(&w.snapshot(), &cp("d", "/")).unwrap();
    });
}

#[test]
fn row40_a_file_that_grows_while_it_is_read_ends_somewhere() {
    use std::io::Write as _;
    let w = World::new();
    w.file("src/log", "start");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = std::fs::OpenOptions::new()
                .append(true)
                .open(w.path("src/log"))
                .unwrap();
            while !stop.load(Ordering::Relaxed) {
                log.write_all(&[b'x'; 4096]).unwrap();
                if log.metadata().unwrap().len() > 64 << 20 {
                    log.set_len(5).unwrap();
                }
            }
        });
        for _ in 0..20 {
            run(&w.context(""), &w.root("dst"), &cp("log", "/"), None).unwrap();
            try_hash(&w.context(""), &cp("log", "/")).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(w.read("dst/log").starts_with("start"));
}

/// Names below `dir` that somebody opened since `watch` began, and the directory itself as an empty name.
fn opened(watch: &OwnedFd) -> Vec<String> {
    use rustix::fs::inotify::Reader;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 8192];
    let mut reader = Reader::new(watch, &mut buffer);
    let mut names = Vec::new();
    while let Ok(event) = reader.next() {
        let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
        names.push(name.unwrap_or_default());
    }
    names.sort();
    names.dedup();
    names
}

#[test]
fn row40_files_that_are_ignored_are_not_opened() {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    let w = World::new();
    w.file("src/ok", "")
        .file("src/secret.key", "c4n4ry")
        .file("src/closed/f", "");
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, w.path("src/pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let watch = init(CreateFlags::NONBLOCK).unwrap();
    for dir in ["src", "src/closed"] {
        add_watch(&watch, w.path(dir), WatchFlags::OPEN).unwrap();
    }
    w.copy_context("closed\npipe\n*.key\n", &cp(".", "/")).unwrap();
    assert_eq!(w.names(), ["ok"]);
    let seen = opened(&watch);
    assert!(seen.contains(&"ok".to_owned()), "the twin is read: {seen:?}");
    assert!(
        ["f", "pipe", "secret.key"]
            .iter()
            .all(|name| !seen.contains(&(*name).to_owned())),
        "{seen:?}"
    );
}
