//! Files behind URLs, as BuildKit's `source/http/source.go` has them: one file in a root of its own, named by the
//! front end, the server or the URL; 0600, of the time the server says.
//!
//! A URL without a checksum is asked in every build, by its `ETag` where one is known, and its key is the digest of what
//! is behind it now: an unchanged file reruns nothing. With a checksum the key is known without asking.

mod file_name;
mod known;
mod sink;
mod wanted;

use rbuild_graph::{SourceOp, Vertex};
use rbuild_oci::Digest;
use rbuild_registry::{FetchError, ShownUrl, UrlError};
use tokio_util::sync::CancellationToken;

use self::known::{commit, fetch, resolve};
use self::wanted::Wanted;
use crate::job::Job;
use crate::ops::OpError;
use crate::secrets::SecretError;
use crate::solve::{Definition, Reporter};
use crate::source_meta::HttpMeta;
use crate::value::{Chain, Value};

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not a URL that can be asked for, or a header that cannot be sent.
    #[error("{} {url:?}", if matches!(source, UrlError::NoHost) { "Get" } else { "parse" })]
    Request {
        /// The URL, without credentials.
        url: String,
        /// Why.
        #[source]
        source: UrlError,
    },
    /// An attribute that cannot be read.
    #[error("invalid value {value:?} of source attribute {name}")]
    Attribute {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// An attribute that is not served yet.
    #[error("source attribute {0} is not supported yet")]
    Unsupported(String),
    /// The secret that is to be sent is not there.
    #[error("failed to retrieve HTTP auth secret {id}")]
    Secret {
        /// Its id.
        id: String,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// It could not be fetched.
    #[error("{0}")]
    Fetch(#[from] FetchError),
    /// It is another file than the one asked for.
    #[error("digest mismatch {found}: {expected}")]
    Mismatch {
        /// Digest of what came.
        found: Digest,
        /// Digest asked for.
        expected: Digest,
    },
    /// The file could not be finished.
    #[error("keep {url}")]
    Keep {
        /// The URL.
        url: ShownUrl,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A file that was fetched, in this build or an earlier one.
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    chain: Chain,
    digest: Digest,
    name: String,
    modified: Option<i64>,
}

/// The key of a source, and the file itself if that had to be asked for.
pub(super) async fn define(
    job: &Job,
    vertex: &Vertex,
    source: &SourceOp,
    reporter: &mut Reporter,
) -> Result<Definition<Value>, OpError> {
    let wanted = Wanted::of(source)?;
    let definition = |ingredients, values| Definition {
        ingredients,
        content: Vec::new(),
        values,
        volatile: false,
    };
    if let Some(checksum) = &wanted.checksum {
        let name = wanted.file_name(None);
        return Ok(definition(wanted.ingredients(&name, checksum, None), None));
    }
    let fetched = asked(job, vertex, &wanted, reporter).await?;
    let ingredients = wanted.ingredients(&fetched.name, &fetched.digest, fetched.modified);
    Ok(definition(ingredients, Some(vec![Value::Chain(fetched.chain)])))
}

/// What is known of the file. One whose checksum was given is not asked for.
pub(crate) async fn meta(
    job: &Job,
    vertex: &Vertex,
    source: &SourceOp,
    reporter: &mut Reporter,
) -> Result<HttpMeta, OpError> {
    let wanted = Wanted::of(source)?;
    if let Some(checksum) = &wanted.checksum {
        return Ok(HttpMeta {
            digest: checksum.clone(),
            filename: wanted.file_name(None),
            modified: None,
        });
    }
    let fetched = asked(job, vertex, &wanted, reporter).await?;
    Ok(HttpMeta {
        digest: fetched.digest,
        filename: fetched.name,
        modified: fetched.modified,
    })
}

/// What the server answers, once in a build.
async fn asked(
    job: &Job,
    vertex: &Vertex,
    wanted: &Wanted,
    reporter: &mut Reporter,
) -> Result<Fetched, OpError> {
    let cell = job.sources.http(&wanted.name());
    let mut asked = false;
    let fetched = cell
        .get_or_try_init(|| {
            asked = true;
            resolve(job, vertex, wanted, reporter)
        })
        .await?
        .clone();
    if !asked {
        reporter.cached();
    }
    Ok(fetched)
}

/// Digest of what `source` was in this build.
pub(super) fn found(job: &Job, source: &SourceOp) -> Option<Digest> {
    let wanted = Wanted::of(source).ok()?;
    let fetched = || Some(job.sources.http(&wanted.name()).get()?.digest.clone());
    wanted.checksum.clone().or_else(fetched)
}

/// Fetches a file whose checksum was given.
pub(super) async fn run(job: &Job, source: &SourceOp, cancel: &CancellationToken) -> Result<Chain, OpError> {
    let wanted = Wanted::of(source)?;
    let request = wanted.request(job).await?;
    let (_, landed) = tokio::select! {
        fetched = fetch(job, &wanted, &request) => fetched?,
        () = cancel.cancelled() => return Err(OpError::Canceled),
    };
    let landed = landed.ok_or(OpError::NoSuchInput(None))?;
    wanted.check(&landed)?;
    commit(landed).await
}
