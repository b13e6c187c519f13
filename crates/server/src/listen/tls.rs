//! TCP with TLS: only clients that show a certificate of the named authority get a connection. Handshakes take place
//! beside each other, have a time limit, and the oldest gives way when there are too many: whoever does not finish
//! his keeps nobody waiting.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
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
/// Largest file of certificates or keys.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// The files of `--tlscacert`, `--tlscert` and `--tlskey`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authority that clients' certificates come from.
    pub ca: PathBuf,
    /// The server's certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds no certificate, or no key.
    #[error("{path:?} holds no {what} in PEM")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Where reading ended.
        #[source]
        source: pem::Error,
    },
    /// A certificate of the authority is none.
    #[error("{path:?} holds no certificate of an authority")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// Clients cannot be verified with the authority.
    #[error("clients cannot be verified with {path:?}")]
    Verifier {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: VerifierBuilderError,
    },
    /// Certificate and key do not belong together, or are of no use.
    #[error("certificate {cert:?} and key {key:?} cannot be used")]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong with them.
        #[source]
        source: rustls::Error,
    },
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for cert in certificates(&self.ca)? {
            roots.add(cert).map_err(|source| TlsError::Authority {
                path: self.ca.clone(),
                source,
            })?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|source| TlsError::Verifier {
                path: self.ca.clone(),
                source,
            })?;
        let pair = |source| TlsError::Pair {
            cert: self.cert.clone(),
            key: self.key.clone(),
            source,
        };
        let bytes = read(&self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|source| TlsError::Pem {
            path: self.key.clone(),
            what: "private key",
            source,
        })?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(pair)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&self.cert)?, key)
            .map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |source| TlsError::Pem {
        path: path.to_owned(),
        what: "certificate",
        source,
    };
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(fail)?;
    if found.is_empty() {
        return Err(fail(pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let done = File::open(path).and_then(|file| file.take(PEM_BYTES_MAX).read_to_end(&mut bytes));
    done.map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(bytes)
}

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
