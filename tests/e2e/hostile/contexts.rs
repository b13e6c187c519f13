//! Row 40 on whole builds: a context that leads out of itself, or does not end.

use std::os::unix::fs::symlink;

use rbuild_testkit::facts::Kind;
use rbuild_testkit::image::OciLayout;

use crate::e2e::fixture::Fixture;
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
