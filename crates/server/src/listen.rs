//! Where clients reach the server: unix sockets of our own, TCP with TLS, and sockets that a service manager opened
//! (`fd://`). Refuses TCP without TLS: whoever reaches the API may do on this machine what the server may.

mod connection;
mod tls;
mod unix;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use rbuild_sys::activation::{self, ActivationError};
use rustix::net::{AddressFamily, sockopt};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream, UnixListener};

pub use connection::Connection;
pub use unix::SocketFile;

/// After an error of accept, such as too many open files: asking again at once would only burn a processor.
const RETRY: Duration = Duration::from_millis(100);
/// A peer that vanished without a word is noticed after about this long.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Not an address we serve.
    #[error("address {0:?} is not served: give unix://PATH, tcp://HOST:PORT or fd://")]
    Address(String),
    /// TCP carries no identity.
    #[error(
        "{0} is on the network, where rbuild serves only clients with a certificate: \
         give --tlscacert, --tlscert and --tlskey, or [grpc.tls] with ca, cert and key"
    )]
    Plain(String),
    /// The path is taken by something that is no socket.
    #[error("{0:?} exists and is no socket")]
    Taken(PathBuf),
    /// Another server listens there.
    #[error("another server listens on {0:?}")]
    InUse(PathBuf),
    /// The kernel refused.
    #[error("listen on {address}")]
    Io {
        /// Address or path.
        address: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The service manager's sockets cannot be taken.
    #[error("address fd:// is for a service that is started by a socket unit")]
    Activation(#[source] ActivationError),
    /// A socket that was handed over is not one that can be served.
    #[error("socket {0} that was handed over is neither a unix nor a TCP socket that listens")]
    Handed(usize),
}

/// Who may use the sockets.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Owner of unix sockets; whoever runs the server if absent.
    pub uid: Option<u32>,
    /// Group of unix sockets.
    pub gid: Option<u32>,
    /// Without it nothing listens on TCP.
    pub tls: Option<Arc<ServerConfig>>,
}

/// An address that is served.
pub struct Listening {
    address: String,
    connections: BoxStream<'static, Connection>,
    file: Option<SocketFile>,
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listening")
            .field("address", &self.address)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Listening {
    /// What clients call it; a TCP port that the kernel chose is in it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Those who come, and the guard of the socket's file.
    #[must_use]
    pub fn split(self) -> (BoxStream<'static, Connection>, Option<SocketFile>) {
        (self.connections, self.file)
    }
}

/// Listens on `address`: one socket, or for `fd://` all that were handed over.
///
/// # Errors
/// [`ListenError`].
pub fn listen(address: &str, access: &Access) -> Result<Vec<Listening>, ListenError> {
    let fail = |source| ListenError::Io {
        address: address.to_owned(),
        source,
    };
    match address.split_once("://") {
        Some(("unix", path)) if !path.is_empty() => {
            let (listener, file) = unix::bind(PathBuf::from(path), access)?;
            Ok(vec![of_unix(listener, address, Some(file)).map_err(fail)?])
        }
        Some(("tcp", place)) => {
            let tls = access.tls.clone();
            let tls = tls.ok_or_else(|| ListenError::Plain(address.to_owned()))?;
            let listener = std::net::TcpListener::bind(place).map_err(fail)?;
            Ok(vec![of_tcp(listener, tls).map_err(fail)?])
        }
        Some(("fd", "")) => {
            let var = |name| std::env::var_os(name);
            let (pid, count) = (var("LISTEN_PID"), var("LISTEN_FDS"));
            let sockets = activation::listen_fds(pid.as_deref(), count.as_deref());
            let sockets = sockets.map_err(ListenError::Activation)?;
            sockets
                .into_iter()
                .enumerate()
                .map(|(index, socket)| handed(index, socket, access))
                .collect()
        }
        _ => Err(ListenError::Address(address.to_owned())),
    }
}

/// A socket that a service manager opened.
fn handed(index: usize, socket: OwnedFd, access: &Access) -> Result<Listening, ListenError> {
    let fail = |source| ListenError::Io {
        address: format!("socket {index} that was handed over"),
        source,
    };
    if !sockopt::socket_acceptconn(&socket).unwrap_or(false) {
        return Err(ListenError::Handed(index));
    }
    match sockopt::socket_domain(&socket) {
        Ok(AddressFamily::UNIX) => of_unix(socket.into(), "fd://", None).map_err(fail),
        Ok(AddressFamily::INET | AddressFamily::INET6) => {
            let tls = access.tls.clone();
            let tls = tls.ok_or_else(|| ListenError::Plain("the TCP socket of fd://".to_owned()))?;
            of_tcp(socket.into(), tls).map_err(fail)
        }
        _ => Err(ListenError::Handed(index)),
    }
}

fn of_unix(
    listener: std::os::unix::net::UnixListener,
    address: &str,
    file: Option<SocketFile>,
) -> io::Result<Listening> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let next = |listener: UnixListener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Connection::Unix(stream), listener)),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    };
    Ok(Listening {
        address: address.to_owned(),
        connections: stream::unfold(listener, next).boxed(),
        file,
    })
}

fn of_tcp(listener: std::net::TcpListener, config: Arc<ServerConfig>) -> io::Result<Listening> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    Ok(Listening {
        address: format!("tcp://{}", listener.local_addr()?),
        connections: tls::accept(listener, config),
        file: None,
    })
}

/// A socket that is of use for small messages, and whose peer is known to be there.
fn keep_alive(socket: &TcpStream) {
    // Without these the connection works too.
    socket.set_nodelay(true).ok();
    sockopt::set_socket_keepalive(socket, true).ok();
    sockopt::set_tcp_keepidle(socket, KEEP_ALIVE).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_that_were_handed_over_are_served_by_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let access = Access::default();
        let unix = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        let served = handed(0, unix.into(), &access).unwrap();
        let (mut connections, file) = served.split();
        assert!(file.is_none(), "its file belongs to whoever made it");
        let _client = tokio::net::UnixStream::connect(dir.path().join("s"))
            .await
            .unwrap();
        assert!(matches!(connections.next().await, Some(Connection::Unix(_))));
    }

    #[tokio::test]
    async fn row48_a_tcp_socket_that_was_handed_over_needs_certificates_too() {
        let access = Access::default();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(matches!(
            handed(0, tcp.into(), &access),
            Err(ListenError::Plain(_))
        ));
        let (pair, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(matches!(
            handed(1, pair.into(), &access),
            Err(ListenError::Handed(1))
        ));
    }
}
