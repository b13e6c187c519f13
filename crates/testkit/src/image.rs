//! Reads images: a layout directory or archive, its manifests and configs, and the files its layers add up to.
//!
//! Independent of the product's own reader on purpose, and strict: what a registry or runtime could stumble over is an
//! error here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::facts::{Content, FileFacts, Kind};

/// An OCI layout that was written by somebody.
#[derive(Debug)]
pub struct OciLayout {
    dir: PathBuf,
    /// Holds the files when the layout was an archive.
    unpacked: Option<Arc<tempfile::TempDir>>,
}

impl OciLayout {
    /// Opens a layout directory, or an archive of one.
    ///
    /// # Errors
    /// The file system's, or an archive with entries that no layout has.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self {
                dir: path.to_owned(),
                unpacked: None,
            });
        }
        let unpacked = tempfile::tempdir()?;
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let mut archive = tar::Archive::new(BufReader::new(file));
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = entry.path()?.into_owned();
            ensure!(
                name.components()
                    .all(|c| matches!(c, std::path::Component::Normal(_) | std::path::Component::CurDir)),
                "layout archive has the entry {}",
                name.display()
            );
            let target = unpacked.path().join(&name);
            match entry.header().entry_type() {
                tar::EntryType::Directory => fs::create_dir_all(&target)?,
                tar::EntryType::Regular => {
                    fs::create_dir_all(target.parent().context("an entry has a parent")?)?;
                    std::io::copy(&mut entry, &mut File::create(&target)?)?;
                }
                other => bail!("layout archive has a {other:?} entry {}", name.display()),
            }
        }
        Ok(Self {
            dir: unpacked.path().to_owned(),
            unpacked: Some(Arc::new(unpacked)),
        })
    }

    /// Where the files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `index.json`.
    ///
    /// # Errors
    /// Absent or not JSON.
    pub fn index(&self) -> Result<Value> {
        read_json(&self.dir.join("index.json"))
    }

    /// Path of a blob by its `sha256:…` digest.
    ///
    /// # Errors
    /// Not a SHA-256 digest.
    pub fn blob(&self, digest: &str) -> Result<PathBuf> {
        let hex = digest
            .strip_prefix("sha256:")
            .with_context(|| format!("digest {digest:?}"))?;
        ensure!(
            hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()),
            "digest {digest:?}"
        );
        Ok(self.dir.join("blobs/sha256").join(hex))
    }

    /// Every image, nested indexes followed, attestations left out.
    ///
    /// # Errors
    /// A document that is missing or malformed.
    pub fn images(&self) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        self.collect(&self.index()?, &mut images)?;
        Ok(images)
    }

    fn collect(&self, index: &Value, images: &mut Vec<Image>) -> Result<()> {
        for descriptor in index["manifests"].as_array().context("index without manifests")? {
            if descriptor["annotations"]["vnd.docker.reference.type"] == "attestation-manifest" {
                continue;
            }
            let digest = descriptor["digest"]
                .as_str()
                .context("descriptor without digest")?;
            let document = read_json(&self.blob(digest)?)?;
            if document.get("manifests").is_some() {
                self.collect(&document, images)?;
            } else {
                images.push(Image::read(self, descriptor.clone(), document)?);
            }
        }
        Ok(())
    }

    /// The only image.
    ///
    /// # Errors
    /// None, or several different ones.
    pub fn image(&self) -> Result<Image> {
        let mut images = self.images()?;
        let first = images
            .first()
            .context("layout without an image")?
            .manifest_digest
            .clone();
        ensure!(
            images.iter().all(|image| image.manifest_digest == first),
            "layout with {} different images",
            images.len()
        );
        Ok(images.swap_remove(0))
    }
}

/// One image of a layout.
#[derive(Debug, Clone)]
pub struct Image {
    /// `sha256:…` of the manifest.
    pub manifest_digest: String,
    /// The descriptor that led here.
    pub descriptor: Value,
    /// The manifest.
    pub manifest: Value,
    /// The config document.
    pub config: Value,
    layers: Vec<PathBuf>,
    #[expect(
        dead_code,
        reason = "keeps the files of an unpacked archive for as long as they may be read"
    )]
    unpacked: Option<Arc<tempfile::TempDir>>,
}

