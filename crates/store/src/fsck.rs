//! Rows against disk, both ways. Owns the list of what can be wrong; with `repair`, makes rows and disk agree, by
//! keeping what can be shown to be right and discarding the rest (a cache miss, never a wrong build).

use std::fs::File;
use std::path::Path;

use rbuild_oci::Digest;

use crate::blob::{Stamp, hash_file, open_plain};
use crate::error::{DiskError, IndexError, StoreError};
use crate::format::{DIRS, FILES};
use crate::gc::records_without;
use crate::index::Tables;
use crate::layer::TreeFacts;
use crate::mount::is_mount_dir_name;
use crate::name::{FormName, LayerId};
use crate::record::forget_record;
use crate::store::Store;
use crate::usage::names;

/// How thorough, and whether to change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FsckOptions {
    /// Make rows and disk agree.
    pub repair: bool,
    /// Hash every blob and compare every layer with its recorded tree.
    pub contents: bool,
}

/// One thing that was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub kind: ProblemKind,
    /// Digest, `form/layer id`, cache key, image name or path below the root.
    pub name: String,
}

/// Kinds of problems. Killed processes leave only those that say so, and those are harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemKind {
    /// SQLite's own check of `index.db` found something; repair by removing the file.
    IndexDamaged,
    /// A blob's row without its file (a collection that was killed leaves this for garbage).
    BlobMissing,
    /// A blob whose content is not its name.
    BlobWrong,
    /// A blob's file without a row (left by a killed process).
    BlobOrphan,
    /// A layer's row without its directory (a collection that was killed leaves this for garbage).
    LayerMissing,
    /// A layer that is not as it was committed.
    LayerWrong,
    /// A layer's directory without a row (left by a killed process).
    LayerOrphan,
    /// A cache mount's row without its directory (left by a killed process).
    MountMissing,
    /// A cache mount's directory without a row (left by a killed process).
    MountOrphan,
    /// A cache record whose layers are neither here nor can be pulled.
    RecordDangling,
    /// An image name without its manifest.
    ImageBroken,
    /// `index.json` differs from the rows (left by a killed process).
    IndexJsonStale,
    /// A file that is none of the store's.
    Foreign,
}

struct Check<'s, 't> {
    store: &'s Store,
    tables: &'t Tables<'t>,
    repair: bool,
    problems: Vec<Problem>,
}

impl Store {
    /// Checks the store, and repairs it if asked to. Writers wait meanwhile; with `contents` the contents are read
    /// before that, without holding anyone up.
    ///
    /// # Errors
    /// The file system's and the index's.
    pub fn fsck(&self, options: FsckOptions) -> Result<Vec<Problem>, StoreError> {
        self.flush_used();
        self.collect_dead_leases(usize::MAX)?;
        let mut problems = Vec::new();
        let sound = self.index().read("check index", |tables| {
            tables.one("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0))
        })?;
        if sound.as_deref() != Some("ok") {
            problems.push(Problem {
                kind: ProblemKind::IndexDamaged,
                name: "index.db".to_owned(),
            });
        }
        if options.contents {
            self.check_contents(options.repair, &mut problems)?;
        }
        let found = self.index().write("check", |tables| {
            let mut check = Check {
                store: self,
                tables,
                repair: options.repair,
                problems: Vec::new(),
            };
            check.blobs()?;
            check.layers()?;
            check.mounts()?;
            check.records()?;
            check.images()?;
            check.foreign()?;
            Ok::<_, StoreError>(check.problems)
        })?;
        problems.extend(
            found
                .into_iter()
                .filter(|new| !problems.contains(new))
                .collect::<Vec<_>>(),
        );
        if options.repair {
            self.empty_trash(None)?;
        }
        Ok(problems)
    }

    /// Fills a new index from the files of the store: names first, as the check rewrites `index.json` from the rows.
    pub(crate) fn adopt_files(&self) -> Result<(), StoreError> {
        self.set_images(&self.read_index_json())?;
        self.fsck(FsckOptions {
            repair: true,
            contents: false,
        })?;
        // Again, now that configs can be found through the rows of their blobs.
        self.set_images(&self.read_index_json())
    }

    fn check_contents(&self, repair: bool, problems: &mut Vec<Problem>) -> Result<(), StoreError> {
        let (blobs, layers) = self.index().read("list contents", |tables| {
            let blobs = tables.all("SELECT digest FROM blob", [], |row| row.get::<_, String>(0))?;
            let layers = tables.all("SELECT form, id, print FROM layer", [], |row| {
                Ok((
                    row.get::<_, FormName>(0)?,
                    row.get::<_, LayerId>(1)?,
                    row.get::<_, i64>(2)?,
                ))
            })?;
            Ok((blobs, layers))
        })?;
        for name in blobs {
            let Ok(digest) = Digest::parse(&name) else {
                continue;
            };
            let path = self.layout().blob(&digest);
            let Some(file) = open_plain(&path)? else { continue };
            let right = hash_file(&mut &file, digest.algorithm()).is_ok_and(|(found, _)| found == digest);
            if !right && open_plain(&path)?.is_some() {
                problems.push(Problem {
                    kind: ProblemKind::BlobWrong,
                    name,
                });
                if repair {
                    self.verify_blob(&digest)?;
                }
            }
        }
        for (form, id, print) in layers {
            let path = self.layout().layer(&form, &id);
            if !path.is_dir() || TreeFacts::measure(&path)?.print.cast_signed() == print {
                continue;
            }
            problems.push(Problem {
                kind: ProblemKind::LayerWrong,
                name: format!("{form}/{id}"),
            });
            if repair {
                self.index().write("remove layer", |tables| {
                    self.discard(&path)?;
                    tables.run("DELETE FROM layer WHERE form = ?1 AND id = ?2", (&form, &id))?;
                    Ok::<_, StoreError>(())
                })?;
            }
        }
        Ok(())
    }
}

impl Check<'_, '_> {
    fn found(&mut self, kind: ProblemKind, name: impl Into<String>) {
        self.problems.push(Problem {
            kind,
            name: name.into(),
        });
    }

