//! Contexts from the network: `rbuild build URL` and `--build-context name=URL`.

use std::fs;

use rbuild_testkit::command::Ran;
use rbuild_testkit::context::gzipped;
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::layout::{Attributes, LayerBuilder};
use rbuild_testkit::web::{Page, WebServer};

use crate::e2e::fixture::Fixture;
use crate::e2e::remote::git::{Repository, TIME};

const DOCKERFILE: &str = "FROM busybox\nCOPY . /all\nRUN find /all | sort > /seen\n";

/// Builds `context` and gives the transcript with the files of the image.
#[track_caller]
fn build(fixture: &Fixture, args: &[&str], context: &str) -> (Ran, rbuild_testkit::image::Files) {
    let archive = fixture.archive();
    let ran = fixture
        .build_of()
        .args(args)
        .arg(format!("--output=type=oci,dest={}", archive.display()))
        .arg(context)
        .ok();
    let image = OciLayout::open(&archive).unwrap().image().unwrap();
    (ran, image.files().unwrap())
}

fn served() -> (WebServer, tempfile::TempDir, Repository) {
    let root = tempfile::tempdir().unwrap();
    let repository = Repository::create(root.path(), "r");
    let server = WebServer::start();
    server.serve_git(root.path());
    (server, root, repository)
}

#[test]
fn a_repository_is_a_context_with_its_dockerfile() {
    let (server, _root, repository) = served();
    repository
        .file("Dockerfile", DOCKERFILE)
        .file("a", "a")
        .file(".dockerignore", "a\n")
        .file("sub/Dockerfile", "FROM busybox\nCOPY f /f\n")
        .file("sub/f", "sub")
        .file("other/D", "FROM busybox\nCOPY other/D /d\n")
        .commit();
    let fixture = Fixture::new("");
    let url = server.url("/git/r.git");
    let (first, files) = build(&fixture, &[], &url);
    let seen = files.text("seen").unwrap();
    assert!(
        seen.contains("/all/a\n"),
        "the ignore file is the client's, and there is none: {seen}"
    );
    assert!(!seen.contains("/all/.git\n"), "{seen}");
    assert!(first.stderr.contains("[internal] load git source"), "{first}");
    let (second, _) = build(&fixture, &[], &url);
    assert!(
        !second.executed().iter().any(|step| step.contains("RUN")),
        "a second build runs nothing\n{second}"
    );
    let (_, files) = build(&fixture, &[], &format!("{url}#main:sub"));
    assert_eq!(files.text("f"), Some("sub"));
    let (_, files) = build(&fixture, &["-f", "other/D"], &format!("{url}#main"));
    assert!(files.text("d").is_some());
    let (_, files) = build(&fixture, &["--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"], &url);
    assert!(files.get("all/.git/HEAD").is_some());
}

#[test]
fn files_are_as_old_as_their_commit_where_that_is_asked_for() {
    let (server, _root, repository) = served();
    repository
        .file("Dockerfile", "FROM busybox\nCOPY f d /\n")
        .file("f", "f")
        .file("d/g", "g")
        .commit();
    let url = server.url("/git/r.git");
    // A store each: times are no content, so the copy of one build would do for the next.
    let times = |args: &[&str], url: &str| {
        let (_, files) = build(&Fixture::new(""), args, url);
        ["f", "g"].map(|path| files.get(path).unwrap().mtime)
    };
    assert!(times(&[], &url).iter().all(|time| *time > TIME));
    assert_eq!(times(&[], &format!("{url}?mtime=commit")), [TIME; 2]);
    assert_eq!(
        times(&["--build-arg=SOURCE_DATE_EPOCH=1600000000"], &url),
        [TIME; 2]
    );
}

#[test]
fn a_dockerfile_of_this_machine_builds_a_context_of_another() {
    let (server, _root, repository) = served();
    repository.file("a", "a").commit();
    let fixture = Fixture::new("FROM busybox\nCOPY a /mine\n");
    let local = fixture.context.dir().join("Dockerfile");
    let url = server.url("/git/r.git");
    let (_, files) = build(&fixture, &["-f", &local.display().to_string()], &url);
    assert_eq!(files.text("mine"), Some("a"));
    let archive = fixture.archive();
    fixture
        .build_of()
        .args(["-f", "-"])
        .arg(format!("--output=type=oci,dest={}", archive.display()))
        .arg(&url)
        .stdin("FROM busybox\nCOPY a /piped\n")
        .ok();
    let image = OciLayout::open(&archive).unwrap().image().unwrap();
    assert_eq!(image.files().unwrap().text("piped"), Some("a"));
    fixture
        .build_of()
        .arg(&url)
        .fails()
        .says("failed to read dockerfile");
}

