//! An image for a command that is no build: `run` starts a program in it, `cp` and `export` read its files. Owns when the
//! registry is asked for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rbuild_graph::progress::Sink;
use rbuild_oci::Platform;
use rbuild_store::{DiskError, ImageRecord, StoreError};

use crate::client::HostClient;
use crate::engine::Engine;
use crate::front_ends::layouts::LayoutStores;
use crate::images::source::SourceImage;
use crate::images::{ImageError, Lookup, ResolvedImage};
use crate::job::{Job, Settings};
use crate::ops::OpError;
use crate::ops::source::image_chain;
use crate::request::Entitlement;
use crate::secrets::Secrets;
use crate::solve::{Reporter, SharedVertex};
use crate::ssh::SshAgents;
use crate::stored::{self, FindError};
use crate::value::Chain;

/// When the registry is asked for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// When the store has none of its name.
    #[default]
    Missing,
    /// Every time.
    Always,
    /// Never.
    Never,
}

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LocalImageError {
    /// The image is of the store, or is none.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The image could not be had.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Its layers.
    #[error(transparent)]
    Op(Box<OpError>),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<OpError> for LocalImageError {
    fn from(error: OpError) -> Self {
        Self::Op(Box::new(error))
    }
}

impl From<DiskError> for LocalImageError {
    fn from(error: DiskError) -> Self {
        Self::Store(error.into())
    }
}

/// What is meant, and from where it may come.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Name or id.
    pub image: &'a str,
    /// Platform of an image that has several.
    pub platform: &'a Platform,
    /// When the registry is asked.
    pub pull: PullPolicy,
}

/// A name of the store, and what it stands for.
pub type Stored = (String, ImageRecord);

/// An image, with what holds its layers.
#[derive(Debug)]
pub(crate) struct LocalImage {
    /// The work it is brought for.
    pub(crate) job: Arc<Job>,
    /// Its documents.
    pub(crate) image: Arc<ResolvedImage>,
    /// Its layers, which may still have to be unpacked.
    pub(crate) chain: Chain,
}

impl LocalImage {
    /// Finds the image that is meant, in the store or in its registry.
    ///
    /// # Errors
    /// [`LocalImageError`].
    pub(crate) async fn find(
        engine: Arc<Engine>,
        wanted: Wanted<'_>,
        sink: Arc<dyn Sink>,
    ) -> Result<Self, LocalImageError> {
        if wanted.pull != PullPolicy::Always {
            match stored::find(&engine.store, wanted.image) {
                Ok(stored) => return Self::of_stored(engine, &stored, wanted.platform, sink).await,
                Err(FindError::NotFound(_)) if wanted.pull == PullPolicy::Missing => {}
                Err(error) => return Err(error.into()),
            }
        }
        let job = job(engine, sink)?;
        let lookup = Lookup {
            platform: wanted.platform,
            pull: wanted.pull == PullPolicy::Always,
        };
        let images = &job.engine.images;
        let image = images.resolve_name(&job.lease, wanted.image, &lookup).await?;
        Self::of(job, image, wanted.image)
    }

    /// The image that a name of the store stands for.
    ///
    /// # Errors
    /// [`LocalImageError`].
    pub(crate) async fn of_stored(
        engine: Arc<Engine>,
        (name, record): &Stored,
        platform: &Platform,
        sink: Arc<dyn Sink>,
    ) -> Result<Self, LocalImageError> {
        let job = job(engine, sink)?;
        let images = &job.engine.images;
        let image = images.resolve_stored(&job.lease, name, record, platform).await?;
        Self::of(job, image, name)
    }

    fn of(job: Arc<Job>, image: Arc<ResolvedImage>, name: &str) -> Result<Self, LocalImageError> {
        let found = SourceImage {
            layers: image.manifest.layers.len(),
            image,
        };
        let reporter = Reporter::internal(&job.sink, &format!("[internal] load {name}"));
        let chain = image_chain(&job, &found, &Arc::new(SharedVertex::new(reporter)))?;
        Ok(Self {
            job,
            image: found.image,
            chain,
        })
    }
}

/// A job that has no client but this machine, and asks it for nothing.
fn job(engine: Arc<Engine>, sink: Arc<dyn Sink>) -> Result<Arc<Job>, LocalImageError> {
    let lease = Arc::new(engine.store.lease("image")?);
    let client = Arc::new(HostClient {
        context: None,
        dockerfile: None,
        directories: BTreeMap::new(),
        locals: BTreeMap::new(),
        layouts: LayoutStores::default(),
        secrets: Secrets::new(&[]),
        ssh: Arc::new(SshAgents::new(&[])),
    });
    let settings = Settings {
        entitlements: vec![Entitlement::NetworkHost],
        ..Settings::default()
    };
    Ok(Arc::new(Job::new(engine, lease, client, settings, sink)))
}
