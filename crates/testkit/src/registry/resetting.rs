//! A server of HTTP/2 over TLS that sends half of its file and then resets the stream, a number of times; then all of it.
//! It announces no length, so that only the end of the stream tells what is whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use h2::server::SendResponse;
use hyper::body::Bytes;
use hyper::{HeaderMap, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::tls;

/// The server; it ends with this value.
#[derive(Debug)]
pub struct ResettingServer {
    url: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for ResettingServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ResettingServer {
    /// Serves `file` under every path. The first `resets` answers break off in its middle with `reason`, a code of RFC
    /// 9113, section 7.
    ///
    /// # Panics
    /// There is no port on loopback, or no runtime.
    pub async fn start(file: Vec<u8>, resets: usize, reason: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let file = Arc::new((
            Bytes::from(file),
            AtomicUsize::new(resets),
            h2::Reason::from(reason),
        ));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let file = Arc::clone(&file);
                tokio::spawn(async move { serve(stream, &file).await });
            }
        });
        Self {
            url: format!("https://127.0.0.1:{port}/file"),
            task,
        }
    }

    /// The file's address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

type Served = (Bytes, AtomicUsize, h2::Reason);

/// One connection, until the client leaves it.
async fn serve(stream: TcpStream, served: &Served) {
    let mut config = tls::config();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let Ok(stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else {
        return;
    };
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((_request, respond))) = connection.accept().await {
        // Whoever has left is not answered.
        answer(respond, served).ok();
    }
}

fn answer(mut respond: SendResponse<Bytes>, (file, resets, reason): &Served) -> Result<(), h2::Error> {
    let mut body = respond.send_response(Response::new(()), false)?;
    let left = resets.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
    if left.is_ok() {
        body.send_data(file.slice(..file.len() / 2), false)?;
        let reason = *reason;
        // A reset throws away what still waits to be sent; there is nothing that tells when it was.
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            body.send_reset(reason);
        });
        return Ok(());
    }
    body.send_data(file.clone(), false)?;
    body.send_trailers(HeaderMap::new())
}
