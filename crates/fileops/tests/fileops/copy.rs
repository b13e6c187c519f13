//! Which source lands where.

use rbuild_fileops::CopyError;
use rbuild_graph::CopyAction;

use crate::support::{World, cp};

#[test]
fn item21_a_directory_source_means_its_content() {
    for src in ["d", "d/", "d/.", "/d"] {
        let w = World::new();
        w.file("src/d/a", "1").file("src/d/sub/b", "2");
        w.copy(&cp(src, "/out")).unwrap();
        assert_eq!(w.names(), ["out", "out/a", "out/sub", "out/sub/b"], "{src}");
    }
}

#[test]
fn item21_a_directory_itself_is_copied_only_when_the_action_says_so() {
    let w = World::new();
    w.file("src/d/a", "1").dir("dst/there");
    let whole = CopyAction {
        dir_copy_contents: false,
        ..cp("d", "/there")
    };
    w.copy(&whole).unwrap();
    w.copy(&CopyAction {
        dest: "/new".to_owned(),
        ..whole.clone()
    })
    .unwrap();
    assert_eq!(w.names(), ["new", "new/a", "there", "there/d", "there/d/a"]);
    let dot = CopyAction {
        src: "d/.".to_owned(),
        allow_wildcard: false,
        ..whole
    };
    w.copy(&dot).unwrap();
    assert_eq!(w.read("dst/there/a"), "1");
}

#[test]
fn item22_the_slash_at_the_end_of_the_destination() {
    let w = World::new();
    w.file("src/f", "x");
    w.copy(&cp("f", "/a")).unwrap();
    w.copy(&cp("f", "/b/")).unwrap();
    w.copy(&cp("f", "/c/.")).unwrap();
    w.copy(&cp("f", "/")).unwrap();
    w.copy(&cp("f", "/x/../y")).unwrap();
    assert_eq!(w.names(), ["a", "b", "b/f", "c", "c/f", "f", "y"]);
}

#[test]
fn item23_many_sources_onto_one_file_end_with_the_last() {
    let w = World::new();
    w.file("src/1", "1").file("src/2", "2");
    w.copy(&cp("[12]", "/out")).unwrap();
    assert_eq!(
        w.read("dst/out"),
        "2",
        "the front end rejects or warns; the action overwrites as BuildKit's does"
    );
}

#[test]
fn item24_sources_never_leave_their_root() {
    let w = World::new();
    w.file("src/f", "inside").file("f", "outside");
    w.copy(&cp("../../f", "/a")).unwrap();
    w.copy(&cp("/../f", "/b")).unwrap();
    assert_eq!(
        (w.read("dst/a"), w.read("dst/b")),
        ("inside".to_owned(), "inside".to_owned())
    );
    assert!(
        w.copy(&cp("../canary/secret", "/c"))
            .unwrap_err()
            .missing()
            .is_some()
    );
}

#[test]
fn item25_wildcards_do_not_cross_slashes_and_may_match_nothing() {
    let w = World::new();
    w.file("src/a.txt", "a")
        .file("src/sub/b.txt", "b")
        .file("src/[x", "br");
    w.copy(&cp("*.txt", "/one/")).unwrap();
    w.copy(&cp("s?b/*.txt", "/two/")).unwrap();
    w.copy(&cp("[[]x", "/three/")).unwrap();
    assert_eq!(w.copy(&cp("*.none", "/four/")).unwrap().files, 0);
    assert_eq!(
        w.names(),
        ["one", "one/a.txt", "three", "three/[x", "two", "two/b.txt"],
        "a wildcard without a match makes not even the destination"
    );
    let strict = CopyAction {
        allow_empty_wildcard: false,
        ..cp("*.none", "/four/")
    };
    assert!(matches!(w.copy(&strict), Err(CopyError::NoMatch(_))));
    assert!(w.copy(&cp("missing", "/x")).unwrap_err().missing().is_some());
    assert!(w.copy(&cp("missing/*", "/x")).unwrap_err().missing().is_some());
    // That it is no pattern is told where content is read for a key.
    assert_eq!(w.copy(&cp("[a", "/x")).unwrap().files, 0);
}

#[test]
fn item25_double_stars_are_single_ones_without_parents() {
    let w = World::new();
    w.file("src/a/b/c", "1").file("src/a/d", "2");
    w.copy(&cp("a/**", "/out/")).unwrap();
    assert_eq!(w.names(), ["out", "out/c", "out/d"]);
}

