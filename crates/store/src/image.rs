//! Named images: which manifest a name stands for. Owns the table `image` and `index.json`, which is written anew
//! whenever a name changes so that other tools can read the store as an OCI image layout. Names are the user's:
//! nothing in an image's own content can set one.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::Path;

use rbuild_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::error::{DiskError, IndexError, StoreError};
use crate::index::Tables;
use crate::name::{DigestColumn, NameError};
use crate::open::write_file;
use crate::store::{Durability, Store};

/// `index.json` of a store without images.
pub(crate) const EMPTY_INDEX: &str =
    "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[]}";
/// Largest manifest that is read to find what it reaches, bytes (the distribution spec's suggestion).
const MANIFEST_MAX: u64 = 4 << 20;
/// Indexes inside indexes that are followed.
const DEPTH_MAX: usize = 4;
/// Largest `index.json` that is read for its names alone, bytes.
const INDEX_JSON_MAX: u64 = 16 << 20;
/// Longest image name, bytes.
const NAME_MAX: usize = 512;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// Digest of the manifest or index.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its length in bytes.
    pub manifest_size: u64,
    /// Digest of the config (the "image id"), for a manifest.
    pub config: Option<Digest>,
    /// Bytes of everything it reaches, as the caller counts them.
    pub size: u64,
    /// Creation time the image claims, milliseconds since 1970.
    pub created_ms: i64,
    /// When the name was set, milliseconds since 1970; set by [`Store::set_image`].
    pub tagged_ms: i64,
}

/// Why a name was not set.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<IndexError> for ImageError {
    fn from(error: IndexError) -> Self {
        Self::Store(error.into())
    }
}

/// The names of the store at `root`, sorted, without opening it: nothing is made, locked, mended or waited for. None where
/// there is no store, or one that cannot be read.
#[must_use]
pub fn names_at(root: &Path) -> Vec<String> {
    let Ok(file) = rbuild_sys::open_regular(&root.join("index.json")) else {
        return Vec::new();
    };
    let mut text = Vec::new();
    if file.take(INDEX_JSON_MAX).read_to_end(&mut text).is_err() {
        return Vec::new();
    }
    named(&text).map(|(name, _)| name).collect()
}

/// The entries of an `index.json` that have a name; none if it cannot be read.
fn named(text: &[u8]) -> impl Iterator<Item = (String, Entry)> + use<> {
    let index = serde_json::from_slice::<OciIndex>(text);
    let entries = index.map(|index| index.manifests).unwrap_or_default();
    entries.into_iter().filter_map(|mut entry| {
        let name = entry.annotations.image_name.take();
        Some((name.filter(|name| is_image_name(name))?, entry))
    })
}

impl Store {
    /// Makes `name` (canonical: with registry host and tag) stand for an image.
    ///
    /// # Errors
    /// [`NameError::ImageName`] for a name that could not be printed; the store's.
    pub fn set_image(&self, name: &str, image: &ImageRecord) -> Result<(), ImageError> {
        if !is_image_name(name) {
            return Err(NameError::ImageName(name.to_owned()).into());
        }
        self.set_images(&[(name.to_owned(), image.clone())])?;
        Ok(())
    }

    /// Sets names that have been checked, all or none.
    pub(crate) fn set_images(&self, images: &[(String, ImageRecord)]) -> Result<(), StoreError> {
        if images.is_empty() {
            return Ok(());
        }
        self.index().write("set image", |tables| {
            for (name, image) in images {
                tables.run(
                    "INSERT OR REPLACE INTO image(name, digest, media_type, manifest_size, config, size, created, tagged)
                     VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    (
                        name,
                        image.digest.as_str(),
                        &image.media_type,
                        image.manifest_size.cast_signed(),
                        image.config.as_ref().map(Digest::as_str),
                        image.size.cast_signed(),
                        image.created_ms,
                        self.now(),
                    ),
                )?;
            }
            self.write_index_json(tables)
        })
    }

    /// What a name stands for.
    ///
    /// # Errors
    /// The index's.
    pub fn get_image(&self, name: &str) -> Result<Option<ImageRecord>, IndexError> {
        self.index().read("find image", |tables| {
            let sql = format!("SELECT {COLUMNS} FROM image WHERE name = ?1");
            tables.one(&sql, [name], |row| Ok(read_image(row)?.1))
        })
    }

    /// All names and what they stand for, sorted by name.
    ///
    /// # Errors
    /// The index's.
    pub fn list_images(&self) -> Result<Vec<(String, ImageRecord)>, IndexError> {
        self.index().read("list images", images)
    }

    /// Removes a name; the content stays until it is collected. `false` if there was none.
    ///
    /// # Errors
    /// The store's.
    pub fn remove_image(&self, name: &str) -> Result<bool, StoreError> {
        self.index().write("remove image", |tables| {
            let removed = tables.run("DELETE FROM image WHERE name = ?1", [name])? > 0;
            if removed {
                self.write_index_json(tables)?;
            }
            Ok(removed)
        })
    }

    /// Writes `index.json` from the rows; the write transaction it runs in keeps others out.
    pub(crate) fn write_index_json(&self, tables: &Tables<'_>) -> Result<(), StoreError> {
        let text = self.index_json(tables)?;
        write_file(
            &self.layout().top("index.json"),
            &text,
            self.durability() == Durability::Full,
        )?;
        crate::fault::point("index.json written");
        Ok(())
    }

    pub(crate) fn index_json_is_current(&self, tables: &Tables<'_>) -> Result<bool, StoreError> {
        let text = self.index_json(tables)?;
        Ok(std::fs::read(self.layout().top("index.json")).is_ok_and(|found| found == text))
    }

