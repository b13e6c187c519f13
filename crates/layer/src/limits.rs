//! Budgets for everything an archive can make this program spend. Owns the numbers; enforces none itself.

/// What reading or unpacking one archive may cost. Every field can be raised by the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed stream, padding and trailing data included.
    pub max_bytes: u64,
    /// Entries, metadata headers not counted.
    pub max_entries: u64,
    /// Bytes of the metadata headers (PAX records, GNU long names) that precede one entry.
    pub max_header_bytes: u64,
    /// Bytes of a path or a link target. The kernel's own `PATH_MAX` is 4096.
    pub max_path_bytes: usize,
    /// Extended attributes on one entry.
    pub max_xattrs: usize,
    /// Bytes of one extended attribute's value. The kernel's own `XATTR_SIZE_MAX` is 65536.
    pub max_xattr_bytes: usize,
    /// Directories that an entry names as parents but the archive does not hold.
    pub max_implied: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 30,
            max_entries: 10_000_000,
            max_header_bytes: 1 << 20,
            max_path_bytes: 4096,
            max_xattrs: 1024,
            max_xattr_bytes: 64 << 10,
            max_implied: 1 << 20,
        }
    }
}

/// What decompressing one blob may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecompressLimits {
    /// Bytes that may come out.
    pub max_bytes: u64,
    /// Base-two logarithm of the largest zstd window. 27 (128 MiB) is what `zstd -d` takes without `--long`.
    pub max_zstd_window_log: u32,
    /// Bytes of memory the xz decoder may take, dictionary included. `xz -9` needs 65 MiB.
    pub max_xz_memory: u64,
}

impl Default for DecompressLimits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 30,
            max_zstd_window_log: 27,
            max_xz_memory: 128 << 20,
        }
    }
}
