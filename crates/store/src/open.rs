//! How a store is found, checked, made and opened. Refuses directories of other users, of other programs, of newer
//! versions and on network file systems.

pub(crate) mod exposed;

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::error::{DiskError, IndexError, StoreError};
use crate::format::{DIRS, FILES, FORMAT_VERSION, Layout, MARKER, MARKER_WORD, OCI_LAYOUT};
use crate::index::{Index, Journal, SCHEMA_VERSION};
use crate::store::{Durability, OpenOptions, Store};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory belongs to somebody else.
    #[error(
        "store {path:?} belongs to user {owner}, but this process is user {user}; use another directory, or run as its owner"
    )]
    WrongOwner {
        /// The store.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who asked.
        user: u32,
    },
    /// Others may write into the directory, and may have done so.
    #[error(
        "store {path:?} can be written by other users (mode {mode:04o}); `chmod go-w` it if only you have used it"
    )]
    Writable {
        /// The store.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A network file system, whose locks and shared memory cannot be trusted.
    #[error(
        "store {path:?} is on {file_system}, where locks between processes do not hold; choose a local directory"
    )]
    NetworkFileSystem {
        /// The store.
        path: PathBuf,
        /// Which one.
        file_system: &'static str,
    },
    /// There are files that no store has.
    #[error("{path:?} is not a store: it holds {found:?}; choose an empty directory")]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// One such file.
        found: String,
    },
    /// It is no directory.
    #[error("store {0:?} is not a directory")]
    NotADirectory(PathBuf),
    /// Made by a newer rbuild.
    #[error(
        "store {path:?} has format {found}, this rbuild knows formats up to {FORMAT_VERSION}; use the newer rbuild, or another directory"
    )]
    TooNew {
        /// The store.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// The file system.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Disk(error) => Self::Disk(error),
            StoreError::Index(error) => Self::Index(error),
        }
    }
}

impl Store {
    /// Opens the store at `root`, making it if there is none. The directory is of mode 0700 afterwards, whatever the
    /// umask. Dead leases are collected on the way, a bounded number.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(root: &Path, options: &OpenOptions) -> Result<Self, OpenError> {
        let dir = open_root(root)?;
        let path = std::fs::canonicalize(root).map_err(|e| DiskError::new("resolve", root, e))?;
        check_owner(&dir, &path)?;
        let journal = check_file_system(&dir, &path)?;
        let layout = Layout::new(path);
        let durable = options.durability == Durability::Full;
        let mut rebuild = !has_marker(&layout)? && make(&dir, &layout, journal, durable)?;
        let index = match Index::open(&layout.top("index.db")) {
            Ok((index, SCHEMA_VERSION)) => index,
            Ok((damaged, _)) => {
                drop(damaged);
                rebuild = true;
                replace_index(&dir, &layout, journal)?
            }
            Err(error) if error.is_damaged() || !layout.top("index.db").exists() => {
                rebuild = true;
                replace_index(&dir, &layout, journal)?
            }
            Err(error) => return Err(error.into()),
        };
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let store = Self::of_parts(layout, index, boot.trim().to_owned(), options.clone());
        if rebuild {
            store.adopt_files()?;
        }
        if store.collect_dead_leases_at_open()? > 0 || !is_empty(&store.layout().top("trash"))? {
            store.empty_trash(Some(crate::trash::OPEN_BUDGET))?;
        }
        Ok(store)
    }
}

/// Opens the root directory, making it and its parents (0700, as the XDG base directory specification asks).
fn open_root(root: &Path) -> Result<File, OpenError> {
    match File::open(root) {
        Ok(dir) => return Ok(dir),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(DiskError::new("open store", root, error).into()),
    }
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(root)
        .map_err(|e| DiskError::new("make directory", root, e))?;
    Ok(File::open(root).map_err(|e| DiskError::new("open store", root, e))?)
}

