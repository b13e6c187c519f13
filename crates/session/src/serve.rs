//! gRPC's serving side without generated code: methods by path, each with a closure. What a client of a session is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::Grpc;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::call::MESSAGE_BYTES_MAX;
use crate::header::query_unescape;
use crate::whole_body::WholeBody;

type Handler =
    Arc<dyn Fn(Request<WholeBody>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync>;

/// Methods by path.
#[derive(Default)]
pub(crate) struct Routes(BTreeMap<&'static str, Handler>);

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Routes {
    pub(crate) fn methods(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    pub(crate) fn unary<Q, A>(
        &mut self,
        method: &'static str,
        answer: impl Fn(&MetadataMap, Q) -> Result<A, Status> + Send + Sync + 'static,
    ) where
        Q: prost::Message + Default + Send + Sync + 'static,
        A: prost::Message + Send + Sync + 'static,
    {
        let answer = Arc::new(answer);
        let handler = move |request| {
            let service = Unary(Arc::clone(&answer), PhantomData::<fn(Q) -> A>);
            Box::pin(async move { grpc::<A, Q>().unary(service, request).await }) as _
        };
        self.0.insert(method, Arc::new(handler));
    }

    pub(crate) fn script<Q, A, F>(
        &mut self,
        method: &'static str,
        script: impl Fn(Dialogue<Q, A>) -> F + Send + Sync + 'static,
    ) where
        Q: prost::Message + Default + Send + Sync + 'static,
        A: prost::Message + Send + Sync + 'static,
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let script = Arc::new(script);
        let handler = move |request| {
            let service = Script(Arc::clone(&script), PhantomData::<fn(Q) -> A>);
            Box::pin(async move { grpc::<A, Q>().streaming(service, request).await }) as _
        };
        self.0.insert(method, Arc::new(handler));
    }
}

/// Answers one request.
pub(crate) async fn dispatch(
    routes: Arc<Routes>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    Ok(match routes.0.get(request.uri().path()) {
        Some(handler) => handler(request.map(WholeBody::new)).await,
        None => Status::unimplemented("unknown service").into_http(),
    })
}

fn grpc<A, Q>() -> Grpc<ProstCodec<A, Q>>
where
    Q: prost::Message + Default + Send + 'static,
    A: prost::Message + Send + 'static,
{
    Grpc::new(ProstCodec::default())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

struct Unary<H, Q, A>(Arc<H>, PhantomData<fn(Q) -> A>);

impl<H, Q, A> tower_service::Service<tonic::Request<Q>> for Unary<H, Q, A>
where
    H: Fn(&MetadataMap, Q) -> Result<A, Status>,
{
    type Response = tonic::Response<A>;
    type Error = Status;
    type Future = Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let (metadata, _, question) = request.into_parts();
        ready((self.0)(&metadata, question).map(tonic::Response::new))
    }
}

/// Both streams of a call.
#[derive(Debug)]
pub struct Dialogue<Q, A> {
    metadata: MetadataMap,
    questions: Streaming<Q>,
    answers: mpsc::Sender<Result<A, Status>>,
}

impl<Q, A> Dialogue<Q, A> {
    /// The call's metadata as it came.
    #[must_use]
    pub const fn metadata(&self) -> &MetadataMap {
        &self.metadata
    }

    /// The values of a key, decoded as BuildKit's client does.
    #[must_use]
    pub fn headers(&self, key: &str) -> Vec<String> {
        let encoded = crate::header::first(&self.metadata, &format!("{key}-encoded")) == Some("1");
        let values = self.metadata.get_all(key).iter().filter_map(|v| v.to_str().ok());
        let decode = |value: &str| match encoded {
            true => query_unescape(value).unwrap_or_default(),
            false => value.to_owned(),
        };
        values.map(decode).collect()
    }

    /// The first value of a key, or nothing.
    #[must_use]
    pub fn header(&self, key: &str) -> String {
        self.headers(key).into_iter().next().unwrap_or_default()
    }

    /// The server's next message.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn next(&mut self) -> Result<Option<Q>, Status> {
        self.questions.message().await
    }

    /// Both streams by themselves.
    pub(crate) fn split(self) -> (Streaming<Q>, mpsc::Sender<Result<A, Status>>) {
        (self.questions, self.answers)
    }

    /// Says something to the server.
    ///
    /// # Errors
    /// It does not listen any more.
    pub async fn say(&self, answer: A) -> Result<(), Status> {
        let gone = |_| Status::cancelled("the server has left the call");
        self.answers.send(Ok(answer)).await.map_err(gone)
    }
}

struct Script<H, Q, A>(Arc<H>, PhantomData<fn(Q) -> A>);

/// What a script says; its task ends with it.
pub(crate) struct Said<A> {
    first: Option<Result<A, Status>>,
    answers: mpsc::Receiver<Result<A, Status>>,
    _task: AbortOnDropHandle<()>,
}

impl<A> Unpin for Said<A> {}

impl<A> Stream for Said<A> {
    type Item = Result<A, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.answers.poll_recv(cx),
        }
    }
}

impl<H, Q, A, F> tower_service::Service<tonic::Request<Streaming<Q>>> for Script<H, Q, A>
where
    H: Fn(Dialogue<Q, A>) -> F,
    F: Future<Output = Result<(), Status>> + Send + 'static,
    A: Send + 'static,
    Q: 'static,
{
    type Response = tonic::Response<Said<A>>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Streaming<Q>>) -> Self::Future {
        let (metadata, _, questions) = request.into_parts();
        let (answers, mut said) = mpsc::channel(16);
        let talk = (self.0)(Dialogue {
            metadata,
            questions,
            answers: answers.clone(),
        });
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(status) = talk.await {
                answers.send(Err(status)).await.ok();
            }
        }));
        Box::pin(async move {
            // Go sends the head of an answer with its first message, or at the end.
            let first = match said.recv().await {
                Some(Err(status)) => return Err(status),
                first => first,
            };
            Ok(tonic::Response::new(Said {
                first,
                answers: said,
                _task: task,
            }))
        })
    }
}

/// All that is left of a stream of messages.
#[cfg(feature = "fake-client")]
pub(crate) async fn rest<Q, A>(talk: &mut Dialogue<Q, A>) {
    use futures_util::StreamExt as _;
    while let Some(Ok(_)) = talk.questions.next().await {}
}
