//! Files that the client offers over its session: `http://buildkit-session/…` (`source/http/transport.go`,
//! `session/upload`). One file in a root of its own, as `source/http/source.go` makes it. A client gives each once, so
//! it is fetched once in a build; its key is what it holds.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_graph::SourceOp;
use rbuild_oci::Digest;
use rbuild_snapshotter::StackError;
use rbuild_sys::RootFdError;
use tokio::sync::OnceCell;

use super::part;
use super::shape::{Shape, ShapeError};
use crate::client::ClientReadError;
use crate::job::Job;
use crate::ops::OpError;
use crate::solve::{Definition, Reporter};
use crate::value::{Chain, Value};

/// What the address of such a file begins with, behind the scheme.
pub const HOST: &str = "buildkit-session/";
/// Largest file, bytes.
const FILE_BYTES_MAX: u64 = 64 << 30;

/// Why a file of the client is not here.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The client did not give it.
    #[error("fetch {path} from the client")]
    Client {
        /// Its address there.
        path: String,
        /// Why.
        #[source]
        source: ClientReadError,
    },
    /// It broke off, or the disk did not take it.
    #[error("fetch {path} from the client")]
    Io {
        /// Its address there.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be created.
    #[error(transparent)]
    Create(#[from] RootFdError),
    /// An attribute of the file.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The layer.
    #[error(transparent)]
    Stack(#[from] StackError),
}

/// Files that were fetched in a build, by what was asked.
#[derive(Debug, Default)]
pub struct Uploads(Mutex<HashMap<String, Arc<OnceCell<Uploaded>>>>);

#[derive(Debug, Clone)]
struct Uploaded {
    content: Digest,
    chain: Chain,
}

/// What the source is: fetched now, since the key is what the file holds. `path` is host and path of the address.
///
/// # Errors
/// [`OpError::Upload`].
pub async fn define(
    job: &Job,
    path: &str,
    source: &SourceOp,
    reporter: &mut Reporter,
) -> Result<Definition<Value>, OpError> {
    let shape = Shape::read(path, source).map_err(UploadError::from)?;
    let cell = {
        let mut uploads = job.uploads.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(uploads.entry(format!("{path} {shape:?}")).or_default())
    };
    let was_here = cell.initialized();
    reporter.start(None);
    let uploaded = cell.get_or_try_init(|| fetch(job, path, &shape)).await?;
    if was_here {
        reporter.cached();
    } else {
        reporter.done();
    }
    Ok(Definition {
        ingredients: vec![
            part("uploaded file", uploaded.content.as_str()),
            part("uploaded as", &format!("{shape:?}")),
        ],
        content: Vec::new(),
        values: Some(vec![Value::Chain(uploaded.chain.clone())]),
        volatile: false,
    })
}

async fn fetch(job: &Job, path: &str, shape: &Shape) -> Result<Uploaded, UploadError> {
    let at = path
        .strip_prefix(HOST)
        .map_or_else(|| path.to_owned(), |path| format!("/{path}"));
    let reader = job.client.upload(&at, FILE_BYTES_MAX).await;
    let reader = reader.map_err(|source| UploadError::Client {
        path: at.clone(),
        source,
    })?;
    let workspace = job.engine.snapshotter.workspace(&job.lease, &[])?;
    let file = shape.create(workspace.upper())?;
    let content = shape.fill(file, reader).await;
    let content = content.map_err(|source| UploadError::Io { path: at, source })?;
    Ok(Uploaded {
        content,
        chain: Chain::new(vec![workspace.commit()?.id]),
    })
}
