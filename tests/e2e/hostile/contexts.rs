//! Row 40 on whole builds: a context that leads out of itself, or does not end.

use std::os::unix::fs::symlink;

use rbuild_testkit::facts::Kind;
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::machine;

use crate::e2e::fixture::{Fixture, RBUILD};
use crate::e2e::hostile::canary::{Rung, Site};

#[test]
fn row40_a_context_link_that_leaves_the_context_is_followed_only_inside_it() {
    for rung in Rung::unpacking() {
        let site = Site::on(rung, "");
        let dir = site.fixture.context.dir();
        symlink(site.canary.dir.join("secret"), dir.join("link")).unwrap();
        symlink("../canary/secret", dir.join("up")).unwrap();
        symlink("../canary", dir.join("door")).unwrap();
        for source in ["link", "up", "door/secret"] {
            site.fixture
                .context
                .dockerfile(&format!("FROM busybox\nCOPY {source} /copied\n"));
            site.refused(&[], source);
        }
        // The same links are copied as links where they are not what was named.
        site.fixture.context.dockerfile("FROM scratch\nCOPY . /c/\n");
        let files = site.works(&[]);
        assert_eq!(
            files.get("c/up").unwrap().kind,
            Kind::Symlink("../canary/secret".to_owned())
        );
        assert_eq!(
            files.get("c/door").unwrap().kind,
            Kind::Symlink("../canary".to_owned())
        );
    }
}

#[test]
fn row40_pipes_sockets_and_odd_names_of_a_context_block_nothing() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let fixture = Fixture::new("FROM busybox\nCOPY . /c\nRUN cd /c && ls -A | wc -l > /count\n");
    let dir = fixture.context.dir();
    for (name, kind) in [("pipe", FileType::Fifo), ("socket", FileType::Socket)] {
        mknodat(CWD, dir.join(name), kind, Mode::from_raw_mode(0o600), 0).unwrap();
    }
    fixture
        .context
        .file("new\nline", "1")
        .file("-rf", "2")
        .file("sp ace", "3");
    let ran = fixture.image(&[]).0;
    assert!(ran.elapsed < std::time::Duration::from_secs(60), "{ran}");
    let (_, image) = fixture.image(&[]);
    let files = image.files().unwrap();
    assert_eq!(files.text("count"), Some("6\n"));
    assert_eq!(files.text("c/socket"), Some(""), "a socket becomes an empty file");
    assert_eq!(files.text("c/-rf"), Some("2"));
}

#[test]
fn row40_no_way_of_writing_a_source_leaves_the_context() {
    for rung in Rung::unpacking() {
        let site = Site::on(rung, "");
        site.fixture.context.file("dir/inner/f", "x");
        for source in [
            "../canary/secret".to_owned(),
            "*/../../canary/secret".to_owned(),
            "dir/../../canary/secret".to_owned(),
            "dir/inner/../../../canary/sec*et".to_owned(),
            site.canary.dir.join("secret").display().to_string(),
        ] {
            site.fixture
                .context
                .dockerfile(&format!("FROM scratch\nCOPY {source} /copied\nCOPY dir /dir\n"));
            site.refused(&[], "Dockerfile:2");
        }
        // The legal twin: `..` that ends inside, and `..` of the root, which is the root.
        for source in ["dir/../dir/inner/f", "../dir/inner/f", "*/../dir/inner/f"] {
            site.fixture
                .context
                .dockerfile(&format!("FROM scratch\nCOPY {source} /copied\n"));
            assert_eq!(site.works(&[]).text("copied"), Some("x"), "{rung:?} {source}");
        }
    }
}

