//! Sparse files: what GNU tar makes of them in each of its three forms of extended headers is what is read back, and what no
//! map can say is refused.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use rbuild_layer::{ApplyError, Limits, ReadError, TarReader};

use crate::archive::{Block, Tar, record};
use crate::canary::Place;
use crate::reading::all_agree;

/// Bytes of what a file system keeps together.
const PART: u64 = 4 << 10;

/// A file of `size` bytes, with something at each of these places.
fn sparse(path: &Path, size: u64, places: impl Iterator<Item = u64>) {
    let file = File::create(path).unwrap();
    for place in places {
        file.write_all_at(format!("at {place}").as_bytes(), place)
            .unwrap();
    }
    file.set_len(size).unwrap();
}

fn archive(dir: &Path, version: &str) -> Vec<u8> {
    let output = Command::new("tar")
        .args([
            "--create",
            "--sparse",
            "--format=posix",
            "--sort=name",
            "--file=-",
        ])
        .arg(format!("--sparse-version={version}"))
        .arg("-C")
        .args([dir, Path::new(".")])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[test]
fn what_gnu_tar_stores_of_sparse_files_is_read_back_with_its_holes() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    sparse(&at("a-few"), 3 * PART + 17, [PART, 2 * PART].into_iter());
    sparse(&at("first"), 9 * PART, [0].into_iter());
    // A map of several blocks, and of more than one record of four kilobytes.
    sparse(&at("many"), 2 * 700 * PART, (0..700).map(|part| 2 * part * PART));
    sparse(&at("none"), 40 * PART, std::iter::empty());
    std::fs::write(at("plain"), vec![b'x'; 9000]).unwrap();
    // Python's tarfile takes the archive's own name of such a file where its path is too long for a header.
    let (other, long) = (tempfile::tempdir().unwrap(), "l".repeat(200));
    sparse(&other.path().join(&long), 40 * PART, [PART].into_iter());
    for version in ["0.0", "0.1", "1.0"] {
        let tar = archive(dir.path(), version);
        assert!(tar.len() < 4 << 20, "{version}: holes are stored");
        assert!(tar.windows(11).any(|text| text == b"GNU.sparse."), "{version}");
        all_agree(&tar);
        let place = Place::new();
        place.unpack(&tar).unwrap();
        place.unpack(&archive(other.path(), version)).unwrap();
        let names = ["a-few", "first", "many", "none", "plain"].map(|name| (name, at(name)));
        for (name, meant) in names.into_iter().chain([(&*long, other.path().join(&long))]) {
            let made = place.root().join(name);
            assert!(
                std::fs::read(&made).unwrap() == std::fs::read(&meant).unwrap(),
                "{version}: {name}"
            );
            let blocks = |path: &Path| std::fs::metadata(path).unwrap().blocks();
            assert!(
                blocks(&made) <= blocks(&meant) + 8,
                "{version}: {name} has lost holes"
            );
        }
    }
}

/// A file with these records, of which `stored` is there.
fn file(records: &[(&str, &str)], stored: &[u8]) -> Tar {
    let records: Vec<Vec<u8>> = records
        .iter()
        .map(|(key, value)| record(&format!("GNU.sparse.{key}"), value.as_bytes()))
        .collect();
    Tar::default()
        .pax(&records)
        .block(Block::new(b"f", b'0', stored.len() as u64))
        .content(stored)
}

/// A file of nine bytes whose map is in front of its bytes.
fn with_lines(lines: &[u8], data: &[u8]) -> Tar {
    let mut stored = lines.to_vec();
    stored.resize(lines.len().next_multiple_of(512), 0);
    stored.extend_from_slice(data);
    file(&[("major", "1"), ("minor", "0"), ("realsize", "9")], &stored)
}

/// A file of `size` bytes that are all in holes.
fn hole(size: &str) -> Tar {
    file(&[("size", size), ("numblocks", "0"), ("map", "")], b"")
}

#[track_caller]
fn is_refused(what: &str, tar: Tar, expected: &str) {
    let place = Place::new();
    let error = place.unpack(&tar.end()).unwrap_err();
    assert!(matches!(error, ApplyError::Read(_)), "{what}: {error}");
    assert!(error.to_string().contains(expected), "{what}: {error}");
    place.check();
}

