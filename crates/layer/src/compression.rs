//! Which compression a stream has: told by its content, which media types need not agree with.

/// How a layer's bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), one or more members.
    Gzip,
    /// zstd (RFC 8878), one or more frames.
    Zstd,
    /// bzip2; found in archives given to `ADD`, never in layers.
    Bzip2,
    /// xz; found in archives given to `ADD`, never in layers.
    Xz,
}

impl Compression {
    /// Bytes of a stream's start that [`detect`](Self::detect) wants to see. Fewer are fine at the end of a stream.
    pub const DETECT_BYTES: usize = 10;

    /// What the first bytes of a stream say, by the same marks as BuildKit's archive library
    /// (moby/go-archive, compression/compression_detect.go).
    #[must_use]
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame with its length.
            [low, 0x2a, 0x4d, 0x18, _, _, _, _, ..] if low & 0xf0 == 0x50 => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_tells() {
        for (start, compression) in [
            (&[0x1f, 0x8b, 8, 0][..], Compression::Gzip),
            (&[0x1f, 0x8b, 7, 0], Compression::None),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
            (&[0x5e, 0x2a, 0x4d, 0x18, 0, 0, 0, 0], Compression::Zstd),
            (&[0x5e, 0x2a, 0x4d, 0x18], Compression::None),
            (&[0x6e, 0x2a, 0x4d, 0x18, 0, 0, 0, 0], Compression::None),
            (b"BZh9", Compression::Bzip2),
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"", Compression::None),
            (b"etc/passwd", Compression::None),
        ] {
            assert_eq!(Compression::detect(start), compression, "{start:?}");
        }
    }
}
