//! What changes a content hash, and what does not.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rbuild_fileops::{
    ContentHash, IgnoreRules, LocalContext, Selector, SourceTree, StatCache, StatKey, StatTable,
};
use rbuild_graph::CopyAction;
use rustix::fs::XattrFlags;

use crate::support::{World, cp, cp_parents, listing, try_hash};

/// What is changed, and how.
type Change<'a> = (&'a str, &'a dyn Fn(&World));

fn tree() -> World {
    let w = World::new();
    w.file("src/d/a", "one")
        .file("src/d/sub/b", "two")
        .link("src/d/l", "a")
        .dir("src/d/empty");
    w
}

#[test]
fn a_pattern_that_is_none_is_told_where_content_is_read() {
    let w = tree();
    let told = |src: &str| try_hash(&w.snapshot(), &cp(src, "/")).map(|_| ());
    assert!(told("[a").unwrap_err().to_string().contains("[a"));
    assert!(told("d/[a-").is_err() && told("d/[ab]").is_ok());
}

#[test]
fn item76_times_and_hard_links_do_not_matter() {
    let w = tree();
    let before = w.hash(&cp("d", "/"));
    w.utime("src/d/a", 1)
        .utime("src/d/sub", 2)
        .utime("src/d/l", 3)
        .utime("src/d", 4);
    assert_eq!(w.hash(&cp("d", "/")), before);
    std::fs::hard_link(w.path("src/d/a"), w.path("outside")).unwrap();
    assert_eq!(w.hash(&cp("d", "/")), before);
    assert_eq!(tree().hash(&cp("d", "/")), before, "nor do device and inode");
}

#[test]
fn privileged_item76_everything_else_matters() {
    let base = tree().hash(&cp("d", "/"));
    let changed = |change: &dyn Fn(&World)| {
        let w = tree();
        change(&w);
        w.hash(&cp("d", "/"))
    };
    let mut seen = BTreeMap::from([(base, "nothing")]);
    let changes: [Change<'_>; 14] = [
        ("content", &|w| {
            w.file("src/d/a", "ONE");
        }),
        ("size", &|w| {
            w.file("src/d/a", "one1");
        }),
        ("mode", &|w| {
            w.chmod("src/d/a", 0o600);
        }),
        ("setuid", &|w| {
            w.chmod("src/d/a", 0o4644);
        }),
        ("mode of a directory", &|w| {
            w.chmod("src/d/sub", 0o700);
        }),
        ("uid", &|w| {
            w.chown("src/d/a", 1, 0);
        }),
        ("gid", &|w| {
            w.chown("src/d/a", 0, 1);
        }),
        ("owner of a link", &|w| {
            w.chown("src/d/l", 1, 0);
        }),
        ("a new name", &|w| {
            w.file("src/d/c", "");
        }),
        ("rename", &|w| {
            std::fs::rename(w.path("src/d/a"), w.path("src/d/z")).unwrap();
        }),
        ("move", &|w| {
            std::fs::rename(w.path("src/d/a"), w.path("src/d/sub/a")).unwrap();
        }),
        ("link target", &|w| {
            std::fs::remove_file(w.path("src/d/l")).unwrap();
            w.link("src/d/l", "b");
        }),
        ("type", &|w| {
            std::fs::remove_file(w.path("src/d/l")).unwrap();
            w.file("src/d/l", "a").chmod("src/d/l", 0o777);
        }),
        ("xattr", &|w| {
            rustix::fs::setxattr(w.path("src/d/a"), c"user.x", b"1", XattrFlags::empty()).unwrap();
        }),
    ];
    for (what, change) in changes {
        if let Some(same) = seen.insert(changed(change), what) {
            panic!("a change of {what} is the same as {same}");
        }
    }
}

#[test]
fn privileged_item76_of_the_kernels_attributes_only_capabilities_matter() {
    let hash = |name: &std::ffi::CStr, value: &[u8]| {
        let w = tree();
        rustix::fs::setxattr(w.path("src/d/a"), name, value, XattrFlags::empty())
            .ok()
            .map(|()| w.hash(&cp("d", "/")))
    };
    let before = tree().hash(&cp("d", "/"));
    // cap_net_bind_service+ep, revision 2 of vfs_cap_data (linux/capability.h).
    let capability: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let Some(capable) = hash(c"security.capability", &capability) else {
        println!("SKIP: needs root to give a file a capability");
        return;
    };
    assert_ne!(capable, before);
    let label = hash(c"security.rbuild", b"label").expect("an attribute of root");
    assert_eq!(label, before, "a label of a security module is the machine's");
    let user = hash(c"user.rbuild", b"label").expect("an attribute of the owner");
    assert_ne!(user, before);
}

