//! A BuildKit client of our own, in the same process: for tests of this crate and of those above it.
//!
//! Speaks the whole way, the stream of `Control/Session` included: HTTP/2 as the server inside it, gRPC on that. It
//! serves what a test gives it, honestly or by a script of the test. It keeps no limits and is no part of the product.

mod files;
mod services;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::health::{HealthCheckRequest, HealthCheckResponse};
use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage as TunnelMessage;
use bollard_buildkit_proto::moby::sshforward::v1::{CheckAgentRequest, CheckAgentResponse};
use futures_util::StreamExt as _;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::metadata::{AsciiMetadataKey, MetadataMap, MetadataValue};

use crate::accept::AcceptError;
use crate::session::Session;
use crate::sessions::Sessions;
use crate::wire::{BytesMessage, Packet};

pub use crate::serve::Dialogue;
use crate::serve::{Routes, dispatch};
pub use files::{ReceivedTree, SentNames};

/// Bytes on their way inside the process.
const BUFFER_BYTES: usize = 256 << 10;
const CHUNK_BYTES: usize = 16 << 10;

/// What a client serves; built up by its methods.
#[derive(Debug, Default)]
pub struct FakeClient {
    id: String,
    shared_key: String,
    headers: Vec<(String, String)>,
    routes: Routes,
    directories: HashMap<String, files::Directory>,
    secrets: HashMap<String, Vec<u8>>,
    credentials: HashMap<String, (String, String)>,
    uploads: HashMap<String, Bytes>,
    blobs: HashMap<(String, String), Bytes>,
    outputs: HashMap<u32, files::Output>,
}

/// A client that is connected. Dropping it breaks its connection.
#[derive(Debug)]
pub struct FakeConnection {
    session: Session,
    frozen: watch::Sender<bool>,
    _task: AbortOnDropHandle<()>,
}

impl FakeConnection {
    /// The server's view of it.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// Stops moving bytes in either direction, without ending anything.
    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    /// Breaks the connection.
    pub fn disconnect(self) {
        drop(self);
    }
}

impl FakeClient {
    /// A client that serves health checks and nothing else.
    #[must_use]
    pub fn new(id: &str) -> Self {
        let client = Self {
            id: id.to_owned(),
            ..Self::default()
        };
        client.unary("/grpc.health.v1.Health/Check", |_, _: HealthCheckRequest| {
            Ok(HealthCheckResponse { status: 1 })
        })
    }

    /// Sets the session's shared key.
    #[must_use]
    pub fn shared_key(mut self, key: &str) -> Self {
        key.clone_into(&mut self.shared_key);
        self
    }

