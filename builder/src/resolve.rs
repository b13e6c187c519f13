//! Answers the front end's questions about images and other contexts, each asked once, and shows that it looks.

use std::path::Path;
use std::sync::Arc;

use rbuild_frontend::{
    ImageRequest, ImageResolveMode, LayoutRequest, MetaResolver, ResolveError, ResolvedImage,
};
use rbuild_graph::progress::Sink;
use rbuild_store::Lease;
use rbuild_sys::RootFd;

use crate::engine::Engine;
use crate::images::layout::LayoutRef;
use crate::images::{self, ImageError, Lookup};
use crate::solve::Reporter;

/// Largest ignore file of a named context, bytes.
const IGNORE_BYTES_MAX: u64 = 1 << 20;

/// The engine as the front end sees it.
#[derive(Clone)]
pub struct Resolver {
    /// Images and store.
    pub engine: Arc<Engine>,
    /// Keeps what is found.
    pub lease: Arc<Lease>,
    /// Where progress goes.
    pub sink: Arc<dyn Sink>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
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
        let lookup = Lookup {
            platform: &request.platform,
            pull: request.mode == ImageResolveMode::ForcePull,
        };
        let work = self
            .engine
            .images
            .resolve_name(&self.lease, &request.reference, &lookup);
        self.shown(&request.log_name, work).await
    }

    async fn layout_config(&self, request: &LayoutRequest) -> Result<ResolvedImage, ResolveError> {
        let place = LayoutRef {
            dir: request.directory.clone().into(),
            tag: request.tag.clone(),
            digest: request.digest.clone(),
        };
        let lookup = Lookup {
            platform: &request.platform,
            pull: false,
        };
        let work = self
            .engine
            .images
            .resolve_layout(&self.lease, &request.name, &place, &lookup);
        self.shown(&request.log_name, work).await
    }

    async fn context_ignore_file(&self, _: &str, directory: &str) -> Result<Option<Vec<u8>>, ResolveError> {
        let fail = |error: rbuild_sys::RootFdError| ResolveError(Box::new(error));
        let root = RootFd::open(Path::new(directory)).map_err(fail)?;
        match root.read_file(Path::new(".dockerignore"), IGNORE_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }
}
