//! Row 10: one view of an archive. Whatever is read here is what GNU tar and Python's tarfile read, or is refused.

use std::io::Write as _;
use std::process::{Command, Stdio};

use rbuild_layer::{EntryKind, Limits, ReadError, TarReader};

use crate::archive::{Block, Tar, record};

/// Name, type and size of every entry, with the sum of its content.
fn view(tar: &[u8]) -> Result<Vec<String>, ReadError> {
    let mut reader = TarReader::new(tar, Limits::default());
    let mut lines = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let (kind, size) = match entry.kind {
            EntryKind::File { size } => ('f', size),
            EntryKind::Directory => ('d', 0),
            EntryKind::Symlink { .. } => ('l', 0),
            EntryKind::HardLink { .. } => ('h', 0),
            _ => ('o', 0),
        };
        let mut content = Vec::new();
        reader.copy_content(|piece| {
            piece.write_to(&mut content).unwrap();
            Ok::<_, ReadError>(())
        })?;
        assert_eq!(content.len() as u64, size);
        let name = String::from_utf8_lossy(&entry.path)
            .trim_end_matches('/')
            .to_owned();
        let sum: u64 = content.iter().map(|b| u64::from(*b)).sum();
        lines.push(format!("{name} {kind} {size} {sum}"));
    }
    Ok(lines)
}

const PYTHON: &str = r"
import sys, io, tarfile
try:
    t = tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read()), mode='r:')
    for m in t:
        k = 'f' if m.isreg() else 'd' if m.isdir() else 'l' if m.issym() else 'h' if m.islnk() else 'o'
        c = t.extractfile(m).read() if m.isreg() else b''
        print(m.name.rstrip('/'), k, len(c), sum(c))
except tarfile.TarError as e:
    print('refused'); sys.exit(1)
";

fn run(command: &mut Command, input: &[u8]) -> (bool, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feed = std::thread::spawn(move || stdin.write_all(&input).ok());
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

/// What GNU tar lists: type, size and name.
fn gnu_names(tar: &[u8]) -> Vec<String> {
    let mut command = Command::new("tar");
    command
        .args(["--list", "--verbose", "--absolute-names", "--file=-"])
        .env("LC_ALL", "C")
        .env("TZ", "UTC");
    let (_, out) = run(&mut command, tar);
    out.lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let kind = if line.starts_with('-') { "f" } else { &line[..1] };
            let name = words[5].trim_end_matches('/');
            format!("{name} {kind} {}", if kind == "f" { words[2] } else { "0" })
        })
        .collect()
}

#[track_caller]
pub(crate) fn all_agree(tar: &[u8]) {
    let ours = view(tar).unwrap();
    let (_, python) = run(Command::new("python3").arg("-c").arg(PYTHON), tar);
    assert_eq!(ours.join("\n"), python.trim(), "Python's tarfile");
    let short: Vec<String> = ours
        .iter()
        .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
        .collect();
    assert_eq!(short, gnu_names(tar), "GNU tar");
}

fn inner() -> Vec<u8> {
    Tar::default().file(b"etc/cron.d/x", b"* * * * * root sh").0
}

