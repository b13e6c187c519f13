//! A stream of bytes to the client: archives of the `oci`, `docker` and `tar` exporters (`session/filesync`,
//! `CopyFileWriter`). Writing waits when the client does not read, and the end waits for the client's own.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use prost::bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;
use tonic::metadata::MetadataMap;

use crate::call::CallError;
use crate::header::put;
use crate::session::Session;
use crate::wire::BytesMessage;

pub(crate) const METHOD: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// Which of the client's exporters is meant.
pub(crate) const EXPORTER_ID: &str = "buildkit-attachable-exporter-id";
/// Prefix of what an exporter tells the client of its result.
const EXPORTER_METADATA_PREFIX: &str = "exporter-md-";
/// Bytes of one message, well below what any client takes.
const CHUNK_BYTES: usize = 256 << 10;
/// Messages that may wait for the connection.
const QUEUE: usize = 2;

/// Why bytes did not reach the client.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The call failed, or the client refused.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The caller stopped it.
    #[error("cancelled")]
    Cancelled,
    /// The client ended the call before it had everything.
    #[error("the client ended the transfer before it was complete")]
    Ended,
}

impl SendError {
    /// Whether the client says that it has what was to be written (`target already exists`).
    #[must_use]
    pub fn is_already_there(&self) -> bool {
        matches!(self, Self::Call(error) if error.code() == Some(Code::AlreadyExists))
    }
}

/// Where bytes for the client go. Dropping it without [`BytesSender::finish`] breaks the transfer off, so that the
/// client does not take half an archive for a whole one.
#[derive(Debug)]
pub struct BytesSender {
    chunks: mpsc::Sender<BytesMessage>,
    call: Option<AbortOnDropHandle<Result<(), SendError>>>,
    /// Cancelled when the call is over, whoever ended it.
    over: CancellationToken,
    /// Set when everything was written.
    whole: Arc<AtomicBool>,
    buffer: BytesMut,
}

impl Session {
    /// Opens a stream of bytes to the client's exporter `id`. `metadata` is what the exporter says of its result.
    ///
    /// # Errors
    /// [`SendError`]; that the client refuses shows when something is written, or at the end.
    pub fn send_bytes(
        &self,
        id: u32,
        metadata: &BTreeMap<String, String>,
        cancel: &CancellationToken,
    ) -> Result<BytesSender, SendError> {
        if !self.supports(METHOD) {
            return Err(CallError::Unsupported { method: METHOD }.into());
        }
        let mut headers = MetadataMap::new();
        let fail = |fault| CallError::Header {
            method: METHOD,
            fault,
        };
        for (key, value) in metadata {
            let key = format!("{EXPORTER_METADATA_PREFIX}{}", key.to_ascii_lowercase());
            put(&mut headers, &key, value).map_err(fail)?;
        }
        put(&mut headers, EXPORTER_ID, &id.to_string()).map_err(fail)?;
        let (chunks, mut outbox) = mpsc::channel(QUEUE);
        let whole = Arc::new(AtomicBool::new(false));
        let is_whole = Arc::clone(&whole);
        let questions = futures_util::stream::poll_fn(move |cx| match outbox.poll_recv(cx) {
            // What is not finished does not end; it is broken off with the call.
            Poll::Ready(None) if !is_whole.load(Ordering::Acquire) => Poll::Pending,
            other => other,
        });
        let session = self.clone();
        let over = CancellationToken::new();
        let (cancel, done) = (cancel.clone(), over.clone().drop_guard());
        let call = tokio::spawn(async move {
            let _done = done;
            let dialogue = async {
                let mut answers = session
                    .converse::<BytesMessage, BytesMessage>(METHOD, questions, headers)
                    .await?;
                while answers.next().await?.is_some() {}
                Ok(())
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(SendError::Cancelled),
                ended = dialogue => ended,
            }
        });
        Ok(BytesSender {
            chunks,
            call: Some(AbortOnDropHandle::new(call)),
            over,
            whole,
            buffer: BytesMut::new(),
        })
    }
}

impl BytesSender {
    /// Sends bytes; waits if the client does not keep up.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), SendError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == CHUNK_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Sends what is left, and waits until the client has done its part.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn finish(mut self) -> Result<(), SendError> {
        self.flush().await?;
        let Self {
            chunks, call, whole, ..
        } = self;
        whole.store(true, Ordering::Release);
        drop(chunks);
        ended(call).await
    }

    /// The same for code that does not wait asynchronously. Must be used on a thread that may block, such as one of
    /// `spawn_blocking`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn into_blocking(self) -> BlockingSender {
        BlockingSender {
            runtime: Handle::current(),
            sender: self,
        }
    }

    async fn flush(&mut self) -> Result<(), SendError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data: Bytes = self.buffer.split().freeze();
        let sent = tokio::select! {
            biased;
            () = self.over.cancelled() => false,
            sent = self.chunks.send(BytesMessage { data }) => sent.is_ok(),
        };
        if sent {
            return Ok(());
        }
        ended(self.call.take()).await?;
        Err(SendError::Ended)
    }
}

/// How the call ended.
async fn ended(call: Option<AbortOnDropHandle<Result<(), SendError>>>) -> Result<(), SendError> {
    match call {
        None => Err(SendError::Ended),
        Some(call) => match call.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(SendError::Cancelled),
            },
        },
    }
}

/// [`BytesSender`] as a [`std::io::Write`]r. An error of the client comes out as the cause of the `io::Error`.
#[derive(Debug)]
pub struct BlockingSender {
    runtime: Handle,
    sender: BytesSender,
}

impl BlockingSender {
    /// As [`BytesSender::finish`].
    ///
    /// # Errors
    /// [`SendError`].
    pub fn finish(self) -> Result<(), SendError> {
        self.runtime.block_on(self.sender.finish())
    }
}

impl io::Write for BlockingSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Only a full buffer has to wait; archives are written in small pieces.
        if self.sender.buffer.len() + bytes.len() < CHUNK_BYTES {
            self.sender.buffer.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        let Self { runtime, sender } = self;
        runtime.block_on(sender.write(bytes)).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let Self { runtime, sender } = self;
        runtime.block_on(sender.flush()).map_err(io::Error::other)
    }
}
