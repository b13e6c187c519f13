//! One exchange for somebody else, as a proxy makes it: nothing is tried again, no redirect is followed, no credential is
//! added, and bodies pass as they come.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Body, Method, Url};

use crate::body::{Answer, next_piece};
use crate::fetch::UrlError;
use crate::net::connect_error;
use crate::{Client, RegistryError};

/// Content of a request, piece by piece.
pub type RelayBody = BoxStream<'static, Result<Bytes, std::io::Error>>;

/// What is asked.
pub struct RelayRequest {
    /// How.
    pub method: Method,
    /// For what: `http` or `https`.
    pub url: String,
    /// With these headers, `Host` left out.
    pub headers: HeaderMap,
    /// And this content.
    pub body: Option<RelayBody>,
}

impl std::fmt::Debug for RelayRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayRequest")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The URL is none.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The server could not be reached, or broke off.
    #[error(transparent)]
    Request(#[from] RegistryError),
}

/// The head of an answer, and the right to read the rest.
#[derive(Debug)]
pub struct Relayed {
    response: Answer,
    url: Url,
    idle_timeout: Duration,
}

impl Relayed {
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Where the answer leads, if it is a redirect.
    #[must_use]
    pub fn location(&self) -> Option<String> {
        let text = self.headers().get(LOCATION)?.to_str().ok()?;
        let joined = self.url.join(text);
        Some(joined.map_or_else(|_| text.to_owned(), |url| url.to_string()))
    }

    /// The next piece of the body.
    ///
    /// # Errors
    /// [`RegistryError::Broken`], [`RegistryError::BrokenOff`], [`RegistryError::Timeout`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        next_piece(&mut self.response, &self.url, self.idle_timeout).await
    }
}

impl Client {
    /// Asks once. Who asks has the network of this machine, so this machine may be asked too; link-local addresses are
    /// refused as always (security row 36).
    ///
    /// # Errors
    /// [`RelayError`].
    pub async fn relay(&self, request: RelayRequest) -> Result<Relayed, RelayError> {
        let inner = &self.inner;
        let url = crate::fetch::web_url(&request.url)?;
        let mut call = inner
            .web_client(&url, true)?
            .request(request.method, url.clone())
            .headers(request.headers);
        let sends = request.body.is_some();
        if let Some(body) = request.body {
            call = call.body(Body::wrap_stream(body));
        }
        let idle_timeout = inner.options.idle_timeout;
        // Whoever sends a body takes the time it takes, and may be waited for by nobody else.
        let sent = if sends {
            call.send().await
        } else {
            inner.watch(&url, &AtomicU64::new(0), call.send()).await?
        };
        match sent {
            Ok(response) => Ok(Relayed {
                response: response.into(),
                url,
                idle_timeout,
            }),
            Err(error) if error.is_connect() => Err(connect_error(&url, "", String::new(), error).into()),
            Err(error) => Err(RegistryError::broken(&url, error).into()),
        }
    }
}
