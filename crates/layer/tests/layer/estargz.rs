//! eStargz layers, read by the words of the format (stargz-snapshotter, `docs/estargz.md`): footer, table of contents, members.

use std::io::{Cursor, Read as _, Write as _};

use rbuild_layer::{
    Compressor, Device, Entry, EntryKind, LayerFormat, PackError, Packing, TarWriter, Time, is_estargz,
    pack_with,
};
use rbuild_oci::Digest;
use serde_json::Value;

use crate::archive::entry;

const CHUNK: usize = 4 << 20;
const FOOTER: usize = 51;

/// Content of each file, by its place: none, less than a block, whole chunks, some more.
fn files() -> Vec<(String, Vec<u8>)> {
    let sizes = [
        0,
        1,
        511,
        512,
        513,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        2 * CHUNK,
        9 << 20,
    ];
    let named = sizes.into_iter().enumerate();
    let mut files: Vec<_> = named
        .map(|(at, size)| (format!("d/f{at}"), rbuild_testkit::noise::noise(size, at as u64)))
        .collect();
    for at in 0..300 {
        files.push((format!("d/small{at}"), format!("{at} ").repeat(at).into_bytes()));
    }
    files
}

fn tar() -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    tar.append(&entry("d/", EntryKind::Directory)).unwrap();
    for (path, content) in files() {
        let size = content.len() as u64;
        tar.append(&Entry {
            uid: 7,
            mtime: Time {
                seconds: 1_600_000_000,
                nanoseconds: 500_000_000,
            },
            ..entry(&path, EntryKind::File { size })
        })
        .unwrap();
        tar.write_all(&content).unwrap();
    }
    for (path, kind) in [
        (
            "soft",
            EntryKind::Symlink {
                target: b"d/<f1>".to_vec(),
            },
        ),
        (
            "hard",
            EntryKind::HardLink {
                target: b"d/f1".to_vec(),
            },
        ),
        ("pipe", EntryKind::Fifo),
        ("disk", EntryKind::BlockDevice(Device { major: 8, minor: 1 })),
        ("tty", EntryKind::CharDevice(Device { major: 5, minor: 0 })),
    ] {
        tar.append(&entry(path, kind)).unwrap();
    }
    // Its name and its attribute need an extended header.
    let mut long = entry(&"long/".repeat(60), EntryKind::Directory);
    long.xattrs = vec![(b"security.capability".to_vec(), b"\x01\x00\xff".to_vec())];
    tar.append(&long).unwrap();
    tar.finish().unwrap()
}

fn compress(tar: &[u8], workers: usize, write: usize) -> std::io::Result<Vec<u8>> {
    let mut compressor = Compressor::new(Vec::new(), LayerFormat::EStargz(None), workers, None).unwrap();
    for bytes in tar.chunks(write) {
        compressor.write_all(bytes)?;
    }
    compressor.finish()
}

fn gunzip(bytes: &[u8], most: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let members = flate2::read::MultiGzDecoder::new(bytes);
    members.take(most).read_to_end(&mut out).unwrap();
    out
}

/// The table's place, and the table.
fn toc(blob: &[u8]) -> (usize, Vec<u8>) {
    let (rest, footer) = blob.split_at(blob.len() - FOOTER);
    assert_eq!(
        &footer[..4],
        [0x1f, 0x8b, 8, 4],
        "a gzip header with an extra field"
    );
    assert_eq!(&footer[10..16], [26, 0, b'S', b'G', 22, 0]);
    assert_eq!(&footer[32..38], b"STARGZ");
    assert_eq!(gunzip(footer, 1), b"", "a member of nothing");
    let at = usize::from_str_radix(std::str::from_utf8(&footer[16..32]).unwrap(), 16).unwrap();
    let mut one = Vec::new();
    let mut member = flate2::read::GzDecoder::new(&rest[at..]);
    member.read_to_end(&mut one).unwrap();
    let mut archive = tar::Archive::new(one.as_slice());
    let mut entries = archive.entries().unwrap();
    let mut table = entries.next().unwrap().unwrap();
    assert_eq!(table.path_bytes().as_ref(), b"stargz.index.json");
    let mut json = Vec::new();
    table.read_to_end(&mut json).unwrap();
    assert!(entries.next().is_none(), "one member, one file");
    (at, json)
}

