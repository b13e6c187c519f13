//! Indexes over images that registries have: what `imagetools create` and `manifest push` make (buildx
//! `util/imagetools/create.go`). Owns which entries an index has and in which form; [`publish`] brings them to where it is
//! named. Makes no manifest and changes none.

pub mod attestations;
mod publish;

use std::collections::BTreeMap;
use std::collections::HashMap;

use rbuild_oci::{
    CONFIG_BYTES_MAX, ConfigError, Descriptor, Digest, Document, ImageConfig, Index, MANIFESTS_MAX, Manifest,
    Platform, Reference, ReferenceError, media_type,
};
use rbuild_registry::{Client, RegistryError};
use rbuild_store::StoreError;
use serde::Deserialize;

pub use publish::publish;

/// Why an index was not made.
#[derive(Debug, thiserror::Error)]
pub enum ImagetoolsError {
    /// A target is no reference.
    #[error("invalid reference {text:?}")]
    Reference {
        /// As written.
        text: String,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// A source is nothing that can be one.
    #[error(
        "failed to parse source {text:?}, valid sources are digests, references and descriptors: {reason}"
    )]
    Source {
        /// As written.
        text: String,
        /// Why.
        reason: String,
    },
    /// A digest alone, and several repositories it could be of.
    #[error("multiple repositories specified, cannot infer repository for {0}")]
    WhoseDigest(Digest),
    /// A digest alone, and nothing that names a repository.
    #[error("no repositories specified, please set a reference in tag or source")]
    NoRepository,
    /// A descriptor says another size than the registry.
    #[error("invalid size mismatch for {digest}, {said} != {found}")]
    Size {
        /// Of what.
        digest: Digest,
        /// As the descriptor says.
        said: u64,
        /// As the registry says.
        found: u64,
    },
    /// The registry.
    #[error("{verb} {name}")]
    Registry {
        /// What was tried.
        verb: &'static str,
        /// On which image.
        name: String,
        /// Why not.
        #[source]
        source: RegistryError,
    },
    /// A config is refused.
    #[error("{name}: config {digest}")]
    Config {
        /// The image.
        name: String,
        /// The config.
        digest: Digest,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// Platforms were asked for that no source has.
    #[error("none of the manifests match the provided platforms: {0}")]
    NoPlatform(String),
    /// What is said of an image is no statement.
    #[error("attestation {digest}")]
    Statement {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Nothing is left to put into the index.
    #[error("no sources specified")]
    Empty,
    /// More than an index may have.
    #[error("the index would have {0} entries, at most {MANIFESTS_MAX} are written")]
    TooMany(usize),
    /// Indexes in indexes.
    #[error("{0}: indexes are nested too deep")]
    TooDeep(String),
    /// An annotation of what is not made here.
    #[error("annotation {0:?} is of a manifest: only those of the index and of its descriptors can be set")]
    Annotation(String),
    /// The store, through which blobs go from one registry to another.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rbuild_store::DiskError> for ImagetoolsError {
    fn from(error: rbuild_store::DiskError) -> Self {
        Self::Store(error.into())
    }
}

/// What a registry has under a name.
#[derive(Debug, Clone)]
pub struct Found {
    /// The name, in full.
    pub reference: Reference,
    /// Type, digest, size.
    pub descriptor: Descriptor,
    /// The document's bytes.
    pub bytes: Vec<u8>,
    /// What they say.
    pub document: Document,
}

/// One source of an index: where it is, and what its entry says other than the registry.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Where it is; for a digest alone, where the others are.
    pub reference: Option<Reference>,
    /// Digest, where that is all there is.
    pub digest: Option<Digest>,
    /// Size that it must have, bytes.
    pub size: Option<u64>,
    /// Type that its entry says.
    pub media_type: Option<String>,
    /// Annotations of its entry.
    pub annotations: BTreeMap<String, String>,
    /// Platform of its entry.
    pub platform: Option<Platform>,
}

