//! The client of a build, reached through its session: its directories, secrets, credentials, and the outputs it takes.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use rbuild_builder::client::{
    Client, ClientBytes, ClientReadError, ClientStream, ClientTree, ContentPlace, LocalError, OutputError,
    SourceAnswer, SourceQuestion,
};
use rbuild_builder::ops::blocking;
use rbuild_builder::secrets::{SecretError, SecretValue};
use rbuild_builder::solve::Reporter;
use rbuild_builder::ssh::{AgentStream, Agents, SshError};
use rbuild_dockerfile::ignore::{PatternError, PatternMatcher};
use rbuild_fileops::{LocalContext, SourceTree};
use rbuild_graph::FileTime;
use rbuild_oci::{Descriptor, Digest};
use rbuild_registry::{Credential, CredentialProvider, Secret};
use rbuild_session::{
    BlockingSender, CallError, ContentError, ContentStore, Differ, GetError, MetadataOnly, Selection,
    SendError, SendTree, SendTreeError, Session, Sessions, SyncError, SyncRequest, TreeSource,
};
use rbuild_store::{CacheMountGuard, Lease, MountError, MountOwner, MountRequest, MountSharing, Store};
use rbuild_sys::{RootFd, RootFdError};
use tokio::sync::OnceCell;
use tokio_util::io::StreamReader;
use tokio_util::sync::CancellationToken;

/// How long a session may take to appear (`session/manager.go`).
const SESSION_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Host of the files that clients offer (`session/upload/uploadprovider`).
const UPLOAD_HOST: &str = "buildkit-session";

