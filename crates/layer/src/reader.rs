//! Reads a tar stream entry by entry. Owns what an archive means; touches no file.
//!
//! The rule is that of Go's archive/tar, which BuildKit, containerd and Docker read layers with. Where GNU tar would
//! see another list of names, types, sizes or contents, the archive is refused as a whole: two readers must never
//! disagree about what a layer holds. Of sparse files those in extended headers are read; GNU's own form is refused, as by
//! containerd. Nothing is kept in memory but the metadata of one entry, and that has a limit.

use std::io::{self, BufRead as _, BufReader, Read};

use tar::Header;

use crate::entry::{Entry, EntryKind};
use crate::field::{number, text};
use crate::limits::Limits;
use crate::pax::{PaxError, Records};

mod content;
mod raw;
pub(crate) mod sparse;

pub use content::Piece;

use content::Content;
use raw::{Merged, Raw};

/// Bytes of one tar block.
pub(crate) const BLOCK: usize = 512;
/// Metadata headers before one entry: a long name, a long link and an extended header are all there can be.
const META_HEADERS_MAX: u32 = 4;
const BUFFER_BYTES: usize = 256 << 10;

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream below failed: input, decompression, or its own budget.
    #[error("read archive at byte {offset}")]
    Io {
        /// Where, in the uncompressed stream.
        offset: u64,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The stream ends inside an entry.
    #[error("archive ends inside an entry at byte {offset}")]
    Truncated {
        /// Where the stream ended.
        offset: u64,
    },
    /// A block that should be a header is none.
    #[error("no valid tar header at byte {offset}")]
    BadHeader {
        /// Where the block starts.
        offset: u64,
    },
    /// A header field is not a number, or one that makes no sense there.
    #[error("entry {path:?}: invalid {field} field")]
    BadField {
        /// The entry, printable.
        path: String,
        /// The field.
        field: &'static str,
    },
    /// An extended header is malformed.
    #[error("invalid extended header at byte {offset}")]
    BadPax {
        /// Where the header starts.
        offset: u64,
        /// What is wrong.
        #[source]
        source: PaxError,
    },
    /// Well-formed, but tar programs differ about what it means.
    #[error("entry {path:?} is ambiguous: {rule}")]
    Ambiguous {
        /// The entry, printable.
        path: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// An entry type that layers cannot hold.
    #[error("entry {path:?} has unsupported type {flag:?}")]
    UnsupportedType {
        /// The entry, printable.
        path: String,
        /// The type flag.
        flag: char,
    },
    /// A limit was passed.
    #[error("archive passes the limit of {max} {what}{}{}", .path.as_ref().map(|p| format!(" at entry {p:?}")).unwrap_or_default(), flag(.what))]
    Limit {
        /// What is limited.
        what: &'static str,
        /// The limit.
        max: u64,
        /// The entry, printable, if there is one yet.
        path: Option<String>,
    },
}

impl ReadError {
    /// Whether the stream is an archive that this program will not take, rather than no archive at all.
    #[must_use]
    pub(crate) const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Ambiguous { .. } | Self::UnsupportedType { .. } | Self::Limit { .. }
        )
    }
}

/// A streaming reader: [`next_entry`](Self::next_entry), then [`Read`] for that entry's content, and so on.
#[derive(Debug)]
pub struct TarReader<R> {
    input: BufReader<R>,
    limits: Limits,
    position: u64,
    /// Zeros of holes so far.
    zeros: u64,
    content: Content,
    entries: u64,
    ended: bool,
}

/// Metadata headers read so far for the entry to come.
#[derive(Default)]
struct Pending {
    pax: Option<Records>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    headers: u32,
    bytes: u64,
}

impl<R: Read> TarReader<R> {
    /// A reader at the start of an uncompressed archive.
    pub fn new(input: R, limits: Limits) -> Self {
        Self::with_buffer(input, limits, BUFFER_BYTES)
    }

    /// A reader with a buffer of so many bytes.
    pub(crate) fn with_buffer(input: R, limits: Limits, bytes: usize) -> Self {
        Self {
            input: BufReader::with_capacity(bytes, input),
            limits,
            position: 0,
            zeros: 0,
            content: Content::default(),
            entries: 0,
            ended: false,
        }
    }

