//! What our own client of a server has for it: directories, secrets, agents, credentials, and places for what is built
//! (`session/filesync`, `session/secrets/secretsprovider`, `session/sshforward/sshprovider`, `session/auth/authprovider`).
//!
//! Nothing is served that was not attached: a server that asks for anything else is told so.

mod content;
mod dirs;
mod outputs;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bollard_buildkit_proto::health::{HealthCheckRequest, HealthCheckResponse};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage as TunnelMessage;
use bollard_buildkit_proto::moby::filesync::v1::{CredentialsRequest, CredentialsResponse};
use bollard_buildkit_proto::moby::sshforward::v1::{CheckAgentRequest, CheckAgentResponse};
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt as _};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::header::{HeaderError, put};
use crate::serve::{Dialogue, Routes, dispatch};
use crate::wire::{BytesMessage, Packet};

pub use outputs::Place;
#[cfg(feature = "fake-client")]
pub(crate) use outputs::Raw;

/// Bytes on their way inside the process, and of one message.
const BUFFER_BYTES: usize = 256 << 10;
const CHUNK_BYTES: usize = 32 << 10;
/// Messages to the server that may wait.
const QUEUE: usize = 4;
const AGENT_ID: &str = "buildkit.ssh.id";

/// Gives a secret by its id; `None` for one that there is not. An error is told to the server in its words.
pub type Secrets = dyn Fn(&str) -> Result<Option<Vec<u8>>, String> + Send + Sync;
/// Gives user and password for a registry; both empty for none. It may ask a helper.
pub type Logins = dyn Fn(String) -> Login + Send + Sync;
/// Will be user and password.
pub type Login = Pin<Box<dyn Future<Output = (String, String)> + Send>>;

/// What a client has for a server; built up by its methods.
#[derive(Default)]
pub struct Attachables {
    directories: BTreeMap<String, PathBuf>,
    outputs: BTreeMap<u32, Place>,
    agents: BTreeMap<String, Arc<ConnectAgent>>,
    secrets: Option<Arc<Secrets>>,
    logins: Option<Arc<Logins>>,
    stores: BTreeMap<String, content::Store>,
}

/// A connection to an agent.
pub trait AgentStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> AgentStream for T {}

/// A connection to come, or why there is none.
pub type Connecting = BoxFuture<'static, Result<Box<dyn AgentStream>, String>>;

/// Makes a connection to an agent.
pub type ConnectAgent = dyn Fn() -> Connecting + Send + Sync;

impl fmt::Debug for Attachables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachables")
            .field("directories", &self.directories)
            .field("outputs", &self.outputs)
            .field("agents", &self.agents.keys())
            .field("stores", &self.stores)
            .finish_non_exhaustive()
    }
}

/// The client's half of a session's stream.
pub type Outgoing = Pin<Box<dyn Stream<Item = TunnelMessage> + Send>>;

/// A client that can be connected.
#[derive(Debug)]
pub struct Attached(Arc<Routes>);

impl Attachables {
    /// A directory by the name that the server calls it.
    #[must_use]
    pub fn directory(mut self, name: &str, path: PathBuf) -> Self {
        self.directories.insert(name.to_owned(), path);
        self
    }

    /// Where the result of an exporter goes, by the exporter's place in the request.
    #[must_use]
    pub fn output(mut self, exporter: u32, place: Place) -> Self {
        self.outputs.insert(exporter, place);
        self
    }

    /// An agent. The server says what it is asked, as it likes: `connect` lets through what it may be.
    #[must_use]
    pub fn agent(mut self, id: &str, connect: Arc<ConnectAgent>) -> Self {
        self.agents.insert(id.to_owned(), connect);
        self
    }

    /// A directory in the form of an OCI layout, by the id that the server calls it. It is written where one of those that
    /// attach it wants that.
    #[must_use]
    pub fn store(mut self, id: &str, path: PathBuf, is_writable: bool) -> Self {
        let before = self.stores.get(id).is_some_and(|store| store.is_writable);
        let is_writable = is_writable || before;
        self.stores
            .insert(id.to_owned(), content::Store { path, is_writable });
        self
    }

    /// Secrets.
    #[must_use]
    pub fn secrets(mut self, secrets: Arc<Secrets>) -> Self {
        self.secrets = Some(secrets);
        self
    }

    /// Credentials for registries.
    #[must_use]
    pub fn logins(mut self, logins: Arc<Logins>) -> Self {
        self.logins = Some(logins);
        self
    }

