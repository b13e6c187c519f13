//! A content store of the client: OCI layouts it has on its disk (`session/content`; containerd's Content service).

use std::collections::BTreeMap;

use prost::bytes::Bytes;
use rbuild_oci::Digest;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::metadata::MetadataMap;

use crate::call::{ANSWER_TIMEOUT, CallError, Conversation};
use crate::header::put;
use crate::session::Session;
use crate::wire::{InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse};

const INFO: &str = "/containerd.services.content.v1.Content/Info";
const READ: &str = "/containerd.services.content.v1.Content/Read";
const STORE_ID: &str = "buildkit-attachable-store-id";
/// Labels of one blob that are kept.
const LABELS_MAX: usize = 1024;

/// Why a blob could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The caller stopped it.
    #[error("cancelled")]
    Cancelled,
    /// The client has no such blob.
    #[error("{0}: not found")]
    NotFound(Digest),
    /// The client's answer contradicts the question.
    #[error("{digest}: the client's answer does not fit: {what}")]
    Unfit {
        /// The blob.
        digest: Digest,
        /// What is wrong.
        what: &'static str,
    },
}

/// One of the client's stores.
#[derive(Debug, Clone)]
pub struct ContentStore {
    session: Session,
    id: String,
}

/// What the client knows of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its bytes.
    pub size: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A blob's bytes as they come. Not verified: the caller hashes what it keeps.
#[derive(Debug)]
pub struct BlobReader {
    digest: Digest,
    stream: Conversation<ReadContentResponse>,
    cancel: CancellationToken,
    next: u64,
    end: u64,
}

impl Session {
    /// The client's store of this id. An OCI layout that the client calls `name` is the store `oci:name`, a local
    /// cache directory `local:path` (`client/solve.go`).
    #[must_use]
    pub fn content_store(&self, id: &str) -> ContentStore {
        ContentStore {
            session: self.clone(),
            id: id.to_owned(),
        }
    }
}

impl ContentStore {
    /// What the client knows of a blob.
    ///
    /// # Errors
    /// [`ContentError`].
    pub async fn info(&self, digest: &Digest) -> Result<BlobInfo, ContentError> {
        let question = InfoRequest {
            digest: digest.to_string(),
        };
        let answer: InfoResponse = self
            .session
            .ask(INFO, question, self.metadata(INFO)?, Some(ANSWER_TIMEOUT))
            .await
            .map_err(|error| missing(error, digest))?;
        let unfit = |what| ContentError::Unfit {
            digest: digest.clone(),
            what,
        };
        let info = answer.info.ok_or_else(|| unfit("no info"))?;
        if info.digest != digest.to_string() {
            return Err(unfit("another digest"));
        }
        Ok(BlobInfo {
            size: u64::try_from(info.size).map_err(|_| unfit("a negative size"))?,
            labels: info.labels.into_iter().take(LABELS_MAX).collect(),
        })
    }

    /// Reads `size` bytes of a blob from `offset` on; not more, whatever the client sends.
    ///
    /// # Errors
    /// [`ContentError`].
    pub async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        size: u64,
        cancel: &CancellationToken,
    ) -> Result<BlobReader, ContentError> {
        let unfit = |what| ContentError::Unfit {
            digest: digest.clone(),
            what,
        };
        let end = offset.checked_add(size).ok_or_else(|| unfit("too long"))?;
        let question = ReadContentRequest {
            digest: digest.to_string(),
            offset: i64::try_from(offset).map_err(|_| unfit("too long"))?,
            size: i64::try_from(size).map_err(|_| unfit("too long"))?,
        };
        let questions = futures_util::stream::iter([question]);
        let metadata = self.metadata(READ)?;
        let stream = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(ContentError::Cancelled),
            stream = self.session.converse(READ, questions, metadata) => {
                stream.map_err(|error| missing(error, digest))?
            }
        };
        Ok(BlobReader {
            digest: digest.clone(),
            stream,
            cancel: cancel.clone(),
            next: offset,
            end,
        })
    }

    pub(crate) const fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn metadata(&self, method: &'static str) -> Result<MetadataMap, CallError> {
        let mut metadata = MetadataMap::new();
        put(&mut metadata, STORE_ID, &self.id).map_err(|fault| CallError::Header { method, fault })?;
        Ok(metadata)
    }
}

impl BlobReader {
    /// The next bytes; `None` when all that were asked for have come. What the client says of their place is not
    /// read: containerd counts from the start of the answer, not of the blob, and its own client ignores it.
    ///
    /// # Errors
    /// [`ContentError`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, ContentError> {
        let unfit = |what| ContentError::Unfit {
            digest: self.digest.clone(),
            what,
        };
        while self.next < self.end {
            let answer = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(ContentError::Cancelled),
                answer = self.stream.next() => answer,
            };
            let answer = match answer {
                Ok(None) => return Err(unfit("ends too early")),
                Err(error) => return Err(missing(error, &self.digest)),
                Ok(Some(answer)) => answer,
            };
            let mut data = answer.data;
            let left = self.end - self.next;
            data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            self.next += data.len() as u64;
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

fn missing(error: CallError, digest: &Digest) -> ContentError {
    match error.code() {
        Some(Code::NotFound) => ContentError::NotFound(digest.clone()),
        _ => error.into(),
    }
}