/// A descriptor as a source; no field but the digest is needed.
#[derive(Deserialize)]
struct DescriptorText {
    #[serde(rename = "schemaVersion", default)]
    schema_version: u32,
    #[serde(rename = "mediaType", default)]
    media_type: String,
    #[serde(default)]
    digest: Option<Digest>,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

impl Source {
    /// Reads a reference, a digest or a descriptor in JSON.
    ///
    /// # Errors
    /// [`ImagetoolsError::Source`].
    pub fn parse(text: &str) -> Result<Self, ImagetoolsError> {
        let refuse = |reason: String| ImagetoolsError::Source {
            text: text.to_owned(),
            reason,
        };
        let text = text.trim();
        if let Ok(digest) = Digest::parse(text) {
            return Ok(Self {
                digest: Some(digest),
                ..Self::default()
            });
        }
        if text.starts_with("sha256:") {
            return Err(refuse("no digest of that algorithm".to_owned()));
        }
        if !text.starts_with('{') {
            let reference = Reference::parse(text).map_err(|error| refuse(error.to_string()))?;
            return Ok(Self {
                reference: Some(reference.or_latest()),
                ..Self::default()
            });
        }
        let read: DescriptorText = serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
        if read.schema_version != 0 {
            return Err(refuse(format!(
                "expected an OCI content descriptor, got a manifest or index (schemaVersion {})",
                read.schema_version
            )));
        }
        let digest = read
            .digest
            .ok_or_else(|| refuse("invalid descriptor: digest is required".to_owned()))?;
        Ok(Self {
            reference: None,
            digest: Some(digest),
            size: Some(read.size).filter(|size| *size > 0),
            media_type: Some(read.media_type).filter(|text| !text.is_empty()),
            annotations: read.annotations.unwrap_or_default(),
            platform: read.platform,
        })
    }
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Combination {
    /// What goes in, in order.
    pub sources: Vec<Source>,
    /// Names it gets.
    pub targets: Vec<Reference>,
    /// Annotations of the index.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of entries, by platform; without one they are of every entry.
    pub descriptor_annotations: Vec<(Option<Platform>, String, String)>,
    /// Only these platforms; all if empty.
    pub platforms: Vec<Platform>,
    /// One source that is a manifest gets an index too, instead of being copied as it is.
    pub prefer_index: bool,
    /// Attestations that refer to a manifest in its registry join it.
    pub with_attestations: bool,
}

/// One entry of an index, and the repository that has what it names.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The entry.
    pub descriptor: Descriptor,
    /// Where it is.
    pub from: Reference,
}

/// An index that is to be published, or one document that is copied as it is.
#[derive(Debug, Clone)]
pub struct Combined {
    /// Of the document.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it names; of a manifest, itself.
    pub entries: Vec<Entry>,
}

/// What a registry has under `text`.
///
/// # Errors
/// [`ImagetoolsError::Reference`], [`ImagetoolsError::Registry`].
pub async fn find(client: &Client, text: &str) -> Result<Found, ImagetoolsError> {
    fetch(client, &parse(text)?).await
}

/// A reference with a tag or a digest.
///
/// # Errors
/// [`ImagetoolsError::Reference`].
pub fn parse(text: &str) -> Result<Reference, ImagetoolsError> {
    let parsed = Reference::parse(text).map(Reference::or_latest);
    parsed.map_err(|source| ImagetoolsError::Reference {
        text: text.to_owned(),
        source,
    })
}

async fn fetch(client: &Client, reference: &Reference) -> Result<Found, ImagetoolsError> {
    let pulled = client.manifest(reference).await;
    let pulled = pulled.map_err(|source| ImagetoolsError::Registry {
        verb: "resolve",
        name: reference.to_string(),
        source,
    })?;
    Ok(Found {
        reference: reference.clone(),
        descriptor: pulled.descriptor,
        bytes: pulled.bytes,
        document: pulled.document,
    })
}

/// The manifests that `found` leads to, each with its config; attestations are not among them.
///
/// # Errors
/// [`ImagetoolsError::Registry`], [`ImagetoolsError::Config`].
pub async fn configs(
    client: &Client,
    found: &Found,
) -> Result<Vec<(Descriptor, ImageConfig)>, ImagetoolsError> {
    let index = match &found.document {
        Document::Manifest(manifest) => {
            let config = config(client, &found.reference, manifest).await?;
            return Ok(vec![(found.descriptor.clone(), config)]);
        }
        Document::Index(index) => index,
    };
    let mut all = Vec::new();
    for entry in index.manifests.iter().filter(|entry| !entry.is_attestation()) {
        let one = found.reference.repository().with_digest(entry.digest.clone());
        if let Document::Manifest(manifest) = fetch(client, &one).await?.document {
            all.push((entry.clone(), config(client, &one, &manifest).await?));
        }
    }
    Ok(all)
}

async fn config(
    client: &Client,
    reference: &Reference,
    manifest: &Manifest,
) -> Result<ImageConfig, ImagetoolsError> {
    let bytes = client
        .blob(reference, &manifest.config, CONFIG_BYTES_MAX as u64)
        .await;
    let bytes = bytes.map_err(|source| ImagetoolsError::Registry {
        verb: "pull config of",
        name: reference.to_string(),
        source,
    })?;
    ImageConfig::parse(&bytes).map_err(|source| ImagetoolsError::Config {
        name: reference.to_string(),
        digest: manifest.config.digest.clone(),
        source,
    })
}

/// Looks everything up and makes the index, without writing anything anywhere.
///
/// # Errors
/// [`ImagetoolsError`].
pub async fn combine(client: &Client, asked: &Combination) -> Result<Combined, ImagetoolsError> {
    let mut found = Vec::with_capacity(asked.sources.len());
    for source in &asked.sources {
        let reference = place(source, asked)?;
        let mut one = fetch(client, &reference).await?;
        one.descriptor = described(one.descriptor, source)?;
        found.push(one);
    }
    let plain =
        asked.annotations.is_empty() && asked.descriptor_annotations.is_empty() && asked.platforms.is_empty();
    if let [only] = found.as_slice() {
        let is_index = matches!(only.document, Document::Index(_));
        if plain && (is_index || !asked.prefer_index) {
            let copy = copy_of(client, only).await?;
            let is_whole = !is_index
                || !asked.with_attestations
                || attestations::missing(client, &copy.entries).await?.is_empty();
            if is_whole {
                return Ok(copy);
            }
        }
    }
    let mut entries: Vec<Entry> = Vec::new();
    let mut known: HashMap<Digest, usize> = HashMap::new();
    for one in &found {
        for descriptor in entries_of(client, one).await? {
            match known.get(&descriptor.digest) {
                Some(&at) => merge(&mut entries[at].descriptor, descriptor),
                None => {
                    known.insert(descriptor.digest.clone(), entries.len());
                    entries.push(Entry {
                        descriptor,
                        from: one.reference.clone(),
                    });
                }
            }
        }
    }
    keep_platforms(&mut entries, &asked.platforms)?;
    for (platform, key, value) in &asked.descriptor_annotations {
        for entry in &mut entries {
            let fits = match (platform, &entry.descriptor.platform) {
                (None, _) => true,
                (Some(wanted), Some(has)) => wanted.is_same(has),
                (Some(_), None) => false,
            };
            if fits {
                entry.descriptor.annotations.insert(key.clone(), value.clone());
            }
        }
    }
    check_count(&entries)?;
    if asked.with_attestations {
        entries.extend(attestations::missing(client, &entries).await?);
    }
    check_count(&entries)?;
    Ok(index_of(entries, asked.annotations.clone()))
}

/// Whether an index may have these entries.
fn check_count(entries: &[Entry]) -> Result<(), ImagetoolsError> {
    match entries.len() {
        0 => Err(ImagetoolsError::Empty),
        count if count > MANIFESTS_MAX => Err(ImagetoolsError::TooMany(count)),
        _ => Ok(()),
    }
}

/// Where a source is. A digest alone is of the one repository that everything else is about.
fn place(source: &Source, asked: &Combination) -> Result<Reference, ImagetoolsError> {
    let Some(digest) = &source.digest else {
        return source.reference.clone().ok_or(ImagetoolsError::NoRepository);
    };
    if let Some(reference) = &source.reference {
        return Ok(reference.repository().with_digest(digest.clone()));
    }
    let sources = asked
        .sources
        .iter()
        .filter_map(|source| source.reference.as_ref());
    let mut repositories: Vec<Reference> = sources.chain(&asked.targets).map(Reference::repository).collect();
    repositories.sort_by_key(ToString::to_string);
    repositories.dedup_by_key(|reference| reference.to_string());
    match repositories.as_slice() {
        [] => Err(ImagetoolsError::NoRepository),
        [only] => Ok(only.with_digest(digest.clone())),
        _ => Err(ImagetoolsError::WhoseDigest(digest.clone())),
    }
}

/// The descriptor that the registry gave, with what the source says of it.
fn described(mut descriptor: Descriptor, source: &Source) -> Result<Descriptor, ImagetoolsError> {
    if let Some(said) = source.size.filter(|size| *size != descriptor.size) {
        return Err(ImagetoolsError::Size {
            digest: descriptor.digest,
            said,
            found: descriptor.size,
        });
    }
    if let Some(media_type) = &source.media_type {
        descriptor.media_type.clone_from(media_type);
    }
    if !source.annotations.is_empty() {
        descriptor.annotations.clone_from(&source.annotations);
    }
    if source.platform.is_some() {
        descriptor.platform.clone_from(&source.platform);
    }
    Ok(descriptor)
}

async fn copy_of(client: &Client, found: &Found) -> Result<Combined, ImagetoolsError> {
    let entry = |descriptor: &Descriptor| Entry {
        descriptor: descriptor.clone(),
        from: found.reference.clone(),
    };
    let entries: Vec<Entry> = entries_of(client, found).await?.iter().map(entry).collect();
    let descriptor = match (&found.document, entries.as_slice()) {
        // With the platform that its config says.
        (Document::Manifest(_), [only]) => only.descriptor.clone(),
        _ => found.descriptor.clone(),
    };
    Ok(Combined {
        descriptor,
        bytes: found.bytes.clone(),
        entries,
    })
}

/// What a source puts into the index: its entries, or itself with the platform its config says.
async fn entries_of(client: &Client, found: &Found) -> Result<Vec<Descriptor>, ImagetoolsError> {
    match &found.document {
        Document::Index(index) => Ok(index.manifests.clone()),
        Document::Manifest(manifest) => {
            let mut entry = found.descriptor.clone();
            if entry.platform.is_none() && media_type::is_config(&manifest.config.media_type) {
                let config = config(client, &found.reference, manifest).await?;
                entry.platform = Some(config.platform());
            }
            Ok(vec![entry])
        }
    }
}

/// The same manifest once more: what is said later holds.
fn merge(entry: &mut Descriptor, again: Descriptor) {
    if !again.media_type.is_empty() {
        entry.media_type = again.media_type;
    }
    if again.platform.is_some() {
        entry.platform = again.platform;
    }
    entry.annotations.extend(again.annotations);
}

/// Leaves the entries of these platforms, and attestations of those.
fn keep_platforms(entries: &mut Vec<Entry>, wanted: &[Platform]) -> Result<(), ImagetoolsError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let fits = |entry: &Entry, platform: &Platform| {
        let has = entry.descriptor.platform.as_ref();
        has.is_some_and(|has| platform.is_same(has))
    };
    for platform in wanted {
        if !entries.iter().any(|entry| fits(entry, platform)) {
            return Err(ImagetoolsError::NoPlatform(platform.short()));
        }
    }
    let is_wanted = |entry: &Entry| wanted.iter().any(|platform| fits(entry, platform));
    let kept: Vec<String> = entries
        .iter()
        .filter(|entry| is_wanted(entry))
        .map(|entry| entry.descriptor.digest.to_string())
        .collect();
    entries.retain(|entry| {
        let about = entry.descriptor.attested();
        is_wanted(entry) || about.is_some_and(|digest| kept.iter().any(|known| known == digest))
    });
    Ok(())
}

/// Docker's list where every entry is Docker's, else OCI's; that has annotations too.
fn index_of(entries: Vec<Entry>, annotations: BTreeMap<String, String>) -> Combined {
    let is_docker = |entry: &Entry| entry.descriptor.media_type.starts_with("application/vnd.docker.");
    let media_type = if annotations.is_empty() && entries.iter().all(is_docker) {
        media_type::DOCKER_INDEX
    } else {
        media_type::OCI_INDEX
    };
    let manifests = entries.iter().map(|entry| entry.descriptor.clone()).collect();
    let mut index = Index::new(media_type, manifests);
    index.annotations = annotations;
    let bytes = index.to_bytes();
    Combined {
        descriptor: Descriptor::of(media_type, &bytes),
        bytes,
        entries,
    }
}

#[cfg(test)]
mod tests;
