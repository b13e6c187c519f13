//! Ignore files, `--exclude` and `--parents`.

use rbuild_graph::CopyAction;

use crate::support::{World, cp, cp_parents, try_hash};

fn tree(w: &World) {
    w.file("src/a/b/c.txt", "1")
        .file("src/a/b/d.md", "2")
        .file("src/a/e.txt", "3")
        .file("src/f.txt", "4");
    w.dir("src/a/empty");
}

#[test]
fn item43_ignored_paths_do_not_exist() {
    let w = World::new();
    tree(&w);
    w.copy_context("a/b\n*.md\n", &cp(".", "/")).unwrap();
    assert_eq!(w.names(), ["a", "a/e.txt", "a/empty", "f.txt"]);
    for src in ["a/b", "a/b/c.txt", "a/b/d.md"] {
        let error = w.copy_context("a/b\n*.md\n", &cp(src, "/")).unwrap_err();
        assert!(error.missing().unwrap().ignored.is_some(), "{src}");
    }
    assert_eq!(
        w.copy_context("f*\n", &cp("*.txt", "/w/")).unwrap().files,
        0,
        "nor do they match"
    );
}

#[test]
fn item43_the_last_rule_wins_and_exceptions_reach_into_ignored_directories() {
    let w = World::new();
    tree(&w);
    let rules = "*\n!a/b/c.txt\n";
    w.copy_context(rules, &cp("/", "/")).unwrap();
    assert_eq!(w.names(), ["a", "a/b", "a/b/c.txt"]);
    w.clear_dst();
    w.copy_context(rules, &cp("a", "/x")).unwrap();
    w.copy_context(rules, &cp("a/b/c.txt", "/y")).unwrap();
    w.copy_context(rules, &cp("a*", "/z/")).unwrap();
    assert_eq!(w.names(), ["x", "x/b", "x/b/c.txt", "y", "z", "z/b", "z/b/c.txt"]);
    assert!(
        w.copy_context(rules, &cp("a/empty", "/"))
            .unwrap_err()
            .missing()
            .is_some()
    );
    assert!(
        w.copy_context("*\n!a/none\n", &cp("a", "/"))
            .unwrap_err()
            .missing()
            .is_some(),
        "nothing is left of it"
    );
    w.clear_dst();
    w.copy_context("a\n!a/b\na/b/*.md\n", &cp("/", "/")).unwrap();
    assert_eq!(w.names(), ["a", "a/b", "a/b/c.txt", "f.txt"]);
}

#[test]
fn item43_lines_are_trimmed_cleaned_and_a_lone_exception_is_an_error() {
    let w = World::new();
    tree(&w);
    w.copy_context("\u{feff}# comment\n  /a/ \n\n", &cp(".", "/"))
        .unwrap();
    assert_eq!(w.names(), ["f.txt"]);
    let error = rbuild_fileops::IgnoreRules::parse(".dockerignore", b"a\n\n!\n").unwrap_err();
    assert_eq!(error.to_string(), ".dockerignore, line 3");
}

#[test]
fn item43_a_link_to_an_ignored_file_leads_nowhere() {
    let w = World::new();
    w.file("src/secret", "x")
        .link("src/l", "secret")
        .link("src/hidden", "open")
        .file("src/open", "y");
    assert!(
        w.copy_context("secret\n", &cp("l", "/"))
            .unwrap_err()
            .missing()
            .is_some()
    );
    assert!(
        w.copy_context("hidden\n", &cp("hidden", "/"))
            .unwrap_err()
            .missing()
            .is_some()
    );
    w.copy_context("secret\n", &cp(".", "/")).unwrap();
    assert_eq!(
        w.names(),
        ["hidden", "l", "open"],
        "as an entry of a directory it is a link like any other"
    );
}

#[test]
fn item45_ignore_rules_hold_for_contexts_only() {
    let w = World::new();
    tree(&w);
    w.file("src/.dockerignore", "*");
    w.copy(&cp("a/e.txt", "/e")).unwrap();
    assert_eq!(w.read("dst/e"), "3");
}