/// Why a directory of the client is not here.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The client has no session.
    #[error(transparent)]
    Session(#[from] GetError),
    /// There is no place to keep it.
    #[error("make room for the files")]
    Room(#[from] MountError),
    /// The place could not be opened.
    #[error(transparent)]
    Open(#[from] RootFdError),
    /// The transfer failed.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// An attribute of the source is no list of texts.
    #[error("invalid value for {key}")]
    List {
        /// Its name.
        key: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Neither true nor false.
    #[error("invalid value for local.metadatatransfer {0:?}")]
    MetadataTransfer(String),
    /// What is to be fetched although only the list was asked for.
    #[error("patterns of local.metadatatransferexclude")]
    Patterns(#[from] PatternError),
}

/// A build's client.
#[derive(Debug)]
pub struct SessionClient {
    sessions: Sessions,
    /// Id of its session.
    id: String,
    store: Store,
    lease: Arc<Lease>,
    cancel: CancellationToken,
    /// Session that decides on sources; none if empty.
    policy_session: String,
    /// What was fetched already, by what was asked.
    fetched: Mutex<HashMap<Digest, Arc<OnceCell<Fetched>>>>,
}

/// A directory of the client, kept until the build is over.
#[derive(Debug)]
struct Fetched {
    tree: Arc<SourceTree>,
    /// Nobody else writes to it.
    _guard: CacheMountGuard,
}

impl SessionClient {
    /// The client whose session has this id.
    #[must_use]
    pub fn new(
        sessions: Sessions,
        id: String,
        store: Store,
        lease: Arc<Lease>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            sessions,
            id,
            store,
            lease,
            cancel,
            policy_session: String::new(),
            fetched: Mutex::default(),
        }
    }

    /// The same, whose sources the session of this id decides on; nobody if it is empty.
    #[must_use]
    pub fn with_policy_session(mut self, id: String) -> Self {
        self.policy_session = id;
        self
    }

    /// Its session, waited for.
    ///
    /// # Errors
    /// [`GetError`].
    pub async fn session(&self) -> Result<Session, GetError> {
        self.sessions.get(&self.id, SESSION_WAIT).await
    }

    /// The session of this id; its own if there is none.
    async fn session_or_own(&self, id: &str) -> Result<Session, GetError> {
        let id = if id.is_empty() { &self.id } else { id };
        self.sessions.get(id, SESSION_WAIT).await
    }

    async fn content_store(&self, place: &ContentPlace) -> Result<ContentStore, ClientReadError> {
        let session = self.session_or_own(&place.session).await.map_err(unread)?;
        Ok(session.content_store(&place.store))
    }

    async fn fetch(
        &self,
        name: &str,
        attrs: &BTreeMap<String, String>,
        reporter: &mut Reporter,
    ) -> Result<Arc<SourceTree>, TransferError> {
        let asked = Digest::sha256(format!("{name}\0{attrs:?}").as_bytes());
        let cell = {
            let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(fetched.entry(asked).or_default())
        };
        let was_here = cell.initialized();
        reporter.start(None);
        let fetched = cell
            .get_or_try_init(|| self.transfer(name, attrs, reporter))
            .await;
        match &fetched {
            Ok(_) if was_here => reporter.cached(),
            Ok(_) => reporter.done(),
            Err(error) => reporter.failed(error.to_string()),
        }
        Ok(Arc::clone(&fetched?.tree))
    }

    async fn transfer(
        &self,
        name: &str,
        attrs: &BTreeMap<String, String>,
        reporter: &Reporter,
    ) -> Result<Fetched, TransferError> {
        let id = attrs.get("local.session").map_or("", String::as_str);
        let session = self.session_or_own(id).await?;
        let hint = attrs.get("local.sharedkeyhint").map_or("", String::as_str);
        let request = request(name, attrs)?;
        // One directory for each of a client's directories, so that the next build fetches only what changed.
        let kind = request.metadata_only.as_ref().map_or("", |_| ":metadata");
        let place = format!("local {name}:{hint}:{}{kind}", session.shared_key());
        let (store, lease, cancel) = (self.store.clone(), Arc::clone(&self.lease), self.cancel.clone());
        let guard = blocking(move || {
            let mount = MountRequest {
                id: &place,
                sharing: MountSharing::Private,
                owner: MountOwner::Builder,
                fresh: false,
            };
            store.cache_mount(&lease, mount, &|| cancel.is_cancelled(), &mut |_: &Path| Ok(()))
        })
        .await?;
        let path = guard.path().to_owned();
        let root = RootFd::open(&path)?;
        let started = SystemTime::now();
        let id = format!("transferring {name}:");
        // All that came, the list of files too: a directory that has not changed was looked at all the same.
        let came = AtomicU64::new(0);
        let progress = |bytes| {
            came.store(bytes, Ordering::Relaxed);
            reporter.status(&id, bytes, 0, started, false);
        };
        session
            .sync(&request, RootFd::open(&path)?, progress, &self.cancel)
            .await?;
        reporter.status(&id, came.load(Ordering::Relaxed), 0, started, true);
        Ok(Fetched {
            tree: Arc::new(SourceTree::Context(
                LocalContext::new(root, path, None).own_copy(),
            )),
            _guard: guard,
        })
    }
}

/// What to ask the client for (`source/local/source.go`).
fn request(name: &str, attrs: &BTreeMap<String, String>) -> Result<SyncRequest, TransferError> {
    let list = |key: &'static str| -> Result<Vec<String>, TransferError> {
        let text = attrs.get(key).map_or("[]", String::as_str);
        serde_json::from_str(text).map_err(|source| TransferError::List { key, source })
    };
    let metadata_only = match attrs.get("local.metadatatransfer") {
        Some(text) => rbuild_dockerfile::csv::boolean(text)
            .ok_or_else(|| TransferError::MetadataTransfer(text.clone()))?,
        None => false,
    };
    let metadata_only = match metadata_only {
        true => {
            let wanted = PatternMatcher::new(&list("local.metadatatransferexclude")?)?;
            Some(MetadataOnly::except(move |path| {
                path.to_str()
                    .is_some_and(|path| wanted.matches_or_parent_matches(path))
            }))
        }
        false => None,
    };
    Ok(SyncRequest {
        include_patterns: list("local.includepattern")?,
        exclude_patterns: list("local.excludepatterns")?,
        follow_paths: list("local.followpaths")?,
        differ: match attrs.get("local.differ").map(String::as_str) {
            Some("none") => Differ::None,
            _ => Differ::Metadata,
        },
        metadata_only,
        ..SyncRequest::new(name)
    })
}

impl Client for SessionClient {
    fn local<'a>(
        &'a self,
        name: &'a str,
        attrs: &'a BTreeMap<String, String>,
        reporter: &'a mut Reporter,
    ) -> BoxFuture<'a, Result<Arc<SourceTree>, LocalError>> {
        Box::pin(async move {
            self.fetch(name, attrs, reporter)
                .await
                .map_err(|error| not_sent(name, error))
        })
    }

    fn secret<'a>(
        &'a self,
        id: &'a str,
        optional: bool,
    ) -> BoxFuture<'a, Result<Option<SecretValue>, SecretError>> {
        Box::pin(async move {
            let fail = |source| SecretError::Client {
                id: id.to_owned(),
                source,
            };
            let session = self.session().await.map_err(|e| fail(Box::new(e)))?;
            match session.secret(id).await {
                Ok(Some(value)) => Ok(Some(SecretValue::new(value.expose().to_vec()))),
                Ok(None) if optional => Ok(None),
                Ok(None) => Err(SecretError::NotFound(id.to_owned())),
                Err(error) => Err(fail(Box::new(error))),
            }
        })
    }

    fn blob_size<'a>(
        &'a self,
        place: &'a ContentPlace,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<u64, ClientReadError>> {
        Box::pin(async move {
            let store = self.content_store(place).await?;
            let info = store.info(digest).await.map_err(unread)?;
            Ok(info.size)
        })
    }

    fn blob<'a>(
        &'a self,
        place: &'a ContentPlace,
        digest: &'a Digest,
        bytes: u64,
    ) -> BoxFuture<'a, Result<ClientBytes, ClientReadError>> {
        Box::pin(async move {
            let store = self.content_store(place).await?;
            let reader = store.read(digest, 0, bytes, &self.cancel).await;
            let reader = reader.map_err(|error| match error {
                ContentError::NotFound(digest) => ClientReadError::Missing(digest),
                error => unread(error),
            })?;
            let chunks = futures_util::stream::try_unfold(reader, |mut reader| async move {
                let chunk = reader.next().await.map_err(|error| {
                    let kind = match error {
                        ContentError::NotFound(_) => io::ErrorKind::NotFound,
                        _ => io::ErrorKind::Other,
                    };
                    io::Error::new(kind, error)
                })?;
                Ok::<_, io::Error>(chunk.map(|chunk| (chunk, reader)))
            });
            Ok(Box::pin(StreamReader::new(Box::pin(chunks))) as ClientBytes)
        })
    }

    fn put_blob<'a>(
        &'a self,
        place: &'a ContentPlace,
        descriptor: &'a Descriptor,
        file: std::fs::File,
    ) -> BoxFuture<'a, Result<(), OutputError>> {
        Box::pin(async move {
            let session = self.session_or_own(&place.session).await.map_err(output)?;
            let store = session.content_store(&place.store);
            let written = store.write(&descriptor.digest, descriptor.size, file, &self.cancel);
            written.await.map_err(output)
        })
    }

    fn upload<'a>(
        &'a self,
        path: &'a str,
        bytes_max: u64,
    ) -> BoxFuture<'a, Result<ClientBytes, ClientReadError>> {
        Box::pin(async move {
            let session = self.session().await.map_err(unread)?;
            let reader = session.upload(UPLOAD_HOST, path, bytes_max, &self.cancel).await;
            Ok(Box::pin(reader.map_err(unread)?) as ClientBytes)
        })
    }

    fn checks_sources(&self) -> bool {
        !self.policy_session.is_empty()
    }

    fn check_source<'a>(
        &'a self,
        question: SourceQuestion<'a>,
    ) -> BoxFuture<'a, Result<SourceAnswer, ClientReadError>> {
        Box::pin(async move {
            let session = self.sessions.get(&self.policy_session, SESSION_WAIT).await;
            let session = session.map_err(unread)?;
            crate::policy_session::ask(&session, question)
                .await
                .map_err(unread)
        })
    }

    fn agents(&self) -> Arc<dyn Agents> {
        Arc::new(SessionAgents {
            sessions: self.sessions.clone(),
            id: self.id.clone(),
        })
    }

    fn stream<'a>(
        &'a self,
        exporter: u32,
        metadata: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<Box<dyn ClientStream>, OutputError>> {
        Box::pin(async move {
            let session = self.session().await.map_err(output)?;
            let sender = session
                .send_bytes(exporter, metadata, &self.cancel)
                .map_err(output)?;
            let stream = ToClient {
                sender: Some(sender.into_blocking()),
            };
            Ok(Box::new(stream) as Box<dyn ClientStream>)
        })
    }

    fn trees<'a>(
        &'a self,
        exporter: u32,
        trees: Vec<ClientTree>,
        time: Option<FileTime>,
    ) -> BoxFuture<'a, Result<(), OutputError>> {
        Box::pin(async move {
            let session = self.session().await.map_err(output)?;
            let sources: Vec<TreeSource> = trees
                .into_iter()
                .map(|tree| TreeSource {
                    prefix: tree.prefix,
                    root: tree.root,
                    extra: Vec::new(),
                    mod_time: time_ns(time),
                    selection: Selection::default(),
                })
                .collect();
            // Trees without directories of their own are put on top of each other.
            let apart = sources.len() > 1 && sources.iter().any(|source| source.prefix.is_none());
            let calls: Vec<Vec<TreeSource>> = if apart {
                sources.into_iter().map(|source| vec![source]).collect()
            } else {
                vec![sources]
            };
            for trees in calls {
                let request = SendTree {
                    exporter,
                    trees,
                    whole: !apart,
                };
                let sent = session.send_tree(request, |_| {}, &self.cancel).await;
                sent.map_err(output)?;
            }
            Ok(())
        })
    }
}

