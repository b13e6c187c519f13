//! One request: which client, which authorization, which redirects, when to try again.
//!
//! Authorization is attached here and nowhere else, and only to requests whose scheme, host and port are the
//! endpoint's own. A redirect elsewhere is followed without it, never from HTTPS to HTTP, and what is found there is
//! asked no second time with credentials (security row 33).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Body, Method, StatusCode, Url};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::challenge;
use crate::client::Inner;
use crate::config::is_loopback_host;
use crate::net::{ClientKind, check_url, connect_error};
use crate::reply::{Reply, join, location, retry_after, too_many_redirects};
use crate::token::{self, Scope};
use crate::{Endpoint, Refusal, RegistryError, SchemePolicy, ShownUrl};

/// Most redirects followed for one request.
const REDIRECTS_MAX: usize = 10;
/// Most of an error's body read, in bytes.
const ERROR_BYTES_MAX: usize = 8 << 10;
/// How often a challenge is answered for one request: once for a token that ended, once for one that is new.
const CHALLENGES_MAX: usize = 2;

/// What is known of an endpoint's host after the first contact.
#[derive(Debug)]
pub(crate) struct Base {
    /// `scheme://host:port/`
    pub(crate) url: Url,
    /// Whether it is on this machine.
    pub(crate) loopback: AtomicBool,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A path below `/v2/`, with its query.
    Path(String),
    /// A URL that the registry named, such as an upload's.
    Url(Url),
}

/// Makes the body of a request anew for each attempt, and counts what was sent of it.
pub(crate) trait MakeBody: Sync {
    /// The body; adds to `sent` as bytes go out.
    fn make(&self, sent: Arc<AtomicU64>) -> Body;
}

/// A request.
pub(crate) struct Call<'a> {
    pub(crate) operation: &'static str,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<&'a dyn MakeBody>,
    pub(crate) scope: &'a Scope,
    /// Answers that are no error.
    pub(crate) accepted: &'static [u16],
}

impl<'a> Call<'a> {
    /// An error of a host that was not reached, with the method of this request. Of manifests BuildKit asks for the head
    /// first, and that is what fails there.
    fn named(&self, mut error: RegistryError) -> RegistryError {
        if let RegistryError::Unreachable { verb, .. } = &mut error {
            let of_manifest = matches!(&self.target, Target::Path(path) if path.contains("/manifests/"));
            *verb = match self.method {
                Method::GET if of_manifest => "Head",
                Method::HEAD => "Head",
                Method::POST => "Post",
                Method::PUT => "Put",
                Method::PATCH => "Patch",
                Method::DELETE => "Delete",
                _ => "Get",
            };
        }
        error
    }

    /// An error of looking for the host, as one of this request: that it was looked for is nobody's affair.
    fn not_reached(&self, error: RegistryError) -> RegistryError {
        let mut error = self.named(error);
        if let (RegistryError::Unreachable { url, .. }, Target::Path(path)) = (&mut error, &self.target) {
            *url = url.below(path);
        }
        error
    }

    /// A request without body whose only success is 200.
    pub(crate) fn new(
        operation: &'static str,
        endpoint: &'a Endpoint,
        method: Method,
        path: String,
        scope: &'a Scope,
    ) -> Self {
        Self {
            operation,
            endpoint,
            method,
            target: Target::Path(path),
            headers: HeaderMap::new(),
            body: None,
            scope,
            accepted: &[200],
        }
    }
}

impl Inner {
    /// Runs `attempt` until it succeeds, fails for good, or has been tried often enough. Mirrors are tried twice.
    pub(crate) async fn retry<T, F, R>(&self, endpoint: &Endpoint, mut attempt: F) -> Result<T, RegistryError>
    where
        F: FnMut() -> R,
        R: Future<Output = Result<T, RegistryError>>,
    {
        let attempts = if endpoint.is_mirror {
            self.options.attempts.min(2)
        } else {
            self.options.attempts
        };
        let mut tried = 1;
        loop {
            match attempt().await {
                Err(error) if self.may_pass(&error) && tried < attempts => {
                    tokio::time::sleep(self.backoff(tried, error.retry_after())).await;
                    tried += 1;
                }
                done => return done,
            }
        }
    }

    /// Whether trying again is of use: what stays is not asked again, nor a server that wants more patience than there is.
    pub(crate) fn may_pass(&self, error: &RegistryError) -> bool {
        let patient = |asked| asked <= self.options.asked_wait_max;
        error.is_temporary() && error.retry_after().is_none_or(patient)
    }

