//! Blobs into a content store of the client: caches it keeps in a directory (`session/content`; the Write call of
//! containerd's Content service). One blob is one call: how far it has come, its bytes, that it is whole.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use prost::bytes::Bytes;
use rbuild_oci::Digest;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::call::{CallError, Conversation};
use crate::content::{ContentError, ContentStore};
use crate::wire::{WriteAction, WriteContentRequest, WriteContentResponse};

const WRITE: &str = "/containerd.services.content.v1.Content/Write";
/// Bytes of one message.
const CHUNK_BYTES: u64 = 1 << 20;

/// Why a blob was not taken.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The client refused it, went away, or contradicts what was said.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The blob could not be read.
    #[error("read blob {digest}")]
    Read {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl From<CallError> for WriteError {
    fn from(error: CallError) -> Self {
        Self::Content(error.into())
    }
}

impl ContentStore {
    /// Puts the first `size` bytes of `file` into the store as `digest`, unless the store has that blob.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn write(
        &self,
        digest: &Digest,
        size: u64,
        file: File,
        cancel: &CancellationToken,
    ) -> Result<(), WriteError> {
        let work = async {
            match self.put(digest, size, Arc::new(file)).await {
                Err(error) if is_there(&error) => Ok(()),
                other => other,
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(ContentError::Cancelled.into()),
            done = work => done,
        }
    }

    async fn put(&self, digest: &Digest, size: u64, file: Arc<File>) -> Result<(), WriteError> {
        let total = i64::try_from(size).map_err(|_| unfit(digest, "too long"))?;
        let say = |action: WriteAction, offset: u64, data: Bytes| WriteContentRequest {
            action: action.into(),
            reference: digest.to_string(),
            total,
            expected: digest.to_string(),
            // Not above the total, which is a length that fits.
            offset: offset.cast_signed(),
            data,
        };
        let (questions, mut outbox) = mpsc::channel(1);
        let stream = futures_util::stream::poll_fn(move |cx| outbox.poll_recv(cx));
        let ask = |question| async {
            questions
                .send(question)
                .await
                .map_err(|_| unfit(digest, "left the call"))
        };
        ask(say(WriteAction::Stat, 0, Bytes::new())).await?;
        let mut answers: Conversation<WriteContentResponse> = self
            .session()
            .converse(WRITE, stream, self.metadata(WRITE)?)
            .await?;
        let mut offset = answered(&mut answers, digest, size).await?;
        while offset < size {
            let count = CHUNK_BYTES.min(size - offset);
            let chunk = read(&file, offset, count)
                .await
                .map_err(|source| WriteError::Read {
                    digest: digest.clone(),
                    source,
                })?;
            ask(say(WriteAction::Write, offset, chunk)).await?;
            if answered(&mut answers, digest, size).await? != offset + count {
                return Err(unfit(digest, "bytes of another place").into());
            }
            offset += count;
        }
        ask(say(WriteAction::Commit, size, Bytes::new())).await?;
        answered(&mut answers, digest, size).await?;
        Ok(())
    }
}

/// The client's next answer: how many bytes it has, never more than there are.
async fn answered(
    answers: &mut Conversation<WriteContentResponse>,
    digest: &Digest,
    size: u64,
) -> Result<u64, WriteError> {
    let answer = answers
        .next()
        .await?
        .ok_or_else(|| unfit(digest, "ends too early"))?;
    let offset = u64::try_from(answer.offset).ok().filter(|offset| *offset <= size);
    Ok(offset.ok_or_else(|| unfit(digest, "more bytes than there are"))?)
}

async fn read(file: &Arc<File>, offset: u64, count: u64) -> std::io::Result<Bytes> {
    let file = Arc::clone(file);
    let work = move || {
        let mut chunk = vec![0; usize::try_from(count).unwrap_or(0)];
        file.read_exact_at(&mut chunk, offset)
            .map(|()| Bytes::from(chunk))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)?
}

fn unfit(digest: &Digest, what: &'static str) -> ContentError {
    ContentError::Unfit {
        digest: digest.clone(),
        what,
    }
}

fn is_there(error: &WriteError) -> bool {
    matches!(error, WriteError::Content(ContentError::Call(error)) if error.code() == Some(Code::AlreadyExists))
}
