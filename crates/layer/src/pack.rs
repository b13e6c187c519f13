//! Layer directory to compressed blob in one pass: tar, diff id and compression together. The blob's own digest is known to whoever
//! stores it.

use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rbuild_oci::{DiffId, Digest};
use rbuild_sys::overlay::Form;

use crate::compress::{CompressError, Compressor, LayerFormat, Members, TocTar};
use crate::digesting::Digesting;
use crate::write_tar::{WriteError, WriteOptions, write_tar};

/// How a tar becomes a blob.
#[derive(Clone, Debug)]
pub struct Packing {
    /// How the tar is compressed.
    pub format: LayerFormat,
    /// Threads that compress.
    pub workers: usize,
    /// What was compressed before, of gzip.
    pub members: Option<Arc<dyn Members>>,
}

impl Packing {
    /// All of it is compressed anew.
    #[must_use]
    pub const fn new(format: LayerFormat, workers: usize) -> Self {
        Self {
            format,
            workers,
            members: None,
        }
    }
}

/// How to pack a layer.
#[derive(Clone, Debug)]
pub struct PackOptions<'a> {
    /// What goes into the tar.
    pub write: WriteOptions<'a>,
    /// What becomes of the tar.
    pub packing: Packing,
}

/// What was packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Bytes of the uncompressed tar.
    pub tar_size: u64,
    /// Entries in the tar.
    pub entries: u64,
    /// The end of an eStargz layer's tar.
    pub toc: Option<PackedToc>,
}

/// A table of contents behind what was packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedToc {
    /// Digest of the table.
    pub digest: Digest,
    /// Digest of the tar without it.
    pub tar: DiffId,
}

/// Why a layer could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The tar could not be made.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// There is no such compressor.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// The end of the blob could not be written.
    #[error("write layer blob")]
    Output(#[source] io::Error),
}

/// Writes the layer directory `layer` as a blob to `out`.
///
/// # Errors
/// [`PackError`]; `out` holds a useless beginning then.
pub fn pack(
    layer: BorrowedFd<'_>,
    form: Form,
    options: &PackOptions<'_>,
    out: impl Write,
) -> Result<Packed, PackError> {
    let (packed, _out) = pack_with(&options.packing, out, |tar| {
        Ok::<_, PackError>(write_tar(layer, form, &options.write, tar)?.entries)
    })?;
    Ok(packed)
}

/// Compresses whatever `fill` writes as an uncompressed tar, digests the tar, and gives `out` back. `fill` returns the
/// number of entries it wrote. This is how a layer that was never a directory becomes a blob.
///
/// # Errors
/// Those of `fill`, and [`PackError`].
pub fn pack_with<W: Write, E: From<PackError>>(
    packing: &Packing,
    out: W,
    fill: impl FnOnce(&mut dyn Write) -> Result<u64, E>,
) -> Result<(Packed, W), E> {
    let output = |error| E::from(PackError::Output(error));
    if packing.format == LayerFormat::Uncompressed {
        let mut plain = Digesting::new(out);
        let entries = fill(&mut plain)?;
        plain.flush().map_err(output)?;
        let (out, diff_id, tar_size) = plain.finish();
        return Ok((
            Packed {
                diff_id: DiffId(diff_id),
                tar_size,
                entries,
                toc: None,
            },
            out,
        ));
    }
    let compressor = Compressor::new(out, packing.format, packing.workers, packing.members.clone());
    let compressor = compressor.map_err(PackError::Compress)?;
    let mut tar = Digesting::new(compressor);
    let entries = fill(&mut tar)?;
    let toc = tar.inner_mut().toc().map_err(output)?;
    let toc = match toc {
        Some(TocTar { bytes, digest }) => {
            let before = DiffId(tar.digest());
            tar.write_all(&bytes).map_err(output)?;
            Some(PackedToc { digest, tar: before })
        }
        None => None,
    };
    let (compressor, diff_id, tar_size) = tar.finish();
    let mut out = compressor.finish().map_err(output)?;
    out.flush().map_err(output)?;
    Ok((
        Packed {
            diff_id: DiffId(diff_id),
            tar_size,
            entries,
            toc,
        },
        out,
    ))
}
