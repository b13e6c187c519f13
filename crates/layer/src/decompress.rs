//! Decompresses blobs that others made, within limits. Starts no program: everything happens in this process.

use std::io::{self, BufReader, Cursor, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::compression::Compression;
use crate::limits::DecompressLimits;

const INPUT_BUFFER_BYTES: usize = 128 << 10;
const AHEAD_PIECE_BYTES: usize = 256 << 10;
const AHEAD_PIECES: usize = 8;

/// Why a stream could not be decompressed at all. What goes wrong later comes out of the reader.
#[derive(Debug, thiserror::Error)]
pub enum DecompressError {
    /// The first bytes could not be read.
    #[error("read compressed stream")]
    Read(#[source] io::Error),
    /// The decoder could not be made.
    #[error("set up {0:?} decoder")]
    SetUp(Compression, #[source] io::Error),
}

/// The limit on decompressed bytes was passed: the source of an [`io::Error`] from the reader.
#[derive(Debug, thiserror::Error)]
#[error("stream decompresses to more than {max_bytes} bytes; --archive-limits=bytes=NUMBER allows more")]
pub struct TooManyBytes {
    /// The limit.
    pub max_bytes: u64,
}

/// Reads what `compression` names out of `input`: every gzip member, every zstd frame (skippable ones skipped).
///
/// # Errors
/// [`DecompressError`] when the decoder cannot be made; later errors, the byte limit among them, come from the reader.
pub fn decompress<'a>(
    input: impl Read + Send + 'a,
    compression: Compression,
    limits: &DecompressLimits,
) -> Result<Box<dyn Read + Send + 'a>, DecompressError> {
    let set_up = |source| DecompressError::SetUp(compression, source);
    let input = BufReader::with_capacity(INPUT_BUFFER_BYTES, input);
    let max_bytes = limits.max_bytes;
    Ok(match compression {
        Compression::None => Box::new(Limited::new(input, max_bytes)),
        Compression::Gzip => Box::new(Limited::new(
            flate2::bufread::MultiGzDecoder::new(input),
            max_bytes,
        )),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(set_up)?;
            decoder
                .window_log_max(limits.max_zstd_window_log)
                .map_err(set_up)?;
            Box::new(Limited::new(decoder, max_bytes))
        }
        Compression::Bzip2 => Box::new(Limited::new(
            bzip2::bufread::MultiBzDecoder::new(input),
            max_bytes,
        )),
        Compression::Xz => {
            let flags = liblzma::stream::CONCATENATED;
            let stream = liblzma::stream::Stream::new_stream_decoder(limits.max_xz_memory, flags)
                .map_err(|e| set_up(e.into()))?;
            Box::new(Limited::new(
                liblzma::bufread::XzDecoder::new_stream(input, stream),
                max_bytes,
            ))
        }
    })
}

/// Like [`decompress`], with the compression told by the content.
///
/// # Errors
/// As [`decompress`], and when the first bytes cannot be read.
pub fn decompress_detected<'a>(
    mut input: impl Read + Send + 'a,
    limits: &DecompressLimits,
) -> Result<(Compression, Box<dyn Read + Send + 'a>), DecompressError> {
    let mut start = Vec::with_capacity(Compression::DETECT_BYTES);
    input
        .by_ref()
        .take(Compression::DETECT_BYTES as u64)
        .read_to_end(&mut start)
        .map_err(DecompressError::Read)?;
    let compression = Compression::detect(&start);
    let whole = Cursor::new(start).chain(input);
    Ok((compression, decompress(whole, compression, limits)?))
}

/// Reads `input` on a thread of its own, a bounded number of pieces ahead, so that decompressing and unpacking
/// use two cores. Dropping it ends the thread.
#[derive(Debug)]
pub struct ReadAhead {
    pieces: Option<Receiver<io::Result<Vec<u8>>>>,
    current: Cursor<Vec<u8>>,
    ended: bool,
    thread: Option<JoinHandle<()>>,
}

impl ReadAhead {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's, when no thread can be made.
    pub fn spawn(input: impl Read + Send + 'static) -> io::Result<Self> {
        let (sender, pieces) = sync_channel(AHEAD_PIECES);
        let thread = std::thread::Builder::new()
            .name("decompress".into())
            .spawn(move || run_ahead(input, &sender))?;
        Ok(Self {
            pieces: Some(pieces),
            current: Cursor::default(),
            ended: false,
            thread: Some(thread),
        })
    }
}

fn run_ahead(mut input: impl Read, sender: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = Vec::with_capacity(AHEAD_PIECE_BYTES);
        let read = input
            .by_ref()
            .take(AHEAD_PIECE_BYTES as u64)
            .read_to_end(&mut piece);
        let last = match read {
            Ok(count) => count < AHEAD_PIECE_BYTES,
            Err(_) => true,
        };
        // What came before an error belongs to the reader, too.
        if !piece.is_empty() && sender.send(Ok(piece)).is_err() {
            return;
        }
        if let Err(error) = read {
            // A reader that is gone wants no error.
            sender.send(Err(error)).ok();
        }
        if last {
            return;
        }
    }
}

impl Read for ReadAhead {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.current.read(out)?;
            if read > 0 || out.is_empty() || self.ended {
                return Ok(read);
            }
            match self.pieces.as_ref().map(Receiver::recv) {
                Some(Ok(Ok(piece))) => self.current = Cursor::new(piece),
                Some(Ok(Err(error))) => {
                    self.ended = true;
                    return Err(error);
                }
                None | Some(Err(_)) => {
                    self.ended = true;
                    // A thread that died without a word must not look like the end of the stream.
                    if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
                        return Err(io::Error::other("decompression thread failed"));
                    }
                }
            }
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        // The channel first: the thread may be waiting to send.
        self.pieces = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A reader that fails once more than its budget came out.
struct Limited<R> {
    inner: R,
    left: u64,
    max_bytes: u64,
}

impl<R> Limited<R> {
    const fn new(inner: R, max_bytes: u64) -> Self {
        Self {
            inner,
            left: max_bytes,
            max_bytes,
        }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(io::Error::other(TooManyBytes {
                    max_bytes: self.max_bytes,
                }));
            }
        }
        Ok(read)
    }
}
