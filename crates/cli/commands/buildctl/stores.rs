//! What a build by a server reads and writes of this machine's OCI layouts: contexts (`--oci-layout`), caches of type `local`, and
//! outputs with `tar=false` (`client/solve.go`). Owns the names under which a server finds them, and `index.json`, which is
//! written when the build is done.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use bollard_buildkit_proto::moby::buildkit::v1 as api;
use rbuild_builder::error::chain_text;
use rbuild_builder::export::layout::put_layout_entry;
use rbuild_builder::export::layout_reset::remove_unnamed;
use rbuild_builder::images::layout::LayoutRef;
use rbuild_oci::{Descriptor, Digest, Reference};
use rbuild_session::attach::Attachables;
use rbuild_ui::values::scalar::parse_bool;

use super::{build, through};
use crate::args::BuildArgs;
use crate::commands::CommandError;
use crate::env::Env;

/// The store that an image's layout is written into.
const EXPORT: &str = "export";
/// Keys of a server's answer.
const CACHE_MANIFEST: &str = "cache.manifest";
const IMAGE_DESCRIPTOR: &str = "containerimage.descriptor";
const IMAGE_NAME: &str = "image.name";
const NAME: &str = "io.containerd.image.name";
const TAG: &str = "org.opencontainers.image.ref.name";
/// The tag of what has no other.
const LATEST: &str = "latest";

/// Layouts that take part in a build.
#[derive(Debug, Default)]
pub(super) struct Stores {
    /// Directories by the ids of their stores, and whether they are written.
    attached: Vec<(String, PathBuf, bool)>,
    /// Caches that are written, with their tags.
    caches: Vec<(PathBuf, String)>,
    /// Those of them that keep nothing else.
    reset: BTreeSet<PathBuf>,
    /// Where an image goes.
    layout: Option<PathBuf>,
}

impl Stores {
    /// Contexts.
    pub(super) fn of(args: &BuildArgs) -> Result<Self, CommandError> {
        let mut stores = Self::default();
        for (name, dir) in build::pairs("--oci-layout", &args.oci_layout)? {
            let path = PathBuf::from(dir);
            if !path.join("index.json").is_file() {
                return Err(CommandError::failed(&format!(
                    "--oci-layout {name}: {path:?} is not an OCI layout"
                )));
            }
            stores.attached.push((format!("oci:{name}"), path, false));
        }
        Ok(stores)
    }

