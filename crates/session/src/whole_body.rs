//! The body of a call, whose end is told from a reset. hyper 1 ends a body without an error when its stream is reset with
//! `CANCEL` or `NO_ERROR`, and so does tonic; a server that breaks off half an archive resets with just these. What was
//! not ended by `END_STREAM` (RFC 9113, section 8.1) is an error here.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tonic::Status;

/// A request's body that ends well only if all of it came.
#[derive(Debug)]
pub(crate) struct WholeBody(Incoming);

impl WholeBody {
    pub(crate) const fn new(body: Incoming) -> Self {
        Self(body)
    }
}

impl Body for WholeBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // Not `Code::Cancelled`: tonic takes that for an end, too.
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll_frame(cx)) {
            None if !self.0.is_end_stream() => Some(Err(Status::aborted("the server broke the call off"))),
            None => None,
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => Some(Err(Status::aborted(error.to_string()))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use h2::{Reason, SendStream};
    use http::{Request, Response};
    use hyper::server::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use prost::Message as _;
    use tokio::sync::mpsc;
    use tonic::body::Body;
    use tonic::codec::Codec as _;
    use tonic::{Code, Streaming};
    use tonic_prost::ProstCodec;

    use super::{Bytes, Incoming, WholeBody};
    use crate::wire::BytesMessage;

    /// What a method sees of a call whose first message is followed by `end`.
    async fn seen(end: impl FnOnce(&mut SendStream<Bytes>)) -> Result<Option<BytesMessage>, Code> {
        let (tell, mut told) = mpsc::channel(2);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let decoder = ProstCodec::<(), BytesMessage>::default().decoder();
            let body = WholeBody::new(request.into_body());
            let (mut messages, tell) = (Streaming::new_request(decoder, body, None, None), tell.clone());
            // By itself: hyper drops what answers as soon as it hears of a reset, and either may be the first.
            tokio::spawn(async move {
                for _ in 0..2 {
                    let next = messages.message().await;
                    tell.send(next.map_err(|status| status.code())).await.unwrap();
                }
            });
            std::future::pending::<Result<Response<Body>, Infallible>>()
        });
        let (near, far) = tokio::io::duplex(64 << 10);
        let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(near), service);
        let server = tokio::spawn(serving);
        let (client, connection) = h2::client::handshake(far).await.unwrap();
        let client_side = tokio::spawn(connection);
        let request = Request::post("http://localhost/test/Take").header("content-type", "application/grpc");
        let mut client = client.ready().await.unwrap();
        let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
        let message = BytesMessage {
            data: vec![7; 100].into(),
        };
        let encoded = message.encode_to_vec();
        let mut frame = vec![0];
        frame.extend_from_slice(&u32::try_from(encoded.len()).unwrap().to_be_bytes());
        frame.extend(encoded);
        body.send_data(frame.into(), false).unwrap();
        // A reset throws away what still waits to be sent.
        assert_eq!(told.recv().await.unwrap(), Ok(Some(message)));
        end(&mut body);
        let seen = told.recv().await.unwrap();
        drop(answer);
        server.abort();
        client_side.abort();
        seen
    }

    #[tokio::test]
    async fn a_call_that_is_broken_off_has_no_good_end() {
        let ended = seen(|body| body.send_data(Bytes::new(), true).unwrap()).await;
        assert_eq!(ended, Ok(None));
        for reason in [Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR] {
            let reset = seen(|body| body.send_reset(reason)).await;
            assert_eq!(reset, Err(Code::Aborted), "{reason}");
        }
    }
}
