//! Caches that leave a store and come to another: by directory, by index, and inside an image; and caches that lie.

use std::path::{Path, PathBuf};

use rbuild_testkit::command::Ran;
use serde_json::Value;

use crate::e2e::fixture::Fixture;

const STEPS: &str = "FROM busybox AS build
RUN head -c 16 /dev/urandom > /unique
COPY src /src
FROM busybox
COPY --from=build /unique /copied
RUN cat /copied > /again
";

fn fixture() -> Fixture {
    let fixture = Fixture::new(STEPS);
    fixture.context.file("src", "s\n");
    fixture
}

fn cache_dir(fixture: &Fixture) -> PathBuf {
    fixture.home.work().join("cache")
}

fn to(dir: &Path, more: &str) -> String {
    format!("--cache-to=type=local,dest={}{more}", dir.display())
}

fn from(dir: &Path) -> String {
    format!("--cache-from=type=local,src={}", dir.display())
}

/// Builds with a store that has nothing.
#[track_caller]
fn build_afresh(fixture: &Fixture, args: &[&str]) -> (Ran, String) {
    let fresh = Fixture::new(STEPS);
    fresh.context.file("src", "s\n");
    // The caches lie in the first one's home.
    let _keep = fixture;
    let (ran, image) = fresh.image(args);
    (ran, image.manifest_digest)
}

#[track_caller]
fn assert_ran(ran: &Ran, step: &str, expected: bool) {
    let names = ran.executed();
    assert_eq!(
        names.iter().any(|name| name.ends_with(step)),
        expected,
        "{step}\n{ran}"
    );
}

#[test]
fn a_store_without_anything_takes_all_of_it_from_an_imported_cache() {
    for more in [
        "",
        ",mode=max",
        ",mode=max,image-manifest=false",
        ",compression=zstd,oci-mediatypes=true",
    ] {
        let fixture = fixture();
        let dir = cache_dir(&fixture);
        let (first, image) = fixture.image(&[&to(&dir, more)]);
        assert_ran(&first, "RUN cat /copied > /again", true);
        let (second, digest) = build_afresh(&fixture, &[&from(&dir)]);
        assert_ran(&second, "RUN head -c 16 /dev/urandom > /unique", false);
        assert_ran(&second, "RUN cat /copied > /again", false);
        if !more.contains("zstd") {
            assert_eq!(digest, image.manifest_digest, "{more}: the same image\n{second}");
        }
    }
}

#[test]
fn a_cache_goes_on_through_builds_that_import_and_export_it() {
    let fixture = fixture();
    let dir = cache_dir(&fixture);
    let (_, image) = fixture.image(&[&to(&dir, "")]);
    for _ in 0..2 {
        let (ran, digest) = build_afresh(&fixture, &[&from(&dir), &to(&dir, "")]);
        assert_ran(&ran, "RUN head -c 16 /dev/urandom > /unique", false);
        assert_eq!(digest, image.manifest_digest, "{ran}");
    }
}

#[test]
fn row46_a_cache_is_used_by_builds_that_name_it_only() {
    let fixture = fixture();
    let dir = cache_dir(&fixture);
    fixture.image(&[&to(&dir, "")]);
    let fresh = Fixture::new(&format!("{STEPS}RUN echo more\n"));
    fresh.context.file("src", "s\n");
    let (ran, _) = fresh.image(&[&from(&dir)]);
    assert_ran(&ran, "RUN cat /copied > /again", false);
    assert_ran(&ran, "RUN echo more", true);
    let (ran, _) = fresh.image(&[&from(&dir)]);
    assert_ran(&ran, "RUN echo more", false);
    let (ran, _) = fresh.image(&[]);
    assert_ran(&ran, "RUN head -c 16 /dev/urandom > /unique", true);
    assert_ran(&ran, "RUN echo more", true);
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn blob(dir: &Path, digest: &str) -> PathBuf {
    dir.join("blobs/sha256")
        .join(digest.trim_start_matches("sha256:"))
}

fn manifest_of(dir: &Path) -> Value {
    let index = read(&dir.join("index.json"));
    read(&blob(dir, index["manifests"][0]["digest"].as_str().unwrap()))
}

#[test]
fn row31_a_layer_that_is_not_what_its_digest_says_is_not_used() {
    let fixture = fixture();
    let dir = cache_dir(&fixture);
    fixture.image(&[&to(&dir, "")]);
    let manifest = manifest_of(&dir);
    for layer in manifest["layers"].as_array().unwrap() {
        let path = blob(&dir, layer["digest"].as_str().unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    let fresh = Fixture::new(STEPS);
    fresh.context.file("src", "s\n");
    let out = fresh.archive();
    let ran = fresh
        .build()
        .arg(from(&dir))
        .arg(format!("--output=type=oci,dest={}", out.display()))
        .fails();
    assert!(ran.to_string().contains("digest"), "{ran}");
    assert!(!out.exists(), "nothing is made of it");
}

#[test]
fn row46_a_cache_that_cannot_be_read_is_passed_over() {
    let fixture = fixture();
    let dir = cache_dir(&fixture);
    fixture.image(&[&to(&dir, "")]);
    // A config whose bytes are others than its digest says, then one that is not there at all.
    let manifest = manifest_of(&dir);
    let config = blob(&dir, manifest["config"]["digest"].as_str().unwrap());
    std::fs::write(&config, "{}").unwrap();
    let (ran, _) = build_afresh(&fixture, &[&from(&dir)]);
    assert_ran(&ran, "RUN cat /copied > /again", true);
    let (ran, _) = build_afresh(&fixture, &[&from(&dir.join("nowhere"))]);
    assert_ran(&ran, "RUN cat /copied > /again", true);
}
