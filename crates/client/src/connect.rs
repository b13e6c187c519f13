//! From an address to a client of the services there.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::address::Address;

/// Largest message in either direction, as the server's.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The control service of a server.
pub type Control = ControlClient<Channel>;

/// What a server answers to the front end of a build: here to one in the client.
pub type Bridge = LlbBridgeClient<Channel>;

/// What protects a connection over TCP.
#[derive(Debug, Clone)]
pub struct Security {
    /// Whom to trust and what to show.
    pub config: Arc<ClientConfig>,
    /// The name the server's certificate must be for, if it is not the host's.
    pub server_name: Option<String>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server does not take it, or its certificate is not trusted.
    #[error("connect to {address}")]
    Refused {
        /// The server.
        address: Address,
        /// The kernel's answer, or that of the handshake.
        #[source]
        source: io::Error,
    },
    /// The server says nothing.
    #[error("{0} does not answer in time")]
    Silent(Address),
    /// The server's name cannot be that of a certificate.
    #[error("{0:?} is not the name of a server")]
    Name(String),
    /// What was said over the connection is not HTTP/2.
    #[error("{address} does not speak BuildKit's API")]
    Protocol {
        /// The server.
        address: Address,
        /// What was said.
        #[source]
        source: tonic::transport::Error,
    },
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A server's services, over one connection.
#[derive(Debug, Clone)]
pub struct Connection(Channel);

impl Connection {
    /// The control service.
    #[must_use]
    pub fn control(&self) -> Control {
        ControlClient::new(self.0.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The bridge of builds that were asked for over this connection.
    #[must_use]
    pub fn bridge(&self) -> Bridge {
        LlbBridgeClient::new(self.0.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// Connects; all of it takes no longer than `timeout`.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(
    address: &Address,
    security: Option<&Security>,
    timeout: Duration,
) -> Result<Connection, ConnectError> {
    let connecting = async {
        let stream = open(address, security).await?;
        // The name is that of no host: the connection is there already.
        Endpoint::from_static("http://localhost")
            .connect_with_connector(Given(Some(stream)))
            .await
            .map_err(|source| ConnectError::Protocol {
                address: address.clone(),
                source,
            })
    };
    let channel = tokio::time::timeout(timeout, connecting).await;
    let channel = channel.map_err(|_elapsed| ConnectError::Silent(address.clone()))??;
    Ok(Connection(channel))
}

async fn open(address: &Address, security: Option<&Security>) -> Result<Box<dyn Stream>, ConnectError> {
    let fail = |source| ConnectError::Refused {
        address: address.clone(),
        source,
    };
    let (host, port) = match address {
        Address::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await.map_err(fail)?)),
        Address::Tcp { host, port } => (host, *port),
    };
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(fail)?;
    stream.set_nodelay(true).map_err(fail)?;
    let Some(security) = security else {
        return Ok(Box::new(stream));
    };
    let name = security.server_name.as_ref().unwrap_or(host);
    let name = ServerName::try_from(name.clone()).map_err(|_malformed| ConnectError::Name(name.clone()))?;
    let connector = TlsConnector::from(Arc::clone(&security.config));
    Ok(Box::new(connector.connect(name, stream).await.map_err(fail)?))
}

/// Gives the one connection there is; a second is not made.
struct Given(Option<Box<dyn Stream>>);

impl tower_service::Service<Uri> for Given {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.take();
        let stream = stream.map(TokioIo::new);
        Box::pin(async move { stream.ok_or_else(|| io::ErrorKind::NotConnected.into()) })
    }
}