    fn blobs(&mut self) -> Result<(), StoreError> {
        let rows = self.tables.all("SELECT digest, size FROM blob", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
        })?;
        for (name, size) in rows {
            let path = Digest::parse(&name)
                .map(|digest| self.store.layout().blob(&digest))
                .ok();
            let file = path.as_deref().map(open_plain).transpose()?.flatten();
            let kind = match file.map(|file| file.metadata().map(|stat| stat.len())) {
                Some(Ok(found)) if found == size => continue,
                Some(_) => ProblemKind::BlobWrong,
                None => ProblemKind::BlobMissing,
            };
            if self.repair {
                if let Some(path) = path {
                    self.store.discard(&path)?;
                }
                self.tables.run("DELETE FROM blob WHERE digest = ?1", [&name])?;
            }
            self.found(kind, name);
        }
        for algorithm in ["sha256", "sha512"] {
            let dir = self.store.layout().top("blobs").join(algorithm);
            for hex in names(&dir)? {
                self.blob_file(&dir.join(&hex), &format!("{algorithm}:{hex}"))?;
            }
        }
        Ok(())
    }

    fn blob_file(&mut self, path: &Path, name: &str) -> Result<(), StoreError> {
        let Ok(digest) = Digest::parse(name) else {
            return self.discard_foreign(path);
        };
        if self.has("SELECT 1 FROM blob WHERE digest = ?1", [name])? {
            return Ok(());
        }
        if self.repair && !self.adopt_blob(path, &digest)? {
            self.store.discard(path)?;
        }
        self.found(ProblemKind::BlobOrphan, name);
        Ok(())
    }

    /// Gives a file a row if its content is right.
    fn adopt_blob(&self, path: &Path, digest: &Digest) -> Result<bool, StoreError> {
        let Some(file) = open_plain(path)? else {
            return Ok(false);
        };
        let stat = File::metadata(&file).map_err(|e| DiskError::new("stat", path, e))?;
        if !hash_file(&mut &file, digest.algorithm()).is_ok_and(|(found, _)| found == *digest) {
            return Ok(false);
        }
        let stamp = Stamp::of(&stat);
        self.tables.run(
            "INSERT INTO blob(digest, size, inode, ctime_ns, created, used, boot) VALUES(?1, ?2, ?3, ?4, ?5, ?5, ?6)",
            (
                digest.as_str(),
                stamp.size.cast_signed(),
                stamp.inode,
                stamp.ctime_ns,
                self.store.now(),
                self.store.boot(),
            ),
        )?;
        Ok(true)
    }