#[test]
fn excludes_are_relative_to_the_source_and_may_have_exceptions() {
    let w = World::new();
    tree(&w);
    let exclude = |patterns: &[&str], src: &str| CopyAction {
        exclude_patterns: patterns.iter().map(ToString::to_string).collect(),
        ..cp(src, "/")
    };
    w.copy(&exclude(&["**/*.md", "empty"], "a")).unwrap();
    assert_eq!(w.names(), ["b", "b/c.txt", "e.txt"]);
    w.clear_dst();
    w.copy(&exclude(&["a", "!a/b/c.txt"], "/")).unwrap();
    assert_eq!(
        w.names(),
        ["a", "a/b", "a/b/c.txt", "f.txt"],
        "parents of an exception are made for it"
    );
    w.clear_dst();
    w.copy(&exclude(&["*"], "a")).unwrap();
    assert!(w.names().is_empty());
    w.copy(&exclude(&["f.txt"], "f.txt")).unwrap();
    assert_eq!(w.names(), ["f.txt"], "the named file itself is not asked about");
}

#[test]
fn excludes_do_not_make_an_ignored_parent_exist_or_vanish() {
    let w = World::new();
    w.file("src/d/x", "").file("src/d/y", "");
    let action = CopyAction {
        exclude_patterns: vec!["d/x".to_owned()],
        ..cp("/", "/")
    };
    w.copy_context("d\n!d/x\n", &action).unwrap();
    assert_eq!(
        w.names(),
        ["d"],
        "the context holds d for d/x, and the copy leaves only d/x out"
    );
}

#[test]
fn item39_parents_keep_the_path_after_the_pivot() {
    let w = World::new();
    tree(&w);
    w.chmod("src/a", 0o710)
        .chmod("src/a/b", 0o701)
        .utime("src/a/b", 500);
    w.copy(&cp_parents("/", "a/b/c.txt", "/out/")).unwrap();
    assert_eq!(w.names(), ["out", "out/a", "out/a/b", "out/a/b/c.txt"]);
    assert_eq!(
        (w.mode("dst/out/a"), w.mode("dst/out/a/b")),
        (0o710, 0o701),
        "parents bring their metadata"
    );
    assert_eq!(std::os::unix::fs::MetadataExt::mtime(&w.stat("dst/out/a/b")), 500);
    w.clear_dst();
    w.copy(&cp_parents("/a", "b/*.txt", "/out/")).unwrap();
    assert_eq!(w.names(), ["out", "out/b", "out/b/c.txt"]);
    w.clear_dst();
    w.copy(&cp_parents("/", "**/*.txt", "/out/")).unwrap();
    assert_eq!(
        w.names(),
        [
            "out",
            "out/a",
            "out/a/b",
            "out/a/b/c.txt",
            "out/a/e.txt",
            "out/f.txt"
        ]
    );
    w.clear_dst();
    w.copy(&cp_parents("/", "a/b", "/out/")).unwrap();
    assert_eq!(
        w.names(),
        ["out", "out/a", "out/a/b", "out/a/b/c.txt", "out/a/b/d.md"]
    );
}

#[test]
fn item39_a_missing_literal_is_an_error_and_a_missing_wildcard_still_makes_the_destination() {
    let w = World::new();
    tree(&w);
    for (src, pattern) in [
        ("/", "a/none"),
        ("/", "a/b/c.tx"),
        ("/a", "b/none"),
        ("/", "no/such/path"),
    ] {
        let error = w.copy(&cp_parents(src, pattern, "/out/")).unwrap_err();
        assert!(error.missing().is_some(), "{src} {pattern}: {error}");
        let error = try_hash(&w.snapshot(), &cp_parents(src, pattern, "/out/")).unwrap_err();
        assert!(error.missing().is_some(), "{src} {pattern}: {error}");
    }
    w.clear_dst();
    w.copy(&cp_parents("/", "a/none*", "/out/")).unwrap();
    assert_eq!(w.names(), ["out"]);
}

#[test]
fn item39_parents_pass_through_existing_directories() {
    let w = World::new();
    tree(&w);
    w.chmod("src/a", 0o711)
        .file("dst/a/kept", "")
        .chmod("dst/a", 0o777);
    w.copy(&cp_parents("/", "a/e.txt", "/")).unwrap();
    assert_eq!(w.names(), ["a", "a/e.txt", "a/kept"]);
    assert_eq!(
        w.mode("dst/a"),
        0o711,
        "BuildKit gives them the source's mode, and nothing else"
    );
}

#[test]
fn wildcards_and_patterns_together() {
    let w = World::new();
    w.file("src/p1/x/keep", "1")
        .file("src/p1/x/drop", "")
        .file("src/p2/x/keep2", "2");
    w.copy(&cp_parents("/p*", "x/keep*", "/")).unwrap();
    assert_eq!(w.names(), ["x", "x/keep", "x/keep2"]);
}
