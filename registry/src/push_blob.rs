//! Pushing blobs: not at all when the registry has it, by mounting when another repository of it has it, else as one
//! stream or in chunks that can be resumed; the latter also when a stream has broken.
//!
//! Follows the upload's `Location` wherever the registry puts it, with its query, but sends no credential to another
//! host and does not leave TLS (security row 33).

use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream;
use rbuild_oci::{Descriptor, Reference};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Body, Method, Url};
use tokio::sync::mpsc;

use crate::blob::Progress;
use crate::client::Client;
use crate::reply::{Reply, location};
use crate::token::Scope;
use crate::transport::{Call, MakeBody, Target};
use crate::{Endpoint, RegistryError};

/// How much is read of a source at a time, in bytes.
const READ_BYTES: usize = 256 << 10;
/// Answers to the request that ends an upload.
const TAKEN: &[u16] = &[200, 201, 204];
/// Least size of a chunk, in bytes: each costs a round trip.
const CHUNK_BYTES_MIN: u64 = 64 << 10;

/// Where a blob's bytes come from. Opened again for each attempt, on a thread that may block.
pub trait BlobSource: Send + Sync + 'static {
    /// A reader of the blob from `offset` on.
    ///
    /// # Errors
    /// Whatever the place says; the upload ends with [`RegistryError::Source`].
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>>;
}

impl BlobSource for std::fs::File {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(FileAt {
            file: self.try_clone()?,
            offset,
        }))
    }
}

impl BlobSource for Vec<u8> {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        Ok(Box::new(io::Cursor::new(self[from..].to_vec())))
    }
}

/// Reads by position, so that readers of one file do not disturb each other.
struct FileAt {
    file: std::fs::File,
    offset: u64,
}

impl Read for FileAt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// How to push a blob.
#[derive(Clone, Debug, Default)]
pub struct PushBlobOptions {
    /// A repository of the same registry that has the blob, to mount it from.
    pub mount_from: Option<String>,
    /// Send chunks of this many bytes instead of one stream, for registries or proxies that limit a request's body.
    pub chunk_bytes: Option<u64>,
}

/// What it took to push a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PushedBlob {
    /// The registry had it.
    Existed,
    /// The registry took it from another of its repositories.
    Mounted,
    /// It was sent.
    Uploaded,
}

impl Client {
    /// Makes sure that the registry of `reference` has the blob in that repository.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn push_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        source: &Arc<dyn BlobSource>,
        options: &PushBlobOptions,
        progress: &Progress,
    ) -> Result<PushedBlob, RegistryError> {
        let endpoint = self.inner.config.push_endpoint(reference)?;
        let scope = Scope::push(&endpoint.repository);
        match self.head_blob(&endpoint, &descriptor.digest, &scope).await {
            Ok(true) => return Ok(PushedBlob::Existed),
            Ok(false) => {}
            // Who may write need not be allowed to look, and some cannot be asked so: the upload says what is wrong, if
            // anything is.
            Err(RegistryError::Unauthorized { .. }) => {}
            Err(error @ RegistryError::Refused(_)) if !error.is_temporary() => {}
            Err(error) => return Err(error),
        }
        let upload = Upload {
            client: self,
            endpoint: &endpoint,
            descriptor,
            source,
            progress,
        };
        let mut mount = options
            .mount_from
            .as_deref()
            .filter(|from| *from != endpoint.repository);
        // Chunks of our own choice: not before one stream has broken, and not where the registry will have none.
        let (mut tried, mut in_chunks, mut may_chunk) = (1, false, options.chunk_bytes.is_none());
        loop {
            let own = in_chunks.then_some(self.inner.options.resumed_chunk_bytes);
            let error = match upload.once(mount, options.chunk_bytes.or(own)).await {
                Ok(pushed) => return Ok(pushed),
                Err(error) => error,
            };
            if in_chunks && !error.is_temporary() {
                (in_chunks, may_chunk) = (false, false);
                continue;
            }
            // A mount was refused, or is what failed.
            mount = None;
            in_chunks = may_chunk && descriptor.size > CHUNK_BYTES_MIN;
            // An upload that the registry no longer knows is begun anew.
            let lost = matches!(error, RegistryError::NotFound(_)) || status(&error) == Some(416);
            if tried >= self.inner.options.attempts || !(self.inner.may_pass(&error) || lost) {
                return Err(error);
            }
            tokio::time::sleep(self.inner.backoff(tried, error.retry_after())).await;
            tried += 1;
        }
    }
}

fn status(error: &RegistryError) -> Option<u16> {
    match error {
        RegistryError::Refused(refusal) => Some(refusal.status.as_u16()),
        _ => None,
    }
}