fn member_at(blob: &[u8], entry: &Value, most: usize) -> Vec<u8> {
    let offset = usize::try_from(entry["offset"].as_u64().unwrap()).unwrap();
    gunzip(&blob[offset..], most as u64)
}

#[test]
fn each_chunk_of_each_file_is_where_the_table_says() {
    let tar = tar();
    let blob = compress(&tar, 2, 1 << 20).unwrap();
    let (_, json) = toc(&blob);
    let table: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(table["version"], 1);
    let entries = table["entries"].as_array().unwrap();
    for (path, content) in files() {
        let parts: Vec<&Value> = entries
            .iter()
            .filter(|entry| entry["name"] == path.as_str())
            .collect();
        assert_eq!(parts.len(), content.len().div_ceil(CHUNK).max(1), "{path}");
        let first = parts[0];
        assert_eq!(
            (&first["type"], &first["uid"], &first["mode"]),
            (&"reg".into(), &7.into(), &0o644.into())
        );
        assert_eq!(first["size"].as_u64().unwrap_or(0), content.len() as u64);
        assert_eq!(first["modtime"], "2020-09-13T12:26:41Z", "half a second is one");
        assert_eq!(first["digest"], Digest::sha256(&content).to_string(), "{path}");
        for (at, (part, expected)) in parts.iter().zip(content.chunks(CHUNK)).enumerate() {
            assert_eq!(part["type"], if at == 0 { "reg" } else { "chunk" });
            assert_eq!(part["chunkOffset"].as_u64().unwrap_or(0), (at * CHUNK) as u64);
            let whole = expected.len() == CHUNK;
            assert_eq!(
                part["chunkSize"].as_u64(),
                whole.then_some(CHUNK as u64),
                "{path} {at}"
            );
            assert_eq!(part["chunkDigest"], Digest::sha256(expected).to_string());
            assert!(member_at(&blob, part, expected.len()) == expected, "{path} {at}");
        }
    }
}

#[test]
fn entries_that_are_no_files_have_what_the_format_names() {
    let blob = compress(&tar(), 1, 1 << 20).unwrap();
    let (_, json) = toc(&blob);
    let text = String::from_utf8(json).unwrap();
    for expected in [
        "{\n\t\"version\": 1,\n\t\"entries\": [\n\t\t{\n\t\t\t\"name\": \"d/\",\n\t\t\t\"type\": \"dir\",\n\t\t\t\"mode\": 420\n\t\t},",
        "\"name\": \"soft\",\n\t\t\t\"type\": \"symlink\",\n\t\t\t\"linkName\": \"d/\\u003cf1\\u003e\",",
        "\"name\": \"hard\",\n\t\t\t\"type\": \"hardlink\",\n\t\t\t\"linkName\": \"d/f1\",",
        "\"name\": \"pipe\",\n\t\t\t\"type\": \"fifo\",",
        "\"type\": \"block\",\n\t\t\t\"mode\": 420,\n\t\t\t\"devMajor\": 8,\n\t\t\t\"devMinor\": 1\n",
        "\"type\": \"char\",\n\t\t\t\"mode\": 420,\n\t\t\t\"devMajor\": 5\n",
        "\"xattrs\": {\n\t\t\t\t\"security.capability\": \"AQD/\"\n\t\t\t}\n",
    ] {
        assert!(
            text.contains(expected),
            "{expected}\n{}",
            &text[text.len() - 2000..]
        );
    }
    let names = text.matches("\"type\": ").count();
    assert_eq!(
        names,
        1 + 310 + 1 + 1 + 2 + 5 + 1,
        "entries, and second and third chunks of four files"
    );
}

#[test]
fn the_tar_is_kept_and_the_table_is_behind_its_end() {
    let tar = tar();
    let packing = Packing::new(LayerFormat::EStargz(Some(4)), 2);
    let (packed, blob) = pack_with(&packing, Vec::new(), |out| {
        out.write_all(&tar).map_err(PackError::Output)?;
        Ok::<_, PackError>(0)
    })
    .unwrap();
    let whole = gunzip(&blob, u64::MAX);
    assert!(whole.starts_with(&tar));
    let (at, json) = toc(&blob);
    assert!(gunzip(&blob[..at], u64::MAX) == tar);
    assert_eq!(packed.diff_id.0, Digest::sha256(&whole));
    assert_eq!(packed.tar_size, whole.len() as u64);
    let toc = packed.toc.unwrap();
    assert_eq!(
        (toc.digest, toc.tar.0),
        (Digest::sha256(&json), Digest::sha256(&tar))
    );
    assert!(blob == compress_at(&tar, 4));
}

