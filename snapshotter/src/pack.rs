//! From layer directories to blobs. What was packed once is not packed again.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use rbuild_layer::{
    DecompressError, DecompressLimits, ExportedXattrs, GZIP_LEVEL_DEFAULT, LayerFormat, Members, PackError,
    PackOptions, Packing, TarWriteError, WriteError, WriteOptions,
};
use rbuild_oci::{DiffId, Digest, media_type};
use rbuild_store::{BlobWriter, CommitBlobError, DiffBlob, LayerId, Lease, StoreError};

use crate::Snapshotter;
use crate::dir::open_dir;
use crate::members::StoredMembers;
use crate::stack::{StackError, View};

/// Space of the store's values: diff ids of layers packed with other than the usual options.
const PACKED: &str = "layer-packed";
/// Space of the store's values: what is known of the tables of contents that blobs end with.
const TOC: &str = "layer-toc";

/// Why a layer was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackLayerError {
    /// The layer cannot be written.
    #[error("pack layer")]
    Pack(#[from] PackError),
    /// The blob of a pulled layer cannot be decompressed.
    #[error("decompress blob {digest}")]
    Decompress {
        /// The blob.
        digest: Digest,
        /// Why not.
        #[source]
        source: DecompressError,
    },
    /// The blob of a pulled layer is another layer than the one it was recorded for.
    #[error("blob of layer {expected} has diff id {found}")]
    DiffId {
        /// Recorded.
        expected: DiffId,
        /// Found.
        found: DiffId,
    },
    /// The blob cannot be kept.
    #[error(transparent)]
    Commit(#[from] CommitBlobError),
    /// The layer or those below it.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_parts!(PackLayerError);

impl PackLayerError {
    /// Whether the layer cannot have the times that were asked for.
    #[must_use]
    pub const fn is_about_time(&self) -> bool {
        matches!(
            self,
            Self::Pack(PackError::Write(WriteError::Tar(TarWriteError::Time { .. })))
        )
    }
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy)]
pub struct PackLayerOptions {
    /// How the tar is compressed.
    pub format: LayerFormat,
    /// Threads that compress.
    pub workers: usize,
    /// No file of the layer is newer than this, seconds since 1970 (`SOURCE_DATE_EPOCH` with rewritten times).
    pub newest_mtime: Option<i64>,
    /// Which extended attributes are written.
    pub xattrs: ExportedXattrs,
    /// A blob of the same layer in another compression will do as well (BuildKit's exporters without
    /// `force-compression`).
    pub any_compression: bool,
}

/// A packed layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Digest of the blob.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// Media type of the blob.
    pub media_type: String,
    /// Of an eStargz layer: its table of contents.
    pub toc: Option<TocFacts>,
}

/// What has to be known of an eStargz layer before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TocFacts {
    /// Digest of the table of contents.
    pub digest: Digest,
    /// Bytes of the uncompressed tar, the table with them.
    pub tar_size: u64,
}

impl TocFacts {
    fn of(packed: &rbuild_layer::Packed) -> Option<Self> {
        packed.toc.as_ref().map(|toc| Self {
            digest: toc.digest.clone(),
            tar_size: packed.tar_size,
        })
    }

    fn text(&self) -> String {
        format!("{} {}", self.digest, self.tar_size)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (digest, tar_size) = std::str::from_utf8(text).ok()?.split_once(' ')?;
        Some(Self {
            digest: Digest::parse(digest).ok()?,
            tar_size: tar_size.parse().ok()?,
        })
    }
}

impl Snapshotter {
    /// The blob of a layer, packed if there is none yet; the lease holds it. `below` are the layers it was made on,
    /// bottom first: BuildKit leaves out what does not differ from them. For an explicit layer they do not count.
    ///
    /// # Errors
    /// [`PackLayerError`].
    pub fn pack_layer(
        &self,
        lease: &Lease,
        below: &[LayerId],
        id: &LayerId,
        options: &PackLayerOptions,
    ) -> Result<BlobInfo, PackLayerError> {
        let (compression, _) = compression_name(options.format);
        if let Some(diff_id) = self.known_diff_id(id, options)? {
            let wanted = (!options.any_compression).then_some(compression.as_str());
            if let Some(found) = self.find_blob(lease, &diff_id, &compression, wanted)? {
                return Ok(found);
            }
        }
        let (packed, blob) =
            self.keep_packed(lease, options.format, options.workers, |packing, writer| {
                Ok::<_, PackLayerError>(match self.recompress(id, options, &packing, writer)? {
                    Some(packed) => packed,
                    None => self.write(lease, below, id, options, packing, writer)?,
                })
            })?;
        self.note_diff_id(id, options, &packed)?;
        Ok(blob)
    }