#[test]
fn an_archive_behind_a_url_is_a_context_whatever_its_name() {
    let server = WebServer::start();
    let tar = LayerBuilder::new()
        .file("Dockerfile", Attributes::mode(0o644), DOCKERFILE.as_bytes())
        .file("a", Attributes::mode(0o644), b"a")
        .finish();
    server
        .put("/ctx.tar", Page::of(tar.clone()))
        .put("/download?id=7", Page::of(gzipped(&tar)).header("ETag", "\"1\""));
    for path in ["/ctx.tar", "/download?id=7"] {
        let fixture = Fixture::new("");
        let (_, files) = build(&fixture, &[], &server.url(path));
        assert_eq!(
            files.text("seen"),
            Some("/all\n/all/Dockerfile\n/all/a\n"),
            "{path}"
        );
        server.forget();
        let (second, _) = build(&fixture, &[], &server.url(path));
        assert!(
            !second.executed().iter().any(|step| step.contains("RUN")),
            "{second}"
        );
        let gets = server
            .asked()
            .iter()
            .filter(|asked| asked.method == "GET")
            .count();
        assert!(gets <= 1, "asked once in a build: {:?}", server.asked());
    }
}

#[test]
fn a_dockerfile_behind_a_url_is_built_with_nothing_but_itself() {
    let server = WebServer::start();
    server.put("/D", Page::of("FROM busybox\nCOPY context /self\n"));
    let fixture = Fixture::new("");
    let (_, files) = build(&fixture, &[], &server.url("/D"));
    assert_eq!(files.text("self"), Some("FROM busybox\nCOPY context /self\n"));
    fixture
        .build_of()
        .arg(server.url("/absent"))
        .fails()
        .says("invalid response status 404");
    let bad = server.url("/git/r.git?what=x");
    fixture
        .build_of()
        .arg(bad)
        .fails()
        .says("unexpected query \"what\"");
}

#[test]
fn named_contexts_come_from_urls_too() {
    let (server, _root, repository) = served();
    repository.file("f", "git").commit();
    server.put("/page", Page::of("http"));
    let fixture = Fixture::new("FROM busybox\nCOPY --from=repo f /git\nCOPY --from=page context /http\n");
    let (ran, image) = fixture.image(&[
        &format!("--build-context=repo={}", server.url("/git/r.git#main")),
        &format!("--build-context=page={}", server.url("/page")),
    ]);
    let files = image.files().unwrap();
    assert_eq!(
        (files.text("git"), files.text("http")),
        (Some("git"), Some("http"))
    );
    assert!(ran.stderr.contains("[context page]"), "{ran}");
}

#[test]
fn row38_a_dockerfile_is_not_read_through_a_link_out_of_the_context() {
    let (server, _root, repository) = served();
    let fixture = Fixture::new("");
    let canary = fixture.home.work().join("canary");
    fs::write(&canary, "c4n4ry contents\n").unwrap();
    repository
        .link("Dockerfile", &canary)
        .link("twin", "real")
        .file("real", "FROM busybox\nCOPY real /real\n")
        .commit();
    let url = server.url("/git/r.git");
    fixture.build_of().arg(&url).fails().never_says("c4n4ry contents");
    let (_, files) = build(&fixture, &["-f", "twin"], &url);
    assert!(files.text("real").is_some(), "a link inside is fine");
}

#[test]
fn row38_a_part_of_a_repository_is_no_context_outside_it() {
    let (server, _root, repository) = served();
    let fixture = Fixture::new("");
    let canary = fixture.home.work().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("Dockerfile"), "FROM busybox\nRUN echo c4n4ry\n").unwrap();
    fs::write(canary.join("i"), "keep # c4n4ry\n").unwrap();
    repository
        .file("Dockerfile", "FROM busybox\nCOPY . /all\n")
        .file("keep", "kept")
        .link("sub", &canary)
        .link("sub2", "../..")
        .link("a/b", "../../../etc")
        .link(".dockerignore", canary.join("i"))
        .file("twin/Dockerfile", "FROM busybox\nCOPY . /twin\n")
        .link("twin/link", &canary)
        .commit();
    let url = server.url("/git/r.git");
    let work = fixture.home.work().display().to_string();
    for part in [
        "#main:sub",
        "#main:sub2",
        "#main:a/b",
        "#main:etc",
        &format!("#main:{work}/canary"),
    ] {
        let ran = fixture.build_of().arg(format!("{url}{part}")).fails();
        assert!(
            !ran.executed().iter().any(|step| step.contains("RUN")),
            "{part}\n{ran}"
        );
        ran.never_says("c4n4ry");
    }
    // What leads above the repository ends at its root.
    let (ran, files) = build(&fixture, &[], &format!("{url}#main:../.."));
    ran.never_says("c4n4ry");
    assert_eq!(
        files.text("all/keep"),
        Some("kept"),
        "an ignore file outside says nothing about what is inside"
    );
    let (_, files) = build(&fixture, &[], &format!("{url}#main:twin"));
    assert!(files.get("twin/Dockerfile").is_some());
    assert!(files.text("twin/link/i").is_none(), "a link stays a link");
}