    fn index_json(&self, tables: &Tables<'_>) -> Result<Vec<u8>, StoreError> {
        let manifests = images(tables)?
            .into_iter()
            .map(|(name, image)| Entry {
                media_type: image.media_type,
                digest: image.digest,
                size: image.manifest_size,
                annotations: Annotations {
                    image_name: Some(name.clone()),
                    ref_name: Some(name),
                },
            })
            .collect();
        let index = OciIndex {
            schema_version: 2,
            media_type: OCI_INDEX.to_owned(),
            manifests,
        };
        let fail = |e| {
            DiskError::new(
                "write",
                &self.layout().top("index.json"),
                std::io::Error::other(e),
            )
        };
        Ok(serde_json::to_vec(&index).map_err(fail)?)
    }

    /// The names of `index.json`, for rebuilding the rows. Empty if it cannot be read.
    pub(crate) fn read_index_json(&self) -> Vec<(String, ImageRecord)> {
        let Ok(text) = std::fs::read(self.layout().top("index.json")) else {
            return Vec::new();
        };
        let record = |(name, entry): (String, Entry)| {
            let (config, size) = self.config_and_size(&entry.digest, entry.size);
            let image = ImageRecord {
                digest: entry.digest,
                media_type: entry.media_type,
                manifest_size: entry.size,
                config,
                size,
                created_ms: 0,
                tagged_ms: 0,
            };
            (name, image)
        };
        named(&text).map(record).collect()
    }

    fn config_and_size(&self, digest: &Digest, own: u64) -> (Option<Digest>, u64) {
        let Some(content) = self.read_manifest(digest) else {
            return (None, own);
        };
        let parts = content
            .config
            .iter()
            .chain(&content.layers)
            .chain(&content.manifests);
        let size = parts.fold(own, |sum, part| sum.saturating_add(part.size));
        (content.config.map(|config| config.digest), size)
    }

    /// Digests of everything an image reaches: manifests, configs, layer blobs, and the diff ids of its configs.
    /// What is not here or cannot be read reaches nothing.
    pub(crate) fn image_reaches(
        &self,
        digest: &Digest,
        blobs: &mut HashSet<Digest>,
        diff_ids: &mut HashSet<Digest>,
    ) {
        let mut queue = vec![(digest.clone(), 0)];
        while let Some((digest, depth)) = queue.pop() {
            if !blobs.insert(digest.clone()) {
                continue;
            }
            let Some(content) = self.read_manifest(&digest) else {
                continue;
            };
            if depth < DEPTH_MAX {
                queue.extend(content.manifests.into_iter().map(|part| (part.digest, depth + 1)));
            }
            if let Some(config) = content.config {
                diff_ids.extend(self.read_diff_ids(&config.digest));
                blobs.insert(config.digest);
            }
            blobs.extend(content.layers.into_iter().map(|part| part.digest));
        }
    }

    fn read_manifest(&self, digest: &Digest) -> Option<Manifest> {
        serde_json::from_slice(&self.read_small(digest)?).ok()
    }

    fn read_diff_ids(&self, digest: &Digest) -> Vec<Digest> {
        let config = self
            .read_small(digest)
            .and_then(|text| serde_json::from_slice::<Config>(&text).ok());
        config.map_or_else(Vec::new, |config| config.rootfs.diff_ids)
    }

    fn read_small(&self, digest: &Digest) -> Option<Vec<u8>> {
        let file = self.open_blob(digest).ok()??;
        let mut text = Vec::new();
        let read = file.take(MANIFEST_MAX + 1).read_to_end(&mut text).ok()?;
        (read as u64 <= MANIFEST_MAX).then_some(text)
    }
}

fn is_image_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX && !name.chars().any(|c| c.is_control() || c.is_whitespace())
}

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const COLUMNS: &str = "name, digest, media_type, manifest_size, config, size, created, tagged";

pub(crate) fn images(tables: &Tables<'_>) -> Result<Vec<(String, ImageRecord)>, IndexError> {
    tables.all(
        &format!("SELECT {COLUMNS} FROM image ORDER BY name"),
        [],
        read_image,
    )
}

fn read_image(row: &rusqlite::Row<'_>) -> rusqlite::Result<(String, ImageRecord)> {
    let image = ImageRecord {
        digest: row.get::<_, DigestColumn>(1)?.0,
        media_type: row.get(2)?,
        manifest_size: row.get::<_, i64>(3)?.cast_unsigned(),
        config: row.get::<_, Option<DigestColumn>>(4)?.map(|column| column.0),
        size: row.get::<_, i64>(5)?.cast_unsigned(),
        created_ms: row.get(6)?,
        tagged_ms: row.get(7)?,
    };
    Ok((row.get(0)?, image))
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciIndex {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    manifests: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: Annotations,
}

/// The names containerd and the image spec (annotations.md) look for.
#[derive(Serialize, Deserialize, Default)]
struct Annotations {
    #[serde(rename = "io.containerd.image.name")]
    image_name: Option<String>,
    #[serde(rename = "org.opencontainers.image.ref.name")]
    ref_name: Option<String>,
}

/// The parts of a manifest or index that name other blobs.
#[derive(Deserialize)]
struct Manifest {
    config: Option<Part>,
    #[serde(default)]
    layers: Vec<Part>,
    #[serde(default)]
    manifests: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    digest: Digest,
    #[serde(default)]
    size: u64,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

#[cfg(test)]
mod tests;
