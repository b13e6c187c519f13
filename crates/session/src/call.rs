//! One gRPC call to the client. Owns the limits of every call: message sizes, time, and that it ends with the session.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{CancellationHandle, Code, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::header::HeaderError;
use crate::session::{CloseReason, Session};

/// Most bytes of one message in either direction: containerd's default, which BuildKit's client and daemon use.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Longest a client may take to answer a simple question (`session/auth/auth.go`, `sessionAuthTimeout`).
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a client's error text that are kept.
const TEXT_BYTES_MAX: usize = 8 << 10;

/// Why a call to a client failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The client does not serve the method.
    #[error("method {method} not supported by the client")]
    Unsupported {
        /// Path of the method.
        method: &'static str,
    },
    /// The session is over.
    #[error("session {session} is closed: {reason}")]
    Closed {
        /// Its id.
        session: String,
        /// Why.
        reason: CloseReason,
    },
    /// The client did not answer in time.
    #[error("{method}: no answer from the client in {seconds} seconds")]
    TimedOut {
        /// Path of the method.
        method: &'static str,
        /// How long it had.
        seconds: u64,
    },
    /// The client answered with an error.
    #[error("{message}")]
    Refused {
        /// Path of the method.
        method: &'static str,
        /// gRPC's code.
        code: Code,
        /// The client's text.
        message: String,
    },
    /// What is to be asked cannot be said.
    #[error("{method}: {fault}")]
    Header {
        /// Path of the method.
        method: &'static str,
        /// Which text.
        fault: HeaderError,
    },
}

impl CallError {
    /// What the client answered, as Go shows an error of a call.
    #[must_use]
    pub fn in_go_words(&self) -> Option<String> {
        match self {
            Self::Refused { code, message, .. } => {
                Some(format!("rpc error: code = {code:?} desc = {message}"))
            }
            _ => None,
        }
    }

    /// gRPC's code, if the client answered with one.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Unsupported { .. } => Some(Code::Unimplemented),
            Self::Closed { .. } | Self::TimedOut { .. } | Self::Header { .. } => None,
        }
    }
}

/// The connection to the client as a service that tonic can call.
#[derive(Clone, Debug)]
pub(crate) struct Http2(SendRequest<Body>);

impl Http2 {
    pub(crate) const fn new(sender: SendRequest<Body>) -> Self {
        Self(sender)
    }
}

impl tower_service::Service<Request<Body>> for Http2 {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

impl Session {
    /// Asks one question. Ends with the session, and if `limit` is given with that.
    pub(crate) async fn ask<Q, A>(
        &self,
        method: &'static str,
        question: Q,
        metadata: MetadataMap,
        limit: Option<Duration>,
    ) -> Result<A, CallError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut request = tonic::Request::new(question);
        *request.metadata_mut() = metadata;
        let mut grpc = self.grpc();
        let call = async {
            grpc.ready()
                .await
                .map_err(|e| Status::unavailable(e.to_string()))?;
            grpc.unary(
                request,
                PathAndQuery::from_static(method),
                ProstCodec::<Q, A>::default(),
            )
            .await
        };
        let timer = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.over().cancelled() => Err(self.closed_error()),
            answer = call => match answer {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) => Err(self.refusal(method, &status)),
            },
            () = timer => Err(CallError::TimedOut { method, seconds: limit.unwrap_or_default().as_secs() }),
        }
    }

    /// Opens a stream in both directions. The future is done when the client's first message or its end arrives, so
    /// whoever has to speak first must go on speaking meanwhile. It ends with the session. Dropping it, or what it
    /// gives, breaks the call off if it is not over.
    pub(crate) async fn converse<Q, A>(
        &self,
        method: &'static str,
        questions: impl Stream<Item = Q> + Send + 'static,
        metadata: MetadataMap,
    ) -> Result<Conversation<A>, CallError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut request = tonic::Request::new(questions);
        *request.metadata_mut() = metadata;
        let breaker = Breaker(Some(request.cancellation_handle()));
        let mut grpc = self.grpc();
        let call = async {
            grpc.ready()
                .await
                .map_err(|e| Status::unavailable(e.to_string()))?;
            grpc.streaming(
                request,
                PathAndQuery::from_static(method),
                ProstCodec::<Q, A>::default(),
            )
            .await
        };
        tokio::select! {
            biased;
            () = self.over().cancelled() => Err(self.closed_error()),
            answer = call => match answer {
                Ok(answer) => Ok(Conversation {
                    session: self.clone(),
                    method,
                    answers: answer.into_inner(),
                    _breaker: breaker,
                }),
                Err(status) => Err(self.refusal(method, &status)),
            },
        }
    }

    fn grpc(&self) -> Grpc<Http2> {
        Grpc::with_origin(self.http(), Uri::from_static("http://localhost"))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn closed_error(&self) -> CallError {
        CallError::Closed {
            session: self.id().to_owned(),
            reason: self.close_reason(),
        }
    }

    /// What a status means: the end of the session if that is what it comes from, else the client's refusal.
    fn refusal(&self, method: &'static str, status: &Status) -> CallError {
        if self.is_closed() {
            return self.closed_error();
        }
        if status.code() == Code::Unimplemented {
            return CallError::Unsupported { method };
        }
        CallError::Refused {
            method,
            code: status.code(),
            message: clip(status.message()),
        }
    }
}

/// The client's side of a stream in both directions.
#[derive(Debug)]
pub(crate) struct Conversation<A> {
    session: Session,
    method: &'static str,
    answers: Streaming<A>,
    _breaker: Breaker,
}

impl<A> Conversation<A> {
    /// The client's next message; `None` when it has ended the call well. Ends with the session.
    pub(crate) async fn next(&mut self) -> Result<Option<A>, CallError> {
        tokio::select! {
            biased;
            () = self.session.over().cancelled() => Err(self.session.closed_error()),
            answer = self.answers.message() => {
                answer.map_err(|status| self.session.refusal(self.method, &status))
            }
        }
    }
}

/// Resets a call when it is dropped: that questions have ended must not look as if all had been asked.
#[derive(Debug)]
struct Breaker(Option<CancellationHandle>);

impl Drop for Breaker {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.cancel();
        }
    }
}

/// A client's text, of bounded length.
pub(crate) fn clip(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}