    /// Adds a header to the opening of the session.
    #[must_use]
    pub fn header(mut self, key: &str, value: &str) -> Self {
        self.headers.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Answers a method with one message for one.
    #[must_use]
    pub fn unary<Q, A>(
        mut self,
        method: &'static str,
        answer: impl Fn(&MetadataMap, Q) -> Result<A, Status> + Send + Sync + 'static,
    ) -> Self
    where
        Q: prost::Message + Default + Send + Sync + 'static,
        A: prost::Message + Send + Sync + 'static,
    {
        self.routes.unary(method, answer);
        self
    }

    /// Answers a method by a script that has both streams.
    #[must_use]
    pub fn script<Q, A, F>(
        mut self,
        method: &'static str,
        script: impl Fn(Dialogue<Q, A>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        Q: prost::Message + Default + Send + Sync + 'static,
        A: prost::Message + Send + Sync + 'static,
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        self.routes.script(method, script);
        self
    }

    /// Answers `FileSync.DiffCopy` by a script.
    #[must_use]
    pub fn file_sync<F>(self, script: impl Fn(Dialogue<Packet, Packet>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        self.script("/moby.filesync.v1.FileSync/DiffCopy", script)
    }

    /// Answers `FileSend.DiffCopy` by a script of byte messages.
    #[must_use]
    pub fn file_send<F>(
        self,
        script: impl Fn(Dialogue<BytesMessage, BytesMessage>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        self.script("/moby.filesync.v1.FileSend/DiffCopy", script)
    }

    /// Serves a directory, all of it, owned by 0:0 as `buildctl` does. The names of the files whose content was asked
    /// for are kept in `sent`.
    #[must_use]
    pub fn directory(mut self, name: &str, path: &Path, sent: &SentNames) -> Self {
        let directory = files::Directory::new(path, sent.clone());
        self.directories.insert(name.to_owned(), directory);
        self
    }

    /// Takes the bytes of an exporter.
    #[must_use]
    pub fn output(mut self, exporter: u32, bytes: &Arc<Mutex<Vec<u8>>>) -> Self {
        self.outputs
            .insert(exporter, files::Output::Bytes(Arc::clone(bytes)));
        self
    }

    /// Takes the tree of an exporter.
    #[must_use]
    pub fn output_tree(mut self, exporter: u32, tree: &Arc<Mutex<ReceivedTree>>) -> Self {
        self.outputs
            .insert(exporter, files::Output::Tree(Arc::clone(tree)));
        self
    }

    /// Has a secret.
    #[must_use]
    pub fn secret(mut self, id: &str, bytes: &[u8]) -> Self {
        self.secrets.insert(id.to_owned(), bytes.to_vec());
        self
    }

    /// Has credentials for a registry, and fetches tokens: `token of <user> for <scopes>`.
    #[must_use]
    pub fn credentials(mut self, host: &str, user: &str, secret: &str) -> Self {
        self.credentials
            .insert(host.to_owned(), (user.to_owned(), secret.to_owned()));
        self
    }

    /// Has an agent that answers everything with itself.
    #[must_use]
    pub fn echoing_agent(self, id: &str) -> Self {
        let known = id.to_owned();
        let check = move |_: &MetadataMap, question: CheckAgentRequest| {
            if question.id == known {
                Ok(CheckAgentResponse {})
            } else {
                Err(Status::unknown(format!("unset ssh forward key {}", question.id)))
            }
        };
        self.unary("/moby.sshforward.v1.SSH/CheckAgent", check)
            .script("/moby.sshforward.v1.SSH/ForwardAgent", files::echo)
    }

    /// Has a file ready to be fetched.
    #[must_use]
    pub fn upload(mut self, key: &str, bytes: &[u8]) -> Self {
        self.uploads.insert(key.to_owned(), Bytes::copy_from_slice(bytes));
        self
    }

    /// Has a blob in a content store.
    #[must_use]
    pub fn blob(mut self, store: &str, digest: &str, bytes: &[u8]) -> Self {
        self.blobs.insert(
            (store.to_owned(), digest.to_owned()),
            Bytes::copy_from_slice(bytes),
        );
        self
    }

    /// Opens the session.
    ///
    /// # Errors
    /// The server's.
    pub async fn connect(self, sessions: &Sessions) -> Result<FakeConnection, AcceptError> {
        let client = self.with_services();
        let (to_server, mut from_client) = mpsc::channel::<Result<TunnelMessage, Status>>(4);
        let incoming = futures_util::stream::poll_fn(move |cx| from_client.poll_recv(cx));
        let mut outgoing = sessions.accept(&client.introduction(), incoming).await?;
        let session = outgoing.session().clone();
        let (frozen, is_frozen) = watch::channel(false);
        let (near, far) = tokio::io::duplex(BUFFER_BYTES);
        let (mut read, mut write) = tokio::io::split(far);
        let mut thaw = [is_frozen.clone(), is_frozen];
        let routes = Arc::new(client.routes);
        let task = tokio::spawn(async move {
            let [inward_thaw, outward_thaw] = &mut thaw;
            let inward = async {
                while let Some(Ok(message)) = outgoing.next().await {
                    inward_thaw.wait_for(|frozen| !frozen).await.ok();
                    if write.write_all(&message.data).await.is_err() {
                        return;
                    }
                }
            };
            let outward = async {
                let mut buffer = vec![0; CHUNK_BYTES];
                while let Ok(length @ 1..) = read.read(&mut buffer).await {
                    outward_thaw.wait_for(|frozen| !frozen).await.ok();
                    let data = buffer[..length].to_vec();
                    if to_server.send(Ok(TunnelMessage { data })).await.is_err() {
                        return;
                    }
                }
            };
            let service = hyper::service::service_fn(move |request| dispatch(Arc::clone(&routes), request));
            let serve =
                http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(near), service);
            tokio::select! {
                () = inward => {}
                () = outward => {}
                _ = serve => {}
            }
        });
        Ok(FakeConnection {
            session,
            frozen,
            _task: AbortOnDropHandle::new(task),
        })
    }

    fn introduction(&self) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        let own = [
            ("x-docker-expose-session-uuid", self.id.as_str()),
            ("x-docker-expose-session-sharedkey", self.shared_key.as_str()),
        ];
        let others = self.headers.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let methods = self
            .routes
            .methods()
            .map(|m| ("x-docker-expose-session-grpc-method", m));
        for (key, value) in own.into_iter().chain(others).chain(methods) {
            if let (Ok(key), Ok(value)) = (key.parse::<AsciiMetadataKey>(), MetadataValue::try_from(value)) {
                metadata.append(key, value);
            }
        }
        metadata
    }
}
