//! Compressed bytes depend on nothing but input, format and level; every usual program reads them.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rbuild_layer::{
    CompressError, Compression, Compressor, DecompressLimits, GZIP_LEVEL_DEFAULT, LayerFormat, Members,
    decompress_detected,
};
use rbuild_oci::Digest;

/// Half text, half noise, several pieces long.
fn sample(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    (0..bytes)
        .map(|at| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if at % 8192 < 4096 {
                b"some text, again "[at % 17]
            } else {
                state.to_be_bytes()[0]
            }
        })
        .collect()
}

/// The same each time.
fn noise(bytes: usize) -> Vec<u8> {
    rbuild_testkit::noise::noise(bytes, 0)
}

fn compress(input: &[u8], format: LayerFormat, workers: usize, write: usize) -> Vec<u8> {
    let mut compressor = Compressor::new(Vec::new(), format, workers, None).unwrap();
    for piece in input.chunks(write) {
        compressor.write_all(piece).unwrap();
        compressor.flush().unwrap();
    }
    compressor.finish().unwrap()
}

fn read_all(blob: &[u8]) -> std::io::Result<Vec<u8>> {
    let (_, mut stream) = decompress_detected(blob, &DecompressLimits::default()).unwrap();
    let mut out = Vec::new();
    stream.read_to_end(&mut out)?;
    Ok(out)
}

#[test]
fn bytes_depend_neither_on_workers_nor_on_write_sizes() {
    let input = sample(5 * (1 << 20) + 777);
    for format in [
        LayerFormat::Gzip(None),
        LayerFormat::Gzip(Some(0)),
        LayerFormat::Gzip(Some(1)),
        LayerFormat::Gzip(Some(9)),
        LayerFormat::Zstd(None),
        LayerFormat::Zstd(Some(1)),
        LayerFormat::Uncompressed,
    ] {
        let expected = compress(&input, format, 1, 1 << 20);
        for (workers, write) in [(1, 1000), (2, 64 << 10), (4, 3 << 20), (7, 1 << 30)] {
            assert!(
                compress(&input, format, workers, write) == expected,
                "{format:?} {workers} {write}"
            );
        }
        assert!(read_all(&expected).unwrap() == input, "{format:?}");
    }
}

#[test]
fn sizes_at_piece_edges_round_trip() {
    for size in [
        0,
        1,
        (512 << 10) + 1,
        (2 << 20) - 1,
        2 << 20,
        (2 << 20) + 1,
        4 << 20,
    ] {
        // Without a cut of its own, so that pieces are as long as they may be.
        let input = vec![7; size];
        for format in [LayerFormat::Gzip(None), LayerFormat::Zstd(None)] {
            assert!(
                read_all(&compress(&input, format, 2, 100_000)).unwrap() == input,
                "{format:?} {size}"
            );
        }
    }
}

#[test]
fn gzip_of_several_pieces_is_read_by_gzip() {
    let input = [sample(3 << 20), noise(3 << 20)].concat();
    let blob = compress(&input, LayerFormat::Gzip(None), 2, 65_536);
    assert_eq!(
        blob[..10],
        [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255],
        "no time, no name, no system"
    );
    let mut child = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let fed = blob.clone();
    let feed = std::thread::spawn(move || stdin.write_all(&fed).unwrap());
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    assert!(output.status.success() && output.stdout == input);
    let mut first = Vec::new();
    flate2::read::GzDecoder::new(blob.as_slice())
        .read_to_end(&mut first)
        .unwrap();
    assert!(
        first.len() < input.len() && input.starts_with(&first),
        "a member is a piece"
    );
}

#[test]
fn pieces_that_hardly_compress_are_not_searched() {
    let gzip = |input: &[u8], level| compress(input, LayerFormat::Gzip(Some(level)), 2, 1 << 20);
    let noise = noise(3 << 20);
    assert!(
        gzip(&noise, 6).len() < noise.len() + noise.len() / 8_000,
        "noise is stored"
    );
    let salted: Vec<u8> = noise
        .chunks(900)
        .flat_map(|chunk| [chunk, &[b' '; 124]].concat())
        .collect();
    let (glanced, fast) = (gzip(&salted, 6), gzip(&salted, 1));
    assert!(
        glanced != fast && glanced.len() * 100 <= fast.len() * 103 && glanced.len() * 10 < salted.len() * 9,
        "little to find is found in little time: {} and {}",
        glanced.len(),
        fast.len()
    );
    let even: Vec<u8> = noise.iter().map(|byte| byte & 0x7f).collect();
    assert_eq!(
        gzip(&even, 6),
        gzip(&even, 1),
        "what no match tells is left to codes of its own"
    );
    let text: Vec<u8> = (0..400_000)
        .flat_map(|n: u32| {
            format!(
                "{} words, {} of them new. ",
                n,
                n.wrapping_mul(2_654_435_761) >> 20
            )
            .into_bytes()
        })
        .collect();
    assert!(gzip(&text, 6).len() < gzip(&text, 1).len(), "text");
    // Each piece is judged by itself.
    let mixed = [noise.as_slice(), text.as_slice()].concat();
    let packed = gzip(&mixed, 6);
    assert!(packed.len() < gzip(&mixed, 1).len(), "mixed");
    assert_eq!(read_all(&packed).unwrap(), mixed);
}

