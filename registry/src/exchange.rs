//! Requests to services that are no registries and are told who asks by the request itself: by a signature, by a token,
//! or by its URL (object stores, GitHub's cache).
//!
//! The same connections, roots, proxies, address rules, time limits and retries as for registries. Who asks says with
//! every attempt anew what is sent, since signatures have times. No redirect is followed: what was signed for one place
//! is good for no other. Of an answer without success nothing is kept but its code and message, since services write
//! into the rest what they were sent.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rbuild_oci::{Descriptor, Digest};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};

use crate::blob::{BlobSink, Download, Progress};
use crate::client::{Client, Inner};
use crate::config::is_loopback_host;
use crate::fetch::{UrlError, web_url};
use crate::net::connect_error;
use crate::push_blob::{BlobSource, Part};
use crate::relay::RelayError;
use crate::reply::{Reply, retry_after};
use crate::transport::MakeBody as _;
use crate::{ApiError, Excerpt, Refusal, RegistryError, ShownUrl};

/// Most of an error's body read, in bytes.
const ERROR_BYTES_MAX: usize = 32 << 10;

/// Where a request goes.
#[derive(Clone)]
pub struct ServiceUrl {
    url: Url,
    /// This machine may be connected to.
    loopback: bool,
}

impl std::fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServiceUrl({})", self.shown())
    }
}

impl ServiceUrl {
    /// A URL that a user gave.
    ///
    /// # Errors
    /// [`UrlError::Url`]: not of http or https, without a host, or with a user or password in it.
    pub fn given(text: &str) -> Result<Self, UrlError> {
        let url = web_url(text)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::Url("it contains credentials".to_owned()));
        }
        Ok(Self { url, loopback: true })
    }

    /// A URL that this service named. It leads not from https to http, and to this machine only from there.
    ///
    /// # Errors
    /// [`UrlError::Url`].
    pub fn named(&self, text: &str) -> Result<Self, UrlError> {
        let named = Self::given(text)?;
        if self.url.scheme() == "https" && named.url.scheme() == "http" {
            return Err(UrlError::Url("it leads from https to http".to_owned()));
        }
        Ok(Self {
            loopback: self.loopback && is_loopback_host(self.host()),
            ..named
        })
    }

    /// The same place with another path and query, both as they are sent.
    ///
    /// # Errors
    /// [`UrlError::Url`]: the path is not sent as it is written, since it has segments that mean others.
    pub fn with(&self, path: &str, query: &str) -> Result<Self, UrlError> {
        let mut url = self.url.clone();
        url.set_path(path);
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        url.set_fragment(None);
        if url.path() != path {
            return Err(UrlError::Url(format!(
                "the path {path:?} would be sent as {:?}",
                url.path()
            )));
        }
        Ok(Self {
            url,
            loopback: self.loopback,
        })
    }

    /// The same place with more of a query, as it is sent.
    #[must_use]
    pub fn and_query(&self, more: &str) -> Self {
        let mut url = self.url.clone();
        let query = match url.query().filter(|query| !query.is_empty()) {
            Some(query) => format!("{query}&{more}"),
            None => more.to_owned(),
        };
        url.set_query(Some(&query));
        Self {
            url,
            loopback: self.loopback,
        }
    }

    /// The host without its port.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// What the `Host` header says.
    #[must_use]
    pub fn authority(&self) -> String {
        let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{port}", self.host())
    }

    /// Whether the host is an address.
    #[must_use]
    pub fn is_address(&self) -> bool {
        let host = self.host();
        host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok()
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.url.scheme()
    }

    /// The path as it is sent.
    #[must_use]
    pub fn path(&self) -> &str {
        self.url.path()
    }

    /// The query as it is sent.
    #[must_use]
    pub fn query(&self) -> &str {
        self.url.query().unwrap_or_default()
    }

    /// The URL as it may be shown.
    #[must_use]
    pub fn shown(&self) -> ShownUrl {
        (&self.url).into()
    }
}

