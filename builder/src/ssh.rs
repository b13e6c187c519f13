//! SSH agents of a build: which there are, and sockets by which steps and git reach them. A key never leaves its agent.
//!
//! A connection is asked for by id and is a stream of bytes, so that an agent of another machine can stand beside those of
//! this one. Keys of files have an agent of their own, in this process. To an agent of this machine only two requests go: which keys there are, and to sign by one of them; adding,
//! removing, locking and extensions are refused, as by BuildKit's client (`session/sshforward/sshprovider`).

use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::request::{SshKeys, SshSpec};

mod key_file;
mod keyring;
mod wire;

pub use key_file::KeyFileError;
pub use keyring::Keyring;

/// Longest message of the agent protocol, bytes (OpenSSH's `AGENT_MAX_LEN`).
const MESSAGE_BYTES_MAX: u32 = 256 << 10;
/// Connections of one step at once.
const CONNECTIONS_MAX: usize = 64;
/// Longest wait for an agent to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// `SSH_AGENTC_REQUEST_IDENTITIES` and `SSH_AGENTC_SIGN_REQUEST` (draft-miller-ssh-agent, section 6.1).
const ALLOWED: [u8; 2] = [11, 13];
/// `SSH_AGENT_FAILURE`, as a whole message.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];
/// Name of the socket in its directory.
const SOCKET: &str = "agent";

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The build was given none of that id.
    #[error("unset ssh forward key {0}")]
    NotFound(String),
    /// The build was given none at all (`solver/llbsolver/mounts/mount.go`).
    #[error("no SSH key {0:?} forwarded from the client")]
    NoneGiven(String),
    /// It does not answer.
    #[error("connect to ssh agent {id:?} at {path:?}")]
    Connect {
        /// Its id.
        id: String,
        /// Its socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The client could not be asked.
    #[error("ssh agent {id:?} of the client")]
    Client {
        /// Its id.
        id: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The socket for a step could not be made.
    #[error("make a socket for ssh agent {id:?}")]
    Listen {
        /// The agent's id.
        id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A connection to an agent.
pub trait AgentStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> AgentStream for T {}

/// The agents a build may use, by id: of this machine, or of a client's.
pub trait Agents: Send + Sync + std::fmt::Debug {
    /// Whether there is an agent of that id.
    fn has<'a>(&'a self, id: &'a str) -> BoxFuture<'a, bool>;

    /// Whether there can be any agent.
    fn are_given(&self) -> BoxFuture<'_, bool>;

    /// A new connection to agent `id`.
    fn connect<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Box<dyn AgentStream>, SshError>>;
}

/// Agents of this machine, by id.
#[derive(Debug, Default)]
pub struct SshAgents(HashMap<String, SshSpec>);

impl SshAgents {
    /// Takes the agents of a request; of two with one id the later holds.
    #[must_use]
    pub fn new(specs: &[SshSpec]) -> Self {
        Self(specs.iter().map(|spec| (spec.id.clone(), spec.clone())).collect())
    }

    async fn open(&self, id: &str) -> Result<Box<dyn AgentStream>, SshError> {
        let spec = self.0.get(id).ok_or_else(|| SshError::NotFound(id.to_owned()))?;
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let socket = match &spec.keys {
            SshKeys::Agent(socket) => socket,
            SshKeys::Held(ring) => {
                let ring = ring.clone();
                tokio::spawn(async move { answer(theirs, &ring).await.ok() });
                return Ok(Box::new(ours));
            }
        };
        let fail = |source| SshError::Connect {
            id: id.to_owned(),
            path: socket.clone(),
            source,
        };
        let agent = tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(socket))
            .await
            .map_err(|_elapsed| fail(io::ErrorKind::TimedOut.into()))?
            .map_err(fail)?;
        // Ends when either side does.
        tokio::spawn(async move { filter(theirs, agent).await.ok() });
        Ok(Box::new(ours))
    }
}

impl Agents for SshAgents {
    fn has<'a>(&'a self, id: &'a str) -> BoxFuture<'a, bool> {
        Box::pin(async move { self.0.contains_key(id) })
    }

    fn are_given(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { !self.0.is_empty() })
    }

    fn connect<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Box<dyn AgentStream>, SshError>> {
        Box::pin(self.open(id))
    }
}

/// Answers one request after the other.
async fn answer(mut client: DuplexStream, ring: &Keyring) -> io::Result<()> {
    while let Some(request) = message(&mut client).await? {
        client.write_all(&ring.answer(&request)).await?;
    }
    Ok(())
}

/// Hands on one request after the other, and their answers.
async fn filter(mut client: DuplexStream, mut agent: impl AgentStream) -> io::Result<()> {
    while let Some(request) = message(&mut client).await? {
        // The kind stands behind the length.
        if request.get(4).is_none_or(|kind| !ALLOWED.contains(kind)) {
            client.write_all(&FAILURE).await?;
            continue;
        }
        agent.write_all(&request).await?;
        let Some(answer) = message(&mut agent).await? else {
            return Ok(());
        };
        client.write_all(&answer).await?;
    }
    Ok(())
}

/// One message with its length; nothing at the end of the stream.
async fn message(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let length = match from.read_u32().await {
        Ok(length) if length <= MESSAGE_BYTES_MAX => length,
        Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = length.to_be_bytes().to_vec();
    let wanted = bytes.len() + length as usize;
    let read = from.take(length.into()).read_to_end(&mut bytes).await?;
    if read + 4 < wanted {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(bytes))
}

/// Owner and permissions of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOwner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permissions.
    pub mode: u32,
}

/// A socket that leads to an agent. Dropped, it closes, and so do the connections through it.
#[derive(Debug)]
pub struct AgentSocket {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl AgentSocket {
    /// Makes the socket in `dir`, a new directory of the lease.
    ///
    /// # Errors
    /// [`SshError::NotFound`], [`SshError::NoneGiven`], [`SshError::Listen`].
    pub async fn listen(
        agents: &Arc<dyn Agents>,
        id: &str,
        dir: &Path,
        owner: SocketOwner,
    ) -> Result<Self, SshError> {
        if !agents.has(id).await {
            return Err(match agents.are_given().await {
                true => SshError::NotFound(id.to_owned()),
                false => SshError::NoneGiven(id.to_owned()),
            });
        }
        let listener = bind(dir, owner).map_err(|source| SshError::Listen {
            id: id.to_owned(),
            source,
        })?;
        let (agents, id) = (Arc::clone(agents), id.to_owned());
        Ok(Self {
            path: dir.join(SOCKET),
            task: tokio::spawn(async move { serve(&listener, &agents, &id).await }),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        self.task.abort();
        // What cannot be removed now goes with the lease.
        std::fs::remove_file(&self.path).ok();
    }
}

fn bind(dir: &Path, owner: SocketOwner) -> io::Result<UnixListener> {
    // By the descriptor: the address of a socket has room for 107 bytes, and the path of a store may be longer.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let held = rustix::fs::open(dir, flags, Mode::empty())?;
    let address = format!("/proc/self/fd/{}/{SOCKET}", held.as_raw_fd());
    let listener = UnixListener::bind(address)?;
    let path = dir.join(SOCKET);
    let made = rustix::fs::open(
        &path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rbuild_sys::owner::chown(made, Some(uid), Some(gid))?;
    rustix::fs::chmod(&path, Mode::from_raw_mode(owner.mode & 0o7777))?;
    Ok(listener)
}

async fn serve(listener: &UnixListener, agents: &Arc<dyn Agents>, id: &str) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let Ok((mut stream, _)) = listener.accept().await else {
            // Descriptors ran out, most likely: others will be given back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let (agents, id) = (Arc::clone(agents), id.to_owned());
        connections.spawn(async move {
            let _permit = permit;
            // Whoever connected sees a closed connection, as with an agent that is gone.
            if let Ok(mut agent) = agents.connect(&id).await {
                tokio::io::copy_bidirectional(&mut stream, &mut agent).await.ok();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    const OWNER: SocketOwner = SocketOwner {
        uid: 0,
        gid: 0,
        mode: 0o600,
    };

    /// An agent that answers each message with itself, and shows what it was sent.
    fn echo(path: &Path) -> tokio::sync::mpsc::UnboundedReceiver<Vec<u8>> {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let listener = UnixListener::bind(path).unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let sender = sender.clone();
                tokio::spawn(async move {
                    while let Ok(Some(request)) = message(&mut stream).await {
                        stream.write_all(&request).await.unwrap();
                        sender.send(request).ok();
                    }
                });
            }
        });
        receiver
    }

    fn agents(socket: &Path) -> Arc<dyn Agents> {
        Arc::new(SshAgents::new(&[SshSpec {
            id: "default".into(),
            keys: SshKeys::Agent(socket.to_owned()),
        }]))
    }

    fn request(kind: u8, rest: &[u8]) -> Vec<u8> {
        let length = u32::try_from(rest.len() + 1).unwrap();
        [&length.to_be_bytes()[..], &[kind], rest].concat()
    }

    async fn ask(stream: &mut (impl AgentStream + ?Sized), request: &[u8]) -> Vec<u8> {
        stream.write_all(request).await.unwrap();
        let mut stream = stream;
        message(&mut stream).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn row43_identities_and_signatures_pass_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut seen = echo(&path);
        let mut stream = agents(&path).connect("default").await.unwrap();
        for kind in [11, 13] {
            let request = request(kind, b"rest");
            assert_eq!(ask(&mut *stream, &request).await, request);
            assert_eq!(seen.recv().await.unwrap(), request);
        }
        // Every other number: to add, remove, lock, unlock and extend, the first protocol's, answers, and those of no kind.
        for kind in (0..=255).filter(|kind| ![11, 13].contains(kind)) {
            assert_eq!(
                ask(&mut *stream, &request(kind, b"rest")).await,
                FAILURE,
                "{kind}"
            );
        }
        assert_eq!(ask(&mut *stream, &[0, 0, 0, 0]).await, FAILURE);
        assert!(seen.try_recv().is_err(), "the agent saw one of them");
    }

    #[tokio::test]
    async fn row43_a_message_without_end_closes_the_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let _seen = echo(&path);
        let mut stream = agents(&path).connect("default").await.unwrap();
        stream.write_all(&[0xff, 0xff, 0xff, 0xff, 11]).await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn row43_half_a_message_reaches_nobody_and_keeps_nobody_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut seen = echo(&path);
        let agents = agents(&path);
        let owner = SocketOwner {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mode: 0o600,
        };
        let socket = AgentSocket::listen(&agents, "default", dir.path(), owner)
            .await
            .unwrap();
        // More than are served at a time, each with a message that does not end.
        let mut halves = Vec::new();
        for _ in 0..CONNECTIONS_MAX + 8 {
            let mut stream = UnixStream::connect(socket.path()).await.unwrap();
            stream.write_all(&[0, 0, 0, 9, 11, b'x']).await.unwrap();
            halves.push(stream);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(seen.try_recv().is_err(), "the agent saw half a message");
        drop(halves);
        let mut stream = UnixStream::connect(socket.path()).await.unwrap();
        let request = request(11, b"");
        let answer = tokio::time::timeout(Duration::from_secs(10), ask(&mut stream, &request)).await;
        assert_eq!(answer.unwrap(), request, "those that went made room");
    }

    #[tokio::test]
    async fn row43_a_socket_leads_to_the_agent_while_it_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let _seen = echo(&path);
        let long = dir.path().join("d".repeat(150));
        std::fs::create_dir(&long).unwrap();
        let me = std::fs::metadata(&long).unwrap();
        let owner = SocketOwner {
            uid: me.uid(),
            gid: me.gid(),
            mode: 0o640,
        };
        let socket = AgentSocket::listen(&agents(&path), "default", &long, owner)
            .await
            .unwrap();
        let mode = std::fs::metadata(socket.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        let held = rustix::fs::open(&long, OFlags::PATH, Mode::empty()).unwrap();
        let address = format!("/proc/self/fd/{}/{SOCKET}", held.as_raw_fd());
        let mut stream = UnixStream::connect(&address).await.unwrap();
        let request = request(11, b"");
        assert_eq!(ask(&mut stream, &request).await, request);
        let gone = socket.path().to_owned();
        drop(socket);
        assert_eq!(
            stream.read(&mut [0; 8]).await.unwrap_or(0),
            0,
            "the connection ends too"
        );
        assert!(!gone.exists());
    }

    #[tokio::test]
    async fn row43_an_agent_that_is_not_there_is_told_or_closes() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = agents(&dir.path().join("none"));
        assert!(matches!(
            nowhere.connect("default").await,
            Err(SshError::Connect { .. })
        ));
        assert!(matches!(
            nowhere.connect("other").await,
            Err(SshError::NotFound(_))
        ));
        assert!(matches!(
            AgentSocket::listen(&nowhere, "other", dir.path(), OWNER).await,
            Err(SshError::NotFound(_))
        ));
    }
}
