//! From blobs to layer directories. What does not hash to what was announced never gets a name.

use std::io::Read;
use std::os::fd::AsFd as _;
use std::path::Path;

use rbuild_layer::{
    AdoptError, ApplyError, Compression, DecompressError, DecompressLimits, UnpackOptions, Unpacked,
};
use rbuild_oci::{DiffId, Digest};
use rbuild_store::{LayerId, Lease, StoreError};
use rbuild_sys::RootFd;

use crate::Snapshotter;
use crate::dir::{discard, open_dir};
use crate::stack::StackError;

/// Space of the store's values: diff ids whose layers leave out parent directories.
const IMPLIED: &str = "layer-implied";

/// Why a blob was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackBlobError {
    /// The stream is not the layer that was announced.
    #[error("layer has diff id {found}, expected {expected}")]
    DiffId {
        /// What was announced.
        expected: DiffId,
        /// What came.
        found: DiffId,
    },
    /// The blob cannot be decompressed.
    #[error("decompress layer")]
    Decompress(#[from] DecompressError),
    /// The layer cannot be applied.
    #[error("unpack layer")]
    Apply(#[from] ApplyError),
    /// Parents could not take over from the layers below.
    #[error("complete layer")]
    Adopt(#[from] AdoptError),
    /// The layers below.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_parts!(UnpackBlobError);

impl Snapshotter {
    /// The id that a layer on top of `below` (bottom first) has in the store, as far as is known before it is unpacked.
    ///
    /// # Errors
    /// The store's.
    pub fn layer_id(&self, diff_id: &DiffId, below: &[LayerId]) -> Result<LayerId, StoreError> {
        let implied = self.store().kv(IMPLIED, diff_id.0.as_str())?.is_some();
        Ok(if implied {
            chain_layer_id(diff_id, below)
        } else {
            LayerId::of_diff_id(diff_id)
        })
    }

    /// The unpacked layer of a diff id on top of `below` (bottom first), if it is in the store; held by the lease then.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn find_layer(
        &self,
        lease: &Lease,
        diff_id: &DiffId,
        below: &[LayerId],
    ) -> Result<Option<LayerId>, StoreError> {
        let id = self.layer_id(diff_id, below)?;
        let found = lease.hold_layers(self.form_name(), std::slice::from_ref(&id))?;
        Ok(found.into_iter().next().flatten().map(|_| id))
    }

    /// Unpacks a layer blob into the store, unless it is there; the lease holds it. Any number of layers may be unpacked at
    /// once, by any number of processes, in any order.
    ///
    /// Parent directories that the layer leaves out take owner and mode from `below` (bottom first), as they do when
    /// containerd applies a layer. Only a layer that does so needs the layers below to be there
    /// ([`StackError::Missing`] otherwise: unpack them first); its directory then belongs to this chain, and its id
    /// is not that of its diff id. So ask `Snapshotter::find_layer` and use the id given here.
    ///
    /// # Errors
    /// [`UnpackBlobError`]; nothing is left of it then.
    pub fn unpack_blob(
        &self,
        lease: &Lease,
        blob: impl Read + Send + 'static,
        compression: Compression,
        expected: &DiffId,
        below: &[LayerId],
    ) -> Result<LayerId, UnpackBlobError> {
        if let Some(id) = self.find_layer(lease, expected, below)? {
            return Ok(id);
        }
        let dir = lease.new_dir("unpack")?;
        let unpacked = self.unpack_into(lease, &dir, blob, compression, expected, below);
        if unpacked.is_err() {
            discard(lease, &dir);
        }
        unpacked
    }

    fn unpack_into(
        &self,
        lease: &Lease,
        dir: &Path,
        blob: impl Read + Send + 'static,
        compression: Compression,
        expected: &DiffId,
        below: &[LayerId],
    ) -> Result<LayerId, UnpackBlobError> {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).map_err(|source| {
            StackError::Io {
                verb: "set mode of",
                path: dir.to_owned(),
                source,
            }
        })?;
        let fd = open_dir(dir)?;
        let stream = rbuild_layer::decompress(blob, compression, &DecompressLimits::allowed())?;
        let unpacked = rbuild_layer::unpack(stream, fd.as_fd(), &UnpackOptions::new(self.form()))?;
        if unpacked.diff_id != *expected {
            return Err(UnpackBlobError::DiffId {
                expected: expected.clone(),
                found: unpacked.diff_id,
            });
        }
        let id = self.complete(lease, dir, &unpacked, below)?;
        let (store, form) = (self.store(), self.form_name());
        store.commit_layer(lease, form, dir, &id)?;
        store.set_layer_diff_id(form, &id, expected, unpacked.bytes)?;
        Ok(id)
    }

    /// Gives parents that the layer leaves out their attributes, and the layer the id that fits.
    fn complete(
        &self,
        lease: &Lease,
        dir: &Path,
        unpacked: &Unpacked,
        below: &[LayerId],
    ) -> Result<LayerId, UnpackBlobError> {
        if unpacked.implied.is_empty() {
            return Ok(LayerId::of_diff_id(&unpacked.diff_id));
        }
        if !below.is_empty() {
            let view = self.view(lease, below)?;
            let layer = RootFd::from_fd(open_dir(dir)?.into());
            rbuild_layer::adopt_implied(&layer, &unpacked.implied, view.root())?;
        }
        self.store().put_kv(IMPLIED, unpacked.diff_id.0.as_str(), b"")?;
        Ok(chain_layer_id(&unpacked.diff_id, below))
    }
}

/// Id of a layer that took something over from the layers below it.
fn chain_layer_id(diff_id: &DiffId, below: &[LayerId]) -> LayerId {
    let mut text = diff_id.to_string();
    for id in below {
        text.push(' ');
        text.push_str(id.as_str());
    }
    let digest = Digest::sha256(text.as_bytes());
    LayerId::parse(&format!("s-{}", &digest.hex()[..32]))
        .unwrap_or_else(|_| unreachable!("32 hex characters"))
}