    /// The blob of the layer whose tar `fill` writes; the lease holds it. `fill` gives the number of entries. The layer is no
    /// directory by that: it is unpacked like one that was pulled.
    ///
    /// # Errors
    /// Those of `fill`, and [`PackLayerError`].
    pub fn pack_written<E: From<PackError> + From<PackLayerError>>(
        &self,
        lease: &Lease,
        format: LayerFormat,
        workers: usize,
        fill: impl FnOnce(&mut dyn std::io::Write) -> Result<u64, E>,
    ) -> Result<BlobInfo, E> {
        let (_, blob) = self.keep_packed(lease, format, workers, |packing, writer| {
            let (packed, _out) = rbuild_layer::pack_with(&packing, writer, fill)?;
            Ok::<_, E>(packed)
        })?;
        Ok(blob)
    }

    /// Keeps what `pack` writes as a blob, and what is known of it.
    fn keep_packed<E: From<PackLayerError>>(
        &self,
        lease: &Lease,
        format: LayerFormat,
        workers: usize,
        pack: impl FnOnce(Packing, &mut BlobWriter<'_>) -> Result<rbuild_layer::Packed, E>,
    ) -> Result<(rbuild_layer::Packed, BlobInfo), E> {
        let members = Arc::new(StoredMembers::new(Arc::clone(self.store())));
        let packing = Packing {
            members: Some(Arc::clone(&members) as Arc<dyn Members>),
            ..Packing::new(format, workers)
        };
        let mut writer = self.store().blob_writer(lease).map_err(PackLayerError::from)?;
        let packed = pack(packing, &mut writer)?;
        let blob = writer.commit(None, None).map_err(PackLayerError::from)?;
        members.keep(&blob.digest).map_err(PackLayerError::from)?;
        let (compression, media_type) = compression_name(format);
        let found = DiffBlob {
            digest: blob.digest,
            size: blob.size,
            media_type: media_type.to_owned(),
        };
        let recorded = self.store().record_blob(&packed.diff_id, &compression, &found);
        recorded.map_err(PackLayerError::from)?;
        let toc = TocFacts::of(&packed);
        if let Some(toc) = &toc {
            let kept = self
                .store()
                .put_kv(TOC, found.digest.as_str(), toc.text().as_bytes());
            kept.map_err(PackLayerError::from)?;
        }
        let info = BlobInfo {
            diff_id: packed.diff_id.clone(),
            digest: found.digest,
            size: found.size,
            media_type: found.media_type,
            toc,
        };
        Ok((packed, info))
    }

    /// A blob of a layer in the usual form, whatever its compression, if there is one; the lease holds it.
    ///
    /// # Errors
    /// The store's.
    pub fn packed_layer(&self, lease: &Lease, id: &LayerId) -> Result<Option<BlobInfo>, StoreError> {
        let facts = self.store().layer_facts(self.form_name(), id)?;
        let Some(diff_id) = facts.and_then(|facts| facts.diff_id).or_else(|| id.diff_id()) else {
            return Ok(None);
        };
        self.find_blob(lease, &diff_id, "", None)
    }

    fn write(
        &self,
        lease: &Lease,
        below: &[LayerId],
        id: &LayerId,
        options: &PackLayerOptions,
        packing: Packing,
        out: impl std::io::Write,
    ) -> Result<rbuild_layer::Packed, PackLayerError> {
        let dirs = self.lowers(lease, std::slice::from_ref(id))?;
        let dir = dirs.first().map(|dir| open_dir(dir)).transpose()?;
        let layer = dir.ok_or_else(|| StackError::Missing(id.clone()))?;
        // An explicit layer holds nothing that could be left out, wherever it stands now.
        let view = match self.is_known_explicit(id)? {
            true => None,
            false => Some(self.view(lease, below)?),
        };
        let late = self.late_links(id)?;
        let write = WriteOptions {
            late: Some(&late),
            lower: view.as_ref().map(View::root),
            newest_mtime: options.newest_mtime,
            mtime: None,
            xattrs: options.xattrs,
        };
        let pack = PackOptions { write, packing };
        Ok(rbuild_layer::pack(layer.as_fd(), self.form(), &pack, out)?)
    }

    /// Compresses the tar of a layer anew from a blob of it: what was pulled keeps its diff id, which the same files
    /// written by us need not have. `None` if there is no such blob.
    fn recompress(
        &self,
        id: &LayerId,
        options: &PackLayerOptions,
        packing: &Packing,
        out: &mut impl std::io::Write,
    ) -> Result<Option<rbuild_layer::Packed>, PackLayerError> {
        // What a table of contents is added to is known by the tar without one.
        let plain = PackLayerOptions {
            format: LayerFormat::Uncompressed,
            ..*options
        };
        let Some(diff_id) = self.known_diff_id(id, &plain)? else {
            return Ok(None);
        };
        let Some(found) = self.store().blob_for_diff_id(&diff_id, None)? else {
            return Ok(None);
        };
        let Some(blob) = self.store().open_blob(&found.digest)? else {
            return Ok(None);
        };
        let stream = rbuild_layer::decompress_detected(blob, &DecompressLimits::allowed());
        let (_, mut stream) = stream.map_err(|source| PackLayerError::Decompress {
            digest: found.digest,
            source,
        })?;
        let (packed, _out) = rbuild_layer::pack_with(packing, out, |tar| {
            std::io::copy(&mut stream, tar).map_err(PackError::Output)?;
            Ok::<_, PackError>(0)
        })?;
        let copied = packed.toc.as_ref().map_or(&packed.diff_id, |toc| &toc.tar);
        if *copied != diff_id {
            return Err(PackLayerError::DiffId {
                expected: diff_id,
                found: copied.clone(),
            });
        }
        Ok(Some(packed))
    }

    /// A blob that is there, the wanted compression first.
    fn find_blob(
        &self,
        lease: &Lease,
        diff_id: &DiffId,
        compression: &str,
        wanted: Option<&str>,
    ) -> Result<Option<BlobInfo>, StoreError> {
        let exact = self.store().blob_for_diff_id(diff_id, Some(compression))?;
        let found = match exact {
            None if wanted.is_none() => self.store().blob_for_diff_id(diff_id, None)?,
            exact => exact,
        };
        let Some(blob) = found else { return Ok(None) };
        if !lease.hold_blob(&blob.digest)? {
            return Ok(None);
        }
        let toc = self.store().kv(TOC, blob.digest.as_str())?;
        Ok(Some(BlobInfo {
            diff_id: diff_id.clone(),
            toc: toc.as_deref().and_then(TocFacts::parse),
            digest: blob.digest,
            size: blob.size,
            media_type: blob.media_type,
        }))
    }

    /// The diff id that these options make, if it was made before. The facts of a layer hold that of the usual ones.
    fn known_diff_id(&self, id: &LayerId, options: &PackLayerOptions) -> Result<Option<DiffId>, StoreError> {
        if let Some(name) = self.unusual(id, options) {
            let text = self.store().kv(PACKED, &name)?;
            let digest = text.and_then(|text| Digest::parse(std::str::from_utf8(&text).ok()?).ok());
            return Ok(digest.map(DiffId));
        }
        let facts = self.store().layer_facts(self.form_name(), id)?;
        Ok(facts.and_then(|facts| facts.diff_id).or_else(|| id.diff_id()))
    }

    fn note_diff_id(
        &self,
        id: &LayerId,
        options: &PackLayerOptions,
        packed: &rbuild_layer::Packed,
    ) -> Result<(), StoreError> {
        let (store, diff_id) = (self.store(), &packed.diff_id);
        if let Some(name) = self.unusual(id, options) {
            store.put_kv(PACKED, &name, diff_id.0.as_str().as_bytes())?;
        } else if self.known_diff_id(id, options)?.is_none() {
            // A pulled layer whose blob is gone may hash differently when written anew; what was pulled stays known.
            store.set_layer_diff_id(self.form_name(), id, diff_id, packed.tar_size)?;
        }
        Ok(())
    }

    /// Name of the value for options that change the tar. A pulled layer without rewritten times keeps its own tar.
    fn unusual(&self, id: &LayerId, options: &PackLayerOptions) -> Option<String> {
        let PackLayerOptions {
            newest_mtime,
            xattrs,
            format,
            ..
        } = options;
        let has_toc = matches!(format, LayerFormat::EStargz(_));
        let is_usual =
            newest_mtime.is_none() && (*xattrs == ExportedXattrs::default() || id.diff_id().is_some());
        if is_usual && !has_toc {
            return None;
        }
        let mut name = format!("{}/{id} {newest_mtime:?} {xattrs:?}", self.form_name());
        if has_toc {
            // A table of contents tells offsets, which compression makes.
            name.push(' ');
            name.push_str(&compression_name(*format).0);
        }
        Some(name)
    }
}

/// The store's word for a compression, and its media type (OCI image-spec, layer.md).
fn compression_name(format: LayerFormat) -> (String, &'static str) {
    match format {
        LayerFormat::EStargz(level) => (
            format!("estargz-{}", level.unwrap_or(GZIP_LEVEL_DEFAULT)),
            media_type::OCI_LAYER_GZIP,
        ),
        LayerFormat::Uncompressed => ("none".to_owned(), media_type::OCI_LAYER),
        LayerFormat::Gzip(level) => (
            format!("gzip-{}", level.unwrap_or(GZIP_LEVEL_DEFAULT)),
            media_type::OCI_LAYER_GZIP,
        ),
        LayerFormat::Zstd(level) => {
            let level = level.filter(|level| *level != 0).unwrap_or(3);
            (format!("zstd-{level}"), media_type::OCI_LAYER_ZSTD)
        }
    }
}
