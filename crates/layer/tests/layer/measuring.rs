//! Times of the paths that decide a build's. Run by hand: `cargo test --release -p rbuild-layer measuring -- --ignored --nocapture`.

use std::os::fd::AsFd as _;
use std::time::Instant;

use rbuild_layer::{
    DecompressLimits, LayerFormat, PackOptions, Packing, UnpackOptions, WriteOptions, decompress, pack,
    unpack,
};

use crate::canary::{Place, form};

#[test]
#[ignore = "prints times, proves nothing"]
fn measuring_30_000_files_and_one_of_300_mb() {
    let place = Place::new();
    let mut state = 1_u64;
    let mut noise = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    for n in 0..30_000 {
        let dir = place.root().join(format!("d{}", n / 100));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(
            dir.join(format!("f{n}")),
            (0..3000).map(|_| noise()).collect::<Vec<u8>>(),
        )
        .unwrap();
    }
    let time = |what: &str, place: &Place, format| {
        let options = PackOptions {
            write: WriteOptions::default(),
            packing: Packing::new(format, 2),
        };
        let mut blob = Vec::new();
        let start = Instant::now();
        let packed = pack(place.open_root().as_fd(), form(), &options, &mut blob).unwrap();
        println!(
            "{what} {format:?}: {:?} for {} to {}",
            start.elapsed(),
            packed.tar_size,
            blob.len()
        );
        blob
    };
    let tar = time("30,000 files", &place, LayerFormat::Uncompressed);
    let start = Instant::now();
    let copy = Place::new();
    unpack(
        tar.as_slice(),
        copy.open_root().as_fd(),
        &UnpackOptions::new(form()),
    )
    .unwrap();
    println!("unpack 30,000 files: {:?}", start.elapsed());
    let gzip = time("30,000 files", &place, LayerFormat::Gzip(None));
    let start = Instant::now();
    let copy = Place::new();
    let stream = decompress(
        std::io::Cursor::new(gzip),
        rbuild_layer::Compression::Gzip,
        &DecompressLimits::default(),
    );
    unpack(
        stream.unwrap(),
        copy.open_root().as_fd(),
        &UnpackOptions::new(form()),
    )
    .unwrap();
    println!("unpack 30,000 files from gzip: {:?}", start.elapsed());
    let big = Place::new();
    let words: Vec<String> = (0..4096)
        .map(|n| format!("word{} ", u32::from(noise()) * n))
        .collect();
    let text: String = (0..)
        .map(|_| words[usize::from(noise()) * 16 % 4096].as_str())
        .take(40_000_000)
        .collect::<String>();
    std::fs::write(
        big.root().join("text"),
        &text.as_bytes()[..300_000_000.min(text.len())],
    )
    .unwrap();
    drop(text);
    for format in [
        LayerFormat::Uncompressed,
        LayerFormat::Gzip(None),
        LayerFormat::Zstd(None),
    ] {
        drop(time("one file", &big, format));
    }
}
