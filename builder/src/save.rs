//! `rbuild save`: images of the store as one archive that `docker load`, skopeo and podman read.

use std::collections::BTreeSet;
use std::io::Write;

use rbuild_oci::{Descriptor, Digest, ImageConfig, Reference};
use rbuild_store::{DiskError, Store};

use crate::export::archive_out::Plain;
use crate::export::layout::{self, Flavor, LayoutError, Named, Product};
use crate::export::opener;
use crate::stored::{self, FindError, ReadImageError};
use crate::time::{from_ms, now_ms};

/// Why no archive was written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// No such image.
    #[error(transparent)]
    Find(#[from] FindError),
    /// An image is not whole.
    #[error(transparent)]
    Read(#[from] ReadImageError),
    /// The store gives no lease.
    #[error(transparent)]
    Lease(#[from] DiskError),
    /// The archive.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// Images that were found whole, held until they are written.
#[derive(Debug)]
pub struct Saved {
    store: Store,
    _lease: rbuild_store::Lease,
    images: Vec<(Product, Vec<Reference>)>,
}

/// Finds the images `texts` mean. An image asked for by name has that name in the archive, one asked for by id has
/// none, as with docker.
///
/// # Errors
/// [`SaveError`]; nothing is written then.
pub fn find(store: &Store, texts: &[String]) -> Result<Saved, SaveError> {
    let lease = store.lease("save")?;
    let mut images: Vec<(Product, Vec<Reference>)> = Vec::new();
    for text in texts {
        let (name, record) = stored::find(store, text)?;
        let reference = Reference::parse(text).map(Reference::or_latest);
        let named = reference.ok().filter(|reference| reference.to_string() == name);
        let known = images
            .iter()
            .position(|(product, _)| product.top.digest == record.digest);
        let at = match known {
            Some(at) => at,
            None => {
                images.push((stored::read(store, &lease, &name, &record)?, Vec::new()));
                images.len() - 1
            }
        };
        let names = &mut images[at].1;
        if let Some(named) = named.filter(|named| !names.contains(named)) {
            names.push(named);
        }
    }
    Ok(Saved {
        store: store.clone(),
        _lease: lease,
        images,
    })
}

impl Saved {
    /// Writes the archive.
    ///
    /// # Errors
    /// [`SaveError::Layout`].
    pub fn write(&self, out: &mut dyn Write) -> Result<(), SaveError> {
        self.write_without(&BTreeSet::new(), out)
    }

    /// Each image's ids, by which engines of either kind know it, and its names.
    pub(crate) fn identities(&self) -> impl Iterator<Item = (Vec<&Digest>, &[Reference])> {
        self.images.iter().map(|(product, names)| {
            let configs = product.images.iter().map(|image| &image.config.digest);
            let ids = configs.chain([&product.top.digest]).collect();
            (ids, names.as_slice())
        })
    }

    /// The configs of all images, each with its layers.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (ImageConfig, &[Descriptor])> {
        let images = self.images.iter().flat_map(|(product, _)| &product.images);
        images.filter_map(|image| {
            let config = ImageConfig::parse(&image.config_bytes).ok()?;
            Some((config, image.layers.as_slice()))
        })
    }

    /// Writes the archive but for the layers of `omit`.
    ///
    /// # Errors
    /// [`SaveError::Layout`].
    pub(crate) fn write_without(
        &self,
        omit: &BTreeSet<Digest>,
        out: &mut dyn Write,
    ) -> Result<(), SaveError> {
        let named = self
            .images
            .iter()
            .map(|(product, names)| Named { product, names });
        let named: Vec<Named<'_>> = named.collect();
        let created = from_ms(now_ms() / 1000 * 1000);
        let created = created.map(|time| time.to_string()).unwrap_or_default();
        Ok(layout::write_tar(
            &named,
            Flavor::Docker,
            &created,
            omit,
            opener(&self.store),
            &mut Plain(out),
        )?)
    }
}
