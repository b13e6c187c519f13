//! The three services behind one door: what a build asks of a place where a cache is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rbuild_oci::{Descriptor, Digest};
use rbuild_registry::{BlobSink, BlobSource, Client, Progress};

use crate::attrs::{AttrError, Attrs};
use crate::azblob::{Azblob, AzblobPlace};
use crate::error::ServiceError;
use crate::gha::{Gha, GhaPlace};
use crate::s3::{S3, S3Place};

/// Largest cache config that is read, in bytes.
const CONFIG_BYTES_MAX: usize = 64 << 20;
/// Blobs that are sent at once where nobody says how many.
const UPLOADS: usize = 4;

/// Where a cache is kept, with what it takes to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a bucket of S3.
    S3(Box<S3Place>),
    /// In a container of Azure Blob Storage.
    Azblob(Box<AzblobPlace>),
    /// In GitHub's cache service.
    Gha(Box<GhaPlace>),
}

impl Place {
    /// Reads a cache of this kind; nothing if the kind is none of these. `env` reads variables of the environment.
    ///
    /// # Errors
    /// [`AttrError`].
    pub fn read(
        kind: &str,
        attrs: &BTreeMap<String, String>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, AttrError> {
        let attrs = Attrs::new(attrs, env);
        Ok(Some(match kind {
            "s3" => Self::S3(Box::new(S3Place::read(&attrs)?)),
            "azblob" => Self::Azblob(Box::new(AzblobPlace::read(&attrs)?)),
            "gha" => Self::Gha(Box::new(GhaPlace::read(&attrs)?)),
            _ => return Ok(None),
        }))
    }

    /// What a user is told it is called, without secrets; also what it is told apart by.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::S3(place) => place.name(),
            Self::Azblob(place) => place.name(),
            Self::Gha(place) => place.name(),
        }
    }

    /// What it is called in a cache's `type`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::S3(_) => "s3",
            Self::Azblob(_) => "azblob",
            Self::Gha(_) => "gha",
        }
    }

    /// What writing it is called.
    #[must_use]
    pub const fn title(&self) -> &'static str {
        match self {
            Self::S3(_) => "exporting cache to Amazon S3",
            Self::Azblob(_) => "exporting cache to Azure Blob Storage",
            Self::Gha(_) => "exporting to GitHub Actions Cache",
        }
    }

    /// How many blobs are sent at once.
    #[must_use]
    pub fn uploads(&self) -> usize {
        match self {
            Self::S3(place) => place.uploads,
            Self::Azblob(_) | Self::Gha(_) => UPLOADS,
        }
    }
}

/// A place that is asked.
#[derive(Debug)]
pub struct Service(Kind);

#[derive(Debug)]
enum Kind {
    S3(S3),
    Azblob(Azblob),
    Gha(Box<Gha>),
}

impl Service {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// [`ServiceError`]: credentials are missing or can be seen to be none.
    pub fn new(client: &Client, place: &Place) -> Result<Self, ServiceError> {
        Ok(Self(match place {
            Place::S3(place) => Kind::S3(S3::new(client, place)?),
            Place::Azblob(place) => Kind::Azblob(Azblob::new(client, place)?),
            Place::Gha(place) => Kind::Gha(Box::new(Gha::new(client, place)?)),
        }))
    }

    /// Makes what a cache is written into, where that can be missing, and learns what is there, where that is one question.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn prepare(&self) -> Result<(), ServiceError> {
        match &self.0 {
            Kind::S3(_) => Ok(()),
            Kind::Azblob(azblob) => azblob.prepare().await,
            Kind::Gha(gha) => {
                gha.prepare().await;
                Ok(())
            }
        }
    }

    /// The cache configs that are there, the most particular first. None is no error: nothing was written yet.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn configs(&self) -> Result<Vec<Vec<u8>>, ServiceError> {
        match &self.0 {
            Kind::S3(s3) => s3.configs(CONFIG_BYTES_MAX).await,
            Kind::Azblob(azblob) => azblob.configs(CONFIG_BYTES_MAX).await,
            Kind::Gha(gha) => gha.configs(CONFIG_BYTES_MAX).await,
        }
    }

    /// Whether a blob is there.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn has(&self, digest: &Digest) -> Result<bool, ServiceError> {
        match &self.0 {
            Kind::S3(s3) => s3.has(digest).await,
            Kind::Azblob(azblob) => azblob.has(digest).await,
            Kind::Gha(gha) => gha.has(digest).await,
        }
    }

    /// Sends a blob. One that somebody else has sent meanwhile is no error.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn put_blob(
        &self,
        descriptor: &Descriptor,
        source: &Arc<dyn BlobSource>,
        progress: &Progress,
    ) -> Result<(), ServiceError> {
        match &self.0 {
            Kind::S3(s3) => s3.put_blob(descriptor, source, progress).await,
            Kind::Azblob(azblob) => azblob.put_blob(descriptor, source, progress).await,
            Kind::Gha(gha) => gha.put_blob(descriptor, source, progress).await,
        }
    }

    /// Sends a cache config in the place of the one that is there.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn put_config(&self, config: Vec<u8>) -> BoxFuture<'_, Result<(), ServiceError>> {
        let config = Bytes::from(config);
        Box::pin(async move {
            match &self.0 {
                Kind::S3(s3) => s3.put_config(&config).await,
                Kind::Azblob(azblob) => azblob.put_config(&config).await,
                Kind::Gha(gha) => gha.put_config(&config).await,
            }
        })
    }

    /// Fetches a blob into `sink`, verified by its descriptor.
    ///
    /// # Errors
    /// [`ServiceError`]; the sink then holds nothing of use.
    pub async fn fetch(
        &self,
        descriptor: &Descriptor,
        sink: &mut dyn BlobSink,
        progress: &Progress,
    ) -> Result<(), ServiceError> {
        match &self.0 {
            Kind::S3(s3) => s3.fetch(descriptor, sink, progress).await,
            Kind::Azblob(azblob) => azblob.fetch(descriptor, sink, progress).await,
            Kind::Gha(gha) => gha.fetch(descriptor, sink, progress).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds spawn what asks services; that it can be is seen here and not in three crates above.
    #[test]
    fn what_is_asked_can_be_spawned() {
        fn sendable<T: Send>(_: impl Fn(Service, Descriptor, Arc<dyn BlobSource>, Progress) -> T) {}
        sendable(|service, descriptor, source, progress| async move {
            service.prepare().await.ok();
            service.configs().await.ok();
            service.has(&descriptor.digest).await.ok();
            service.put_blob(&descriptor, &source, &progress).await.ok();
            service.put_config(Vec::new()).await.ok();
            let mut sink = Vec::new();
            service.fetch(&descriptor, &mut sink, &progress).await.ok();
        });
    }
}
