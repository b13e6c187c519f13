//! Rows 10 and 11 on whole builds, on each rung: archives that two readers read differently, and headers that are to be read at
//! the size they declare; as a layer of an image and as what ADD unpacks. Every case of the reader is a test of its crate.

use rbuild_testkit::image::Files;
use rbuild_testkit::layout::{Attributes, LayerBuilder, pax_record};
use serde_json::json;

use crate::e2e::hostile::canary::{Rung, Site};

const FILE: Attributes = Attributes {
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: rbuild_testkit::layout::EPOCH,
};

/// An extended header with these bytes, for the entry behind it.
fn extended(layer: LayerBuilder, records: &[u8]) -> LayerBuilder {
    layer.raw(
        "PaxHeaders/x",
        tar::EntryType::XHeader,
        FILE,
        "",
        records,
        (0, 0),
        &[],
    )
}

/// A header of that type that declares `size` bytes, without them.
fn declaring(kind: tar::EntryType, size: u64) -> LayerBuilder {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..1].copy_from_slice(b"x");
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    LayerBuilder::new().blocks(header.as_bytes())
}

/// An archive that would be an entry of the one it lies in.
fn inner() -> Vec<u8> {
    LayerBuilder::new()
        .file("d/cron", FILE, b"* * * * * root sh")
        .unfinished()
}

/// On each rung the archive as a layer, and as one that ADD unpacks: what came of it.
fn both(archive: impl Fn() -> LayerBuilder, check: impl Fn(Rung, Result<Files, String>)) {
    for rung in Rung::unpacking() {
        let site = Site::on(rung, "FROM evil\nCOPY Dockerfile /built-upon\n");
        let evil = site.evil(json!({}), vec![archive()]);
        check(rung, site.build(&[evil]));
        site.fixture
            .context
            .file("evil.tar", archive().finish())
            .dockerfile("FROM busybox\nADD evil.tar /\nCOPY Dockerfile /built-upon\n");
        check(rung, site.build(&[]));
    }
}

/// The same, of an archive that begins well: what does not is none for ADD, and copied as it is.
#[track_caller]
fn refused(archive: impl Fn() -> LayerBuilder, because: &str) {
    let behind = || {
        let first = LayerBuilder::new().file("first", FILE, b"");
        first.blocks(&archive().unfinished())
    };
    both(behind, |rung, built| {
        let told = built.map(|files| files.table()).expect_err("it was built");
        assert!(told.contains(because), "{rung:?}: not for {because:?}\n{told}");
    });
}

#[test]
fn row10_a_size_in_two_places_is_one_on_each_rung() {
    // The header says that nothing follows, the record that an archive does: it is the content of the file.
    let size = inner().len();
    let hidden = || {
        extended(
            LayerBuilder::new(),
            &pax_record("size", size.to_string().as_bytes()),
        )
        .file("d/whole", FILE, b"")
        .blocks(&inner())
        .file("d/after", FILE, b"end")
    };
    both(hidden, |rung, built| {
        let files = built.unwrap();
        assert_eq!(files.text("d/after"), Some("end"), "{rung:?}");
        assert!(
            files.get("d/cron").is_none(),
            "{rung:?}: content was read as an entry"
        );
        let whole = files.text("d/whole").unwrap_or_default();
        assert!(
            whole.contains("* * * * * root sh") && whole.len() == size,
            "{rung:?}"
        );
    });
    // The other way round its blocks are entries, as GNU tar has it.
    let shown = || {
        extended(LayerBuilder::new(), &pax_record("size", b"0"))
            .file("d/whole", FILE, &inner())
            .file("d/after", FILE, b"end")
    };
    both(shown, |rung, built| {
        let files = built.unwrap();
        let texts = ["d/whole", "d/cron", "d/after"].map(|name| files.text(name));
        assert_eq!(
            texts,
            [Some(""), Some("* * * * * root sh"), Some("end")],
            "{rung:?}"
        );
    });
}

#[test]
fn row10_what_has_no_one_meaning_is_refused_on_each_rung() {
    let record = |bytes: &'static [u8]| move || extended(LayerBuilder::new(), bytes).file("f", FILE, b"x");
    refused(record(b"99 path=a\n"), "a record has a wrong length");
    refused(record(b"8 patha\n"), "a record has no valid key");
    refused(record(b"22 GNU.sparse.major=1\n"), "a sparse file");
    refused(
        || {
            extended(
                extended(LayerBuilder::new(), &pax_record("path", b"a")),
                b"8 uid=1\n",
            )
            .file("f", FILE, b"")
        },
        "two extended headers for one entry",
    );
    refused(
        || {
            let mut bytes = LayerBuilder::new().file("f", FILE, b"x").unfinished();
            bytes[0] = b'g';
            LayerBuilder::new().blocks(&bytes)
        },
        "no valid tar header",
    );
    refused(
        || {
            LayerBuilder::new()
                .file("a", FILE, b"")
                .blocks(&[0; 512])
                .file("b", FILE, b"")
        },
        "no valid tar header",
    );
}

#[test]
fn row10_legal_twin_one_size_and_long_names_are_read_on_each_rung() {
    let long = format!("d/{}", "n".repeat(200));
    let twin = || {
        extended(LayerBuilder::new(), &pax_record("size", b"3"))
            .file("d/a", FILE, b"abc")
            .file(&long, FILE, b"long")
    };
    both(twin, |rung, built| {
        let files = built.unwrap();
        assert_eq!(files.text("d/a"), Some("abc"), "{rung:?}");
        assert_eq!(files.text(&long), Some("long"), "{rung:?}");
    });
}

#[test]
fn row11_headers_are_refused_by_the_size_they_declare_on_each_rung() {
    for (kind, size) in [
        (tar::EntryType::XHeader, 8_u64 << 30),
        (tar::EntryType::XGlobalHeader, 1 << 30),
        (tar::EntryType::GNULongName, 512 << 20),
    ] {
        refused(|| declaring(kind, size), "header bytes before one entry");
    }
    let records = |count: usize, value: &[u8]| -> Vec<u8> {
        (0..count)
            .flat_map(|n| pax_record(&format!("SCHILY.xattr.user.{n}"), value))
            .collect()
    };
    let with = |records: Vec<u8>| move || extended(LayerBuilder::new(), &records).file("f", FILE, b"");
    refused(
        with(records(1, &[b'v'; 65_537])),
        "bytes in an extended attribute",
    );
    refused(with(records(1025, b"v")), "extended attributes on one entry");
    // The legal twin: a few, as any archive has them.
    both(with(records(3, b"v")), |rung, built| {
        assert_eq!(built.unwrap().text("f"), Some(""), "{rung:?}");
    });
}
