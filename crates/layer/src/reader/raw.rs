//! One entry, made of its own header and the metadata headers before it.

use tar::Header;

use super::sparse::Map;
use super::{Pending, ReadError, printable};
use crate::entry::{Device, Entry, EntryKind, Time};
use crate::field::{number, text};

/// An entry, and how its content is stored.
pub(super) struct Merged {
    pub(super) entry: Entry,
    /// Bytes in the archive.
    pub(super) stored: u64,
    /// Where they belong, if the file has holes.
    pub(super) map: Option<Map>,
}

/// The fields of one real entry's header, before the metadata headers are merged in.
pub(super) struct Raw {
    pub(super) flag: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    pub(super) size: u64,
    mode: u32,
    uid: i64,
    gid: i64,
    mtime: i64,
    major: i64,
    minor: i64,
}

impl Raw {
    pub(super) fn read(header: &Header, offset: u64) -> Result<Self, ReadError> {
        let block = header.as_bytes();
        let old = header.as_old();
        let mut name = text(&old.name).to_vec();
        let path = printable(&name);
        let field = |bytes: &[u8], field: &'static str| {
            number(bytes).ok_or_else(|| ReadError::BadField {
                path: path.clone(),
                field,
            })
        };
        let magic = &block[257..265];
        let posix = magic.starts_with(b"ustar\0");
        let (mut major, mut minor) = (0, 0);
        if posix || magic == b"ustar  \0" {
            major = field(&block[329..337], "devmajor")?;
            minor = field(&block[337..345], "devminor")?;
        }
        if posix {
            // star keeps times where the last bytes of the prefix would be (Go: formatSTAR).
            let star = &block[508..512] == b"tar\0";
            let prefix = text(if star { &block[345..476] } else { &block[345..500] });
            if star && prefix.len() == 131 {
                return Err(ReadError::Ambiguous {
                    path,
                    rule: "a prefix that runs into star's times",
                });
            }
            if !prefix.is_empty() {
                name = [prefix, b"/", &name].concat();
            }
        } else if magic == b"ustar  \0" {
            // Old Go wrote a prefix here and Go still reads it back; GNU tar sees two times.
            let broken = |bytes: &[u8]| bytes[0] != 0 && number(bytes).is_none();
            if broken(&block[345..357]) || broken(&block[357..369]) {
                return Err(ReadError::BadHeader { offset });
            }
        }
        let mode = field(&old.mode, "mode")?;
        Ok(Self {
            flag: block[156],
            link: text(&old.linkname).to_vec(),
            size: u64::try_from(field(&old.size, "size")?).map_err(|_negative| ReadError::BadField {
                path: path.clone(),
                field: "size",
            })?,
            mode: u32::try_from(mode & 0o7777).unwrap_or(0),
            uid: field(&old.uid, "uid")?,
            gid: field(&old.gid, "gid")?,
            mtime: field(&old.mtime, "mtime")?,
            major,
            minor,
            name,
        })
    }

    pub(super) fn merge(self, pending: Pending) -> Result<Merged, ReadError> {
        let pax = pending.pax.unwrap_or_default();
        let shown = printable(
            pending
                .long_name
                .as_ref()
                .or(pax.path.as_ref())
                .unwrap_or(&self.name),
        );
        let ambiguous = |rule| ReadError::Ambiguous {
            path: shown.clone(),
            rule,
        };
        let bad = |field| ReadError::BadField {
            path: shown.clone(),
            field,
        };
        let mut path = one_of(pending.long_name, pax.path, self.name)
            .ok_or_else(|| ambiguous("a GNU long name and another PAX path"))?;
        let link = one_of(pending.long_link, pax.link, self.link)
            .ok_or_else(|| ambiguous("a GNU long link and another PAX linkpath"))?;
        let stored = pax.size.unwrap_or(self.size);
        let (mut size, mut map) = (stored, None);
        if let Some(mut sparse) = pax.sparse {
            path = sparse.name.take().unwrap_or(path);
            // Go takes a file of another version for what it looks like.
            let file = sparse.of_file().filter(|_| matches!(self.flag, b'0' | 0));
            let (whole, parts) = file.ok_or_else(|| ambiguous("a sparse file of no known form"))?;
            (size, map) = (whole, Some(parts));
        }
        let id = |own: i64, pax: Option<u64>, field| {
            let id = pax.map_or_else(|| u32::try_from(own).ok(), |id| u32::try_from(id).ok());
            // The kernel takes -1 as "leave as it is".
            id.filter(|id| *id != u32::MAX).ok_or_else(|| bad(field))
        };
        let device = || -> Result<Device, ReadError> {
            let major = u32::try_from(self.major).map_err(|_range| bad("devmajor"))?;
            let minor = u32::try_from(self.minor).map_err(|_range| bad("devminor"))?;
            Ok(Device { major, minor })
        };
        let slash = path.ends_with(b"/");
        let kind = match self.flag {
            b'0' if slash => return Err(ambiguous("a regular file whose name ends in a slash")),
            0 if slash => EntryKind::Directory,
            b'0' | 0 => EntryKind::File { size },
            b'1' => EntryKind::HardLink { target: link },
            b'2' => EntryKind::Symlink { target: link },
            b'3' => EntryKind::CharDevice(device()?),
            b'4' => EntryKind::BlockDevice(device()?),
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            flag => {
                return Err(ReadError::UnsupportedType {
                    path: shown,
                    flag: char::from(flag),
                });
            }
        };
        let content = match kind {
            EntryKind::File { .. } => 0,
            // Both readers take the header's own size of a hard link as zero, but not the extended one.
            EntryKind::HardLink { .. } => pax.size.unwrap_or(0),
            _ => size,
        };
        if content != 0 {
            return Err(ambiguous("content after an entry that has none"));
        }
        let entry = Entry {
            kind,
            mode: self.mode,
            uid: id(self.uid, pax.uid, "uid")?,
            gid: id(self.gid, pax.gid, "gid")?,
            mtime: pax.mtime.unwrap_or(Time {
                seconds: self.mtime,
                nanoseconds: 0,
            }),
            xattrs: pax.xattrs,
            path,
        };
        Ok(Merged { entry, stored, map })
    }
}

/// The long name, else the extended one, else the header's; nothing when the first two differ.
fn one_of(long: Option<Vec<u8>>, pax: Option<Vec<u8>>, own: Vec<u8>) -> Option<Vec<u8>> {
    match (long, pax) {
        (Some(long), Some(pax)) => (long == pax).then_some(long),
        (long, pax) => Some(long.or(pax).unwrap_or(own)),
    }
}
