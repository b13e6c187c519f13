//! Rows 11 and 12: what an archive may cost. Inputs are made while they are read, so that only limits stop them.

use std::io::{self, Cursor, Read};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use rbuild_layer::{
    ApplyError, Compression, DecompressLimits, Limits, ReadError, TarReader, TooManyBytes, UnpackOptions,
    decompress, unpack,
};
use rustix::fs::{Mode, OFlags};

use crate::archive::{Block, Tar, record};
use crate::canary::{Place, form};

/// Counts what was taken of an endless stream.
struct Counted<R>(R, u64);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(out)?;
        self.1 += read as u64;
        Ok(read)
    }
}

/// The error of reading a header and then endlessly many `fill` bytes, and how much was read for it.
fn endless(head: &[u8], fill: u8) -> (ReadError, u64) {
    let mut input = Counted(Cursor::new(head.to_vec()).chain(io::repeat(fill)), 0);
    let limits = Limits {
        max_bytes: 64 << 20,
        ..Limits::default()
    };
    let mut reader = TarReader::new(&mut input, limits);
    let error = loop {
        match reader.next_entry() {
            Ok(Some(_)) => {}
            Ok(None) => break reader.drain().unwrap_err(),
            Err(error) => break error,
        }
    };
    drop(reader);
    (error, input.1)
}

fn assert_limit(error: &ReadError, what: &str) {
    assert!(
        matches!(error, ReadError::Limit { what: found, .. } if *found == what),
        "{error}"
    );
}

#[test]
fn row11_headers_are_not_read_at_the_size_they_declare() {
    let what = "header bytes before one entry";
    let mut eight_gib = Block::new(b"x", b'x', 0);
    eight_gib.put(124, b"\x80\0\0\0\0\0\0\x02\0\0\0\0");
    for block in [
        eight_gib,
        Block::new(b"x", b'x', 1 << 30),
        Block::new(b"x", b'g', 1 << 30),
        Block::new(b"x", b'L', 512 << 20),
    ] {
        let (error, read) = endless(&block.sealed(), b'a');
        assert_limit(&error, what);
        assert!(read < 1 << 20, "{read} bytes for a header that was refused");
    }
    let many = (0..200).fold(Tar::default(), |tar, _| tar.long(b'L', b"n")).0;
    assert_limit(&endless(&many, 0).0, "headers before one entry");
}

#[test]
fn row11_attributes_and_paths_have_limits_and_legal_ones_pass() {
    let big = Tar::default()
        .pax(&[record("SCHILY.xattr.user.a", &vec![b'v'; 65_537])])
        .file(b"f", b"")
        .end();
    assert_limit(&endless(&big, 0).0, "bytes in an extended attribute");
    let many: Vec<Vec<u8>> = (0..1025)
        .map(|n| record(&format!("SCHILY.xattr.user.{n}"), b"v"))
        .collect();
    assert_limit(
        &endless(&Tar::default().pax(&many).file(b"f", b"").end(), 0).0,
        "extended attributes on one entry",
    );
    let long = Tar::default().long(b'L', &[b'n'; 4097]).file(b"f", b"").end();
    assert_limit(&endless(&long, 0).0, "bytes in a path");
    let target = Tar::default().long(b'K', &[b'n'; 4097]).symlink(b"f", b"").end();
    assert_limit(&endless(&target, 0).0, "bytes in a path");

    let legal = Tar::default()
        .pax(&many[..1024])
        .long(b'L', &[b'n'; 255])
        .file(b"f", b"")
        .end();
    let mut reader = TarReader::new(legal.as_slice(), Limits::default());
    assert_eq!(reader.next_entry().unwrap().unwrap().xattrs.len(), 1024);
}

#[test]
fn row11_padding_after_the_end_counts() {
    let (error, read) = endless(&Tar::default().file(b"a", b"1").0, 0);
    assert_limit(&error, "bytes");
    assert!(read <= (64 << 20) + (1 << 20));
}

