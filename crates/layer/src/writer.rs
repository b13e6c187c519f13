//! Writes tar archives whose bytes are those of Go's archive/tar for the same entries: plain USTAR where it holds
//! the entry, else a PAX header with sorted records; GNU's own forms never. Digests of layers depend on it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::entry::{Entry, EntryKind, Time};
use crate::pax::{XATTR_KEY, push_record};
use crate::reader::{BLOCK, padding, printable};

const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
/// 0001-01-01T00:00:00Z, in seconds since 1970 (`time.Time.IsZero`).
const GO_ZERO_TIME: i64 = -62_135_596_800;
/// Go's limit for the body of one extended header (archive/tar, `maxSpecialFileSize`).
const RECORDS_MAX: usize = 1 << 20;

/// Why an entry could not be written.
#[derive(Debug, thiserror::Error)]
pub enum TarWriteError {
    /// The stream below failed.
    #[error("write archive")]
    Io(#[source] io::Error),
    /// The tar format has no place for it.
    #[error("entry {path:?} cannot be written as tar: {what}")]
    Unrepresentable {
        /// The entry, printable.
        path: String,
        /// What does not fit.
        what: &'static str,
    },
    /// Plain USTAR, which the entry is without it, has no place for a time before 1970.
    #[error("entry {path:?} cannot be given the time {seconds}")]
    Time {
        /// The entry, printable.
        path: String,
        /// Seconds since 1970.
        seconds: i64,
    },
    /// The content ended before the size its entry gave.
    #[error("content of an entry is {missing} bytes shorter than its header says")]
    ContentShort {
        /// Bytes that were still to come.
        missing: u64,
    },
    /// The content went on past the size its entry gave.
    #[error("content of an entry is longer than its header says")]
    ContentLong,
}

/// A streaming writer: [`append`](Self::append), then the content by [`Write`], and so on, then
/// [`finish`](Self::finish).
#[derive(Debug)]
pub struct TarWriter<W> {
    out: W,
    content_left: u64,
    padding: u64,
    bytes: u64,
    records: Vec<u8>,
}

type PaxMap = BTreeMap<Vec<u8>, Vec<u8>>;

impl<W: Write> TarWriter<W> {
    /// A writer of a new archive.
    pub const fn new(out: W) -> Self {
        Self {
            out,
            content_left: 0,
            padding: 0,
            bytes: 0,
            records: Vec::new(),
        }
    }

    /// Bytes written so far, the padding after complete content included.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes + self.padding
    }

    /// Writes an entry's header. The path is written as it is: a directory's ends in a slash by convention.
    /// A file's content must follow, exactly as long as the entry says.
    ///
    /// # Errors
    /// [`TarWriteError`]; after [`TarWriteError::Unrepresentable`] the archive can still be continued.
    pub fn append(&mut self, entry: &Entry) -> Result<(), TarWriteError> {
        self.end_content()?;
        let fields = Fields::of(entry)?;
        if fields.ustar {
            let split = split_ustar(&entry.path);
            let (prefix, name) = split.unwrap_or((b"", &entry.path));
            let mut block = fields.block(name, fields.link);
            block[345..345 + prefix.len()].copy_from_slice(prefix);
            self.emit_header(block)?;
        } else {
            self.append_pax(entry, &fields)?;
        }
        self.content_left = fields.size;
        self.padding = padding(fields.size);
        Ok(())
    }

    /// The same with `newest` for a later time, in seconds since 1970. As by Go's archive/tar of an entry that was read, which
    /// is written in the format that it was read in (BuildKit `util/converter/tarconverter`).
    ///
    /// # Errors
    /// [`TarWriteError`]; nothing was written after [`TarWriteError::Time`].
    pub(crate) fn append_not_newer(&mut self, entry: &Entry, newest: i64) -> Result<(), TarWriteError> {
        if entry.mtime.seconds <= newest {
            return self.append(entry);
        }
        // The first second of the year 1 is no time at all to Go, and written as 0.
        let seconds = if newest == GO_ZERO_TIME { 0 } else { newest };
        if seconds < 0 && Fields::of(entry)?.ustar {
            return Err(TarWriteError::Time {
                path: printable(&entry.path),
                seconds: newest,
            });
        }
        let mtime = Time {
            seconds,
            nanoseconds: 0,
        };
        self.append(&Entry {
            mtime,
            ..entry.clone()
        })
    }

