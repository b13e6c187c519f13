//! An authority that lives as long as a process: it certifies names as they are asked for, for a proxy that answers in the
//! place of servers. Its key is never written anywhere; certificates are X.509 (RFC 5280), with one key for all names.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SystemRandom, fill};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{TlsError, provider};

mod der;

use der::{explicit, integer, object, octets, sequence, set, tlv};

/// What the authority is called.
const NAME: &str = "rbuild step proxy";
/// How long the authority is one.
const OWN_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How long a name is certified.
const LEAF_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Clocks differ.
const EARLIER: Duration = Duration::from_secs(60 * 60);
/// Most names that are remembered, and longest name.
const NAMES_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 253;
/// The name of HTTP/1.1 in a handshake.
const HTTP1: &[u8] = b"http/1.1";

const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const PRIME256V1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_KEY: &[u8] = &[0x55, 0x1d, 0x0e];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const AUTHORITY_KEY: &[u8] = &[0x55, 0x1d, 0x23];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];

/// Why there is no authority, or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The library gave no key, no randomness or no signature.
    #[error("no {0} for a certificate")]
    Crypto(&'static str),
    /// A certificate cannot be for that.
    #[error("{0:?} is not the name of a server")]
    Name(String),
    /// The library does not take the certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The library does not take the certificate for a name.
    #[error("a certificate for {name:?} cannot be used")]
    Unusable {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// The authority.
#[derive(Debug)]
pub struct Authority {
    key: EcdsaKeyPair,
    certificate: Vec<u8>,
    /// The key of all names.
    leaf: EcdsaKeyPair,
    leaf_pkcs8: Vec<u8>,
    /// Configurations of names, each used for half of the life of its certificate.
    made: Mutex<HashMap<String, (Timestamp, Arc<ServerConfig>)>>,
}

/// What a certificate says.
struct Said<'a> {
    name: &'a str,
    life: Duration,
    /// Of the key that is certified.
    public: &'a [u8],
    extensions: Vec<Vec<u8>>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// [`AuthorityError::Crypto`].
    pub fn new() -> Result<Self, AuthorityError> {
        let generate = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING);
        let key = generate().map_err(|_| AuthorityError::Crypto("key"))?;
        let leaf = generate().map_err(|_| AuthorityError::Crypto("key"))?;
        let leaf_pkcs8 = leaf.to_pkcs8v1().map_err(|_| AuthorityError::Crypto("key"))?;
        let public = key.public_key().as_ref();
        let said = Said {
            name: NAME,
            life: OWN_LIFE,
            public,
            extensions: vec![
                extension(BASIC_CONSTRAINTS, true, &sequence(&[&tlv(0x01, &[0xff])])),
                // keyCertSign and digitalSignature.
                extension(KEY_USAGE, true, &tlv(0x03, &[2, 0b1000_0100])),
                extension(SUBJECT_KEY, false, &octets(&key_id(public))),
            ],
        };
        Ok(Self {
            certificate: certificate(&said, &key)?,
            leaf_pkcs8: leaf_pkcs8.as_ref().to_vec(),
            key,
            leaf,
            made: Mutex::default(),
        })
    }

    /// Its certificate, in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
        let encoded = STANDARD.encode(&self.certificate);
        for line in encoded.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
        text
    }

    /// What answers in the place of `host`, a name or a number, over HTTP/1.1.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn server(&self, host: &str) -> Result<Arc<ServerConfig>, AuthorityError> {
        let now = Timestamp::now();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((until, config)) = made.get(host)
            && now < *until
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.certify(host)?);
        if made.len() >= NAMES_MAX {
            made.clear();
        }
        let until = now.saturating_add(LEAF_LIFE / 2).unwrap_or(now);
        made.insert(host.to_owned(), (until, Arc::clone(&config)));
        Ok(config)
    }

    fn certify(&self, host: &str) -> Result<ServerConfig, AuthorityError> {
        let key_identifier = tlv(0x80, &key_id(self.key.public_key().as_ref()));
        let said = Said {
            // A name may be longer than a common name can be.
            name: "rbuild step proxy leaf",
            life: LEAF_LIFE,
            public: self.leaf.public_key().as_ref(),
            extensions: vec![
                extension(BASIC_CONSTRAINTS, true, &sequence(&[])),
                extension(KEY_USAGE, true, &tlv(0x03, &[7, 0b1000_0000])),
                extension(EXTENDED_KEY_USAGE, false, &sequence(&[&object(SERVER_AUTH)])),
                extension(SUBJECT_ALT_NAME, false, &sequence(&[&alternative(host)?])),
                extension(AUTHORITY_KEY, false, &sequence(&[&key_identifier])),
            ],
        };
        let chain = vec![CertificateDer::from(certificate(&said, &self.key)?)];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.leaf_pkcs8.clone()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Versions)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|source| AuthorityError::Unusable {
                name: host.to_owned(),
                source,
            })?;
        config.alpn_protocols = vec![HTTP1.to_vec()];
        Ok(config)
    }
}