#[test]
fn row10_sizes_in_two_places_mean_the_extended_one() {
    let inner = inner();
    let size = inner.len().to_string();
    // (a) the header says nothing follows, the record says a whole archive does.
    let a = Tar::default()
        .pax(&[record("size", size.as_bytes())])
        .block(Block::new(b"a", b'0', 0))
        .content(&inner)
        .file(b"z", b"end")
        .end();
    all_agree(&a);
    assert_eq!(view(&a).unwrap().len(), 2);
    // (b) the other way round: what follows are entries.
    let b = Tar::default()
        .pax(&[record("size", b"0")])
        .block(Block::new(b"b", b'0', inner.len() as u64))
        .raw(&inner)
        .end();
    all_agree(&b);
    assert!(
        view(&b)
            .unwrap()
            .iter()
            .any(|line| line.starts_with("etc/cron.d/x f 17"))
    );
    // (c) two records: the last one counts.
    let c = Tar::default()
        .pax(&[record("size", b"0"), record("size", b"3")])
        .block(Block::new(b"c", b'0', 0))
        .content(b"abc")
        .end();
    all_agree(&c);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table of cases")]
fn row10_malformed_and_ambiguous_archives_are_refused() {
    let inner = inner();
    let file = |tar: Tar| tar.file(b"f", b"x").end();
    let mut bad_sum = Tar::default().file(b"f", b"x").end();
    bad_sum[0] = b'g';
    let mut negative = Block::new(b"f", b'0', 0);
    negative.put(124, &[0xff; 12]);
    let mut huge = Block::new(b"f", b'0', 0);
    huge.put(124, &[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    let mut letters = Block::new(b"f", b'0', 0);
    letters.put(124, b"0000000009x\0");
    let global = record("path", b"g");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "record length",
            file(Tar::default().pax(&[b"99 path=a\n".to_vec()])),
        ),
        (
            "record without =",
            file(Tar::default().pax(&[b"8 patha\n".to_vec()])),
        ),
        (
            "record without newline",
            file(Tar::default().pax(&[b"9 path=a".to_vec()])),
        ),
        (
            "NUL in path",
            file(Tar::default().pax(&[record("path", b"a\0b")])),
        ),
        ("empty path", file(Tar::default().pax(&[record("path", b"")]))),
        (
            "long name and another path",
            file(Tar::default().long(b'L', b"one").pax(&[record("path", b"two")])),
        ),
        (
            "two extended headers",
            file(
                Tar::default()
                    .pax(&[record("path", b"a")])
                    .pax(&[record("uid", b"1")]),
            ),
        ),
        ("negative size", Tar::default().block(negative).end()),
        ("size of 2^63", Tar::default().block(huge).end()),
        ("size that is no number", Tar::default().block(letters).end()),
        ("bad checksum", bad_sum),
        (
            "lone zero block",
            Tar::default()
                .file(b"a", b"")
                .raw(&[0; 512])
                .file(b"b", b"")
                .end(),
        ),
        (
            "directory with content",
            Tar::default()
                .block(Block::new(b"d/", b'5', inner.len() as u64))
                .raw(&inner)
                .end(),
        ),
        (
            "link with content",
            Tar::default()
                .block(Block::new(b"l", b'2', 512).link(b"t"))
                .raw(&inner)
                .end(),
        ),
        (
            "hard link with extended size",
            Tar::default()
                .pax(&[record("size", b"512")])
                .block(Block::new(b"l", b'1', 0).link(b"t"))
                .raw(&inner)
                .end(),
        ),
        (
            "file with slash",
            Tar::default().block(Block::new(b"d/", b'0', 0)).end(),
        ),
        (
            "sparse type",
            Tar::default().block(Block::new(b"s", b'S', 0)).end(),
        ),
        (
            "contiguous type",
            Tar::default().block(Block::new(b"s", b'7', 0)).end(),
        ),
        (
            "sparse records",
            file(Tar::default().pax(&[record("GNU.sparse.major", b"1")])),
        ),
        (
            "global path",
            file(
                Tar::default()
                    .block(Block::new(b"g", b'g', global.len() as u64))
                    .content(&global),
            ),
        ),
        (
            "headers of nothing",
            Tar::default().pax(&[record("path", b"a")]).end(),
        ),
        (
            "truncated content",
            Tar::default().block(Block::new(b"f", b'0', 2000)).content(b"x").0,
        ),
        ("half a header", Tar::default().file(b"f", b"").0[..100].to_vec()),
    ];
    let because = [
        (
            "record length",
            "invalid extended header at byte 0: a record has a wrong length",
        ),
        (
            "record without =",
            "invalid extended header at byte 0: a record has no valid key",
        ),
        (
            "record without newline",
            "invalid extended header at byte 0: a record has a wrong length",
        ),
        (
            "NUL in path",
            "invalid extended header at byte 0: a record has no valid key",
        ),
        (
            "empty path",
            "invalid extended header at byte 0: a record empties a field",
        ),
        (
            "long name and another path",
            "entry \"one\" is ambiguous: a GNU long name and another PAX path",
        ),
        (
            "two extended headers",
            "entry \"PaxHeaders.0/x\" is ambiguous: two extended headers for one entry",
        ),
        ("negative size", "entry \"f\": invalid size field"),
        ("size of 2^63", "entry \"f\": invalid size field"),
        ("size that is no number", "entry \"f\": invalid size field"),
        ("bad checksum", "no valid tar header at byte 0"),
        ("lone zero block", "no valid tar header at byte 512"),
        (
            "directory with content",
            "entry \"d/\" is ambiguous: content after an entry that has none",
        ),
        (
            "link with content",
            "entry \"l\" is ambiguous: content after an entry that has none",
        ),
        (
            "hard link with extended size",
            "entry \"l\" is ambiguous: content after an entry that has none",
        ),
        (
            "file with slash",
            "entry \"d/\" is ambiguous: a regular file whose name ends in a slash",
        ),
        ("sparse type", "entry \"s\" has unsupported type 'S'"),
        ("contiguous type", "entry \"s\" has unsupported type '7'"),
        (
            "sparse records",
            "entry \"f\" is ambiguous: a sparse file of no known form",
        ),
        (
            "global path",
            "entry \"g\" is ambiguous: a global header changes names or sizes",
        ),
        ("headers of nothing", "archive ends inside an entry at byte 1024"),
        ("truncated content", "archive ends inside an entry at byte 1024"),
        ("half a header", "archive ends inside an entry at byte 100"),
    ];
    // Each by its own reason: an archive that is refused for another one was not what the case says.
    for (what, tar) in cases {
        let error = view(&tar).expect_err(what);
        let source = std::error::Error::source(&error)
            .map(|source| format!(": {source}"))
            .unwrap_or_default();
        let expected = because.iter().find(|(case, _)| *case == what).expect(what).1;
        assert_eq!(format!("{error}{source}"), expected, "{what}");
    }
}

/// Headers that GNU tar, Go and Python take for different things.
#[test]
fn row10_headers_that_readers_take_differently_are_refused() {
    let comment = record("comment", b"of git archive");
    let global = Block::new(b"g", b'g', comment.len() as u64);
    let mut star = Block::new(b"f", b'0', 0).prefix(&[b'p'; 131]);
    star.put(508, b"tar\0");
    let mut old_go = Block::new(b"f", b'0', 0).prefix(b"prefix");
    old_go.put(257, b"ustar  \0");
    let key = "a\0b";
    let cases = [
        (
            Tar::default()
                .pax(&[record("uid", b"1")])
                .block(global.clone())
                .content(&comment)
                .file(b"f", b""),
            "entry \"g\" is ambiguous: a global header between an entry and its own headers",
        ),
        (
            Tar::default().long(b'L', b"").file(b"f", b""),
            "entry \"././@LongLink\" is ambiguous: an empty long name",
        ),
        (
            Tar::default().block(star),
            "entry \"f\" is ambiguous: a prefix that runs into star's times",
        ),
        (Tar::default().block(old_go), "no valid tar header at byte 0"),
        (
            Tar::default().pax(&[record(key, b"1")]).file(b"f", b""),
            "invalid extended header at byte 0",
        ),
    ];
    for (tar, because) in cases {
        let error = view(&tar.end()).expect_err(because);
        assert_eq!(error.to_string(), because);
    }
    // The twins.
    let mut star = Block::new(b"f", b'0', 0).prefix(&[b'p'; 130]);
    star.put(508, b"tar\0");
    let legal = Tar::default()
        .block(global)
        .content(&comment)
        .pax(&[record("uid", b"1"), record("comment", b"a")])
        .file(b"a", b"")
        .block(star)
        .end();
    let names = view(&legal).unwrap();
    assert_eq!(
        names,
        ["a f 0 0".to_owned(), format!("{}/f f 0 0", "p".repeat(130))]
    );
}

#[test]
fn row10_legal_neighbours_are_read_alike_by_all() {
    let long = [b"d/".as_slice(), &[b'n'; 150]].concat();
    let comment = record("comment", b"of git archive");
    let mut binary = Block::new(b"binary", b'0', 0);
    binary.put(124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    let mut old = Block::new(b"old", b'0', 1);
    old.put(257, &[0; 8]).put(329, &[0; 16]);
    let mut old_dir = Block::new(b"olddir/", 0, 0);
    old_dir.put(257, &[0; 8]).put(329, &[0; 16]);
    let tar = Tar::default()
        .block(Block::new(b"pax_global_header", b'g', comment.len() as u64))
        .content(&comment)
        .dir(b"d/")
        .long(b'L', &long)
        .file(&long, b"gnu")
        .pax(&[
            record("path", b"d/pax"),
            record("mtime", b"1.5"),
            record("comment", b"c"),
        ])
        .file(b"short", b"pax")
        .long(b'L', b"d/same")
        .pax(&[record("path", b"d/same")])
        .file(b"short", b"both")
        .block(Block::new(b"name", b'0', 1).prefix(b"prefix"))
        .content(b"p")
        .block(binary)
        .content(b"abc")
        .block(old)
        .content(b"o")
        .block(old_dir)
        .symlink(b"link", b"to")
        .hardlink(b"hard", b"old")
        .block(Block::new(b"hard2", b'1', 1).link(b"old"))
        .end();
    let ours = view(&tar).unwrap();
    assert_eq!(ours.len(), 11, "{ours:?}");
    let names = gnu_names(&tar);
    let short: Vec<String> = ours
        .iter()
        .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
        .collect();
    assert_eq!(short, names, "GNU tar");
}

#[test]
fn row10_what_follows_the_end_is_ignored_but_hashed() {
    let tar = [
        Tar::default().file(b"a", b"1").end(),
        Tar::default().file(b"evil", b"2").end(),
    ]
    .concat();
    all_agree(&tar);
    assert_eq!(view(&tar).unwrap().len(), 1);
    let place = crate::canary::Place::new();
    let unpacked = place.unpack(&tar).unwrap();
    assert_eq!(unpacked.diff_id.0, rbuild_oci::Digest::sha256(&tar));
    assert_eq!((unpacked.bytes, unpacked.entries), (tar.len() as u64, 1));
    assert!(!place.root().join("evil").exists());
}

#[test]
fn archives_of_gnu_tar_in_every_format_are_read_as_it_lists_them() {
    let dir = tempfile::tempdir().unwrap();
    let long = "x".repeat(120);
    for path in ["a/b/c", "a/sp ace", "é/ü"] {
        let path = dir.path().join(path.replace(' ', "_"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "content").unwrap();
    }
    std::fs::create_dir_all(dir.path().join(&long).join(&long)).unwrap();
    std::fs::write(dir.path().join(&long).join(&long).join("f"), "deep").unwrap();
    std::fs::hard_link(dir.path().join("a/b/c"), dir.path().join("a/hard")).unwrap();
    std::os::unix::fs::symlink(&long, dir.path().join("link")).unwrap();
    for format in ["gnu", "pax", "ustar", "v7", "oldgnu"] {
        let mut command = Command::new("tar");
        command
            .arg(format!("--format={format}"))
            .args(["--create", "--sort=name", "--file=-", "-C"]);
        let out = command
            .arg(dir.path())
            .arg("a")
            .stderr(Stdio::null())
            .output()
            .unwrap();
        assert!(out.status.success(), "{format}");
        all_agree(&out.stdout);
        if matches!(format, "gnu" | "pax" | "oldgnu") {
            let out = Command::new("tar")
                .arg(format!("--format={format}"))
                .args(["--create", "--file=-", "-C"])
                .arg(dir.path())
                .arg(".")
                .output()
                .unwrap();
            assert_eq!(view(&out.stdout).unwrap().len(), 12, "{format}");
        }
    }
}
