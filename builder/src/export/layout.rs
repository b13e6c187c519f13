//! Image layouts as one tar: what `-o type=oci` and `type=docker` write. The entries are those of containerd's
//! archive exporter (`images/archive/exporter.go`): sorted, owned by nobody, no times, so equal images are equal files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rbuild_oci::{
    Descriptor, Digest, Document, DocumentError, Platform, Reference, go_json, media_type, parse_document,
};
use serde::Serialize;
use tar::{EntryType, Header};

use super::archive_out::ArchiveOut;
use crate::stored;

/// What a tar consists of (POSIX.1-2017, pax, "ustar Interchange Format"), in bytes.
const TAR_BLOCK_BYTES: usize = 512;

/// An image that is complete: every document's bytes, and the layers' descriptors.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest's descriptor.
    pub manifest: Descriptor,
    /// The manifest.
    pub manifest_bytes: Vec<u8>,
    /// The config's descriptor.
    pub config: Descriptor,
    /// The config.
    pub config_bytes: Vec<u8>,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
}

/// What an exporter made: an image, or an index of several.
#[derive(Debug, Clone)]
pub struct Product {
    /// What names stand for: the manifest, or the index.
    pub top: Descriptor,
    /// The index, if there is one.
    pub index_bytes: Option<Vec<u8>>,
    /// The images, as the index lists them.
    pub images: Vec<Image>,
}

impl Product {
    /// One image.
    #[must_use]
    pub fn of_image(image: Image) -> Self {
        Self {
            top: image.manifest.clone(),
            index_bytes: None,
            images: vec![image],
        }
    }

    /// Manifests, configs and the index, each digest once.
    fn documents(&self) -> BTreeMap<String, &[u8]> {
        let index = self
            .index_bytes
            .as_deref()
            .map(|bytes| (blob_path(&self.top.digest), bytes));
        let images = self.images.iter().flat_map(|image| {
            [
                (blob_path(&image.config.digest), image.config_bytes.as_slice()),
                (blob_path(&image.manifest.digest), image.manifest_bytes.as_slice()),
            ]
        });
        images.chain(index).collect()
    }

    /// Layers, each digest once.
    fn layers(&self) -> BTreeMap<String, &Descriptor> {
        let layers = self.images.iter().flat_map(|image| &image.layers);
        layers.map(|layer| (blob_path(&layer.digest), layer)).collect()
    }

    /// Every blob once, and each behind those it names.
    pub(super) fn blobs(&self) -> Vec<&Descriptor> {
        let mut seen = BTreeSet::new();
        let layers = self.images.iter().flat_map(|image| &image.layers);
        let configs = self.images.iter().map(|image| &image.config);
        let manifests = self.images.iter().map(|image| &image.manifest);
        let all = layers.chain(configs).chain(manifests).chain([&self.top]);
        all.filter(|blob| seen.insert(&blob.digest)).collect()
    }

    /// Bytes of everything.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let layers: u64 = self.layers().values().map(|layer| layer.size).sum();
        let documents: usize = self.documents().values().map(|bytes| bytes.len()).sum();
        layers + documents as u64
    }
}

/// An image, and the names it has in a layout.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// The image.
    pub product: &'a Product,
    /// Its names; none is allowed.
    pub names: &'a [Reference],
}

/// Which tool a layout is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// An OCI layout and nothing else.
    Oci,
    /// An OCI layout that `docker load` of any version reads.
    Docker,
}

