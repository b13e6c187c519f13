//! What can go wrong between this program and a registry, in terms of what the user can do about it.
//!
//! Every text that a server chose is an [`Excerpt`]; every URL is printed without user, password and query.

use std::fmt;
use std::io;
use std::time::Duration;

use rbuild_oci::{Digest, DocumentError, Reference};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use crate::escape::Excerpt;
use crate::net::cause;

/// A URL as it may be shown: scheme, host, port and path only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownUrl(String);

impl From<&Url> for ShownUrl {
    fn from(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
        let query = if url.query().is_some() { "?…" } else { "" };
        Self(
            Excerpt::from(format!("{}://{host}{port}{}{query}", url.scheme(), url.path()).as_str())
                .as_str()
                .to_owned(),
        )
    }
}

impl ShownUrl {
    /// A blob or manifest of a repository, where no request was made yet.
    pub(crate) fn from_parts(host: &str, repository: &str, digest: &Digest) -> Self {
        Self(format!("{host}/{repository}@{digest}"))
    }

    /// A path below this one, which ends with a slash.
    pub(crate) fn below(&self, path: &str) -> Self {
        Self(format!("{}{path}", self.0))
    }

    /// The same, from a reference.
    pub(crate) fn blob(reference: &Reference, digest: &Digest) -> Self {
        Self::from_parts(reference.host(), reference.path(), digest)
    }
}

impl fmt::Display for ShownUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One entry of a registry's error body (distribution-spec, "Error Codes").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// Such as `MANIFEST_UNKNOWN`.
    pub code: Excerpt,
    /// The registry's own words.
    pub message: Excerpt,
}

/// What a registry answered that was not what the request needs.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What was tried, such as `pull manifest`.
    pub operation: &'static str,
    /// Where.
    pub url: ShownUrl,
    /// The answer.
    pub status: StatusCode,
    /// Codes of the body, if it had any.
    pub errors: Vec<ApiError>,
    /// The beginning of a body without codes.
    pub body: Excerpt,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: status {}", self.operation, self.url, self.status)?;
        for error in &self.errors {
            write!(f, "; {}", error.code)?;
            if !error.message.is_empty() {
                write!(f, ": {}", error.message)?;
            }
        }
        if self.errors.is_empty() && !self.body.is_empty() {
            write!(f, ": {}", self.body)?;
        }
        if let Some(asked) = self.retry_after {
            write!(f, "; it asks to be left alone for {} s", asked.as_secs())?;
        }
        Ok(())
    }
}

impl Refusal {
    /// Reads the error codes out of a body (at most a few KiB are given).
    pub(crate) fn new(
        operation: &'static str,
        url: &Url,
        status: StatusCode,
        body: &[u8],
        retry_after: Option<Duration>,
    ) -> Self {
        #[derive(Deserialize)]
        struct Body {
            errors: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let entries = serde_json::from_slice::<Body>(body)
            .map(|b| b.errors)
            .unwrap_or_default();
        let errors = entries
            .iter()
            .take(4)
            .map(|e| ApiError {
                code: e.code.as_str().into(),
                message: e.message.as_str().into(),
            })
            .collect();
        Self {
            operation,
            url: url.into(),
            status,
            errors,
            body: Excerpt::new(body),
            retry_after,
        }
    }
}

/// What kind of trouble it is; programs turn this into an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// No connection, or one that broke or stalled.
    Network,
    /// Credentials are missing, wrong or not enough.
    Auth,
    /// The image, manifest or blob is not there.
    NotFound,
    /// The registry failed or refused.
    Server,
    /// What came is not what was asked for.
    Content,
    /// Settings or files of this machine.
    Local,
}