fn compress_at(tar: &[u8], level: u32) -> Vec<u8> {
    let mut compressor = Compressor::new(Vec::new(), LayerFormat::EStargz(Some(level)), 1, None).unwrap();
    compressor.write_all(tar).unwrap();
    compressor.finish().unwrap()
}

#[test]
fn bytes_depend_neither_on_workers_nor_on_writes() {
    let tar = tar();
    let expected = compress(&tar, 1, 1 << 20).unwrap();
    for (workers, write) in [(1, 999), (2, 64 << 10), (4, 7 << 20), (7, usize::MAX)] {
        assert!(
            compress(&tar, workers, write).unwrap() == expected,
            "{workers} {write}"
        );
    }
}

#[test]
fn a_run_of_headers_is_no_member_without_end() {
    let mut tar = TarWriter::new(Vec::new());
    for at in 0..20_000 {
        tar.append(&entry(&format!("d{at}/"), EntryKind::Directory))
            .unwrap();
    }
    let tar = tar.finish().unwrap();
    let blob = compress(&tar, 2, 1 << 20).unwrap();
    let mut first = Vec::new();
    flate2::read::GzDecoder::new(blob.as_slice())
        .read_to_end(&mut first)
        .unwrap();
    assert!(first.len() < 5 << 20, "{}", first.len());
    assert!(gunzip(&blob[..toc(&blob).0], u64::MAX) == tar);
}

#[test]
fn a_tar_of_nothing_has_a_table_of_nothing() {
    for tar in [vec![0; 1024], Vec::new()] {
        let blob = compress(&tar, 2, 1000).unwrap();
        let (_, json) = toc(&blob);
        assert_eq!(json, b"{\n\t\"version\": 1,\n\t\"entries\": null\n}");
        assert!(is_estargz(&mut Cursor::new(blob)).unwrap());
    }
}

#[test]
fn what_is_no_whole_tar_or_has_a_table_already_is_refused() {
    let tar = tar();
    for end in [100, 512 + 100, 1024 + 7 * 512 + 1, tar.len() / 2] {
        let error = compress(&tar[..end], 1, 4096).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{end}");
    }
    assert!(compress(&[b'x'; 4096], 1, 512).is_err(), "no header");
    let mut huge = [0; 512];
    huge[..4].copy_from_slice(b"name");
    huge[124..136].copy_from_slice(b"77777777777\0");
    huge[156] = b'x';
    assert!(compress(&huge, 1, 512).is_err(), "an extended header of 8 GiB");
    for name in [
        "stargz.index.json",
        "./stargz.index.json",
        "a/../stargz.index.json",
    ] {
        let mut tar = TarWriter::new(Vec::new());
        tar.append(&entry(name, EntryKind::File { size: 0 })).unwrap();
        let error = compress(&tar.finish().unwrap(), 1, 4096).unwrap_err();
        assert!(
            error.to_string().contains("existing TOC JSON is not allowed"),
            "{error}"
        );
    }
    let mut tar = TarWriter::new(Vec::new());
    tar.append(&entry("a/stargz.index.json", EntryKind::File { size: 0 }))
        .unwrap();
    compress(&tar.finish().unwrap(), 1, 4096).unwrap();
}

#[test]
fn such_layers_are_told_from_others_by_footer_and_table() {
    let tell = |blob: &[u8]| is_estargz(&mut Cursor::new(blob)).unwrap();
    let blob = compress(&tar(), 2, 1 << 20).unwrap();
    assert!(tell(&blob));
    assert!(!tell(&blob[..blob.len() - 1]));
    assert!(!tell(&blob[..blob.len() - FOOTER]));
    assert!(!tell(b"") && !tell(&[0; FOOTER]));
    // A footer that points at what is no table, into itself, and behind the end.
    for offset in [0, blob.len() - FOOTER, usize::MAX] {
        let mut other = blob.clone();
        let at = other.len() - FOOTER + 16;
        other[at..at + 16].copy_from_slice(format!("{offset:016x}").as_bytes());
        assert!(!tell(&other), "{offset}");
    }
}
