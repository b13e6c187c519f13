//! Opening contexts, unpacking archives.

use rbuild_fileops::{ContextError, DockerfileAt, LocalContext, SourceTree, ignore_rules, spool_tar};
use rbuild_graph::CopyAction;
use rbuild_layer::DevicePolicy;

use crate::support::{World, at, cp};

/// A directory as a context, with the rules that its own files give it.
fn context(w: &World, dir: &str, dockerfile: DockerfileAt<'_>) -> Result<LocalContext, ContextError> {
    let root = w.root(dir);
    let rules = ignore_rules(&root, dockerfile)?;
    Ok(LocalContext::new(root, w.path(dir), rules))
}

fn open(w: &World, dockerfile: DockerfileAt<'_>) -> SourceTree {
    SourceTree::Context(context(w, "src", dockerfile).unwrap())
}

fn copied(w: &World, tree: &SourceTree) -> Vec<String> {
    w.clear_dst();
    crate::support::run(tree, &w.root("dst"), &cp(".", "/"), None).unwrap();
    w.names()
}

#[test]
fn item42_the_dockerfiles_own_ignore_file_wins() {
    let w = World::new();
    w.file("src/a", "")
        .file("src/b", "")
        .file("src/.dockerignore", "a\n.dockerignore\n*.dockerignore");
    w.file(
        "src/build/Dockerfile.dev.dockerignore",
        "b\n**/*.dockerignore\n.dockerignore\nbuild",
    );
    assert_eq!(
        copied(&w, &open(&w, DockerfileAt::InContext("Dockerfile"))),
        ["b", "build", "build/Dockerfile.dev.dockerignore"]
    );
    assert_eq!(
        copied(&w, &open(&w, DockerfileAt::InContext("build/Dockerfile.dev"))),
        ["a"]
    );
    assert_eq!(
        copied(&w, &open(&w, DockerfileAt::Nowhere)),
        ["b", "build", "build/Dockerfile.dev.dockerignore"]
    );
    w.file("canary/Df.dockerignore", "*\n!a");
    let beside = w.root("canary");
    assert_eq!(copied(&w, &open(&w, DockerfileAt::Beside(&beside, "Df"))), ["a"]);
}

#[test]
fn item44_ignored_dockerfiles_can_be_read_but_not_copied() {
    let w = World::new();
    w.file("src/Dockerfile", "FROM x")
        .file("src/.dockerignore", "Dockerfile\n.dockerignore\n")
        .file("src/f", "");
    let tree = open(&w, DockerfileAt::InContext("Dockerfile"));
    assert_eq!(copied(&w, &tree), ["f"]);
    let SourceTree::Context(context) = &tree else {
        panic!("a context")
    };
    assert_eq!(
        context
            .root()
            .read_file(std::path::Path::new("Dockerfile"), 100)
            .unwrap(),
        b"FROM x"
    );
    let error = crate::support::run(&tree, &w.root("dst"), &cp("Dockerfile", "/"), None).unwrap_err();
    assert!(error.missing().unwrap().ignored.is_some());
}

