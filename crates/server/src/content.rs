//! `containerd.services.content.v1.Content` on the server's socket, for reading: what the history keeps of builds, which
//! clients find by the digests in its records (`control/control.go`, `roContentStore`). Refuses to write, and does not
//! know the blobs of the store: those belong to the cache, which clears them when it likes.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use futures_util::Stream;
use rbuild_builder::ops::blocking;
use rbuild_llb::progress::timestamp;
use rbuild_oci::Digest;
use rbuild_session::wire::{
    Bytes, Info, InfoRequest, InfoResponse, ListContentRequest, ListContentResponse, ReadContentRequest,
    ReadContentResponse,
};
use rbuild_store::HistoryBlob;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::filter;
use crate::history::History;

/// Bytes of a blob in one message.
const CHUNK_BYTES: u64 = 256 << 10;
/// Blobs in one message.
const LISTED_MAX: usize = 100;
/// Largest question.
const QUESTION_BYTES_MAX: usize = 1 << 20;

type Answering<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Debug, Clone)]
pub struct ContentService(History);

impl ContentService {
    /// Of what `history` keeps.
    #[must_use]
    pub const fn new(history: History) -> Self {
        Self(history)
    }

    /// What is known of a blob.
    ///
    /// # Errors
    /// `not_found`, and `invalid_argument` for a digest that is none.
    pub async fn info(&self, question: InfoRequest) -> Result<InfoResponse, Status> {
        let (_, blob) = self.open(&question.digest).await?;
        Ok(InfoResponse {
            info: Some(info(&blob)),
        })
    }

    /// Every blob that one of the filters is true of.
    ///
    /// # Errors
    /// `invalid_argument` for filters that are none.
    pub async fn list(
        &self,
        question: ListContentRequest,
    ) -> Result<impl Stream<Item = Result<ListContentResponse, Status>> + Send + use<>, Status> {
        let filters = filter::parse_all(&question.filters)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut infos: Vec<Info> = self.0.blobs().await?.iter().map(info).collect();
        infos.retain(|info| {
            filter::any(&filters, |field| match field {
                "digest" => Some(Cow::Borrowed(info.digest.as_str())),
                "size" => Some(info.size.to_string().into()),
                _ => None,
            })
        });
        let messages: Vec<_> = infos
            .chunks(LISTED_MAX)
            .map(|infos| Ok(ListContentResponse { info: infos.to_vec() }))
            .collect();
        Ok(futures_util::stream::iter(messages))
    }

    /// Bytes of a blob: `size` from `offset` on, or all that follow if it is 0 or too much.
    ///
    /// # Errors
    /// As of [`Self::info`]; `out_of_range` for a place behind the end.
    pub async fn read(
        &self,
        question: ReadContentRequest,
    ) -> Result<impl Stream<Item = Result<ReadContentResponse, Status>> + Send + use<>, Status> {
        let (file, blob) = self.open(&question.digest).await?;
        let start = u64::try_from(question.offset).unwrap_or(0);
        let left = blob
            .size
            .checked_sub(start)
            .ok_or_else(|| Status::out_of_range(format!("read past object length {} bytes", blob.size)))?;
        let size = u64::try_from(question.size).ok().filter(|size| *size > 0);
        let end = start + size.map_or(left, |size| size.min(left));
        let state = Some((file, start));
        // One chunk at a time: a client that does not read holds no thread.
        Ok(futures_util::stream::unfold(state, move |state| async move {
            let (file, at) = state?;
            if at >= end {
                return None;
            }
            let read = blocking(move || chunk(file, at, end)).await;
            Some(match read {
                Ok((file, data)) => {
                    let next = at + data.len() as u64;
                    let offset = i64::try_from(at - start).unwrap_or(i64::MAX);
                    (Ok(ReadContentResponse { offset, data }), Some((file, next)))
                }
                Err(error) => (Err(Status::data_loss(error.to_string())), None),
            })
        }))
    }

    async fn open(&self, digest: &str) -> Result<(File, HistoryBlob), Status> {
        let parsed = Digest::parse(digest)
            .map_err(|_| Status::invalid_argument(format!("{digest:?} failed validation")))?;
        let found = self.0.blob(parsed).await?;
        found.ok_or_else(|| Status::not_found(format!("content {digest}: not found")))
    }
}

fn chunk(file: File, at: u64, end: u64) -> std::io::Result<(File, Bytes)> {
    let size = usize::try_from((end - at).min(CHUNK_BYTES)).unwrap_or(0);
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, at)?;
    Ok((file, bytes.into()))
}

fn info(blob: &HistoryBlob) -> Info {
    let since = Duration::from_millis(u64::try_from(blob.created_ms).unwrap_or(0));
    let written = Some(timestamp(UNIX_EPOCH + since));
    Info {
        digest: blob.digest.to_string(),
        size: i64::try_from(blob.size).unwrap_or(i64::MAX),
        created_at: written,
        updated_at: written,
        ..Info::default()
    }
}

impl NamedService for ContentService {
    const NAME: &'static str = "containerd.services.content.v1.Content";
}

impl tower_service::Service<http::Request<Body>> for ContentService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default();
            Ok(match method {
                "Info" => grpc().unary(InfoCall(service), request).await,
                "List" => grpc().server_streaming(ListCall(service), request).await,
                "Read" => grpc().server_streaming(ReadCall(service), request).await,
                "Update" | "Delete" | "Write" | "Abort" => {
                    Status::unimplemented("read-only content store").into_http()
                }
                _ => Status::unimplemented("unknown method").into_http(),
            })
        })
    }
}

fn grpc<A, Q>() -> Grpc<ProstCodec<A, Q>>
where
    A: prost::Message + Send + 'static,
    Q: prost::Message + Default + Send + 'static,
{
    Grpc::new(ProstCodec::default()).max_decoding_message_size(QUESTION_BYTES_MAX)
}

struct InfoCall(ContentService);
struct ListCall(ContentService);
struct ReadCall(ContentService);

impl tower_service::Service<Request<InfoRequest>> for InfoCall {
    type Response = Response<InfoResponse>;
    type Error = Status;
    type Future = Answering<InfoResponse>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<InfoRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move { Ok(Response::new(service.info(request.into_inner()).await?)) })
    }
}

impl tower_service::Service<Request<ListContentRequest>> for ListCall {
    type Response = Response<Answers<ListContentResponse>>;
    type Error = Status;
    type Future = Answering<Answers<ListContentResponse>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ListContentRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            let answers = service.list(request.into_inner()).await?;
            Ok(Response::new(Box::pin(answers) as Answers<ListContentResponse>))
        })
    }
}

impl tower_service::Service<Request<ReadContentRequest>> for ReadCall {
    type Response = Response<Answers<ReadContentResponse>>;
    type Error = Status;
    type Future = Answering<Answers<ReadContentResponse>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReadContentRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            let answers = service.read(request.into_inner()).await?;
            Ok(Response::new(Box::pin(answers) as Answers<ReadContentResponse>))
        })
    }
}
