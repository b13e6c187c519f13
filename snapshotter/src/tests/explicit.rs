//! Layers that mean the same wherever they are stacked: what they hide, what they leave out, and that the stack of
//! the lower file system and the difference is the upper one.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use super::*;

impl Bench {
    fn dir(&self, id: &LayerId) -> PathBuf {
        let dir = self.store.layer_dir(self.snapshotter.form_name(), id).unwrap();
        dir.unwrap()
    }

    /// All that a stack shows: paths, kinds and contents, and which names are one file.
    fn shown(&self, layers: &[LayerId]) -> BTreeMap<String, String> {
        let view = self.snapshotter.view(&self.lease, layers).unwrap();
        let mut found = BTreeMap::new();
        let mut inodes: BTreeMap<u64, String> = BTreeMap::new();
        let mut left = vec![PathBuf::new()];
        let root = path_of(view.root());
        while let Some(dir) = left.pop() {
            let mut names: Vec<_> = std::fs::read_dir(root.join(&dir))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            for name in names {
                let path = dir.join(name);
                let shown = path.to_str().unwrap().to_owned();
                let stat = std::fs::symlink_metadata(root.join(&path)).unwrap();
                let mut text = format!("{:o} {}:{}", stat.mode(), stat.uid(), stat.gid());
                if stat.is_dir() {
                    left.push(path);
                } else if stat.is_symlink() {
                    let target = std::fs::read_link(root.join(&path)).unwrap();
                    text = format!("{text} -> {}", target.display());
                } else {
                    let first = inodes.entry(stat.ino()).or_insert_with(|| shown.clone());
                    let content = std::fs::read_to_string(root.join(&path)).unwrap();
                    text = format!("{text} {content:?} is {first}");
                }
                found.insert(shown, text);
            }
        }
        found
    }

    /// What the archive of a layer holds, in its order: names, with what a hard link leads to.
    fn archived(&self, below: &[LayerId], id: &LayerId) -> Vec<String> {
        let options = PackLayerOptions {
            format: LayerFormat::Uncompressed,
            ..USUAL
        };
        let blob = self
            .snapshotter
            .pack_layer(&self.lease, below, id, &options)
            .unwrap();
        let blob = self.store.open_blob(&blob.digest).unwrap().unwrap();
        let mut tar = rbuild_layer::TarReader::new(blob, rbuild_layer::Limits::default());
        let mut found = Vec::new();
        while let Some(entry) = tar.next_entry().unwrap() {
            let name = String::from_utf8(entry.path.clone()).unwrap();
            found.push(match &entry.kind {
                rbuild_layer::EntryKind::HardLink { target } => {
                    format!("{name} is {}", String::from_utf8(target.clone()).unwrap())
                }
                _ => name,
            });
        }
        found
    }
}

