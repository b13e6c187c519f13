//! The client of a build, reached through its session: its directories, secrets, credentials, and the outputs it takes.

mod access;
mod directories;
mod outputs;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use rbuild_builder::client::{
    Client, ClientBytes, ClientReadError, ClientStream, ClientTree, ContentPlace, LocalError, OutputError,
    SourceAnswer, SourceQuestion,
};
use rbuild_builder::secrets::{SecretError, SecretValue};
use rbuild_builder::solve::Reporter;
use rbuild_builder::ssh::Agents;
use rbuild_fileops::SourceTree;
use rbuild_graph::FileTime;
use rbuild_oci::{Descriptor, Digest};
use rbuild_session::{
    CallError, ContentError, ContentStore, GetError, SendError, SendTreeError, Session, Sessions, SyncError,
};
use rbuild_store::{Lease, Store};
use tokio::sync::OnceCell;
use tokio_util::io::StreamReader;
use tokio_util::sync::CancellationToken;

use access::SessionAgents;
pub use access::SessionCredentials;
pub use directories::TransferError;
use directories::{Fetched, not_sent};

/// How long a session may take to appear (`session/manager.go`).
const SESSION_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Host of the files that clients offer (`session/upload/uploadprovider`).
const UPLOAD_HOST: &str = "buildkit-session";

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
    pub(crate) fn with_policy_session(mut self, id: String) -> Self {
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
        Box::pin(self.open_stream(exporter, metadata))
    }

    fn trees<'a>(
        &'a self,
        exporter: u32,
        trees: Vec<ClientTree>,
        time: Option<FileTime>,
    ) -> BoxFuture<'a, Result<(), OutputError>> {
        Box::pin(self.send_trees(exporter, trees, time))
    }
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
