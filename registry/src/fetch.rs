//! Resources that are no images: files behind http and https URLs, such as those of `ADD` and of build contexts.
//!
//! The same connections, roots, proxies, address rules, time limits and retries as for registries; no mirrors, no
//! registry credentials, no marks of insecurity. An authorization goes to the origin it was given for and to no other
//! (security row 33); a redirect is followed from http or https to https, and never from https to http. Nothing is
//! decoded here, and nothing is believed of a length but what was received.

mod go_url;

use std::io;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use base64::Engine as _;
use rbuild_oci::go_url::percent_decoded;
use reqwest::header::{
    AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName,
    HeaderValue, LAST_MODIFIED,
};
use reqwest::{Method, Url};

use crate::client::{Client, Inner};
use crate::config::is_loopback_host;
use crate::error::is_temporary_status;
use crate::net::{check_url, connect_error};
use crate::reply::{Reply, location, too_many_redirects};
use crate::{Refusal, RegistryError, ShownUrl};

/// Most redirects followed (Go's `net/http`).
const REDIRECTS_MAX: usize = 10;
/// Longest value of a header that is given to the caller, bytes; longer ones count as absent.
const HEADER_BYTES_MAX: usize = 4 << 10;
/// Idle times in which [`SLOWEST_BYTES`] must have come.
const SLOW_WINDOWS: u32 = 5;
/// Bytes that must come in that time: a server that sends a byte a minute holds up a build for ever.
const SLOWEST_BYTES: u64 = 4 << 10;

/// A resource and how it is asked for.
#[derive(Clone)]
pub struct UrlRequest {
    url: Url,
    headers: HeaderMap,
    authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for UrlRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UrlRequest")
            .field("url", &self.shown())
            .finish_non_exhaustive()
    }
}

/// Why there is no request.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// Not a URL of http or https, in the words of Go.
    #[error("{0}")]
    Url(String),
    /// A URL that names no host.
    #[error("http: no Host in request URL")]
    NoHost,
    /// A header that HTTP does not allow. The value may be a secret and is not shown.
    #[error("the value of header {0} has bytes that no header may have")]
    Header(String),
}

impl UrlRequest {
    /// A request for `text`. User and password in it become an authorization and are shown nowhere.
    ///
    /// # Errors
    /// [`UrlError::Url`].
    pub fn new(text: &str) -> Result<Self, UrlError> {
        let mut url = web_url(text)?;
        let mut request = Self {
            authorization: None,
            headers: HeaderMap::new(),
            url: url.clone(),
        };
        if go_url::has_user(text) {
            let mut user = percent_decoded(url.username());
            user.push(b':');
            user.extend(percent_decoded(url.password().unwrap_or_default()));
            let encoded = base64::engine::general_purpose::STANDARD.encode(user);
            request = request.with_authorization(&format!("Basic {encoded}"))?;
            // Neither can fail: it is a URL with a host.
            url.set_username("").ok();
            url.set_password(None).ok();
        }
        url.set_fragment(None);
        request.url = url;
        Ok(request)
    }

    /// With this `Authorization`, for the request's own origin.
    ///
    /// # Errors
    /// [`UrlError::Header`].
    pub fn with_authorization(mut self, value: &str) -> Result<Self, UrlError> {
        let mut value =
            HeaderValue::from_str(value).map_err(|_| UrlError::Header(AUTHORIZATION.to_string()))?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// With this header in place of any of the same name.
    ///
    /// # Errors
    /// [`UrlError::Header`].
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, UrlError> {
        let wrong = || UrlError::Header(name.to_owned());
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        let value = HeaderValue::from_str(value).map_err(|_| wrong())?;
        self.headers.insert(key, value);
        Ok(self)
    }

    /// The host without its port.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The URL as it may be shown.
    #[must_use]
    pub fn shown(&self) -> ShownUrl {
        (&self.url).into()
    }
}

/// A URL of http or https that names a host.
pub(crate) fn web_url(text: &str) -> Result<Url, UrlError> {
    let text = go_url::written(text)?;
    let url = Url::parse(&text).map_err(|error| UrlError::Url(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(UrlError::Url("only http and https are served".to_owned()));
    }
    Ok(url)
}

/// The head of an answer: what of it has a meaning for whoever keeps the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlHead {
    /// Status after redirects: 2xx or 304.
    pub status: u16,
    /// `ETag`, as sent.
    pub etag: Option<String>,
    /// `Last-Modified`, as sent.
    pub last_modified: Option<String>,
    /// `Content-Disposition`, as sent.
    pub content_disposition: Option<String>,
    /// `Content-Encoding`, lower case.
    pub content_encoding: Option<String>,
}

impl UrlHead {
    fn of(reply: &Reply) -> Self {
        let text = |name: HeaderName| {
            let value = reply.response.headers().get(name)?.as_bytes();
            // Go reads headers as bytes; names of files are UTF-8 where they are not ASCII.
            (!value.is_empty() && value.len() <= HEADER_BYTES_MAX)
                .then(|| String::from_utf8_lossy(value).into_owned())
        };
        Self {
            status: reply.response.status().as_u16(),
            etag: text(ETAG),
            last_modified: text(LAST_MODIFIED),
            content_disposition: text(CONTENT_DISPOSITION),
            content_encoding: text(CONTENT_ENCODING).map(|value| value.to_ascii_lowercase()),
        }
    }

