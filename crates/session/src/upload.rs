//! One file that the client has ready to be fetched: a context that came on its standard input (`session/upload`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use prost::bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::StreamReader;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;

use crate::call::{CallError, Conversation};
use crate::header::put_encoded;
use crate::session::Session;
use crate::wire::BytesMessage;

const METHOD: &str = "/moby.upload.v1.Upload/Pull";

/// Why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The caller stopped it.
    #[error("cancelled")]
    Cancelled,
    /// It is longer than the caller's budget.
    #[error("the client sends more than {0} bytes")]
    TooLong(u64),
}

/// The file's bytes. An [`UploadError`] comes out as the cause of the `io::Error`.
pub struct UploadReader(StreamReader<Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>, Bytes>);

impl Session {
    /// Fetches the file at `http://<url_host>/<url_path>`; the client knows it by the last part of the path. More
    /// than `bytes_max` bytes are an error.
    ///
    /// # Errors
    /// [`UploadError`]; later errors come out of the reader.
    pub async fn upload(
        &self,
        url_host: &str,
        url_path: &str,
        bytes_max: u64,
        cancel: &CancellationToken,
    ) -> Result<UploadReader, UploadError> {
        let mut metadata = MetadataMap::new();
        for (key, value) in [("urlpath", url_path), ("urlhost", url_host)] {
            put_encoded(&mut metadata, key, &[value.to_owned()]).map_err(|fault| CallError::Header {
                method: METHOD,
                fault,
            })?;
        }
        let nothing = futures_util::stream::empty::<BytesMessage>();
        let stream = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(UploadError::Cancelled),
            stream = self.converse::<BytesMessage, BytesMessage>(METHOD, nothing, metadata) => stream?,
        };
        let chunks = chunks(stream, bytes_max, cancel.clone());
        Ok(UploadReader(StreamReader::new(Box::pin(chunks))))
    }
}

fn chunks(
    stream: Conversation<BytesMessage>,
    bytes_max: u64,
    cancel: CancellationToken,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let fail = |error: UploadError| Some((Err(io::Error::other(error)), None));
    futures_util::stream::unfold(Some((stream, bytes_max)), move |state| {
        let cancel = cancel.clone();
        async move {
            let (mut stream, left) = state?;
            let next = tokio::select! {
                biased;
                () = cancel.cancelled() => return fail(UploadError::Cancelled),
                next = stream.next() => next,
            };
            match next.transpose()? {
                Ok(BytesMessage { data }) => match left.checked_sub(data.len() as u64) {
                    Some(left) => Some((Ok(data), Some((stream, left)))),
                    None => fail(UploadError::TooLong(bytes_max)),
                },
                Err(error) => fail(error.into()),
            }
        }
    })
}

impl AsyncRead for UploadReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl std::fmt::Debug for UploadReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UploadReader(..)")
    }
}
