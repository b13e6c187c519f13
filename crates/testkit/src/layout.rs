//! Writes images for tests: layers entry by entry, a config as given, an OCI layout directory around them.
//!
//! It writes what it is told, also what no honest tool would: hostile archives are made here.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::facts::{hex, sha256_hex};

/// Time of every entry that names none: 2024-01-01T00:00:00Z.
pub const EPOCH: u64 = 1_704_067_200;

/// One layer's archive, built in memory.
#[derive(Debug, Default)]
pub struct LayerBuilder {
    bytes: Vec<u8>,
}

/// Owner, permissions and time of an entry.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Modification time, seconds.
    pub mtime: u64,
}

impl Attributes {
    /// Owned by root, at the fixed time.
    #[must_use]
    pub fn mode(mode: u32) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            mtime: EPOCH,
        }
    }

    /// The same with an owner.
    #[must_use]
    pub fn owner(self, uid: u64, gid: u64) -> Self {
        Self { uid, gid, ..self }
    }
}

impl LayerBuilder {
    /// An empty layer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a regular file.
    #[must_use]
    pub fn file(self, path: &str, attributes: Attributes, content: &[u8]) -> Self {
        self.raw(
            path,
            tar::EntryType::Regular,
            attributes,
            "",
            content,
            (0, 0),
            &[],
        )
    }

    /// Adds a regular file with extended attributes.
    #[must_use]
    pub fn file_with_xattrs(
        self,
        path: &str,
        attributes: Attributes,
        content: &[u8],
        xattrs: &[(&str, &[u8])],
    ) -> Self {
        self.raw(
            path,
            tar::EntryType::Regular,
            attributes,
            "",
            content,
            (0, 0),
            xattrs,
        )
    }

    /// Adds a directory; the trailing slash is put there.
    #[must_use]
    pub fn dir(self, path: &str, attributes: Attributes) -> Self {
        let path = format!("{}/", path.trim_end_matches('/'));
        self.raw(&path, tar::EntryType::Directory, attributes, "", &[], (0, 0), &[])
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(
            path,
            tar::EntryType::Symlink,
            Attributes::mode(0o777),
            target,
            &[],
            (0, 0),
            &[],
        )
    }

