//! The content of the entry that was read last: stored bytes, and the holes of a sparse file between them.

use std::io::{self, BufRead as _, Read};

use super::sparse::{self, Lines, Map, Run};
use super::{BLOCK, ReadError, TarReader, limit, padding, printable};
use crate::entry::{Entry, EntryKind};

/// A part of an entry's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// As it is in the archive.
    Bytes(&'a [u8]),
    /// So many zeros of a sparse file, which the archive does not hold.
    Hole(u64),
}

impl Piece<'_> {
    /// Writes it out, zeros and all.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_to(self, out: &mut impl io::Write) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => out.write_all(bytes),
            Self::Hole(bytes) => io::copy(&mut io::repeat(0).take(bytes), out).map(drop),
        }
    }
}

/// What is still to come of it.
#[derive(Debug, Default)]
pub(super) struct Content {
    now: Run,
    /// What follows of a sparse file.
    then: std::vec::IntoIter<Run>,
    padding: u64,
}

impl Content {
    /// So many bytes as they are, and what fills up their last block.
    pub(super) fn stored(bytes: u64) -> Self {
        Self {
            now: Run {
                zeros: 0,
                data: bytes,
            },
            padding: padding(bytes),
            ..Self::default()
        }
    }
}

impl<R: Read> TarReader<R> {
    /// Gives the rest of the current entry's content to `sink`, in pieces of any size. A hole counts as bytes of the stream.
    ///
    /// # Errors
    /// The stream's, and what `sink` returns.
    pub fn copy_content<E: From<ReadError>>(
        &mut self,
        mut sink: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            if self.content.now.zeros > 0 {
                sink(Piece::Hole(self.take_zeros(self.content.now.zeros)?))?;
            }
            while self.content.now.data > 0 {
                let offset = self.position;
                let left = usize::try_from(self.content.now.data).unwrap_or(usize::MAX);
                let available = self.fill()?;
                if available.is_empty() {
                    return Err(ReadError::Truncated { offset }.into());
                }
                let take = available.len().min(left);
                sink(Piece::Bytes(&available[..take]))?;
                self.consume(take)?;
                self.content.now.data -= take as u64;
            }
            if !self.next_run() {
                return Ok(());
            }
        }
    }

    /// Goes on to the next zeros and bytes of a sparse file; `false` at its end.
    fn next_run(&mut self) -> bool {
        let Some(run) = self.content.then.next() else {
            return false;
        };
        self.content.now = run;
        true
    }

    /// Takes zeros of a hole, as many as are left and wanted.
    fn take_zeros(&mut self, wanted: u64) -> Result<u64, ReadError> {
        let take = wanted.min(self.content.now.zeros);
        self.content.now.zeros -= take;
        self.zeros = self.zeros.saturating_add(take);
        self.check_bytes()?;
        Ok(take)
    }

    pub(super) fn skip_content(&mut self) -> Result<(), ReadError> {
        self.copy_content(|_| Ok::<(), ReadError>(()))?;
        while self.content.padding > 0 {
            let left = usize::try_from(self.content.padding).unwrap_or(usize::MAX);
            let take = self.fill()?.len().min(left);
            // Go lets the last padding be missing (archive/tar, reader.go, tryReadFull).
            if take == 0 {
                self.content.padding = 0;
                break;
            }
            self.consume(take)?;
            self.content.padding -= take as u64;
        }
        Ok(())
    }

    /// Makes the holes and bytes of a sparse file its content.
    pub(super) fn lay_out(&mut self, map: Map, entry: &Entry) -> Result<(), ReadError> {
        let bad = || ReadError::BadField {
            path: printable(&entry.path),
            field: "sparse map",
        };
        let EntryKind::File { size } = entry.kind else {
            return Err(bad());
        };
        let numbers = match map {
            Map::Known(numbers) => numbers,
            Map::InContent => self.map_in_content(bad)?,
        };
        let stored = std::mem::take(&mut self.content.now.data);
        self.content.then = sparse::runs(&numbers, size, stored).ok_or_else(bad)?.into_iter();
        Ok(())
    }

    fn map_in_content(&mut self, bad: impl Fn() -> ReadError) -> Result<Vec<u64>, ReadError> {
        let (mut lines, mut bytes) = (Lines::default(), 0);
        loop {
            bytes += BLOCK as u64;
            if bytes > self.limits.max_header_bytes {
                let max = self.limits.max_header_bytes;
                return Err(limit("header bytes before one entry", max, None));
            }
            self.content.now.data = self.content.now.data.checked_sub(BLOCK as u64).ok_or_else(&bad)?;
            let offset = self.position;
            let block = self.block()?.ok_or(ReadError::Truncated { offset })?;
            if lines.take(&block).ok_or_else(&bad)? {
                return Ok(lines.numbers());
            }
        }
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        while self.content.now == Run::default() {
            if !self.next_run() {
                return Ok(0);
            }
        }
        if self.content.now.zeros > 0 {
            let take = self.take_zeros(out.len() as u64).map_err(io::Error::other)?;
            let take = usize::try_from(take).unwrap_or(out.len());
            out[..take].fill(0);
            return Ok(take);
        }
        let available = self.input.fill_buf()?;
        if available.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let left = usize::try_from(self.content.now.data).unwrap_or(usize::MAX);
        let take = available.len().min(out.len()).min(left);
        out[..take].copy_from_slice(&available[..take]);
        self.consume(take).map_err(io::Error::other)?;
        self.content.now.data -= take as u64;
        Ok(take)
    }
}
