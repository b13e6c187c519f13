//! The ways to show layers beside each other: the same work on each makes the same layer.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::{Bench, USUAL, path_of, read};
use crate::{Means, Tree};

/// The ways of this machine.
fn benches() -> Vec<(Means, Bench)> {
    let all = Means::ALL.map(|means| {
        let mut bench = Bench::new();
        bench.snapshotter = bench.snapshotter.clone().with_means(means);
        (means, bench)
    });
    let works = |(means, bench): &(Means, Bench)| {
        let tried = means.probe(bench.lease.dir(), bench.snapshotter.form());
        // Not on every machine.
        tried.is_ok() || (*means != Means::FuseOverlayfs && panic!("{means}: {tried:?}"))
    };
    all.into_iter().filter(works).collect()
}

fn first(root: &Path) {
    for dir in ["etc", "hidden", "left"] {
        std::fs::create_dir(root.join(dir)).unwrap();
    }
    for file in ["etc/a", "etc/b", "hidden/x", "left/y", "gone"] {
        std::fs::write(root.join(file), file).unwrap();
    }
    std::os::unix::fs::chown(root.join("etc/b"), Some(5), Some(6)).unwrap();
}

fn second(root: &Path) {
    std::fs::remove_file(root.join("gone")).unwrap();
    std::fs::remove_dir_all(root.join("hidden")).unwrap();
    std::fs::create_dir(root.join("hidden")).unwrap();
    std::fs::write(root.join("hidden/new"), "new").unwrap();
    std::fs::write(root.join("etc/a"), "changed").unwrap();
    std::fs::set_permissions(root.join("etc/b"), std::fs::Permissions::from_mode(0o4711)).unwrap();
}

#[test]
fn privileged_the_same_work_makes_the_same_layer_whatever_shows_it() {
    let mut made = Vec::new();
    for (means, bench) in benches() {
        let base = bench.step(&[], first);
        let next = bench.step(std::slice::from_ref(&base), second);
        let layers = [base.clone(), next.clone()];
        let view = bench.snapshotter.view(&bench.lease, &layers).unwrap();
        assert_eq!(read(view.root(), "etc/a").as_deref(), Some("changed"), "{means}");
        assert_eq!(read(view.root(), "gone"), None, "{means}");
        assert_eq!(read(view.root(), "hidden/x"), None, "{means}");
        assert_eq!(read(view.root(), "left/y").as_deref(), Some("left/y"), "{means}");
        let options = crate::PackLayerOptions {
            newest_mtime: Some(1_000_000_000),
            ..USUAL
        };
        let pack = |below: &[_], id| {
            bench
                .snapshotter
                .pack_layer(&bench.lease, below, id, &options)
                .unwrap()
                .diff_id
        };
        made.push((means, pack(&[], &base), pack(std::slice::from_ref(&base), &next)));
    }
    for (means, base, next) in &made {
        assert_eq!(
            (base, next),
            (&made[0].1, &made[0].2),
            "{means} and {}",
            made[0].0
        );
    }
    assert!(made.len() >= 2);
}

#[test]
fn privileged_a_step_that_changes_nothing_makes_the_empty_layer() {
    for (means, bench) in benches() {
        let base = bench.step(&[], first);
        let mut workspace = bench
            .snapshotter
            .workspace(&bench.lease, std::slice::from_ref(&base))
            .unwrap();
        let root = workspace.mount().unwrap();
        assert_eq!(read(&root, "etc/a").as_deref(), Some("etc/a"), "{means}");
        drop(root);
        assert!(workspace.commit().unwrap().empty, "{means}");
    }
}

#[test]
fn privileged_what_is_written_to_a_stack_that_is_thrown_away_reaches_no_layer() {
    for (means, bench) in benches() {
        let base = bench.step(&[], first);
        let lowers = bench
            .snapshotter
            .lowers(&bench.lease, std::slice::from_ref(&base))
            .unwrap();
        let layer = lowers[0].clone();
        let before = std::fs::metadata(layer.join("etc/a")).unwrap();
        let tree = bench.snapshotter.discarded(&bench.lease, lowers).unwrap();
        let root = match &tree {
            Tree::Overlay(spec) => rbuild_sys::RootFd::from_fd(spec.mount().unwrap()),
            Tree::Directory(dir) => rbuild_sys::RootFd::open(dir).unwrap(),
        };
        std::fs::write(path_of(&root).join("etc/a"), "mine").unwrap();
        let after = std::fs::metadata(layer.join("etc/a")).unwrap();
        assert_eq!(
            std::fs::read_to_string(layer.join("etc/a")).unwrap(),
            "etc/a",
            "{means}"
        );
        assert_eq!(
            (before.ino(), before.mtime_nsec()),
            (after.ino(), after.mtime_nsec()),
            "{means}"
        );
    }
}

#[test]
fn privileged_a_layer_that_is_shown_for_a_while_is_no_change() {
    for (means, bench) in benches() {
        let base = bench.step(&[], first);
        let above = bench.lease.new_dir("above").unwrap();
        std::fs::write(above.join("shown"), "for a while").unwrap();
        let mut workspace = bench
            .snapshotter
            .workspace(&bench.lease, std::slice::from_ref(&base))
            .unwrap();
        let root = match workspace.tree(Some(&above)).unwrap() {
            Tree::Overlay(spec) => rbuild_sys::RootFd::from_fd(spec.mount().unwrap()),
            Tree::Directory(dir) => rbuild_sys::RootFd::open(&dir).unwrap(),
        };
        assert_eq!(read(&root, "shown").as_deref(), Some("for a while"), "{means}");
        std::fs::write(path_of(&root).join("own"), "").unwrap();
        drop(root);
        let layer = workspace.commit().unwrap().id;
        let dirs = bench.snapshotter.lowers(&bench.lease, &[layer]).unwrap();
        let names: Vec<_> = std::fs::read_dir(&dirs[0])
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["own"], "{means}");
    }
}
