//! Pulling blobs: streamed, verified, resumed where the connection broke.
//!
//! A sink gets exactly the descriptor's bytes or an error, and must not show them under the blob's name before
//! [`Client::fetch_blob_to`] returned. Never reads more than the descriptor's size and one byte. The `urls` of a
//! descriptor are not used.

use std::io;
use std::sync::Arc;

use rbuild_oci::{Algorithm, Descriptor, Digest, Reference};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use sha2::{Digest as _, Sha256, Sha512};
use tokio::sync::Mutex;

use crate::client::Client;
use crate::reply::Reply;
use crate::token::Scope;
use crate::transport::Call;
use crate::{Endpoint, RegistryError, ShownUrl};

/// Most connections one blob may take, however far each of them got.
const CONNECTIONS_MAX: u32 = 100;

/// Told how far a blob is: bytes so far, bytes in all.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Where a blob's bytes go. Called on the task that receives them, so it should not block for long.
pub trait BlobSink: Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// Whatever the place says; the download ends with [`RegistryError::Sink`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Throws away what was written: the blob starts anew.
    ///
    /// # Errors
    /// As [`Self::write`].
    fn restart(&mut self) -> io::Result<()>;
}

impl BlobSink for Vec<u8> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }
}

impl BlobSink for std::fs::File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(self, bytes)
    }

    fn restart(&mut self) -> io::Result<()> {
        io::Seek::rewind(self)?;
        self.set_len(0)
    }
}

impl Client {
    /// Pulls the blob that `descriptor` describes from the repository of `reference` into `sink`, and says who sent it.
    ///
    /// # Errors
    /// [`RegistryError`]; the sink then holds nothing of use.
    pub async fn fetch_blob_to(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        sink: &mut dyn BlobSink,
        progress: &Progress,
    ) -> Result<Endpoint, RegistryError> {
        // By digest: mirrors that are for digests only are asked too.
        let reference = reference.repository().with_digest(descriptor.digest.clone());
        let download = Mutex::new(Download::new(descriptor, sink, progress));
        self.each_endpoint(&reference, |endpoint| {
            let download = &download;
            async move {
                self.download(&endpoint, &mut *download.lock().await).await?;
                Ok(endpoint)
            }
        })
        .await
    }

