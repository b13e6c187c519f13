//! Answers: reading a body with a limit on time and size, and where a `Location` may lead.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::Url;
use reqwest::header::{HeaderValue, LOCATION, RETRY_AFTER};
use tokio::sync::OwnedSemaphorePermit;

use crate::RegistryError;
use crate::body::{Answer, next_piece};

/// An answer, and the right to a connection that it still uses.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) response: Answer,
    /// Where it came from in the end.
    pub(crate) url: Url,
    /// Who answered.
    pub(crate) peer: Option<SocketAddr>,
    _permit: OwnedSemaphorePermit,
    idle_timeout: Duration,
}

impl Reply {
    /// An answer from `url` whose body must not pause for longer than `idle_timeout`.
    pub(crate) fn new(
        response: reqwest::Response,
        url: &Url,
        permit: OwnedSemaphorePermit,
        idle_timeout: Duration,
    ) -> Self {
        Self {
            peer: response.remote_addr(),
            response: response.into(),
            url: url.clone(),
            _permit: permit,
            idle_timeout,
        }
    }

    /// The next piece of the body.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        next_piece(&mut self.response, &self.url, self.idle_timeout).await
    }

    /// The whole body, at most `max` bytes.
    pub(crate) async fn body(&mut self, max: usize) -> Result<Vec<u8>, RegistryError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > max {
                let found = (body.len() + chunk.len()) as u64;
                return Err(RegistryError::WrongSize {
                    url: (&self.url).into(),
                    found,
                    more: " or more",
                    expected: max as u64,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// A header as text, if it is there and is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}

/// How long an answer asks to wait: seconds, or the time from which it may be asked again (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(response: &Answer) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| {
        let from = httpdate::parse_http_date(text).ok()?;
        // A time that is over asks for no wait.
        Some(from.duration_since(SystemTime::now()).unwrap_or_default())
    })
}

pub(crate) fn redirect_error(from: &Url, to: &str, reason: &'static str) -> RegistryError {
    RegistryError::Redirect {
        from: from.into(),
        to: to.into(),
        reason,
    }
}

/// A chain of redirects that is not followed to its end.
pub(crate) fn too_many_redirects(last: &Url) -> RegistryError {
    redirect_error(last, "another address", "there are too many redirects")
}

/// Where a redirect or an upload's `Location` leads.
pub(crate) fn location(from: &Url, response: &Answer) -> Result<Url, RegistryError> {
    let header = response.headers().get(LOCATION).map(HeaderValue::as_bytes);
    let Some(text) = header
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .filter(|text| !text.is_empty())
    else {
        return Err(redirect_error(
            from,
            "another address",
            "it has no Location that can be read",
        ));
    };
    let to = from
        .join(text)
        .map_err(|_| redirect_error(from, text, "it is no URL"))?;
    let shown = crate::ShownUrl::from(&to).to_string();
    if !matches!(to.scheme(), "http" | "https") {
        return Err(redirect_error(from, &shown, "it is neither http nor https"));
    }
    if from.scheme() == "https" && to.scheme() == "http" {
        return Err(redirect_error(from, &shown, "it leads from https to http"));
    }
    if !to.username().is_empty() || to.password().is_some() {
        return Err(redirect_error(from, &shown, "it contains credentials"));
    }
    Ok(to)
}

pub(crate) fn join(base: &Url, path: &str) -> Result<Url, RegistryError> {
    base.join(path)
        .map_err(|_| redirect_error(base, path, "it is no URL"))
}
