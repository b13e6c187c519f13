//! TCP with TLS: only clients that show a certificate of the named authority get a connection. Handshakes take place
//! beside each other, have a time limit, and the oldest gives way when there are too many: whoever does not finish
//! his keeps nobody waiting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::connection::Connection;
use super::{RETRY, keep_alive};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once.
const HANDSHAKES_MAX: usize = 128;
/// Connections that wait to be served.
const READY_MAX: usize = 16;

/// The connections of those who showed a certificate.
pub(super) fn accept(listener: TcpListener, config: Arc<ServerConfig>) -> BoxStream<'static, Connection> {
    let (ready, connections) = mpsc::channel(READY_MAX);
    let task = AbortOnDropHandle::new(tokio::spawn(shake_hands(
        listener,
        TlsAcceptor::from(config),
        ready,
    )));
    let next = |(mut connections, task): (mpsc::Receiver<Connection>, _)| async move {
        let connection = connections.recv().await?;
        Some((connection, (connections, task)))
    };
    stream::unfold((connections, task), next).boxed()
}

async fn shake_hands(listener: TcpListener, acceptor: TlsAcceptor, ready: mpsc::Sender<Connection>) {
    let mut shaking: VecDeque<AbortOnDropHandle<()>> = VecDeque::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        keep_alive(&socket);
        shaking.retain(|handshake| !handshake.is_finished());
        if shaking.len() >= HANDSHAKES_MAX {
            shaking.pop_front();
        }
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        shaking.push_back(AbortOnDropHandle::new(tokio::spawn(async move {
            let done = tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await;
            if let Ok(Ok(stream)) = done {
                // Nobody takes it any more when the server ends.
                ready.send(Connection::Tls(Box::new(stream))).await.ok();
            }
        })));
    }
}