    /// Adds a hard link to an earlier entry.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.raw(
            path,
            tar::EntryType::Link,
            Attributes::mode(0o644),
            target,
            &[],
            (0, 0),
            &[],
        )
    }

    /// Adds a character device.
    #[must_use]
    pub fn char_device(self, path: &str, mode: u32, device: (u32, u32)) -> Self {
        self.raw(
            path,
            tar::EntryType::Char,
            Attributes::mode(mode),
            "",
            &[],
            device,
            &[],
        )
    }

    /// Adds a whiteout for `path`.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let (parent, name) = path
            .rsplit_once('/')
            .map_or(("", path), |(parent, name)| (parent, name));
        let slash = if parent.is_empty() { "" } else { "/" };
        self.file(&format!("{parent}{slash}.wh.{name}"), Attributes::mode(0), b"")
    }

    /// Adds an entry with every field as given, names unchecked.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "the fields of a tar header")]
    pub fn raw(
        mut self,
        path: &str,
        kind: tar::EntryType,
        attributes: Attributes,
        link: &str,
        content: &[u8],
        device: (u32, u32),
        xattrs: &[(&str, &[u8])],
    ) -> Self {
        let mut records = Vec::new();
        for (name, value) in xattrs {
            records.push(pax_record(&format!("SCHILY.xattr.{name}"), value));
        }
        if path.len() > 100 {
            records.push(pax_record("path", path.as_bytes()));
        }
        if link.len() > 100 {
            records.push(pax_record("linkpath", link.as_bytes()));
        }
        if !records.is_empty() {
            let body = records.concat();
            let pax = Attributes::mode(0o644);
            self.header(
                "PaxHeaders/x",
                tar::EntryType::XHeader,
                pax,
                "",
                body.len() as u64,
                (0, 0),
            );
            self.body(&body);
        }
        self.header(path, kind, attributes, link, content.len() as u64, device);
        self.body(content);
        self
    }

    fn header(
        &mut self,
        path: &str,
        kind: tar::EntryType,
        attributes: Attributes,
        link: &str,
        size_bytes: u64,
        device: (u32, u32),
    ) {
        let mut header = tar::Header::new_ustar();
        // The crate's own setters refuse `..` and absolute names; the fields are written directly.
        copy_truncated(&mut header.as_old_mut().name, path.as_bytes());
        copy_truncated(&mut header.as_old_mut().linkname, link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(attributes.mode);
        header.set_uid(attributes.uid);
        header.set_gid(attributes.gid);
        header.set_mtime(attributes.mtime);
        header.set_size(size_bytes);
        header
            .set_device_major(device.0)
            .expect("a ustar header has device numbers");
        header
            .set_device_minor(device.1)
            .expect("a ustar header has device numbers");
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
    }

    fn body(&mut self, content: &[u8]) {
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    /// Adds blocks of another archive as they are.
    #[must_use]
    pub fn blocks(mut self, other: &[u8]) -> Self {
        self.body(other);
        self
    }

    /// The archive without the two zero blocks at its end.
    #[must_use]
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }

    /// The archive, with the two zero blocks at its end.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

fn copy_truncated(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// One record of a PAX extended header: its own decimal length, a blank, `key=value`, a newline.
#[must_use]
pub fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() != rest.to_string().len() {
        length += 1;
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// Where the bytes of a layer's archive are.
#[derive(Debug)]
enum LayerSource {
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// Layers and the document that describes them.
#[derive(Debug)]
pub struct ImageBuilder {
    layers: Vec<LayerSource>,
    config: Value,
    history: Vec<String>,
}

impl ImageBuilder {
    /// An image without layers whose `config` member is `config`.
    #[must_use]
    pub fn new(config: Value) -> Self {
        Self {
            layers: Vec::new(),
            config,
            history: Vec::new(),
        }
    }

    /// Adds a layer archive and its history text.
    #[must_use]
    pub fn layer(mut self, tar: Vec<u8>, created_by: &str) -> Self {
        self.layers.push(LayerSource::Bytes(tar));
        self.history.push(created_by.to_owned());
        self
    }

    /// Adds a layer whose uncompressed archive is a file, for those too large to hold.
    #[must_use]
    pub fn layer_file(mut self, tar: PathBuf, created_by: &str) -> Self {
        self.layers.push(LayerSource::File(tar));
        self.history.push(created_by.to_owned());
        self
    }

    /// Writes the image into the layout at `dir` under `tag`; the layout may hold others already.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, dir: &Path, tag: &str) -> Result<WrittenImage> {
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for source in &self.layers {
            let (diff_id, descriptor) = match source {
                LayerSource::Bytes(tar) => put_layer(dir, tar.as_slice())?,
                LayerSource::File(path) => put_layer(dir, fs::File::open(path)?)?,
            };
            diff_ids.push(diff_id);
            layers.push(descriptor);
        }
        let created = "2024-01-01T00:00:00Z";
        let history: Vec<Value> = self
            .history
            .iter()
            .map(|text| json!({"created": created, "created_by": text}))
            .collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "created": created,
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        });
        let config = put(
            dir,
            &serde_json::to_vec(&config)?,
            "application/vnd.oci.image.config.v1+json",
        )?;
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": config,
            "layers": layers,
        });
        let mut manifest = put(dir, &serde_json::to_vec(&manifest)?, manifest_type)?;
        let digest = manifest["digest"]
            .as_str()
            .context("a digest was just written")?
            .to_owned();
        manifest["platform"] = json!({"architecture": architecture(), "os": "linux"});
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let index = dir.join("index.json");
        let mut manifests: Vec<Value> = match fs::read(&index) {
            Ok(bytes) => {
                let old: BTreeMap<String, Value> = serde_json::from_slice(&bytes)?;
                old.get("manifests")
                    .and_then(Value::as_array)
                    .cloned()
                    .unwrap_or_default()
            }
            Err(_) => Vec::new(),
        };
        manifests.retain(|m| m["annotations"]["org.opencontainers.image.ref.name"] != tag);
        manifests.push(manifest);
        let text = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        }))?;
        fs::write(index, text)?;
        Ok(WrittenImage {
            manifest_digest: digest,
        })
    }
}

/// What [`ImageBuilder::write`] made.
#[derive(Debug, Clone)]
pub struct WrittenImage {
    /// `sha256:…` of the manifest.
    pub manifest_digest: String,
}

/// Compresses an archive into the layout as it is read; its diff id and descriptor.
fn put_layer(dir: &Path, tar: impl Read) -> Result<(String, Value)> {
    let mut tar = Hashing::new(tar);
    let aside = tempfile::NamedTempFile::new_in(dir)?;
    let mut encoder = GzEncoder::new(Hashing::new(aside), Compression::fast());
    std::io::copy(&mut tar, &mut encoder)?;
    let compressed = encoder.finish()?;
    let (size, hex_name, aside) = (
        compressed.bytes,
        hex(&compressed.hash.finalize()),
        compressed.inner,
    );
    aside
        .as_file()
        .set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    aside.persist(dir.join("blobs/sha256").join(&hex_name))?;
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    let descriptor = json!({"mediaType": media_type, "digest": format!("sha256:{hex_name}"), "size": size});
    Ok((format!("sha256:{}", hex(&tar.hash.finalize())), descriptor))
}

/// Counts and hashes what passes.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.note(&buffer[..count]);
        Ok(count)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.note(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

fn put(dir: &Path, bytes: &[u8], media_type: &str) -> Result<Value> {
    let hex = sha256_hex(bytes);
    fs::write(dir.join("blobs/sha256").join(&hex), bytes).with_context(|| format!("write blob {hex}"))?;
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()}))
}

/// This machine's architecture in OCI's words.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