/// Why a layout could not be written.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A blob the image needs could not be read.
    #[error("blob {digest}")]
    Blob {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive could not be written.
    #[error("write archive")]
    Write(#[source] io::Error),
    /// A document could not be encoded.
    #[error("encode {0}")]
    Encode(&'static str, #[source] serde_json::Error),
}

/// Annotation with the time an image was made.
pub const CREATED: &str = "org.opencontainers.image.created";

const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

#[derive(Serialize)]
struct IndexFile<'a> {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType")]
    media_type: &'static str,
    manifests: &'a [Descriptor],
}

#[derive(Serialize)]
struct DockerManifest {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    repo_tags: Vec<String>,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

/// The entries of `index.json` for `manifest` under `names`; `created` is RFC 3339.
fn entries(manifest: &Descriptor, names: &[Reference], created: &str) -> Vec<Descriptor> {
    let entry = |name: Option<&Reference>| {
        let mut entry = manifest.clone();
        entry
            .annotations
            .entry(CREATED.to_owned())
            .or_insert_with(|| created.to_owned());
        if let Some(name) = name {
            entry
                .annotations
                .insert("io.containerd.image.name".to_owned(), name.to_string());
            if let Some(tag) = name.tag() {
                entry
                    .annotations
                    .insert("org.opencontainers.image.ref.name".to_owned(), tag.to_owned());
            }
        }
        entry
    };
    if names.is_empty() {
        vec![entry(None)]
    } else {
        names.iter().map(|name| entry(Some(name))).collect()
    }
}

fn index_file(manifests: &[Descriptor]) -> Result<Vec<u8>, LayoutError> {
    let file = IndexFile {
        schema_version: 2,
        media_type: media_type::OCI_INDEX,
        manifests,
    };
    go_json::to_vec(&file).map_err(|e| LayoutError::Encode("index.json", e))
}

/// Writes `images` as one tar. `blob` opens a layer; those of `omit` are left out.
///
/// # Errors
/// [`LayoutError`].
pub fn write_tar(
    images: &[Named<'_>],
    flavor: Flavor,
    created: &str,
    omit: &BTreeSet<Digest>,
    blob: impl Fn(&Digest) -> io::Result<File>,
    out: &mut dyn ArchiveOut,
) -> Result<(), LayoutError> {
    let mut small: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut layers: BTreeMap<String, &Descriptor> = BTreeMap::new();
    let mut index = Vec::new();
    for Named { product, names } in images {
        index.extend(entries(&product.top, names, created));
        let documents = product.documents().into_iter();
        small.extend(documents.map(|(path, bytes)| (path, bytes.to_vec())));
        layers.extend(product.layers());
    }
    layers.retain(|_, layer| !omit.contains(&layer.digest));
    small.insert("oci-layout".to_owned(), OCI_LAYOUT.to_vec());
    small.insert("index.json".to_owned(), index_file(&index)?);
    if flavor == Flavor::Docker {
        small.insert("manifest.json".to_owned(), docker_manifest(images)?);
    }
    let mut dirs: Vec<String> = vec!["blobs/".to_owned()];
    let paths: Vec<&String> = small.keys().chain(layers.keys()).collect();
    for path in &paths {
        if let Some((dir, _)) = path.rsplit_once('/') {
            dirs.push(format!("{dir}/"));
        }
    }
    let mut all: Vec<String> = dirs.into_iter().chain(paths.into_iter().cloned()).collect();
    all.sort();
    all.dedup();
    for path in all {
        if let Some(bytes) = small.get(&path) {
            append(out, &path, bytes).map_err(LayoutError::Write)?;
        } else if let Some(layer) = layers.get(&path) {
            let fail = |source| LayoutError::Blob {
                digest: layer.digest.clone(),
                source,
            };
            let file = blob(&layer.digest).map_err(fail)?;
            append_blob(out, &path, &file, layer.size).map_err(fail)?;
        } else {
            append(out, &path, &[]).map_err(LayoutError::Write)?;
        }
    }
    let end = [0; 2 * TAR_BLOCK_BYTES];
    out.write_all(&end)
        .and_then(|()| out.flush())
        .map_err(LayoutError::Write)
}

/// Why a layout directory could not be written.
#[derive(Debug, thiserror::Error)]
pub enum LayoutDirError {
    /// The kernel refused.
    #[error("write {path:?}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `index.json` is there, and is no index.
    #[error("{path:?} is not an OCI index")]
    Index {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// A document could not be encoded.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// Adds `product` to the layout directory `dir`, made if it is missing. Entries of the same names are replaced, others
/// stay; blobs that are there are not written again. `index.json` is replaced last, whole.
///
/// # Errors
/// [`LayoutDirError`].
pub(crate) fn write_dir(
    product: &Product,
    names: &[Reference],
    created: &str,
    blob: impl Fn(&Digest) -> io::Result<File>,
    dir: &Path,
) -> Result<(), LayoutDirError> {
    let put = |name: &str, content: &mut dyn io::Read| put_file(dir, name, content);
    put("oci-layout", &mut &*OCI_LAYOUT)?;
    for (path, mut bytes) in product.documents() {
        put(&path, &mut bytes)?;
    }
    for (path, layer) in product.layers() {
        if is_there(dir, &path, layer.size) {
            continue;
        }
        let mut file = blob(&layer.digest).map_err(|source| LayoutError::Blob {
            digest: layer.digest.clone(),
            source,
        })?;
        put(&path, &mut file)?;
    }
    let new = entries(&product.top, names, created);
    let name_of = |entry: &Descriptor| entry.annotations.get("io.containerd.image.name").cloned();
    let mut manifests = read_index(dir)?;
    manifests.retain(|old| {
        let renamed =
            name_of(old).is_some_and(|name| new.iter().any(|entry| name_of(entry).as_ref() == Some(&name)));
        let same = new
            .iter()
            .any(|entry| entry.digest == old.digest && name_of(old).is_none());
        !renamed && !same
    });
    manifests.extend(new);
    put("index.json", &mut index_file(&manifests)?.as_slice())
}

/// Adds a blob to the layout directory `dir`, unless it is there.
///
/// # Errors
/// [`LayoutDirError`].
pub(crate) fn put_layout_blob(
    dir: &Path,
    descriptor: &Descriptor,
    content: &mut dyn io::Read,
) -> Result<(), LayoutDirError> {
    let path = blob_path(&descriptor.digest);
    if is_there(dir, &path, descriptor.size) {
        return Ok(());
    }
    put_file(dir, &path, content)
}

/// Adds an entry to `index.json` of the layout directory `dir`, made if it is missing, in the place of the one that has
/// its name, or its tag where neither has a name.
///
/// # Errors
/// [`LayoutDirError`].
pub fn put_layout_entry(dir: &Path, entry: Descriptor) -> Result<(), LayoutDirError> {
    const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
    let name_of = |entry: &Descriptor| {
        NAMES.iter().find_map(|key| {
            entry
                .annotations
                .get_key_value(*key)
                .map(|(key, name)| (key.clone(), name.clone()))
        })
    };
    put_file(dir, "oci-layout", &mut &*OCI_LAYOUT)?;
    let mut manifests = read_index(dir)?;
    manifests.retain(|old| name_of(old) != name_of(&entry));
    manifests.push(entry);
    put_file(dir, "index.json", &mut index_file(&manifests)?.as_slice())
}

fn is_there(dir: &Path, path: &str, size: u64) -> bool {
    std::fs::metadata(dir.join(path)).is_ok_and(|found| found.len() == size)
}

/// Writes a file whole under its name.
fn put_file(dir: &Path, name: &str, content: &mut dyn io::Read) -> Result<(), LayoutDirError> {
    let path = dir.join(name);
    let fail = |source| LayoutDirError::Io {
        path: path.clone(),
        source,
    };
    std::fs::create_dir_all(path.parent().unwrap_or(dir)).map_err(fail)?;
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    File::create(&partial)
        .and_then(|mut file| io::copy(content, &mut file))
        .map_err(fail)?;
    std::fs::rename(&partial, &path).map_err(fail)
}

/// The entries of `index.json`; none if there is no such file.
pub(crate) fn read_index(dir: &Path) -> Result<Vec<Descriptor>, LayoutDirError> {
    let path = dir.join("index.json");
    match std::fs::read(&path) {
        Ok(bytes) => match parse_document(&bytes, Some(media_type::OCI_INDEX)) {
            Ok(Document::Index(index)) => Ok(index.manifests),
            Ok(Document::Manifest(_)) => Ok(Vec::new()),
            Err(source) => Err(LayoutDirError::Index { path, source }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(LayoutDirError::Io { path, source }),
    }
}

/// Path of a blob in a layout.
#[must_use]
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// `manifest.json`, which knows one platform only: of an index, what runs on this machine is listed.
fn docker_manifest(images: &[Named<'_>]) -> Result<Vec<u8>, LayoutError> {
    let host = Platform::host();
    let entry = |Named { product, names }: &Named<'_>| {
        let image = stored::for_platform(product, &host)?;
        let layers = image.layers.iter().map(|layer| blob_path(&layer.digest));
        Some(DockerManifest {
            config: blob_path(&image.config.digest),
            repo_tags: names.iter().map(Reference::familiar).collect(),
            layers: layers.collect(),
        })
    };
    let entries: Vec<DockerManifest> = images.iter().filter_map(entry).collect();
    go_json::to_vec(&entries).map_err(|e| LayoutError::Encode("manifest.json", e))
}

/// Adds a directory, which a path that ends with a slash is, or a file.
fn append(out: &mut dyn ArchiveOut, path: &str, content: &[u8]) -> io::Result<()> {
    let size = content.len() as u64;
    out.write_all(header(path, size)?.as_bytes())?;
    out.write_all(content)?;
    pad(out, size)
}

fn append_blob(out: &mut dyn ArchiveOut, path: &str, blob: &File, size: u64) -> io::Result<()> {
    out.write_all(header(path, size)?.as_bytes())?;
    // The length is in the header already: a file that has another one would shift everything behind it.
    if out.append_file(blob, size)? != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    pad(out, size)
}

fn header(path: &str, size: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(path)?;
    let dir = path.ends_with('/');
    header.set_entry_type(if dir {
        EntryType::Directory
    } else {
        EntryType::Regular
    });
    header.set_mode(if dir { 0o755 } else { 0o444 });
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(header)
}

/// Fills the last block of a file.
fn pad(out: &mut dyn ArchiveOut, size: u64) -> io::Result<()> {
    let used = usize::try_from(size % TAR_BLOCK_BYTES as u64).unwrap_or_default();
    match used {
        0 => Ok(()),
        _ => out.write_all(&[0; TAR_BLOCK_BYTES][used..]),
    }
}
