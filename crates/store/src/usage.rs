//! What the store takes on the disk: blocks, not lengths, and each hard-linked file once.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rbuild_sys::{TreeError, walk_tree};
use rustix::fs::FileType;

use crate::error::{DiskError, IndexError, StoreError};
use crate::holding::Kind;
use crate::store::Store;

/// What a part of the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UsageKind {
    /// Compressed layers, configs, manifests.
    Blob,
    /// Layer directories.
    Layer,
    /// Cache mounts.
    CacheMount,
    /// Scratch of running builds, and what is being deleted.
    Scratch,
    /// The index, the locks, what is kept of builds that ran, and the directories that hold the rest.
    Index,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageEntry {
    /// What it is.
    pub kind: UsageKind,
    /// Digest, `form/layer id`, cache mount directory, or path below the root.
    pub name: String,
    /// Bytes of its blocks. A file that several parts link counts for the first of them only.
    pub bytes: u64,
    /// When it was made, milliseconds since 1970; 0 if not recorded.
    pub created_ms: i64,
    /// When it was used last, likewise.
    pub used_ms: i64,
    /// For people: the id of a cache mount, the vertex that made a layer.
    pub description: String,
    /// A running build holds it.
    pub in_use: bool,
}

/// All parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// By kind, then name.
    pub entries: Vec<UsageEntry>,
}

impl Usage {
    /// Bytes of everything: what `du` says of the directory.
    #[must_use]
    pub(crate) fn total_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }
}

/// Times and description of a part, by name.
type Notes = HashMap<String, (i64, i64, String)>;

impl Store {
    /// Measures everything in the store. Reads the status of every file.
    ///
    /// # Errors
    /// The file system's and the index's.
    pub fn du(&self) -> Result<Usage, StoreError> {
        let mut meter = Meter {
            links: HashSet::new(),
            entries: Vec::new(),
        };
        let top = |name: &str| self.layout().top(name);
        let (blobs, layers, mounts) = self.notes()?;
        for algorithm in ["sha256", "sha512"] {
            let name = |file: &str| format!("{algorithm}:{file}");
            meter.children(&top("blobs").join(algorithm), UsageKind::Blob, name, &blobs)?;
        }
        for form in names(&top("layers"))? {
            let name = |id: &str| format!("{form}/{id}");
            meter.children(&top("layers").join(&form), UsageKind::Layer, name, &layers)?;
        }
        meter.children(&top("mounts"), UsageKind::CacheMount, str::to_owned, &mounts)?;
        let holdings = self.holdings()?;
        let is_held = |kind, name: &str| holdings.contains(&(kind, name.to_owned()));
        for entry in &mut meter.entries {
            entry.in_use = match entry.kind {
                UsageKind::Blob => is_held(Kind::Blob, &entry.name),
                UsageKind::Layer => is_held(Kind::Layer, &entry.name),
                UsageKind::CacheMount => !self.mount_is_idle(&entry.name)?,
                _ => false,
            };
        }
        for dir in ["tmp", "trash"] {
            meter.children(
                &top(dir),
                UsageKind::Scratch,
                |file| format!("{dir}/{file}"),
                &Notes::new(),
            )?;
        }
        meter.children(
            &top("locks"),
            UsageKind::Index,
            |file| format!("locks/{file}"),
            &Notes::new(),
        )?;
        if top("history").is_dir() {
            let name = |file: &str| format!("history/{file}");
            meter.children(&top("history"), UsageKind::Index, name, &Notes::new())?;
        }
        for dir in ["blobs", "layers"] {
            meter.add(&top(dir), UsageKind::Index, dir.to_owned(), None, Depth::Itself)?;
        }
        meter.add(self.root(), UsageKind::Index, ".".to_owned(), None, Depth::Itself)?;
        for name in names(self.root())? {
            if !top(&name).is_dir() {
                meter.add(&top(&name), UsageKind::Index, name, None, Depth::Itself)?;
            }
        }
        meter
            .entries
            .sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        Ok(Usage {
            entries: meter.entries,
        })
    }

