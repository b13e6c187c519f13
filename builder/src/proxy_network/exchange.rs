//! One request of a step and its answer: judged, asked for in its place, and seen as it passes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt};
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, RANGE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use rbuild_graph::SourceOp;
use rbuild_oci::Digest;
use rbuild_registry::{RelayRequest, Relayed};
use sha2::{Digest as _, Sha256};

use super::Capture;
use crate::error::chain_text;
use crate::job::Job;
use crate::provenance::redact;
use crate::source_policy;

/// Headers that are between two neighbours and go no further (RFC 9110, section 7.6.1).
const OF_NEIGHBOURS: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What the step is answered.
pub(super) type Answer = UnsyncBoxBody<Bytes, io::Error>;

/// What requests of one connection have in common.
pub(super) struct Exchange<'a> {
    job: &'a Job,
    capture: &'a Arc<Capture>,
    /// The server behind a tunnel; requests elsewhere name theirs.
    server: Option<&'a str>,
}

/// An answer without more to it than a word.
pub(super) fn plain(status: StatusCode, text: &str) -> Response<Answer> {
    let text = if text.is_empty() {
        Bytes::new()
    } else {
        Bytes::from(format!("{text}\n"))
    };
    let body = Full::new(text).map_err(|never: std::convert::Infallible| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}

impl<'a> Exchange<'a> {
    pub(super) fn new(job: &'a Job, capture: &'a Arc<Capture>, server: Option<&'a str>) -> Self {
        Self { job, capture, server }
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        let method = request.method().clone();
        let Some(asked) = self.url(&request) else {
            return plain(StatusCode::BAD_REQUEST, "Bad Request");
        };
        let target = match self.judge(&method, &asked).await {
            Ok(None) => asked,
            Ok(Some(other)) => other,
            Err(()) => return plain(StatusCode::FORBIDDEN, "Forbidden"),
        };
        let told = shown(&target);
        let has_range = request.headers().contains_key(RANGE);
        let relay = relay(method.clone(), target, request);
        match self.job.engine.images.client().relay(relay).await {
            Ok(relayed) => self.passed(&method, &told, has_range, relayed),
            Err(error) => {
                let status = StatusCode::BAD_GATEWAY;
                self.capture.asked(method.as_str(), &told, status.as_u16(), None);
                self.capture.incomplete(method.as_str(), &told, "upstream_error");
                plain(status, &chain_text(&error))
            }
        }
    }

    /// What is asked for, in full.
    fn url<B>(&self, request: &Request<B>) -> Option<String> {
        let uri: &Uri = request.uri();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        if let Some(server) = self.server {
            return Some(format!("https://{server}{path}"));
        }
        if uri.scheme().is_some() {
            return Some(uri.to_string());
        }
        let host = request.headers().get(HOST)?.to_str().ok()?;
        Some(format!("http://{host}{path}"))
    }

    /// What is to be asked for instead of `url`, by the source policies of the build.
    async fn judge(&self, method: &Method, url: &str) -> Result<Option<String>, ()> {
        let source = SourceOp {
            identifier: redact::credentials(url),
            attrs: std::collections::BTreeMap::new(),
        };
        let judged = source_policy::judge(self.job, &self.job.settings.policies, &source, None).await;
        match judged.map_err(drop)? {
            None => Ok(None),
            Some(other) if other == source => Ok(None),
            Some(other) => {
                let is_web = ["http://", "https://"]
                    .iter()
                    .any(|scheme| other.identifier.starts_with(scheme));
                let can_be = is_web && other.attrs.is_empty() && method == Method::GET;
                can_be.then_some(Some(other.identifier)).ok_or(())
            }
        }
    }

    /// The answer on its way to the step.
    fn passed(&self, method: &Method, url: &str, has_range: bool, relayed: Relayed) -> Response<Answer> {
        let status = relayed.status();
        let leads_to = relayed.location().map(|to| shown(&to));
        self.capture.asked(method.as_str(), url, status, leads_to);
        let announced = relayed.headers().get(CONTENT_LENGTH);
        let announced = announced.and_then(|text| text.to_str().ok()?.parse().ok());
        let mut seen = Seen {
            capture: Arc::clone(self.capture),
            method: method.to_string(),
            url: url.to_owned(),
            status,
            is_part: has_range || status == StatusCode::PARTIAL_CONTENT.as_u16(),
            announced,
            bytes: 0,
            hash: Some(Sha256::new()),
        };
        let mut response = plain(
            StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY),
            "",
        );
        let headers = response.headers_mut();
        headers.clone_from(relayed.headers());
        without_neighbours(headers);
        if method == Method::HEAD || matches!(status, 204 | 304) {
            seen.end(true);
            return response;
        }
        let pieces = futures_util::stream::unfold(Some((relayed, seen)), |state| async move {
            let (mut relayed, mut seen) = state?;
            match relayed.chunk().await {
                Ok(Some(bytes)) => {
                    seen.take(&bytes);
                    Some((Ok(Frame::data(bytes)), Some((relayed, seen))))
                }
                Ok(None) => {
                    seen.end(true);
                    None
                }
                Err(error) => {
                    seen.end(false);
                    Some((Err(io::Error::other(error)), None))
                }
            }
        });
        *response.body_mut() = StreamBody::new(pieces).boxed_unsync();
        response
    }
}

