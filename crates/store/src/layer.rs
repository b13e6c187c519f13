//! Layer directories: one per layer and form, immutable once named. Owns `layers/` and the facts about each.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rbuild_oci::{DiffId, Digest};
use rbuild_sys::{TreeError, walk_tree};
use rustix::fs::FileType;

use crate::error::{DiskError, IndexError, StoreError};
use crate::holding::Kind;
use crate::lease::{Lease, make_private_dir};
use crate::lock::Sharing;
use crate::name::{DigestColumn, FormName, LayerId};
use crate::store::{Store, Used};

/// What is known about a layer directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerFacts {
    /// Digest of its uncompressed tar, once known.
    pub diff_id: Option<DiffId>,
    /// Length of that tar in bytes, once known.
    pub tar_size: Option<u64>,
    /// Bytes of the blocks it takes, hard links inside it once.
    pub disk_bytes: u64,
    /// Files, directories and so on in it; 0 for the layer of a step that changed nothing.
    pub entries: u64,
    /// When it was committed, milliseconds since 1970.
    pub created_ms: i64,
    /// When it was used last, to the minute, milliseconds since 1970.
    pub used_ms: i64,
}

/// A layer's compressed form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffBlob {
    /// The blob.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
}

/// A directory tree, measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TreeFacts {
    pub(crate) disk_bytes: u64,
    pub(crate) entries: u64,
    /// Sum over all entries of a hash of path, type, mode, owner, and size of files. Not against forgery: it finds
    /// what a power failure took.
    pub(crate) print: u64,
}

impl TreeFacts {
    pub(crate) fn measure(path: &Path) -> Result<Self, DiskError> {
        let top = File::open(path).map_err(|e| DiskError::new("open", path, e))?;
        let mut facts = Self {
            disk_bytes: blocks(&rustix::fs::fstat(&top), path)?,
            ..Self::default()
        };
        let mut links = std::collections::HashSet::new();
        walk_tree::<u64, TreeError>(top.as_fd(), HASH_START, |above, entry| {
            let stat = entry.stat;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let path = mix(*above, std::os::unix::ffi::OsStrExt::as_bytes(entry.name));
            let size = if kind == FileType::RegularFile {
                stat.st_size
            } else {
                0
            };
            let mut hash = mix(path, &stat.st_mode.to_le_bytes());
            hash = mix(hash, &stat.st_uid.to_le_bytes());
            hash = mix(hash, &stat.st_gid.to_le_bytes());
            hash = mix(hash, &size.to_le_bytes());
            facts.print = facts.print.wrapping_add(hash);
            facts.entries += 1;
            if kind == FileType::Directory || stat.st_nlink == 1 || links.insert((stat.st_dev, stat.st_ino)) {
                facts.disk_bytes += stat.st_blocks.cast_unsigned() * 512;
            }
            Ok(path)
        })
        .map_err(|source| DiskError::Tree {
            path: path.to_owned(),
            source,
        })?;
        Ok(facts)
    }
}

fn blocks(stat: &Result<rustix::fs::Stat, rustix::io::Errno>, path: &Path) -> Result<u64, DiskError> {
    match stat {
        Ok(stat) => Ok(stat.st_blocks.cast_unsigned() * 512),
        Err(e) => Err(DiskError::new("stat", path, (*e).into())),
    }
}

/// FNV-1a, 64 bits, with an end mark so that parts do not run into each other, and a final shuffle.
const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;

fn mix(mut hash: u64, bytes: &[u8]) -> u64 {
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ 0x1ff).wrapping_mul(0x0100_0000_01b3);
    hash ^ (hash >> 29)
}