    /// Pulls a small blob, such as an image config, into memory.
    ///
    /// # Errors
    /// [`RegistryError`]: `WrongSize` when its descriptor says that it is larger than `max` bytes.
    pub async fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        max: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        if descriptor.size > max {
            return Err(RegistryError::Protocol {
                url: ShownUrl::blob(reference, &descriptor.digest),
                reason: format!(
                    "the blob has {} bytes, at most {max} are read here",
                    descriptor.size
                ),
            });
        }
        let mut bytes = Vec::new();
        let quiet: Progress = Arc::new(|_, _| {});
        self.fetch_blob_to(reference, descriptor, &mut bytes, &quiet)
            .await?;
        Ok(bytes)
    }

    /// How many bytes the blob has, as the first endpoint says that has it.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn blob_size(&self, reference: &Reference, digest: &Digest) -> Result<u64, RegistryError> {
        // By digest: mirrors that are for digests only are asked too.
        let reference = reference.repository().with_digest(digest.clone());
        self.each_endpoint(&reference, async |endpoint| {
            let scope = Scope::pull(&endpoint.repository);
            let path = format!("{}/blobs/{digest}", endpoint.repository);
            let call = Call::new("find blob", &endpoint, Method::HEAD, path, &scope);
            let reply = self.inner.call(&call).await?;
            let size = reply.header(CONTENT_LENGTH.as_str());
            size.and_then(|text| text.parse().ok())
                .ok_or_else(|| RegistryError::Protocol {
                    url: ShownUrl::blob(&reference, digest),
                    reason: "the registry does not say how large the blob is".to_owned(),
                })
        })
        .await
    }

    pub(crate) async fn head_blob(
        &self,
        endpoint: &Endpoint,
        digest: &Digest,
        scope: &Scope,
    ) -> Result<bool, RegistryError> {
        let path = format!("{}/blobs/{digest}", endpoint.repository);
        match self
            .inner
            .call(&Call::new("find blob", endpoint, Method::HEAD, path, scope))
            .await
        {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn download(&self, endpoint: &Endpoint, download: &mut Download<'_>) -> Result<(), RegistryError> {
        let attempts = if endpoint.is_mirror {
            2
        } else {
            self.inner.options.attempts
        };
        let digest = &download.descriptor.digest;
        let shown = ShownUrl::from_parts(&endpoint.host, &endpoint.repository, digest);
        let path = format!("{}/blobs/{digest}", endpoint.repository);
        let scope = Scope::pull(&endpoint.repository);
        let open = |from: Option<u64>| {
            let (path, scope) = (path.clone(), &scope);
            async move {
                let mut call = Call::new("pull blob", endpoint, Method::GET, path, scope);
                if let Some(from) = from {
                    if let Ok(range) = HeaderValue::from_str(&format!("bytes={from}-")) {
                        call.headers.insert(RANGE, range);
                    }
                    call.accepted = &[200, 206, 416];
                }
                self.inner.call_once(&call).await
            }
        };
        self.drive(attempts, &shown, download, open).await
    }

    /// Downloads from one place: a connection that breaks is followed by one for the rest. Attempts that got no
    /// further count towards the limit of attempts, all of them towards [`CONNECTIONS_MAX`].
    pub(crate) async fn drive<F, R>(
        &self,
        attempts: u32,
        shown: &ShownUrl,
        download: &mut Download<'_>,
        mut open: F,
    ) -> Result<(), RegistryError>
    where
        F: FnMut(Option<u64>) -> R,
        R: Future<Output = Result<Reply, RegistryError>>,
    {
        let mut fruitless = 0;
        for _ in 0..CONNECTIONS_MAX {
            let before = download.received;
            let error = match download.connection(&mut open).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            fruitless = if download.received > before {
                0
            } else {
                fruitless + 1
            };
            let joined = download.resumed && matches!(error, RegistryError::WrongDigest { .. });
            if !error.is_temporary() {
                download.restart()?;
            }
            // Parts that came over several connections may be of different objects: once more, in one piece.
            if joined && !download.whole_only {
                download.whole_only = true;
                continue;
            }
            if !self.inner.may_pass(&error) || fruitless >= attempts {
                return Err(error);
            }
            tokio::time::sleep(self.inner.backoff(fruitless.max(1), error.retry_after())).await;
        }
        Err(RegistryError::Truncated {
            url: shown.clone(),
            received: download.received,
            expected: download.descriptor.size,
        })
    }
}

/// A blob under way.
pub(crate) struct Download<'a> {
    descriptor: &'a Descriptor,
    sink: &'a mut dyn BlobSink,
    progress: &'a Progress,
    hasher: Hasher,
    received: u64,
    /// Several connections contributed.
    resumed: bool,
    /// Parts are not to be joined any more.
    whole_only: bool,
}

impl<'a> Download<'a> {
    pub(crate) fn new(
        descriptor: &'a Descriptor,
        sink: &'a mut dyn BlobSink,
        progress: &'a Progress,
    ) -> Self {
        let hasher = Hasher::new(descriptor.digest.algorithm());
        Self {
            descriptor,
            sink,
            progress,
            hasher,
            received: 0,
            resumed: false,
            whole_only: false,
        }
    }

    /// What comes over one connection, which `open` makes: for all of the blob, or for what is missing.
    async fn connection<F, R>(&mut self, open: &mut F) -> Result<(), RegistryError>
    where
        F: FnMut(Option<u64>) -> R,
        R: Future<Output = Result<Reply, RegistryError>>,
    {
        if self.whole_only {
            self.restart()?;
        }
        let wants_rest = self.received > 0 && self.received < self.descriptor.size;
        let mut reply = open(wants_rest.then_some(self.received)).await?;
        self.begin(&reply)?;
        while let Some(chunk) = reply.chunk().await? {
            self.take(&chunk, &reply)?;
        }
        self.end(&reply)
    }