#[test]
fn row11_maps_that_cannot_be_are_refused() {
    const MAP: &str = "invalid sparse map";
    const FORM: &str = "of no known form";
    for (what, parts, map, data, expected) in [
        ("overlap", "2", "0,5,4,1", &b"123456"[..], MAP),
        ("out of order", "2", "5,1,0,1", b"12", MAP),
        ("behind the end", "1", "5,5", b"12345", MAP),
        ("more is stored", "1", "0,1", b"12", MAP),
        ("less is stored", "1", "0,3", b"12", MAP),
        ("half a part", "1", "0,3,4", b"123", FORM),
        ("other parts", "2", "0,3", b"123", FORM),
        ("no number", "1", "0,x", b"123", "extended header"),
        ("minus", "1", "-1,3", b"123", "extended header"),
    ] {
        let records = [("size", "9"), ("numblocks", parts), ("map", map)];
        is_refused(what, file(&records, data), expected);
    }
    for (what, records, expected) in [
        ("no size", &[("numblocks", "1"), ("map", "0,3")][..], FORM),
        ("no parts", &[("size", "9"), ("map", "0,3")], FORM),
        (
            "turns",
            &[("size", "9"), ("numblocks", "1"), ("numbytes", "3")],
            "extended header",
        ),
        ("version", &[("major", "2"), ("minor", "0"), ("size", "9")], FORM),
        ("empty name", &[("name", "")], "extended header"),
    ] {
        is_refused(what, file(records, b"123"), expected);
    }
    for (what, lines, expected) in [
        ("no map", &b""[..], MAP),
        ("letters", b"one\n", MAP),
        ("no end", &b"1\n".repeat(256), MAP),
        ("too few", b"2\n0\n1\n", MAP),
        ("2^63 parts", b"9223372036854775808\n", MAP),
        (
            "more than headers may have",
            &[b"999999\n".to_vec(), b"0\n".repeat(600_000)].concat(),
            "header bytes before one entry",
        ),
    ] {
        is_refused(what, with_lines(lines, b""), expected);
    }
    let directory = [
        record("GNU.sparse.size", b"9"),
        record("GNU.sparse.numblocks", b"0"),
    ];
    let directory = Tar::default().pax(&directory).block(Block::new(b"d/", b'5', 0));
    is_refused("directory", directory, FORM);
}

#[test]
fn row12_holes_count_as_bytes_of_the_archive() {
    let limit = format!("limit of {} bytes", Limits::default().max_bytes);
    is_refused("one of 2^63 bytes", hole(&i64::MAX.to_string()), &limit);
    let quarter = Limits::default().max_bytes / 4;
    let four = (0..4).fold(Tar::default(), |tar, _| tar.raw(&hole(&quarter.to_string()).0));
    is_refused("four of a quarter each", four.clone(), &limit);
    let twin = (0..3).fold(Tar::default(), |tar, _| tar.raw(&hole(&quarter.to_string()).0));
    let place = Place::new();
    place.unpack(&twin.end()).unwrap();
    let found = std::fs::metadata(place.root().join("f")).unwrap();
    assert_eq!((found.len(), found.blocks()), (quarter, 0));
}

#[test]
fn a_reader_of_content_sees_zeros_and_skips_what_it_does_not_read() {
    let tar = file(&[("size", "9"), ("numblocks", "2"), ("map", "2,3,7,1")], b"abcd")
        .file(b"z", b"end")
        .end();
    let mut reader = TarReader::new(&*tar, Limits::default());
    assert_eq!(reader.next_entry().unwrap().unwrap().path, b"f");
    let mut content = [7; 20];
    let mut filled = 0;
    while let read @ 1.. = reader.read(&mut content[filled..]).unwrap() {
        filled += read;
    }
    assert_eq!(&content[..filled], b"\0\0abc\0\0d\0");
    for read_some in [false, true] {
        let mut reader = TarReader::new(&*tar, Limits::default());
        reader.next_entry().unwrap().unwrap();
        if read_some {
            reader.read_exact(&mut [0; 4]).unwrap();
        }
        let next = reader.next_entry().unwrap().unwrap();
        assert_eq!(next.path, b"z");
        assert!(matches!(reader.next_entry(), Ok::<_, ReadError>(None)));
    }
}