/// What is sent along.
pub enum Payload {
    /// Nothing.
    None,
    /// These bytes.
    Bytes(Bytes),
    /// A part of a blob.
    Part {
        /// The blob.
        source: Arc<dyn BlobSource>,
        /// Its digest, for errors.
        digest: Digest,
        /// How many bytes it has.
        size: u64,
        /// Where the part begins.
        offset: u64,
        /// How many bytes it has.
        bytes: u64,
        /// Hears how much of the blob is sent, as if all before the part were.
        progress: Progress,
    },
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = match self {
            Self::None => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Part { bytes, .. } => *bytes,
        };
        write!(f, "Payload({bytes} bytes)")
    }
}

/// One request, once.
pub struct Exchange {
    operation: &'static str,
    method: Method,
    url: ServiceUrl,
    headers: HeaderMap,
    payload: Payload,
    accepted: &'static [u16],
    read_error: fn(&[u8]) -> Option<(String, String)>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("operation", &self.operation)
            .field("method", &self.method)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Exchange {
    /// A request without headers and payload whose success is 200. `operation` is what a user is told was tried.
    /// `read_error` finds code and message in an answer that is none of success.
    #[must_use]
    pub fn new(
        operation: &'static str,
        method: Method,
        url: ServiceUrl,
        read_error: fn(&[u8]) -> Option<(String, String)>,
    ) -> Self {
        Self {
            operation,
            method,
            url,
            headers: HeaderMap::new(),
            payload: Payload::None,
            accepted: &[200],
            read_error,
        }
    }

    /// With this header in place of any of the same name. Its value is never shown.
    ///
    /// # Errors
    /// [`UrlError::Header`].
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, UrlError> {
        let wrong = || UrlError::Header(name.to_owned());
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        self.headers.insert(key, value);
        Ok(self)
    }

    /// With this payload.
    #[must_use]
    pub fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    /// With these answers of success.
    #[must_use]
    pub const fn accepting(mut self, accepted: &'static [u16]) -> Self {
        self.accepted = accepted;
        self
    }
}

/// An answer of success.
#[derive(Debug)]
pub struct Answer(Reply);

impl Answer {
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.0.response.status().as_u16()
    }

    /// A header, if it is there and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.header(name)
    }

    /// Where it came from, as it may be shown.
    #[must_use]
    pub fn url(&self) -> ShownUrl {
        (&self.0.url).into()
    }

    /// The whole body.
    ///
    /// # Errors
    /// [`RegistryError`]; `WrongSize` if it has more than `max` bytes.
    pub async fn body(mut self, max: usize) -> Result<Vec<u8>, RegistryError> {
        self.0.body(max).await
    }
}

/// How often and how long a request is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// Attempts, those of the client if absent.
    pub attempts: Option<u32>,
    /// How long a service may say that it has too many requests, beside that.
    pub busy: Option<Duration>,
}

impl Client {
    /// Asks until there is an answer, as patience has it.
    ///
    /// # Errors
    /// [`RelayError`]; an answer without success is [`RegistryError::Refused`] or [`RegistryError::NotFound`].
    pub async fn exchange<F>(&self, patience: Patience, mut make: F) -> Result<Answer, RelayError>
    where
        F: FnMut() -> Result<Exchange, UrlError> + Send,
    {
        let begun = Instant::now();
        let attempts = patience.attempts.unwrap_or(self.inner.options.attempts);
        let mut tried = 1;
        loop {
            let error = match self.inner.exchange_once(make()?).await {
                Ok(reply) => return Ok(Answer(reply)),
                Err(error) => error,
            };
            let pause = self.inner.backoff(tried, error.retry_after());
            let busy = matches!(&error, RegistryError::Refused(refusal) if refusal.status == StatusCode::TOO_MANY_REQUESTS)
                && patience.busy.is_some_and(|limit| begun.elapsed() + pause < limit);
            if !busy && (tried >= attempts || !error.is_temporary()) {
                return Err(error.into());
            }
            tokio::time::sleep(pause).await;
            tried += 1;
        }
    }