    fn restart(&mut self) -> Result<(), RegistryError> {
        if self.received > 0 {
            self.sink.restart().map_err(|source| self.sink_error(source))?;
        }
        self.hasher = Hasher::new(self.descriptor.digest.algorithm());
        self.received = 0;
        self.resumed = false;
        Ok(())
    }

    fn sink_error(&self, source: io::Error) -> RegistryError {
        RegistryError::Sink {
            digest: self.descriptor.digest.clone(),
            source,
        }
    }

    /// Looks at the head of an answer: is it the rest or the whole, and as long as it must be?
    fn begin(&mut self, reply: &Reply) -> Result<(), RegistryError> {
        let is_rest = reply.response.status().as_u16() == 206 && self.is_the_rest(reply);
        if is_rest {
            self.resumed = true;
        } else {
            self.restart()?;
            if reply.response.status().as_u16() != 200 {
                // A range that was refused or is another one: the next attempt asks for the whole.
                let url = (&reply.url).into();
                return Err(RegistryError::Truncated {
                    url,
                    received: 0,
                    expected: self.descriptor.size,
                });
            }
        }
        let announced = reply
            .header(CONTENT_LENGTH.as_str())
            .and_then(|text| text.parse::<u64>().ok());
        let expected = self.descriptor.size - self.received;
        match announced.filter(|announced| *announced != expected) {
            Some(announced) => Err(RegistryError::WrongSize {
                url: (&reply.url).into(),
                found: announced.saturating_add(self.received),
                more: "",
                expected: self.descriptor.size,
            }),
            None => Ok(()),
        }
    }

    /// Whether `Content-Range` says: from where we are, of a blob of this size.
    fn is_the_rest(&self, reply: &Reply) -> bool {
        let Some(range) = reply
            .header(CONTENT_RANGE.as_str())
            .and_then(|text| text.strip_prefix("bytes "))
        else {
            return false;
        };
        let (span, total) = range.split_once('/').unwrap_or((range, "*"));
        let start = span
            .split_once('-')
            .and_then(|(start, _)| start.parse::<u64>().ok());
        start == Some(self.received) && (total == "*" || total.parse() == Ok(self.descriptor.size))
    }

    fn take(&mut self, chunk: &[u8], reply: &Reply) -> Result<(), RegistryError> {
        let received = self.received + chunk.len() as u64;
        if received > self.descriptor.size {
            let (url, expected) = ((&reply.url).into(), self.descriptor.size);
            return Err(RegistryError::WrongSize {
                url,
                found: received,
                more: " or more",
                expected,
            });
        }
        self.hasher.update(chunk);
        self.sink.write(chunk).map_err(|source| self.sink_error(source))?;
        self.received = received;
        (self.progress)(received, self.descriptor.size);
        Ok(())
    }

    fn end(&self, reply: &Reply) -> Result<(), RegistryError> {
        let (url, expected) = (ShownUrl::from(&reply.url), self.descriptor.size);
        if self.received < expected {
            return Err(RegistryError::Truncated {
                url,
                received: self.received,
                expected,
            });
        }
        let found = self.hasher.clone().finish();
        if found == self.descriptor.digest {
            Ok(())
        } else {
            Err(RegistryError::WrongDigest {
                url,
                found,
                expected: self.descriptor.digest.clone(),
            })
        }
    }
}

/// Either of the hashes a digest may be.
#[derive(Clone)]
enum Hasher {
    Sha256(Box<Sha256>),
    Sha512(Box<Sha512>),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Box::default()),
            Algorithm::Sha512 => Self::Sha512(Box::default()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::from_sha256(hasher.finalize().into()),
            Self::Sha512(hasher) => Digest::from_sha512(&hasher.finalize().into()),
        }
    }
}