#[test]
fn row12_bytes_and_entries_have_limits_that_name_the_entry() {
    let place = Place::new();
    let limits = Limits {
        max_bytes: 1 << 20,
        ..Limits::default()
    };
    let head = Tar::default()
        .file(b"ok", b"1")
        .block(Block::new(b"bomb", b'0', 1 << 40))
        .0;
    let error = place.unpack_with(&head, limits).unwrap_err();
    assert!(
        error.to_string().contains("1048576 bytes at entry \"bomb\""),
        "{error}"
    );
    assert!(!place.root().join("bomb").exists(), "refused before it is made");
    let limits = Limits {
        max_entries: 3,
        ..Limits::default()
    };
    let three = Tar::default().file(b"1", b"").file(b"2", b"").file(b"3", b"");
    assert_eq!(
        Place::new()
            .unpack_with(&three.clone().end(), limits)
            .unwrap()
            .entries,
        3
    );
    let error = Place::new()
        .unpack_with(&three.file(b"4", b"").end(), limits)
        .unwrap_err();
    assert!(
        matches!(
            error,
            ApplyError::Read(ReadError::Limit {
                what: "entries",
                max: 3,
                ..
            })
        ),
        "{error}"
    );
    let limits = Limits {
        max_implied: 10,
        ..Limits::default()
    };
    let deep = Tar::default().file(b"a/b/c/d/e/f/g/h/i/j/f", b"");
    assert_eq!(
        Place::new()
            .unpack_with(&deep.clone().end(), limits)
            .unwrap()
            .implied
            .len(),
        10
    );
    let error = Place::new()
        .unpack_with(&deep.file(b"k/f", b"").end(), limits)
        .unwrap_err();
    assert!(
        matches!(error, ApplyError::TooManyImplied { max: 10, .. }),
        "{error}"
    );
}

#[test]
fn row12_paths_of_directories_are_bounded_together() {
    let limits = Limits {
        max_implied: 2_000,
        ..Limits::default()
    };
    // One entry of two kilobytes, which names nine hundred directories with almost a megabyte of paths.
    let deep = |top: &str| [top.as_bytes(), &b"/d".repeat(900), b"/f"].concat();
    let with = |tar: Tar, name: &[u8]| tar.long(b'L', name).file(b"long", b"");
    let bomb = with(with(Tar::default(), &deep("a")), &deep("b")).end();
    let refused = Place::new().unpack_with(&bomb, limits).unwrap_err();
    assert!(
        matches!(refused, ApplyError::DirectoryPaths { max: 512_000, .. }),
        "{refused}"
    );
    // The same of directories that the archive holds.
    let long = "n".repeat(200);
    let held = |count: usize| {
        let dirs = (0..count).map(|at| format!("{long}/{long}/{long}/{at}"));
        let with = |tar: Tar, dir: String| tar.long(b'L', dir.as_bytes()).dir(b"long");
        dirs.fold(Tar::default(), with).end()
    };
    let refused = Place::new().unpack_with(&held(1_000), limits).unwrap_err();
    assert!(matches!(refused, ApplyError::DirectoryPaths { .. }), "{refused}");
    // The legal twins: as many directories as may be left out, and one deep path.
    assert_eq!(Place::new().unpack_with(&held(600), limits).unwrap().entries, 600);
    let one = with(Tar::default(), &deep("a")).end();
    let limits = Limits::default();
    assert_eq!(Place::new().unpack_with(&one, limits).unwrap().implied.len(), 901);
}

#[test]
fn row12_decompression_bombs_stop_at_the_limit() {
    let zeros = || io::repeat(0).take(64 << 20);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::copy(&mut zeros(), &mut gzip).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    io::copy(&mut zeros(), &mut bzip2).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    io::copy(&mut zeros(), &mut xz).unwrap();
    let bombs = [
        (Compression::Gzip, gzip.finish().unwrap()),
        (Compression::Bzip2, bzip2.finish().unwrap()),
        (Compression::Xz, xz.finish().unwrap()),
        (Compression::Zstd, zstd::stream::encode_all(zeros(), 1).unwrap()),
    ];
    for (compression, bomb) in bombs {
        assert!(bomb.len() < 1 << 20);
        assert_eq!(Compression::detect(&bomb), compression);
        let read = |max_bytes| {
            let limits = DecompressLimits {
                max_bytes,
                ..DecompressLimits::default()
            };
            let mut stream = decompress(bomb.as_slice(), compression, &limits).unwrap();
            io::copy(&mut stream, &mut io::sink())
        };
        let error = read(1 << 20).unwrap_err();
        assert!(
            error.get_ref().is_some_and(|e| e.is::<TooManyBytes>()),
            "{compression:?}: {error}"
        );
        assert_eq!(
            read(64 << 20).unwrap(),
            64 << 20,
            "{compression:?}: the limit itself is legal"
        );
    }
}