/// Why an operation on a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection to the host.
    #[error("{trial}{verb} \"{url}\": {reason}{hint}")]
    Unreachable {
        /// What was tried, in words before it: of a registry `failed to do request: `.
        trial: &'static str,
        /// Its method, as Go shows it.
        verb: &'static str,
        /// The request.
        url: ShownUrl,
        /// Why, in the words of `unreachable.rs`.
        reason: String,
        /// What the user may try.
        hint: String,
        /// The connection's error.
        cause: reqwest::Error,
    },
    /// The connection broke in the middle of a request or of a body.
    #[error("connection to {url} broke")]
    Broken {
        /// The request.
        url: ShownUrl,
        /// The connection's error.
        source: reqwest::Error,
    },
    /// The server reset an answer before its end.
    #[error("{url} broke its answer off")]
    BrokenOff {
        /// The request.
        url: ShownUrl,
    },
    /// A body ended before its announced end.
    #[error("{url} sent {received} of {expected} bytes")]
    Truncated {
        /// The request.
        url: ShownUrl,
        /// Bytes that came.
        received: u64,
        /// Bytes that were to come.
        expected: u64,
    },
    /// Nothing moved for too long.
    #[error("{url}: nothing was {direction} for {seconds} s")]
    Timeout {
        /// The request.
        url: ShownUrl,
        /// `sent` or `received`.
        direction: &'static str,
        /// The limit in seconds.
        seconds: u64,
    },
    /// The registry wants other credentials, or any.
    #[error("{refusal}; {tried}")]
    Unauthorized {
        /// The registry's answer.
        refusal: Box<Refusal>,
        /// Which credentials were used, and where others were looked for.
        tried: String,
    },
    /// The registry has no such thing.
    #[error("{0}: not found")]
    NotFound(Box<Refusal>),
    /// Any other answer that is not a success.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The token server did not give a token.
    #[error("no token for {host}: {refusal}; {tried}")]
    Token {
        /// The registry.
        host: String,
        /// The token server's answer.
        refusal: Box<Refusal>,
        /// Which credentials were used.
        tried: String,
    },
    /// The token server's answer holds no usable token.
    #[error("token server {url} sent no usable token: {reason}")]
    TokenContent {
        /// The token server.
        url: ShownUrl,
        /// What is wrong.
        reason: &'static str,
    },
    /// The registry's challenge cannot be answered safely.
    #[error("{host} asks for authentication in a way that is refused: {reason}")]
    Challenge {
        /// The registry.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A redirect or upload location that is not followed.
    #[error("{from} points to {to}, which is refused: {reason}")]
    Redirect {
        /// The request.
        from: ShownUrl,
        /// Where it was sent.
        to: Excerpt,
        /// Why not.
        reason: &'static str,
    },
    /// An address that no image may come from.
    #[error("{host} is at {address}, which is refused: {reason}")]
    Address {
        /// The name or address as written.
        host: String,
        /// The address.
        address: String,
        /// Why not.
        reason: &'static str,
    },
    /// Content with another digest than it was asked for by.
    #[error("{url}: content has digest {found}, {expected} was asked for")]
    WrongDigest {
        /// The request.
        url: ShownUrl,
        /// Digest of what came.
        found: Digest,
        /// Digest asked for.
        expected: Digest,
    },
    /// Content with another size than its descriptor says.
    #[error("{url}: content has {found} bytes{more}, its descriptor says {expected}")]
    WrongSize {
        /// The request.
        url: ShownUrl,
        /// Bytes announced or read.
        found: u64,
        /// ` or more` when reading stopped there.
        more: &'static str,
        /// Size in the descriptor.
        expected: u64,
    },
    /// A header or field of an answer that breaks the protocol.
    #[error("{url}: {reason}")]
    Protocol {
        /// The request.
        url: ShownUrl,
        /// What is wrong.
        reason: String,
    },
    /// A manifest or index that is refused.
    #[error("{url}")]
    Document {
        /// Where it came from.
        url: ShownUrl,
        /// Why.
        source: Box<DocumentError>,
    },
    /// Every mirror and the origin failed; the origin's error is the source.
    #[error("{reference}: no mirror could serve it ({mirrors}), nor could the registry")]
    AllFailed {
        /// The image.
        reference: String,
        /// What each mirror said.
        mirrors: String,
        /// What the registry said.
        source: Box<Self>,
    },
    /// The network may not be used.
    #[error("{what} is on the network, and --offline forbids its use")]
    Offline {
        /// What would have been asked for: an image, a URL, a repository.
        what: String,
    },
    /// The registry is blocked by a configuration file.
    #[error("{reference} is blocked by {file}")]
    Blocked {
        /// The image.
        reference: String,
        /// The file.
        file: String,
    },
    /// A host that no URL can be made of.
    #[error("{host:?} is not a registry host: {reason}")]
    Host {
        /// The host as written.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// Certificates or keys that cannot be used.
    #[error("TLS settings for {host}: {reason}")]
    Tls {
        /// The registry.
        host: String,
        /// What is wrong, with the file.
        reason: String,
    },
    /// A proxy setting that cannot be used.
    #[error("proxy setting {variable} cannot be used")]
    Proxy {
        /// The variable.
        variable: &'static str,
        /// Why.
        source: reqwest::Error,
    },
    /// A client could not be made.
    #[error("cannot set up a connection to {host}")]
    Client {
        /// The registry.
        host: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The place where a blob is stored failed.
    #[error("cannot store blob {digest}")]
    Sink {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The place a blob is read from failed, or its bytes changed.
    #[error("cannot read blob {digest} to upload it")]
    Source {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
}

impl RegistryError {
    /// [`Self::Broken`]: what was asked of `url` ended with `source`.
    pub(crate) fn broken(url: &Url, source: reqwest::Error) -> Self {
        Self::Broken {
            url: url.into(),
            source: source.without_url(),
        }
    }

    /// What kind of trouble it is.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::BrokenOff { .. }
            | Self::Truncated { .. }
            | Self::Timeout { .. }
            | Self::Offline { .. } => ErrorClass::Network,
            Self::Unauthorized { .. } | Self::Token { .. } | Self::Challenge { .. } => ErrorClass::Auth,
            Self::NotFound(_) => ErrorClass::NotFound,
            Self::Refused(refusal) if matches!(refusal.status.as_u16(), 401 | 403) => ErrorClass::Auth,
            Self::Refused(_) | Self::TokenContent { .. } => ErrorClass::Server,
            Self::Redirect { .. }
            | Self::Address { .. }
            | Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::Protocol { .. }
            | Self::Document { .. } => ErrorClass::Content,
            Self::AllFailed { source, .. } => source.class(),
            Self::Blocked { .. }
            | Self::Host { .. }
            | Self::Tls { .. }
            | Self::Proxy { .. }
            | Self::Client { .. }
            | Self::Sink { .. }
            | Self::Source { .. } => ErrorClass::Local,
        }
    }

    /// Whether the same request may succeed a little later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } => !self.is_certificate(),
            Self::Broken { .. } | Self::BrokenOff { .. } | Self::Truncated { .. } | Self::Timeout { .. } => {
                true
            }
            Self::Refused(refusal) => is_temporary_status(refusal.status),
            Self::Token { refusal, .. } => is_temporary_status(refusal.status),
            Self::AllFailed { source, .. } => source.is_temporary(),
            _ => false,
        }
    }

    /// Whether a connection failed because nobody vouches for the server's certificate.
    pub(crate) fn is_certificate(&self) -> bool {
        let Self::Unreachable { cause: error, .. } = self else {
            return false;
        };
        matches!(
            cause::<rustls::Error>(error),
            Some(rustls::Error::InvalidCertificate(_))
        )
    }

    /// How long the server asked to wait, if it did.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) | Self::Token { refusal, .. } => refusal.retry_after,
            _ => None,
        }
    }
}

/// Answers that say "later": time-outs, too many requests, and failures behind the server.
pub(crate) fn is_temporary_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_secrets() {
        let url = Url::parse("https://user:pw@host:5000/v2/a/blobs/x?token=secret#f").expect("url");
        assert_eq!(
            ShownUrl::from(&url).to_string(),
            "https://host:5000/v2/a/blobs/x?…"
        );
    }

    #[test]
    fn row44_registry_messages_are_escaped() {
        let url = Url::parse("https://h/v2/").expect("url");
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"tag \u001b[31m gone"}]}"#;
        let refusal = Refusal::new("pull manifest", &url, StatusCode::NOT_FOUND, body, None);
        let text = RegistryError::NotFound(Box::new(refusal)).to_string();
        assert_eq!(
            text,
            "pull manifest https://h/v2/: status 404 Not Found; MANIFEST_UNKNOWN: tag \\u{1b}[31m gone: not found"
        );
        let raw = Refusal::new("pull blob", &url, StatusCode::BAD_GATEWAY, b"<html>\x1b[2J", None);
        assert!(raw.to_string().ends_with("<html>\\u{1b}[2J"));
    }
}
