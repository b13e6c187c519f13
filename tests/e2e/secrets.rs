//! A secret is where it was asked for and nowhere else: not in the image, not in the store, not on the screen.

use std::fs;
use std::path::Path;

use rbuild_testkit::facts::hex;
use rbuild_testkit::image::decompressed;

use crate::e2e::fixture::Fixture;

const VALUE: &str = "s3cr3t-Va1ue-that-must-not-be-kept";

/// Files below `dir` that hold the secret in any plain coding, compressed blobs looked into.
fn holders(dir: &Path) -> Vec<String> {
    let coded = [
        VALUE.as_bytes().to_vec(),
        hex(VALUE.as_bytes()).into_bytes(),
        b"czNjcjN0LVZhMXVlLXRoYXQtbXVzdC1ub3QtYmUta2VwdA".to_vec(),
    ];
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(metadata) = path.symlink_metadata() else {
            continue;
        };
        if metadata.is_dir() {
            todo.extend(
                fs::read_dir(&path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path()),
            );
        } else if metadata.is_file() {
            let raw = fs::read(&path).unwrap_or_default();
            let plain = decompressed(&raw).unwrap_or_default();
            if [&raw, &plain].iter().any(|bytes| {
                coded.iter().any(|needle| {
                    bytes
                        .windows(needle.len())
                        .any(|window| window == needle.as_slice())
                })
            }) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[test]
fn a_secret_file_reaches_the_step_and_nothing_else() {
    let fixture = Fixture::new(
        "FROM busybox\nRUN --mount=type=secret,id=token md5sum /run/secrets/token | cut -c1-8 > /sum\n",
    );
    // Outside of what is searched.
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("token");
    fs::write(&file, VALUE).unwrap();
    let (ran, image) = fixture.image(&[&format!("--secret=id=token,src={}", file.display())]);
    assert_eq!(image.files().unwrap().text("sum").map(str::len), Some(9), "{ran}");
    assert!(
        image.files().unwrap().get("run/secrets").is_none(),
        "the mount point stayed"
    );
    assert_eq!(holders(&fixture.home.store()), Vec::<String>::new());
    assert_eq!(holders(&fixture.home.tmp()), Vec::<String>::new());
    assert_eq!(holders(&fixture.home.work()), Vec::<String>::new());
    assert_eq!(holders(&fixture.home.home()), Vec::<String>::new());
    ran.never_says(VALUE);
}

#[test]
fn the_search_finds_a_secret_that_is_kept() {
    let fixture = Fixture::new(&format!("FROM busybox\nRUN echo {VALUE} > /kept\n"));
    fixture.image(&[]);
    assert!(
        !holders(&fixture.home.store()).is_empty(),
        "the search of the other test finds nothing at all"
    );
    assert!(!holders(&fixture.home.work()).is_empty());
}

#[test]
fn a_secret_variable_is_for_one_step_and_not_part_of_its_cache_key() {
    let fixture = Fixture::new(
        "FROM busybox\nRUN --mount=type=secret,id=token,env=TOKEN test -n \"$TOKEN\"\nRUN echo \"[$TOKEN]\" > /after\n",
    );
    let build = |value: &str| {
        fixture
            .build()
            .env("TOKEN_SOURCE", value)
            .arg("--secret=id=token,env=TOKEN_SOURCE")
            .ok()
            .never_says(VALUE)
    };
    build(VALUE);
    let second = build("another value");
    assert!(
        second.executed().iter().all(|step| !step.contains("RUN")),
        "a secret's value is in a cache key\n{second}"
    );
    assert_eq!(holders(&fixture.home.store()), Vec::<String>::new());
}

#[test]
fn host_ca_is_seen_by_steps_and_leaves_no_trace() {
    let dockerfile = "FROM busybox\nRUN test -s \"$SSL_CERT_FILE\" && grep -c BEGIN \"$SSL_CERT_FILE\" > /dev/null && env | grep -c CERT > /count; ls /etc/ssl /usr/local/share/ca-certificates 2>/dev/null; true\nRUN true\n";
    let fixture = Fixture::new(dockerfile);
    let (_, with) = fixture.image(&["--host-ca"]);
    let files = with.files().unwrap();
    assert!(files.get("count").is_some(), "the step saw no bundle");
    assert!(
        files
            .paths()
            .all(|path| !path.starts_with("etc/ssl") && !path.contains("ca-cert")),
        "{:?}",
        files.table()
    );
    assert!(
        !with.run_config().to_string().to_lowercase().contains("cert"),
        "{}",
        with.config["config"]
    );
    let again = fixture.build().ok();
    assert!(
        again.executed().iter().all(|step| !step.contains("RUN")),
        "the bundle is in a cache key\n{again}"
    );
}