    /// Ends the archive with two zero blocks and gives back what it was written to.
    ///
    /// # Errors
    /// The stream's; [`TarWriteError::ContentShort`] when content is missing.
    pub fn finish(mut self) -> Result<W, TarWriteError> {
        self.end_content()?;
        self.emit(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn append_pax(&mut self, entry: &Entry, fields: &Fields<'_>) -> Result<(), TarWriteError> {
        let mut records = std::mem::take(&mut self.records);
        records.clear();
        for (key, value) in &fields.records {
            push_record(&mut records, key, value);
        }
        if records.len() > RECORDS_MAX {
            return Err(unrepresentable(entry, "its extended header would pass 1 MiB"));
        }
        if !records.is_empty() {
            let mut name = ascii_start(&pax_name_start(&entry.path));
            name.truncate(NAME_BYTES);
            while name.last() == Some(&b'/') {
                name.pop();
            }
            let mut block = [0; BLOCK];
            put_text(&mut block[..NAME_BYTES], &name);
            put_octal(&mut block[100..108], 0);
            put_octal(&mut block[108..116], 0);
            put_octal(&mut block[116..124], 0);
            put_octal(&mut block[124..136], records.len() as u64);
            put_octal(&mut block[136..148], 0);
            block[156] = b'x';
            self.emit_header(block)?;
            self.emit(&records)?;
            let pad = usize::try_from(padding(records.len() as u64)).unwrap_or(0);
            self.emit(&[0; BLOCK][..pad])?;
        }
        self.records = records;
        self.emit_header(fields.block(&ascii_start(&entry.path), &ascii_start(fields.link)))
    }

    fn emit_header(&mut self, mut block: [u8; BLOCK]) -> Result<(), TarWriteError> {
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        put_octal(&mut block[148..155], sum);
        self.emit(&block)
    }

    fn end_content(&mut self) -> Result<(), TarWriteError> {
        if self.content_left > 0 {
            return Err(TarWriteError::ContentShort {
                missing: self.content_left,
            });
        }
        let pad = usize::try_from(self.padding).unwrap_or(0);
        self.padding = 0;
        self.emit(&[0; BLOCK][..pad])
    }

    fn emit(&mut self, bytes: &[u8]) -> Result<(), TarWriteError> {
        self.out.write_all(bytes).map_err(TarWriteError::Io)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

impl<W: Write> Write for TarWriter<W> {
    /// Writes content of the current entry; more than the entry said is refused.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.content_left {
            return Err(io::Error::other(TarWriteError::ContentLong));
        }
        let written = self.out.write(bytes)?;
        self.content_left -= written as u64;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// An entry's header fields, and what of them needs a PAX record.
struct Fields<'a> {
    entry: &'a Entry,
    flag: u8,
    link: &'a [u8],
    size: u64,
    major: u32,
    minor: u32,
    /// Plain USTAR holds all of it.
    ustar: bool,
    records: PaxMap,
}

impl<'a> Fields<'a> {
    /// Go's `Header.allowedFormats` (archive/tar, common.go) for the format that containerd asks for.
    fn of(entry: &'a Entry) -> Result<Self, TarWriteError> {
        let none: &[u8] = b"";
        let (flag, link, size, device) = match &entry.kind {
            EntryKind::File { size } => (b'0', none, *size, None),
            EntryKind::HardLink { target } => (b'1', target.as_slice(), 0, None),
            EntryKind::Symlink { target } => (b'2', target.as_slice(), 0, None),
            EntryKind::CharDevice(device) => (b'3', none, 0, Some(device)),
            EntryKind::BlockDevice(device) => (b'4', none, 0, Some(device)),
            EntryKind::Directory => (b'5', none, 0, None),
            EntryKind::Fifo => (b'6', none, 0, None),
        };
        let (major, minor) = device.map_or((0, 0), |device| (device.major, device.minor));
        let mut fields = Self {
            entry,
            flag,
            link,
            size,
            major,
            minor,
            ustar: true,
            records: PaxMap::new(),
        };
        fields.check()?;
        Ok(fields)
    }

    fn check(&mut self) -> Result<(), TarWriteError> {
        let entry = self.entry;
        if entry.path.contains(&0) || self.link.contains(&0) {
            return Err(unrepresentable(entry, "a NUL in a name"));
        }
        let fits = |text: &[u8]| text.len() <= NAME_BYTES && text.is_ascii();
        if !fits(&entry.path) {
            self.ustar &= split_ustar(&entry.path).is_some();
            self.records.insert(b"path".to_vec(), entry.path.clone());
        }
        if !fits(self.link) {
            self.ustar = false;
            self.records.insert(b"linkpath".to_vec(), self.link.to_vec());
        }
        self.check_number(b"uid", entry.uid.into(), 8);
        self.check_number(b"gid", entry.gid.into(), 8);
        self.check_number(b"size", self.size, 12);
        if !fits_octal(8, self.major.into()) || !fits_octal(8, self.minor.into()) {
            return Err(unrepresentable(entry, "a device number past 2097151"));
        }
        let octal_time = u64::try_from(entry.mtime.seconds).is_ok_and(|seconds| fits_octal(12, seconds));
        if !octal_time || entry.mtime.nanoseconds != 0 {
            self.ustar = false;
            self.records
                .insert(b"mtime".to_vec(), pax_time(entry.mtime).into_bytes());
        }
        for (name, value) in &entry.xattrs {
            if name.contains(&b'=') || name.contains(&0) {
                return Err(unrepresentable(entry, "an extended attribute's name with `=`"));
            }
            self.ustar = false;
            self.records.insert([XATTR_KEY, name].concat(), value.clone());
        }
        Ok(())
    }

    fn check_number(&mut self, key: &[u8], value: u64, width: u32) {
        if !fits_octal(width, value) {
            self.ustar = false;
            self.records.insert(key.to_vec(), value.to_string().into_bytes());
        }
    }

    /// The header block, without magic and checksum. What does not fit is zero there and stands in a record.
    fn block(&self, name: &[u8], link: &[u8]) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        put_text(&mut block[..NAME_BYTES], name);
        put_octal(&mut block[100..108], u64::from(self.entry.mode & 0o7777));
        put_octal(&mut block[108..116], self.entry.uid.into());
        put_octal(&mut block[116..124], self.entry.gid.into());
        put_octal(&mut block[124..136], self.size);
        put_octal(
            &mut block[136..148],
            u64::try_from(self.entry.mtime.seconds).unwrap_or(0),
        );
        block[156] = self.flag;
        put_text(&mut block[157..157 + NAME_BYTES], link);
        put_octal(&mut block[329..337], self.major.into());
        put_octal(&mut block[337..345], self.minor.into());
        block
    }
}

fn unrepresentable(entry: &Entry, what: &'static str) -> TarWriteError {
    TarWriteError::Unrepresentable {
        path: printable(&entry.path),
        what,
    }
}

const fn fits_octal(width: u32, value: u64) -> bool {
    value < 1 << ((width - 1) * 3)
}

/// Octal digits, zero-filled, and a NUL; zero when they do not fit.
fn put_octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let value = if value < 1 << (digits * 3) { value } else { 0 };
    for (at, byte) in field[..digits].iter_mut().rev().enumerate() {
        let digit = (value >> (at * 3)) & 7;
        *byte = b'0' + u8::try_from(digit).unwrap_or(0);
    }
    field[digits] = 0;
}

/// As much of `text` as fits. A cut one that would end in a slash is cut before it, or old readers would take a
/// file for a directory (Go: `formatString`).
fn put_text(field: &mut [u8], text: &[u8]) {
    let room = field.len();
    let length = text.len().min(room);
    field[..length].copy_from_slice(&text[..length]);
    if text.len() > room && field[room - 1] == b'/' {
        let kept = text[..room - 1]
            .iter()
            .rposition(|byte| *byte != b'/')
            .map_or(0, |at| at + 1);
        field[kept] = 0;
    }
}

/// Drops what is not ASCII (Go: `toASCII`). As much as a name's field holds, and one byte by which it is seen to be cut: what
/// looked at all of each path would take quadratic time in how deep a tree is.
fn ascii_start(text: &[u8]) -> Vec<u8> {
    let kept = text.iter().copied().filter(|byte| is_ascii(*byte));
    kept.take(NAME_BYTES + 1).collect()
}

const fn is_ascii(byte: u8) -> bool {
    byte < 0x80 && byte != 0
}

/// Prefix and name of a path that is too long for the name field alone (Go: `splitUSTARPath`).
fn split_ustar(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= NAME_BYTES || !path.is_ascii() {
        return None;
    }
    let searched = if path.len() > PREFIX_BYTES + 1 {
        PREFIX_BYTES + 1
    } else if path.ends_with(b"/") {
        path.len() - 1
    } else {
        path.len()
    };
    let slash = path[..searched].iter().rposition(|byte| *byte == b'/')?;
    let name = &path[slash + 1..];
    let fits = slash > 0 && slash <= PREFIX_BYTES && !name.is_empty() && name.len() <= NAME_BYTES;
    fits.then_some((&path[..slash], name))
}

/// `dir/PaxHeaders.0/file`, cleaned as Go's `path.Join` does. What is certain to lie beyond a name's field is left out.
fn pax_name_start(path: &[u8]) -> Vec<u8> {
    let split = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (dir, file) = path.split_at(split);
    let mut parts: Vec<&[u8]> = Vec::new();
    let rooted = dir.starts_with(b"/");
    let may_climb = path.windows(2).any(|two| two == b"..");
    let mut kept = 0;
    for part in dir
        .split(|byte| *byte == b'/')
        .chain([&b"PaxHeaders.0"[..], file])
    {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => {
                parts.pop();
            }
            b".." if rooted => {}
            part => {
                parts.push(part);
                kept += part.iter().filter(|byte| is_ascii(**byte)).count();
            }
        }
        if kept > NAME_BYTES && !may_climb {
            break;
        }
    }
    let joined = parts.join(&b'/');
    if rooted {
        [b"/", joined.as_slice()].concat()
    } else {
        joined
    }
}

/// Go's `formatPAXTime`.
fn pax_time(time: Time) -> String {
    if time.nanoseconds == 0 {
        return time.seconds.to_string();
    }
    let (sign, seconds, nanoseconds) = if time.seconds < 0 {
        ("-", -(time.seconds + 1), 1_000_000_000 - time.nanoseconds)
    } else {
        ("", time.seconds, time.nanoseconds)
    };
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').to_owned()
}
