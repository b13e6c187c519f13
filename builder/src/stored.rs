//! Images of the store: found by a name, a digest or the start of an id, and read whole. Owns what a text on the command
//! line may mean, and what images without a name are called inside the store.

use std::path::Path;

use rbuild_oci::{
    CONFIG_BYTES_MAX, Descriptor, Digest, Document, DocumentError, Manifest, Platform, Reference,
    parse_document,
};
use rbuild_store::{ImageRecord, IndexError, Lease, Store, StoreError};

use crate::created;
use crate::export::layout::{Image, Product};

/// Images that nobody named are kept under this and their digest, as by Docker's engine on containerd: the id that a
/// build printed must mean something afterwards. No canonical name begins like this, for it has no host.
pub(crate) const DANGLING: &str = "moby-dangling";
/// Containers that were created and never run keep their image under this: see [`crate::created`].
pub(crate) const CONTAINER: &str = "rbuild-container";
/// Fewest digits that are tried as the start of an id.
const ID_DIGITS_MIN: usize = 4;

/// Why no image was found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// There is none, in docker's words: scripts look for them.
    #[error("No such image: {0}")]
    NotFound(String),
    /// An id begins like several.
    #[error("multiple images have ids that begin with {0}")]
    Ambiguous(String),
    /// The store.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadImageError {
    /// The image is not whole.
    #[error("image {name}: {digest} is missing or damaged")]
    Damaged {
        /// The image.
        name: String,
        /// The blob.
        digest: Digest,
    },
    /// A manifest is not readable.
    #[error("image {name}")]
    Document {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// An index lists another index.
    #[error("image {0} is an index of indexes, which is not supported")]
    Nested(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<IndexError> for ReadImageError {
    fn from(error: IndexError) -> Self {
        Self::Store(error.into())
    }
}

/// The name in the store of an image that nobody named.
#[must_use]
pub fn dangling_name(digest: &Digest) -> String {
    format!("{DANGLING}@{digest}")
}

/// Whether a name of the store is [`dangling_name`]'s.
#[must_use]
pub fn is_dangling(name: &str) -> bool {
    name.strip_prefix(DANGLING)
        .is_some_and(|rest| rest.starts_with('@'))
}

/// Whether a name of the store is that of a container, and no image's.
#[must_use]
pub fn is_container(name: &str) -> bool {
    name.strip_prefix(CONTAINER)
        .is_some_and(|rest| rest.starts_with('@'))
}

/// Names of a store that may be offered to whoever is typing one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Images with their tags, short where docker shortens them.
    pub images: Vec<String>,
    /// Containers: the name, or the start of the id.
    pub containers: Vec<String>,
}

/// The names of the store at `root`, which is not opened (see [`rbuild_store::names_at`]).
#[must_use]
pub fn names_at(root: &Path) -> Names {
    let mut names = Names::default();
    for name in rbuild_store::names_at(root) {
        if is_container(&name) {
            names.containers.extend(created::shown_name(&name));
        } else if !is_dangling(&name)
            && let Ok(reference) = Reference::parse(&name)
            && let Some(tag) = reference.tag()
        {
            names
                .images
                .push(format!("{}:{tag}", reference.repository().familiar()));
        }
    }
    names
}

/// The id that users see: of an image its config's digest, of an index its own.
#[must_use]
pub fn id_of(record: &ImageRecord) -> &Digest {
    record.config.as_ref().unwrap_or(&record.digest)
}

/// The image that `text` means: a name, `name@digest`, an id or a digest, or the start of one.
///
/// # Errors
/// [`FindError`].
pub fn find(store: &Store, text: &str) -> Result<(String, ImageRecord), FindError> {
    if let Ok(reference) = Reference::parse(text)
        && let Some(found) = by_reference(store, &reference)?
    {
        return Ok(found);
    }
    let (digits, is_prefixed) = match text.strip_prefix("sha256:") {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    let is_id = digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        && (digits.len() >= ID_DIGITS_MIN || is_prefixed && !digits.is_empty());
    if !is_id {
        return Err(FindError::NotFound(text.to_owned()));
    }
    let mut matching = store.list_images()?;
    matching.retain(|(_, record)| {
        id_of(record).hex().starts_with(digits) || record.digest.hex().starts_with(digits)
    });
    if matching
        .iter()
        .any(|(_, record)| record.digest != matching[0].1.digest)
    {
        return Err(FindError::Ambiguous(text.to_owned()));
    }
    // A real name is preferred to that of an image without one, and to a container's.
    matching.sort_by_key(|(name, _)| (is_container(name), is_dangling(name)));
    let found = matching.into_iter().next();
    found.ok_or_else(|| FindError::NotFound(text.to_owned()))
}

fn by_reference(store: &Store, reference: &Reference) -> Result<Option<(String, ImageRecord)>, IndexError> {
    let Some(digest) = reference.digest() else {
        let name = reference.clone().or_latest().to_string();
        return Ok(store.get_image(&name)?.map(|record| (name, record)));
    };
    let repository = reference.name();
    let is_same = |name: &str| Reference::parse(name).is_ok_and(|other| other.name() == repository);
    let all = store.list_images()?;
    Ok(all
        .into_iter()
        .find(|(name, record)| record.digest == *digest && is_same(name)))
}

/// Reads all of an image but the layers, which must be there, and has `lease` hold everything.
///
/// # Errors
/// [`ReadImageError`].
pub fn read(
    store: &Store,
    lease: &Lease,
    name: &str,
    record: &ImageRecord,
) -> Result<Product, ReadImageError> {
    let top = Descriptor::new(&record.media_type, record.digest.clone(), record.manifest_size);
    let bytes = small_blob(store, lease, name, &top)?;
    match parse(name, &top, &bytes)? {
        Document::Manifest(manifest) => {
            let image = image(store, lease, name, top, bytes, *manifest)?;
            Ok(Product::of_image(image))
        }
        Document::Index(index) => {
            let mut images = Vec::with_capacity(index.manifests.len());
            for entry in index.manifests {
                let bytes = small_blob(store, lease, name, &entry)?;
                let Document::Manifest(manifest) = parse(name, &entry, &bytes)? else {
                    return Err(ReadImageError::Nested(name.to_owned()));
                };
                images.push(image(store, lease, name, entry, bytes, *manifest)?);
            }
            Ok(Product {
                top,
                index_bytes: Some(bytes),
                images,
            })
        }
    }
}

/// The image of `product` for `platform`: the only one, or the best of an index.
#[must_use]
pub fn for_platform<'a>(product: &'a Product, platform: &Platform) -> Option<&'a Image> {
    if product.index_bytes.is_none() {
        return product.images.first();
    }
    let images: Vec<&Image> = product
        .images
        .iter()
        .filter(|image| !image.manifest.is_attestation())
        .collect();
    let platforms = images.iter().map(|image| image.manifest.platform.as_ref());
    images.get(platform.choose(platforms)?).copied()
}