#[test]
fn item76_a_rename_under_a_wildcard_is_a_change() {
    let w = World::new();
    w.file("src/a.txt", "x");
    let before = w.hash(&cp("*.txt", "/d/"));
    std::fs::rename(w.path("src/a.txt"), w.path("src/b.txt")).unwrap();
    assert_ne!(w.hash(&cp("*.txt", "/d/")), before);
    let a = w.hash(&cp("b.txt", "/d/"));
    std::fs::rename(w.path("src/b.txt"), w.path("src/c.txt")).unwrap();
    assert_eq!(
        w.hash(&cp("c.txt", "/d/")),
        a,
        "the name of a literal source is the action's business"
    );
}

#[test]
fn item77_the_same_content_elsewhere_is_the_same() {
    let w = tree();
    let x = tree();
    w.file("src/unrelated", "1");
    x.file("src/d2/unrelated", "2");
    assert_eq!(w.hash(&cp("d", "/")), x.hash(&cp("d", "/out")));
    assert_eq!(w.hash(&cp("d/../d/", "/")), x.hash(&cp("d", "/")));
}

#[test]
fn a_hash_covers_what_a_copy_would_copy_and_no_more() {
    let w = tree();
    let exclude = CopyAction {
        exclude_patterns: vec!["sub".to_owned()],
        ..cp("d", "/")
    };
    let (excluded, parents) = (w.hash(&exclude), w.hash(&cp_parents("/", "d/a", "/")));
    let ignored = w.hash_context("d/sub\n", &cp("d", "/"));
    w.file("src/d/sub/b", "changed").file("src/d/sub/more", "");
    assert_eq!(w.hash(&exclude), excluded);
    assert_eq!(w.hash(&cp_parents("/", "d/a", "/")), parents);
    assert_eq!(w.hash_context("d/sub\n", &cp("d", "/")), ignored);
    w.file("src/d/a", "changed");
    assert_ne!(w.hash(&exclude), excluded);
    assert_ne!(w.hash(&cp_parents("/", "d/a", "/")), parents);
    assert_ne!(w.hash_context("d/sub\n", &cp("d", "/")), ignored);
}

#[test]
fn a_hash_follows_what_a_copy_follows() {
    let w = World::new();
    w.file("src/real", "1").link("src/l", "real");
    let through = w.hash(&cp("l", "/"));
    assert_eq!(through, w.hash(&cp("real", "/")));
    w.file("src/real", "2");
    assert_ne!(w.hash(&cp("l", "/")), through);
    assert_ne!(w.hash(&cp("*", "/")), through);
    let kept = CopyAction {
        follow_symlink: false,
        ..cp("l", "/")
    };
    let text = w.hash(&kept);
    w.file("src/real", "3");
    assert_eq!(w.hash(&kept), text);
}

#[test]
fn owners_of_a_context_are_root() {
    let w = tree();
    let before = w.hash_context("", &cp("d", "/"));
    assert_eq!(before, w.hash(&cp("d", "/")), "these files are root's");
    if rustix::process::geteuid().is_root() {
        w.chown("src/d/a", 5, 5);
        assert_eq!(w.hash_context("", &cp("d", "/")), before);
        assert_ne!(w.hash(&cp("d", "/")), before);
    }
}

#[test]
fn nothing_and_missing() {
    let w = tree();
    let none = try_hash(&w.snapshot(), &cp("*.none", "/")).unwrap();
    assert_eq!(none.stats, Default::default());
    assert!(
        try_hash(&w.snapshot(), &cp("none", "/"))
            .unwrap_err()
            .missing()
            .is_some()
    );
    let all = try_hash(&w.snapshot(), &cp("/", "/")).unwrap();
    assert_eq!((all.stats.files, all.stats.dirs, all.stats.bytes), (3, 4, 6));
}

fn context(w: &World) -> SourceTree {
    let rules = IgnoreRules::parse(".dockerignore", b"").unwrap();
    SourceTree::Context(LocalContext::new(w.root("src"), w.path("src"), Some(rules)))
}