    /// Whether the server says that the content is one the request named.
    #[must_use]
    pub const fn is_unchanged(&self) -> bool {
        self.status == 304
    }
}

/// Takes a body. Called on the task that receives it, so it should not block for long.
pub trait UrlSink: Send {
    /// A body begins; what came of an earlier one is void.
    ///
    /// # Errors
    /// Whatever the place says; it ends the download.
    fn begin(&mut self, head: &UrlHead) -> io::Result<()>;

    /// More of the body.
    ///
    /// # Errors
    /// As [`Self::begin`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Why a resource was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// An answer that is no content.
    #[error("invalid response status {}", .0.status.as_u16())]
    Status(Box<Refusal>),
    /// More than was allowed.
    #[error("{url}: more than {max_bytes} bytes")]
    TooLarge {
        /// The request.
        url: ShownUrl,
        /// The limit.
        max_bytes: u64,
    },
    /// Too little for too long.
    #[error("{url}: fewer than {SLOWEST_BYTES} bytes in {seconds} s")]
    TooSlow {
        /// The request.
        url: ShownUrl,
        /// The time.
        seconds: u64,
    },
    /// Where the body goes.
    #[error("keep {url}")]
    Sink {
        /// The request.
        url: ShownUrl,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The network, or what was refused of it.
    #[error(transparent)]
    Transport(Box<RegistryError>),
}

impl From<RegistryError> for FetchError {
    fn from(error: RegistryError) -> Self {
        Self::Transport(Box::new(error))
    }
}

impl FetchError {
    /// Whether the same request may succeed a little later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Status(refusal) => is_temporary_status(refusal.status),
            Self::Transport(error) => error.is_temporary(),
            Self::TooLarge { .. } | Self::TooSlow { .. } | Self::Sink { .. } => false,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status(refusal) => refusal.retry_after,
            Self::Transport(error) => error.retry_after(),
            Self::TooLarge { .. } | Self::TooSlow { .. } | Self::Sink { .. } => None,
        }
    }
}

impl Client {
    /// The head of the answer to HEAD, tried once: it only saves the GET that can follow.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn head_url(&self, request: &UrlRequest) -> Result<UrlHead, FetchError> {
        let reply = self.inner.open(request, Method::HEAD).await?;
        Ok(UrlHead::of(&reply))
    }

    /// GETs the resource into `sink`, anew for each attempt, at most `max_bytes` of it. An answer of 304 has no body,
    /// and the sink is not asked to begin one.
    ///
    /// # Errors
    /// [`FetchError`]; the sink then holds nothing of use.
    pub async fn get_url(
        &self,
        request: &UrlRequest,
        max_bytes: u64,
        sink: &mut dyn UrlSink,
    ) -> Result<UrlHead, FetchError> {
        let mut tried = 1;
        loop {
            match self.inner.download_url(request, max_bytes, sink).await {
                Err(error) if error.is_temporary() && tried < self.inner.options.attempts => {
                    tokio::time::sleep(self.inner.backoff(tried, error.retry_after())).await;
                    tried += 1;
                }
                done => return done,
            }
        }
    }

    /// Refuses a host that is written as an address no request may go to (security row 36). Names are not looked up.
    ///
    /// # Errors
    /// [`RegistryError::Address`].
    pub fn check_host(&self, host: &str) -> Result<(), RegistryError> {
        match Url::parse(&format!("http://{host}/")) {
            Ok(url) => check_url(&url, true),
            // Not a host at all: whoever connects will say so.
            Err(_) => Ok(()),
        }
    }
}