/// An upload that the registry has begun.
struct Begun {
    url: Url,
    /// Least size of a chunk that it takes (`OCI-Chunk-Min-Length`), the last one aside.
    chunk_bytes_min: u64,
}

struct Upload<'a> {
    client: &'a Client,
    endpoint: &'a Endpoint,
    descriptor: &'a Descriptor,
    source: &'a Arc<dyn BlobSource>,
    progress: &'a Progress,
}

impl Upload<'_> {
    async fn once(&self, mount: Option<&str>, chunk: Option<u64>) -> Result<PushedBlob, RegistryError> {
        let mut begun = self.begin(mount).await;
        // Who may not read the other repository, or has a registry that wants no mounts, may still write this one.
        if mount.is_some() && begun.as_ref().is_err_and(|error| !error.is_temporary()) {
            begun = self.begin(None).await;
        }
        let Some(begun) = begun? else {
            return Ok(PushedBlob::Mounted);
        };
        match chunk.map(|bytes| bytes.max(begun.chunk_bytes_min)) {
            // A registry that wants chunks larger than the blob wants none.
            Some(bytes) if bytes < self.descriptor.size => self.send_chunks(begun.url, bytes).await?,
            _ => self.send_whole(begun.url).await?,
        }
        Ok(PushedBlob::Uploaded)
    }

    /// Begins an upload; nothing when a mount made it needless. A registry that does not mount answers 202 and has
    /// begun an ordinary upload.
    async fn begin(&self, mount: Option<&str>) -> Result<Option<Begun>, RegistryError> {
        let mut scope = Scope::push(&self.endpoint.repository);
        let mut path = format!("{}/blobs/uploads/", self.endpoint.repository);
        if let Some(from) = mount {
            scope = scope.and_pull(from);
            let query = Url::parse_with_params(
                "http://x/",
                [("mount", self.descriptor.digest.as_str()), ("from", from)],
            );
            if let Some(query) = query.ok().and_then(|url| url.query().map(str::to_owned)) {
                path = format!("{path}?{query}");
            }
        }
        let mut call = Call::new("begin upload", self.endpoint, Method::POST, path, &scope);
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        // Besides what the specification says, what others take too (containerd's `core/remotes/docker/pusher.go`).
        call.accepted = if mount.is_some() {
            &[200, 201, 202, 204]
        } else {
            &[200, 202, 204]
        };
        let reply = self.client.inner.call_once(&call).await?;
        if reply.response.status().as_u16() == 201 {
            return Ok(None);
        }
        let wanted = reply.header("oci-chunk-min-length").map(str::trim);
        let wanted = wanted.and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Some(Begun {
            url: location(&reply.url, &reply.response)?,
            chunk_bytes_min: CHUNK_BYTES_MIN.max(wanted),
        }))
    }

    /// Sends everything with the request that ends the upload.
    async fn send_whole(&self, mut url: Url) -> Result<(), RegistryError> {
        url.query_pairs_mut()
            .append_pair("digest", self.descriptor.digest.as_str());
        let part = self.part(0, self.descriptor.size);
        self.send(Method::PUT, url, &part, HeaderMap::new(), TAKEN)
            .await?;
        Ok(())
    }

    /// Sends chunk after chunk. After a break the registry is asked how far it got.
    async fn send_chunks(&self, mut url: Url, bytes: u64) -> Result<(), RegistryError> {
        let size = self.descriptor.size;
        let (mut offset, mut tried) = (0, 1);
        while offset < size {
            let end = size.min(offset + bytes);
            let mut headers = HeaderMap::new();
            if let Ok(range) = HeaderValue::from_str(&format!("{offset}-{}", end - 1)) {
                headers.insert(CONTENT_RANGE, range);
            }
            let part = self.part(offset, end - offset);
            match self
                .send(Method::PATCH, url.clone(), &part, headers, &[200, 201, 202, 204])
                .await
            {
                Ok(reply) => {
                    url = location(&reply.url, &reply.response)?;
                    offset = next_offset(&reply)
                        .filter(|next| *next > offset && *next <= end)
                        .unwrap_or(end);
                    tried = 1;
                }
                Err(error)
                    if self.client.inner.may_pass(&error) && tried < self.client.inner.options.attempts =>
                {
                    tokio::time::sleep(self.client.inner.backoff(tried, error.retry_after())).await;
                    tried += 1;
                    // Who does not say how far it got is sent everything anew.
                    let Ok(known) = self.progress_of(&url).await else {
                        return Err(error);
                    };
                    url = known.0;
                    offset = known.1.min(size);
                }
                Err(error) => return Err(error),
            }
        }
        url.query_pairs_mut()
            .append_pair("digest", self.descriptor.digest.as_str());
        self.send(Method::PUT, url, &self.part(size, 0), HeaderMap::new(), TAKEN)
            .await?;
        Ok(())
    }

    /// Asks how far an upload is: where it goes on, and from which byte.
    async fn progress_of(&self, url: &Url) -> Result<(Url, u64), RegistryError> {
        let scope = Scope::push(&self.endpoint.repository);
        let mut call = Call::new(
            "ask for upload",
            self.endpoint,
            Method::GET,
            String::new(),
            &scope,
        );
        call.target = Target::Url(url.clone());
        call.accepted = &[200, 202, 204];
        let reply = self.client.inner.call(&call).await?;
        let next = next_offset(&reply).unwrap_or(0);
        let url = if reply.header("location").is_some() {
            location(&reply.url, &reply.response)?
        } else {
            url.clone()
        };
        Ok((url, next))
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        part: &Part,
        mut headers: HeaderMap,
        accepted: &'static [u16],
    ) -> Result<Reply, RegistryError> {
        let scope = Scope::push(&self.endpoint.repository);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(part.bytes));
        let call = Call {
            operation: "push blob",
            endpoint: self.endpoint,
            method,
            target: Target::Url(url),
            headers,
            body: Some(part),
            scope: &scope,
            accepted,
        };
        let sent = self.client.inner.call_once(&call).await;
        match part.failure() {
            Some(source) => Err(RegistryError::Source {
                digest: self.descriptor.digest.clone(),
                source,
            }),
            None => sent,
        }
    }

    fn part(&self, offset: u64, bytes: u64) -> Part {
        let (source, progress) = (Arc::clone(self.source), Arc::clone(self.progress));
        Part::new(source, progress, offset, bytes, self.descriptor.size)
    }
}