impl Store {
    /// Puts the finished directory `dir` (in the lease's scratch directory) into the store as layer `id`, held by the
    /// lease. If the layer is there already, `dir` is discarded. Gives the layer's path.
    ///
    /// The caller is the only one who has the directory mounted or open for writing, and has stopped writing.
    ///
    /// # Errors
    /// The file system's and the index's.
    pub fn commit_layer(
        &self,
        lease: &Lease,
        form: &FormName,
        dir: &Path,
        id: &LayerId,
    ) -> Result<PathBuf, StoreError> {
        let facts = TreeFacts::measure(dir)?;
        let form_dir = self.layout().form(form);
        match make_private_dir(&form_dir) {
            Err(DiskError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        let target = self.layout().layer(form, id);
        let names = vec![held_name(form, id)];
        crate::fault::point("layer before rename");
        let lock = self.lock_holdings(Sharing::Shared)?;
        lease.hold(&lock, Kind::Layer, names)?;
        let ours = self.index().write("add layer", |tables| {
            let row = tables.one(
                "SELECT 1 FROM layer WHERE form = ?1 AND id = ?2",
                (form, id),
                |_| Ok(()),
            )?;
            let there = target.is_dir();
            let ours = row.is_none() || !there;
            if ours {
                if there {
                    // Nobody refers to it: a process was killed before its row, or its row was lost.
                    self.discard(&target)?;
                }
                std::fs::rename(dir, &target).map_err(|e| DiskError::new("rename to", &target, e))?;
                crate::fault::point("layer renamed");
                tables.run(
                    "INSERT OR REPLACE INTO layer(form, id, diff_id, disk_bytes, entries, print, created, used, boot)
                     VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8)",
                    (
                        form,
                        id,
                        id.diff_id().map(|diff_id| diff_id.0.as_str().to_owned()),
                        facts.disk_bytes.cast_signed(),
                        facts.entries.cast_signed(),
                        facts.print.cast_signed(),
                        self.now(),
                        self.boot(),
                    ),
                )?;
            }
            Ok::<_, StoreError>(ours)
        })?;
        crate::fault::point("layer committed");
        drop(lock);
        if !ours {
            self.remove_private(dir)?;
        }
        Ok(target)
    }

    /// Where a layer is; `None` if it is not there or lost something in a power failure (it is removed then). The
    /// answer is only good while a lease holds the layer: see [`Lease::hold_layers`].
    ///
    /// # Errors
    /// The index's and the file system's.
    pub fn layer_dir(&self, form: &FormName, id: &LayerId) -> Result<Option<PathBuf>, StoreError> {
        let row = self.index().read("find layer", |tables| {
            let sql = "SELECT print, boot, used FROM layer WHERE form = ?1 AND id = ?2";
            tables.one(sql, (form, id), |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, Option<String>>(1)?,
                    row.get::<_, i64>(2)?,
                ))
            })
        })?;
        let Some((print, boot, used)) = row else {
            return Ok(None);
        };
        let path = self.layout().layer(form, id);
        let good = path.is_dir()
            && (self.is_settled(boot.as_deref()) || {
                let same = TreeFacts::measure(&path)?.print.cast_signed() == print;
                if same {
                    self.index().write("note good layer", |tables| {
                        tables.run(
                            "UPDATE layer SET boot = NULL WHERE form = ?1 AND id = ?2",
                            (form, id),
                        )
                    })?;
                }
                same
            });
        if !good {
            self.forget_layer(form, id)?;
            return Ok(None);
        }
        self.note_used(Used::Layer, &held_name(form, id), used);
        Ok(Some(path))
    }

    /// The facts about a layer that is there.
    ///
    /// # Errors
    /// The index's.
    pub fn layer_facts(&self, form: &FormName, id: &LayerId) -> Result<Option<LayerFacts>, IndexError> {
        self.index().read("find layer", |tables| {
            let sql = "SELECT diff_id, tar_size, disk_bytes, entries, created, used FROM layer
                       WHERE form = ?1 AND id = ?2";
            tables.one(sql, (form, id), |row| {
                Ok(LayerFacts {
                    diff_id: row
                        .get::<_, Option<DigestColumn>>(0)?
                        .map(|column| DiffId(column.0)),
                    tar_size: row.get::<_, Option<i64>>(1)?.map(i64::cast_unsigned),
                    disk_bytes: row.get::<_, i64>(2)?.cast_unsigned(),
                    entries: row.get::<_, i64>(3)?.cast_unsigned(),
                    created_ms: row.get(4)?,
                    used_ms: row.get(5)?,
                })
            })
        })
    }

    /// What made a layer, for people: the vertex with the least layers that this is one of.
    ///
    /// # Errors
    /// The index's.
    pub fn layer_maker(&self, id: &LayerId) -> Result<Option<String>, IndexError> {
        self.index().read("find what made a layer", |tables| {
            let sql = "SELECT r.vertex FROM record_layer l JOIN record r ON r.key = l.key WHERE l.layer = ?1
                       ORDER BY length(r.layers), r.created LIMIT 1";
            tables.one(sql, (id,), |row| row.get(0))
        })
    }

    /// Records what a layer's tar hashes to, and how long it is.
    ///
    /// # Errors
    /// The index's.
    pub fn set_layer_diff_id(
        &self,
        form: &FormName,
        id: &LayerId,
        diff_id: &DiffId,
        tar_size: u64,
    ) -> Result<(), IndexError> {
        self.index().write("set diff id", |tables| {
            tables
                .run(
                    "UPDATE layer SET diff_id = ?3, tar_size = ?4 WHERE form = ?1 AND id = ?2",
                    (form, id, diff_id.0.as_str(), tar_size.cast_signed()),
                )
                .map(drop)
        })
    }

    /// Records that `blob` is the layer of `diff_id` compressed; `compression` is the caller's word for how (algorithm,
    /// level and whatever else changes the bytes).
    ///
    /// # Errors
    /// The index's.
    pub fn record_blob(
        &self,
        diff_id: &DiffId,
        compression: &str,
        blob: &DiffBlob,
    ) -> Result<(), IndexError> {
        self.index().write("record blob", |tables| {
            tables
                .run(
                    "INSERT OR REPLACE INTO diff_blob(diff_id, compression, digest, size, media_type)
                     VALUES(?1, ?2, ?3, ?4, ?5)",
                    (
                        diff_id.0.as_str(),
                        compression,
                        blob.digest.as_str(),
                        blob.size.cast_signed(),
                        &blob.media_type,
                    ),
                )
                .map(drop)
        })
    }

    /// The compressed form of a layer, if it was made or pulled before and the blob is there. With `None` any
    /// compression will do.
    ///
    /// # Errors
    /// The index's and the file system's.
    pub fn blob_for_diff_id(
        &self,
        diff_id: &DiffId,
        compression: Option<&str>,
    ) -> Result<Option<DiffBlob>, StoreError> {
        let found = self.index().read("find blob of layer", |tables| {
            let sql = "SELECT digest, size, media_type FROM diff_blob
                       WHERE diff_id = ?1 AND (?2 IS NULL OR compression = ?2) ORDER BY compression";
            tables.all(sql, (diff_id.0.as_str(), compression), |row| {
                Ok(DiffBlob {
                    digest: row.get::<_, DigestColumn>(0)?.0,
                    size: row.get::<_, i64>(1)?.cast_unsigned(),
                    media_type: row.get(2)?,
                })
            })
        })?;
        for blob in found {
            if self.has_blob(&blob.digest)? == Some(blob.size) {
                return Ok(Some(blob));
            }
        }
        Ok(None)
    }

    fn forget_layer(&self, form: &FormName, id: &LayerId) -> Result<(), StoreError> {
        self.index().write("forget layer", |tables| {
            self.discard(&self.layout().layer(form, id))?;
            tables.run("DELETE FROM layer WHERE form = ?1 AND id = ?2", (form, id))?;
            Ok(())
        })
    }
}