#[test]
fn row40_legal_twin_a_context_behind_a_link_and_a_link_inside_it() {
    let fixture = Fixture::new("FROM scratch\nCOPY . /c\nCOPY link /followed\n");
    fixture.context.file("dir/f", "through\n");
    symlink("dir/f", fixture.context.dir().join("link")).unwrap();
    let behind = fixture.home.work().join("behind");
    symlink(fixture.context.dir(), &behind).unwrap();
    let archive = fixture.archive();
    let output = format!("--output=type=oci,dest={}", archive.display());
    fixture.build_of().arg(behind).arg(output).ok();
    let image = OciLayout::open(&archive)
        .and_then(|layout| layout.image())
        .unwrap();
    let files = image.files().unwrap();
    assert_eq!(files.text("followed"), Some("through\n"));
    assert!(files.table()["c/link"].starts_with('l'), "{:?}", files.table());
}

#[test]
fn privileged_row40_a_context_mounted_into_itself_ends() {
    // Bound with all that is mounted below, twice, so that there is something below.
    const SCRIPT: &str = r#"mount --make-rprivate /
mount --rbind "$1" "$1/dir/inner"
mount --rbind "$1" "$1/dir/inner/dir/inner"
exec "$2" build --progress=plain "--output=type=oci,dest=$3" "$1""#;
    let fixture = Fixture::new("FROM scratch\nCOPY . /\n");
    fixture
        .context
        .file("dir/f", "once")
        .file("dir/inner/hidden", "x");
    let archive = fixture.archive();
    let build = fixture
        .home
        .command("unshare")
        .args(["--mount", "sh", "-ec", SCRIPT, "sh"])
        .arg(fixture.context.dir())
        .arg(RBUILD)
        .arg(&archive);
    let ran = build.ok();
    assert!(ran.elapsed < std::time::Duration::from_secs(60), "{ran}");
    let layout = OciLayout::open(&archive).unwrap();
    let files = layout.image().unwrap().files().unwrap();
    for path in ["dir/f", "dir/inner/dir/f"] {
        assert_eq!(files.text(path), Some("once"), "{path}");
    }
    assert!(
        files.get("dir/inner/hidden").is_none(),
        "what a mount covers is not seen"
    );
}

/// Files of the context below. Ten times as many were built by hand (`benches/results/2026-11-23-million-files.md`).
const MANY: usize = 100_000;
/// What a whole build may hold of each of them, bytes, and beside them all, KiB.
const HELD_PER_FILE: usize = 512;
const HELD_BESIDE_KIB: usize = 64 << 10;

#[test]
fn row40_a_file_of_the_context_takes_half_a_kilobyte() {
    let fixture = Fixture::new("FROM scratch\nCOPY . /\n");
    // Not on a disk: an ext4 without a journal is slow for a minute after so many files are deleted.
    let context = tempfile::tempdir_in("/dev/shm").unwrap();
    for dir in 0..MANY / 1000 {
        let below = context.path().join(format!("directory-{dir}"));
        std::fs::create_dir(&below).unwrap();
        for file in 0..1000 {
            let content = if file % 10 == 0 {
                format!("{dir}/{file}")
            } else {
                String::new()
            };
            std::fs::write(below.join(format!("file-{file}.txt")), content).unwrap();
        }
    }
    std::fs::copy(
        fixture.context.dir().join("Dockerfile"),
        context.path().join("Dockerfile"),
    )
    .unwrap();
    let archive = fixture.archive();
    let output = format!("--output=type=oci,dest={}", archive.display());
    for what in ["cold", "nothing changed", "one file changed"] {
        if what == "one file changed" {
            std::fs::write(context.path().join("directory-7/file-7.txt"), "changed").unwrap();
        }
        let build = fixture.build_of().arg(context.path()).arg(&output).spawn();
        let mut peak = 0;
        while let Some(kib) = machine::peak_kib(build.pid()) {
            peak = kib;
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        build.wait().succeeded();
        let most = HELD_BESIDE_KIB + MANY * HELD_PER_FILE / 1024;
        assert!(peak > 0, "{what}: nothing was measured");
        assert!(peak < most as u64, "{what}: {peak} KiB, and {most} are allowed");
    }
    let layout = OciLayout::open(&archive).unwrap();
    let files = layout.image().unwrap().files().unwrap();
    assert_eq!(files.text("directory-7/file-7.txt"), Some("changed"));
    assert_eq!(files.table().len(), MANY + MANY / 1000 + 1);
}
