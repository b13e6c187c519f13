//! The table of contents of an eStargz layer, and its footer. Owns their bytes, which are those of Go's estargz package for the same
//! tar and the same offsets (`types.go`, `gzip.go`), but for the names of owners: nothing asks for them, and the tar has them.

use std::collections::BTreeMap;
use std::io;

use base64::Engine as _;
use rbuild_oci::go_json::{self, Json};
use rbuild_oci::{Digest, Timestamp};

use super::{CHUNK_BYTES, TOC_NAME, TocTar};
use crate::entry::{Entry, EntryKind, Time};
use crate::writer::TarWriter;

/// Length of the footer.
pub(super) const FOOTER_BYTES: usize = 51;
/// What the footer's extra field ends with.
const MAGIC: &[u8; 6] = b"STARGZ";
/// Hexadecimal digits of the offset.
const OFFSET_DIGITS: usize = 16;
/// A gzip member's header with an extra field of 26 bytes: a subfield `SG` of 22 (RFC 1952, section 2.3.1.1).
const FOOTER_START: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0, b'S', b'G', 22, 0];
/// The last block of a deflate stream, stored and empty, then sum and length of nothing.
const FOOTER_END: [u8; 13] = [1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];

/// The table of a tar without entries: a list that Go never made is `null`.
const NO_ENTRIES: &[u8] = b"{\n\t\"version\": 1,\n\t\"entries\": null\n}";

