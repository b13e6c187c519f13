//! A registry in the test's own process, over HTTP on a port of 127.0.0.1: stores, authenticates, logs, and fails on
//! demand.
//!
//! Follows the OCI distribution spec as far as clients can tell, and breaks it exactly where a [`Fault`] says so. Not
//! for anything but tests: memory only, no limits.

mod body;
mod fault;
mod image;
mod resetting;
mod server;
mod tls;
mod tokens;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rbuild_oci::{Descriptor, Digest};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use fault::{Fault, FaultAction};
pub use image::{ImageCompression, ImageSpec, PutImage};
pub use resetting::ResettingServer;
pub use tokens::ISSUER;

/// How the registry authenticates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RegistryAuth {
    /// Not at all.
    #[default]
    None,
    /// User and password with each request.
    Basic {
        /// User.
        user: String,
        /// Password.
        password: String,
    },
    /// Tokens from `/token` of the same server, or of `realm`.
    Bearer {
        /// User that may pull and push; nobody else gets a token for a private repository.
        user: String,
        /// Password.
        password: String,
        /// A refresh token that is worth as much.
        identity_token: Option<String>,
        /// Whether tokens for `pull` are given to anyone.
        anonymous_pull: bool,
        /// Where clients are sent for tokens instead of to the server's own `/token`.
        realm: Option<String>,
    },
}

impl RegistryAuth {
    /// Tokens for one user, none for anyone else.
    #[must_use]
    pub fn bearer(user: &str, password: &str) -> Self {
        Self::Bearer {
            user: user.to_owned(),
            password: password.to_owned(),
            identity_token: None,
            anonymous_pull: false,
            realm: None,
        }
    }

    /// User and password with each request.
    #[must_use]
    pub fn basic(user: &str, password: &str) -> Self {
        Self::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedRequest {
    /// Such as `GET`.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// How many bytes its body had.
    pub body_len: usize,
}

impl LoggedRequest {
    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

/// A running registry; dropping it stops it.
#[derive(Debug)]
pub struct TestRegistry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the registry holds.
#[derive(Debug, Default)]
struct State {
    host: String,
    scheme: &'static str,
    /// The certificate is its own authority's.
    self_signed: bool,
    auth: RegistryAuth,
    blobs: HashMap<(String, Digest), Vec<u8>>,
    manifests: HashMap<(String, String), (String, Vec<u8>)>,
    uploads: HashMap<String, Vec<u8>>,
    tokens: HashMap<String, Vec<String>>,
    /// Repositories that no token is given for.
    closed: Vec<String>,
    /// Makes the tokens, where they are for another registry.
    signer: Option<tokens::Signer>,
    counter: u64,
    mounts: bool,
    faults: Vec<Fault>,
    log: Vec<LoggedRequest>,
}

impl TestRegistry {
    /// Starts a registry without authentication.
    ///
    /// # Panics
    /// When no port can be bound: a test cannot go on then.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(RegistryAuth::None)
    }

    /// Starts a registry that authenticates so.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_with(auth: RegistryAuth) -> Self {
        Self::start_as("http", false, auth)
    }

    /// Starts a registry that speaks TLS only, with a certificate for `localhost`, 127.0.0.1 and ::1 by
    /// [`Self::authority_pem`].
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_tls(auth: RegistryAuth) -> Self {
        Self::start_as("https", false, auth)
    }

    /// The same whose certificate nobody else signed: [`Self::self_signed_pem`].
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_self_signed(auth: RegistryAuth) -> Self {
        Self::start_as("https", true, auth)
    }

    /// The certificate of [`Self::start_self_signed`], made as docker's guide to registries tells to (`openssl req -x509`):
    /// it says of itself that it is an authority.
    #[must_use]
    pub const fn self_signed_pem() -> &'static str {
        tls::SELF_SIGNED
    }

    /// The certificate of the authority behind [`Self::start_tls`]. No system trusts it.
    #[must_use]
    pub const fn authority_pem() -> &'static str {
        tls::AUTHORITY
    }

    fn start_as(scheme: &'static str, self_signed: bool, auth: RegistryAuth) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port of 127.0.0.1");
        listener.set_nonblocking(true).expect("a non-blocking socket");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(Mutex::new(State {
            host: address.to_string(),
            scheme,
            self_signed,
            auth,
            mounts: true,
            ..State::default()
        }));
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a socket for the runtime");
                server::run(listener, shared, stopped).await;
            });
        });
        Self {
            address,
            state,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// A reference to `name` (`repository[:tag]`) in this registry.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a blob.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        self.put_blob_as(repository, &digest, bytes);
        digest
    }

    /// Stores bytes under a digest that need not be theirs.
    pub fn put_blob_as(&self, repository: &str, digest: &Digest, bytes: &[u8]) {
        self.state()
            .blobs
            .insert((repository.to_owned(), digest.clone()), bytes.to_vec());
    }

    /// Stores a manifest or index under `tag` and by digest.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(media_type, bytes);
        let mut state = self.state();
        for key in [tag, descriptor.digest.as_str()] {
            let stored = (media_type.to_owned(), bytes.to_vec());
            state
                .manifests
                .insert((repository.to_owned(), key.to_owned()), stored);
        }
        descriptor
    }

    /// Builds an image and stores all of it.
    pub fn put_image(&self, repository: &str, tag: &str, spec: &ImageSpec) -> PutImage {
        image::put(self, repository, tag, spec)
    }

    /// A stored blob.
    #[must_use]
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Vec<u8>> {
        self.state()
            .blobs
            .get(&(repository.to_owned(), digest.clone()))
            .cloned()
    }

    /// A stored manifest's media type and bytes, by tag or digest.
    #[must_use]
    pub fn manifest(&self, repository: &str, object: &str) -> Option<(String, Vec<u8>)> {
        self.state()
            .manifests
            .get(&(repository.to_owned(), object.to_owned()))
            .cloned()
    }

    /// Makes requests fail; faults are tried in the order they were added, and the first that matches is used.
    pub fn fault(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Forgets all faults.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Whether mounting works (it does at first); otherwise it is answered with 202, as an ordinary upload.
    pub fn allow_mounts(&self, allow: bool) {
        self.state().mounts = allow;
    }

    /// Makes every token given so far invalid.
    pub fn expire_tokens(&self) {
        self.state().tokens.clear();
    }

    /// From now on tokens are for another registry: signed, and good for so many seconds. A registry that allows for
    /// clocks that differ has to be given less than none for a short one.
    pub fn sign_tokens(&self, life_seconds: i64) {
        self.state().signer = Some(tokens::Signer::new(life_seconds));
    }

    /// Gives no tokens for a repository any more, to nobody.
    pub fn close_repository(&self, repository: &str) {
        self.state().closed.push(repository.to_owned());
    }

    /// Every request so far, in the order they came.
    #[must_use]
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.state().log.clone()
    }

    /// How many requests of `method` had `part` in their path and query.
    #[must_use]
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.state()
            .log
            .iter()
            .filter(|r| r.method == method && r.path.contains(part))
            .count()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.state().log.clear();
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The server may have ended by itself; then there is nobody to tell.
            stop.send(()).ok();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