    /// Downloads a blob into `sink`, verified by its descriptor, in as many connections as it takes; `make` is told from
    /// which byte on.
    ///
    /// # Errors
    /// As [`Self::exchange`]; the sink then holds nothing of use.
    pub async fn fetch_exchange<F>(
        &self,
        descriptor: &Descriptor,
        sink: &mut dyn BlobSink,
        progress: &Progress,
        mut make: F,
    ) -> Result<(), RelayError>
    where
        F: FnMut(Option<u64>) -> Result<Exchange, UrlError> + Send,
    {
        let mut download = Download::new(descriptor, sink, progress);
        // A first one is made for nothing, so that one that cannot be made fails as itself.
        let shown = make(None)?.url.shown();
        let inner = &self.inner;
        let open = |from: Option<u64>| {
            let made = make(from);
            let shown = shown.clone();
            async move {
                let mut exchange = made.map_err(|error| RegistryError::Protocol {
                    url: shown,
                    reason: error.to_string(),
                })?;
                exchange.accepted = if from.is_some() { &[200, 206, 416] } else { &[200] };
                inner.exchange_once(exchange).await
            }
        };
        Ok(self
            .drive(inner.options.attempts, &shown, &mut download, open)
            .await?)
    }
}

impl Inner {
    fn exchange_once(&self, exchange: Exchange) -> BoxFuture<'_, Result<Reply, RegistryError>> {
        Box::pin(self.exchange_once_unboxed(exchange))
    }

    async fn exchange_once_unboxed(&self, exchange: Exchange) -> Result<Reply, RegistryError> {
        let ServiceUrl { url, loopback } = exchange.url;
        let client = self.web_client(&url, loopback)?;
        let permit = self.permit(url.host_str().unwrap_or_default()).await;
        let has_length = !matches!(exchange.method, Method::GET | Method::HEAD);
        let mut call = client
            .request(exchange.method, url.clone())
            .headers(exchange.headers);
        let sent = Arc::new(AtomicU64::new(0));
        let mut part = None;
        match exchange.payload {
            Payload::None if has_length => call = call.header(CONTENT_LENGTH, 0),
            Payload::None => {}
            Payload::Bytes(bytes) => call = call.header(CONTENT_LENGTH, bytes.len()).body(bytes),
            Payload::Part {
                source,
                digest,
                size,
                offset,
                bytes,
                progress,
            } => {
                let made = Part::new(source, progress, offset, bytes, size);
                call = call
                    .header(CONTENT_LENGTH, bytes)
                    .body(made.make(Arc::clone(&sent)));
                part = Some((made, digest));
            }
        }
        let outcome = self.watch(&url, &sent, call.send()).await;
        if let Some((part, digest)) = part
            && let Some(source) = part.failure()
        {
            return Err(RegistryError::Source { digest, source });
        }
        let reply = match outcome? {
            Ok(response) => Reply::new(response, &url, permit, self.options.idle_timeout),
            Err(error) if error.is_connect() => return Err(connect_error(&url, "", String::new(), error)),
            Err(error) => {
                return Err(RegistryError::broken(&url, error));
            }
        };
        if exchange.accepted.contains(&reply.response.status().as_u16()) {
            return Ok(reply);
        }
        Err(service_refusal(exchange.operation, reply, exchange.read_error).await)
    }
}

/// What an answer without success means.
async fn service_refusal(
    operation: &'static str,
    mut reply: Reply,
    read_error: fn(&[u8]) -> Option<(String, String)>,
) -> RegistryError {
    let status = reply.response.status();
    let retry_after = retry_after(&reply.response);
    // That the body did not come whole is no news in an error.
    let body = reply.body(ERROR_BYTES_MAX).await.unwrap_or_default();
    let told = read_error(&body).map(|(code, message)| ApiError {
        code: Excerpt::from(code.as_str()),
        message: Excerpt::from(message.as_str()),
    });
    let refusal = Box::new(Refusal {
        operation,
        url: (&reply.url).into(),
        status,
        errors: told.into_iter().collect(),
        body: Excerpt::from(""),
        retry_after,
    });
    if status == StatusCode::NOT_FOUND {
        RegistryError::NotFound(refusal)
    } else {
        RegistryError::Refused(refusal)
    }
}
