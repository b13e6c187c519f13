//! Whose certificate a server may show: one that leads to a trusted authority, or a trusted one itself.
//!
//! `openssl req -x509` makes certificates that say they are an authority, and docker's guide to registries has people
//! give such a one to the server and put it into `certs.d` as well. WebPKI's rules know no authority that serves; Go's
//! (`crypto/x509`, `Certificate.Verify`) believe a certificate that is among the trusted ones, as long as it is valid now
//! and for that name.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Verifies what servers show.
#[derive(Debug)]
pub(crate) struct Believed {
    chains: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
}

impl Believed {
    /// Trusts `roots`.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn new(
        roots: RootCertStore,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let roots = Arc::new(roots);
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider).build()?;
        Ok(Self { chains, roots })
    }

    /// Whether the key of `certificate` is that of a trusted authority of the same name that may sign for any name. Whoever
    /// has that key could sign whatever else would be believed.
    fn is_root(&self, certificate: &CertificateDer<'_>) -> bool {
        let mut itself = RootCertStore::empty();
        let read = itself.add(certificate.clone().into_owned());
        read.is_ok()
            && itself
                .roots
                .iter()
                .all(|root| root.name_constraints.is_none() && self.roots.roots.contains(root))
    }
}

/// Whether all that is wrong is that an authority serves: its time is looked at before (webpki's
/// `check_issuer_independent_properties`).
fn is_authority(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    other.0.downcast_ref::<webpki::Error>() == Some(&webpki::Error::CaUsedAsEndEntity)
}

impl ServerCertVerifier for Believed {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self
            .chains
            .verify_server_cert(certificate, others, name, ocsp, now)
        {
            Err(error) if is_authority(&error) => {
                if !self.is_root(certificate) {
                    return Err(CertificateError::UnknownIssuer.into());
                }
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rbuild_testkit::registry::TestRegistry;
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    const YEAR: u64 = 365 * 24 * 60 * 60;

    fn certificate(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    /// What is said of the self-signed certificate by who trusts `trusted`, for `name`, so many years after 1970.
    fn said(trusted: &str, name: &str, years: u64) -> Result<(), CertificateError> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(trusted)).unwrap();
        let believed = Believed::new(roots, Arc::new(aws_lc_rs::default_provider())).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(years * YEAR));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let shown = certificate(TestRegistry::self_signed_pem());
        match believed.verify_server_cert(&shown, &[], &name, &[], now) {
            Ok(_) => Ok(()),
            Err(rustls::Error::InvalidCertificate(why)) => Err(why),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_trusted_certificate_that_signed_itself_is_believed_in_its_time_for_its_names() {
        let own = TestRegistry::self_signed_pem();
        assert_eq!(said(own, "localhost", 60), Ok(()));
        assert_eq!(said(own, "127.0.0.1", 60), Ok(()));
        let elsewhere = said(own, "elsewhere.example", 60).unwrap_err();
        assert!(
            matches!(elsewhere, CertificateError::NotValidForNameContext { .. }),
            "{elsewhere:?}"
        );
        let early = said(own, "localhost", 50).unwrap_err();
        assert!(
            matches!(early, CertificateError::NotValidYetContext { .. }),
            "{early:?}"
        );
        let late = said(own, "localhost", 170).unwrap_err();
        assert!(
            matches!(late, CertificateError::ExpiredContext { .. }),
            "{late:?}"
        );
    }

    #[test]
    fn a_certificate_that_signed_itself_is_not_believed_because_another_is() {
        let other = said(TestRegistry::authority_pem(), "localhost", 60);
        assert_eq!(other, Err(CertificateError::UnknownIssuer));
    }
}