    /// Times and descriptions of blobs, layers and cache mounts.
    fn notes(&self) -> Result<(Notes, Notes, Notes), IndexError> {
        self.index().read("list parts", |tables| {
            let note = |row: &rusqlite::Row<'_>| {
                let notes = (row.get(1)?, row.get(2)?, row.get::<_, String>(3)?);
                Ok((row.get::<_, String>(0)?, notes))
            };
            let blobs = tables.all(
                "SELECT digest, created, used, coalesce((SELECT media_type FROM diff_blob d WHERE d.digest = b.digest), '')
                 FROM blob b",
                [],
                note,
            )?;
            let layers = tables.all(
                "SELECT form || '/' || id, created, used, coalesce(
                 (SELECT vertex FROM record r JOIN record_layer l ON l.key = r.key WHERE l.layer = y.id
                  ORDER BY length(r.layers) LIMIT 1), '')
                 FROM layer y",
                [],
                note,
            )?;
            let mounts = tables.all("SELECT dir, created, used, id FROM mount", [], note)?;
            Ok((Notes::from_iter(blobs), Notes::from_iter(layers), Notes::from_iter(mounts)))
        })
    }
}

enum Depth {
    Itself,
    Tree,
}

struct Meter {
    links: HashSet<(u64, u64)>,
    entries: Vec<UsageEntry>,
}

impl Meter {
    /// Measures every child of `dir`, and `dir` itself as part of the index.
    fn children(
        &mut self,
        dir: &Path,
        kind: UsageKind,
        name: impl Fn(&str) -> String,
        notes: &Notes,
    ) -> Result<(), DiskError> {
        for child in names(dir)? {
            let name = name(&child);
            self.add(
                &dir.join(&child),
                kind,
                name.clone(),
                notes.get(&name),
                Depth::Tree,
            )?;
        }
        self.add(
            dir,
            UsageKind::Index,
            dir.to_string_lossy().into_owned(),
            None,
            Depth::Itself,
        )
    }

    fn add(
        &mut self,
        path: &Path,
        kind: UsageKind,
        name: String,
        note: Option<&(i64, i64, String)>,
        depth: Depth,
    ) -> Result<(), DiskError> {
        let stat = match std::fs::symlink_metadata(path) {
            Ok(stat) => stat,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(DiskError::new("stat", path, error)),
        };
        let mut bytes = 0;
        if stat.is_dir() || stat.nlink() == 1 || self.links.insert((stat.dev(), stat.ino())) {
            bytes += stat.blocks() * 512;
        }
        if stat.is_dir() && matches!(depth, Depth::Tree) {
            bytes += self.below(path)?;
        }
        let (created_ms, used_ms, description) = note.cloned().unwrap_or_default();
        self.entries.push(UsageEntry {
            kind,
            name,
            bytes,
            created_ms,
            used_ms,
            description,
            in_use: false,
        });
        Ok(())
    }

    fn below(&mut self, path: &Path) -> Result<u64, DiskError> {
        let top = match File::open(path) {
            Ok(top) => top,
            // A build ended just now.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(DiskError::new("open", path, error)),
        };
        let mut bytes = 0;
        walk_tree::<(), TreeError>(top.as_fd(), (), |(), entry| {
            let stat = entry.stat;
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_dir || stat.st_nlink == 1 || self.links.insert((stat.st_dev, stat.st_ino)) {
                bytes += stat.st_blocks.cast_unsigned() * 512;
            }
            Ok(())
        })
        .map_err(|source| DiskError::Tree {
            path: path.to_owned(),
            source,
        })?;
        Ok(bytes)
    }
}

/// Names in a directory, sorted. Names that are not UTF-8 are nobody's here and are left out.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, DiskError> {
    let fail = |e| DiskError::new("list", dir, e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        names.extend(entry.map_err(fail)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}
