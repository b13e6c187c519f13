//! `ADD` of archives onto a root, and what counts as an archive.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rbuild_layer::{
    DecompressLimits, DevicePolicy, ExtractOptions, LayerFormat, Limits, Packing, extract, is_archive,
    pack_with,
};
use rbuild_sys::RootFd;

use crate::archive::{Block, Tar, record};
use crate::canary::{Place, form};

fn options() -> ExtractOptions {
    ExtractOptions {
        chown: None,
        limits: Limits::default(),
        devices: DevicePolicy::for_form(form()),
    }
}

fn add(place: &Place, tar: &[u8], dest: &str, options: &ExtractOptions) -> bool {
    let root = RootFd::from_fd(place.open_root());
    let done = extract(tar, &root, Path::new(dest), options);
    place.check();
    done.is_ok()
}

#[test]
fn row01_the_boundary_of_add_is_its_destination() {
    for name in [&b"../e"[..], b"a/../../e", b"/e", b".//..//e"] {
        let place = Place::new();
        let gnu = Tar::default()
            .long(b'L', name)
            .block(Block::new(b"s", b'0', 1))
            .content(b"1")
            .end();
        let pax = Tar::default()
            .pax(&[record("path", name)])
            .block(Block::new(b"s", b'0', 1))
            .content(b"1")
            .end();
        for tar in [Tar::default().file(name, b"1").end(), gnu, pax] {
            assert!(add(&place, &tar, "/d", &options()));
            assert!(place.root().join("d/e").exists() && !place.root().join("e").exists());
        }
    }
}

#[test]
fn row02_links_made_before_lead_nowhere_outside() {
    let place = Place::new();
    std::os::unix::fs::symlink(place.canary(), place.root().join("d")).unwrap();
    assert!(add(
        &place,
        &Tar::default().file(b"pwn", b"1").end(),
        "/d/",
        &options()
    ));
    let inside = place.root().join(place.canary().strip_prefix("/").unwrap());
    assert!(
        inside.join("pwn").exists(),
        "the link's target is made inside the root"
    );

    let place = Place::new();
    std::fs::create_dir_all(place.root().join("real/real")).unwrap();
    std::os::unix::fs::symlink("/real", place.root().join("link")).unwrap();
    std::os::unix::fs::symlink("/real", place.root().join("real/abs")).unwrap();
    let tar = Tar::default().file(b"legal", b"1").file(b"abs/f", b"2").end();
    assert!(add(&place, &tar, "/link", &options()));
    assert!(
        place.root().join("real/legal").exists(),
        "a link to the destination is followed"
    );
    assert!(
        place.root().join("real/real/f").exists(),
        "a link below it starts at the destination"
    );
}

/// What a real BuildKit refuses (its unpacking makes no directory where a link leads to nothing), and what it does not.
#[test]
fn entries_below_links_to_nothing_are_refused_and_nothing_is_made() {
    let dangling = |target: &[u8]| Tar::default().symlink(b"l", target);
    for (name, tar, missing) in [
        ("absolute", dangling(b"/no/x").file(b"l/f", b"1"), "no"),
        ("relative", dangling(b"no").file(b"l/f", b"1"), "no"),
        ("upwards", dangling(b"../../no").file(b"l/f", b"1"), "no"),
        ("with a slash", dangling(b"/no/").file(b"l/f", b"1"), "no"),
        ("deeper", dangling(b"/no").file(b"l/d/e/f", b"1"), "no"),
        (
            "half of it",
            Tar::default()
                .dir(b"is/")
                .symlink(b"l", b"/is/no")
                .file(b"l/f", b"1"),
            "is/no",
        ),
        (
            "a chain",
            dangling(b"/m").symlink(b"m", b"/no").file(b"l/f", b"1"),
            "no",
        ),
        ("a link", dangling(b"/no").symlink(b"l/s", b"t"), "no"),
        ("a whiteout's name", dangling(b"/no").file(b"l/.wh.x", b""), "no"),
    ] {
        let place = Place::new();
        assert!(!add(&place, &tar.end(), "/d", &options()), "{name}");
        assert!(
            !place.root().join("d").join(missing).exists(),
            "{name}: {missing} was made"
        );
    }
    for (name, tar, made) in [
        (
            "a directory instead",
            dangling(b"/no").dir(b"l/").file(b"l/f", b"1"),
            "l/f",
        ),
        ("a file instead", dangling(b"/no").file(b"l", b"1"), "l"),
        (
            "made by then",
            dangling(b"/is").dir(b"is/").file(b"l/x/f", b"1"),
            "is/x/f",
        ),
        (
            "behind the link",
            Tar::default()
                .dir(b"is/")
                .symlink(b"l", b"is")
                .file(b"l/x/y/f", b"1"),
            "is/x/y/f",
        ),
        ("no link", Tar::default().file(b"a/b/f", b"1"), "a/b/f"),
    ] {
        let place = Place::new();
        assert!(add(&place, &tar.end(), "/d", &options()), "{name}");
        assert!(place.root().join("d").join(made).is_file(), "{name}");
    }
}