fn time_ns(time: Option<FileTime>) -> Option<i64> {
    let time = time?;
    Some(
        time.seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(time.nanoseconds)),
    )
}

fn unread(error: impl std::error::Error + Send + Sync + 'static) -> ClientReadError {
    ClientReadError::Client(Box::new(error))
}

fn output(error: impl std::error::Error + Send + Sync + 'static) -> OutputError {
    match client_answer(&error).and_then(CallError::in_go_words) {
        Some(words) => OutputError::Refused {
            words,
            source: Box::new(error),
        },
        None => OutputError::Client(Box::new(error)),
    }
}

/// The call that an error is about, if it is about one.
pub(crate) fn client_answer<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a CallError> {
    if let Some(TransferError::Sync(SyncError::Call(call))) = error.downcast_ref() {
        return Some(call);
    }
    if let Some(SendError::Call(call)) = error.downcast_ref() {
        return Some(call);
    }
    match error.downcast_ref() {
        Some(SendTreeError::Call(call)) => Some(call),
        _ => error.downcast_ref(),
    }
}

/// Why directory `name` did not come, in the words of the client where it answered.
fn not_sent(name: &str, error: TransferError) -> LocalError {
    let call = client_answer(&error);
    if matches!(call, Some(CallError::Unsupported { .. })) {
        return LocalError::NoneGiven;
    }
    let words = call.and_then(CallError::in_go_words);
    LocalError::Client {
        words: words.unwrap_or_else(|| format!("failed to load local source {name:?}")),
        source: Box::new(error),
    }
}