fn age(w: &World) {
    // The guard wants files older than two seconds; change times cannot be set, only waited for.
    let _ = w;
    std::thread::sleep(std::time::Duration::from_millis(2100));
}

#[test]
fn the_stat_cache_saves_reading_and_never_lies() {
    let w = tree();
    age(&w);
    let table = StatTable::default();
    let first = ContentHash::of(&context(&w), &Selector::path("/"), &table).unwrap();
    assert_eq!((first.stats.files_read, first.stats.bytes_read), (3, 6));
    let table = StatTable::load(&table.save().unwrap());
    let second = ContentHash::of(&context(&w), &Selector::path("/"), &table).unwrap();
    assert_eq!((second.stats.files_read, second.stats.bytes_read), (0, 0));
    assert_eq!((second.digest.clone(), second.stats.bytes), (first.digest, 6));
    assert_eq!(table.save(), None);
    w.file("src/d/a", "ONE").utime("src/d/a", 5);
    let third = ContentHash::of(&context(&w), &Selector::path("/"), &table).unwrap();
    assert_eq!(third.stats.files_read, 1);
    assert_ne!(third.digest, second.digest);
    assert_eq!(third.digest.to_string(), w.hash_context("", &cp("/", "/")));
}

#[test]
fn files_that_just_changed_are_not_remembered() {
    struct Spy(std::sync::Mutex<Vec<StatKey>>);
    impl StatCache for Spy {
        fn get(&self, _: &StatKey) -> Option<[u8; 32]> {
            None
        }
        fn put(&self, entries: Vec<(StatKey, [u8; 32])>) {
            self.0
                .lock()
                .unwrap()
                .extend(entries.into_iter().map(|(key, _)| key));
        }
    }
    let w = tree();
    let spy = Spy(std::sync::Mutex::default());
    ContentHash::of(&context(&w), &Selector::path("/"), &spy).unwrap();
    assert_eq!(spy.0.lock().unwrap().len(), 0);
    age(&w);
    w.file("src/d/new", "").utime("src/d/new", 1);
    ContentHash::of(&context(&w), &Selector::path("/d"), &spy).unwrap();
    let kept = spy.0.lock().unwrap().len();
    assert_eq!(
        kept, 5,
        "a, sub/b, l, and the directories sub and empty: neither new nor d, which changed with it"
    );
}

/// A small tree as a list of paths with what they are.
fn trees() -> impl Strategy<Value = Vec<(String, u8, String)>> {
    let entry = ("[ab]{1}(/[abc]{1}){0,2}", 0..4_u8, "[xy]{0,2}");
    proptest::collection::vec(entry, 0..8)
}

fn build(w: &World, entries: &[(String, u8, String)]) {
    for (path, kind, text) in entries {
        let full = w.path("src/t").join(path);
        let made = std::fs::create_dir_all(full.parent().unwrap());
        if made.is_err() || full.symlink_metadata().is_ok() {
            continue;
        }
        match kind {
            0 => std::fs::write(&full, text).unwrap(),
            1 => std::os::unix::fs::symlink(format!("t{text}"), &full).unwrap(),
            2 => std::fs::create_dir(&full).unwrap(),
            _ => {
                std::fs::write(&full, text).unwrap();
                w.chmod(&format!("src/t/{path}"), 0o755);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn equal_hashes_mean_equal_results(
        one in trees(),
        two in trees(),
        pattern in prop::sample::select(vec!["", "a", "**/b", "a/*", "!a"]),
        exclude in prop::sample::select(vec!["", "a", "**/c", "a/b"]),
        same in any::<bool>(),
    ) {
        let two = if same { one.clone() } else { two };
        let list = |p: &str| if p.is_empty() { Vec::new() } else { vec![p.to_owned()] };
        let action = CopyAction {
            include_patterns: if pattern.starts_with('!') { vec!["**".to_owned(), pattern.to_owned()] } else { list(pattern) },
            exclude_patterns: list(exclude),
            ..cp("t", "/")
        };
        let (x, y) = (World::new(), World::new());
        x.dir("src/t");
        y.dir("src/t");
        build(&x, &one);
        build(&y, &two);
        x.copy(&action).unwrap();
        y.copy(&action).unwrap();
        let equal_hash = x.hash(&action) == y.hash(&action);
        let equal_result = listing(&x.path("dst")) == listing(&y.path("dst"));
        prop_assert_eq!(equal_hash, equal_result);
    }
}