#[test]
fn row12_decoder_windows_have_a_limit() {
    // A frame header alone: magic, no content size, window descriptor for 2^31 bytes.
    let wide = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0, 0];
    let mut stream = decompress(wide.as_slice(), Compression::Zstd, &DecompressLimits::default()).unwrap();
    assert!(stream.read(&mut [0; 10]).is_err());
    let legal = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3, 0x01, 0, 0];
    let mut stream = decompress(legal.as_slice(), Compression::Zstd, &DecompressLimits::default()).unwrap();
    assert_eq!(
        stream.read(&mut [0; 10]).unwrap(),
        0,
        "128 MiB is allowed, and this frame is empty"
    );
    let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
    options.dict_size(1_500 << 20);
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&options);
    // The encoder would need the memory itself: a small stream whose header is changed is enough.
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
    io::copy(&mut &b"small"[..], &mut xz).unwrap();
    let bytes = xz.finish().unwrap();
    let limits = DecompressLimits {
        max_xz_memory: 1 << 20,
        ..DecompressLimits::default()
    };
    assert!(
        decompress(bytes.as_slice(), Compression::Xz, &limits)
            .unwrap()
            .read(&mut [0; 10])
            .is_err()
    );
    let limits = DecompressLimits::default();
    assert_eq!(
        decompress(bytes.as_slice(), Compression::Xz, &limits)
            .unwrap()
            .read(&mut [0; 10])
            .unwrap(),
        5
    );
}

/// Whiteouts in one directory, opaque directories, hard links to one inode, files that replace each other.
fn work(n: u32) -> Vec<u8> {
    let mut tar = Tar::default().file(b"one", b"");
    for n in 0..n {
        let name = |prefix: &str| format!("{prefix}{n}").into_bytes();
        tar = tar
            .file(&name("w/.wh."), b"")
            .file(&[name("o/"), b"/x/.wh..wh..opq".to_vec()].concat(), b"")
            .file(b"same/file", b"")
            .hardlink(&name("h"), b"one");
    }
    tar.end()
}

/// Of this thread, the kernel's work for it included: other programs on the machine do not count.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[test]
fn row12_time_grows_with_the_number_of_entries() {
    // In memory: ext4's own choice of a group for each new directory swings by a factor of four.
    let Ok(memory) = tempfile::tempdir_in("/dev/shm") else {
        println!("SKIP: no /dev/shm to measure on");
        return;
    };
    let once = |tar: &[u8]| {
        let dir = tempfile::tempdir_in(memory.path()).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let root = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
        let start = cpu_seconds();
        unpack(tar, root.as_fd(), &UnpackOptions::new(form())).unwrap();
        cpu_seconds() - start
    };
    let (small, large) = (work(10_000), work(20_000));
    let (mut least_small, mut least_large) = (f64::INFINITY, f64::INFINITY);
    // A busy machine only ever adds time; work that grows with the square is four times as long every time.
    for _ in 0..8 {
        least_small = least_small.min(once(&small));
        least_large = least_large.min(once(&large));
        if least_large < least_small * 2.5 {
            return;
        }
    }
    panic!("{least_small} s for 10,000 of each and {least_large} s for 20,000");
}

#[test]
fn row12_more_links_than_the_file_system_takes_are_an_error() {
    let mut tar = Tar::default().file(b"one", b"");
    for n in 0..70_000 {
        tar = tar.hardlink(format!("h{n}").as_bytes(), b"one");
    }
    let place = Place::new();
    match place.unpack(&tar.end()) {
        Err(error) => assert!(crate::canary::chain(&error).contains("make hard link"), "{error}"),
        Ok(_) => assert_eq!(
            std::fs::metadata(place.root().join("one")).unwrap().nlink(),
            70_001
        ),
    }
}
