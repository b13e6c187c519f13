//! Blobs of an OCI layout that nothing in it names any more: `reset=true` of a local cache (`client/solve.go`, `resetCacheStore`).
//! Where anything that is named cannot be read, nothing is removed.

use std::collections::HashSet;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use rbuild_oci::{
    DOCUMENT_BYTES_MAX, Descriptor, Digest, Document, DocumentError, media_type, parse_document,
};

use super::layout::{LayoutDirError, read_index};
use crate::images::layout::open_blob;

/// Documents that are looked through.
const DOCUMENTS_MAX: usize = 100_000;

/// Why blobs were left where they are.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// `index.json`.
    #[error(transparent)]
    Index(#[from] LayoutDirError),
    /// A document that is named, or the directory of the blobs.
    #[error("{what}")]
    Io {
        /// What was read or removed.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A document is none.
    #[error("{digest}")]
    Document {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// There are too many.
    #[error("more than {DOCUMENTS_MAX} documents")]
    Many,
}

/// Removes the blobs of the layout in `dir` that neither `index.json` names nor what it names.
///
/// # Errors
/// [`ResetError`].
pub fn remove_unnamed(dir: &Path) -> Result<(), ResetError> {
    let mut waiting = read_index(dir)?;
    let mut named = HashSet::new();
    while let Some(descriptor) = waiting.pop() {
        let is_document =
            media_type::is_index(&descriptor.media_type) || media_type::is_manifest(&descriptor.media_type);
        if named.insert(descriptor.digest.clone()) && is_document {
            waiting.extend(children(dir, &descriptor)?);
        }
        if named.len() > DOCUMENTS_MAX {
            return Err(ResetError::Many);
        }
    }
    let blobs = dir.join("blobs/sha256");
    let failed = |source| ResetError::Io {
        what: blobs.display().to_string(),
        source,
    };
    for entry in fs::read_dir(&blobs).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let digest = name
            .to_str()
            .and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok());
        // What is no blob's name is not ours to judge: another writer may be at it.
        if digest.is_some_and(|digest| !named.contains(&digest)) {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

fn children(dir: &Path, descriptor: &Descriptor) -> Result<Vec<Descriptor>, ResetError> {
    let digest = &descriptor.digest;
    let mut bytes = Vec::new();
    let limit = DOCUMENT_BYTES_MAX as u64;
    let read = open_blob(dir, digest).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(|source| ResetError::Io {
        what: digest.to_string(),
        source,
    })?;
    let document = parse_document(&bytes, Some(&descriptor.media_type));
    let document = document.map_err(|source| ResetError::Document {
        digest: digest.clone(),
        source,
    })?;
    Ok(match document {
        Document::Index(index) => index.manifests,
        Document::Manifest(manifest) => {
            let mut all = manifest.layers;
            all.push(manifest.config);
            all
        }
    })
}
