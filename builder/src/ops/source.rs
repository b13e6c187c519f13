//! Sources: base images, blobs, local directories, files behind URLs, git repositories. An image is a chain of layers at once;
//! its blobs are fetched when something needs their content (see [`crate::pull`]).

pub mod blob;
pub mod git;
pub mod http;
mod pin;
pub mod shape;
pub mod upload;

pub use pin::pin;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_frontend::redact_credentials;
use rbuild_graph::{SourceOp, Vertex, VertexDigest};
use rbuild_oci::Digest;
use rbuild_store::LayerId;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::OpError;
use crate::images::RemoteLayer;
use crate::images::source::{Asker, SourceImage};
use crate::job::Job;
use crate::solve::{Definition, Ingredient, Reporter, SharedVertex};
use crate::value::{Chain, Context, Value, chain_name};

/// What the outside answered in this build: each question is asked once, and means the same for the whole of it.
#[derive(Debug, Default)]
pub struct Sources {
    http: Answers<http::Fetched>,
    git: Answers<git::Resolved>,
}

type Answers<T> = Mutex<HashMap<Digest, Arc<OnceCell<T>>>>;

impl Sources {
    fn http(&self, name: &Digest) -> Arc<OnceCell<http::Fetched>> {
        answer(&self.http, name)
    }

    fn git(&self, question: &Digest) -> Arc<OnceCell<git::Resolved>> {
        answer(&self.git, question)
    }
}

fn answer<T>(answers: &Answers<T>, name: &Digest) -> Arc<OnceCell<T>> {
    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(answers.entry(name.clone()).or_default())
}

/// What is tried when a source is asked for what it is now (`solver/edge.go`).
const LOAD_KEY: &str = "failed to load cache key";

/// What a source vertex is.
///
/// # Errors
/// [`OpError::Image`], [`OpError::Local`], [`OpError::Http`], [`OpError::Git`], [`OpError::UnsupportedSource`].
pub async fn define(
    job: &Job,
    digest: &VertexDigest,
    vertex: &Vertex,
    source: &SourceOp,
    reporter: &mut Reporter,
) -> Result<Definition<Value>, OpError> {
    let (scheme, rest) = source
        .identifier
        .split_once("://")
        .unwrap_or(("", &source.identifier));
    match scheme {
        "local" => {
            let tree = job.client.local(rest, &source.attrs, reporter).await?;
            // What was fetched has been shown; what is read in place is shown when it is.
            let vertex = (!reporter.has_begun())
                .then(|| Arc::new(SharedVertex::new(Reporter::of(&job.sink, digest, vertex))));
            Ok(Definition {
                ingredients: vec![part("local directory", rest)],
                content: Vec::new(),
                values: Some(vec![Value::Context(Context { tree, vertex })]),
                volatile: true,
            })
        }
        "http" if rest.starts_with(upload::HOST) => upload::define(job, rest, source, reporter).await,
        "docker-image" | "oci-layout" => image(job, digest, vertex, source, reporter).await,
        "http" | "https" => http::define(job, vertex, source, reporter)
            .await
            .map_err(|error| error.during(LOAD_KEY)),
        "git" => git::define(job, source, reporter)
            .await
            .map_err(|error| error.during(LOAD_KEY)),
        blob::REGISTRY | blob::STORE => blob::define(source),
        _ => Err(OpError::UnsupportedSource(redact_credentials(&source.identifier))),
    }
}

/// Brings a source that has a key and no value yet.
///
/// # Errors
/// [`OpError::Http`], [`OpError::Git`], [`OpError::UnsupportedSource`].
pub async fn run(
    job: &Job,
    source: &SourceOp,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Chain, OpError> {
    match source.identifier.split_once("://") {
        Some(("http" | "https", _)) => http::run(job, source, cancel).await,
        Some(("git", _)) => git::run(job, source, reporter, cancel).await,
        Some((blob::REGISTRY | blob::STORE, _)) => blob::run(job, source, reporter, cancel).await,
        _ => Err(OpError::UnsupportedSource(redact_credentials(&source.identifier))),
    }
}

async fn image(
    job: &Job,
    digest: &VertexDigest,
    vertex: &Vertex,
    source: &SourceOp,
    reporter: &mut Reporter,
) -> Result<Definition<Value>, OpError> {
    let asker = Asker {
        lease: &job.lease,
        client: &job.client,
    };
    let images = &job.engine.images;
    let found = images.of_source(asker, source, vertex.platform.as_ref()).await?;
    // A config has a diff id for each layer; that was checked when it was read.
    let diff_ids = &found.image.config.rootfs.diff_ids[..found.layers];
    let shown = Arc::new(SharedVertex::new(Reporter::of(&job.sink, digest, vertex)));
    let chain = image_chain(job, &found, &shown)?;
    let held = job.lease.hold_layers(&job.engine.form_name, chain.layers())?;
    if held.iter().all(Option::is_some) {
        reporter.cached();
    }
    Ok(Definition {
        ingredients: vec![part("base image", chain_name(diff_ids).as_str())],
        content: Vec::new(),
        values: Some(vec![Value::Chain(chain)]),
        volatile: false,
    })
}

/// The layers of an image, which are fetched when somebody mounts them; `shown` shows that.
pub(crate) fn image_chain(
    job: &Job,
    found: &SourceImage,
    shown: &Arc<SharedVertex>,
) -> Result<Chain, OpError> {
    let image = &found.image;
    let diff_ids = &image.config.rootfs.diff_ids[..found.layers];
    let mut layers: Vec<LayerId> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        layers.push(job.engine.snapshotter.layer_id(diff_id, &layers)?);
    }
    let mut remotes = job.remotes.lock().unwrap_or_else(PoisonError::into_inner);
    for (index, (layer, descriptor)) in layers.iter().zip(&image.manifest.layers).enumerate() {
        let remote = RemoteLayer {
            descriptor: descriptor.clone(),
            diff_id: diff_ids[index].clone(),
            below: layers[..index].to_vec(),
            created: None,
            origin: image.origin.clone(),
            is_own: false,
            vertex: Arc::clone(shown),
        };
        remotes.entry(layer.clone()).or_insert_with(|| Arc::new(remote));
    }
    drop(remotes);
    Ok(Chain::new(layers))
}

fn part(name: &str, value: &str) -> Ingredient {
    Ingredient {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}
