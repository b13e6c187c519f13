//! One pass from a directory to a blob with both digests.

use std::os::fd::AsFd as _;

use rbuild_layer::{
    DecompressLimits, LayerFormat, PackOptions, Packing, UnpackOptions, WriteOptions, decompress_detected,
    pack, unpack, write_tar,
};
use rbuild_oci::Digest;

use crate::canary::{Place, form};

#[test]
fn both_digests_and_sizes_are_those_of_the_bytes() {
    let place = Place::new();
    for n in 0..50 {
        std::fs::write(place.root().join(format!("f{n}")), vec![b'a'; n * 1000]).unwrap();
    }
    let mut tar = Vec::new();
    let written = write_tar(
        place.open_root().as_fd(),
        form(),
        &WriteOptions::default(),
        &mut tar,
    )
    .unwrap();
    for format in [
        LayerFormat::Uncompressed,
        LayerFormat::Gzip(None),
        LayerFormat::Zstd(None),
    ] {
        let options = PackOptions {
            write: WriteOptions::default(),
            packing: Packing::new(format, 2),
        };
        let mut blob = Vec::new();
        let packed = pack(place.open_root().as_fd(), form(), &options, &mut blob).unwrap();
        assert_eq!(packed.diff_id.0, Digest::sha256(&tar), "{format:?}");
        assert_eq!(packed.tar_size, tar.len() as u64);
        assert_eq!((packed.entries, written.entries), (50, 50));
        let (_, stream) = decompress_detected(blob.as_slice(), &DecompressLimits::default()).unwrap();
        let copy = Place::new();
        let unpacked = unpack(stream, copy.open_root().as_fd(), &UnpackOptions::new(form())).unwrap();
        assert_eq!(unpacked.diff_id, packed.diff_id);
    }
}

#[test]
fn a_writer_that_fails_fails_the_pack() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let place = Place::new();
    std::fs::write(place.root().join("f"), vec![7_u8; 8 << 20]).unwrap();
    for format in [
        LayerFormat::Uncompressed,
        LayerFormat::Gzip(Some(0)),
        LayerFormat::Zstd(None),
    ] {
        let options = PackOptions {
            write: WriteOptions::default(),
            packing: Packing::new(format, 2),
        };
        assert!(
            pack(place.open_root().as_fd(), form(), &options, Full(100)).is_err(),
            "{format:?}"
        );
    }
}
