//! The same input and `SOURCE_DATE_EPOCH` are the same bytes, whoever builds, when, where and with how many hands.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use rbuild_testkit::command::{RbuildCommand, TestHome};
use rbuild_testkit::context::noise;
use rbuild_testkit::facts::sha256_hex;
use rbuild_testkit::image::{OciLayout, entries};
use rbuild_testkit::machine;
use serde_json::Value;

use crate::e2e::fixture::{Fixture, RBUILD, busybox_argument, is_root};
use crate::e2e::ladder::WITHOUT_RANGES;

/// Steps, copies and links; a file large enough for several pieces and threads.
const APP: &str = "FROM busybox AS made
RUN mkdir /m && seq 1 400000 >/m/numbers && echo y >/m/y && chown -R 5:6 /m && ln /m/y /m/z
FROM busybox
COPY . /ctx
COPY --from=made --chown=1:2 /m /m
RUN ln -s /m /l && cp -a /m/numbers /n && rm /bin/vi && mkdir /new && date >/dev/null
ENV A=1
";
const NONE: [&str; 0] = [];
/// 2024-01-01.
const EPOCH: &str = "--build-arg=SOURCE_DATE_EPOCH=1704067200";

fn fixture(home: TestHome) -> Fixture {
    let fixture = Fixture::with_home(home, APP);
    for name in ["b", "a", "c/d", "c/B"] {
        fixture.context.file(name, name);
    }
    fixture.context.file("large", noise(3 << 20));
    fixture
}

/// What `build` wrote: an archive of gzip and one of zstd.
#[track_caller]
fn written(fixture: &Fixture, build: RbuildCommand, flags: &[String]) -> [String; 2] {
    let compressions = ["gzip", "zstd"];
    let dest = |compression: &str| fixture.home.work().join(format!("{compression}.tar"));
    let outputs = compressions.map(|compression| {
        let dest = dest(compression).display().to_string();
        format!("--output=type=oci,rewrite-timestamp=true,compression={compression},dest={dest}")
    });
    build
        .args(["build", "--progress=plain", EPOCH])
        .args(flags)
        .args(outputs)
        .arg(busybox_argument("busybox"))
        .arg(fixture.context.dir())
        .ok();
    compressions.map(|compression| sha256_hex(&fs::read(dest(compression)).unwrap()))
}

#[track_caller]
fn plain() -> [String; 2] {
    let fixture = fixture(TestHome::new());
    written(&fixture, fixture.rbuild(NONE), &[])
}

#[test]
fn images_are_the_same_on_another_day_in_another_directory_and_store() {
    let first = plain();
    std::thread::sleep(Duration::from_millis(1100));
    let later = fixture(TestHome::new());
    // Files that were checked out on another day, and the directory too.
    let touch = machine::required("touch", "coreutils").unwrap();
    RbuildCommand::new(touch)
        .args(["-d", "2025-05-05 05:05:05.5"])
        .args(["c/d", "c", "a", "."].map(|name| later.context.dir().join(name)))
        .ok();
    assert_eq!(written(&later, later.rbuild(NONE), &[]), first);
}

#[test]
fn images_are_the_same_from_one_processor() {
    let one = fixture(TestHome::new());
    let taskset = machine::required("taskset", "util-linux").unwrap();
    one.home.hand_over();
    let build = one.home.command(taskset).args(["-c", "0", RBUILD]);
    assert_eq!(written(&one, build, &[]), plain());
}

#[test]
fn images_are_the_same_whatever_the_number_of_jobs() {
    let first = plain();
    for jobs in ["1", "2", "9"] {
        let fixture = fixture(TestHome::new());
        let jobs = format!("--jobs={jobs}");
        let archives = written(&fixture, fixture.rbuild(NONE), std::slice::from_ref(&jobs));
        assert_eq!(archives, first, "{jobs}");
    }
}

