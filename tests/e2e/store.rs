//! One store and several processes; its upkeep; a disk that is full.

use std::thread;
use std::time::Duration;

use rbuild_testkit::command::{Ran, RbuildCommand};
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::validate;

use crate::e2e::fixture::{Fixture, RBUILD, busybox_argument, is_root};

#[test]
fn two_builds_at_once_on_one_store_both_succeed() {
    let fixture = Fixture::new(
        "FROM busybox AS shared\nRUN sleep 0.5; echo shared > /shared\nFROM busybox\nARG WHO\nCOPY --from=shared /shared /\nRUN echo $WHO > /who\n",
    );
    let builds: Vec<_> = (0..4)
        .map(|n| {
            let archive = fixture.home.work().join(format!("{n}.tar"));
            let command = fixture
                .build()
                .arg(format!("--build-arg=WHO={}", n % 2))
                .arg(format!("--output=type=oci,dest={}", archive.display()));
            (archive, thread::spawn(move || command.ok()))
        })
        .collect();
    for (n, (archive, build)) in builds.into_iter().enumerate() {
        let ran = build.join().expect("the build succeeds");
        let layout = OciLayout::open(&archive).unwrap();
        validate::assert_valid(&layout);
        let files = layout.image().unwrap().files().unwrap();
        assert_eq!(files.text("shared"), Some("shared\n"), "{ran}");
        assert_eq!(files.text("who"), Some(format!("{}\n", n % 2).as_str()), "{ran}");
    }
}

#[test]
fn a_shared_cache_mount_is_safe_between_two_builds() {
    let fixture = Fixture::new(
        "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c,sharing=locked n=$(cat /c/n 2>/dev/null || echo 0); sleep 0.3; echo $((n+1)) > /c/n; cp /c/n /n\n",
    );
    let builds: Vec<_> = (0..3)
        .map(|n| {
            let command = fixture.build().arg(format!("--build-arg=N={n}"));
            thread::spawn(move || command.ok())
        })
        .collect();
    for build in builds {
        build.join().expect("the build succeeds");
    }
    let (_, image) = fixture.image(&["--build-arg=N=last"]);
    assert_eq!(
        image.files().unwrap().text("n"),
        Some("4\n"),
        "a locked cache mount was used by two steps at once"
    );
}

#[test]
fn prune_removes_what_nothing_needs_and_du_says_so() {
    let fixture = Fixture::new("FROM busybox\nCOPY noise /noise\n");
    fixture
        .context
        .file("noise", rbuild_testkit::context::noise(4 << 20));
    fixture.build().ok();
    let used = blocks(&fixture.home.store());
    let listed = fixture.rbuild(["du"]).ok();
    assert!(!listed.stdout_text().is_empty(), "du prints nothing");
    fixture.rbuild(["prune", "--all", "--force"]).ok();
    let left = blocks(&fixture.home.store());
    assert!(left + (4 << 20) <= used, "{used} bytes before, {left} after");
    fixture.build().ok();
}

/// Bytes on disk below a directory.
fn blocks(dir: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let metadata = entry.metadata().expect("metadata of the store");
        sum += metadata.blocks() * 512;
        if metadata.is_dir() {
            sum += blocks(&entry.path());
        }
    }
    sum
}

/// Builds the context and then a small one, in a store on a disk of 32 MiB: the first is too large for it.
#[track_caller]
fn assert_full_disk_is_told(fixture: &Fixture) -> Ran {
    let small = fixture.home.work().join("small");
    std::fs::create_dir(&small).unwrap();
    std::fs::write(small.join("Dockerfile"), "FROM busybox\nRUN echo fits > /fits\n").unwrap();
    // In a mount namespace of its own, which ends with it.
    let script = "mount -t tmpfs -o size=32m,mode=0700 tmpfs \"$RBUILD_ROOT\" || exit 99
\"$RBUILD\" build \"$BASE\" \"$BIG\" && exit 98
echo ---
exec \"$RBUILD\" build --progress=plain \"$BASE\" \"$SMALL\"";
    let ran = fixture
        .home
        .command("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .env("RBUILD", RBUILD)
        .env("BASE", busybox_argument("busybox"))
        .env("BIG", fixture.context.dir())
        .env("SMALL", &small)
        .ok();
    assert!(ran.stderr.to_lowercase().contains("no space left"), "{ran}");
    ran
}

#[test]
fn privileged_a_full_disk_is_told_and_the_next_build_works() {
    if !is_root("a small tmpfs") {
        return;
    }
    let copied = Fixture::new("FROM busybox\nCOPY noise /noise\n");
    copied
        .context
        .file("noise", rbuild_testkit::context::noise(48 << 20));
    assert_full_disk_is_told(&copied).says("`rbuild prune` frees");
    let written = Fixture::new("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=64\n");
    assert_full_disk_is_told(&written);
}

#[test]
fn privileged_a_store_that_cannot_be_written_is_told_and_read() {
    if !is_root("mounting a store read-only") {
        return;
    }
    let fixture = Fixture::new("FROM scratch\nLABEL a=b\n");
    fixture.build().args(["-t", "kept"]).ok();
    fixture.context.file("Dockerfile", "FROM scratch\nLABEL a=c\n");
    let script = "mount --bind \"$RBUILD_ROOT\" \"$RBUILD_ROOT\" && mount -o remount,ro,bind \"$RBUILD_ROOT\" || exit 99
\"$RBUILD\" build \"$CONTEXT\" && exit 98
exec \"$RBUILD\" images --format '{{.Repository}}'";
    let ran = fixture
        .home
        .command("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .env("RBUILD", RBUILD)
        .env("CONTEXT", fixture.context.dir())
        .ok();
    assert_eq!(ran.stdout, b"kept\n", "{ran}");
    ran.says("Read-only file system").says(
        "hint: the store's file system cannot be written; name another place with --root or RBUILD_ROOT",
    );
}

#[test]
fn a_root_that_cannot_be_made_is_named() {
    let fixture = Fixture::new("FROM scratch\nLABEL a=b\n");
    let unreadable = RbuildCommand::new(RBUILD)
        .args(["build", "--root", "/proc/rbuild-cannot-be-here"])
        .arg(fixture.context.dir())
        .timeout(Duration::from_secs(20))
        .fails();
    assert!(
        unreadable.stderr.contains("/proc/rbuild-cannot-be-here"),
        "{unreadable}"
    );
}
