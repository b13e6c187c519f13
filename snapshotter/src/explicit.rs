//! Layers that say all they do by themselves. A layer directory as overlayfs leaves it belongs on top of the layers it
//! was made on: an opaque directory hides whatever is below, files that were copied up and put back are in it though
//! nothing changed. A merge puts layers on top of others, a difference takes those below away; there only explicit
//! layers mean what BuildKit's mean (`snapshot/merge.go`, `snapshot/diffapply_linux.go`).

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rbuild_layer::{LateLinks, Upper, WriteError};
use rbuild_store::{LayerId, Lease, StoreError};
use rbuild_sys::overlay::Form;
use rbuild_sys::{RootFd, RootFdError};
use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::Snapshotter;
use crate::dir::{discard, open_dir};
use crate::stack::StackError;

/// Space of the store's values: layers that are explicit as they are.
const EXPLICIT: &str = "layer-explicit";
/// Layers that are remembered; others are looked at again.
const EXPLICITS_MAX: usize = 10_000;
/// Space of the store's values: names of explicit layers that their archives have last, with zeros between them.
const LATE: &str = "layer-late-links";

/// Why a layer of changes was not made.
#[derive(Debug, thiserror::Error)]
pub enum ExplicitError {
    /// The file systems could not be compared, or the layer not be written.
    #[error("compare file systems")]
    Compare(#[from] WriteError),
    /// A layer directory could not be opened.
    #[error("open layer")]
    Open(#[from] RootFdError),
    /// A layer is not there, or the mount failed.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

from_store_parts!(ExplicitError);

impl Snapshotter {
    /// Whether a layer is known to be explicit; no file of it is read.
    ///
    /// # Errors
    /// The store's.
    pub fn is_known_explicit(&self, id: &LayerId) -> Result<bool, StoreError> {
        Ok(id.is_explicit() || self.store().kv(EXPLICIT, &self.mark(id))?.is_some())
    }

    /// The explicit layer of what `id` changes of `below` (bottom first): `id` itself, if it is explicit. The tar of both
    /// is the same. Both must be there; the lease holds the result.
    ///
    /// # Errors
    /// [`ExplicitError`].
    pub fn explicit_layer(
        &self,
        lease: &Lease,
        below: &[LayerId],
        id: &LayerId,
    ) -> Result<LayerId, ExplicitError> {
        if self.is_known_explicit(id)? {
            return Ok(id.clone());
        }
        let explicit = LayerId::explicit(&format!("{id} on {}", joined(below)));
        if self.is_held(lease, &explicit)? {
            return Ok(explicit);
        }
        let dirs = self.lowers(lease, std::slice::from_ref(id))?;
        let dir = dirs.first().ok_or_else(|| StackError::Missing(id.clone()))?;
        let layer = open_dir(dir)?;
        let lower = self.view(lease, below)?;
        if rbuild_layer::is_explicit(layer.as_fd(), self.form(), lower.root())? {
            self.store().note_kv(EXPLICIT, &self.mark(id), EXPLICITS_MAX)?;
            return Ok(id.clone());
        }
        self.make(lease, &explicit, Upper::Layer(layer.as_fd()), lower.root(), &dirs)?;
        let facts = self.store().layer_facts(self.form_name(), id)?;
        if let Some((diff_id, size)) = facts.and_then(|facts| facts.diff_id.zip(facts.tar_size)) {
            self.store()
                .set_layer_diff_id(self.form_name(), &explicit, &diff_id, size)?;
        }
        Ok(explicit)
    }

    /// The explicit layer that makes the file system `lower` the file system `upper` (layers, bottom first). All must be
    /// there; the lease holds the result.
    ///
    /// # Errors
    /// [`ExplicitError`].
    pub fn difference(
        &self,
        lease: &Lease,
        lower: &[LayerId],
        upper: &[LayerId],
    ) -> Result<LayerId, ExplicitError> {
        let id = LayerId::explicit(&format!("{} over {}", joined(upper), joined(lower)));
        if self.is_held(lease, &id)? {
            return Ok(id);
        }
        let dirs = self.lowers(lease, upper)?;
        let (above, below) = (self.view(lease, upper)?, self.view(lease, lower)?);
        self.make(lease, &id, Upper::Tree(above.root().as_fd()), below.root(), &dirs)?;
        Ok(id)
    }

    fn make(
        &self,
        lease: &Lease,
        id: &LayerId,
        upper: Upper<'_>,
        lower: &RootFd,
        sources: &[PathBuf],
    ) -> Result<(), ExplicitError> {
        let dir = lease.new_dir("explicit")?;
        let made = self.fill(lease, &dir, id, upper, lower, sources);
        if made.is_err() {
            discard(lease, &dir);
        }
        made
    }

    fn fill(
        &self,
        lease: &Lease,
        dir: &Path,
        id: &LayerId,
        upper: Upper<'_>,
        lower: &RootFd,
        sources: &[PathBuf],
    ) -> Result<(), ExplicitError> {
        let out = RootFd::open(dir)?;
        let sources: Vec<RootFd> = sources
            .iter()
            .map(|dir| RootFd::open(dir))
            .collect::<Result<_, _>>()?;
        let late = rbuild_layer::link_changes(upper, self.form(), lower, &sources, &out)?;
        if !late.is_empty() {
            let paths: Vec<&[u8]> = late.iter().map(Vec::as_slice).collect();
            self.store().put_kv(LATE, &self.mark(id), &paths.join(&0))?;
        }
        self.store().commit_layer(lease, self.form_name(), dir, id)?;
        Ok(())
    }

    /// The names of a layer that its archive has after the others.
    pub(crate) fn late_links(&self, id: &LayerId) -> Result<LateLinks, StoreError> {
        let paths = self.store().kv(LATE, &self.mark(id))?.unwrap_or_default();
        let paths = paths.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        Ok(paths.map(<[u8]>::to_vec).collect())
    }

    fn is_held(&self, lease: &Lease, id: &LayerId) -> Result<bool, StoreError> {
        let held = lease.hold_layers(self.form_name(), std::slice::from_ref(id))?;
        Ok(held.iter().all(Option::is_some))
    }

    /// A layer that is not named by its content has one place: it was made there.
    fn mark(&self, id: &LayerId) -> String {
        format!("{}/{id}", self.form_name())
    }
}

/// Makes the upper directory of an overlay on nothing explicit: new directories in its root may be marked opaque there
/// (`ovl_create_upper` of kernels before 5.14), though there is nothing that they could hide.
pub(crate) fn unmark_opaque(upper: &File, form: Form) -> Result<(), Errno> {
    let opaque = format!("{}opaque", form.xattr_prefix());
    for entry in Dir::read_from(upper)? {
        let entry = entry?;
        if entry.file_type() != FileType::Directory || matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(upper, entry.file_name(), flags, Mode::empty())?;
        match rustix::fs::fremovexattr(&dir, &opaque) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn joined(layers: &[LayerId]) -> String {
    let names: Vec<&str> = layers.iter().map(LayerId::as_str).collect();
    names.join(" ")
}