#[test]
fn row40_the_context_may_be_a_link_but_the_ignore_file_may_not_lead_out() {
    let w = World::new();
    w.file("src/a", "")
        .link("ctx", "src")
        .link("src/.dockerignore", "../canary/secret");
    let linked = context(&w, "ctx", DockerfileAt::Nowhere).unwrap();
    assert!(
        linked.rules().is_none(),
        "the link ends inside, where there is nothing"
    );
    assert_eq!(copied(&w, &SourceTree::Context(linked)), [".dockerignore", "a"]);
    std::fs::remove_file(w.path("src/.dockerignore")).unwrap();
    w.file("src/real", "real\nother")
        .link("src/.dockerignore", "real");
    let real = context(&w, "src", DockerfileAt::Nowhere).unwrap();
    assert_eq!(
        real.rules().unwrap().patterns().collect::<Vec<_>>(),
        ["real", "other"]
    );
    std::fs::remove_file(w.path("src/.dockerignore")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let fifo = w.path("src/.dockerignore");
    rustix::fs::mknodat(rustix::fs::CWD, fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(
        context(&w, "src", DockerfileAt::Nowhere).is_err(),
        "and does not block"
    );
}

/// A ustar archive of files and directories, made by hand.
fn tar(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in entries {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let kind = if name.ends_with('/') { b'5' } else { b'0' };
        let mode: &[u8] = if kind == b'5' { b"0000755\0" } else { b"0000640\0" };
        header[100..108].copy_from_slice(mode);
        header[108..116].copy_from_slice(b"0000005\0");
        header[116..124].copy_from_slice(b"0000006\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000144\0");
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(content.as_bytes());
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn add(src: &str, dest: &str) -> CopyAction {
    CopyAction {
        attempt_unpack: true,
        ..cp(src, dest)
    }
}

#[test]
fn privileged_item37_add_unpacks_what_is_an_archive_by_content() {
    let w = World::new();
    let archive = tar(&[("d/", ""), ("d/f", "text"), ("implied/g", "x")]);
    std::fs::write(w.path("src/data"), &archive).unwrap();
    w.file("src/not.tar.gz", "plain text").link("src/l", "data");
    w.copy(&add("data", "/a/b")).unwrap();
    assert_eq!(
        w.names(),
        ["a", "a/b", "a/b/d", "a/b/d/f", "a/b/implied", "a/b/implied/g"]
    );
    assert_eq!((w.owner("dst/a/b/d/f"), w.mode("dst/a/b/d/f")), ((5, 6), 0o640));
    assert_eq!((w.owner("dst/a/b"), w.mode("dst/a/b")), ((0, 0), 0o755));
    w.clear_dst();
    w.copy_as(&add("l", "/c"), 7, 8).unwrap();
    assert_eq!((w.owner("dst/c"), w.owner("dst/c/d/f")), ((7, 8), (7, 8)));
    w.clear_dst();
    w.copy(&add("*", "/x/")).unwrap();
    assert_eq!(w.read("dst/x/not.tar.gz"), "plain text", "a name is no archive");
    assert_eq!(w.read("dst/x/d/f"), "text");
    w.clear_dst();
    w.copy(&cp("data", "/copied")).unwrap();
    assert!(w.stat("dst/copied").is_file(), "COPY never unpacks");
    assert!(
        w.copy(&add("data", "/copied")).is_err(),
        "a file is in the way of the directory"
    );
}

#[test]
fn privileged_item37_add_follows_links_of_the_root_inside_it() {
    let w = World::new();
    std::fs::write(w.path("src/a.tar"), tar(&[("f", "1")])).unwrap();
    w.link("dst/link", "/real")
        .link("dst/out", w.path("canary").to_str().unwrap());
    w.copy(&CopyAction {
        time: at(90),
        ..add("a.tar", "/link/sub")
    })
    .unwrap();
    w.copy(&add("a.tar", "/out")).unwrap();
    assert_eq!(w.read("dst/real/sub/f"), "1");
    assert_eq!(std::os::unix::fs::MetadataExt::mtime(&w.stat("dst/real/sub")), 90);
    assert!(!w.exists("canary/f"));
}

#[test]
fn item37_directories_and_broken_archives() {
    let w = World::new();
    w.file("src/d/f", "x");
    let mut broken = tar(&[("f", "1"), ("g", "2")]);
    broken[1024..1030].fill(b'#');
    std::fs::write(w.path("src/broken"), &broken).unwrap();
    w.copy(&add("d", "/d")).unwrap();
    assert_eq!(w.read("dst/d/f"), "x");
    assert!(
        w.copy(&add("broken", "/b")).is_err(),
        "it is an archive, so it is not copied as a file"
    );
}

#[test]
fn item46_a_context_from_a_tar() {
    let w = World::new();
    let archive = tar(&[
        ("Dockerfile", "FROM scratch"),
        ("d/f", "1"),
        (".dockerignore", "d/g"),
        ("d/g", "2"),
    ]);
    let gz = w.path("gz");
    std::fs::write(&gz, &archive).unwrap();
    assert!(
        std::process::Command::new("gzip")
            .arg(&gz)
            .status()
            .unwrap()
            .success()
    );
    for bytes in [archive, std::fs::read(w.path("gz.gz")).unwrap()] {
        std::fs::remove_dir_all(w.path("src")).unwrap();
        w.dir("src");
        spool_tar(bytes.as_slice(), &w.path("src"), DevicePolicy::Make).unwrap();
        let tree = open(&w, DockerfileAt::InContext("Dockerfile"));
        assert_eq!(copied(&w, &tree), [".dockerignore", "Dockerfile", "d", "d/f"]);
    }
    let evil = tar(&[("../../canary/pwn", "x")]);
    spool_tar(evil.as_slice(), &w.path("src"), DevicePolicy::Make).ok();
    assert!(!w.exists("canary/pwn"));
}