    /// Caches to be written, as the server is told of them.
    pub(super) fn exports(&mut self, texts: &[String]) -> Result<Vec<api::CacheOptionsEntry>, CommandError> {
        let mut entries = Vec::new();
        for text in texts {
            let (kind, attrs) = through::typed("--export-cache", text)?;
            if kind == "local" {
                let dest = attrs.get("dest").filter(|dest| !dest.is_empty());
                let dest = dest.ok_or_else(|| CommandError::failed(&"local cache exporter requires dest"))?;
                let path = made(dest)?;
                let reset = attrs.get("reset").map(|text| {
                    parse_bool(text).ok_or_else(|| {
                        CommandError::failed(&format!(
                            "failed to parse reset attribute: {text:?} is not a bool"
                        ))
                    })
                });
                if reset.transpose()? == Some(true) {
                    self.reset.insert(path.clone());
                }
                let tag = attrs.get("tag").map_or(LATEST, String::as_str).to_owned();
                self.attached.push((format!("local:{dest}"), path.clone(), true));
                self.caches.push((path, tag));
            }
            entries.push(api::CacheOptionsEntry { r#type: kind, attrs });
        }
        Ok(entries)
    }

    /// Caches to be read, as the server is told of them. One that is not there is left out with a warning.
    pub(super) fn imports(
        &mut self,
        texts: &[String],
        env: &mut Env,
    ) -> Result<Vec<api::CacheOptionsEntry>, CommandError> {
        let mut entries = Vec::new();
        for text in texts {
            let (kind, mut attrs) = through::typed("--import-cache", text)?;
            if kind == "local" {
                let src = attrs.get("src").filter(|src| !src.is_empty()).cloned();
                let src = src.ok_or_else(|| CommandError::failed(&"local cache importer requires src"))?;
                let digest = match attrs.get("digest") {
                    Some(text) => Some(Digest::parse(text).map_err(|error| CommandError::failed(&error))?),
                    None => None,
                };
                let named = LayoutRef {
                    dir: PathBuf::from(&src),
                    tag: Some(attrs.get("tag").map_or(LATEST, String::as_str).to_owned()),
                    digest: None,
                };
                let found = digest.map_or_else(|| named.resolve().map(|entry| entry.digest), Ok);
                match found {
                    Ok(digest) => attrs.insert("digest".to_owned(), digest.to_string()),
                    Err(error) => {
                        let why = chain_text(&error);
                        writeln!(env.stderr, "WARNING: local cache import at {src} skipped: {why}")?;
                        continue;
                    }
                };
                self.attached.push((format!("local:{src}"), src.into(), false));
            }
            entries.push(api::CacheOptionsEntry { r#type: kind, attrs });
        }
        Ok(entries)
    }

    /// The layout that an image is written into.
    pub(super) fn output(&mut self, dest: &str) -> Result<(), CommandError> {
        if self.layout.is_some() {
            return Err(CommandError::failed(&format!(
                "oci store key {EXPORT:?} already exists"
            )));
        }
        let path = made(dest)?;
        self.attached.push((EXPORT.to_owned(), path.clone(), true));
        self.layout = Some(path);
        Ok(())
    }

    /// Gives a server all of them.
    pub(super) fn attach(&self, attachables: Attachables) -> Attachables {
        self.attached
            .iter()
            .fold(attachables, |all, (id, path, writable)| {
                all.store(id, path.clone(), *writable)
            })
    }

    /// Names in every `index.json` what the server says it wrote.
    pub(super) fn finish(&self, answer: &HashMap<String, String>) -> Result<(), CommandError> {
        let unfit = |key: &str| CommandError::failed(&format!("the server's {key} is no descriptor"));
        if let Some(text) = answer.get(CACHE_MANIFEST).filter(|_| !self.caches.is_empty()) {
            let entry: Descriptor = serde_json::from_str(text).map_err(|_error| unfit(CACHE_MANIFEST))?;
            for (path, tag) in &self.caches {
                name(path, &entry, &[(TAG, tag)])?;
            }
            for path in &self.reset {
                remove_unnamed(path).map_err(|error| {
                    CommandError::failed(&format!(
                        "cannot reset the cache directory: {}",
                        chain_text(&error)
                    ))
                })?;
            }
        }
        let (Some(path), Some(text)) = (&self.layout, answer.get(IMAGE_DESCRIPTOR)) else {
            return Ok(());
        };
        let decoded = base64::engine::general_purpose::STANDARD.decode(text).ok();
        let entry: Option<Descriptor> = decoded.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let entry = entry.ok_or_else(|| unfit(IMAGE_DESCRIPTOR))?;
        let names = answer.get(IMAGE_NAME).filter(|names| !names.is_empty());
        let Some(names) = names else {
            return name(path, &entry, &[(TAG, LATEST)]);
        };
        for text in names.split(',') {
            let reference = Reference::parse(text).map_err(|error| CommandError::failed(&error))?;
            let reference = reference.or_latest();
            let full = reference.to_string();
            let tag = reference.tag().unwrap_or(LATEST);
            name(path, &entry, &[(NAME, &full), (TAG, tag)])?;
        }
        Ok(())
    }
}

/// A directory, made if it is missing.
fn made(dir: &str) -> Result<PathBuf, CommandError> {
    match fs::create_dir_all(dir) {
        Ok(()) => Ok(dir.into()),
        Err(error) => Err(CommandError::failed(&format!("cannot make {dir}: {error}"))),
    }
}

fn name(path: &Path, entry: &Descriptor, annotations: &[(&str, &str)]) -> Result<(), CommandError> {
    let mut entry = entry.clone();
    for (key, value) in annotations {
        entry.annotations.insert((*key).to_owned(), (*value).to_owned());
    }
    put_layout_entry(path, entry).map_err(|error| CommandError::failed(&chain_text(&error)))
}
