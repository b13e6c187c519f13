//! eStargz (stargz-snapshotter, `docs/estargz.md`): a gzip layer of which a file can be read without what is before it. The content
//! of each file, and each 4 MiB of it, begins a gzip member; a table of contents tells where; the last 51 bytes tell where that is.
//!
//! The tar is kept byte for byte, and what is added stands behind its end, as BuildKit has it (`util/compression/estargz.go`,
//! `AppendTarLossLess`): there are no landmarks, and who unpacks the layer sees no file more. Owns the form; members are made by
//! [`PieceGzip`].

mod toc;

use std::io::{self, Read, Seek, SeekFrom, Write};

use rbuild_oci::Digest;
use sha2::{Digest as _, Sha256};

use self::toc::{FOOTER_BYTES, Toc, footer, toc_offset};
use super::gzip::PieceGzip;
use crate::entry::{Entry, EntryKind};
use crate::field::number;
use crate::limits::Limits;
use crate::reader::{BLOCK, ReadError, TarReader, padding};

/// Most bytes of content in a member (estargz, `Writer.ChunkSize`). Part of the output's identity.
const CHUNK_BYTES: u64 = 4 << 20;
/// Bytes of headers after which another member is begun, though no reader wants to begin there: nothing grows without end.
const HEADERS_MAX: usize = 4 << 20;
/// The file that the table of contents is in.
const TOC_NAME: &[u8] = b"stargz.index.json";

/// What an eStargz layer's tar ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TocTar {
    /// A tar of one file, the table of contents.
    pub bytes: Vec<u8>,
    /// Digest of the table (the annotation `containerd.io/snapshot/stargz/toc.digest`).
    pub digest: Digest,
}

/// Whether `blob` is an eStargz layer: it ends in a footer, and there is a table of contents where that says.
///
/// # Errors
/// The blob's.
pub fn is_estargz(blob: &mut (impl Read + Seek)) -> io::Result<bool> {
    let size = blob.seek(SeekFrom::End(0))?;
    let Some(footer_at) = size.checked_sub(FOOTER_BYTES as u64) else {
        return Ok(false);
    };
    blob.seek(SeekFrom::Start(footer_at))?;
    let mut footer = [0; FOOTER_BYTES];
    blob.read_exact(&mut footer)?;
    let Some(offset) = toc_offset(&footer).filter(|offset| *offset < footer_at) else {
        return Ok(false);
    };
    blob.seek(SeekFrom::Start(offset))?;
    let tar = flate2::read::GzDecoder::new(blob.take(footer_at - offset));
    let mut tar = TarReader::with_buffer(tar, Limits::allowed(), BLOCK);
    Ok(tar
        .next_entry()
        .is_ok_and(|entry| entry.is_some_and(|entry| entry.path == TOC_NAME)))
}

/// What the next bytes of the tar are.
#[derive(Debug)]
enum Next {
    /// An entry's headers: this one begins so many bytes into them, its block ends where `until` says.
    Header { at: usize, until: usize },
    /// What a header that is about the next one says.
    Meta { until: usize },
    /// A file's content.
    Content(Box<Content>),
    /// What fills a block up.
    Padding { left: u64 },
    /// What is behind the archive's end.
    Rest,
}

/// A file whose content comes.
#[derive(Debug)]
struct Content {
    left: u64,
    /// Bytes of the member under way that are still to come.
    chunk_left: u64,
    /// The whole file's digest. Of a file of one chunk, that one's is the same.
    whole: Option<Sha256>,
    chunk: Sha256,
    padding: u64,
}

/// Writes a tar as an eStargz layer.
pub(super) struct EStargz<W: Write> {
    gzip: PieceGzip<W>,
    next: Next,
    /// Headers of the entry to come.
    head: Vec<u8>,
    toc: Toc,
    /// Where the table of contents is, once it was made.
    toc_at: Option<u64>,
}