#[test]
fn row38_an_archive_whose_dockerfile_is_a_link_writes_and_quotes_nothing_outside() {
    let server = WebServer::start();
    let fixture = Fixture::new("FROM busybox\nCOPY a /a\n");
    let canary = fixture.home.work().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("secret"), "root:c4n4ry:1:0:99999:7:::\n").unwrap();
    let whole = |dockerfile: &str| {
        LayerBuilder::new()
            .symlink("Dockerfile", dockerfile)
            .symlink("out", &canary.display().to_string())
            .file("real", Attributes::mode(0o644), b"FROM busybox\nCOPY a /a\n")
            .file("a", Attributes::mode(0o644), b"a")
            .finish()
    };
    let written = canary.join("D").display().to_string();
    let read = canary.join("secret").display().to_string();
    let broken = |mut tar: Vec<u8>| {
        // In the middle of the header behind the links.
        tar.truncate(1024 + 100);
        tar
    };
    let torn = {
        let mut tar = whole(&written);
        tar[1024..1536].fill(b'x');
        tar
    };
    server
        .put("/written.tar", Page::of(whole(&written)))
        .put("/broken.tar", Page::of(broken(whole(&written))))
        .put("/torn.tar", Page::of(torn))
        .put("/read.tar", Page::of(whole(&read)))
        .put("/relative.tar", Page::of(whole("../../../../../../etc/shadow")))
        .put("/twin.tar", Page::of(whole("real")));
    let own = fixture.context.dir().join("Dockerfile").display().to_string();
    for path in [
        "/written.tar",
        "/broken.tar",
        "/torn.tar",
        "/read.tar",
        "/relative.tar",
    ] {
        let url = server.url(path);
        fixture
            .build_of()
            .arg(&url)
            .fails()
            .never_says("c4n4ry")
            .never_says("root:");
        fixture
            .build_of()
            .args(["-f", "out/secret", &url])
            .fails()
            .never_says("c4n4ry");
    }
    // A Dockerfile of this machine beside such an archive is written nowhere.
    let (_, files) = build(&fixture, &["-f", &own], &server.url("/written.tar"));
    assert_eq!(files.text("a"), Some("a"));
    assert!(!canary.join("D").exists());
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 1);
    let (_, files) = build(&fixture, &[], &server.url("/twin.tar"));
    assert_eq!(files.text("a"), Some("a"), "a link inside is fine");
}

#[test]
fn row41_credentials_of_a_context_are_not_shown() {
    let (server, _root, repository) = served();
    repository.file("Dockerfile", DOCKERFILE).commit();
    let url = server.url("/git/r.git").replace("http://", "http://us:c4n4ry@");
    let fixture = Fixture::new("");
    let (ran, _) = build(&fixture, &[], &url);
    ran.never_says("c4n4ry");
    // Nor in what is said of the result, where the context is told.
    let archive = fixture.home.work().join("told.tar");
    for mode in ["min", "max"] {
        fixture
            .build_of()
            .arg(format!("--provenance=mode={mode}"))
            .arg(format!("--output=type=oci,dest={}", archive.display()))
            .arg(&url)
            .ok();
        // Statements are not compressed.
        let told = fs::read(&archive).unwrap();
        let says = |text: &str| told.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(says("xxxxx:xxxxx@") && !says("c4n4ry"), "{mode}");
    }
    fixture
        .build_of()
        .arg(format!("{url}#absent"))
        .fails()
        .never_says("c4n4ry");
}

#[test]
fn the_dockerfile_may_come_from_a_url() {
    let server = WebServer::start();
    server.put("/df", Page::of("FROM busybox\nCOPY mine /copied\n"));
    let fixture = Fixture::new("FROM busybox\nRUN false\n");
    fixture.context.file("mine", "of the context\n");
    let url = server.url("/df").replace("http://", "http://us:c4n4ry@");
    let context = fixture.context.dir().display().to_string();
    let (ran, files) = build(&fixture, &["-f", &url], &context);
    assert_eq!(files.text("copied"), Some("of the context\n"));
    ran.never_says("c4n4ry");
    // An error of it is shown as one of any Dockerfile.
    server.put("/df", Page::of("FROM busybox\nCOPPY mine /copied\n"));
    let wrong = fixture.build().args(["-f", &url]).fails().never_says("c4n4ry");
    assert!(
        wrong.stderr.contains("Dockerfile:2") && wrong.stderr.contains("COPPY"),
        "{wrong}"
    );
    let missing = server.url("/missing");
    let ran = fixture
        .build()
        .args(["-f", &missing])
        .fails()
        .says(&format!("failed to fetch Dockerfile {missing}"));
    assert_eq!(ran.status.code(), Some(7), "{ran}");
    fixture
        .build()
        .args(["--offline", "-f", &server.url("/df")])
        .fails()
        .says("--offline forbids");
    // A Dockerfile on standard input would be a second one.
    fixture
        .build_of()
        .args(["-f", &url, "-"])
        .stdin("FROM scratch\n")
        .fails();
}