/// The byte after those a registry has: `Range: 0-N`, where an empty upload is `0-0` like one of a single byte.
fn next_offset(reply: &Reply) -> Option<u64> {
    let range = reply.header("range")?;
    let (_, end) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    match end.trim().parse::<u64>().ok()? {
        0 => Some(0),
        end => end.checked_add(1),
    }
}

/// A part of a blob as a request body. Its progress is that of the blob, as if all before it were sent.
pub(crate) struct Part {
    source: Arc<dyn BlobSource>,
    progress: Progress,
    offset: u64,
    bytes: u64,
    size: u64,
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl Part {
    /// `bytes` bytes from `offset` on of a blob of `size`.
    pub(crate) fn new(
        source: Arc<dyn BlobSource>,
        progress: Progress,
        offset: u64,
        bytes: u64,
        size: u64,
    ) -> Self {
        Self {
            source,
            progress,
            offset,
            bytes,
            size,
            failed: Arc::default(),
        }
    }

    /// Why the source could not be read, if that was it.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl MakeBody for Part {
    fn make(&self, sent: Arc<AtomicU64>) -> Body {
        let (sender, receiver) = mpsc::channel::<io::Result<Vec<u8>>>(2);
        let (source, failed) = (Arc::clone(&self.source), Arc::clone(&self.failed));
        let (offset, bytes) = (self.offset, self.bytes);
        // Ends when everything is read, or when the request is dropped and nobody receives any more.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = read_part(source.as_ref(), offset, bytes, &sender) {
                let kind = error.kind();
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                sender.blocking_send(Err(kind.into())).ok();
            }
        });
        let (progress, start, size) = (Arc::clone(&self.progress), self.offset, self.size);
        Body::wrap_stream(stream::unfold(receiver, move |mut receiver| {
            let (progress, sent) = (Arc::clone(&progress), Arc::clone(&sent));
            async move {
                let chunk = receiver.recv().await?;
                if let Ok(chunk) = &chunk {
                    let so_far = sent.fetch_add(chunk.len() as u64, Ordering::Relaxed) + chunk.len() as u64;
                    progress(start + so_far, size);
                }
                Some((chunk, receiver))
            }
        }))
    }
}

fn read_part(
    source: &dyn BlobSource,
    offset: u64,
    bytes: u64,
    sender: &mpsc::Sender<io::Result<Vec<u8>>>,
) -> io::Result<()> {
    let mut left = bytes;
    let mut reader = source.open(offset)?;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
        let mut chunk = vec![0; want];
        let count = reader.read(&mut chunk)?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it is shorter than its descriptor says",
            ));
        }
        chunk.truncate(count);
        left -= count as u64;
        if sender.blocking_send(Ok(chunk)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
