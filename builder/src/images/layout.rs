//! Images in an OCI layout directory (`--build-context name=oci-layout://dir[:tag][@digest]`; image-spec,
//! image-layout.md). The directory is the user's, its content is not trusted: every blob is verified where it is read.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rbuild_oci::{
    Algorithm, DOCUMENT_BYTES_MAX, Descriptor, Digest, Document, DocumentError, parse_document,
};

/// A place in a layout: `dir`, and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutRef {
    /// The directory.
    pub dir: PathBuf,
    /// Entry of `index.json` by its `org.opencontainers.image.ref.name`.
    pub tag: Option<String>,
    /// Entry by digest; wins over the tag.
    pub digest: Option<Digest>,
}

/// Why a layout has no such image.
#[derive(Debug, thiserror::Error)]
pub enum LayoutReadError {
    /// A file of the layout could not be read.
    #[error("OCI layout: {path:?}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `index.json` is not an index.
    #[error("OCI layout: {path:?}")]
    Index {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// `index.json` is a manifest.
    #[error("OCI layout: {0:?} is not an index")]
    NotAnIndex(PathBuf),
    /// No entry fits.
    #[error("OCI layout {dir:?} has no image {wanted}; it has {found}")]
    NotFound {
        /// The layout.
        dir: PathBuf,
        /// What was asked for.
        wanted: String,
        /// The tags that are there.
        found: String,
    },
}

impl LayoutRef {
    /// Reads `dir[:tag][@digest]`. A colon counts only behind the last slash.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (rest, digest) = match text
            .rsplit_once('@')
            .map(|(rest, digest)| (rest, Digest::parse(digest)))
        {
            Some((rest, Ok(digest))) => (rest, Some(digest)),
            _ => (text, None),
        };
        let name_at = rest.rfind('/').map_or(0, |at| at + 1);
        let (dir, tag) = match rest[name_at..].split_once(':') {
            Some((name, tag)) if !tag.is_empty() => (&rest[..name_at + name.len()], Some(tag.to_owned())),
            _ => (rest, None),
        };
        Self {
            dir: PathBuf::from(dir),
            tag,
            digest,
        }
    }

    /// The descriptor this names: by digest, by tag, `latest`, or the only one there is.
    ///
    /// # Errors
    /// [`LayoutReadError`].
    pub fn resolve(&self) -> Result<Descriptor, LayoutReadError> {
        let path = self.dir.join("index.json");
        let bytes = read_limited(&path, DOCUMENT_BYTES_MAX as u64).map_err(|source| LayoutReadError::Io {
            path: path.clone(),
            source,
        })?;
        let document = parse_document(&bytes, Some(rbuild_oci::media_type::OCI_INDEX)).map_err(|source| {
            LayoutReadError::Index {
                path: path.clone(),
                source,
            }
        })?;
        let Document::Index(index) = document else {
            return Err(LayoutReadError::NotAnIndex(path));
        };
        let tag_of = |entry: &Descriptor| {
            entry
                .annotations
                .get("org.opencontainers.image.ref.name")
                .cloned()
        };
        let wanted = self.tag.as_deref().unwrap_or("latest");
        let found = match &self.digest {
            Some(digest) => index.manifests.iter().find(|entry| entry.digest == *digest),
            None => index
                .manifests
                .iter()
                .find(|entry| tag_of(entry).as_deref() == Some(wanted)),
        };
        let only = (self.digest.is_none() && self.tag.is_none() && index.manifests.len() == 1)
            .then_some(&index.manifests);
        if let Some(entry) = found.or_else(|| only.and_then(|entries| entries.first())) {
            return Ok(entry.clone());
        }
        let tags: Vec<String> = index.manifests.iter().filter_map(tag_of).collect();
        Err(LayoutReadError::NotFound {
            dir: self.dir.clone(),
            wanted: self
                .digest
                .as_ref()
                .map_or_else(|| wanted.to_owned(), ToString::to_string),
            found: if tags.is_empty() {
                "no tags".to_owned()
            } else {
                tags.join(", ")
            },
        })
    }
}

