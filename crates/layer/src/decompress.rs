//! Decompresses blobs that others made, within limits. Starts no program: everything happens in this process.

use std::io::{self, BufReader, Cursor, Read};

use crate::compression::Compression;
use crate::limits::DecompressLimits;

const INPUT_BUFFER_BYTES: usize = 128 << 10;

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
    decompress_boxed(Box::new(input), compression, limits)
}

/// The same for whatever is read, which is asked for much at a time: decoders are compiled for one kind of reader.
fn decompress_boxed<'a>(
    input: Box<dyn Read + Send + 'a>,
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