impl Image {
    fn read(layout: &OciLayout, descriptor: Value, manifest: Value) -> Result<Self> {
        let digest = manifest["config"]["digest"]
            .as_str()
            .context("manifest without config")?;
        let config = read_json(&layout.blob(digest)?)?;
        let mut layers = Vec::new();
        // BuildKit writes null for an image without layers; whether that is right is the validator's business.
        for layer in manifest["layers"].as_array().into_iter().flatten() {
            layers.push(layout.blob(layer["digest"].as_str().context("layer without digest")?)?);
        }
        let manifest_digest = descriptor["digest"].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            manifest_digest,
            descriptor,
            manifest,
            config,
            layers,
            unpacked: layout.unpacked.clone(),
        })
    }

    /// How many layers.
    #[must_use]
    pub fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// The uncompressed archive of a layer.
    ///
    /// # Errors
    /// The file system's, or a damaged stream.
    pub fn layer_tar(&self, index: usize) -> Result<Vec<u8>> {
        let path = self.layers.get(index).with_context(|| format!("layer {index}"))?;
        decompressed(&fs::read(path).with_context(|| format!("read layer {index}"))?)
    }

    /// The entries of a layer in the archive's order.
    ///
    /// # Errors
    /// Those of [`Image::layer_tar`], or a malformed archive.
    pub fn layer_entries(&self, index: usize) -> Result<Vec<(String, FileFacts)>> {
        entries(&self.layer_tar(index)?)
    }

    /// All files: the layers put on top of each other, whiteouts obeyed.
    ///
    /// # Errors
    /// Those of [`Image::layer_entries`].
    pub fn files(&self) -> Result<Files> {
        let mut files = Files::default();
        for index in 0..self.layer_count() {
            files.apply(self.layer_entries(index)?)?;
        }
        Ok(files)
    }

    /// The `config` member of the config.
    #[must_use]
    pub fn run_config(&self) -> &Value {
        &self.config["config"]
    }

    /// Environment as a map.
    #[must_use]
    pub fn env(&self) -> BTreeMap<String, String> {
        let list = self.run_config()["Env"].as_array().cloned().unwrap_or_default();
        list.iter()
            .filter_map(Value::as_str)
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// Compressed size of all layers, bytes, as the manifest says.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let layers = self.manifest["layers"].as_array().cloned().unwrap_or_default();
        layers.iter().filter_map(|layer| layer["size"].as_u64()).sum()
    }
}

/// A flattened root file system.
#[derive(Debug, Clone, Default)]
pub struct Files {
    tree: BTreeMap<String, (FileFacts, usize)>,
    inodes: usize,
}

impl Files {
    /// Puts one layer on top.
    ///
    /// # Errors
    /// A hard link to nothing.
    pub fn apply(&mut self, entries: Vec<(String, FileFacts)>) -> Result<()> {
        // Whiteouts speak of what lies below, never of this layer's own entries, wherever they stand in the archive.
        for (path, _) in &entries {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let below = |name: &str| {
                if parent.is_empty() {
                    name.to_owned()
                } else {
                    format!("{parent}/{name}")
                }
            };
            if name == ".wh..wh..opq" {
                self.remove_below(parent);
            } else if let Some(hidden) = name.strip_prefix(".wh.") {
                self.remove(&below(hidden));
            }
        }
        for (path, facts) in entries {
            if path
                .rsplit('/')
                .next()
                .is_some_and(|name| name.starts_with(".wh."))
                || path.is_empty()
            {
                continue;
            }
            if let Kind::HardLink(target) = &facts.kind {
                let linked = self
                    .tree
                    .get(target)
                    .with_context(|| format!("{path} links to {target}, which is not there"))?;
                let linked = linked.clone();
                self.remove(&path);
                self.tree.insert(path, linked);
                continue;
            }
            if facts.kind != Kind::Dir || self.tree.get(&path).is_some_and(|(old, _)| old.kind != Kind::Dir) {
                self.remove(&path);
            }
            self.inodes += 1;
            self.tree.insert(path, (facts, self.inodes));
        }
        Ok(())
    }

    fn remove(&mut self, path: &str) {
        self.tree.remove(path);
        self.remove_below(path);
    }

    fn remove_below(&mut self, path: &str) {
        if path.is_empty() {
            self.tree.clear();
            return;
        }
        // A look at the names below alone: a large layer asks this once for each of its files.
        let prefix = format!("{path}/");
        let below = self.tree.range(prefix.clone()..).map(|(key, _)| key);
        let gone: Vec<String> = below
            .take_while(|key| key.starts_with(&prefix))
            .cloned()
            .collect();
        for key in gone {
            self.tree.remove(&key);
        }
    }

    /// Facts of a path, without a leading slash.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&FileFacts> {
        self.tree.get(path).map(|(facts, _)| facts)
    }

    /// Content of a short text file.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        match &self.get(path)?.kind {
            Kind::File(content) => content.text.as_deref(),
            _ => None,
        }
    }

    /// Paths in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.tree.keys().map(String::as_str)
    }

    /// Groups of names that are one file.
    #[must_use]
    pub fn hard_links(&self) -> Vec<BTreeSet<String>> {
        let mut groups: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for (path, (_, inode)) in &self.tree {
            groups.entry(*inode).or_default().insert(path.clone());
        }
        groups.into_values().filter(|group| group.len() > 1).collect()
    }

    /// One line per path in the form of [`FileFacts`]; further names of one file point at the first.
    #[must_use]
    pub fn table(&self) -> BTreeMap<String, String> {
        let mut first: BTreeMap<usize, &str> = BTreeMap::new();
        let mut table = BTreeMap::new();
        for (path, (facts, inode)) in &self.tree {
            let line = match first.get(inode) {
                Some(name) => format!("{facts} = {name}"),
                None => facts.to_string(),
            };
            first.entry(*inode).or_insert(path);
            table.insert(path.clone(), line);
        }
        table
    }
}

