//! Any bytes as a tar archive, and as a compressed one: read to its end or refused without a panic, and within its budget.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use rbuild_layer::{DecompressLimits, Limits, TarReader, decompress_detected};

const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_entries: 1000,
    max_header_bytes: 1 << 16,
    max_path_bytes: 4096,
    max_xattrs: 16,
    max_xattr_bytes: 1024,
    max_implied: 100,
};

fn read(input: impl io::Read) {
    let mut reader = TarReader::new(input, LIMITS);
    while let Ok(Some(entry)) = reader.next_entry() {
        assert!(entry.path.len() <= LIMITS.max_path_bytes, "{entry:?}");
        if io::copy(&mut reader, &mut io::sink()).is_err() {
            return;
        }
    }
    assert!(reader.position() <= LIMITS.max_bytes && reader.entries() <= LIMITS.max_entries);
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    let limits = DecompressLimits {
        max_bytes: LIMITS.max_bytes,
        max_zstd_window_log: 20,
        max_xz_memory: 8 << 20,
    };
    if let Ok((_, plain)) = decompress_detected(bytes, &limits) {
        read(plain);
    }
});