/// The request as it goes on.
fn relay(method: Method, url: String, request: Request<Incoming>) -> RelayRequest {
    let (head, body) = request.into_parts();
    let mut headers = head.headers;
    without_neighbours(&mut headers);
    headers.remove(HOST);
    // What is hashed is what the step gets: nothing that somebody could unpack.
    headers.remove(ACCEPT_ENCODING);
    let has_body = !body.is_end_stream();
    let pieces = TryStreamExt::map_err(BodyStream::new(body), io::Error::other);
    let pieces = pieces.try_filter_map(|frame| std::future::ready(Ok(frame.into_data().ok())));
    RelayRequest {
        method,
        url,
        headers,
        body: has_body.then(|| pieces.boxed()),
    }
}

/// Takes out what is between neighbours, and what they say is.
fn without_neighbours(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value: &HeaderValue| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in OF_NEIGHBOURS {
        headers.remove(name);
    }
}

/// A URL as it may be told, without the port that its scheme has anyway.
fn shown(url: &str) -> String {
    let text = redact::credentials(url);
    let Some((scheme, rest)) = text.split_once("://") else {
        return text;
    };
    let (server, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let port = if scheme == "https" { ":443" } else { ":80" };
    let server = server.strip_suffix(port).unwrap_or(server);
    format!("{scheme}://{server}{path}")
}

/// An answer that passes. Dropped before its end, it is one that broke off.
struct Seen {
    capture: Arc<Capture>,
    method: String,
    url: String,
    status: u16,
    is_part: bool,
    announced: Option<u64>,
    bytes: u64,
    /// Of what passed, until it is told.
    hash: Option<Sha256>,
}

impl Seen {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
    }

    /// Tells what it was, once.
    fn end(&mut self, is_whole: bool) {
        let Some(hash) = self.hash.take() else { return };
        let reason = match self.status {
            _ if self.method != "GET" => "method_not_materializable",
            _ if self.is_part => "partial_response",
            _ if !is_whole => "body_read_failed",
            400.. => "unsuccessful_response",
            200..300 => {
                let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
                if let Ok(digest) = Digest::parse(&format!("sha256:{hex}")) {
                    self.capture.material(&self.url, digest);
                }
                return;
            }
            _ => return,
        };
        self.capture.incomplete(&self.method, &self.url, reason);
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        // A body of a known length is not asked for its end.
        self.end(self.announced == Some(self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(capture: &Arc<Capture>, method: &str, status: u16, announced: Option<u64>) -> Seen {
        Seen {
            capture: Arc::clone(capture),
            method: method.to_owned(),
            url: "http://a/f".to_owned(),
            status,
            is_part: false,
            announced,
            bytes: 0,
            hash: Some(Sha256::new()),
        }
    }

    #[test]
    fn only_what_passed_whole_is_a_material() {
        let capture = Arc::new(Capture::default());
        let mut whole = seen(&capture, "GET", 200, Some(4));
        whole.take(b"file");
        drop(whole);
        assert_eq!(capture.materials()["http://a/f"], Digest::sha256(b"file"));
        for (method, status, announced, reason) in [
            ("GET", 200, Some(5), "body_read_failed"),
            ("GET", 200, None, "body_read_failed"),
            ("GET", 404, Some(4), "unsuccessful_response"),
            ("POST", 200, Some(4), "method_not_materializable"),
        ] {
            let capture = Arc::new(Capture::default());
            let mut part = seen(&capture, method, status, announced);
            part.take(b"file");
            drop(part);
            assert!(capture.materials().is_empty());
            assert_eq!(capture.unknown("")[0].reason, reason);
        }
        let redirect = Arc::new(Capture::default());
        seen(&redirect, "GET", 302, Some(0)).end(true);
        assert!(redirect.unknown("").is_empty() && redirect.materials().is_empty());
    }

    #[test]
    fn row41_urls_are_told_without_passwords_and_ports_that_say_nothing() {
        for (url, expected) in [
            ("http://u:p@a.example:80/f?q", "http://xxxxx:xxxxx@a.example/f?q"),
            ("https://a.example:443", "https://a.example"),
            ("https://a.example:80/", "https://a.example:80/"),
            ("http://[::1]:80/x", "http://[::1]/x"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }

    #[test]
    fn what_is_between_neighbours_stays_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-own, close"),
            ("x-own", "1"),
            ("te", "x"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        without_neighbours(&mut headers);
        assert_eq!(
            headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["accept"]
        );
    }
}
