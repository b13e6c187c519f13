//! Budgets for everything an archive can make this program spend, and what its user allows instead. Owns the numbers; enforces
//! none itself.

use std::sync::OnceLock;

/// What reading or unpacking one archive may cost. [`Allowance`] says which of them a user can change.
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
    /// Directories that an entry names as parents but the archive does not hold. All paths of directories, held or not, may have
    /// 256 bytes for each of these.
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

impl Limits {
    /// What this process allows.
    #[must_use]
    pub fn allowed() -> Self {
        ALLOWED
            .get()
            .map(|allowance| allowance.archive)
            .unwrap_or_default()
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

impl DecompressLimits {
    /// What this process allows.
    #[must_use]
    pub fn allowed() -> Self {
        ALLOWED
            .get()
            .map(|allowance| allowance.stream)
            .unwrap_or_default()
    }
}

/// What the user of this process allows archives to cost, in place of the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    archive: Limits,
    stream: DecompressLimits,
}

/// What is no allowance.
#[derive(Debug, thiserror::Error)]
pub enum AllowanceError {
    /// A word without a number.
    #[error("{0:?} is not NAME=NUMBER")]
    Form(String),
    /// No such limit.
    #[error("{0:?} is none of bytes, entries, directories, zstd-window, xz-memory")]
    Name(String),
    /// A number that none of them can have.
    #[error("{name}={value:?} is not a number from {least} to {most}, with k, m, g or t for powers of 1024")]
    Value {
        /// The limit.
        name: String,
        /// As given.
        value: String,
        /// Least.
        least: u64,
        /// Most.
        most: u64,
    },
}

static ALLOWED: OnceLock<Allowance> = OnceLock::new();

/// Most bytes of a stream: what sizes of archives can count.
const BYTES_MOST: u64 = i64::MAX.unsigned_abs();
/// Most entries: each costs memory while an archive is read.
const ENTRIES_MOST: u64 = 1 << 32;
/// `ZSTD_WINDOWLOG_MIN` and `ZSTD_WINDOWLOG_MAX_64` of zstd.h.
const WINDOWS: (u64, u64) = (10, 31);

impl Allowance {
    /// Reads `NAME=NUMBER` words with commas between them: `bytes` of an uncompressed archive, its `entries`, the
    /// `directories` it leaves out, the `zstd-window` as a power of two, `xz-memory` in bytes.
    ///
    /// # Errors
    /// [`AllowanceError`].
    pub fn parse(text: &str) -> Result<Self, AllowanceError> {
        let mut allowance = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, value) = word
                .split_once('=')
                .ok_or_else(|| AllowanceError::Form(word.to_owned()))?;
            let number = |(least, most): (u64, u64)| {
                number(value)
                    .filter(|number| (least..=most).contains(number))
                    .ok_or_else(|| AllowanceError::Value {
                        name: name.to_owned(),
                        value: value.to_owned(),
                        least,
                        most,
                    })
            };
            match name {
                "bytes" => {
                    allowance.archive.max_bytes = number((1, BYTES_MOST))?;
                    allowance.stream.max_bytes = allowance.archive.max_bytes;
                }
                "entries" => allowance.archive.max_entries = number((1, ENTRIES_MOST))?,
                "directories" => {
                    let most = number((0, ENTRIES_MOST))?;
                    allowance.archive.max_implied = usize::try_from(most).unwrap_or(usize::MAX);
                }
                "zstd-window" => {
                    let log = number(WINDOWS)?;
                    allowance.stream.max_zstd_window_log = u32::try_from(log).unwrap_or(u32::MAX);
                }
                "xz-memory" => allowance.stream.max_xz_memory = number((1, BYTES_MOST))?,
                _ => return Err(AllowanceError::Name(name.to_owned())),
            }
        }
        Ok(allowance)
    }

    /// Holds for this process from here on; the first one counts.
    pub fn hold(self) {
        ALLOWED.get_or_init(|| self);
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    digits?.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row12_limits_are_changed_by_name_and_the_others_stay() {
        let allowance = Allowance::parse("bytes=200g, entries=20000000,zstd-window=31,xz-memory=2g").unwrap();
        assert_eq!(allowance.archive.max_bytes, 200 << 30);
        assert_eq!(allowance.stream.max_bytes, 200 << 30);
        assert_eq!(allowance.archive.max_entries, 20_000_000);
        assert_eq!(allowance.stream.max_zstd_window_log, 31);
        assert_eq!(allowance.stream.max_xz_memory, 2 << 30);
        assert_eq!(allowance.archive.max_path_bytes, Limits::default().max_path_bytes);
        assert_eq!(Allowance::parse("").unwrap(), Allowance::default());
    }

    #[test]
    fn row12_a_limit_that_is_none_is_named() {
        for (text, named) in [
            ("bytes", "NAME=NUMBER"),
            ("size=1", "none of bytes"),
            ("bytes=0", "from 1"),
            ("bytes=-1", "from 1"),
            ("bytes=1e9", "from 1"),
            ("bytes=9999999t", "from 1"),
            ("zstd-window=32", "from 10 to 31"),
            ("entries=9g", "from 1"),
        ] {
            let error = Allowance::parse(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