    /// The wait after the `tried`th attempt: what the server asks for, else doubling, between half and all of it.
    pub(crate) fn backoff(&self, tried: u32, asked: Option<Duration>) -> Duration {
        let longest = self.options.backoff_max;
        if let Some(asked) = asked {
            return asked.min(self.options.asked_wait_max);
        }
        let doubled = self
            .options
            .backoff
            .saturating_mul(1 << tried.saturating_sub(1).min(16));
        let whole = doubled.min(longest);
        whole / 2 + (whole / 2).mul_f64(jitter())
    }

    /// One request with retries.
    pub(crate) async fn call(&self, call: &Call<'_>) -> Result<Reply, RegistryError> {
        self.retry(call.endpoint, || self.call_once(call)).await
    }

    /// One request: redirects are followed and challenges answered, but nothing is tried again.
    pub(crate) fn call_once<'a>(&'a self, call: &'a Call<'_>) -> BoxFuture<'a, Result<Reply, RegistryError>> {
        Box::pin(self.call_once_unboxed(call))
    }

    async fn call_once_unboxed(&self, call: &Call<'_>) -> Result<Reply, RegistryError> {
        let cell = self.base_cell(call.endpoint);
        let base = cell.get_or_try_init(|| self.find_base(call.endpoint)).await;
        let base = base.map_err(|error| call.not_reached(error))?;
        let mut url = match &call.target {
            Target::Path(path) => join(&base.url, &format!("/v2/{path}"))?,
            Target::Url(url) => url.clone(),
        };
        let slot = self.tokens.slot(base.url.as_str(), call.scope);
        let (mut redirects, mut challenges) = (0, 0);
        let mut tried = String::new();
        loop {
            let own = url.origin() == base.url.origin();
            let authorization = if own {
                token::current(&*slot.lock().await)
            } else {
                None
            };
            let reply = self.send(call, base, &url, authorization.clone()).await;
            let reply = reply.map_err(|error| call.named(error))?;
            let status = reply.response.status();
            if own && base.url.scheme() == url.scheme() && !self.proxied() {
                let peer = reply
                    .peer
                    .is_some_and(|peer| crate::config::is_loopback(peer.ip()));
                base.loopback.fetch_or(peer, Ordering::Relaxed);
            }
            if call.accepted.contains(&status.as_u16()) {
                return Ok(reply);
            }
            if status.is_redirection() && is_followed(&call.method, status) {
                redirects += 1;
                if redirects > REDIRECTS_MAX {
                    return Err(too_many_redirects(&url));
                }
                url = location(&url, &reply.response)?;
                continue;
            }
            if status == StatusCode::UNAUTHORIZED && own && challenges < CHALLENGES_MAX {
                challenges += 1;
                let asked = challenge::find(reply.response.headers());
                let refused = self.refused(call.operation, reply).await;
                let Some(asked) = asked else {
                    return Err(unauthorized(
                        refused,
                        "it did not say how to authenticate".to_owned(),
                    ));
                };
                let mut held = slot.lock().await;
                // Another request may have got a new one meanwhile.
                if token::current(&held) == authorization {
                    let (got, used) = self.authorize(call, base, &asked, &refused).await?;
                    *held = Some(got);
                    tried = used;
                }
                continue;
            }
            let refused = self.refused(call.operation, reply).await;
            return Err(classify(refused, own, tried));
        }
    }

    /// Sends one request to one place and waits for the head of its answer.
    async fn send(
        &self,
        call: &Call<'_>,
        base: &Base,
        url: &Url,
        authorization: Option<HeaderValue>,
    ) -> Result<Reply, RegistryError> {
        let loopback = base.loopback.load(Ordering::Relaxed);
        let own = url.origin() == base.url.origin();
        check_url(url, loopback || own)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
        let permit = self.permit(&host).await;
        let kind = self.kind(call.endpoint, &format!("{host}{port}"), url, own, loopback || own);
        let client = self.clients.get(&kind, &host, &self.config)?;
        let sent = Arc::new(AtomicU64::new(0));
        let mut request = client
            .request(call.method.clone(), url.clone())
            .headers(call.headers.clone());
        if let Some(header) = authorization {
            request = request.header(AUTHORIZATION, header);
        }
        if let Some(body) = call.body {
            request = request.body(body.make(Arc::clone(&sent)));
        }
        let response = self.watch(url, &sent, request.send()).await?;
        match response {
            Ok(response) => Ok(Reply::new(response, url, permit, self.options.idle_timeout)),
            Err(error) if error.is_connect() => Err(connect_error(
                url,
                "failed to do request: ",
                hint(call.endpoint),
                error,
            )),
            Err(error) => Err(RegistryError::broken(url, error)),
        }
    }

    /// Waits for an answer as long as something moves: bytes of the body, or the clock of the answer itself.
    pub(crate) async fn watch<T>(
        &self,
        url: &Url,
        sent: &AtomicU64,
        work: impl Future<Output = T>,
    ) -> Result<T, RegistryError> {
        let limit = self.options.idle_timeout;
        let mut work = Box::pin(work);
        let mut before = sent.load(Ordering::Relaxed);
        loop {
            if let Ok(done) = timeout(limit, &mut work).await {
                return Ok(done);
            }
            let now = sent.load(Ordering::Relaxed);
            if now == before {
                return Err(RegistryError::Timeout {
                    url: url.into(),
                    direction: "received",
                    seconds: limit.as_secs(),
                });
            }
            before = now;
        }
    }

    pub(crate) async fn permit(&self, host: &str) -> OwnedSemaphorePermit {
        match self.limit(host).acquire_owned().await {
            Ok(permit) => permit,
            Err(_closed) => unreachable!("the semaphores of hosts are never closed"),
        }
    }

    fn proxied(&self) -> bool {
        ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
            .iter()
            .any(|name| self.config.env(name).is_some())
    }

    /// The kind of client for a URL: the endpoint's own settings there, else the other host's.
    pub(crate) fn kind(
        &self,
        endpoint: &Endpoint,
        host: &str,
        url: &Url,
        own: bool,
        loopback: bool,
    ) -> ClientKind {
        let tls = url.scheme() == "https";
        let policy = if own {
            endpoint.policy
        } else {
            self.config.scheme_policy(host)
        };
        let mut files = if tls {
            self.config.tls_files(host)
        } else {
            crate::config::TlsFiles::default()
        };
        if tls && !own {
            // A registry's own authority may have signed its token and storage servers too. Its client certificate
            // is for the registry alone.
            files.ca.extend(self.config.tls_files(&endpoint.host).ca);
        }
        ClientKind {
            tls,
            verify: policy != SchemePolicy::Insecure,
            loopback,
            files,
        }
    }

    /// The client for a URL that is no registry's: a file, a service, what a step asks for. `loopback` says whether this machine
    /// may be asked.
    ///
    /// # Errors
    /// Offline, or a URL or certificate files that are refused.
    pub(crate) fn web_client(&self, url: &Url, loopback: bool) -> Result<reqwest::Client, RegistryError> {
        self.config.check_online(&ShownUrl::from(url))?;
        check_url(url, loopback)?;
        let host = url.host_str().unwrap_or_default();
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let tls = url.scheme() == "https";
        let mut files = crate::config::TlsFiles::default();
        if tls {
            // The authorities of a host are of use; its client certificate is for its registry.
            files.ca = self.config.tls_files(&format!("{host}{port}")).ca;
        }
        let kind = ClientKind {
            tls,
            verify: true,
            loopback,
            files,
        };
        self.clients.get(&kind, host, &self.config)
    }

    /// Finds the scheme of an endpoint: given by its policy, or by asking.
    async fn find_base(&self, endpoint: &Endpoint) -> Result<Base, RegistryError> {
        let url = |scheme: &str| {
            Url::parse(&format!("{scheme}://{}/", endpoint.host)).map_err(|error| RegistryError::Host {
                host: endpoint.host.clone(),
                reason: error.to_string(),
            })
        };
        let base = |url| Base {
            url,
            loopback: AtomicBool::new(is_loopback_host(&endpoint.host)),
        };
        let (first, second) = match endpoint.policy {
            SchemePolicy::HttpsOnly => return Ok(base(url("https")?)),
            SchemePolicy::HttpOnly => return Ok(base(url("http")?)),
            // Nobody listens in on this machine, and a TLS handshake that fails costs more than the rest of a build.
            SchemePolicy::Insecure if is_loopback_host(&endpoint.host) => ("http", "https"),
            SchemePolicy::Loopback => ("http", "https"),
            SchemePolicy::Insecure => ("https", "http"),
        };
        let (first, second) = (base(url(first)?), base(url(second)?));
        let answered = self.probe(endpoint, &first).await;
        // A TLS server answers plain HTTP with 400, or not at all.
        if matches!(answered, Ok(status) if status != StatusCode::BAD_REQUEST) {
            return Ok(first);
        }
        match (answered, self.probe(endpoint, &second).await) {
            (_, Ok(_)) => Ok(second),
            (Ok(_), Err(error)) if error.is_certificate() => Err(error),
            (Ok(_), Err(_)) => Ok(first),
            (Err(_), Err(error)) if error.is_certificate() => Err(error),
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// Asks `/v2/`, without authorization, only to see whether something answers.
    async fn probe(&self, endpoint: &Endpoint, base: &Base) -> Result<StatusCode, RegistryError> {
        let scope = Scope::pull(&endpoint.repository);
        let call = Call::new("find", endpoint, Method::GET, String::new(), &scope);
        Ok(self
            .send(&call, base, &join(&base.url, "/v2/")?, None)
            .await?
            .response
            .status())
    }

    /// Turns an answer that is no success into what it says.
    pub(crate) async fn refused(&self, operation: &'static str, mut reply: Reply) -> Refusal {
        let status = reply.response.status();
        let retry_after = retry_after(&reply.response);
        let mut body = Vec::new();
        let read = async {
            while body.len() < ERROR_BYTES_MAX {
                match reply.chunk().await {
                    Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                    _ => break,
                }
            }
        };
        // What of the body came is shown; that the rest did not, or not in time, is no news in an error.
        timeout(self.options.idle_timeout, read).await.ok();
        body.truncate(ERROR_BYTES_MAX);
        Refusal::new(operation, &reply.url, status, &body, retry_after)
    }
}

/// Whether a redirect of a request is followed: one that writes only where the redirect says that the method stays
/// (RFC 9110, sections 15.4.8 and 15.4.9), as load balancers before registries do.
fn is_followed(method: &Method, status: StatusCode) -> bool {
    matches!(*method, Method::GET | Method::HEAD) || matches!(status.as_u16(), 307 | 308)
}

/// What an answer without success means.
fn classify(refusal: Refusal, own: bool, tried: String) -> RegistryError {
    match refusal.status.as_u16() {
        401 | 403 if own => {
            let tried = if tried.is_empty() {
                "no other credentials were tried".to_owned()
            } else {
                tried
            };
            unauthorized(refusal, tried)
        }
        401 | 403 => unauthorized(
            refusal,
            "no credentials are sent to the host it redirects to".to_owned(),
        ),
        404 => RegistryError::NotFound(Box::new(refusal)),
        _ => RegistryError::Refused(Box::new(refusal)),
    }
}

pub(crate) fn unauthorized(refusal: Refusal, tried: String) -> RegistryError {
    RegistryError::Unauthorized {
        refusal: Box::new(refusal),
        tried,
    }
}

/// What the user can do about a host that cannot be reached.
fn hint(endpoint: &Endpoint) -> String {
    if endpoint.source.is_empty() {
        String::new()
    } else {
        format!("; it is named in {}", endpoint.source)
    }
}

/// A number from 0 to 1 that differs each time.
fn jitter() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let bits = u32::try_from(RandomState::new().hash_one(0) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Client, ClientOptions, Credentials, RegistryConfig};

    #[test]
    fn pauses_double_up_to_a_limit_and_differ_between_half_and_all() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(2));
        let options = ClientOptions {
            backoff: first,
            backoff_max: longest,
            asked_wait_max: Duration::from_secs(60),
            ..ClientOptions::default()
        };
        let client = Client::with_options(RegistryConfig::default(), Credentials::default(), options);
        for tried in [1, 2, 3, 5, 6, 40, u32::MAX] {
            let whole = longest.min(first.saturating_mul(1 << (tried - 1).min(16)));
            let pauses: Vec<Duration> = (0..50).map(|_| client.inner.backoff(tried, None)).collect();
            for pause in &pauses {
                assert!(
                    (whole / 2..=whole).contains(pause),
                    "{tried}: {pause:?} of {whole:?}"
                );
            }
            // Fifty clients that were refused at once do not come back at once.
            let early = pauses.iter().filter(|pause| **pause < whole * 3 / 4).count();
            assert!((1..50).contains(&early), "{tried}: {pauses:?}");
        }
        for (asked, waited) in [(0, 0), (7, 7), (60, 60), (3600, 60)] {
            let asked = Some(Duration::from_secs(asked));
            assert_eq!(client.inner.backoff(1, asked), Duration::from_secs(waited));
        }
    }
}
