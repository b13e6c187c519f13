//! The client: settings, limits, and trying a reference's endpoints one after the other.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rbuild_oci::Reference;
use tokio::sync::{OnceCell, Semaphore};

use crate::net::Clients;
use crate::token::Tokens;
use crate::transport::Base;
use crate::{Credentials, Endpoint, ErrorClass, Excerpt, RegistryConfig, RegistryError};

/// `User-Agent` of rbuild. Servers know BuildKit (`version/ua.go`) and let it in, so it is named first.
pub const USER_AGENT: &str = concat!("buildkit/v0.29 rbuild/", env!("CARGO_PKG_VERSION"));

/// Limits and names; [`Default`] is what programs want.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `User-Agent` of every request.
    pub user_agent: String,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long nothing may move on a connection.
    pub idle_timeout: Duration,
    /// How often a request is tried in all.
    pub attempts: u32,
    /// Wait before the second attempt; it doubles from there, with jitter.
    pub backoff: Duration,
    /// The longest wait of our own choice.
    pub backoff_max: Duration,
    /// The longest wait that a server may ask for (`Retry-After`). One that asks for more is not asked again.
    pub asked_wait_max: Duration,
    /// Bytes of the chunks in which a blob is sent once sending it whole has broken: what arrived then stays, and the rest
    /// follows.
    pub resumed_chunk_bytes: u64,
    /// Requests under way to one host at a time.
    pub requests_per_host: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            user_agent: USER_AGENT.to_owned(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            attempts: 5,
            backoff: Duration::from_millis(250),
            backoff_max: Duration::from_secs(30),
            asked_wait_max: Duration::from_secs(120),
            resumed_chunk_bytes: 16 << 20,
            requests_per_host: 6,
        }
    }
}

/// Talks to registries. Cheap to clone; clones share connections, tokens and limits.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: RegistryConfig,
    pub(crate) credentials: Credentials,
    pub(crate) options: ClientOptions,
    pub(crate) clients: Clients,
    pub(crate) tokens: Tokens,
    bases: Mutex<HashMap<String, Arc<OnceCell<Base>>>>,
    limits: Mutex<HashMap<String, Arc<Semaphore>>>,
    /// Mirrors that could not be reached: asked no more.
    dead: Mutex<HashSet<String>>,
}

impl Client {
    /// A client with default limits.
    #[must_use]
    pub fn new(config: RegistryConfig, credentials: Credentials, user_agent: &str) -> Self {
        let options = ClientOptions {
            user_agent: user_agent.to_owned(),
            ..ClientOptions::default()
        };
        Self::with_options(config, credentials, options)
    }

    /// A client with these limits.
    #[must_use]
    pub fn with_options(config: RegistryConfig, credentials: Credentials, options: ClientOptions) -> Self {
        let clients = Clients::new(&options.user_agent, options.connect_timeout);
        Self {
            inner: Arc::new(Inner {
                config,
                credentials,
                options,
                clients,
                tokens: Tokens::default(),
                bases: Mutex::default(),
                limits: Mutex::default(),
                dead: Mutex::default(),
            }),
        }
    }

    /// The configuration it was made with.
    #[must_use]
    pub fn config(&self) -> &RegistryConfig {
        &self.inner.config
    }

    /// The same client for one to whom plain HTTP, or nobody who vouches, is enough of `host`. Shares no connection and
    /// no token with this one.
    #[must_use]
    pub fn with_insecure(&self, host: &str) -> Self {
        let mut config = self.inner.config.clone();
        config.set_insecure(host);
        Self::with_options(config, self.inner.credentials.clone(), self.inner.options.clone())
    }

    /// Runs `ask` on each endpoint of `reference` until one succeeds: mirrors first, then the registry.
    pub(crate) async fn each_endpoint<T, F, R>(
        &self,
        reference: &Reference,
        mut ask: F,
    ) -> Result<T, RegistryError>
    where
        F: FnMut(Endpoint) -> R,
        R: Future<Output = Result<T, RegistryError>>,
    {
        let mut endpoints = self.inner.config.pull_endpoints(reference)?;
        endpoints.retain(|endpoint| !endpoint.is_mirror || !self.inner.is_dead(&endpoint.host));
        let mut mirrors = String::new();
        for endpoint in endpoints {
            let (host, is_mirror) = (endpoint.host.clone(), endpoint.is_mirror);
            match ask(endpoint).await {
                Ok(done) => return Ok(done),
                Err(error) if error.class() == ErrorClass::Local => return Err(error),
                Err(error) if is_mirror => {
                    if matches!(error, RegistryError::Unreachable { .. }) {
                        self.inner.lock_dead().insert(host.clone());
                    }
                    let separator = if mirrors.is_empty() { "" } else { "; " };
                    let shown = Excerpt::from(error.to_string().as_str());
                    // Writing to a String cannot fail.
                    write!(mirrors, "{separator}mirror {host}: {shown}").ok();
                }
                Err(error) if mirrors.is_empty() => return Err(error),
                Err(error) => {
                    let reference = reference.to_string();
                    return Err(RegistryError::AllFailed {
                        reference,
                        mirrors,
                        source: Box::new(error),
                    });
                }
            }
        }
        unreachable!("the last endpoint is the registry itself, which is never left out")
    }
}

impl Inner {
    /// The cell that holds what is known of an endpoint's host.
    pub(crate) fn base_cell(&self, endpoint: &Endpoint) -> Arc<OnceCell<Base>> {
        let key = format!("{:?} {}", endpoint.policy, endpoint.host);
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(bases.entry(key).or_default())
    }

    /// The limit on requests to a host.
    pub(crate) fn limit(&self, host: &str) -> Arc<Semaphore> {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(self.options.requests_per_host.max(1)));
        Arc::clone(limits.entry(host.to_owned()).or_insert_with(new))
    }

    fn lock_dead(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_dead(&self, host: &str) -> bool {
        self.lock_dead().contains(host)
    }
}