#[test]
fn row05_whiteout_names_are_names_here() {
    let place = Place::new();
    std::fs::write(place.root().join("victim"), "v").unwrap();
    let tar = Tar::default()
        .file(b".wh.victim", b"1")
        .file(b"o/.wh..wh..opq", b"2")
        .file(b".wh.a/b", b"3")
        .end();
    assert!(add(&place, &tar, "/", &options()));
    for name in ["victim", ".wh.victim", "o/.wh..wh..opq", ".wh.a/b"] {
        assert!(place.root().join(name).is_file(), "{name}");
    }
}

#[test]
fn conflicts_are_resolved_for_the_archive_and_the_root_stays() {
    let place = Place::new();
    std::fs::create_dir_all(place.root().join("d/old")).unwrap();
    std::fs::create_dir_all(place.root().join("e")).unwrap();
    std::fs::write(place.root().join("e/kept"), "").unwrap();
    std::fs::write(place.root().join("f"), "").unwrap();
    let tar = Tar::default()
        .dir(b"./")
        .file(b"d", b"1")
        .dir(b"e/")
        .dir(b"f/")
        .end();
    assert!(add(&place, &tar, "/", &options()));
    assert!(place.root().join("d").is_file() && place.root().join("f").is_dir());
    assert!(place.root().join("e/kept").exists());
    assert!(!add(
        &place,
        &Tar::default().symlink(b".", b"/canary").end(),
        "/",
        &options()
    ));
}

#[test]
fn privileged_add_gives_everything_to_the_owner_asked_for() {
    if !crate::canary::is_root() {
        println!("SKIP: needs root");
        return;
    }
    let place = Place::new();
    let tar = Tar::default()
        .block(Block::new(b"f", b'0', 0).owner(5, 6))
        .symlink(b"l", b"f")
        .file(b"i/f", b"")
        .end();
    let chown = ExtractOptions {
        chown: Some((1000, 1001)),
        ..options()
    };
    assert!(add(&place, &tar, "/new/dest", &chown));
    let owner = |name: &str| {
        let meta = std::fs::symlink_metadata(place.root().join(name)).unwrap();
        (meta.uid(), meta.gid())
    };
    for name in ["new", "new/dest", "new/dest/f", "new/dest/l", "new/dest/i/f"] {
        assert_eq!(owner(name), (1000, 1001), "{name}");
    }
    assert_eq!(
        owner("new/dest/i"),
        (0, 0),
        "parents the archive leaves out are root's"
    );
    assert!(add(&place, &tar, "/own", &options()));
    assert_eq!(owner("own/f"), (5, 6));
}

#[test]
fn archives_are_told_by_content_never_by_name() {
    let limits = DecompressLimits::default();
    let tar = Tar::default().file(b"f", b"1").end();
    let (_, gzip) = pack_with(&Packing::new(LayerFormat::Gzip(None), 1), Vec::new(), |out| {
        out.write_all(&tar).unwrap();
        Ok::<_, rbuild_layer::PackError>(1)
    })
    .unwrap();
    let zstd = zstd::stream::encode_all(tar.as_slice(), 1).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    std::io::copy(&mut tar.as_slice(), &mut xz).unwrap();
    let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    std::io::copy(&mut tar.as_slice(), &mut bz).unwrap();
    for archive in [&tar, &gzip, &zstd, &xz.finish().unwrap(), &bz.finish().unwrap()] {
        assert!(is_archive(archive.as_slice(), &limits));
    }
    let refused = Tar::default().block(Block::new(b"s", b'S', 0)).end();
    assert!(
        is_archive(refused.as_slice(), &limits),
        "an archive that will be refused is one"
    );
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::copy(&mut &b"just text"[..], &mut gz).unwrap();
    for plain in [
        &b""[..],
        b"text",
        &[0; 1024],
        &[0x1f, 0x8b, 8, 0],
        &gz.finish().unwrap(),
        &[b'a'; 2048],
    ] {
        assert!(!is_archive(plain, &limits));
    }
}
