//! Contexts and Dockerfiles on standard input and behind an address: what is taken, as what, and what is refused. What a row
//! says was seen of buildx with BuildKit 73ed6825; where more is taken here, the row says so.

use rbuild_testkit::context::compressed;
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::layout::{Attributes, LayerBuilder};
use rbuild_testkit::web::{Page, WebServer};
use tar::EntryType;

use crate::e2e::fixture::Fixture;

const COPY_ALL: &[u8] = b"FROM scratch\nCOPY . /c/\n";

/// Files of the context, in the order of their paths, or a part of the error.
type Outcome = Result<&'static str, &'static str>;

fn file(tar: LayerBuilder, path: &str, content: &[u8]) -> LayerBuilder {
    tar.file(path, Attributes::mode(0o644), content)
}

fn link(tar: LayerBuilder, path: &str, kind: EntryType, target: &str) -> LayerBuilder {
    tar.raw(path, kind, Attributes::mode(0o644), target, b"", (0, 0), &[])
}

/// An archive with a Dockerfile that copies everything.
fn whole() -> LayerBuilder {
    file(LayerBuilder::new(), "Dockerfile", COPY_ALL)
}

/// What came out of `rbuild build` with these arguments and this standard input.
#[track_caller]
fn check(fixture: &Fixture, what: &str, args: &[&str], stdin: &[u8], expected: Outcome) {
    let archive = fixture.archive();
    let ran = fixture
        .build_of()
        .arg(format!("--output=type=oci,dest={}", archive.display()))
        .args(args)
        .stdin(stdin)
        .run();
    match expected {
        Err(part) => {
            assert!(!ran.status.success(), "{what}\n{ran}");
            assert!(ran.stderr.contains(part), "{what}: no {part:?}\n{ran}");
            assert!(!ran.stderr.contains("root:x:0"), "{what}\n{ran}");
        }
        Ok(names) => {
            assert!(ran.status.success(), "{what}\n{ran}");
            let image = OciLayout::open(&archive).and_then(|layout| layout.image());
            let files = image.and_then(|image| image.files()).expect("an image");
            let found: Vec<&str> = files.paths().filter_map(|path| path.strip_prefix("c/")).collect();
            assert_eq!(found.join(" "), names, "{what}\n{ran}");
        }
    }
}

#[test]
fn archives_are_taken_whatever_they_are_compressed_with() {
    let fixture = Fixture::new("FROM scratch\n");
    let plain = file(whole(), "a/f", b"x").finish();
    let all: Outcome = Ok("Dockerfile a a/f");
    check(&fixture, "tar", &["-"], &plain, all);
    for end in ["gz", "bz2", "xz"] {
        check(&fixture, end, &["-"], &compressed(&plain, end), all);
    }
    // BuildKit reads this as a Dockerfile.
    check(&fixture, "zst", &["-"], &compressed(&plain, "zst"), all);
    let (head, tail) = plain.split_at(700);
    let members = [compressed(head, "gz"), compressed(tail, "gz")].concat();
    check(&fixture, "two members", &["-"], &members, all);
    check(
        &fixture,
        "no end",
        &["-"],
        &file(whole(), "a/f", b"x").unfinished(),
        all,
    );
    let trailing = [&plain[..], b"more"].concat();
    check(&fixture, "more behind it", &["-"], &trailing, all);
    let noisy = file(whole(), "r", &rbuild_testkit::context::noise(9000)).finish();
    let packed = compressed(&noisy, "gz");
    for (what, bytes) in [
        ("cut", &noisy[..6000]),
        ("cut behind a header", &noisy[..512]),
        ("cut and compressed", &packed[..6000]),
        ("two bytes of gzip", b"\x1f\x8b\x08"),
        ("three bytes of bzip2", b"BZh"),
    ] {
        check(&fixture, what, &["-"], bytes, Err("context archive: unpack"));
    }
    let text = compressed(b"FROM scratch\n", "gz");
    check(
        &fixture,
        "a compressed text",
        &["-"],
        &text,
        Err("context archive: unpack"),
    );
}

