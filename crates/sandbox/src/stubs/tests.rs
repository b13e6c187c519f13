//! Mountpoint stubs on a plain directory; the same on a real overlay is in tests/sandbox.rs.

use super::*;
use std::os::unix::fs::{MetadataExt as _, symlink};

struct Tree {
    dir: tempfile::TempDir,
    root: RootFd,
}

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["root", "root/w", "canary", "canary/emptyd"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("canary/empty"), "").unwrap();
        let root = RootFd::open(&dir.path().join("root")).unwrap();
        Self { dir, root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn stubs(&self, wanted: &[(&str, StubKind)]) -> Stubs {
        let mut stubs = Stubs::default();
        for (path, kind) in wanted {
            stubs.ensure(&self.root, Path::new(path), *kind).unwrap();
        }
        stubs
    }

    fn canary_is_whole(&self) {
        assert!(self.path("canary/empty").exists() && self.path("canary/emptyd").exists());
    }
}

#[test]
fn row21_empty_stubs_and_their_parents_go_and_times_stay() {
    let tree = Tree::new();
    let old = filetime(&tree.path("root/w"), 1_000_000_000);
    let stubs = tree.stubs(&[("/w/n1/n2/n3", StubKind::Directory), ("/w/f", StubKind::File)]);
    assert!(tree.path("root/w/n1/n2/n3").is_dir() && tree.path("root/w/f").is_file());
    assert_ne!(tree.path("root/w").metadata().unwrap().mtime(), old);
    stubs.remove();
    assert_eq!(std::fs::read_dir(tree.path("root/w")).unwrap().count(), 0);
    assert_eq!(
        tree.path("root/w").metadata().unwrap().mtime(),
        old,
        "the parent's own time is back"
    );
}

#[test]
fn row21_a_parent_turned_into_a_link_deletes_nothing_outside() {
    let tree = Tree::new();
    let stubs = tree.stubs(&[("/w/empty", StubKind::File), ("/w/emptyd", StubKind::Directory)]);
    std::fs::rename(tree.path("root/w"), tree.path("root/w2")).unwrap();
    symlink(tree.path("canary"), tree.path("root/w")).unwrap();
    stubs.remove();
    tree.canary_is_whole();
    assert_eq!(
        std::fs::read_dir(tree.path("root/w2")).unwrap().count(),
        0,
        "the stubs are gone where they went"
    );
}

#[test]
fn row21_filled_and_replaced_stubs_are_kept() {
    let tree = Tree::new();
    let stubs = tree.stubs(&[
        ("/w/filled", StubKind::File),
        ("/w/dir", StubKind::Directory),
        ("/w/replaced", StubKind::File),
        ("/w/linked", StubKind::File),
    ]);
    std::fs::write(tree.path("root/w/filled"), "data").unwrap();
    std::fs::write(tree.path("root/w/dir/x"), "").unwrap();
    std::fs::remove_file(tree.path("root/w/replaced")).unwrap();
    std::fs::write(tree.path("root/w/replaced"), "").unwrap();
    std::fs::remove_file(tree.path("root/w/linked")).unwrap();
    symlink(tree.path("canary/empty"), tree.path("root/w/linked")).unwrap();
    let own = filetime(&tree.path("root/w"), 1_200_000_000);
    stubs.remove();
    for kept in ["filled", "dir/x", "replaced"] {
        assert!(tree.path("root/w").join(kept).exists(), "{kept}");
    }
    assert!(tree.path("root/w/linked").is_symlink());
    assert_eq!(
        tree.path("root/w").metadata().unwrap().mtime(),
        own,
        "the step's own time is kept"
    );
    tree.canary_is_whole();
}

#[test]
fn row20_links_lead_inside_the_root_and_survive() {
    let tree = Tree::new();
    symlink(tree.path("canary"), tree.path("root/dev")).unwrap();
    symlink("../../../canary/r", tree.path("root/w/resolv.conf")).unwrap();
    let stubs = tree.stubs(&[
        ("/dev/x", StubKind::Directory),
        ("/w/resolv.conf", StubKind::File),
    ]);
    let inside = tree
        .path("root")
        .join(tree.path("canary/x").strip_prefix("/").unwrap());
    assert!(inside.is_dir(), "made inside the root");
    assert!(tree.path("root/canary/r").is_file());
    assert!(!tree.path("canary/x").exists() && !tree.path("canary/r").exists());
    stubs.remove();
    assert!(tree.path("root/dev").is_symlink() && tree.path("root/w/resolv.conf").is_symlink());
    assert!(!inside.exists() && !tree.path("root/canary").exists());
}

#[test]
fn existing_targets_are_left_alone_and_loops_end() {
    let tree = Tree::new();
    symlink("b", tree.path("root/a")).unwrap();
    symlink("a", tree.path("root/b")).unwrap();
    std::fs::write(tree.path("root/w/f"), "").unwrap();
    let stubs = tree.stubs(&[
        ("/w/f", StubKind::File),
        ("/w", StubKind::Directory),
        ("/", StubKind::Directory),
    ]);
    assert!(stubs.made.is_empty());
    let mut stubs = Stubs::default();
    for path in ["/a", "/a/x", "/w/f/x"] {
        assert!(
            stubs.ensure(&tree.root, Path::new(path), StubKind::File).is_err(),
            "{path}"
        );
    }
    stubs.remove();
    assert!(tree.path("root/w/f").exists());
}

fn filetime(path: &Path, seconds: i64) -> i64 {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::empty()).unwrap();
    seconds
}
