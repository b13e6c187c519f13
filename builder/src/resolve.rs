//! Answers the front end's questions about images and other contexts, each asked once, and shows that it looks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_frontend::{
    IgnoreFilePlace, IgnoreFileRequest, ImageRequest, ImageResolveMode, LayoutPlace, LayoutRequest,
    MetaResolver, NotAnImage, ResolveError, ResolvedImage, SourceTimeRequest,
};
use rbuild_graph::SourceOp;
use rbuild_oci::{Platform, Timestamp};
use rbuild_sys::{RootFd, RootFdError};
use tokio_util::sync::CancellationToken;

use crate::client::ContentPlace;
use crate::images::layout::LayoutRef;
use crate::images::session::SessionStore;
use crate::images::{self, ImageError, Lookup};
use crate::job::Job;
use crate::ops::blocking;
use crate::provenance::capture::ImageSource;
use crate::provenance::purl::Kind;
use crate::solve::Reporter;
use crate::source_policy;
use crate::source_time;

/// What identifiers of images begin with.
const IMAGE: &str = "docker-image://";
/// Largest ignore file of a named context, bytes.
const IGNORE_BYTES_MAX: u64 = 1 << 20;

/// A build as its front end sees it.
#[derive(Debug)]
pub struct Resolver<'a> {
    /// The build.
    job: &'a Arc<Job>,
    /// Stops what was asked for when nobody waits for it any more.
    cancel: &'a CancellationToken,
    /// Images that were asked for, for provenance.
    looked_at: Mutex<BTreeSet<ImageSource>>,
}

impl<'a> Resolver<'a> {
    /// What `job` can reach, until `cancel`.
    #[must_use]
    pub fn new(job: &'a Arc<Job>, cancel: &'a CancellationToken) -> Self {
        Self {
            job,
            cancel,
            looked_at: Mutex::default(),
        }
    }

    /// The images that were asked for so far.
    #[must_use]
    pub fn looked_at(&self) -> BTreeSet<ImageSource> {
        let looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        looked_at.clone()
    }

    fn note(&self, kind: Kind, name: &str, platform: &Platform, found: &ResolvedImage) {
        let digest = Some(found.digest.clone());
        let image = ImageSource::of(kind, name, Some(platform), digest);
        let mut looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        looked_at.extend(image);
    }

    /// Shows `work` as a vertex. It should be pinned: what is handed on unpinned lies in both futures.
    async fn shown(
        &self,
        name: &str,
        work: impl Future<Output = Result<Arc<images::ResolvedImage>, ImageError>>,
    ) -> Result<ResolvedImage, ResolveError> {
        let mut reporter = Reporter::internal(&self.job.sink, name);
        reporter.start(None);
        match work.await {
            Ok(image) => {
                reporter.done();
                Ok(ResolvedImage {
                    canonical_reference: image.name.clone(),
                    digest: image.digest.clone(),
                    config: image.config_bytes.clone(),
                })
            }
            Err(error) => {
                reporter.failed(crate::error::chain_text(&error));
                Err(ResolveError(Box::new(error)))
            }
        }
    }
}

impl MetaResolver for Resolver<'_> {
    async fn image_config(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let asked = SourceOp {
            identifier: format!("{IMAGE}{}", request.reference),
            attrs: BTreeMap::new(),
        };
        let policies = &self.job.settings.policies;
        let replaced = source_policy::judge(self.job, policies, &asked, Some(&request.platform));
        let replaced = replaced.await.map_err(|error| ResolveError(Box::new(error)))?;
        let identifier = replaced.map_or(asked.identifier, |source| source.identifier);
        let Some(reference) = identifier.strip_prefix(IMAGE) else {
            return Err(ResolveError(Box::new(NotAnImage {
                reference: request.reference.clone(),
                updated: identifier,
            })));
        };
        let lookup = Lookup {
            platform: &request.platform,
            pull: request.mode == ImageResolveMode::ForcePull,
        };
        let images = &self.job.engine.images;
        let work = pin!(images.resolve_name(&self.job.lease, reference, &lookup));
        let found = self.shown(&request.log_name, work).await?;
        self.note(Kind::Docker, reference, &request.platform, &found);
        Ok(found)
    }

    async fn layout_config(&self, request: &LayoutRequest) -> Result<ResolvedImage, ResolveError> {
        let lookup = Lookup {
            platform: &request.platform,
            pull: false,
        };
        let (images, lease, name) = (&self.job.engine.images, &self.job.lease, &request.name);
        let found = match &request.place {
            LayoutPlace::Directory {
                directory,
                tag,
                digest,
            } => {
                let place = LayoutRef {
                    dir: directory.clone().into(),
                    tag: tag.clone(),
                    digest: digest.clone(),
                };
                let work = pin!(images.resolve_layout(lease, name, &place, &lookup));
                self.shown(&request.log_name, work).await
            }
            LayoutPlace::Store {
                session,
                store,
                digest,
            } => {
                let store = SessionStore {
                    client: Arc::clone(&self.job.client),
                    place: ContentPlace {
                        session: session.clone(),
                        store: format!("oci:{store}"),
                    },
                };
                let work = pin!(images.resolve_store(lease, name, store, digest, &lookup));
                self.shown(&request.log_name, work).await
            }
        }?;
        self.note(Kind::Oci, name, &request.platform, &found);
        Ok(found)
    }

    async fn context_ignore_file(
        &self,
        request: &IgnoreFileRequest,
    ) -> Result<Option<Vec<u8>>, ResolveError> {
        match &request.place {
            IgnoreFilePlace::Directory(directory) => {
                let root = RootFd::open(Path::new(directory)).map_err(unread)?;
                ignore_file(&root)
            }
            IgnoreFilePlace::Local {
                name,
                attrs,
                log_name,
            } => {
                let mut reporter = Reporter::internal(&self.job.sink, log_name);
                let tree = self.job.client.local(name, attrs, &mut reporter).await;
                let tree = tree.map_err(|error| ResolveError(Box::new(error)))?;
                blocking(move || ignore_file(tree.root())).await
            }
        }
    }

    async fn source_time(&self, request: &SourceTimeRequest) -> Result<Option<Timestamp>, ResolveError> {
        let (source, title) = (&request.source, &request.log_name);
        let found = source_time::of(self.job, source, title, self.cancel).await;
        found.map_err(|error| ResolveError(Box::new(error)))
    }
}

fn ignore_file(root: &RootFd) -> Result<Option<Vec<u8>>, ResolveError> {
    match root.read_file(Path::new(".dockerignore"), IGNORE_BYTES_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(unread(error)),
    }
}

fn unread(error: RootFdError) -> ResolveError {
    ResolveError(Box::new(error))
}