#[test]
fn what_is_no_archive_is_the_dockerfile() {
    let fixture = Fixture::new("FROM scratch\nCOPY . /c/\n");
    let dir = fixture.context.dir().display().to_string();
    for (what, text, expected) in [
        ("a text", &b"FROM scratch\nCOPY . /c/\n"[..], Ok("")),
        ("no line end", b"FROM scratch\nCOPY . /c/", Ok("")),
        (
            "a mark and Windows' line ends",
            b"\xef\xbb\xbf# escape=`\r\nFROM scratch\r\nCOPY . `\r\n /c/\r\n",
            Ok(""),
        ),
        (
            "a file of the context",
            b"FROM scratch\nCOPY Dockerfile /\n",
            Err("\"/Dockerfile\": not found"),
        ),
        ("nothing", b"", Err("standard input is empty")),
        ("a blank line", b"\n", Err("file with no instructions")),
        ("a letter", b"F", Err("unknown instruction: F")),
        ("zeros", &[0; 1024], Err("unknown instruction: ")),
        ("noise", b"\x80\x81\x82\x83", Err("unknown instruction: ")),
    ] {
        check(&fixture, what, &["-"], text, expected);
    }
    let to = |args: [&'static str; 2]| [args[0], args[1], "-"];
    check(
        &fixture,
        "both",
        &to(["-f", "-"]),
        COPY_ALL,
        Err("can't use stdin for both"),
    );
    check(
        &fixture,
        "another name for a text",
        &to(["-f", "x"]),
        COPY_ALL,
        Err("ambiguous Dockerfile source"),
    );
    check(
        &fixture,
        "for a directory",
        &["-f", "-", &dir],
        COPY_ALL,
        Ok("Dockerfile"),
    );
    let archive = whole().finish();
    check(
        &fixture,
        "an archive as Dockerfile",
        &["-f", "-", &dir],
        &archive,
        Err("unknown instruction"),
    );
}

#[test]
fn the_dockerfile_of_an_archive_is_found_in_it_and_nowhere_else() {
    let fixture = Fixture::new("FROM scratch\n");
    let sub = file(LayerBuilder::new(), "sub/D", COPY_ALL).finish();
    for name in ["sub/D", "/sub/D", "./sub/D", "x/../sub/D", "../sub/D"] {
        check(&fixture, name, &["-f", name, "-"], &sub, Ok("sub sub/D"));
    }
    let missing =
        Err("ERROR: failed to build: failed to solve: failed to read dockerfile: open nope: no such file");
    check(
        &fixture,
        "missing",
        &["-f", "nope", "-"],
        &whole().finish(),
        missing,
    );
    let none = Err(
        "ERROR: failed to build: failed to solve: failed to read dockerfile: open Dockerfile: no such file",
    );
    let other = file(LayerBuilder::new(), "x", b"y").finish();
    check(&fixture, "none", &["-"], &other, none);
    let lower = file(LayerBuilder::new(), "dockerfile", COPY_ALL).finish();
    check(&fixture, "lower case", &["-"], &lower, Ok("dockerfile"));
    let real = || file(LayerBuilder::new(), "real", COPY_ALL);
    let linked = link(real(), "Dockerfile", EntryType::Symlink, "real").finish();
    check(&fixture, "a link", &["-"], &linked, Ok("Dockerfile real"));
    let hard = link(real(), "Dockerfile", EntryType::Link, "real").finish();
    check(&fixture, "a hard link", &["-"], &hard, Ok("Dockerfile real"));
    let out = link(
        LayerBuilder::new(),
        "Dockerfile",
        EntryType::Symlink,
        "/etc/passwd",
    )
    .finish();
    check(&fixture, "a link out of it", &["-"], &out, none);
    let dir = LayerBuilder::new()
        .dir("Dockerfile", Attributes::mode(0o755))
        .finish();
    check(
        &fixture,
        "a directory",
        &["-"],
        &dir,
        Err("is not a regular file"),
    );
    let twice = file(
        file(LayerBuilder::new(), "Dockerfile", b"FROM nope\n"),
        "Dockerfile",
        COPY_ALL,
    );
    check(&fixture, "twice", &["-"], &twice.finish(), Ok("Dockerfile"));
    let marked = file(
        LayerBuilder::new(),
        "Dockerfile",
        b"\xef\xbb\xbfFROM scratch\r\nCOPY . /c/\r\n",
    );
    check(&fixture, "a mark", &["-"], &marked.finish(), Ok("Dockerfile"));
}

#[test]
fn names_in_an_archive_stay_in_it() {
    let fixture = Fixture::new("FROM scratch\n");
    let long = format!("{}/{}", "a".repeat(120), "\u{e9}".repeat(90));
    for (path, expected) in [
        ("./a/f", "Dockerfile a a/f"),
        ("/a/f", "Dockerfile a a/f"),
        ("../e", "Dockerfile e"),
        ("a/../b", "Dockerfile b"),
        ("a/../../../e", "Dockerfile e"),
        ("a\\b", "Dockerfile a\\b"),
    ] {
        check(
            &fixture,
            path,
            &["-"],
            &file(whole(), path, b"x").finish(),
            Ok(expected),
        );
    }
    let named = file(whole(), &long, b"x").finish();
    let archive = fixture.archive();
    fixture
        .build_of()
        .arg(format!("--output=type=oci,dest={}", archive.display()))
        .arg("-")
        .stdin(named)
        .ok();
    let files = OciLayout::open(&archive)
        .and_then(|layout| layout.image())
        .unwrap()
        .files()
        .unwrap();
    assert_eq!(files.text(&format!("c/{long}")), Some("x"));
    for (what, target, expected) in [
        ("out", "/etc/passwd", Ok("Dockerfile l")),
        ("up", "../../etc/passwd", Ok("Dockerfile l")),
    ] {
        let linked = link(whole(), "l", EntryType::Symlink, target).finish();
        check(&fixture, what, &["-"], &linked, expected);
        let through = file(link(whole(), "l", EntryType::Symlink, "/tmp"), "l/x", b"y").finish();
        check(&fixture, what, &["-"], &through, Err("\"l/x\""));
        let hard = link(whole(), "l", EntryType::Link, target).finish();
        check(&fixture, what, &["-"], &hard, Err("is not in this archive"));
    }
    let both = link(file(whole(), "a", b"x"), "b", EntryType::Link, "a").finish();
    check(&fixture, "a hard link", &["-"], &both, Ok("Dockerfile a b"));
    let fifo = link(whole(), "p", EntryType::Fifo, "").finish();
    check(&fixture, "a pipe", &["-"], &fifo, Ok("Dockerfile p"));
    let turned = file(file(whole(), "a/b", b"x"), "a", b"y").finish();
    check(
        &fixture,
        "a directory that becomes a file",
        &["-"],
        &turned,
        Ok("Dockerfile a"),
    );
}

#[test]
fn the_same_archives_behind_an_address() {
    let fixture = Fixture::new("FROM scratch\n");
    let server = WebServer::start();
    let plain = file(file(whole(), "a/f", b"x"), ".dockerignore", b"a\n").finish();
    let dir = fixture.context.dir().display().to_string();
    for end in ["tar", "gz", "bz2", "xz"] {
        let path = format!("/{end}");
        server.put(&path, Page::of(compressed(&plain, end)));
        let url = server.url(&path);
        // The ignore file is of directories: an archive is taken whole.
        check(&fixture, end, &[&url], b"", Ok(".dockerignore Dockerfile a a/f"));
    }
    let noisy = file(whole(), "r", &rbuild_testkit::context::noise(9000)).finish();
    server
        .put("/text", Page::of(COPY_ALL))
        .put("/cut", Page::of(&noisy[..6000]))
        .put(
            "/sub",
            Page::of(file(LayerBuilder::new(), "sub/D", COPY_ALL).finish()),
        );
    let url = |path: &str| server.url(path);
    check(&fixture, "a Dockerfile", &[&url("/text")], b"", Ok("context"));
    check(
        &fixture,
        "cut",
        &[&url("/cut")],
        b"",
        Err("failed to read dockerfile"),
    );
    check(
        &fixture,
        "absent",
        &[&url("/none")],
        b"",
        Err("failed to read downloaded context"),
    );
    // A path from the root is this machine's.
    check(
        &fixture,
        "/sub/D",
        &["-f", "/sub/D", &url("/sub")],
        b"",
        Err("no such file or directory"),
    );
    for name in ["sub/D", "../sub/D"] {
        check(&fixture, name, &["-f", name, &url("/sub")], b"", Ok("sub sub/D"));
    }
    check(
        &fixture,
        "by standard input",
        &["-f", "-", &url("/sub")],
        COPY_ALL,
        Ok("sub sub/D"),
    );
    check(
        &fixture,
        "of an address",
        &["-f", &url("/text"), &dir],
        b"",
        Ok("Dockerfile"),
    );
}
