//! TLS for the test registry: one authority and one certificate, made once with openssl, valid for a hundred years.
//!
//! The server's key is public by being here; the authority's was thrown away.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// The authority's certificate.
pub(super) const AUTHORITY: &str = include_str!("tls/ca.pem");
/// A certificate for the same names and with the same key that nobody else signed.
pub(super) const SELF_SIGNED: &str = include_str!("tls/self-signed.pem");
const CERTIFICATE: &[u8] = include_bytes!("tls/server.pem");
const KEY: &[u8] = include_bytes!("tls/server.key");

/// Accepts TLS connections with the test certificate, or with the one that nobody else signed.
pub(super) fn acceptor(self_signed: bool) -> TlsAcceptor {
    let certificate = match self_signed {
        true => CertificateDer::from_pem_slice(SELF_SIGNED.as_bytes()).expect("the certificate is PEM"),
        false => certificate(),
    };
    TlsAcceptor::from(Arc::new(config_with(certificate)))
}

/// A server's side with the test certificate.
pub(super) fn config() -> ServerConfig {
    config_with(certificate())
}

fn config_with(certificate: CertificateDer<'static>) -> ServerConfig {
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key())
        .expect("the key is the certificate's")
}

/// The certificate.
pub(super) fn certificate() -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(CERTIFICATE).expect("the certificate is PEM")
}

/// Its key.
pub(super) fn key() -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(KEY).expect("the key is PEM")
}
