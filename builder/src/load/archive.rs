//! One pass over an archive: documents are kept in memory, everything else goes into the store by its digest.

use std::collections::BTreeMap;
use std::io::Read;

use rbuild_layer::{EntryKind, TarReader};
use rbuild_oci::{Descriptor, Digest, Document, ImageConfig, parse_document};
use rbuild_store::{CommittedBlob, Lease, Store};

use super::LoadError;

/// The layout's index.
pub(super) const INDEX: &str = "index.json";
/// Docker's listing.
pub(super) const DOCKER_MANIFEST: &str = "manifest.json";
/// Most bytes of either. The listing of the largest archives has a few hundred kilobytes.
const DOCUMENT_MAX: u64 = 4 << 20;
/// Links to links that are followed.
const LINKS_MAX: usize = 8;

/// What an archive held.
#[derive(Debug)]
pub(super) struct Archive<'l> {
    store: &'l Store,
    lease: &'l Lease,
    documents: BTreeMap<&'static str, Vec<u8>>,
    files: BTreeMap<String, CommittedBlob>,
    links: BTreeMap<String, String>,
}

impl<'l> Archive<'l> {
    /// Reads all of it.
    pub(super) fn read(
        store: &'l Store,
        lease: &'l Lease,
        mut tar: TarReader<impl Read>,
    ) -> Result<Self, LoadError> {
        let mut archive = Self {
            store,
            lease,
            documents: BTreeMap::new(),
            files: BTreeMap::new(),
            links: BTreeMap::new(),
        };
        while let Some(entry) = tar.next_entry()? {
            // Names that are no text name nothing that a document could mean.
            let Some(path) = clean("", &entry.path) else {
                continue;
            };
            match entry.kind {
                EntryKind::File { size } => archive.file(path, size, &mut tar)?,
                EntryKind::Symlink { target } => {
                    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                    if let Some(target) = clean(parent, &target) {
                        archive.links.insert(path, target);
                    }
                }
                EntryKind::HardLink { target } => {
                    if let Some(target) = clean("", &target) {
                        archive.links.insert(path, target);
                    }
                }
                _ => {}
            }
        }
        Ok(archive)
    }

    fn file(&mut self, path: String, size: u64, tar: &mut TarReader<impl Read>) -> Result<(), LoadError> {
        if let Some(name) = [INDEX, DOCKER_MANIFEST].into_iter().find(|name| *name == path) {
            if size > DOCUMENT_MAX {
                return Err(LoadError::TooLarge {
                    name: path,
                    max: DOCUMENT_MAX,
                });
            }
            let mut bytes = Vec::new();
            tar.copy_content(|piece| piece.write_to(&mut bytes).map_err(LoadError::Write))?;
            self.documents.insert(name, bytes);
            return Ok(());
        }
        let expected = blob_digest(&path);
        let algorithm = expected
            .as_ref()
            .map_or(rbuild_oci::Algorithm::Sha256, Digest::algorithm);
        let mut writer = self.store.blob_writer_with(self.lease, algorithm)?;
        tar.copy_content(|piece| piece.write_to(&mut writer).map_err(LoadError::Write))?;
        let committed = writer.commit(expected.as_ref(), Some(size))?;
        self.files.insert(path, committed);
        Ok(())
    }

    /// A document of the archive itself.
    pub(super) fn document(&self, name: &str) -> Option<&[u8]> {
        self.documents.get(name).map(Vec::as_slice)
    }

    /// The file at `path`, through links inside the archive.
    pub(super) fn find(&self, path: &str) -> Option<&CommittedBlob> {
        let mut path = clean("", path.as_bytes())?;
        for _ in 0..LINKS_MAX {
            if let Some(found) = self.files.get(&path) {
                return Some(found);
            }
            path.clone_from(self.links.get(&path)?);
        }
        None
    }

    /// Whether the blob of `descriptor` came with the archive, or is in the store already: the digest says that it is the
    /// same.
    pub(super) fn holds(&self, descriptor: &Descriptor) -> Result<bool, LoadError> {
        Ok(self.lease.hold_blob(&descriptor.digest)?)
    }

    /// A manifest or index.
    pub(super) fn read_document(&self, descriptor: &Descriptor) -> Result<Document, LoadError> {
        let bytes = self.bytes(&descriptor.digest, rbuild_oci::DOCUMENT_BYTES_MAX)?;
        let parsed = parse_document(&bytes, Some(&descriptor.media_type));
        parsed.map_err(|source| LoadError::Document {
            name: descriptor.digest.to_string(),
            source,
        })
    }

    /// An image config.
    pub(super) fn read_config(&self, digest: &Digest) -> Result<ImageConfig, LoadError> {
        let bytes = self.bytes(digest, rbuild_oci::CONFIG_BYTES_MAX)?;
        ImageConfig::parse(&bytes).map_err(|source| LoadError::Config {
            name: digest.to_string(),
            source,
        })
    }

    /// Keeps a document of our own making.
    pub(super) fn put(&self, bytes: &[u8]) -> Result<CommittedBlob, LoadError> {
        Ok(self.store.put_blob(self.lease, bytes)?)
    }

    /// The first bytes of a blob, as many as tell its compression.
    pub(super) fn start(&self, digest: &Digest) -> Result<Vec<u8>, LoadError> {
        let mut start = Vec::new();
        let most = rbuild_layer::Compression::DETECT_BYTES as u64;
        let file = self.open(digest)?;
        file.take(most)
            .read_to_end(&mut start)
            .map_err(LoadError::Write)?;
        Ok(start)
    }

    fn bytes(&self, digest: &Digest, max: usize) -> Result<Vec<u8>, LoadError> {
        let mut bytes = Vec::new();
        let file = self.open(digest)?;
        let read = file.take(max as u64 + 1).read_to_end(&mut bytes);
        if read.map_err(LoadError::Write)? > max {
            return Err(LoadError::TooLarge {
                name: digest.to_string(),
                max: max as u64,
            });
        }
        Ok(bytes)
    }

    fn open(&self, digest: &Digest) -> Result<std::fs::File, LoadError> {
        let file = self.store.open_blob(digest)?;
        file.ok_or_else(|| LoadError::Missing(format!("blob {digest}")))
    }
}

/// The digest that the path of a layout's blob promises.
fn blob_digest(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

/// `path` below `base`, without `.`, `..` and doubled slashes; a key, never a path of this machine.
fn clean(base: &str, path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { base };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}