/// Opens a blob of the layout in `dir`. Its content is not verified here.
///
/// # Errors
/// The kernel's.
pub fn open_blob(dir: &Path, digest: &Digest) -> io::Result<File> {
    let algorithm = match digest.algorithm() {
        Algorithm::Sha256 => "sha256",
        Algorithm::Sha512 => "sha512",
    };
    rbuild_sys::open_regular(&dir.join("blobs").join(algorithm).join(digest.hex()))
}

fn read_limited(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = rbuild_sys::open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("larger than {bytes_max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(entries: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let manifests: Vec<_> = entries
            .iter()
            .map(|(tag, content)| {
                serde_json::json!({
                    "mediaType": rbuild_oci::media_type::OCI_MANIFEST,
                    "digest": Digest::sha256(content.as_bytes()),
                    "size": content.len(),
                    "annotations": {"org.opencontainers.image.ref.name": tag},
                })
            })
            .collect();
        let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
        std::fs::write(dir.path().join("index.json"), index.to_string()).unwrap();
        dir
    }

    fn resolve(dir: &tempfile::TempDir, suffix: &str) -> Result<Digest, LayoutReadError> {
        let text = format!("{}{suffix}", dir.path().display());
        LayoutRef::parse(&text)
            .resolve()
            .map(|descriptor| descriptor.digest)
    }

    #[test]
    fn row40_pipes_in_a_layout_are_not_waited_for() {
        let dir = layout(&[("v1", "one")]);
        let digest = Digest::sha256(b"one");
        let blobs = dir.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let pipe = |path: &Path| {
            let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
        };
        pipe(&blobs.join(digest.hex()));
        assert_eq!(
            open_blob(dir.path(), &digest).unwrap_err().to_string(),
            "not a regular file"
        );
        std::fs::remove_file(dir.path().join("index.json")).unwrap();
        pipe(&dir.path().join("index.json"));
        let error = resolve(&dir, ":v1").unwrap_err();
        assert!(
            matches!(&error, LayoutReadError::Io { source, .. } if source.to_string() == "not a regular file")
        );
        // The legal twin.
        std::fs::remove_file(blobs.join(digest.hex())).unwrap();
        std::fs::write(blobs.join(digest.hex()), "one").unwrap();
        assert_eq!(
            io::read_to_string(open_blob(dir.path(), &digest).unwrap()).unwrap(),
            "one"
        );
    }

    #[test]
    fn references_are_read_from_the_right() {
        let hash = format!("sha256:{}", "a".repeat(64));
        for (text, dir, tag, digest) in [
            ("/a/b".to_owned(), "/a/b", None, false),
            ("/a:x/b:v1".to_owned(), "/a:x/b", Some("v1"), false),
            (format!("rel:v1@{hash}"), "rel", Some("v1"), true),
            (format!("/a@b@{hash}"), "/a@b", None, true),
            ("/a@b".to_owned(), "/a@b", None, false),
        ] {
            let found = LayoutRef::parse(&text);
            assert_eq!(
                (found.dir.as_path(), found.tag.as_deref()),
                (Path::new(dir), tag),
                "{text}"
            );
            assert_eq!(found.digest.is_some(), digest, "{text}");
        }
    }

    #[test]
    fn entries_are_found_by_tag_digest_or_being_alone() {
        let two = layout(&[("v1", "one"), ("latest", "two")]);
        assert_eq!(resolve(&two, ":v1").unwrap(), Digest::sha256(b"one"));
        assert_eq!(resolve(&two, "").unwrap(), Digest::sha256(b"two"));
        let by_digest = format!("@{}", Digest::sha256(b"one"));
        assert_eq!(resolve(&two, &by_digest).unwrap(), Digest::sha256(b"one"));
        let alone = layout(&[("v9", "one")]);
        assert_eq!(resolve(&alone, "").unwrap(), Digest::sha256(b"one"));
        let error = resolve(&alone, ":v1").unwrap_err().to_string();
        assert!(
            error.contains("no image v1") && error.contains("it has v9"),
            "{error}"
        );
    }

    #[test]
    fn row12_an_index_of_4_gib_is_refused_without_being_read() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("index.json"))
            .unwrap()
            .set_len(4 << 30)
            .unwrap();
        let error = resolve(&dir, "").unwrap_err();
        assert!(matches!(error, LayoutReadError::Io { .. }), "{error:?}");
    }
}
