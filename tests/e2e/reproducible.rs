//! The same input and `SOURCE_DATE_EPOCH` are the same bytes, whoever builds, when, where and with how many hands.

use std::fs;
use std::time::Duration;

use rbuild_testkit::command::{RbuildCommand, TestHome};
use rbuild_testkit::context::noise;
use rbuild_testkit::facts::sha256_hex;
use rbuild_testkit::machine;

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