    fn layers(&mut self) -> Result<(), StoreError> {
        let rows = self.tables.all("SELECT form, id FROM layer", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        let top = self.store.layout().top("layers");
        for (form, id) in rows {
            let there = FormName::parse(&form).is_ok() && LayerId::parse(&id).is_ok();
            if !there || !top.join(&form).join(&id).is_dir() {
                if self.repair {
                    self.tables
                        .run("DELETE FROM layer WHERE form = ?1 AND id = ?2", (&form, &id))?;
                }
                self.found(ProblemKind::LayerMissing, format!("{form}/{id}"));
            }
        }
        for form in names(&top)? {
            let dir = top.join(&form);
            let Ok(form) = FormName::parse(&form) else {
                self.discard_foreign(&dir)?;
                continue;
            };
            for id in names(&dir)? {
                let path = dir.join(&id);
                let Ok(id) = LayerId::parse(&id) else {
                    self.discard_foreign(&path)?;
                    continue;
                };
                if !self.has("SELECT 1 FROM layer WHERE form = ?1 AND id = ?2", (&form, &id))? {
                    // Not adopted: nothing here can show that it holds what its name says.
                    if self.repair {
                        self.store.discard(&path)?;
                    }
                    self.found(ProblemKind::LayerOrphan, format!("{form}/{id}"));
                }
            }
        }
        Ok(())
    }

    fn mounts(&mut self) -> Result<(), StoreError> {
        let top = self.store.layout().top("mounts");
        let rows = self
            .tables
            .all("SELECT dir FROM mount", [], |row| row.get::<_, String>(0))?;
        for dir in rows {
            if !is_mount_dir_name(&dir) || !top.join(&dir).is_dir() {
                if self.repair {
                    self.tables.run("DELETE FROM mount WHERE dir = ?1", [&dir])?;
                }
                self.found(ProblemKind::MountMissing, dir);
            }
        }
        for dir in names(&top)? {
            if !is_mount_dir_name(&dir) {
                self.discard_foreign(&top.join(&dir))?;
            } else if !self.has("SELECT 1 FROM mount WHERE dir = ?1", [&dir])? {
                if self.repair {
                    // The id is lost with the row and comes back when the mount is next used.
                    let sql = "INSERT INTO mount(dir, id, created, used) VALUES(?1, '', ?2, ?2)";
                    self.tables.run(sql, (&dir, self.store.now()))?;
                }
                self.found(ProblemKind::MountOrphan, dir);
            }
        }
        Ok(())
    }

    fn records(&mut self) -> Result<(), StoreError> {
        let sql = "SELECT DISTINCT layer FROM record_layer WHERE layer NOT IN (SELECT id FROM layer)";
        for id in self.tables.all(sql, [], |row| row.get::<_, String>(0))? {
            for key in records_without(self.tables, &id)? {
                if self.repair {
                    forget_record(self.tables, &key)?;
                }
                if !self
                    .problems
                    .iter()
                    .any(|p| p.kind == ProblemKind::RecordDangling && p.name == key)
                {
                    self.found(ProblemKind::RecordDangling, key);
                }
            }
        }
        Ok(())
    }

    fn images(&mut self) -> Result<(), StoreError> {
        let images = crate::image::images(self.tables)?;
        for (name, image) in images {
            if !self.has("SELECT 1 FROM blob WHERE digest = ?1", [image.digest.as_str()])? {
                if self.repair {
                    self.tables.run("DELETE FROM image WHERE name = ?1", [&name])?;
                }
                self.found(ProblemKind::ImageBroken, name);
            }
        }
        if !self.store.index_json_is_current(self.tables)? {
            if self.repair {
                self.store.write_index_json(self.tables)?;
            }
            self.found(ProblemKind::IndexJsonStale, "index.json");
        }
        Ok(())
    }

    fn foreign(&mut self) -> Result<(), StoreError> {
        for name in names(self.store.root())? {
            if !DIRS.contains(&name.as_str()) && !FILES.contains(&name.as_str()) && name != "lost+found" {
                self.found(ProblemKind::Foreign, name);
            }
        }
        Ok(())
    }

    fn discard_foreign(&mut self, path: &Path) -> Result<(), StoreError> {
        if self.repair {
            self.store.discard(path)?;
        }
        let name = path.strip_prefix(self.store.root()).unwrap_or(path);
        self.found(ProblemKind::Foreign, name.to_string_lossy());
        Ok(())
    }

    fn has(&self, sql: &str, values: impl rusqlite::Params) -> Result<bool, IndexError> {
        Ok(self.tables.one(sql, values, |_| Ok(()))?.is_some())
    }
}

#[cfg(test)]
mod tests;
