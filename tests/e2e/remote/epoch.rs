//! `SOURCE_DATE_EPOCH` of what has a time: the main context, a named context, a stage that is one ADD from the network.

use rbuild_testkit::context::gzipped;
use rbuild_testkit::image::{Image, OciLayout};
use rbuild_testkit::layout::{Attributes, LayerBuilder};
use rbuild_testkit::web::{Page, WebServer};

use crate::e2e::fixture::Fixture;
use crate::e2e::remote::git::{Repository, TIME};

/// Newest file of [`archive`].
const NEWEST: u64 = 1_700_000_402;
const LAST_MODIFIED: &str = "Tue, 14 Nov 2023 22:20:01 GMT";
/// The same in seconds.
const MODIFIED: u64 = 1_700_000_401;
/// Shows the time to a step.
const DOCKERFILE: &str = "FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN echo \"[$SOURCE_DATE_EPOCH]\" >/epoch\n";

fn archive(dockerfile: &str) -> Vec<u8> {
    let at = |mtime| Attributes {
        mtime,
        ..Attributes::mode(0o644)
    };
    LayerBuilder::new()
        .file("Dockerfile", at(NEWEST - 60), dockerfile.as_bytes())
        .file("a", at(NEWEST), b"a")
        .finish()
}

/// Builds `context` and gives the image and the time that the step saw.
#[track_caller]
fn build(fixture: &Fixture, args: &[&str], context: &str) -> (Image, String) {
    let file = fixture.archive();
    let output = format!("--output=type=oci,rewrite-timestamp=true,dest={}", file.display());
    fixture.build_of().args(args).arg(output).arg(context).ok();
    let image = OciLayout::open(&file).unwrap().image().unwrap();
    let files = image.files().unwrap();
    let seen = files.text("epoch").unwrap_or_default().trim().to_owned();
    (image, seen)
}

/// Everything new in `image` is of the second `time`.
#[track_caller]
fn is_of(image: &Image, seen: &str, time: u64, what: &str) {
    assert_eq!(seen, format!("[{time}]"), "{what}");
    let created = image.config["created"].as_str().unwrap();
    let created = rbuild_oci::Timestamp::parse(created).unwrap();
    assert_eq!(created.unix_seconds(), i64::try_from(time).unwrap(), "{what}");
    let layers = image.manifest["layers"].as_array().unwrap();
    let annotations = &layers.last().unwrap()["annotations"];
    assert_eq!(
        annotations["buildkit/rewritten-timestamp"],
        time.to_string(),
        "{what}"
    );
}

#[test]
fn a_context_from_the_network_has_the_time_of_its_commit_or_of_its_file() {
    let root = tempfile::tempdir().unwrap();
    let repository = Repository::create(root.path(), "r");
    repository.file("Dockerfile", DOCKERFILE).commit();
    repository.git(&["tag", "-a", "-m", "one", "v1"]);
    let commit = repository.git(&["rev-parse", "main"]);
    let by_commit = format!("/git/r.git#{}", commit.trim());
    let server = WebServer::start();
    let tar = archive(DOCKERFILE);
    server
        .serve_git(root.path())
        .put("/plain.tar", Page::of(tar.clone()))
        .put("/packed.tgz", Page::of(gzipped(&tar)))
        .put("/dated.tar", Page::of(tar).header("Last-Modified", LAST_MODIFIED))
        .put("/Dockerfile", Page::of(DOCKERFILE));
    let fixture = Fixture::new("");
    let context = "--build-arg=SOURCE_DATE_EPOCH=context";
    for (path, time) in [
        ("/git/r.git", TIME),
        ("/git/r.git#v1", TIME),
        (&by_commit, TIME),
        ("/plain.tar", NEWEST),
        ("/packed.tgz", NEWEST),
        ("/dated.tar", MODIFIED),
    ] {
        let (image, seen) = build(&fixture, &[context], &server.url(path));
        is_of(&image, &seen, time, path);
    }
    let (_, seen) = build(&fixture, &[context], &server.url("/Dockerfile"));
    assert_eq!(seen, "[]", "a Dockerfile alone has no time");
    let local = Fixture::new(DOCKERFILE);
    let (_, seen) = build(&local, &[context], &local.context.dir().display().to_string());
    assert_eq!(seen, "[]", "nor has a directory");
}

#[test]
fn a_named_context_or_a_stage_gives_its_time() {
    let server = WebServer::start();
    server.put("/plain.tar", Page::of(archive(""))).put(
        "/dated.tar",
        Page::of(archive("")).header("Last-Modified", LAST_MODIFIED),
    );
    let named = Fixture::new(&format!("ARG SOURCE_DATE_EPOCH=src\n{DOCKERFILE}"));
    let here = named.context.dir().display().to_string();
    for (path, time) in [("/plain.tar", NEWEST), ("/dated.tar", MODIFIED)] {
        let context = format!("--build-context=src={}", server.url(path));
        let (image, seen) = build(&named, &[&context], &here);
        is_of(&image, &seen, time, path);
    }
    let url = server.url("/plain.tar");
    let stage = Fixture::new(&format!(
        "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD {url} /\n{DOCKERFILE}"
    ));
    let here = stage.context.dir().display().to_string();
    let (image, seen) = build(&stage, &[], &here);
    is_of(&image, &seen, NEWEST, "stage");
    let (image, seen) = build(&stage, &["--build-arg=SOURCE_DATE_EPOCH=1600000000"], &here);
    is_of(&image, &seen, 1_600_000_000, "a number beats the Dockerfile");
}

#[test]
fn what_has_no_time_to_give_is_refused_with_its_line() {
    let stage =
        Fixture::new("ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nCOPY Dockerfile /\nFROM scratch\n");
    stage
        .build()
        .fails()
        .says("SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported COPY instruction")
        .says("Dockerfile:2");
    let nobody = Fixture::new("FROM scratch\nCOPY Dockerfile /\n");
    nobody
        .build()
        .arg("--build-arg=SOURCE_DATE_EPOCH=not-a-timestamp")
        .fails()
        .says("invalid SOURCE_DATE_EPOCH: not-a-timestamp");
    let server = WebServer::start();
    let url = server.url("/gone.tar");
    let gone = Fixture::new(&format!(
        "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD {url} /\nFROM scratch\nCOPY Dockerfile /\n"
    ));
    gone.build().fails().says("404");
}