/// Entries of an uncompressed archive, names cleaned of `./` and trailing slashes.
///
/// # Errors
/// A malformed archive or an entry type that layers do not have.
pub fn entries(tar: &[u8]) -> Result<Vec<(String, FileFacts)>> {
    let mut archive = tar::Archive::new(tar);
    let mut list = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = clean(&String::from_utf8_lossy(&entry.path_bytes()));
        let mut xattrs = BTreeMap::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                if let Some(name) = extension.key()?.strip_prefix("SCHILY.xattr.") {
                    xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
                }
            }
        }
        let link = entry
            .link_name_bytes()
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default();
        let header = entry.header().clone();
        let device = (
            header.device_major().ok().flatten().unwrap_or(0),
            header.device_minor().ok().flatten().unwrap_or(0),
        );
        let kind = match header.entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                Kind::File(Content::of(&content))
            }
            tar::EntryType::Directory => Kind::Dir,
            tar::EntryType::Symlink => Kind::Symlink(link),
            tar::EntryType::Link => Kind::HardLink(clean(&link)),
            tar::EntryType::Char => Kind::Char(device.0, device.1),
            tar::EntryType::Block => Kind::Block(device.0, device.1),
            tar::EntryType::Fifo => Kind::Fifo,
            other => bail!("{path}: entry type {other:?}"),
        };
        let facts = FileFacts {
            kind,
            mode: header.mode()? & 0o7777,
            uid: header.uid()?,
            gid: header.gid()?,
            xattrs,
            mtime: header.mtime()?,
        };
        list.push((path, facts));
    }
    Ok(list)
}

/// The name as a path from the root: no leading `./`, no trailing slash, the root itself empty.
fn clean(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_end_matches('/');
    if path == "." {
        String::new()
    } else {
        path.to_owned()
    }
}

/// Bytes after removing gzip or zstd, found by their magic numbers.
///
/// # Errors
/// A damaged stream.
pub fn decompressed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::read::MultiGzDecoder::new(bytes)
            .read_to_end(&mut out)
            .context("gunzip")?;
    } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        zstd::stream::read::Decoder::new(bytes)?
            .read_to_end(&mut out)
            .context("unzstd")?;
    } else {
        out.extend_from_slice(bytes);
    }
    Ok(out)
}

pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Attributes, ImageBuilder, LayerBuilder};

    #[test]
    fn layers_add_up_with_whiteouts_opaque_directories_and_hard_links() {
        let dir = tempfile::tempdir().unwrap();
        let lower = LayerBuilder::new()
            .dir("a", Attributes::mode(0o755))
            .file("a/keep", Attributes::mode(0o644), b"1")
            .file("a/gone", Attributes::mode(0o644), b"2")
            .dir("b", Attributes::mode(0o755))
            .file("b/hidden", Attributes::mode(0o644), b"3")
            .hard_link("a/second", "a/keep")
            .file_with_xattrs(
                "cap",
                Attributes::mode(0o755),
                b"",
                &[("security.capability", b"\x01\0")],
            );
        let upper = LayerBuilder::new()
            .file("b/new", Attributes::mode(0o600).owner(7, 8), b"4")
            .file("b/.wh..wh..opq", Attributes::mode(0), b"")
            .whiteout("a/gone")
            .file(".profile", Attributes::mode(0o644), b"");
        ImageBuilder::new(serde_json::json!({}))
            .layer(lower.finish(), "lower")
            .layer(upper.finish(), "upper")
            .write(dir.path(), "t")
            .unwrap();
        let image = OciLayout::open(dir.path()).unwrap().image().unwrap();
        let files = image.files().unwrap();
        let paths: Vec<&str> = files.paths().collect();
        assert_eq!(
            paths,
            [".profile", "a", "a/keep", "a/second", "b", "b/new", "cap"]
        );
        assert_eq!(files.get("b/new").unwrap().to_string(), r#"f 0600 7:8 "4""#);
        assert_eq!(
            files.table()["cap"],
            r#"f 0755 0:0 "" [security.capability=0100]"#
        );
        assert_eq!(files.hard_links().len(), 1);
        assert!(
            crate::validate::problems(&OciLayout::open(dir.path()).unwrap())
                .unwrap()
                .is_empty()
        );
    }
}
