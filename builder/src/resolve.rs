//! Answers the front end's questions about images and other contexts, each asked once, and shows that it looks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rbuild_frontend::{
    IgnoreFilePlace, IgnoreFileRequest, ImageRequest, ImageResolveMode, LayoutPlace, LayoutRequest,
    MetaResolver, NotAnImage, ResolveError, ResolvedImage,
};
use rbuild_graph::SourceOp;
use rbuild_graph::progress::Sink;
use rbuild_store::Lease;
use rbuild_sys::{RootFd, RootFdError};

use crate::client::{Client, ContentPlace};
use crate::engine::Engine;
use crate::images::layout::LayoutRef;
use crate::images::session::SessionStore;
use crate::images::{self, ImageError, Lookup};
use crate::job::Job;
use crate::ops::blocking;
use crate::solve::Reporter;
use crate::source_policy::SourcePolicies;

/// What identifiers of images begin with.
const IMAGE: &str = "docker-image://";
/// Largest ignore file of a named context, bytes.
const IGNORE_BYTES_MAX: u64 = 1 << 20;

/// The engine as the front end sees it.
#[derive(Clone)]
pub struct Resolver {
    /// Images and store.
    pub engine: Arc<Engine>,
    /// Keeps what is found.
    pub lease: Arc<Lease>,
    /// Has the directories and stores of named contexts.
    pub client: Arc<dyn Client>,
    /// Rules for images.
    pub policies: Arc<SourcePolicies>,
    /// Where progress goes.
    pub sink: Arc<dyn Sink>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    /// What `job` can reach.
    #[must_use]
    pub fn new(job: &Job) -> Self {
        Self {
            engine: Arc::clone(&job.engine),
            lease: Arc::clone(&job.lease),
            client: Arc::clone(&job.client),
            policies: Arc::clone(&job.settings.policies),
            sink: Arc::clone(&job.sink),
        }
    }

    async fn shown(
        &self,
        name: &str,
        work: impl Future<Output = Result<Arc<images::ResolvedImage>, ImageError>>,
    ) -> Result<ResolvedImage, ResolveError> {
        let mut reporter = Reporter::internal(&self.sink, name);
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

impl MetaResolver for Resolver {
    async fn image_config(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let asked = SourceOp {
            identifier: format!("{IMAGE}{}", request.reference),
            attrs: BTreeMap::new(),
        };
        let replaced = self.policies.apply(&asked);
        let replaced = replaced.map_err(|error| ResolveError(Box::new(error)))?;
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
        let work = self.engine.images.resolve_name(&self.lease, reference, &lookup);
        self.shown(&request.log_name, work).await
    }

    async fn layout_config(&self, request: &LayoutRequest) -> Result<ResolvedImage, ResolveError> {
        let lookup = Lookup {
            platform: &request.platform,
            pull: false,
        };
        let (images, lease, name) = (&self.engine.images, &self.lease, &request.name);
        match &request.place {
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
                let work = images.resolve_layout(lease, name, &place, &lookup);
                self.shown(&request.log_name, work).await
            }
            LayoutPlace::Store {
                session,
                store,
                digest,
            } => {
                let store = SessionStore {
                    client: Arc::clone(&self.client),
                    place: ContentPlace {
                        session: session.clone(),
                        store: format!("oci:{store}"),
                    },
                };
                let work = images.resolve_store(lease, name, store, digest, &lookup);
                self.shown(&request.log_name, work).await
            }
        }
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
                let mut reporter = Reporter::internal(&self.sink, log_name);
                let tree = self.client.local(name, attrs, &mut reporter).await;
                let tree = tree.map_err(|error| ResolveError(Box::new(error)))?;
                blocking(move || ignore_file(tree.root())).await
            }
        }
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