    /// Ready to be connected.
    #[must_use]
    pub fn attach(self) -> Attached {
        let mut routes = Routes::default();
        routes.unary("/grpc.health.v1.Health/Check", |_, _: HealthCheckRequest| {
            Ok(HealthCheckResponse { status: 1 })
        });
        if !self.directories.is_empty() {
            let directories = Arc::new(self.directories);
            routes.script("/moby.filesync.v1.FileSync/DiffCopy", move |talk| {
                let directories = Arc::clone(&directories);
                async move { dirs::send(&directories, talk).await }
            });
        }
        if !self.outputs.is_empty() {
            let outputs = Arc::new(self.outputs);
            routes.script("/moby.filesync.v1.FileSend/DiffCopy", move |talk| {
                let outputs = Arc::clone(&outputs);
                async move { outputs::receive(&outputs, talk).await }
            });
        }
        if let Some(secrets) = self.secrets {
            routes.unary(
                "/moby.buildkit.secrets.v1.Secrets/GetSecret",
                move |_, question: GetSecretRequest| match secrets(&question.id) {
                    Ok(Some(data)) => Ok(GetSecretResponse { data }),
                    Ok(None) => Err(Status::not_found(format!("secret {}: not found", question.id))),
                    Err(text) => Err(Status::unknown(text)),
                },
            );
        }
        if let Some(logins) = self.logins {
            // One message for one, which may take its time.
            routes.script(
                "/moby.filesync.v1.Auth/Credentials",
                move |mut talk: Dialogue<CredentialsRequest, CredentialsResponse>| {
                    let logins = Arc::clone(&logins);
                    async move {
                        let question = talk.next().await?.unwrap_or_default();
                        let (username, secret) = logins(question.host).await;
                        talk.say(CredentialsResponse { username, secret }).await
                    }
                },
            );
        }
        if !self.agents.is_empty() {
            agents(&mut routes, self.agents);
        }
        if !self.stores.is_empty() {
            content::serve(&mut routes, self.stores);
        }
        Attached(Arc::new(routes))
    }
}

fn agents(routes: &mut Routes, agents: BTreeMap<String, Arc<ConnectAgent>>) {
    let agents = Arc::new(agents);
    let known = Arc::clone(&agents);
    let unset = |id: &str| Status::unknown(format!("unset ssh forward key {id}"));
    routes.unary(
        "/moby.sshforward.v1.SSH/CheckAgent",
        move |_, question: CheckAgentRequest| match known.contains_key(named(&question.id)) {
            true => Ok(CheckAgentResponse {}),
            false => Err(unset(&question.id)),
        },
    );
    routes.script(
        "/moby.sshforward.v1.SSH/ForwardAgent",
        move |talk: Dialogue<BytesMessage, BytesMessage>| {
            let id = talk.header(AGENT_ID);
            let connect = agents.get(named(&id)).cloned().ok_or_else(|| unset(&id));
            async move { forward(connect?(), talk).await }
        },
    );
}

fn named(id: &str) -> &str {
    if id.is_empty() { "default" } else { id }
}

/// Joins a call to an agent until the agent has nothing more to say.
async fn forward(connecting: Connecting, talk: Dialogue<BytesMessage, BytesMessage>) -> Result<(), Status> {
    let stream = connecting.await.map_err(Status::unknown)?;
    let (mut from, mut to) = tokio::io::split(stream);
    let (mut questions, answers) = talk.split();
    let inward = async move {
        while let Ok(Some(message)) = questions.message().await {
            if to.write_all(&message.data).await.is_err() {
                return;
            }
        }
        // An agent that is gone already needs no end.
        to.shutdown().await.ok();
        std::future::pending::<()>().await;
    };
    let outward = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let data = buffer[..length].to_vec().into();
            if answers.send(Ok(BytesMessage { data })).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
    Ok(())
}

impl Attached {
    /// What the client says of itself when it opens the session.
    ///
    /// # Errors
    /// [`HeaderError`] for names that cannot be sent.
    pub fn introduction(&self, id: &str, name: &str, shared_key: &str) -> Result<MetadataMap, HeaderError> {
        let mut metadata = MetadataMap::new();
        put(&mut metadata, "x-docker-expose-session-uuid", id)?;
        put(&mut metadata, "x-docker-expose-session-name", name)?;
        put(&mut metadata, "x-docker-expose-session-sharedkey", shared_key)?;
        for method in self.0.methods() {
            put(&mut metadata, "x-docker-expose-session-grpc-method", method)?;
        }
        Ok(metadata)
    }

    /// Serves the session that `open` opens with the stream it is given, until the server ends it or the connection breaks.
    ///
    /// # Errors
    /// Those of `open`, and of the connection.
    pub async fn serve<S, F>(self, open: impl FnOnce(Outgoing) -> F) -> Result<(), Status>
    where
        S: Stream<Item = Result<TunnelMessage, Status>> + Unpin,
        F: Future<Output = Result<S, Status>>,
    {
        let (to_server, mut from_client) = mpsc::channel(QUEUE);
        let outgoing = futures_util::stream::poll_fn(move |cx| from_client.poll_recv(cx));
        let mut incoming = open(Box::pin(outgoing)).await?;
        let (near, far) = tokio::io::duplex(BUFFER_BYTES);
        let (mut read, mut write) = tokio::io::split(far);
        let inward = async {
            while let Some(message) = incoming.next().await {
                if write.write_all(&message?.data).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        let outward = async {
            let mut buffer = vec![0; CHUNK_BYTES];
            while let Ok(length @ 1..) = read.read(&mut buffer).await {
                let data = buffer[..length].to_vec();
                if to_server.send(TunnelMessage { data }).await.is_err() {
                    return;
                }
            }
        };
        let service = hyper::service::service_fn(move |request| dispatch(Arc::clone(&self.0), request));
        let served = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(near), service);
        tokio::select! {
            ended = inward => ended,
            () = outward => Ok(()),
            served = served => served.map_err(|error| Status::internal(error.to_string())),
        }
    }
}

/// What reads packets of a tree.
type TreeTalk = Dialogue<Packet, Packet>;