/// An exporter's stream.
struct ToClient {
    /// Nothing once the client said that it has what is written.
    sender: Option<BlockingSender>,
}

impl ToClient {
    fn pass<T>(
        &mut self,
        otherwise: T,
        work: impl FnOnce(&mut BlockingSender) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(sender) = &mut self.sender else {
            return Ok(otherwise);
        };
        let done = work(sender);
        let is_there = |error: &io::Error| {
            let inner = error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<SendError>());
            inner.is_some_and(SendError::is_already_there)
        };
        match done {
            Err(error) if is_there(&error) => {
                self.sender = None;
                Ok(otherwise)
            }
            done => done,
        }
    }
}

impl Write for ToClient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pass(bytes.len(), |sender| sender.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass((), |sender| sender.flush())
    }
}

impl ClientStream for ToClient {
    fn finish(self: Box<Self>) -> Result<(), OutputError> {
        match self.sender.map(BlockingSender::finish) {
            Some(Err(error)) if !error.is_already_there() => Err(output(error)),
            _ => Ok(()),
        }
    }
}

/// The client's ssh agents.
#[derive(Debug)]
struct SessionAgents {
    sessions: Sessions,
    id: String,
}

impl Agents for SessionAgents {
    fn has<'a>(&'a self, id: &'a str) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let Ok(session) = self.sessions.get(&self.id, SESSION_WAIT).await else {
                return false;
            };
            session.check_agent(id).await.is_ok()
        })
    }

    fn are_given(&self) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let session = self.sessions.get(&self.id, SESSION_WAIT).await;
            session.is_ok_and(|session| session.has_agents())
        })
    }

    fn connect<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Box<dyn AgentStream>, SshError>> {
        Box::pin(async move {
            let fail = |source| SshError::Client {
                id: id.to_owned(),
                source,
            };
            let session = self.sessions.get(&self.id, SESSION_WAIT).await;
            let session = session.map_err(|error| fail(Box::new(error)))?;
            let stream = session.forward_agent(id).map_err(|error| fail(Box::new(error)))?;
            Ok(Box::new(stream) as Box<dyn AgentStream>)
        })
    }
}

/// A client's credentials for registries.
#[derive(Debug)]
pub struct SessionCredentials {
    /// All sessions.
    pub sessions: Sessions,
    /// Id of the client's.
    pub id: String,
}

impl CredentialProvider for SessionCredentials {
    fn credential<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Option<Credential>, String>> {
        Box::pin(async move {
            let session = self.sessions.get(&self.id, SESSION_WAIT).await;
            let session = session.map_err(|error| error.to_string())?;
            let found = session
                .credentials(host)
                .await
                .map_err(|error| error.to_string())?;
            Ok(found.map(|found| {
                let secret = Secret::new(found.secret().to_owned());
                // Docker's way to say that the secret is a refresh token (`auth.go`).
                if found.username().is_empty() || found.username() == "<token>" {
                    Credential::Identity(secret)
                } else {
                    Credential::Basic {
                        username: found.username().to_owned(),
                        password: secret,
                    }
                }
            }))
        })
    }
}
