//! One entry of an archive as it was meant, whatever form its headers had. Pure data.

/// A complete entry: metadata headers merged, everything but the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path as written, any bytes but NUL. Hostile: may be absolute or hold `..`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission, set-id and sticky bits (`07777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// `SCHILY.xattr.*` records, by name, sorted.
    pub xattrs: Vec<Xattr>,
}

/// Name and value of an extended attribute.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// The type of an entry, with what only that type has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Bytes of content that follow.
        size: u64,
    },
    /// Another name of an earlier entry.
    HardLink {
        /// Path of that entry, as written. Hostile like the path.
        target: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// The link's text.
        target: Vec<u8>,
    },
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
}

/// A device's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl Device {
    /// Whether overlayfs reads a character device of this number as "removed".
    #[must_use]
    pub const fn is_whiteout(self) -> bool {
        self.major == 0 && self.minor == 0
    }
}

/// A point in time, as archives and file systems keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z, rounded down.
    pub seconds: i64,
    /// Nanoseconds after that second, below 10^9.
    pub nanoseconds: u32,
}

impl Time {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self {
        seconds: 0,
        nanoseconds: 0,
    };

    /// The time, or the epoch when it is before 1970 or after 2262-04-11.
    ///
    /// containerd's `boundTime` (pkg/archive/time.go) does the same, so that files unpacked here carry its times.
    #[must_use]
    pub const fn bounded(self) -> Self {
        const MAX_SECONDS: i64 = i64::MAX / 1_000_000_000;
        if self.seconds < 0 || self.seconds > MAX_SECONDS {
            Self::EPOCH
        } else {
            self
        }
    }
}

/// The last component of a whiteout that makes its directory opaque (OCI image-spec, layer.md, "Opaque Whiteout").
pub(crate) const OPAQUE_NAME: &[u8] = b".wh..wh..opq";
/// What the names of whiteouts start with (OCI image-spec, layer.md, "Whiteouts").
pub const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// What the names of aufs' own state start with; it is no part of a layer's content.
pub(crate) const AUFS_PREFIX: &[u8] = b".wh..wh.";
