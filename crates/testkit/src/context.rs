//! Build contexts: files with exact modes, links, sockets and archives, made in Rust or read from a case's recipe.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;

use crate::layout::{Attributes, EPOCH, LayerBuilder};

/// One entry of a recipe. Exactly one of the content members is set; none means an empty file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Path from the context's root; a trailing slash makes it a directory.
    pub path: String,
    /// Text of a regular file.
    pub text: Option<String>,
    /// A regular file of this many bytes that do not repeat.
    pub bytes: Option<u64>,
    /// Target of a symbolic link.
    pub link: Option<String>,
    /// Earlier path that this is another name of.
    pub hard: Option<String>,
    /// A Unix socket.
    #[serde(default)]
    pub socket: bool,
    /// Entries of an archive; its compression follows from the name's end.
    pub archive: Option<Vec<Entry>>,
    /// Compression of `archive` where the name is to lie about it.
    pub compression: Option<String>,
    /// Octal permissions; 0644, directories 0755.
    pub mode: Option<String>,
    /// Owner inside an archive.
    #[serde(default)]
    pub uid: u64,
    /// Group inside an archive.
    #[serde(default)]
    pub gid: u64,
}

impl Entry {
    fn mode(&self, default: u32) -> Result<u32> {
        match &self.mode {
            Some(text) => u32::from_str_radix(text, 8).with_context(|| format!("mode {text:?}")),
            None => Ok(default),
        }
    }
}

/// A directory that is filled for one build.
#[derive(Debug)]
pub struct BuildContext {
    dir: PathBuf,
}

impl BuildContext {
    /// Makes the directory, readable by everyone.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        Ok(Self { dir })
    }

    /// Its path.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes the Dockerfile.
    #[track_caller]
    pub fn dockerfile(&self, text: &str) -> &Self {
        self.file("Dockerfile", text)
    }

    /// Writes a file with mode 0644 at a fixed time, directories above it included.
    #[track_caller]
    pub fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let target = self.dir.join(path);
        let made = (|| {
            self.parents(&target)?;
            fs::write(&target, content.as_ref())?;
            finish(&target, 0o644)
        })();
        assert!(made.is_ok(), "context entry {path}: {made:?}");
        self
    }

    /// Sets the permissions of an entry.
    #[track_caller]
    pub fn mode(&self, path: &str, mode: u32) -> &Self {
        let made = finish(&self.dir.join(path), mode);
        assert!(made.is_ok(), "context entry {path}: {made:?}");
        self
    }

    /// Gives every directory the fixed time too, which filling it has changed.
    #[track_caller]
    pub fn settle(&self) -> &Self {
        let mut todo = vec![self.dir.clone()];
        while let Some(dir) = todo.pop() {
            let below = fs::read_dir(&dir)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path());
            todo.extend(below.filter(|path| path.is_dir() && !path.is_symlink()));
            let fixed = SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH);
            let set = fs::File::open(&dir).and_then(|open| open.set_modified(fixed));
            assert!(set.is_ok(), "time of {}: {set:?}", dir.display());
        }
        self
    }

    /// Fills the directory from a recipe.
    ///
    /// # Errors
    /// A recipe that says two things about one entry, or the file system's.
    pub fn fill(&self, entries: &[Entry]) -> Result<()> {
        for entry in entries {
            self.make(entry)
                .with_context(|| format!("context entry {}", entry.path))?;
        }
        // A directory's time and mode are set when nothing is put into it any more.
        for entry in entries.iter().rev().filter(|entry| entry.path.ends_with('/')) {
            finish(&self.dir.join(&entry.path), entry.mode(0o755)?)?;
        }
        Ok(())
    }

    fn make(&self, entry: &Entry) -> Result<()> {
        let target = self.dir.join(&entry.path);
        if entry.path.ends_with('/') {
            return self.parents(&target.join("x"));
        }
        self.parents(&target)?;
        if let Some(link) = &entry.link {
            return Ok(symlink(link, &target)?);
        }
        if let Some(hard) = &entry.hard {
            return Ok(fs::hard_link(self.dir.join(hard), &target)?);
        }
        if entry.socket {
            drop(std::os::unix::net::UnixListener::bind(&target)?);
            return finish(&target, entry.mode(0o755)?);
        }
        let content = match (&entry.text, entry.bytes, &entry.archive) {
            (Some(text), None, None) => text.clone().into_bytes(),
            (None, Some(count), None) => noise(count),
            (None, None, Some(inner)) => archive(entry, inner)?,
            (None, None, None) => Vec::new(),
            _ => bail!("more than one content"),
        };
        fs::write(&target, content)?;
        finish(&target, entry.mode(0o644)?)
    }

    fn parents(&self, target: &Path) -> Result<()> {
        let parent = target.parent().context("an entry has a parent")?;
        for dir in parent
            .ancestors()
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .filter(|d| d.starts_with(&self.dir))
        {
            if !dir.exists() {
                fs::create_dir(dir)?;
                finish(dir, 0o755)?;
            }
        }
        Ok(())
    }
}

/// Mode and time, so that neither umask nor clock has a say.
fn finish(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if let Ok(file) = fs::File::open(path) {
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH))?;
    }
    Ok(())
}

fn archive(entry: &Entry, inner: &[Entry]) -> Result<Vec<u8>> {
    let mut layer = LayerBuilder::new();
    for item in inner {
        let path = item.path.as_str();
        let owner = |mode| Attributes::mode(mode).owner(item.uid, item.gid);
        layer = if path.ends_with('/') {
            layer.dir(path, owner(item.mode(0o755)?))
        } else if let Some(link) = &item.link {
            layer.symlink(path, link)
        } else if let Some(hard) = &item.hard {
            layer.hard_link(path, hard)
        } else {
            layer.file(
                path,
                owner(item.mode(0o644)?),
                item.text.as_deref().unwrap_or_default().as_bytes(),
            )
        };
    }
    compress(
        layer.finish(),
        entry.compression.as_deref().unwrap_or(&entry.path),
    )
}

/// `bytes` compressed by gzip.
#[must_use]
pub fn gzipped(bytes: &[u8]) -> Vec<u8> {
    compress(bytes.to_vec(), "gz").expect("memory takes it")
}

/// `bytes` compressed as a name with this end says: `gz`, `bz2`, `xz` or `zst`.
#[must_use]
pub fn compressed(bytes: &[u8], end: &str) -> Vec<u8> {
    compress(bytes.to_vec(), end).expect("memory takes it")
}

fn compress(tar: Vec<u8>, name: &str) -> Result<Vec<u8>> {
    let end = name.rsplit('.').next().unwrap_or(name);
    Ok(match end {
        "gz" | "tgz" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&tar)?;
            encoder.finish()?
        }
        "bz2" => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(&tar)?;
            encoder.finish()?
        }
        "xz" => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(&tar)?;
            encoder.finish()?
        }
        "zst" => zstd::encode_all(tar.as_slice(), 1)?,
        _ => tar,
    })
}

/// Bytes that look random and are always the same.
#[must_use]
pub fn noise(count: u64) -> Vec<u8> {
    crate::noise::noise(usize::try_from(count).unwrap_or(usize::MAX), 0)
}
