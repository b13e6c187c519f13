//! TLS between a server and its clients, both of which show certificates: configurations made of PEM files. The protocol
//! inside is HTTP/2, as that of gRPC. And an [`authority`] for a proxy that answers in the place of others.
//!
//! Level 0. Knows nothing of sockets, addresses, or what is said.
#![forbid(unsafe_code)]

pub mod authority;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Largest file of certificates or keys.
const PEM_BYTES_MAX: u64 = 1 << 20;
/// The name of HTTP/2 in a handshake.
const HTTP2: &[u8] = b"h2";

/// The files of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// Certificates of the authority that clients' certificates come from.
    pub ca: PathBuf,
    /// What the server shows.
    pub own: Pair,
}

/// The files of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// Certificates of the authority that the server's certificate comes from.
    pub ca: PathBuf,
    /// What the client shows, if anything.
    pub own: Option<Pair>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// The key.
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
    #[error("certificate {cert:?} and its key {key:?} cannot be used")]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong with them.
        #[source]
        source: rustls::Error,
    },
    /// The library has no version of TLS in common with itself.
    #[error("there is no version of TLS")]
    Versions(#[source] rustls::Error),
}

impl ServerFiles {
    /// A configuration that takes only clients with a certificate of the authority.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let roots = Arc::new(roots(&self.ca)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|source| TlsError::Verifier {
                path: self.ca.clone(),
                source,
            })?;
        let (certs, key) = self.own.load()?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Versions)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certs, key)
            .map_err(|source| self.own.refused(source))?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(Arc::new(config))
    }
}

impl ClientFiles {
    /// A configuration that takes only a server with a certificate of the authority.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Versions)?
            .with_root_certificates(roots(&self.ca)?);
        let mut config = match &self.own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let (certs, key) = own.load()?;
                builder
                    .with_client_auth_cert(certs, key)
                    .map_err(|source| own.refused(source))?
            }
        };
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(Arc::new(config))
    }
}

impl Pair {
    fn load(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let bytes = read(&self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|source| TlsError::Pem {
            path: self.key.clone(),
            what: "private key",
            source,
        })?;
        Ok((certificates(&self.cert)?, key))
    }

    fn refused(&self, source: rustls::Error) -> TlsError {
        TlsError::Pair {
            cert: self.cert.clone(),
            key: self.key.clone(),
            source,
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in certificates(path)? {
        roots.add(cert).map_err(|source| TlsError::Authority {
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(roots)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_not_there_or_hold_nothing_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (absent, empty) = (dir.path().join("absent.pem"), dir.path().join("empty.pem"));
        std::fs::write(&empty, "-----BEGIN NONSENSE-----\n").unwrap();
        let load = |ca: &Path| {
            let files = ClientFiles {
                ca: ca.to_owned(),
                own: None,
            };
            files.load().unwrap_err().to_string()
        };
        assert!(load(&absent).contains("absent.pem"));
        assert!(load(&empty).contains("empty.pem"));
    }
}
