//! The HTTP side of the test registry: accepting connections, faults, authentication, the endpoints of the spec.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rbuild_oci::Digest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::body::{Broken, TestBody};
use super::{FaultAction, LoggedRequest, RegistryAuth, State, tls, tokens};

/// Serves until told to stop.
pub(super) async fn run(listener: TcpListener, state: Arc<Mutex<State>>, mut stopped: oneshot::Receiver<()>) {
    let acceptor = {
        let state = lock(&state);
        (state.scheme == "https").then(|| tls::acceptor(state.self_signed))
    };
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
            _ = &mut stopped => return,
        };
        let state = Arc::clone(&state);
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            match acceptor {
                // A handshake that fails is what some tests want.
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, state).await;
                    }
                }
                None => serve(stream, state).await,
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<Mutex<State>>) {
    let service = service_fn(move |request| answer(Arc::clone(&state), request));
    // A connection that ends badly is the client's affair, or what a fault wanted.
    Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

type Answer = Response<TestBody>;

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Answer, Broken> {
    let method = request.method().to_string();
    let path = request
        .uri()
        .path_and_query()
        .map_or_else(String::new, ToString::to_string);
    let headers = request.headers().clone();
    let body = request
        .into_body()
        .collect()
        .await
        .map_err(|_| Broken)?
        .to_bytes()
        .to_vec();
    let action = lock(&state).begin(&method, &path, &headers, body.len());
    match &action {
        Some(FaultAction::Reset) => return Err(Broken),
        Some(FaultAction::Respond {
            status,
            headers,
            body,
        }) => return Ok(custom(*status, headers, body.clone())),
        Some(FaultAction::Delay(time)) => tokio::time::sleep(*time).await,
        Some(FaultAction::Meet(barrier)) => {
            barrier.wait().await;
        }
        _ => {}
    }
    let mut reply = lock(&state).handle(&method, &path, &headers, body);
    if method == "HEAD" {
        reply
            .headers
            .push(("content-length".to_owned(), reply.body.len().to_string()));
        reply.body.clear();
    }
    let mut change: Option<Box<dyn FnOnce(TestBody) -> TestBody + Send>> = None;
    match action {
        Some(FaultAction::Truncate(keep)) => change = Some(Box::new(move |body| body.cut_to(keep))),
        Some(FaultAction::Hold(at, go_on)) => change = Some(Box::new(move |body| body.held_at(at, go_on))),
        Some(FaultAction::Flip(at)) => {
            if let Some(byte) = reply.body.get_mut(at) {
                *byte ^= 1;
            }
        }
        Some(FaultAction::Header(name, value)) => {
            reply.headers.retain(|(n, _)| *n != name);
            reply.headers.push((name, value));
        }
        Some(FaultAction::NoHeader(name)) => reply.headers.retain(|(n, _)| *n != name),
        _ => {}
    }
    let response = custom(reply.status, &reply.headers, reply.body);
    Ok(match change {
        Some(change) => response.map(change),
        None => response,
    })
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn custom(status: u16, headers: &[(String, String)], body: Vec<u8>) -> Answer {
    let mut response = Response::new(TestBody::whole(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status of a test");
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header of a test");
        response.headers_mut().append(
            name,
            HeaderValue::from_bytes(value.as_bytes()).expect("a value of a test"),
        );
    }
    response
}

/// An answer before it is sent.
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(super) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(super) fn body(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }

    pub(super) fn error(status: u16, code: &str) -> Self {
        let body = format!(
            r#"{{"errors":[{{"code":"{code}","message":"{}"}}]}}"#,
            code.to_lowercase().replace('_', " ")
        );
        Self::new(status)
            .header("content-type", "application/json")
            .body(body.into_bytes())
    }
}

impl State {
    /// Logs a request and finds the fault for it.
    fn begin(
        &mut self,
        method: &str,
        path: &str,
        headers: &HeaderMap,
        body_len: usize,
    ) -> Option<FaultAction> {
        let headers = headers
            .iter()
            .map(|(n, v)| {
                (
                    n.as_str().to_owned(),
                    String::from_utf8_lossy(v.as_bytes()).into_owned(),
                )
            })
            .collect();
        self.log.push(LoggedRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            headers,
            body_len,
        });
        for fault in &mut self.faults {
            if fault.takes(method, path) {
                return Some(fault.action.clone());
            }
        }
        None
    }

    fn handle(&mut self, method: &str, path: &str, headers: &HeaderMap, body: Vec<u8>) -> Reply {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = parse_query(query);
        if path == "/token" {
            let asked = tokens::Asked::new(method, headers, &query, &body);
            return self.give_token(&asked);
        }
        let Some(rest) = path.strip_prefix("/v2/") else {
            return Reply::error(404, "NOT_FOUND");
        };
        let parts: Vec<&str> = rest.split('/').collect();
        let Some(kind) = parts.iter().rposition(|p| matches!(*p, "blobs" | "manifests")) else {
            let known = || match rest {
                "" => Reply::new(200),
                _ => Reply::error(404, "NOT_FOUND"),
            };
            return self.check(headers, "").unwrap_or_else(known);
        };
        let repository = parts[..kind].join("/");
        let writes = !matches!(method, "GET" | "HEAD") || parts.get(kind + 1) == Some(&"uploads");
        let needed = format!("repository:{repository}:{}", if writes { "push" } else { "pull" });
        if let Some(refused) = self.check(headers, &needed) {
            return refused;
        }
        match (parts[kind], method, &parts[kind + 1..]) {
            ("manifests", "GET" | "HEAD", [object]) => self.get_manifest(&repository, object),
            ("manifests", "PUT", [object]) => self.put_manifest(&repository, object, headers, body),
            ("blobs", "POST", ["uploads", ""]) => self.begin_upload(&repository, &query),
            ("blobs", "PATCH" | "PUT" | "GET", ["uploads", id]) => {
                self.continue_upload(method, &repository, id, headers, &query, &body)
            }
            ("blobs", "GET" | "HEAD", [digest]) => self.get_blob(&repository, digest, headers),
            _ => Reply::error(405, "UNSUPPORTED"),
        }
    }

    /// Nothing when the request may go on.
    fn check(&self, headers: &HeaderMap, needed: &str) -> Option<Reply> {
        let given = headers
            .get("authorization")
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let refused = || Reply::error(401, "UNAUTHORIZED");
        match &self.auth {
            RegistryAuth::None => None,
            RegistryAuth::Basic { user, password } => {
                let right = given == basic(user, password);
                (!right).then(|| refused().header("www-authenticate", "Basic realm=\"test\""))
            }
            RegistryAuth::Bearer { realm, .. } => {
                let granted = given
                    .strip_prefix("Bearer ")
                    .and_then(|token| self.tokens.get(token));
                if granted.is_some_and(|scopes| needed.is_empty() || scopes.iter().any(|s| s == needed)) {
                    return None;
                }
                let realm = realm
                    .clone()
                    .unwrap_or_else(|| format!("{}://{}/token", self.scheme, self.host));
                let challenge = format!("Bearer realm=\"{realm}\",service=\"test\",scope=\"{needed}\"");
                Some(refused().header("www-authenticate", challenge))
            }
        }
    }

    fn get_manifest(&self, repository: &str, object: &str) -> Reply {
        match self.manifests.get(&(repository.to_owned(), object.to_owned())) {
            Some((media_type, bytes)) => Reply::new(200)
                .header("content-type", media_type)
                .header("docker-content-digest", Digest::sha256(bytes))
                .body(bytes.clone()),
            None => Reply::error(404, "MANIFEST_UNKNOWN"),
        }
    }

    fn put_manifest(&mut self, repository: &str, object: &str, headers: &HeaderMap, body: Vec<u8>) -> Reply {
        let media_type = headers
            .get("content-type")
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let digest = Digest::sha256(&body);
        for key in [object.to_owned(), digest.to_string()] {
            self.manifests
                .insert((repository.to_owned(), key), (media_type.clone(), body.clone()));
        }
        Reply::new(201)
            .header("docker-content-digest", &digest)
            .header("location", format!("/v2/{repository}/manifests/{digest}"))
    }

    fn get_blob(&self, repository: &str, digest: &str, headers: &HeaderMap) -> Reply {
        let Ok(digest) = Digest::parse(digest) else {
            return Reply::error(400, "DIGEST_INVALID");
        };
        let Some(bytes) = self.blobs.get(&(repository.to_owned(), digest.clone())) else {
            return Reply::error(404, "BLOB_UNKNOWN");
        };
        let reply = Reply::new(200)
            .header("content-type", "application/octet-stream")
            .header("docker-content-digest", &digest);
        let range = headers.get("range").and_then(|v| {
            v.to_str()
                .ok()?
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        });
        match range {
            Some(from) if from < bytes.len() => {
                let span = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                Reply { status: 206, ..reply }
                    .header("content-range", span)
                    .body(bytes[from..].to_vec())
            }
            Some(_) => Reply::error(416, "RANGE_INVALID"),
            None => reply.body(bytes.clone()),
        }
    }

    fn begin_upload(&mut self, repository: &str, query: &[(String, String)]) -> Reply {
        if let (Some(mount), Some(from)) = (find(query, "mount"), find(query, "from"))
            && self.mounts
            && let Ok(digest) = Digest::parse(mount)
            && let Some(bytes) = self.blobs.get(&(from.to_owned(), digest.clone())).cloned()
        {
            self.blobs.insert((repository.to_owned(), digest.clone()), bytes);
            return Reply::new(201).header("docker-content-digest", &digest);
        }
        self.counter += 1;
        let id = format!("upload-{}", self.counter);
        self.uploads.insert(id.clone(), Vec::new());
        Reply::new(202).header(
            "location",
            format!("/v2/{repository}/blobs/uploads/{id}?_state=s%2F1"),
        )
    }

    fn continue_upload(
        &mut self,
        method: &str,
        repository: &str,
        id: &str,
        headers: &HeaderMap,
        query: &[(String, String)],
        body: &[u8],
    ) -> Reply {
        if find(query, "_state") != Some("s/1") {
            return Reply::error(400, "BLOB_UPLOAD_INVALID");
        }
        let Some(held) = self.uploads.get_mut(id) else {
            return Reply::error(404, "BLOB_UPLOAD_UNKNOWN");
        };
        if method == "PATCH" {
            let range = headers
                .get("content-range")
                .and_then(|v| v.to_str().ok()?.split_once('-')?.0.parse::<usize>().ok());
            if range.is_some_and(|from| from != held.len()) {
                return Reply::error(416, "RANGE_INVALID");
            }
        }
        held.extend_from_slice(body);
        let location = format!("/v2/{repository}/blobs/uploads/{id}?_state=s%2F1");
        if method != "PUT" {
            let end = held.len().saturating_sub(1);
            let status = if method == "GET" { 204 } else { 202 };
            return Reply::new(status)
                .header("location", location)
                .header("range", format!("0-{end}"));
        }
        let bytes = self.uploads.remove(id).unwrap_or_default();
        let found = Digest::sha256(&bytes);
        if find(query, "digest") != Some(found.as_str()) {
            return Reply::error(400, "DIGEST_INVALID");
        }
        self.blobs.insert((repository.to_owned(), found.clone()), bytes);
        Reply::new(201)
            .header("docker-content-digest", &found)
            .header("location", format!("/v2/{repository}/blobs/{found}"))
    }
}

pub(super) fn find<'q>(query: &'q [(String, String)], name: &str) -> Option<&'q str> {
    query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

pub(super) fn parse_query(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(n, v)| (decode(n), decode(v)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let hex: Vec<u8> = bytes.by_ref().take(2).collect();
                let hex = String::from_utf8_lossy(&hex).into_owned();
                out.push(u8::from_str_radix(&hex, 16).unwrap_or(b'?'));
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The header of user and password: base64 by hand, as nothing else here needs it.
pub(super) fn basic(user: &str, password: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = format!("{user}:{password}");
    let mut out = String::from("Basic ");
    for three in text.as_bytes().chunks(3) {
        let bits = three.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= three.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    out
}