#[test]
fn images_are_the_same_from_every_rung() {
    if !is_root("rungs of other users") {
        return;
    }
    let first = plain();
    let user = machine::ordinary_user().map(|user| (user.uid, user.gid));
    for (rung, snapshotter, user) in [
        ("root", "native", None),
        ("subids", "overlayfs", user),
        ("one-id", "overlayfs", Some((WITHOUT_RANGES, WITHOUT_RANGES))),
        ("chroot", "native", None),
    ] {
        let home = match user {
            Some((uid, gid)) => TestHome::for_user(uid, gid),
            None if rung != "subids" => TestHome::new(),
            None => {
                machine::skip("no ordinary user with subordinate ids");
                continue;
            }
        };
        let fixture = fixture(home);
        let flags = [format!("--rung={rung}"), format!("--snapshotter={snapshotter}")];
        let archives = written(&fixture, fixture.rbuild(NONE), &flags);
        assert_eq!(archives, first, "{rung}");
    }
}

/// Plain USTAR has no place for a time before 1970, so a layer with an entry of that kind stays as it is; one of entries that have
/// records anyway, as of a name that is not ASCII, is rewritten (BuildKit `util/converter/tarconverter`, Go's archive/tar).
#[test]
fn a_time_before_1970_is_given_to_layers_that_can_have_it() {
    let fixture =
        Fixture::new("FROM scratch\nCOPY plain /plain\nCOPY \u{e9} /\nCOPY nothing* /\nWORKDIR /w\n");
    fixture.context.file("plain", "p\n").file("\u{e9}", "e\n");
    let archive = fixture.archive();
    let built = |epoch: &str| {
        let output = format!(
            "--output=type=oci,rewrite-timestamp=true,dest={}",
            archive.display()
        );
        fixture
            .build()
            .arg(format!("--build-arg=SOURCE_DATE_EPOCH={epoch}"))
            .args(["--provenance=mode=max", &output])
            .ok();
        let image = OciLayout::open(&archive).unwrap().images().unwrap().remove(0);
        let layers = image.manifest["layers"].as_array().unwrap();
        let annotation = |layer: &Value| layer["annotations"]["buildkit/rewritten-timestamp"].clone();
        let annotations: Vec<Value> = layers.iter().map(annotation).collect();
        (
            image.config["created"].clone(),
            annotations,
            image.layer_tar(1).unwrap(),
        )
    };
    let has = |tar: &[u8], record: &[u8]| tar.windows(record.len()).any(|part| part == record);
    let (created, annotations, of_records) = built("-1");
    assert_eq!(created, "1969-12-31T23:59:59Z");
    assert_eq!(annotations, [Value::Null, "-1".into(), "-1".into(), "-1".into()]);
    assert!(has(&of_records, b" mtime=-1\n"));
    // The first second of year 1 is Go's word for no time, and written as 0. A second before it a directory's time overflows
    // in the definition that provenance tells.
    let (created, annotations, of_records) = built("-62135596800");
    assert_eq!(created, "0001-01-01T00:00:00Z");
    assert_eq!(annotations, ["-62135596800"; 4]);
    assert!(!has(&of_records, b" mtime="));
    assert_eq!(built("-62135596801").0, "0000-12-31T23:59:59Z");
}

/// Of a directory or tar every file has the time, older ones too (BuildKit `exporter/local/fs.go`).
#[test]
fn files_that_are_exported_have_the_time_whatever_they_had() {
    let fixture = Fixture::new("FROM scratch\nCOPY old /old\n");
    fixture.context.file("old", "o\n");
    let (tar, dir) = (fixture.home.work().join("x.tar"), fixture.home.work().join("x"));
    let epoch = 4_000_000_000;
    fixture
        .build()
        .arg(format!("--build-arg=SOURCE_DATE_EPOCH={epoch}"))
        .arg(format!("--output=type=tar,dest={}", tar.display()))
        .arg(format!("--output=type=local,dest={}", dir.display()))
        .ok();
    let (_, facts) = entries(&fs::read(tar).unwrap()).unwrap().remove(0);
    assert_eq!(facts.mtime, epoch);
    let metadata = fs::metadata(dir.join("old")).unwrap();
    assert_eq!(u64::try_from(metadata.mtime()), Ok(epoch));
}