#[test]
fn item26_a_directory_matched_by_a_wildcard_is_flattened() {
    let w = World::new();
    w.file("src/d1/a", "1").file("src/d2/b", "2");
    w.copy(&cp("d*", "/out")).unwrap();
    assert_eq!(w.names(), ["out", "out/a", "out/b"]);
}

#[test]
fn item27_named_links_are_followed_and_links_inside_stay() {
    let w = World::new();
    w.file("src/real/f", "x")
        .link("src/dirlink", "real")
        .link("src/filelink", "real/f");
    w.link("src/real/inner", "f").link("src/abs", "/real");
    w.copy(&cp("dirlink", "/d")).unwrap();
    w.copy(&cp("filelink", "/")).unwrap();
    w.copy(&cp("dirlink/f", "/through")).unwrap();
    w.copy(&cp("file*", "/wild/")).unwrap();
    w.copy(&cp("abs/f", "/abs")).unwrap();
    assert!(w.stat("dst/d").is_dir());
    assert!(w.stat("dst/d/inner").is_symlink());
    assert!(w.stat("dst/filelink").is_file(), "named after the link");
    assert!(w.stat("dst/wild/filelink").is_file());
    assert_eq!(
        (w.read("dst/through"), w.read("dst/abs")),
        ("x".to_owned(), "x".to_owned())
    );
}

#[test]
fn item27_unless_the_action_does_not_follow() {
    let w = World::new();
    w.file("src/f", "x").link("src/l", "f");
    let kept = CopyAction {
        follow_symlink: false,
        ..cp("l", "/l")
    };
    w.copy(&kept).unwrap();
    assert!(w.stat("dst/l").is_symlink());
}

#[test]
fn item27_a_link_that_leads_out_ends_inside() {
    let w = World::new();
    let canary = w.path("canary");
    w.link("src/abs", canary.to_str().unwrap())
        .link("src/rel", "../../canary")
        .link("src/up", "../../../../x");
    w.file("src/x", "inside");
    for src in ["abs/secret", "rel/secret", "abs", "rel"] {
        let error = w.copy(&cp(src, "/out")).unwrap_err();
        assert!(error.missing().is_some(), "{src}: {error}");
    }
    w.copy(&cp("up", "/up")).unwrap();
    assert_eq!(w.read("dst/up"), "inside", "more dots than depth are no harm");
}

#[test]
fn item28_links_at_the_destination_are_followed_inside_the_root() {
    let w = World::new();
    let canary = w.path("canary");
    w.file("src/f", "x").file("src/d/g", "y");
    w.dir("dst/run")
        .link("dst/var", "/run")
        .link("dst/out", canary.to_str().unwrap());
    w.link("dst/new", "made/here")
        .link("dst/file", "/run/target")
        .link("dst/rel/up", "../../../run");
    w.copy(&cp("f", "/var/")).unwrap();
    w.copy(&cp("f", "/out/")).unwrap();
    w.copy(&cp("d", "/new")).unwrap();
    w.copy(&cp("f", "/file")).unwrap();
    w.copy(&cp("d", "/rel/up")).unwrap();
    assert_eq!(w.read("dst/run/f"), "x");
    assert_eq!(w.read("dst/made/here/g"), "y", "the missing target is made");
    assert_eq!(w.read("dst/run/target"), "x");
    assert_eq!(w.read("dst/run/g"), "y");
    assert!(w.stat("dst/file").is_symlink(), "the link itself stays");
    let inside = canary.strip_prefix("/").unwrap().join("f");
    assert!(
        w.path("dst").join(inside).exists(),
        "an absolute link means a path of the image"
    );
    assert_eq!(
        std::fs::read_dir(canary).unwrap().count(),
        1,
        "nothing was written outside"
    );
}

#[test]
fn item28_a_link_loop_at_the_destination_is_an_error() {
    let w = World::new();
    w.file("src/f", "x").link("dst/a", "b").link("dst/b", "a");
    assert!(matches!(w.copy(&cp("f", "/a")), Err(CopyError::Dest(_))));
    assert!(matches!(w.copy(&cp("f", "/a/")), Err(CopyError::Dest(_))));
}

