//! An image with every kind of file that a layer can hold, and steps that change them: the same layers from every rung with
//! every snapshotter.

use rbuild_testkit::image::{Files, Image, OciLayout, entries};
use rbuild_testkit::layout::{Attributes, LayerBuilder};
use serde_json::json;
use tar::EntryType;

use super::ways;
use crate::e2e::hostile::canary::{Rung, Site};
use crate::e2e::ordinary_user;

/// `cap_net_bind_service=ep`, version 2 of `security.capability`.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub(super) fn below() -> LayerBuilder {
    let of = |mode, uid, gid| Attributes::mode(mode).owner(uid, gid);
    let aged = |mtime| Attributes {
        mtime,
        ..of(0o644, 1, 2)
    };
    let special = |layer: LayerBuilder, path: &str, kind, attributes, device| {
        layer.raw(path, kind, attributes, "", b"", device, &[])
    };
    let capability: &[(&str, &[u8])] = &[("security.capability", &CAPABILITY)];
    let layer = LayerBuilder::new()
        .dir("odd", of(0o1777, 3, 4))
        .file_with_xattrs("odd/capable", of(0o755, 0, 0), b"program", capability)
        .file_with_xattrs("odd/capable-too", of(0o4755, 5, 6), b"program", capability)
        .hard_link("odd/capable-again", "odd/capable")
        .file_with_xattrs(
            "odd/attributes",
            of(0o600, 7, 8),
            b"x",
            &[("user.kept", b"value")],
        )
        .char_device("odd/null", 0o666, (1, 3))
        .char_device("odd/large-numbers", 0o600, (240, 70_000));
    let layer = special(layer, "odd/disk", EntryType::Block, of(0o660, 0, 6), (8, 1));
    let layer = special(layer, "odd/pipe", EntryType::Fifo, of(0o620, 9, 10), (0, 0));
    let mut layer = layer
        .hard_link("odd/pipe-again", "odd/pipe")
        .raw(
            "odd/link",
            EntryType::Symlink,
            of(0o777, 11, 12),
            "../nowhere",
            b"",
            (0, 0),
            &[],
        )
        .hard_link("odd/link-again", "odd/link")
        .raw(
            "odd/long-link",
            EntryType::Symlink,
            of(0o777, 0, 0),
            &"x/".repeat(1000),
            b"",
            (0, 0),
            &[],
        )
        .dir("odd/group", of(0o2770, 0, 50))
        .file("odd/none", of(0, 13, 14), b"nobody reads this")
        .file("odd/first-second", aged(0), b"")
        .file("odd/after-2038", aged(0x9000_0000), b"")
        .file(&format!("odd/{}", "n".repeat(255)), of(0o644, 0, 0), b"")
        .file("odd/\u{e4}\u{4e2d} and a blank", of(0o644, 0, 0), b"")
        .file("odd/zeros", of(0o644, 0, 0), &[0; 300_000])
        .file("gone", of(0o644, 0, 0), b"")
        .dir("hidden", of(0o755, 20, 20))
        .file("hidden/f", of(0o644, 0, 0), b"")
        .dir("replaced", of(0o755, 0, 0))
        .file("replaced/f", of(0o644, 0, 0), b"");
    let mut path = "deep".to_owned();
    for level in 0..60 {
        layer = layer.dir(&path, of(0o755, level, 0));
        path += "/of-a-name-that-is-not-so-short-at-all";
    }
    layer
}

pub(super) fn above() -> LayerBuilder {
    let of = |mode, uid, gid| Attributes::mode(mode).owner(uid, gid);
    LayerBuilder::new()
        .whiteout("gone")
        .dir("hidden", of(0o700, 21, 22))
        .file("hidden/.wh..wh..opq", of(0, 0, 0), b"")
        .file("hidden/new", of(0o644, 0, 0), b"new")
        .file("replaced", of(0o444, 30, 0), b"a file by now")
        .whiteout("odd/none")
}

const STEPS: &str = "FROM evil AS one
RUN mv /odd/capable-too /odd/moved && ln /odd/capable /odd/third && cp -a /odd/pipe /odd/pipe-copied && mv /odd/group /group && \\
 chmod 3770 /group && touch -d @1704067200 /group && rm /odd/null && mv /odd/disk /disk && chown -h 15:16 /odd/link && chmod 751 /deep
RUN dd if=/dev/zero of=/sparse bs=1 count=1 seek=3000000 2>/dev/null && rm -r /hidden && mkdir /hidden && touch /hidden/other && \\
 echo more >> /odd/attributes && mkdir /gone && rm /replaced && ln -s /hidden /replaced && chown 17 /odd/large-numbers
FROM evil
COPY --from=one / /all/
COPY --from=one --chown=40:41 /odd /given
COPY --link --from=one /deep /linked
";

fn built(way: (&str, &str)) -> Image {
    built_with(way, STEPS).0
}

/// Builds `steps` on the image `evil`: the image, and its tree as one archive.
pub(super) fn built_with((rung, snapshotter): (&str, &str), steps: &str) -> (Image, Files) {
    let rung = match rung {
        "root" => Rung::Root,
        "subids" => Rung::Subids,
        "one-id" => Rung::OneId,
        _ => Rung::Chroot,
    };
    let site = Site::on(rung, steps);
    site.fixture.context.settle();
    let evil = site.evil(json!({"Env": ["PATH=/bin"]}), vec![below(), above()]);
    let archive = site.fixture.archive();
    let tree = site.fixture.home.work().join("tree.tar");
    site.fixture
        .build()
        .args(rung.argument())
        .args([&*evil, "--build-arg=SOURCE_DATE_EPOCH=1704067200"])
        .arg(format!("--snapshotter={snapshotter}"))
        .arg(format!(
            "--output=type=oci,rewrite-timestamp=true,dest={}",
            archive.display()
        ))
        .arg(format!("--output=type=tar,dest={}", tree.display()))
        .ok();
    let mut files = Files::default();
    let tar = std::fs::read(tree).unwrap();
    files.apply(entries(&tar).unwrap()).unwrap();
    (OciLayout::open(&archive).unwrap().image().unwrap(), files)
}

#[test]
fn rootless_every_kind_of_file_of_an_image_is_the_same_from_every_rung_and_snapshotter() {
    if ordinary_user().is_none() {
        return;
    }
    let root = built(("root", "overlayfs"));
    let files = root.files().unwrap();
    for name in [
        "all/odd/capable",
        "all/disk",
        "all/odd/pipe-copied",
        "given/large-numbers",
        "linked",
        "sparse",
    ] {
        assert!(
            files.get(name).is_some() || name == "sparse",
            "the twin: {name}\n{:?}",
            files.table()
        );
    }
    // fuse-overlayfs 1.10 makes files of their own of the names of one file that lie below.
    for way in ways().filter(|(_, snapshotter)| *snapshotter != "fuse-overlayfs") {
        let other = built(way);
        assert_eq!(files.table(), other.files().unwrap().table(), "files of {way:?}");
        assert_eq!(root.config, other.config, "config and layers of {way:?}");
    }
}
