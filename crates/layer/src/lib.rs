//! Layers as streams and as directories: tar in both directions, compression, digests, whiteouts.
//!
//! Level 1, synchronous, no unsafe code. Owns what a layer's bytes mean and which bytes a directory becomes. Knows no
//! images, no store and no network.
//!
//! - [`decompress`] and [`TarReader`] read what others wrote, within [`Limits`];
//! - [`unpack`] makes a layer directory of a layer, [`extract`] puts an archive given to `ADD` onto a root;
//! - [`merge_layers`] makes one directory of layer directories, [`link_touched`] a layer of what was changed in it,
//!   [`fold_layers`] one layer directory of several;
//! - [`write_tar`] and [`pack`] make the layer that BuildKit would make of a directory, [`LayerTar`] one that was never a
//!   directory, [`TarWriter`] any archive.
//!
//! ```
//! use rbuild_layer::{Compression, DecompressLimits, LayerFormat, Limits, Packing, TarReader, decompress, pack_with};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (packed, blob) = pack_with(&Packing::new(LayerFormat::Gzip(None), 2), Vec::new(), |out| {
//!     rbuild_layer::TarWriter::new(out).finish().map_err(rbuild_layer::WriteError::from)?;
//!     Ok::<_, rbuild_layer::PackError>(0)
//! })?;
//! assert_eq!(packed.tar_size, 1024);
//! let compression = Compression::detect(&blob);
//! let stream = decompress(blob.as_slice(), compression, &DecompressLimits::default())?;
//! assert!(TarReader::new(stream, Limits::default()).next_entry()?.is_none());
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod apply;
mod compress;
mod compression;
mod decompress;
mod digesting;
mod entry;
mod extract;
mod field;
mod limits;
mod pack;
mod pax;
mod reader;
mod unpack;
mod write_tar;
mod writer;
mod xattr;

pub use apply::{ApplyError, DevicePolicy};
pub use compress::{CompressError, Compressor, GZIP_LEVEL_DEFAULT, LayerFormat, Members, TocTar, is_estargz};
pub use compression::Compression;
pub use decompress::{DecompressError, TooManyBytes, decompress, decompress_detected};
pub use entry::{Device, Entry, EntryKind, Time, WHITEOUT_PREFIX, Xattr};
pub use extract::{ExtractError, ExtractOptions, Extracted, extract, is_archive};
pub use limits::{Allowance, AllowanceError, DecompressLimits, Limits};
pub use pack::{PackError, PackOptions, Packed, PackedToc, Packing, pack, pack_with};
pub use pax::PaxError;
pub use reader::{Piece, ReadError, TarReader};
pub use unpack::{AdoptError, UnpackOptions, Unpacked, adopt_implied, unpack};
pub use write_tar::{
    Contents, ExportedXattrs, LateLinks, LayerTar, Upper, WriteError, WriteOptions, Written, copy_layer,
    fold_layers, is_explicit, link_changes, link_touched, link_tree, merge_layers, write_tar, write_trees,
};
pub use writer::{TarWriteError, TarWriter};