impl Lease {
    /// Keeps layers from being collected while the lease lives, and gives their paths in the same order, `None` for
    /// each that is not there.
    ///
    /// # Errors
    /// The index's and the file system's.
    pub fn hold_layers(&self, form: &FormName, ids: &[LayerId]) -> Result<Vec<Option<PathBuf>>, StoreError> {
        let new: Vec<String> = ids
            .iter()
            .map(|id| held_name(form, id))
            .filter(|name| !self.is_held(Kind::Layer, name))
            .collect();
        if !new.is_empty() {
            let lock = self.store().lock_holdings(Sharing::Shared)?;
            let there = self.store().index().read("find layers", |tables| {
                let mut there = Vec::new();
                for name in &new {
                    let sql = "SELECT 1 FROM layer WHERE form = ?1 AND id = ?2";
                    let id = name.rsplit_once('/').map_or("", |(_, id)| id);
                    if tables.one(sql, (form, id), |_| Ok(()))?.is_some() {
                        there.push(name.clone());
                    }
                }
                Ok(there)
            })?;
            if !there.is_empty() {
                self.hold(&lock, Kind::Layer, there)?;
            }
        }
        ids.iter().map(|id| self.held_layer(form, id)).collect()
    }

    fn held_layer(&self, form: &FormName, id: &LayerId) -> Result<Option<PathBuf>, StoreError> {
        let name = held_name(form, id);
        if let Some(path) = self.known_layer(&name) {
            return Ok(Some(path));
        }
        if !self.is_held(Kind::Layer, &name) {
            return Ok(None);
        }
        let found = self.store().layer_dir(form, id)?;
        if let Some(path) = &found {
            self.note_layer(name, path.clone());
        }
        Ok(found)
    }
}

/// Name of a layer that is held.
pub(crate) fn held_name(form: &FormName, id: &LayerId) -> String {
    format!("{form}/{id}")
}

#[cfg(test)]
mod tests;
