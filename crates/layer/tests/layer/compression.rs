//! Compressed bytes depend on nothing but input, format and level; every usual program reads them.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use rbuild_layer::{
    CompressError, Compression, Compressor, DecompressLimits, LayerFormat, ReadAhead, decompress,
    decompress_detected,
};

/// Half text, half noise, several gzip blocks long.
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

/// Bytes that look random (xorshift64, Marsaglia 2003).
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(bytes).collect()
}

fn compress(input: &[u8], format: LayerFormat, workers: usize, write: usize) -> Vec<u8> {
    let mut compressor = Compressor::new(Vec::new(), format, workers).unwrap();
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
fn sizes_at_block_edges_round_trip() {
    for size in [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2 << 20] {
        let input = sample(size);
        for format in [LayerFormat::Gzip(None), LayerFormat::Zstd(None)] {
            assert!(
                read_all(&compress(&input, format, 2, 100_000)).unwrap() == input,
                "{format:?} {size}"
            );
        }
    }
}

#[test]
fn gzip_of_several_blocks_is_one_member_that_gzip_reads() {
    let input = sample(3 << 20);
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
    let mut one = Vec::new();
    flate2::read::GzDecoder::new(blob.as_slice())
        .read_to_end(&mut one)
        .unwrap();
    assert!(one == input, "a reader of one member gets all of it");
}

#[test]
fn only_blocks_that_hardly_compress_are_deflated_at_level_1() {
    let gzip = |input: &[u8], level| compress(input, LayerFormat::Gzip(Some(level)), 2, 1 << 20);
    let noise = noise(3 << 20);
    assert_eq!(gzip(&noise, 6), gzip(&noise, 1), "noise");
    let text: Vec<u8> = b"The same words again, and the same words once more, in order. "
        .iter()
        .copied()
        .cycle()
        .take(3 << 20)
        .collect();
    assert!(gzip(&text, 6).len() < gzip(&text, 1).len(), "text");
    // Each block is judged by itself.
    let mixed = [noise.as_slice(), text.as_slice()].concat();
    let packed = gzip(&mixed, 6);
    assert!(packed.len() < gzip(&mixed, 1).len(), "mixed");
    assert_eq!(read_all(&packed).unwrap(), mixed);
}

#[test]
fn levels_outside_the_format_are_errors() {
    for format in [
        LayerFormat::Gzip(Some(10)),
        LayerFormat::Zstd(Some(23)),
        LayerFormat::Zstd(Some(-1)),
    ] {
        assert!(matches!(
            Compressor::new(Vec::new(), format, 1),
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

#[test]
fn reading_ahead_passes_bytes_errors_and_an_early_end() {
    let input = sample(3 << 20);
    let blob = compress(&input, LayerFormat::Zstd(None), 1, 1 << 20);
    let stream = |blob: Vec<u8>| {
        let inner = decompress(
            std::io::Cursor::new(blob),
            Compression::Zstd,
            &DecompressLimits::default(),
        );
        ReadAhead::spawn(inner.unwrap()).unwrap()
    };
    let mut out = Vec::new();
    stream(blob.clone()).read_to_end(&mut out).unwrap();
    assert!(out == input);
    assert!(
        stream(blob[..blob.len() / 2].to_vec())
            .read_to_end(&mut Vec::new())
            .is_err()
    );
    drop(ReadAhead::spawn(std::io::repeat(1)).unwrap());
}
