//! Attestations of results: what a front end, a scanner or this program says of an image, and how it becomes in-toto
//! statements (`solver/result/attestation.go`, `exporter/attestation`). Exporters put the statements where they belong.

mod bundle;
pub mod sbom;
mod statement;
mod supplement;

use std::path::Path;
use std::sync::Arc;

use rbuild_oci::Digest;
use rbuild_snapshotter::StackError;
use rbuild_store::StoreError;
use rbuild_sys::{RootFd, RootFdError};
use serde_json::Value as Json;

use crate::job::Job;
use crate::ops::blocking;
use crate::provenance::draft::Draft;
use crate::provenance::predicate::TYPE_PREFIX as PROVENANCE;
use crate::pull::PullError;
use crate::value::Chain;

pub use statement::{Statement, StatementSubject, statement};
pub use supplement::LayerFiles;
pub(crate) use supplement::supplement;

/// Predicate type of SPDX documents.
pub const SPDX: &str = "https://spdx.dev/Document";
/// Largest file of an attestation, bytes (`exporter/attestation/make.go`).
const FILE_BYTES_MAX: u64 = 40 << 20;

/// Why attestations cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum AttestationError {
    /// It has no name.
    #[error("attestation does not have set path")]
    NoPath,
    /// It says nothing.
    #[error("attestation does not have available content")]
    NoContent,
    /// Provenance is made here and nowhere else.
    #[error("frontend may not set provenance attestations")]
    Provenance,
    /// Nor in bundles.
    #[error("frontend may not bundle provenance attestations")]
    BundledProvenance,
    /// A statement of a bundle is of another type than the bundle says.
    #[error("bundle entry {found} does not match required predicate type {required}")]
    PredicateType {
        /// What it is.
        found: String,
        /// What it has to be.
        required: String,
    },
    /// A file of a bundle is no statement.
    #[error("cannot decode in-toto statement {path:?}")]
    Statement {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// What is said is not JSON.
    #[error("failed to marshal attestation {path:?}")]
    Predicate {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Too many.
    #[error("more than {0} attestations in one bundle")]
    TooMany(usize),
    /// A file cannot be read.
    #[error("cannot read in-toto attestation")]
    Read(#[from] RootFdError),
    /// A bundle's directory cannot be listed.
    #[error("cannot list attestation bundle {path:?}")]
    List {
        /// The directory.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Layers could not be had.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// Layers could not be mounted.
    #[error(transparent)]
    Snapshot(#[from] StackError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Something that is said of a result.
#[derive(Debug, Clone)]
pub struct Attestation {
    /// What is said.
    pub content: Content,
    /// Name of its file; where the content is a file system, the place in it.
    pub path: String,
    /// Type of the predicate; of a bundle, that of all its statements, empty for any.
    pub predicate_type: String,
    /// What it is said of; the result if empty.
    pub subjects: Vec<Subject>,
    /// It is a list of packages, and the one of the result itself has this name.
    pub sbom_core: Option<String>,
    /// For exporters that can put it beside the image, and no others.
    pub inline_only: bool,
}

/// What is said.
#[derive(Debug, Clone)]
pub enum Content {
    /// How the result was made.
    Provenance(Arc<Draft>),
    /// A predicate in a file.
    File(Chain),
    /// Statements in a directory.
    Bundle(Chain),
}

/// What an attestation is said of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The result, under its names and this one.
    Result(Option<String>),
    /// Something else.
    Other {
        /// Its name.
        name: String,
        /// Its digests.
        digests: Vec<Digest>,
    },
}

/// An attestation whose predicate is here.
#[derive(Debug, Clone)]
pub struct Told {
    /// Name of its file.
    pub path: String,
    /// Type of the predicate.
    pub predicate_type: String,
    /// What it is said of; the result if empty.
    pub subjects: Vec<Subject>,
    /// See [`Attestation::sbom_core`].
    pub sbom_core: Option<String>,
    /// What is said; null if nothing.
    pub predicate: Json,
}

impl Told {
    /// Whether it is the list of packages of the result itself.
    fn is_core(&self) -> bool {
        let file = Path::new(&self.path).file_name().unwrap_or_default();
        let stem = file.to_str().and_then(|name| name.split('.').next());
        self.sbom_core.as_deref().is_some_and(|core| stem == Some(core))
    }

    /// Its file's name.
    #[must_use]
    pub fn file_name(&self) -> &str {
        let name = Path::new(&self.path).file_name();
        name.and_then(std::ffi::OsStr::to_str).unwrap_or_default()
    }
}

/// The predicates of `attestations`, bundles taken apart, the result's own list of packages first.
///
/// # Errors
/// [`AttestationError`].
pub async fn told<'a>(
    job: &Arc<Job>,
    attestations: impl IntoIterator<Item = &'a Attestation>,
) -> Result<Vec<Told>, AttestationError> {
    let mut all = Vec::new();
    for attestation in attestations {
        match &attestation.content {
            Content::Provenance(draft) => {
                let predicate = draft.tell(job).await?;
                all.push(attestation.told(predicate)?);
            }
            Content::File(_) if attestation.predicate_type.starts_with(PROVENANCE) => {
                return Err(AttestationError::Provenance);
            }
            Content::File(chain) => {
                let root = view(job, chain).await?;
                let path = attestation.path.clone();
                let bytes = blocking(move || root.read_file(Path::new(&path), FILE_BYTES_MAX)).await?;
                let fail = |source| AttestationError::Predicate {
                    path: attestation.path.clone(),
                    source,
                };
                let predicate = match bytes.as_slice() {
                    [] => Json::Null,
                    bytes => serde_json::from_slice(bytes).map_err(fail)?,
                };
                all.push(attestation.told(predicate)?);
            }
            Content::Bundle(chain) => {
                let root = view(job, chain).await?;
                let bundle = attestation.clone();
                all.extend(blocking(move || bundle::open(&root, &bundle)).await?);
            }
        }
    }
    // Stable: the others stay as they were.
    all.sort_by_key(|told| !told.is_core());
    Ok(all)
}

impl Attestation {
    /// How a result came to be.
    #[must_use]
    pub fn provenance(draft: Arc<Draft>) -> Self {
        Self {
            path: draft.options().filename.clone(),
            predicate_type: draft.predicate_type().to_owned(),
            inline_only: draft.options().inline_only,
            content: Content::Provenance(draft),
            subjects: Vec::new(),
            sbom_core: None,
        }
    }

    fn told(&self, predicate: Json) -> Result<Told, AttestationError> {
        if self.path.is_empty() {
            return Err(AttestationError::NoPath);
        }
        Ok(Told {
            path: self.path.clone(),
            predicate_type: self.predicate_type.clone(),
            subjects: self.subjects.clone(),
            sbom_core: self.sbom_core.clone(),
            predicate,
        })
    }
}

async fn view(job: &Arc<Job>, chain: &Chain) -> Result<RootFd, AttestationError> {
    let chain = job.unpack_chain(chain).await?;
    let (engine, lease) = (Arc::clone(&job.engine), Arc::clone(&job.lease));
    let view = blocking(move || engine.snapshotter.view(&lease, chain.layers())).await?;
    Ok(view.into_root())
}
