//! Blobs of registries and of the client's content stores as files: `docker-image+blob://NAME@DIGEST` and
//! `oci-layout+blob://NAME@DIGEST` (`source/containerblob`). One file in a root of its own; its key is known without asking.

use std::fs::File;
use std::io;

use rbuild_graph::SourceOp;
use rbuild_oci::{Descriptor, Digest, Reference, ReferenceError};
use rbuild_registry::RegistryError;
use rbuild_snapshotter::StackError;
use rbuild_store::StoreError;
use rbuild_sys::RootFdError;
use tokio_util::sync::CancellationToken;

use super::part;
use super::shape::{Shape, ShapeError};
use crate::client::{ClientReadError, ContentPlace};
use crate::images::Origin;
use crate::images::session::SessionStore;
use crate::job::Job;
use crate::ops::OpError;
use crate::pull::PullError;
use crate::solve::{Definition, Reporter};
use crate::value::{Chain, Value};

/// Scheme of blobs of registries.
pub(super) const REGISTRY: &str = "docker-image+blob";
/// Scheme of blobs of content stores.
pub(super) const STORE: &str = "oci-layout+blob";
/// Largest blob, bytes.
const BLOB_BYTES_MAX: u64 = 64 << 30;

/// Why there is no file of a blob.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Its name is none.
    #[error("failed to parse {name:?}")]
    Name {
        /// As written.
        name: String,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// Blobs are named by their digests alone.
    #[error("invalid image blob reference {0}")]
    NotByDigest(String),
    /// Nothing says which content store is meant.
    #[error("oci-layout blob source requires store id")]
    NoStore,
    /// An attribute of the file.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The registry.
    #[error("failed to fetch blob {name}")]
    Registry {
        /// The blob.
        name: String,
        /// Why.
        #[source]
        source: RegistryError,
    },
    /// The client.
    #[error("failed to fetch blob {name}")]
    Client {
        /// The blob.
        name: String,
        /// Why.
        #[source]
        source: ClientReadError,
    },
    /// It is larger than any blob that is kept.
    #[error("blob {name} has {bytes} bytes, more than {BLOB_BYTES_MAX}")]
    TooLarge {
        /// The blob.
        name: String,
        /// Its size.
        bytes: u64,
    },
    /// It did not arrive.
    #[error("failed to fetch blob {name}")]
    Fetch {
        /// The blob.
        name: String,
        /// Why.
        #[source]
        source: PullError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store lost it.
    #[error("blob {0} is not in the store")]
    Gone(String),
    /// The file could not be made.
    #[error(transparent)]
    Create(#[from] RootFdError),
    /// The file could not be written.
    #[error("write blob {name}")]
    Write {
        /// The blob.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The layer.
    #[error(transparent)]
    Stack(#[from] StackError),
}

/// A blob, and the file it is to be.
struct Wanted {
    reference: Reference,
    digest: Digest,
    shape: Shape,
    /// Where it is, if not in a registry.
    place: Option<ContentPlace>,
}

impl Wanted {
    fn of(source: &SourceOp) -> Result<Self, BlobError> {
        let (scheme, name) = source
            .identifier
            .split_once("://")
            .unwrap_or(("", &source.identifier));
        let (reference, digest) = named(name)?;
        let attr = |name: &str| source.attrs.get(name).cloned().unwrap_or_default();
        let place = (scheme == STORE).then(|| ContentPlace {
            session: attr("oci.session"),
            store: format!("oci:{}", attr("oci.store")),
        });
        if place.is_some() && attr("oci.store").is_empty() {
            return Err(BlobError::NoStore);
        }
        Ok(Self {
            shape: Shape::read(digest.hex(), source)?,
            reference,
            digest,
            place,
        })
    }

    /// How many bytes there are to come; the digest is checked when they have.
    async fn size(&self, job: &Job) -> Result<u64, BlobError> {
        let name = || self.reference.to_string();
        let bytes = match &self.place {
            Some(place) => {
                let size = job.client.blob_size(place, &self.digest).await;
                size.map_err(|source| BlobError::Client { name: name(), source })?
            }
            None => {
                let size = job
                    .engine
                    .images
                    .client()
                    .blob_size(&self.reference, &self.digest);
                size.await
                    .map_err(|source| BlobError::Registry { name: name(), source })?
            }
        };
        if bytes > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge { name: name(), bytes });
        }
        Ok(bytes)
    }

    /// Makes sure that the blob is in the store.
    async fn fetch(&self, job: &Job, reporter: &Reporter) -> Result<(), BlobError> {
        if job.lease.hold_blob(&self.digest)? {
            return Ok(());
        }
        let descriptor = Descriptor::new("", self.digest.clone(), self.size(job).await?);
        let origin = match &self.place {
            Some(place) => Origin::Session(SessionStore {
                client: std::sync::Arc::clone(&job.client),
                place: place.clone(),
            }),
            None => Origin::Registry(self.reference.clone()),
        };
        let images = &job.engine.images;
        let fetched = images
            .fetch_shown(&job.lease, &origin, &descriptor, Some(reporter))
            .await;
        fetched.map_err(|source| BlobError::Fetch {
            name: self.reference.to_string(),
            source,
        })
    }

    fn open(&self, job: &Job) -> Result<File, BlobError> {
        let blob = job.engine.store.open_blob(&self.digest)?;
        blob.ok_or_else(|| BlobError::Gone(self.reference.to_string()))
    }

    async fn file(&self, job: &Job) -> Result<Chain, BlobError> {
        let workspace = job.engine.snapshotter.workspace(&job.lease, &[])?;
        let file = self.shape.create(workspace.upper())?;
        let blob = self.open(job)?;
        let filled = self.shape.fill(file, tokio::fs::File::from_std(blob)).await;
        filled.map_err(|source| BlobError::Write {
            name: self.reference.to_string(),
            source,
        })?;
        Ok(Chain::new(vec![workspace.commit()?.id]))
    }
}

/// Reference and digest of a blob's name, which has a digest and no tag.
fn named(name: &str) -> Result<(Reference, Digest), BlobError> {
    let reference = Reference::parse(name).map_err(|source| BlobError::Name {
        name: name.to_owned(),
        source,
    })?;
    match reference.digest().cloned() {
        Some(digest) if reference.tag().is_none() => Ok((reference, digest)),
        _ => Err(BlobError::NotByDigest(name.to_owned())),
    }
}

/// Digest of the blob that `source` is.
pub(super) fn digest(source: &SourceOp) -> Option<Digest> {
    let (_, name) = source.identifier.split_once("://")?;
    named(name).ok().map(|(_, digest)| digest)
}

/// Refuses a source that is no blob.
///
/// # Errors
/// [`BlobError`].
pub(crate) fn check(source: &SourceOp) -> Result<(), BlobError> {
    let scheme = source.identifier.split_once("://").map(|(scheme, _)| scheme);
    if !matches!(scheme, Some(REGISTRY | STORE)) {
        return Err(BlobError::NotByDigest(source.identifier.clone()));
    }
    Wanted::of(source).map(drop)
}

/// Makes sure that the blob `source` is in the store, and opens it.
///
/// # Errors
/// [`BlobError`].
pub(crate) async fn open(job: &Job, source: &SourceOp, reporter: &Reporter) -> Result<File, BlobError> {
    let wanted = Wanted::of(source)?;
    wanted.fetch(job, reporter).await?;
    wanted.open(job)
}

/// The key of a source.
///
/// # Errors
/// [`OpError::Blob`].
pub(super) fn define(source: &SourceOp) -> Result<Definition<Value>, OpError> {
    let wanted = Wanted::of(source)?;
    Ok(Definition {
        ingredients: vec![
            part("blob", wanted.digest.as_str()),
            part("blob as", &format!("{:?}", wanted.shape)),
        ],
        content: Vec::new(),
        values: None,
        volatile: false,
    })
}

/// Fetches a blob, and makes a file of it.
///
/// # Errors
/// [`OpError::Blob`].
pub(super) async fn run(
    job: &Job,
    source: &SourceOp,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Chain, OpError> {
    let wanted = Wanted::of(source)?;
    tokio::select! {
        fetched = wanted.fetch(job, reporter) => fetched?,
        () = cancel.cancelled() => return Err(OpError::Canceled),
    }
    Ok(wanted.file(job).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(identifier: &str, attrs: &[(&str, &str)]) -> Result<Wanted, BlobError> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Wanted::of(&SourceOp {
            identifier: identifier.to_owned(),
            attrs: attrs.iter().map(pair).collect(),
        })
    }

    #[test]
    fn row48_blobs_are_named_by_digest_and_nothing_else() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let plain = wanted(&format!("docker-image+blob://host.test/a@{digest}"), &[]).unwrap();
        assert_eq!(
            (plain.digest.as_str(), plain.place.is_none()),
            (digest.as_str(), true)
        );
        let store = [
            ("oci.store", "s"),
            ("oci.session", "other"),
            ("http.filename", "x"),
        ];
        let layout = format!("oci-layout+blob://a/b@{digest}");
        let place = wanted(&layout, &store).unwrap().place.unwrap();
        assert_eq!((place.store.as_str(), place.session.as_str()), ("oci:s", "other"));
        for (identifier, attrs, told) in [
            (
                format!("docker-image+blob://a:1@{digest}"),
                &[][..],
                "invalid image blob reference",
            ),
            (
                "docker-image+blob://a:1".to_owned(),
                &[],
                "invalid image blob reference",
            ),
            ("docker-image+blob://A@x".to_owned(), &[], "failed to parse"),
            (layout.clone(), &[], "requires store id"),
            (
                layout,
                &[("oci.store", "s"), ("http.filename", "../x")],
                "invalid http.filename",
            ),
        ] {
            let error = wanted(&identifier, attrs).err().unwrap().to_string();
            assert!(error.contains(told), "{identifier}: {error}");
        }
    }
}