/// `host` as an alternative name of a certificate.
fn alternative(host: &str) -> Result<Vec<u8>, AuthorityError> {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => return Ok(tlv(0x87, &address.octets())),
        Ok(IpAddr::V6(address)) => return Ok(tlv(0x87, &address.octets())),
        Err(_) => {}
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if host.is_empty() || host.len() > NAME_BYTES_MAX || !host.bytes().all(plain) {
        return Err(AuthorityError::Name(host.chars().take(NAME_BYTES_MAX).collect()));
    }
    Ok(tlv(0x82, host.as_bytes()))
}

/// RFC 5280, section 4.2.1.2: any number that is the key's own.
fn key_id(public: &[u8]) -> Vec<u8> {
    digest(&SHA256, public).as_ref()[..20].to_vec()
}

fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { tlv(0x01, &[0xff]) } else { Vec::new() };
    sequence(&[&object(id), &critical, &octets(value)])
}

fn name(text: &str) -> Vec<u8> {
    let attribute = sequence(&[&object(COMMON_NAME), &tlv(0x0c, text.as_bytes())]);
    sequence(&[&set(&attribute)])
}

/// Dates up to 2049 have two digits for the year.
fn time(at: Timestamp) -> Vec<u8> {
    tlv(0x17, at.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
}

/// A certificate that `signer`'s authority signs.
fn certificate(said: &Said<'_>, signer: &EcdsaKeyPair) -> Result<Vec<u8>, AuthorityError> {
    let mut serial = [0; 16];
    fill(&mut serial).map_err(|_| AuthorityError::Crypto("randomness"))?;
    // A positive number without leading zeros.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let algorithm = sequence(&[&object(ECDSA_WITH_SHA256)]);
    let now = Timestamp::now();
    let from = now.saturating_sub(EARLIER).unwrap_or(now);
    let until = now.saturating_add(said.life).unwrap_or(now);
    let key = sequence(&[
        &sequence(&[&object(EC_PUBLIC_KEY), &object(PRIME256V1)]),
        &bits(said.public),
    ]);
    let extensions: Vec<&[u8]> = said.extensions.iter().map(Vec::as_slice).collect();
    let body = sequence(&[
        &explicit(0, &integer(&[2])),
        &integer(&serial),
        &algorithm,
        &name(NAME),
        &sequence(&[&time(from), &time(until)]),
        &name(said.name),
        &key,
        &explicit(3, &sequence(&extensions)),
    ]);
    let signature = signer.sign(&SystemRandom::new(), &body);
    let signature = signature.map_err(|_| AuthorityError::Crypto("signature"))?;
    Ok(sequence(&[&body, &algorithm, &bits(signature.as_ref())]))
}

/// A string of whole bytes.
fn bits(bytes: &[u8]) -> Vec<u8> {
    let mut content = vec![0];
    content.extend_from_slice(bytes);
    tlv(0x03, &content)
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    /// What a client that trusts `authority` says of the certificate for `asked` when it wants `wanted`.
    fn verified(authority: &Authority, asked: &str, wanted: &str) -> bool {
        let mut roots = RootCertStore::empty();
        let pem = authority.pem();
        roots
            .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
            .unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .unwrap();
        let said = Said {
            name: "leaf",
            life: LEAF_LIFE,
            public: authority.leaf.public_key().as_ref(),
            extensions: vec![extension(
                SUBJECT_ALT_NAME,
                false,
                &sequence(&[&alternative(asked).unwrap()]),
            )],
        };
        let leaf = CertificateDer::from(certificate(&said, &authority.key).unwrap());
        let name = ServerName::try_from(wanted.to_owned()).unwrap();
        verifier
            .verify_server_cert(&leaf, &[], &name, &[], UnixTime::now())
            .is_ok()
    }

    #[test]
    fn who_trusts_the_authority_trusts_its_names_and_no_others() {
        let authority = Authority::new().unwrap();
        assert!(verified(&authority, "files.example", "files.example"));
        assert!(verified(&authority, "192.0.2.1", "192.0.2.1"));
        assert!(verified(&authority, "2001:db8::1", "2001:db8::1"));
        assert!(!verified(&authority, "files.example", "other.example"));
    }

    #[test]
    fn a_name_is_certified_once_and_what_is_none_is_refused() {
        let authority = Authority::new().unwrap();
        let first = authority.server("files.example").unwrap();
        assert!(Arc::ptr_eq(&first, &authority.server("files.example").unwrap()));
        for name in ["", "a b", "x\n", &"a".repeat(300)] {
            assert!(
                matches!(authority.server(name), Err(AuthorityError::Name(_))),
                "{name:?}"
            );
        }
        for number in 0..NAMES_MAX + 5 {
            authority.server(&format!("host{number}")).unwrap();
        }
        assert!(
            authority.made.lock().unwrap().len() <= NAMES_MAX,
            "names are forgotten"
        );
    }
}