fn parse(name: &str, descriptor: &Descriptor, bytes: &[u8]) -> Result<Document, ReadImageError> {
    let document = parse_document(bytes, Some(&descriptor.media_type));
    document.map_err(|source| ReadImageError::Document {
        name: name.to_owned(),
        source,
    })
}

fn image(
    store: &Store,
    lease: &Lease,
    name: &str,
    manifest: Descriptor,
    manifest_bytes: Vec<u8>,
    parsed: Manifest,
) -> Result<Image, ReadImageError> {
    let config_bytes = small_blob(store, lease, name, &parsed.config)?;
    for layer in &parsed.layers {
        if !lease.hold_blob(&layer.digest)? {
            return Err(ReadImageError::Damaged {
                name: name.to_owned(),
                digest: layer.digest.clone(),
            });
        }
    }
    Ok(Image {
        manifest,
        manifest_bytes,
        config: parsed.config,
        config_bytes,
        layers: parsed.layers,
    })
}

/// A small blob of the store, its digest checked.
fn small_blob(
    store: &Store,
    lease: &Lease,
    name: &str,
    descriptor: &Descriptor,
) -> Result<Vec<u8>, ReadImageError> {
    use std::io::Read as _;
    let damaged = || ReadImageError::Damaged {
        name: name.to_owned(),
        digest: descriptor.digest.clone(),
    };
    lease.hold_blob(&descriptor.digest)?;
    let file = store.open_blob(&descriptor.digest)?.ok_or_else(damaged)?;
    let mut bytes = Vec::new();
    let limit = descriptor.size.min(CONFIG_BYTES_MAX as u64) + 1;
    if file.take(limit).read_to_end(&mut bytes).is_err()
        || descriptor.digest.algorithm().digest(&bytes) != descriptor.digest
    {
        return Err(damaged());
    }
    Ok(bytes)
}
