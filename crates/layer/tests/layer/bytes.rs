//! The writer's bytes are those of Go's archive/tar: field by field, and read back alike by other programs.

use std::io::Write as _;

use rbuild_layer::{Device, Entry, EntryKind, TarWriteError, TarWriter, Time};

use crate::archive::{Block, entry, record};

fn write(entry: &Entry) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    writer.append(entry).unwrap();
    if let EntryKind::File { size } = entry.kind
        && size < 100
    {
        writer
            .write_all(&vec![b'c'; usize::try_from(size).unwrap()])
            .unwrap();
        return writer.finish().unwrap();
    }
    writer.finish().unwrap_or_default()
}

const EMPTY: EntryKind = EntryKind::File { size: 0 };

#[test]
fn what_fits_is_plain_ustar() {
    let mut file = entry(b"a/f", EntryKind::File { size: 3 });
    file.uid = 1000;
    file.mtime.seconds = 1_700_000_000;
    let mut expected = Block::new(b"a/f", b'0', 3)
        .owner(1000, 0)
        .mtime(1_700_000_000)
        .sealed()
        .to_vec();
    // Go ends the checksum as `%06o\0 `, as the builder does.
    expected.extend_from_slice(b"ccc");
    expected.resize(1024 + 1024, 0);
    assert_eq!(write(&file), expected);
    let mut device = entry(b"d", EntryKind::CharDevice(Device { major: 5, minor: 1 }));
    device.mode = 0o600;
    let expected = Block::new(b"d", b'3', 0).mode(0o600).device(5, 1).sealed();
    assert_eq!(write(&device)[..512], expected);
    let link = entry(
        b"l",
        EntryKind::Symlink {
            target: b"t".to_vec(),
        },
    );
    assert_eq!(write(&link)[..512], Block::new(b"l", b'2', 0).link(b"t").sealed());
    let dir = entry(b"dir/", EntryKind::Directory);
    assert_eq!(write(&dir)[..512], Block::new(b"dir/", b'5', 0).sealed());
}

#[test]
fn long_names_split_at_a_slash_when_they_can() {
    let path = [vec![b'p'; 120], b"/".to_vec(), vec![b'n'; 90]].concat();
    let expected = Block::new(&path[121..], b'0', 0).prefix(&path[..120]).sealed();
    assert_eq!(write(&entry(&path, EMPTY))[..512], expected);
    let dir = [vec![b'p'; 99], b"/".to_vec(), vec![b'q'; 20], b"/".to_vec()].concat();
    let expected = Block::new(&dir[100..], b'5', 0).prefix(&dir[..99]).sealed();
    assert_eq!(write(&entry(&dir, EntryKind::Directory))[..512], expected);
}

/// The extended header before the entry: name of its block, and body.
fn extended(tar: &[u8]) -> (String, Vec<u8>) {
    assert_eq!(tar[156], b'x');
    let name = String::from_utf8(tar[..100].iter().copied().take_while(|b| *b != 0).collect()).unwrap();
    let size = usize::from_str_radix(std::str::from_utf8(&tar[124..135]).unwrap(), 8).unwrap();
    assert!(
        tar[329..345].iter().all(|b| *b == 0),
        "Go leaves device numbers of extended headers empty"
    );
    assert_eq!(&tar[100..108], b"0000000\0");
    (name, tar[512..512 + size].to_vec())
}

#[test]
fn what_does_not_fit_stands_in_sorted_records() {
    let name = vec![b'n'; 101];
    let mut big = entry(&[b"d/".as_slice(), &name].concat(), EMPTY);
    big.uid = 2_097_152;
    big.gid = 2_097_151;
    big.xattrs = vec![(b"security.capability".to_vec(), b"\x01\0=\n".to_vec())];
    big.mtime = Time {
        seconds: -1,
        nanoseconds: 500_000_000,
    };
    let tar = write(&big);
    let (header, body) = extended(&tar);
    assert_eq!(header, format!("d/PaxHeaders.0/{}", "n".repeat(85)));
    let expected = [
        record("SCHILY.xattr.security.capability", b"\x01\0=\n"),
        record("mtime", b"-0.5"),
        record("path", &big.path),
        record("uid", b"2097152"),
    ]
    .concat();
    assert_eq!(body, expected);
    let main = &tar[1024..1536];
    assert_eq!(&main[..100], &big.path[..100]);
    assert_eq!(
        &main[108..116],
        b"0000000\0",
        "a number that does not fit is zero"
    );
    assert_eq!(&main[116..124], b"7777777\0");
    assert_eq!(&main[136..148], b"00000000000\0");
}

#[test]
fn names_that_are_not_ascii_lose_those_bytes_in_the_header() {
    let tar = write(&entry("é/ü\u{1}x".as_bytes(), EMPTY));
    let (header, body) = extended(&tar);
    assert_eq!(header, "PaxHeaders.0/\u{1}x".replace("PaxHeaders", "/PaxHeaders"));
    assert_eq!(body, record("path", "é/ü\u{1}x".as_bytes()));
    assert_eq!(&tar[1024..1029], b"/\x01x\0\0");
    let (_, body) = extended(&write(&entry(b"\xff\xfe", EMPTY)));
    assert_eq!(body, record("path", b"\xff\xfe"), "invalid UTF-8 passes");
    let dir = write(&entry("é/".as_bytes(), EntryKind::Directory));
    assert_eq!(extended(&dir).0, "/PaxHeaders.0");
}

#[test]
fn a_cut_name_does_not_end_in_a_slash() {
    let path = [vec![b'a'; 98], b"//".to_vec(), vec![b'b'; 160]].concat();
    let tar = write(&entry(&path, EMPTY));
    let at = tar.len() - 1024 - 512;
    assert_eq!(tar[at + 98], 0);
}

#[test]
fn big_sizes_and_times_have_records() {
    let mut file = entry(b"f", EntryKind::File { size: 1 << 33 });
    file.mtime.seconds = 1 << 33;
    let mut writer = TarWriter::new(Vec::new());
    writer.append(&file).unwrap();
    assert!(matches!(writer.finish(), Err(TarWriteError::ContentShort { missing }) if missing == 1 << 33));
    let mut out = Vec::new();
    TarWriter::new(&mut out).append(&file).unwrap();
    let (_, body) = extended(&out);
    assert_eq!(
        body,
        [record("mtime", b"8589934592"), record("size", b"8589934592")].concat()
    );
}

#[test]
fn what_tar_cannot_hold_is_a_clean_error() {
    let cases = [
        entry(
            b"d",
            EntryKind::CharDevice(Device {
                major: 1 << 21,
                minor: 0,
            }),
        ),
        entry(b"a\0b", EMPTY),
        entry(&vec![b'n'; 2 << 20], EMPTY),
        Entry {
            xattrs: vec![(b"user.a=b".to_vec(), Vec::new())],
            ..entry(b"x", EMPTY)
        },
    ];
    for case in cases {
        let error = TarWriter::new(Vec::new()).append(&case).unwrap_err();
        assert!(matches!(error, TarWriteError::Unrepresentable { .. }), "{error}");
    }
    let mut writer = TarWriter::new(Vec::new());
    writer.append(&entry(b"f", EntryKind::File { size: 1 })).unwrap();
    assert!(writer.write_all(b"too long").is_err());
}
