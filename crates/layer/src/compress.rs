//! Compresses layers. The bytes depend on the input, the format and the level alone: never on the number of cores,
//! the sizes of the writes or the time.

mod estargz;
mod gzip;
mod members;
mod pieces;
mod sparse;

use std::io::{self, Write};
use std::sync::Arc;

use estargz::EStargz;
pub use estargz::{TocTar, is_estargz};
use gzip::PieceGzip;
pub use members::Members;

/// Threads that one compressor may use, whatever it is told.
const WORKERS_MAX: usize = 32;
/// Bytes of input that one zstd worker takes at a time; named so that a new libzstd default changes no digest.
const ZSTD_JOB_BYTES: u32 = 4 << 20;
/// libdeflate's, which at this one makes 3 % more of a Debian system than zlib does at its own default of 6, and 2 % less of text, in
/// less than half of the time. At 4 it is 1.5 % less, and text takes 1.6 times as long (`benches/results/2026-11-22-gzip-levels.md`).
pub const GZIP_LEVEL_DEFAULT: u32 = 2;
const GZIP_LEVEL_MAX: u32 = 9;
const ZSTD_LEVEL_DEFAULT: i32 = 3;

/// How a layer is to be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerFormat {
    /// A plain tar.
    Uncompressed,
    /// gzip, a member for each piece of about 1 MiB; level 0 to 9, [`GZIP_LEVEL_DEFAULT`] if not given.
    Gzip(Option<u32>),
    /// eStargz: gzip, a member for each file and each 4 MiB of one, with a table of contents; levels as of gzip.
    EStargz(Option<u32>),
    /// zstd; level 0 to 22, 3 if not given (0 is 3, too).
    Zstd(Option<i32>),
}

/// Why no compressor could be made.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// The level is not one of the format's.
    #[error("compression level {level} is not between 0 and {max}")]
    Level {
        /// The level asked for.
        level: i64,
        /// The format's highest.
        max: i64,
    },
    /// libzstd gave no context.
    #[error("set up compressor")]
    SetUp(#[source] io::Error),
}

/// Writes compressed bytes to `W`. [`finish`](Self::finish) must be called; dropping it leaves a truncated stream.
pub struct Compressor<W: Write> {
    inner: Inner<W>,
}

enum Inner<W: Write> {
    Plain(W),
    Gzip(Box<PieceGzip<W>>),
    EStargz(Box<EStargz<W>>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> std::fmt::Debug for Compressor<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.inner {
            Inner::Plain(_) => "Plain",
            Inner::Gzip(_) => "Gzip",
            Inner::EStargz(_) => "EStargz",
            Inner::Zstd(_) => "Zstd",
        };
        f.debug_tuple("Compressor").field(&name).finish()
    }
}

impl<W: Write> Compressor<W> {
    /// A compressor into `out` with up to `workers` threads of its own (at least one, at most 32).
    /// Memory: about 5 MiB a worker for gzip, 16 MiB a worker for zstd at its default level. gzip takes from `members`
    /// what was compressed before, and tells them what is in the output.
    ///
    /// # Errors
    /// [`CompressError`].
    pub fn new(
        out: W,
        format: LayerFormat,
        workers: usize,
        members: Option<Arc<dyn Members>>,
    ) -> Result<Self, CompressError> {
        let workers = workers.clamp(1, WORKERS_MAX);
        let inner = match format {
            LayerFormat::Uncompressed => Inner::Plain(out),
            LayerFormat::Gzip(level) => Inner::Gzip(Box::new(PieceGzip::new(
                out,
                gzip_level(level)?,
                workers,
                members,
            ))),
            // Members that are found again are pieces, and these are files: there are too many to know.
            LayerFormat::EStargz(level) => {
                let gzip = PieceGzip::new(out, gzip_level(level)?, workers, None);
                Inner::EStargz(Box::new(EStargz::new(gzip)))
            }
            LayerFormat::Zstd(level) => {
                let level = level.unwrap_or(ZSTD_LEVEL_DEFAULT);
                if !(0..=22).contains(&level) {
                    return Err(CompressError::Level {
                        level: level.into(),
                        max: 22,
                    });
                }
                Inner::Zstd(zstd_encoder(out, level, workers).map_err(CompressError::SetUp)?)
            }
        };
        Ok(Self { inner })
    }

    /// The end of an eStargz layer's tar: it has to be written after all else, and belongs to the diff id. Other formats have
    /// none.
    ///
    /// # Errors
    /// Those of the writer below; what was written is no whole tar.
    pub fn toc(&mut self) -> io::Result<Option<TocTar>> {
        match &mut self.inner {
            Inner::EStargz(estargz) => estargz.toc().map(Some),
            Inner::Plain(_) | Inner::Gzip(_) | Inner::Zstd(_) => Ok(None),
        }
    }

    /// Ends the stream and gives back what it was written to.
    ///
    /// # Errors
    /// Those of the writer below.
    pub fn finish(self) -> io::Result<W> {
        match self.inner {
            Inner::Plain(out) => Ok(out),
            Inner::Gzip(gzip) => gzip.finish(),
            Inner::EStargz(estargz) => estargz.finish(),
            Inner::Zstd(zstd) => zstd.finish(),
        }
    }
}

fn gzip_level(level: Option<u32>) -> Result<u32, CompressError> {
    let level = level.unwrap_or(GZIP_LEVEL_DEFAULT);
    if level > GZIP_LEVEL_MAX {
        return Err(CompressError::Level {
            level: level.into(),
            max: GZIP_LEVEL_MAX.into(),
        });
    }
    Ok(level)
}

fn zstd_encoder<W: Write>(
    out: W,
    level: i32,
    workers: usize,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
    // Without a worker libzstd makes other bytes than with any number of them.
    encoder.multithread(u32::try_from(workers).unwrap_or(1))?;
    encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(ZSTD_JOB_BYTES))?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(out) => out.write(bytes),
            Inner::Gzip(gzip) => gzip.write(bytes),
            Inner::EStargz(estargz) => estargz.write(bytes),
            Inner::Zstd(zstd) => zstd.write(bytes),
        }
    }

    /// Does nothing: a flush in the middle would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