fn age(path: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let file = std::fs::File::open(path).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn privileged_a_difference_makes_the_one_file_system_the_other() {
    let bench = Bench::new();
    let lower = bench.step(&[], |root| {
        for dir in ["gone/deep", "kept/inner", "file-then-dir-not", "dir-then-link"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        for file in [
            "gone/deep/a",
            "kept/same",
            "kept/inner/old",
            "file-then-dir",
            "dir-then-link/x",
        ] {
            std::fs::write(root.join(file), "lower").unwrap();
        }
        std::fs::write(root.join("linked-1"), "one file").unwrap();
        std::fs::hard_link(root.join("linked-1"), root.join("linked-2")).unwrap();
        age(&root.join("kept/same"));
    });
    let first = bench.step(&[], |root| {
        std::fs::create_dir_all(root.join("kept/inner")).unwrap();
        std::fs::create_dir_all(root.join("file-then-dir/inside")).unwrap();
        std::fs::write(root.join("kept/same"), "lower").unwrap();
        age(&root.join("kept/same"));
        std::fs::write(root.join("kept/inner/early"), "gone in the next layer").unwrap();
        symlink("kept", root.join("dir-then-link")).unwrap();
        std::fs::write(root.join("linked-1"), "now it is another").unwrap();
        std::fs::hard_link(root.join("linked-1"), root.join("linked-2")).unwrap();
        std::fs::hard_link(root.join("linked-1"), root.join("kept/linked-3")).unwrap();
    });
    let second = bench.step(std::slice::from_ref(&first), |root| {
        std::fs::remove_file(root.join("kept/inner/early")).unwrap();
        std::fs::write(root.join("kept/inner/new"), "new").unwrap();
        std::fs::set_permissions(root.join("kept"), std::fs::Permissions::from_mode(0o700)).unwrap();
    });
    let (lower, upper) = ([lower], [first, second]);
    let difference = bench
        .snapshotter
        .difference(&bench.lease, &lower, &upper)
        .unwrap();
    let stack = [lower[0].clone(), difference.clone()];
    assert_eq!(bench.shown(&stack), bench.shown(&upper));
    assert_eq!(
        bench.archived(&lower, &difference),
        [
            "dir-then-link",
            "file-then-dir/",
            "file-then-dir/inside/",
            ".wh.file-then-dir-not",
            ".wh.gone",
            "kept/",
            "kept/inner/",
            "kept/inner/new",
            "kept/inner/.wh.old",
            "kept/linked-3",
            "linked-1 is kept/linked-3",
            "linked-2 is kept/linked-3",
        ],
        "as it stands in the order of names; what is the same is left out"
    );
    let again = bench.snapshotter.difference(&bench.lease, &lower, &upper);
    assert_eq!(again.unwrap(), difference, "made once");
    let content = bench.dir(&difference).join("kept/inner/new");
    let original = bench.dir(&upper[1]).join("kept/inner/new");
    assert_eq!(
        std::fs::metadata(content).unwrap().ino(),
        std::fs::metadata(original).unwrap().ino(),
        "linked, not copied"
    );
}

#[test]
fn privileged_names_that_did_not_change_come_last_as_those_of_files_that_did() {
    let bench = Bench::new();
    let furnish = |root: &Path, names: &[&str]| {
        std::fs::write(root.join(names[0]), "linked").unwrap();
        age(&root.join(names[0]));
        for name in &names[1..] {
            std::fs::hard_link(root.join(names[0]), root.join(name)).unwrap();
        }
    };
    let lower = [bench.step(&[], |root| furnish(root, &["a", "b", "z"]))];
    let upper = [bench.step(&[], |root| furnish(root, &["a", "b", "new", "z"]))];
    let difference = bench.snapshotter.difference(&bench.lease, &lower, &upper);
    let archive = ["new", "a is new", "b is new", "z is new"];
    assert_eq!(bench.archived(&lower, &difference.unwrap()), archive);
    let same = bench.step(&[], |root| furnish(root, &["a", "b", "z"]));
    let same = bench.snapshotter.difference(&bench.lease, &lower, &[same]);
    assert_eq!(
        bench.archived(&lower, &same.unwrap()),
        [""; 0],
        "the twin: no name of it changed"
    );
}

#[test]
fn privileged_what_is_in_nothing_is_all_gone_and_all_new() {
    let bench = Bench::new();
    let some = bench.step(&[], |root| {
        std::fs::create_dir(root.join("dir")).unwrap();
        std::fs::write(root.join("dir/file"), "x").unwrap();
        std::fs::write(root.join("file"), "x").unwrap();
    });
    let some = [some];
    let gone = bench.snapshotter.difference(&bench.lease, &some, &[]).unwrap();
    assert_eq!(bench.archived(&some, &gone), [".wh.dir", ".wh.file"]);
    assert!(bench.shown(&[some[0].clone(), gone.clone()]).is_empty());
    assert!(bench.shown(&[gone]).is_empty(), "hides, shows nothing itself");
    let same = bench.snapshotter.difference(&bench.lease, &some, &some).unwrap();
    assert_eq!(bench.archived(&some, &same), [""; 0]);
}

#[test]
fn privileged_a_directory_made_anew_hides_only_what_it_hid() {
    let bench = Bench::new();
    let base = bench.step(&[], |root| {
        std::fs::create_dir(root.join("dir")).unwrap();
        std::fs::write(root.join("dir/old"), "base").unwrap();
    });
    let anew = bench.step(std::slice::from_ref(&base), |root| {
        std::fs::remove_dir_all(root.join("dir")).unwrap();
        std::fs::create_dir(root.join("dir")).unwrap();
        std::fs::write(root.join("dir/new"), "anew").unwrap();
    });
    let other = bench.step(&[], |root| {
        std::fs::create_dir(root.join("dir")).unwrap();
        std::fs::write(root.join("dir/other"), "of another branch").unwrap();
    });
    let below = std::slice::from_ref(&base);
    assert!(!bench.snapshotter.is_known_explicit(&anew).unwrap());
    let explicit = bench
        .snapshotter
        .explicit_layer(&bench.lease, below, &anew)
        .unwrap();
    assert_ne!(explicit, anew);
    assert!(bench.snapshotter.is_known_explicit(&explicit).unwrap());
    let merged = bench.shown(&[base.clone(), other.clone(), explicit.clone()]);
    let names: Vec<&String> = merged.keys().collect();
    assert_eq!(names, ["dir", "dir/new", "dir/other"]);
    let opaque = bench.shown(&[base.clone(), other, anew.clone()]);
    assert!(
        !opaque.contains_key("dir/other"),
        "the twin: as it was made, it hides too much"
    );
    let archive = ["dir/", "dir/new", "dir/.wh.old"];
    assert_eq!(bench.archived(below, &anew), archive);
    assert_eq!(
        bench.archived(&[], &explicit),
        archive,
        "the same archive, wherever it stands"
    );
}

#[test]
fn privileged_layers_that_are_explicit_are_used_as_they_are() {
    let bench = Bench::new();
    let base = bench.step(&[], |root| {
        std::fs::create_dir(root.join("dir")).unwrap();
        for name in ["dir/a", "dir/b", "put-back"] {
            std::fs::write(root.join(name), "base").unwrap();
            age(&root.join(name));
        }
    });
    assert!(
        bench.snapshotter.is_known_explicit(&base).unwrap(),
        "made on nothing"
    );
    let below = std::slice::from_ref(&base);
    let plain = bench.step(below, |root| {
        std::fs::remove_file(root.join("dir/a")).unwrap();
        std::fs::write(root.join("dir/b"), "changed").unwrap();
    });
    let explicit = |id: &LayerId| bench.snapshotter.explicit_layer(&bench.lease, below, id).unwrap();
    assert_eq!(explicit(&plain), plain);
    assert!(
        bench.snapshotter.is_known_explicit(&plain).unwrap(),
        "and that is remembered"
    );
    let put_back = bench.step(below, |root| {
        std::fs::write(root.join("put-back"), "for a while").unwrap();
        std::fs::write(root.join("put-back"), "base").unwrap();
        age(&root.join("put-back"));
        std::fs::write(root.join("new"), "new").unwrap();
    });
    let without = explicit(&put_back);
    assert_ne!(without, put_back);
    let replaced = bench.step(&[], |root| {
        std::fs::write(root.join("put-back"), "other").unwrap();
    });
    let shown = bench.shown(&[replaced, without.clone()]);
    assert!(shown["put-back"].contains("other"), "{shown:?}");
    assert_eq!(bench.archived(&[], &without), ["new"]);
    let pulled = bench.unpack(&tar_of(&[("a", "pulled")]), &[]).unwrap();
    assert!(bench.snapshotter.is_known_explicit(&pulled).unwrap());
}

#[test]
fn privileged_a_new_directory_on_nothing_is_not_marked() {
    let bench = Bench::new();
    let workspace = bench.snapshotter.workspace(&bench.lease, &[]).unwrap();
    for (dir, opaque) in [("marked", true), ("plain", false)] {
        let path = workspace.upper().join(dir);
        std::fs::create_dir(&path).unwrap();
        if opaque {
            let file = std::fs::File::open(&path).unwrap();
            let none = rustix::fs::XattrFlags::empty();
            rustix::fs::fsetxattr(&file, "trusted.overlay.opaque", b"y", none).unwrap();
        }
    }
    let made = workspace.commit().unwrap().id;
    let base = bench.step(&[], |root| {
        std::fs::create_dir(root.join("marked")).unwrap();
        std::fs::write(root.join("marked/below"), "").unwrap();
    });
    assert!(bench.shown(&[base, made]).contains_key("marked/below"));
}

#[test]
fn privileged_a_tree_becomes_a_layer_by_links_where_that_can_be() {
    let bench = Bench::new();
    let tree = bench.lease.new_dir("tree").unwrap();
    std::fs::create_dir(tree.join("dir")).unwrap();
    std::fs::write(tree.join("dir/file"), "kept").unwrap();
    std::fs::hard_link(tree.join("dir/file"), tree.join("twin")).unwrap();
    symlink("dir", tree.join("link")).unwrap();
    std::fs::set_permissions(tree.join("dir"), std::fs::Permissions::from_mode(0o750)).unwrap();
    age(&tree.join("dir"));
    let workspace = bench.snapshotter.workspace(&bench.lease, &[]).unwrap();
    assert!(workspace.link_tree(&RootFd::open(&tree).unwrap()).unwrap());
    let layer = workspace.commit().unwrap().id;
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    assert_eq!(
        inode(&bench.dir(&layer).join("twin")),
        inode(&tree.join("dir/file"))
    );
    let dir = std::fs::metadata(bench.dir(&layer).join("dir")).unwrap();
    assert_eq!((dir.mode() & 0o7777, dir.mtime()), (0o750, 1_000_000));
    // Replaced, as a transfer does, and not written to: the layer stays.
    std::fs::remove_file(tree.join("twin")).unwrap();
    std::fs::write(tree.join("twin"), "other").unwrap();
    let shown = bench.shown(std::slice::from_ref(&layer));
    assert!(
        shown["twin"].contains("kept") && shown["link"].ends_with("-> dir"),
        "{shown:?}"
    );
    // The twin: files of another file system cannot be linked.
    let view = bench
        .snapshotter
        .view(&bench.lease, std::slice::from_ref(&layer))
        .unwrap();
    let workspace = bench.snapshotter.workspace(&bench.lease, &[]).unwrap();
    assert!(!workspace.link_tree(view.root()).unwrap());
}