impl Inner {
    async fn download_url(
        &self,
        request: &UrlRequest,
        max_bytes: u64,
        sink: &mut dyn UrlSink,
    ) -> Result<UrlHead, FetchError> {
        let mut reply = self.open(request, Method::GET).await?;
        let head = UrlHead::of(&reply);
        if head.is_unchanged() {
            return Ok(head);
        }
        let url = ShownUrl::from(&reply.url);
        let announced = reply
            .header(CONTENT_LENGTH.as_str())
            .and_then(|text| text.parse::<u64>().ok());
        let too_large = || FetchError::TooLarge {
            url: url.clone(),
            max_bytes,
        };
        if announced.is_some_and(|bytes| bytes > max_bytes) {
            return Err(too_large());
        }
        let sink_error = |source| FetchError::Sink {
            url: url.clone(),
            source,
        };
        sink.begin(&head).map_err(sink_error)?;
        let window = self.options.idle_timeout * SLOW_WINDOWS;
        let (mut received, mut since, mut before) = (0_u64, Instant::now(), 0_u64);
        while let Some(chunk) = reply.chunk().await? {
            received += chunk.len() as u64;
            if received > max_bytes {
                return Err(too_large());
            }
            sink.write(&chunk).map_err(sink_error)?;
            if since.elapsed() > window {
                if received - before < SLOWEST_BYTES {
                    let seconds = window.as_secs();
                    return Err(FetchError::TooSlow { url, seconds });
                }
                (since, before) = (Instant::now(), received);
            }
        }
        // The HTTP library itself says so of most; not of a body whose end is the connection's.
        match announced.filter(|expected| *expected != received) {
            Some(expected) => Err(RegistryError::Truncated {
                url,
                received,
                expected,
            }
            .into()),
            None => Ok(head),
        }
    }

    /// The answer to one request behind its redirects: 2xx or 304.
    async fn open(&self, request: &UrlRequest, method: Method) -> Result<Reply, FetchError> {
        let mut url = request.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let reply = self.ask(request, &method, &url).await?;
            let status = reply.response.status();
            if status.is_success() || status.as_u16() == 304 {
                return Ok(reply);
            }
            if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                url = location(&url, &reply.response)?;
                continue;
            }
            let refusal = self.refused("get", reply).await;
            return Err(FetchError::Status(Box::new(refusal)));
        }
        Err(too_many_redirects(&url).into())
    }

    async fn ask(&self, request: &UrlRequest, method: &Method, url: &Url) -> Result<Reply, RegistryError> {
        let own = url.origin() == request.url.origin();
        // A server elsewhere must not lead to this machine; one on this machine may.
        let loopback = own || is_loopback_host(request.host());
        let client = self.web_client(url, loopback)?;
        let permit = self.permit(url.host_str().unwrap_or_default()).await;
        let mut call = client
            .request(method.clone(), url.clone())
            .headers(request.headers.clone());
        if let Some(authorization) = request.authorization.clone().filter(|_| own) {
            call = call.header(AUTHORIZATION, authorization);
        }
        match self.watch(url, &AtomicU64::new(0), call.send()).await? {
            Ok(response) => Ok(Reply::new(response, url, permit, self.options.idle_timeout)),
            Err(error) if error.is_connect() => Err(connect_error(url, "", String::new(), error)),
            Err(error) => Err(RegistryError::broken(url, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row36_addresses_that_browsers_would_mend_are_refused_or_taken_as_they_are() {
        for (text, reason) in [
            ("http:///a", "http: no Host in request URL"),
            ("http://u@/a", "http: no Host in request URL"),
            ("http://h%41/a", "invalid URL escape \"%41\""),
            ("http://h/a%zz", "invalid URL escape \"%zz\""),
            ("http://h/a%4", "invalid URL escape \"%4\""),
            ("http://h/a%", "invalid URL escape \"%\""),
            ("http://good\\@evil/a", "invalid character \"\\\\\" in host name"),
            ("http://ev\til/a", "net/url: invalid control character in URL"),
            ("http://h:x/a", "invalid port \":x\" after host"),
            ("http://[::1/a", "missing ']' in host"),
            ("http://h/a\nb", "net/url: invalid control character in URL"),
        ] {
            let error = web_url(text).unwrap_err().to_string();
            assert_eq!(error, reason, "{text:?}");
        }
        for (text, asked) in [
            ("http://h/a%20b?x=%zz#%", "http://h/a%20b?x=%zz#%"),
            ("http://h/a\\b?c\\d", "http://h/a%5Cb?c\\d"),
            ("http://[::1]:8/a%2fb", "http://[::1]:8/a%2fb"),
            ("http://u:p%40@h/a", "http://u:p%40@h/a"),
        ] {
            assert_eq!(web_url(text).unwrap().as_str(), asked, "{text:?}");
        }
    }
}