fn check_owner(dir: &File, path: &Path) -> Result<(), OpenError> {
    let stat = dir.metadata().map_err(|e| DiskError::new("stat", path, e))?;
    if !stat.is_dir() {
        return Err(OpenError::NotADirectory(path.to_owned()));
    }
    let user = rustix::process::geteuid().as_raw();
    if stat.uid() != user {
        return Err(OpenError::WrongOwner {
            path: path.to_owned(),
            owner: stat.uid(),
            user,
        });
    }
    let mode = stat.permissions().mode() & 0o7777;
    let is_used = || holds_anything(path);
    // A volume is made so (Kubernetes' emptyDir, docker's tmpfs), and as long as it is empty nobody has put anything into it.
    if mode & 0o022 != 0 && is_used()? {
        return Err(OpenError::Writable {
            path: path.to_owned(),
            mode,
        });
    }
    if mode & 0o777 != 0o700 {
        dir.set_permissions(std::fs::Permissions::from_mode(0o700))
            .map_err(|e| DiskError::new("set mode of", path, e))?;
    }
    // From now on nobody else can; who did meanwhile is found.
    if mode & 0o022 != 0 && is_used()? {
        return Err(OpenError::Writable {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

/// Whether the directory has any entry but that of a new file system.
fn holds_anything(path: &Path) -> Result<bool, DiskError> {
    let entries = std::fs::read_dir(path).map_err(|e| DiskError::new("list", path, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| DiskError::new("list", path, e))?;
        if entry.file_name() != "lost+found" {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `f_type` of statfs(2) (linux/magic.h).
fn check_file_system(dir: &File, path: &Path) -> Result<Journal, OpenError> {
    let stat = rustix::fs::fstatfs(dir).map_err(|e| DiskError::new("stat file system of", path, e.into()))?;
    let magic = stat.f_type & 0xffff_ffff;
    let network = match magic {
        0x6969 => Some("NFS"),
        0x517b | 0xfe53_4d42 | 0xff53_4d42 => Some("SMB"),
        0x00c3_6400 => Some("Ceph"),
        0x5346_414f | 0x6b41_4653 => Some("AFS"),
        0x7375_7245 => Some("Coda"),
        0x0102_1997 => Some("9p"),
        0x0bd0_0bd0 => Some("Lustre"),
        0x4750_4653 => Some("GPFS"),
        _ => None,
    };
    match network {
        Some(file_system) => Err(OpenError::NetworkFileSystem {
            path: path.to_owned(),
            file_system,
        }),
        None if magic == 0x6573_5546 => Ok(Journal::Delete),
        None => Ok(Journal::Wal),
    }
}

/// Whether the directory is a complete store of a version this program knows. An empty marker is one whose content a
/// power failure took, soon after the store was made.
fn has_marker(layout: &Layout) -> Result<bool, OpenError> {
    let path = layout.top(MARKER);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(DiskError::new("read", &path, error).into()),
    };
    if text.is_empty() {
        return Ok(false);
    }
    let text = String::from_utf8_lossy(&text);
    let version = text.trim_end().strip_prefix(MARKER_WORD).map(str::trim_start);
    if version.and_then(|v| v.parse().ok()) == Some(FORMAT_VERSION) {
        return Ok(true);
    }
    Err(OpenError::TooNew {
        path: layout.root().to_owned(),
        found: version.unwrap_or("unknown").chars().take(32).collect(),
    })
}

/// Makes what a store has, alone among all processes; begins again where a killed one stopped. Whether there was a store
/// before, so that there may be files to take into the new index.
fn make(dir: &File, layout: &Layout, journal: Journal, durable: bool) -> Result<bool, OpenError> {
    let _lock = lock_root(dir, layout)?;
    if has_marker(layout)? {
        return Ok(false);
    }
    let root = layout.root();
    let again = layout.top(MARKER).exists();
    for entry in std::fs::read_dir(root).map_err(|e| DiskError::new("list", root, e))? {
        let found = entry.map_err(|e| DiskError::new("list", root, e))?.file_name();
        let known = found.to_str().is_some_and(|name| {
            DIRS.contains(&name) || FILES.contains(&name) || name.ends_with(".new") || name == "lost+found"
        });
        if !known {
            let found = found.to_string_lossy().into_owned();
            return Err(OpenError::NotAStore {
                path: root.to_owned(),
                found,
            });
        }
    }
    for name in DIRS {
        let path = layout.top(name);
        match crate::lease::make_private_dir(&path) {
            Err(DiskError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
    }
    remove_index(layout)?;
    Index::create(&layout.top("index.db"), journal)?;
    write_file(&layout.top("oci-layout"), OCI_LAYOUT.as_bytes(), durable)?;
    if !again {
        let empty = crate::image::EMPTY_INDEX.as_bytes();
        write_file(&layout.top("index.json"), empty, durable)?;
    }
    write_file(
        &layout.top(MARKER),
        format!("{MARKER_WORD} {FORMAT_VERSION}\n").as_bytes(),
        durable,
    )?;
    if durable {
        rustix::fs::fsync(dir).map_err(|e| DiskError::new("sync", root, e.into()))?;
    }
    Ok(again)
}

/// Removes an unusable index and makes a new one. Done under the root's lock; if another process was faster, its new
/// index is opened instead.
fn replace_index(dir: &File, layout: &Layout, journal: Journal) -> Result<Index, OpenError> {
    let _lock = lock_root(dir, layout)?;
    let path = layout.top("index.db");
    if path.exists()
        && let Ok((index, SCHEMA_VERSION)) = Index::open(&path)
    {
        return Ok(index);
    }
    remove_index(layout)?;
    Index::create(&path, journal)?;
    Ok(Index::open(&path)?.0)
}

fn lock_root<'f>(dir: &'f File, layout: &Layout) -> Result<RootLock<'f>, DiskError> {
    rustix::fs::flock(dir, FlockOperation::LockExclusive)
        .map_err(|e| DiskError::new("lock", layout.root(), e.into()))?;
    Ok(RootLock(dir))
}

struct RootLock<'f>(&'f File);

impl Drop for RootLock<'_> {
    fn drop(&mut self) {
        rustix::fs::flock(self.0, FlockOperation::Unlock).ok();
    }
}

fn remove_index(layout: &Layout) -> Result<(), DiskError> {
    for name in ["index.db-wal", "index.db-shm", "index.db-journal", "index.db"] {
        let path = layout.top(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(DiskError::new("remove", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes a small file so that its name always leads to whole content; with `sync`, also after a power failure.
pub(crate) fn write_file(path: &Path, bytes: &[u8], sync: bool) -> Result<(), DiskError> {
    let mut new = path.to_owned().into_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    let write = || -> std::io::Result<()> {
        let file = File::create(&new)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        std::io::Write::write_all(&mut &file, bytes)?;
        if sync {
            file.sync_data()?;
        }
        std::fs::rename(&new, path)
    };
    write().map_err(|e| DiskError::sized("write", path, e, Some(bytes.len() as u64)))
}

fn is_empty(dir: &Path) -> Result<bool, DiskError> {
    let mut entries = std::fs::read_dir(dir).map_err(|e| DiskError::new("list", dir, e))?;
    Ok(entries.next().is_none())
}

#[cfg(test)]
mod tests;