impl<W: Write> EStargz<W> {
    pub(super) fn new(gzip: PieceGzip<W>) -> Self {
        Self {
            gzip,
            next: Next::first(),
            head: Vec::new(),
            toc: Toc::default(),
            toc_at: None,
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.next {
            Next::Header { until, .. } | Next::Meta { until } => {
                let taken = (*until - self.head.len()).min(bytes.len());
                let is_whole = self.head.len() + taken == *until;
                self.head.extend_from_slice(&bytes[..taken]);
                if is_whole {
                    self.headers()?;
                }
                Ok(taken)
            }
            Next::Content(_) => self.content(bytes),
            Next::Padding { left } => {
                let taken = at_most(*left, bytes.len());
                *left -= taken as u64;
                let is_over = *left == 0;
                self.gzip.add(&bytes[..taken]);
                if is_over {
                    self.next = Next::first();
                }
                Ok(taken)
            }
            Next::Rest => {
                self.gzip.add(bytes);
                if self.toc_at.is_none() {
                    self.bound_headers()?;
                }
                Ok(bytes.len())
            }
        }
    }

    /// Ends the tar, and makes what is to be written behind it.
    pub(super) fn toc(&mut self) -> io::Result<TocTar> {
        let between = self.head.is_empty() && matches!(self.next, Next::Header { .. });
        if !between && !matches!(self.next, Next::Rest) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "archive ends inside an entry",
            ));
        }
        let (starts, end) = self.gzip.flush_members()?;
        let tar = self.toc.tar(starts)?;
        self.next = Next::Rest;
        self.toc_at = Some(end);
        Ok(tar)
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        if self.toc_at.is_none() {
            let toc = self.toc()?;
            self.write(&toc.bytes)?;
        }
        let mut out = self.gzip.finish()?;
        out.write_all(&footer(self.toc_at.unwrap_or_default()))?;
        Ok(out)
    }

    /// Goes on after a block of headers, or what one of them says, is whole.
    fn headers(&mut self) -> io::Result<()> {
        let Next::Header { at, until } = self.next else {
            return self.next_header();
        };
        let block = &self.head[at..until];
        if block.iter().all(|byte| *byte == 0) {
            self.next = Next::Rest;
            self.put_head();
            return Ok(());
        }
        if !matches!(block[156], b'x' | b'g' | b'L' | b'K') {
            return self.entry();
        }
        let size = number(&block[124..136]).and_then(|size| u64::try_from(size).ok());
        let whole = size.and_then(|size| usize::try_from(size.checked_add(padding(size))?).ok());
        let until = whole.and_then(|whole| until.checked_add(whole));
        let most = usize::try_from(Limits::allowed().max_header_bytes).unwrap_or(usize::MAX);
        let until = until.filter(|until| *until <= most.saturating_mul(2));
        let until = until.ok_or_else(|| io::Error::other("an extended header is too long"))?;
        if until == self.head.len() {
            return self.next_header();
        }
        self.next = Next::Meta { until };
        Ok(())
    }

    fn next_header(&mut self) -> io::Result<()> {
        let at = self.head.len();
        let until = at + BLOCK;
        self.next = Next::Header { at, until };
        Ok(())
    }

    /// Goes on after all headers of an entry.
    fn entry(&mut self) -> io::Result<()> {
        let refuse = |error: ReadError| io::Error::new(io::ErrorKind::InvalidData, error);
        let mut reader = TarReader::with_buffer(self.head.as_slice(), Limits::allowed(), BLOCK);
        let entry = reader.next_entry().map_err(refuse)?;
        let entry = entry.ok_or_else(|| io::Error::other("headers without an entry"))?;
        if is_toc_name(&entry.path) {
            // BuildKit's words: such a layer could not be told from what is made of it.
            return Err(io::Error::other(
                "existing TOC JSON is not allowed; decompress layer before append",
            ));
        }
        self.put_head();
        self.toc.push(&entry);
        match entry {
            Entry {
                kind: EntryKind::File { size },
                ..
            } if size > 0 => {
                let content = Content::new(size);
                self.begin_chunk(&content)?;
                self.next = Next::Content(Box::new(content));
            }
            _ => {
                self.next = Next::first();
                self.bound_headers()?;
            }
        }
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Next::Content(content) = &mut self.next else {
            return Ok(0);
        };
        let taken = at_most(content.chunk_left, bytes.len());
        let bytes = &bytes[..taken];
        self.gzip.add(bytes);
        content.chunk.update(bytes);
        if let Some(whole) = &mut content.whole {
            whole.update(bytes);
        }
        content.left -= taken as u64;
        content.chunk_left -= taken as u64;
        if content.chunk_left > 0 {
            return Ok(taken);
        }
        let chunk = Digest::from_sha256(std::mem::take(&mut content.chunk).finalize().into());
        self.toc.end_chunk(chunk.clone());
        if content.left > 0 {
            content.chunk_left = content.left.min(CHUNK_BYTES);
            let Next::Content(content) = std::mem::replace(&mut self.next, Next::first()) else {
                return Ok(taken);
            };
            self.begin_chunk(&content)?;
            self.next = Next::Content(content);
            return Ok(taken);
        }
        let whole = content.whole.take();
        self.toc
            .end_file(whole.map_or(chunk, |whole| Digest::from_sha256(whole.finalize().into())));
        self.next = match content.padding {
            0 => Next::first(),
            left => Next::Padding { left },
        };
        Ok(taken)
    }

    fn begin_chunk(&mut self, content: &Content) -> io::Result<()> {
        let member = self.gzip.cut()?;
        self.toc.begin_chunk(member, content.left);
        Ok(())
    }

    fn put_head(&mut self) {
        self.gzip.add(&self.head);
        self.head.clear();
    }

    fn bound_headers(&mut self) -> io::Result<()> {
        if self.gzip.open_len() >= HEADERS_MAX {
            self.gzip.cut()?;
        }
        Ok(())
    }
}

impl Next {
    /// The first header of an entry.
    const fn first() -> Self {
        Self::Header { at: 0, until: BLOCK }
    }
}

impl Content {
    fn new(size: u64) -> Self {
        Self {
            left: size,
            chunk_left: size.min(CHUNK_BYTES),
            whole: (size > CHUNK_BYTES).then(Sha256::new),
            chunk: Sha256::new(),
            padding: padding(size),
        }
    }
}

fn at_most(left: u64, len: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(len)
}

/// Whether a path is the table's, as estargz cleans names (`cleanEntryName`).
fn is_toc_name(path: &[u8]) -> bool {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts == [TOC_NAME]
}