    /// Bytes of the uncompressed stream read so far.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Entries read so far.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// The next entry, or nothing at the end of the archive. Unread content of the one before is skipped.
    ///
    /// # Errors
    /// [`ReadError`]; the reader is of no use after one.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        self.skip_content()?;
        if self.ended {
            return Ok(None);
        }
        let mut pending = Pending::default();
        loop {
            let offset = self.position;
            let Some(block) = self.header_block()? else {
                self.ended = true;
                return if pending.headers == 0 {
                    Ok(None)
                } else {
                    Err(ReadError::Truncated { offset })
                };
            };
            let header = Header::from_byte_slice(&block);
            match block[156] {
                b'x' | b'g' | b'L' | b'K' => self.meta_header(&mut pending, header, offset)?,
                _ => {
                    self.entries += 1;
                    let parsed = Raw::read(header, offset)?;
                    let merged = parsed.merge(pending)?;
                    self.admit(&merged)?;
                    if let Some(map) = merged.map {
                        self.lay_out(map, &merged.entry)?;
                    }
                    return Ok(Some(merged.entry));
                }
            }
        }
    }

    /// The stream below. Bytes that were read ahead of the current entry are lost, unless it was drained.
    pub fn into_inner(self) -> R {
        self.input.into_inner()
    }

    /// Reads to the very end of the stream, past the archive's end, as a digest of the whole stream needs.
    ///
    /// # Errors
    /// The stream's, or its budget.
    pub fn drain(&mut self) -> Result<(), ReadError> {
        loop {
            let read = self.fill()?.len();
            if read == 0 {
                return Ok(());
            }
            self.consume(read)?;
        }
    }

    fn fill(&mut self) -> Result<&[u8], ReadError> {
        let offset = self.position;
        self.input
            .fill_buf()
            .map_err(|source| ReadError::Io { offset, source })
    }

    fn consume(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.input.consume(bytes);
        self.position += bytes as u64;
        self.check_bytes()
    }

    fn check_bytes(&self) -> Result<(), ReadError> {
        if self.position.saturating_add(self.zeros) > self.limits.max_bytes {
            return Err(limit("bytes", self.limits.max_bytes, None));
        }
        Ok(())
    }

    /// One block; nothing at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, ReadError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let offset = self.position;
            let available = self.fill()?;
            if available.is_empty() {
                return if filled == 0 {
                    Ok(None)
                } else {
                    Err(ReadError::Truncated { offset })
                };
            }
            let take = available.len().min(BLOCK - filled);
            block[filled..filled + take].copy_from_slice(&available[..take]);
            self.consume(take)?;
            filled += take;
        }
        Ok(Some(block))
    }

    /// The next block that is a header with a right checksum; nothing at the archive's end.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, ReadError> {
        let offset = self.position;
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        if block != [0; BLOCK] {
            return if checksum_is_right(&block) {
                Ok(Some(block))
            } else {
                Err(ReadError::BadHeader { offset })
            };
        }
        match self.block()? {
            None => Ok(None),
            Some(second) if second == [0; BLOCK] => Ok(None),
            // GNU tar reads on after a lone zero block; Go does not.
            Some(_) => Err(ReadError::BadHeader { offset }),
        }
    }

    fn meta_header(&mut self, pending: &mut Pending, header: &Header, offset: u64) -> Result<(), ReadError> {
        let size = number(&header.as_old().size).and_then(|n| u64::try_from(n).ok());
        let size = size.ok_or_else(|| ReadError::BadField {
            path: printable(b""),
            field: "size",
        })?;
        pending.headers += 1;
        pending.bytes = pending.bytes.saturating_add(size);
        if pending.bytes > self.limits.max_header_bytes {
            return Err(limit(
                "header bytes before one entry",
                self.limits.max_header_bytes,
                None,
            ));
        }
        if pending.headers > META_HEADERS_MAX {
            return Err(limit(
                "headers before one entry",
                u64::from(META_HEADERS_MAX),
                None,
            ));
        }
        self.content = Content::stored(size);
        let mut body = Vec::new();
        self.copy_content(|piece| {
            if let Piece::Bytes(bytes) = piece {
                body.extend_from_slice(bytes);
            }
            Ok::<(), ReadError>(())
        })?;
        self.skip_content()?;
        self.note_header(pending, header, &body, offset)
    }

    /// Takes what a metadata header at `offset` says with its `body`.
    fn note_header(
        &mut self,
        pending: &mut Pending,
        header: &Header,
        body: &[u8],
        offset: u64,
    ) -> Result<(), ReadError> {
        let flag = header.as_bytes()[156];
        let ambiguous = |rule| ReadError::Ambiguous {
            path: printable(text(&header.as_old().name)),
            rule,
        };
        let records = || Records::parse(body).map_err(|source| ReadError::BadPax { offset, source });
        match flag {
            b'x' => {
                // Go forgets the first one, GNU tar does not.
                if pending.pax.replace(records()?).is_some() {
                    return Err(ambiguous("two extended headers for one entry"));
                }
            }
            b'g' => {
                // Go shows it as an entry of its own, which containerd ignores; GNU tar applies it to all that follow.
                let global = records()?;
                if global.path.is_some()
                    || global.link.is_some()
                    || global.size.is_some()
                    || global.sparse.is_some()
                {
                    return Err(ambiguous("a global header changes names or sizes"));
                }
                if pending.headers > 1 {
                    return Err(ambiguous("a global header between an entry and its own headers"));
                }
                pending.headers = 0;
                pending.bytes = 0;
                self.entries += 1;
                self.check_entries(None)?;
            }
            _ => {
                let name = text(body).to_vec();
                if name.is_empty() {
                    return Err(ambiguous("an empty long name"));
                }
                if flag == b'L' {
                    pending.long_name = Some(name);
                } else {
                    pending.long_link = Some(name);
                }
            }
        }
        Ok(())
    }

    /// Checks the limits of a complete entry and makes its content the current one.
    fn admit(&mut self, Merged { entry, stored, .. }: &Merged) -> Result<(), ReadError> {
        let path = || Some(printable(&entry.path));
        let link = match &entry.kind {
            EntryKind::HardLink { target } | EntryKind::Symlink { target } => target.len(),
            _ => 0,
        };
        let max = self.limits.max_path_bytes;
        if entry.path.len() > max || link > max {
            return Err(limit("bytes in a path", max as u64, path()));
        }
        if entry.xattrs.len() > self.limits.max_xattrs {
            return Err(limit(
                "extended attributes on one entry",
                self.limits.max_xattrs as u64,
                path(),
            ));
        }
        if entry
            .xattrs
            .iter()
            .any(|(_, value)| value.len() > self.limits.max_xattr_bytes)
        {
            return Err(limit(
                "bytes in an extended attribute",
                self.limits.max_xattr_bytes as u64,
                path(),
            ));
        }
        self.check_entries(Some(&entry.path))?;
        let size = if let EntryKind::File { size } = entry.kind {
            size
        } else {
            0
        };
        // Refused before the first byte is stored, not after the budget has been written to disk.
        let before = self.position.saturating_add(self.zeros);
        if before.saturating_add(size.max(*stored)) > self.limits.max_bytes {
            return Err(limit("bytes", self.limits.max_bytes, path()));
        }
        if matches!(entry.kind, EntryKind::File { .. }) {
            self.content = Content::stored(*stored);
        }
        Ok(())
    }

    fn check_entries(&self, path: Option<&[u8]>) -> Result<(), ReadError> {
        if self.entries > self.limits.max_entries {
            return Err(limit("entries", self.limits.max_entries, path.map(printable)));
        }
        Ok(())
    }
}

/// Old tars summed signed bytes; both sums are taken (Go and GNU tar do).
fn checksum_is_right(block: &[u8; BLOCK]) -> bool {
    let Some(expected) = number(&block[148..156]) else {
        return false;
    };
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (at, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    expected == unsigned || expected == signed
}

pub(crate) const fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// What raises a limit, of those that can be.
fn flag(what: &str) -> &'static str {
    match what {
        "bytes" => "; --archive-limits=bytes=NUMBER allows more",
        "entries" => "; --archive-limits=entries=NUMBER allows more",
        _ => "",
    }
}

fn limit(what: &'static str, max: u64, path: Option<String>) -> ReadError {
    ReadError::Limit { what, max, path }
}

/// A hostile path for an error message, which quotes it (`{:?}`): no more than 256 bytes of it.
pub(crate) fn printable(path: &[u8]) -> String {
    const SHOWN_MAX: usize = 256;
    let mut shown = String::from_utf8_lossy(&path[..path.len().min(SHOWN_MAX)]).into_owned();
    if path.len() > SHOWN_MAX {
        shown.push('…');
    }
    shown
}