/// The last bytes of a layer whose table of contents is at `offset`.
pub(super) fn footer(offset: u64) -> [u8; FOOTER_BYTES] {
    let mut bytes = [0; FOOTER_BYTES];
    let mut at = 0;
    let digits = format!("{offset:016x}");
    for part in [&FOOTER_START[..], digits.as_bytes(), MAGIC, &FOOTER_END] {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    bytes
}

/// The offset that a footer tells.
pub(super) fn toc_offset(footer: &[u8; FOOTER_BYTES]) -> Option<u64> {
    let (start, rest) = footer.split_at(FOOTER_START.len());
    let (digits, rest) = rest.split_at(OFFSET_DIGITS);
    // Of a gzip header, time, flags of the compressor and system say nothing.
    let is_footer = start[..4] == FOOTER_START[..4] && start[10..] == FOOTER_START[10..];
    if !is_footer || !rest.starts_with(MAGIC) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The table, while the tar passes.
#[derive(Debug, Default)]
pub(super) struct Toc {
    entries: Vec<TocEntry>,
    /// The entry of the file whose content comes.
    file: usize,
}

/// An entry of the table: one of the tar, or a part of a file after its first.
#[derive(Debug)]
struct TocEntry {
    name: String,
    kind: &'static str,
    size: u64,
    time: String,
    link: String,
    mode: u32,
    uid: u32,
    gid: u32,
    device: (u32, u32),
    xattrs: BTreeMap<String, String>,
    digest: Option<Digest>,
    chunk: Option<Chunk>,
}

/// A part of a file.
#[derive(Debug)]
struct Chunk {
    /// The gzip member that begins with it.
    member: usize,
    /// Where it is in the file.
    offset: u64,
    /// Its length if that is the most there can be; the last of a file goes to its end.
    size: u64,
    digest: Option<Digest>,
}

impl Toc {
    pub(super) fn push(&mut self, entry: &Entry) {
        self.file = self.entries.len();
        self.entries.push(TocEntry::of(entry));
    }

    /// A part of the file that was pushed last begins with `member`; `left` bytes of the file are to come.
    pub(super) fn begin_chunk(&mut self, member: usize, left: u64) {
        let file = &self.entries[self.file];
        let chunk = Chunk {
            member,
            offset: file.size - left,
            size: if left < CHUNK_BYTES { 0 } else { CHUNK_BYTES },
            digest: None,
        };
        if chunk.offset == 0 {
            self.entries[self.file].chunk = Some(chunk);
        } else {
            let name = file.name.clone();
            self.entries.push(TocEntry {
                chunk: Some(chunk),
                ..TocEntry::named(name, "chunk")
            });
        }
    }

    pub(super) fn end_chunk(&mut self, digest: Digest) {
        if let Some(chunk) = self.entries.last_mut().and_then(|entry| entry.chunk.as_mut()) {
            chunk.digest = Some(digest);
        }
    }

    pub(super) fn end_file(&mut self, digest: Digest) {
        self.entries[self.file].digest = Some(digest);
    }

    /// The tar of the table, now that members begin at `starts`.
    pub(super) fn tar(&mut self, starts: &[u64]) -> io::Result<TocTar> {
        let entries = std::mem::take(&mut self.entries);
        let entries: Vec<Json> = entries.into_iter().map(|entry| entry.json(starts)).collect();
        let json = match entries.is_empty() {
            true => NO_ENTRIES.to_vec(),
            false => {
                let fields = [("version", Json::Number(1)), ("entries", Json::List(entries))];
                go_json::to_vec_indented_by(&Json::object(fields), "\t").map_err(io::Error::other)?
            }
        };
        let entry = Entry {
            path: TOC_NAME.to_vec(),
            kind: EntryKind::File {
                size: json.len() as u64,
            },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::EPOCH,
            xattrs: Vec::new(),
        };
        let mut tar = TarWriter::new(Vec::new());
        tar.append(&entry).map_err(io::Error::other)?;
        io::Write::write_all(&mut tar, &json)?;
        Ok(TocTar {
            bytes: tar.finish().map_err(io::Error::other)?,
            digest: Digest::sha256(&json),
        })
    }
}

impl TocEntry {
    const fn named(name: String, kind: &'static str) -> Self {
        Self {
            name,
            kind,
            size: 0,
            time: String::new(),
            link: String::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            device: (0, 0),
            xattrs: BTreeMap::new(),
            digest: None,
            chunk: None,
        }
    }

    fn of(entry: &Entry) -> Self {
        let none: &[u8] = b"";
        let (kind, size, link, device) = match &entry.kind {
            EntryKind::File { size } => ("reg", *size, none, None),
            EntryKind::HardLink { target } => ("hardlink", 0, target.as_slice(), None),
            EntryKind::Symlink { target } => ("symlink", 0, target.as_slice(), None),
            EntryKind::Directory => ("dir", 0, none, None),
            EntryKind::Fifo => ("fifo", 0, none, None),
            EntryKind::CharDevice(device) => ("char", 0, none, Some(device)),
            EntryKind::BlockDevice(device) => ("block", 0, none, Some(device)),
        };
        let base64 = base64::engine::general_purpose::STANDARD;
        let xattrs = entry.xattrs.iter();
        let is_empty_file = matches!(entry.kind, EntryKind::File { size: 0 });
        Self {
            size,
            time: time(entry.mtime),
            link: text(link),
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            device: device.map_or((0, 0), |device| (device.major, device.minor)),
            xattrs: xattrs
                .map(|(name, value)| (text(name), base64.encode(value)))
                .collect(),
            digest: is_empty_file.then(|| Digest::sha256(b"")),
            ..Self::named(text(&entry.path), kind)
        }
    }

    /// The entry as Go writes `TOCEntry`, with `omitempty` on all but name and type.
    fn json(self, starts: &[u64]) -> Json {
        let number = |number: u64| match i64::try_from(number) {
            Ok(0) | Err(_) => Json::Absent,
            Ok(number) => Json::Number(number),
        };
        let word = |text: String| match text.is_empty() {
            true => Json::Absent,
            false => Json::Text(text),
        };
        let digest =
            |digest: Option<Digest>| word(digest.map(|digest| digest.to_string()).unwrap_or_default());
        let chunk = self.chunk.as_ref();
        let offset = chunk.and_then(|chunk| starts.get(chunk.member));
        let xattrs = self.xattrs.iter();
        Json::object([
            ("name", Json::Text(self.name)),
            ("type", Json::Text(self.kind.to_owned())),
            ("size", number(self.size)),
            ("modtime", word(self.time)),
            ("linkName", word(self.link)),
            ("mode", number(self.mode.into())),
            ("uid", number(self.uid.into())),
            ("gid", number(self.gid.into())),
            ("offset", number(offset.copied().unwrap_or_default())),
            ("devMajor", number(self.device.0.into())),
            ("devMinor", number(self.device.1.into())),
            (
                "xattrs",
                Json::map(xattrs.map(|(name, value)| (name, Json::Text(value.clone())))),
            ),
            ("digest", digest(self.digest)),
            ("chunkOffset", number(chunk.map_or(0, |chunk| chunk.offset))),
            ("chunkSize", number(chunk.map_or(0, |chunk| chunk.size))),
            (
                "chunkDigest",
                digest(chunk.and_then(|chunk| chunk.digest.clone())),
            ),
        ])
    }
}

/// What Go makes of a text in JSON: what is no UTF-8 is replaced.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Go's `formatModtime`: rounded to the second, half of one up; nothing for the epoch.
fn time(time: Time) -> String {
    if time.seconds == 0 {
        return String::new();
    }
    let seconds = time
        .seconds
        .saturating_add(i64::from(time.nanoseconds >= 500_000_000));
    Timestamp::from_unix(seconds, 0).map_or_else(String::new, |time| time.to_string())
}
