//! What is known of a source before anything is built of it: an image's digest and config, the commit behind a ref, the
//! digest of a file behind a URL (`client/llb/sourceresolver`). What is asked here means the same for the whole build.

use rbuild_graph::{Op, SourceOp, Vertex, VertexMeta};
use rbuild_oci::{Digest, Platform, Reference};

use crate::images::Lookup;
use crate::images::chain::AttestationChain;
use crate::images::source::Asker;
use crate::job::Job;
use crate::ops::OpError;
use crate::ops::source::{git, http};
use crate::solve::Reporter;

/// A question for a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetaQuestion {
    /// For which platform; the host's if absent.
    pub platform: Option<Platform>,
    /// Ask the registry even if the image is known.
    pub pull: bool,
    /// An image's config is not wanted.
    pub no_config: bool,
    /// An image's attestations are wanted: where they are, and the statements of these types of predicates.
    pub attestations: Option<Vec<String>>,
    /// The commit and tag themselves are wanted.
    pub git_objects: bool,
    /// What is shown meanwhile; a text of our own if empty.
    pub log_name: String,
}

/// What is known of a source: one of these, or nothing for sources there is nothing to ask of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceMeta {
    /// Of an image.
    pub image: Option<ImageMeta>,
    /// Of a repository.
    pub git: Option<GitMeta>,
    /// Of a file behind a URL.
    pub http: Option<HttpMeta>,
}

/// Of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageMeta {
    /// Of what its name leads to: an index, or the manifest.
    pub digest: Digest,
    /// Its config; empty if it was not wanted.
    pub config: Vec<u8>,
    /// What stands beside it in its index, if that was wanted and there is an index.
    pub attestations: Option<AttestationChain>,
}

/// Of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitMeta {
    /// The commit or the annotated tag.
    pub checksum: String,
    /// The ref in full.
    pub reference: String,
    /// The commit that an annotated tag names.
    pub commit_checksum: Option<String>,
    /// The commit itself.
    pub commit_object: Vec<u8>,
    /// The annotated tag itself.
    pub tag_object: Vec<u8>,
}

/// Of a file behind a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpMeta {
    /// Of its bytes.
    pub digest: Digest,
    /// What it is called.
    pub filename: String,
    /// When it changed, as the server says; seconds since 1970.
    pub modified: Option<i64>,
}

/// Finds out what `question` asks of `source`.
///
/// # Errors
/// Those of the source.
pub async fn resolve(job: &Job, source: &SourceOp, question: &MetaQuestion) -> Result<SourceMeta, OpError> {
    let name = if question.log_name.is_empty() {
        let shown = rbuild_frontend::redact_credentials(&source.identifier);
        format!("resolve source metadata for {shown}")
    } else {
        question.log_name.clone()
    };
    let mut reporter = Reporter::internal(&job.sink, &name);
    reporter.start(None);
    let found = Box::pin(one(job, source, question, &mut reporter)).await;
    match &found {
        Ok(_) => reporter.done(),
        Err(error) => reporter.failed(crate::error::chain_text(error)),
    }
    found
}

async fn one(
    job: &Job,
    source: &SourceOp,
    question: &MetaQuestion,
    reporter: &mut Reporter,
) -> Result<SourceMeta, OpError> {
    let mut meta = SourceMeta::default();
    match source.identifier.split_once("://") {
        Some(("docker-image" | "oci-layout", _)) => {
            let mut asked = source.clone();
            if question.pull {
                asked
                    .attrs
                    .insert("image.resolvemode".to_owned(), "pull".to_owned());
            }
            let asker = Asker {
                lease: &job.lease,
                client: &job.client,
            };
            let images = &job.engine.images;
            let found = images
                .of_source(asker, &asked, question.platform.as_ref())
                .await?;
            let config = if question.no_config {
                Vec::new()
            } else {
                found.image.config_bytes.clone()
            };
            let digest = found.image.digest.clone();
            meta.image = Some(ImageMeta {
                attestations: attestations(job, &source.identifier, &digest, question).await?,
                digest,
                config,
            });
        }
        Some(("git", _)) => meta.git = Some(git::meta(job, source, question.git_objects, reporter).await?),
        Some(("http" | "https", _)) => {
            let vertex = vertex(source, &question.log_name);
            meta.http = Some(http::meta(job, &vertex, source, reporter).await?);
        }
        _ => {}
    }
    Ok(meta)
}

/// What is attested of the image of `digest`, if that is wanted: of exactly this image, whatever its name means by now.
async fn attestations(
    job: &Job,
    identifier: &str,
    digest: &Digest,
    question: &MetaQuestion,
) -> Result<Option<AttestationChain>, OpError> {
    let (Some(types), Some(name)) = (&question.attestations, identifier.strip_prefix("docker-image://"))
    else {
        return Ok(None);
    };
    let exact = match Reference::parse(name) {
        Ok(reference) if reference.digest().is_none() => format!("{name}@{digest}"),
        _ => name.to_owned(),
    };
    let host = Platform::host();
    let lookup = Lookup {
        platform: question.platform.as_ref().unwrap_or(&host),
        pull: false,
    };
    let images = &job.engine.images;
    let chain = images.attestation_chain(&job.lease, &exact, &lookup, types);
    Ok(chain.await?)
}

/// A source as a vertex that nothing stands on.
pub(crate) fn vertex(source: &SourceOp, title: &str) -> Vertex {
    Vertex {
        op: Op::Source(source.clone()),
        inputs: Vec::new(),
        platform: None,
        constraints: Vec::new(),
        meta: VertexMeta {
            name: title.to_owned(),
            ..VertexMeta::default()
        },
    }
}