#[test]
fn item34_what_may_replace_what() {
    let w = World::new();
    w.file("src/d/x", "new")
        .file("src/f", "file")
        .file("dst/file", "old")
        .file("dst/x/inner", "keep");
    assert!(
        matches!(w.copy(&cp("d", "/file")), Err(CopyError::DirOverFile(p)) if p == std::path::Path::new("/file"))
    );
    let error = w.copy(&cp("d", "/")).unwrap_err();
    assert!(
        matches!(&error, CopyError::FileOverDir(p) if p == std::path::Path::new("/x")),
        "{error}"
    );
    w.file("src/e/file/y", "");
    let error = w.copy(&cp("e", "/")).unwrap_err();
    assert!(
        matches!(&error, CopyError::DirOverFile(p) if p == std::path::Path::new("/file")),
        "{error}"
    );
    w.copy(&cp("f", "/file")).unwrap();
    assert_eq!(w.read("dst/file"), "file");
    assert_eq!(w.read("dst/x/inner"), "keep");
    w.file("src/x", "file").dir("dst/sub/x");
    let error = w.copy(&cp("x", "/sub/")).unwrap_err();
    assert!(
        matches!(&error, CopyError::FileOverDir(p) if p == std::path::Path::new("/sub/x")),
        "{error}"
    );
}

#[test]
fn item34_replaced_files_are_unlinked_not_written_through() {
    let w = World::new();
    w.file("src/d/a", "new")
        .file("src/d/b", "new")
        .file("dst/keep", "old")
        .file("dst/target", "old");
    std::fs::hard_link(w.path("dst/keep"), w.path("dst/a")).unwrap();
    w.link("dst/b", "target");
    w.copy(&cp("d", "/")).unwrap();
    assert_eq!(
        (w.read("dst/keep"), w.read("dst/target")),
        ("old".to_owned(), "old".to_owned())
    );
    assert_eq!(
        (w.read("dst/a"), w.read("dst/b")),
        ("new".to_owned(), "new".to_owned())
    );
    assert!(w.stat("dst/b").is_file());
}

#[test]
fn item34_a_directory_does_not_land_in_a_linked_one() {
    let w = World::new();
    w.file("src/d/run/x", "").dir("dst/real").link("dst/run", "real");
    assert!(matches!(w.copy(&cp("d", "/")), Err(CopyError::DirOverFile(_))));
    assert!(!w.exists("dst/real/x"));
}

#[test]
fn always_replace_existing_replaces_every_type() {
    let w = World::new();
    w.file("src/d/x", "new")
        .file("src/d/y/z", "new")
        .file("src/d/l", "new");
    w.file("dst/x/inner", "old")
        .file("dst/y", "old")
        .link("dst/l", "y")
        .file("dst/stays/here", "");
    let replace = CopyAction {
        always_replace_existing: true,
        ..cp("d", "/")
    };
    w.copy(&replace).unwrap();
    assert_eq!(w.names(), ["l", "stays", "stays/here", "x", "y", "y/z"]);
    w.file("dst/top", "old");
    w.copy(&CopyAction {
        dest: "/top".to_owned(),
        ..replace
    })
    .unwrap();
    assert_eq!(w.read("dst/top/y/z"), "new");
}

#[test]
fn a_missing_destination_directory_is_an_error_if_it_is_not_to_be_made() {
    let w = World::new();
    w.file("src/f", "x");
    let action = CopyAction {
        create_dest_path: false,
        ..cp("f", "/no/f")
    };
    assert!(matches!(w.copy(&action), Err(CopyError::NoDestDir(_))));
    w.dir("dst/no");
    w.copy(&action).unwrap();
    assert_eq!(w.read("dst/no/f"), "x");
}

#[test]
fn a_missing_source_names_what_was_meant() {
    let w = World::new();
    w.file("src/app/server.go", "").file("src/secret.key", "");
    let error = w.copy_context("*.key\n", &cp("app/sevrer.go", "/")).unwrap_err();
    let missing = error.missing().unwrap();
    assert_eq!(
        missing.nearest.as_deref(),
        Some(std::path::Path::new("/app/server.go"))
    );
    assert_eq!(missing.context.as_deref(), Some(w.path("src").as_path()));
    let error = w
        .copy_context("# c\n\n*.key\n", &cp("secret.key", "/"))
        .unwrap_err();
    let ignored = error.missing().unwrap().ignored.clone().unwrap();
    assert_eq!((ignored.line, ignored.pattern.as_str()), (3, "*.key"));
    let error = w.copy_context("*.key\n", &cp("secret.kei", "/")).unwrap_err();
    assert_eq!(
        error.missing().unwrap().nearest,
        None,
        "an ignored file is no suggestion"
    );
    let error = w.copy(&cp("ap/server.go", "/")).unwrap_err();
    let missing = error.missing().unwrap();
    assert_eq!(
        (missing.path.to_str(), missing.at.to_str()),
        (Some("/ap/server.go"), Some("/ap"))
    );
    assert_eq!(missing.nearest.as_deref(), Some(std::path::Path::new("/app")));
}
