//! Content of inputs, for keys: what an operation reads is hashed where it is, and only that.

use std::sync::Arc;
use std::time::SystemTime;

use rbuild_fileops::{ContentHash, SourceTree};
use rbuild_oci::Digest;

use super::define::Selector;
use super::{OpError, blocking, view};
use crate::job::Job;
use crate::value::Value;

/// Table of the store with the digests of selections of layers, which never change.
const CONTENT_SPACE: &str = "content";

/// Digest of what `selector` selects of `value`; `text` is the selector's serialised form.
///
/// # Errors
/// [`OpError::Hash`] with the missing source, if that is what is wrong; those of mounting the value.
pub async fn digest(job: &Job, text: &str, value: &Value) -> Result<Digest, OpError> {
    let selector: Selector = serde_json::from_str(text).map_err(OpError::Selector)?;
    match value {
        Value::Context(context) => {
            let reporter = context.vertex.as_ref().and_then(|vertex| vertex.enter());
            let started = SystemTime::now();
            let hashed = hash(job, selector, Arc::clone(&context.tree)).await;
            if let (Some(reporter), Ok(hashed)) = (&reporter, &hashed) {
                reporter.status("transferring context:", hashed.stats.bytes, 0, started, true);
            }
            if let Some(vertex) = &context.vertex {
                vertex.leave(hashed.as_ref().err().map(ToString::to_string));
            }
            Ok(hashed?.digest)
        }
        Value::Chain(chain) => {
            let name = Digest::sha256(format!("{} {text}", chain.name()).as_bytes());
            let known = job.engine.store.kv(CONTENT_SPACE, name.as_str())?;
            if let Some(digest) = known.and_then(|bytes| Digest::parse(&String::from_utf8(bytes).ok()?).ok())
            {
                return Ok(digest);
            }
            let digest = hash(job, selector, tree(job, value).await?).await?.digest;
            job.engine
                .store
                .put_kv(CONTENT_SPACE, name.as_str(), digest.as_str().as_bytes())?;
            Ok(digest)
        }
    }
}

async fn hash(job: &Job, selector: Selector, tree: Arc<SourceTree>) -> Result<ContentHash, OpError> {
    let cache = job.engine.stat_cache(&tree);
    let _permit = job.processors.acquire().await;
    let hashed = blocking(move || {
        let hashed = match &selector {
            Selector::Copy(action) => {
                ContentHash::of(&tree, &rbuild_fileops::Selector::from(&**action), &cache)
            }
            Selector::Path(path) => ContentHash::of(&tree, &rbuild_fileops::Selector::path(path), &cache),
            Selector::Whole => ContentHash::of(&tree, &rbuild_fileops::Selector::path("/"), &cache),
        };
        cache.save();
        hashed
    });
    Ok(hashed.await?)
}

/// A value as something that can be read: a chain is mounted, a context is read in place.
///
/// # Errors
/// Those of fetching, unpacking and mounting.
pub async fn tree(job: &Job, value: &Value) -> Result<Arc<SourceTree>, OpError> {
    match value {
        Value::Context(context) => Ok(Arc::clone(&context.tree)),
        Value::Chain(chain) => Ok(Arc::new(SourceTree::Snapshot(view::root(job, chain).await?))),
    }
}
