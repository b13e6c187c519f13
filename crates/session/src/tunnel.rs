//! The connection inside the stream: bytes of `Control/Session` on one side, HTTP/2 with this side as the client on
//! the other (`session/grpchijack`).

use std::pin::Pin;
use std::task::{Context, Poll};

use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use futures_util::{Stream, StreamExt as _};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio_util::io::ReaderStream;
use tonic::Status;
use tonic::body::Body;

use crate::call::Http2;

/// Bytes on their way in each direction inside this process.
const BUFFER_BYTES: usize = 256 << 10;
/// Bytes of one message to the client; what BuildKit's own end reads at once.
const CHUNK_BYTES: usize = 32 << 10;
/// HTTP/2 windows: what a client may have sent that nobody took. One stream, and all of a session together.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of headers and trailers of one answer; errors of BuildKit's client carry stacks there.
const HEADERS_BYTES_MAX: u32 = 1 << 20;

/// The HTTP/2 connection; does nothing unless polled.
pub(crate) type Connection = http2::Connection<TokioIo<DuplexStream>, Body, TokioExecutor>;

/// The three ends of a new tunnel.
pub(crate) struct Tunnel {
    /// Takes the calls.
    pub(crate) http: Http2,
    /// Has to be polled for calls to go on.
    pub(crate) connection: Connection,
    /// Where the client's bytes go.
    pub(crate) inward: WriteHalf<DuplexStream>,
    /// What the client is to get.
    pub(crate) outward: Outward,
}

/// Bytes for the client, as messages.
#[derive(Debug)]
pub(crate) struct Outward(ReaderStream<ReadHalf<DuplexStream>>);

/// Makes a tunnel. Nothing is awaited of the client.
pub(crate) async fn open() -> Result<Tunnel, hyper::Error> {
    let (near, far) = tokio::io::duplex(BUFFER_BYTES);
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .handshake(TokioIo::new(near))
        .await?;
    let (read, write) = tokio::io::split(far);
    Ok(Tunnel {
        http: Http2::new(sender),
        connection,
        inward: write,
        outward: Outward(ReaderStream::with_capacity(read, CHUNK_BYTES)),
    })
}

/// Carries the client's bytes into the connection until the client ends its stream or breaks it.
pub(crate) async fn carry_in<S>(mut incoming: S, mut inward: WriteHalf<DuplexStream>)
where
    S: Stream<Item = Result<BytesMessage, Status>> + Unpin,
{
    while let Some(Ok(message)) = incoming.next().await {
        if inward.write_all(&message.data).await.is_err() {
            return;
        }
    }
}

impl Stream for Outward {
    type Item = Result<BytesMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // The other end of a pipe inside this process does not fail; it ends.
        self.0.poll_next_unpin(cx).map(|chunk| match chunk {
            Some(Ok(data)) => Some(Ok(BytesMessage { data: data.to_vec() })),
            Some(Err(_)) | None => None,
        })
    }
}
