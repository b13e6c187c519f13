//! Sources: base images and local directories. An image is a chain of layers at once; its blobs are fetched when
//! something needs their content (see [`crate::pull`]).

use rbuild_graph::{SourceOp, Vertex, VertexDigest};
use rbuild_store::LayerId;
use std::sync::{Arc, PoisonError};

use super::OpError;
use crate::images::RemoteLayer;
use crate::job::Job;
use crate::solve::{Definition, Ingredient, Reporter, SharedVertex};
use crate::value::{Chain, Context, Value, chain_name};

/// What a source vertex is.
///
/// # Errors
/// [`OpError::Image`], [`OpError::NoContext`], [`OpError::UnsupportedSource`].
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
            let context = job
                .contexts
                .get(rest)
                .ok_or_else(|| OpError::NoContext(rest.to_owned()))?;
            Ok(Definition {
                ingredients: vec![part("local directory", rest)],
                content: Vec::new(),
                values: Some(vec![Value::Context(Context {
                    tree: Arc::clone(context),
                    vertex: Arc::new(SharedVertex::new(Reporter::of(&job.sink, digest, vertex))),
                })]),
                volatile: true,
            })
        }
        "docker-image" | "oci-layout" => image(job, digest, vertex, source, reporter).await,
        _ => Err(OpError::UnsupportedSource(source.identifier.clone())),
    }
}

async fn image(
    job: &Job,
    digest: &VertexDigest,
    vertex: &Vertex,
    source: &SourceOp,
    reporter: &mut Reporter,
) -> Result<Definition<Value>, OpError> {
    let image = job
        .engine
        .images
        .by_identifier(&source.identifier, &vertex.platform)
        .await?;
    let diff_ids = &image.config.rootfs.diff_ids;
    let mut layers: Vec<LayerId> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        layers.push(job.engine.snapshotter.layer_id(diff_id, &layers)?);
    }
    let shown = Arc::new(SharedVertex::new(Reporter::of(&job.sink, digest, vertex)));
    {
        let mut remotes = job.remotes.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, (layer, descriptor)) in layers.iter().zip(&image.manifest.layers).enumerate() {
            let remote = RemoteLayer {
                descriptor: descriptor.clone(),
                diff_id: diff_ids[index].clone(),
                below: layers[..index].to_vec(),
                origin: image.origin.clone(),
                vertex: Arc::clone(&shown),
            };
            remotes.entry(layer.clone()).or_insert_with(|| Arc::new(remote));
        }
    }
    let held = job.lease.hold_layers(&job.engine.form_name, &layers)?;
    if held.iter().all(Option::is_some) {
        reporter.cached();
    }
    Ok(Definition {
        ingredients: vec![part("base image", chain_name(diff_ids).as_str())],
        content: Vec::new(),
        values: Some(vec![Value::Chain(Chain::new(layers))]),
        volatile: false,
    })
}

fn part(name: &str, value: &str) -> Ingredient {
    Ingredient {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}