/// Members in memory.
#[derive(Debug, Default)]
struct Shelf {
    members: Mutex<HashMap<(Digest, u32), Vec<u8>>>,
    found: AtomicUsize,
    placed: Mutex<Vec<(Digest, u32, u64, u64)>>,
}

impl Shelf {
    fn compress(self: &Arc<Self>, input: &[u8], level: u32) -> Vec<u8> {
        let members = Some(Arc::clone(self) as Arc<dyn Members>);
        let format = LayerFormat::Gzip(Some(level));
        let mut compressor = Compressor::new(Vec::new(), format, 2, members).unwrap();
        compressor.write_all(input).unwrap();
        let blob = compressor.finish().unwrap();
        let mut members = self.members.lock().unwrap();
        let mut at = 0;
        for (content, level, offset, size) in self.placed.lock().unwrap().drain(..) {
            assert_eq!(offset, at, "members stand one after the other");
            at += size;
            let range = usize::try_from(offset).unwrap()..usize::try_from(at).unwrap();
            members.insert((content, level), blob[range].to_vec());
        }
        assert_eq!(at, blob.len() as u64);
        blob
    }

    fn found(&self) -> usize {
        self.found.swap(0, Ordering::Relaxed)
    }
}

impl Members for Shelf {
    fn find(&self, content: &Digest, level: u32) -> Option<Vec<u8>> {
        let member = self
            .members
            .lock()
            .unwrap()
            .get(&(content.clone(), level))
            .cloned();
        self.found
            .fetch_add(usize::from(member.is_some()), Ordering::Relaxed);
        member
    }

    fn placed(&self, content: Digest, level: u32, offset: u64, size: u64) {
        self.placed.lock().unwrap().push((content, level, offset, size));
    }
}

#[test]
fn what_did_not_change_is_taken_from_the_members_of_before() {
    let shelf = Arc::new(Shelf::default());
    let mut input = [sample(8 << 20), noise(8 << 20)].concat();
    let first = shelf.compress(&input, 4);
    let pieces = shelf.members.lock().unwrap().len();
    assert!(pieces >= 8 && shelf.found() == 0, "{pieces}");
    input.splice(5_000_000..5_000_010, *b"a word more than there was before");
    let second = shelf.compress(&input, 4);
    let found = shelf.found();
    assert!(found + 3 >= pieces, "{found} of {pieces}");
    assert_ne!(first, second);
    assert_eq!(
        second,
        compress(&input, LayerFormat::Gzip(Some(4)), 1, 1 << 20),
        "as if made anew"
    );
    shelf.compress(&input, 1);
    assert_eq!(shelf.found(), 0, "of another level");
}

#[test]
fn a_member_that_is_not_of_its_content_is_made_again() {
    let input = noise(4 << 20);
    let expected = compress(&input, LayerFormat::Gzip(None), 1, 1 << 20);
    let damages: [fn(&mut Vec<u8>); 5] = [
        Vec::clear,
        |member| member.truncate(7),
        |member| member[0] ^= 1,
        |member| member.truncate(member.len() - 1),
        |member| {
            let at = member.len() - 8;
            member[at] ^= 1;
        },
    ];
    for damage in damages {
        let shelf = Arc::new(Shelf::default());
        shelf.compress(&input, GZIP_LEVEL_DEFAULT);
        shelf.members.lock().unwrap().values_mut().for_each(damage);
        assert!(shelf.compress(&input, GZIP_LEVEL_DEFAULT) == expected);
        assert!(shelf.found() > 2, "they were looked at");
    }
}

#[test]
fn levels_outside_the_format_are_errors() {
    for format in [
        LayerFormat::Gzip(Some(10)),
        LayerFormat::Zstd(Some(23)),
        LayerFormat::Zstd(Some(-1)),
    ] {
        assert!(matches!(
            Compressor::new(Vec::new(), format, 1, None),
            Err(CompressError::Level { .. })
        ));
    }
}

#[test]
fn row10_members_and_frames_are_all_read() {
    let one = compress(b"one", LayerFormat::Gzip(None), 1, 10);
    let two = compress(b"two", LayerFormat::Gzip(None), 1, 10);
    assert_eq!(read_all(&[one.clone(), two].concat()).unwrap(), b"onetwo");
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"toc"].concat();
    let first = zstd::stream::encode_all(&b"one"[..], 1).unwrap();
    let second = zstd::stream::encode_all(&b"two"[..], 1).unwrap();
    let frames = [skippable.clone(), first, skippable.clone(), second, skippable].concat();
    assert_eq!(Compression::detect(&frames), Compression::Zstd);
    assert_eq!(read_all(&frames).unwrap(), b"onetwo");
    assert!(
        read_all(&one[..one.len() - 3]).is_err(),
        "a cut member is an error"
    );
    assert!(
        read_all(&[one, b"junk".to_vec()].concat()).is_err(),
        "what follows must be a member"
    );
}
