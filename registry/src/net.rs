//! HTTP clients: TLS roots and certificates, name resolution, proxies, and the addresses that are refused.
//!
//! Names are resolved without libc (a static binary must not load NSS modules), and each address is checked at the
//! moment it is connected to, so that a name cannot lead to a cloud's metadata service or, from a server elsewhere,
//! to this machine (security row 36). Never follows a redirect, never decodes content, never adds a header of its own.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{NoProxy, Proxy, Url, redirect};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::sync::OnceCell;

use crate::believed::Believed;
use crate::config::{TlsFiles, is_link_local, is_loopback};
use crate::{RegistryConfig, RegistryError, unreachable};

/// What a client is allowed to do; clients are made once for each kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientKind {
    /// TLS is spoken. Without it no certificate is loaded.
    pub(crate) tls: bool,
    /// Certificates are verified.
    pub(crate) verify: bool,
    /// This machine may be connected to.
    pub(crate) loopback: bool,
    /// Certificates to use beside the system's.
    pub(crate) files: TlsFiles,
}

/// Makes clients and keeps them.
#[derive(Debug)]
pub(crate) struct Clients {
    connect_timeout: Duration,
    user_agent: String,
    resolver: Arc<OnceCell<TokioResolver>>,
    roots: OnceLock<RootCertStore>,
    made: Mutex<HashMap<ClientKind, reqwest::Client>>,
}

/// An address that is not connected to.
#[derive(Debug, thiserror::Error)]
#[error("{address} is refused: {reason}")]
pub(crate) struct AddressRefused {
    pub(crate) address: IpAddr,
    pub(crate) reason: &'static str,
}

/// A name that no address goes with, in the words of Go's resolver, which people and programs look for in logs.
#[derive(Debug, thiserror::Error)]
#[error("dial tcp: lookup {0}: no such host")]
pub(crate) struct NoSuchHost(String);

/// Checks an address before anything is sent there.
fn check_address(address: IpAddr, loopback: bool) -> Result<(), AddressRefused> {
    if is_link_local(address) {
        return Err(AddressRefused {
            address,
            reason: "it is link-local, where metadata services answer",
        });
    }
    if is_loopback(address) && !loopback {
        return Err(AddressRefused {
            address,
            reason: "it is this machine, and the server asked first is not",
        });
    }
    Ok(())
}

/// Checks a URL whose host is an address; names are checked when they are resolved.
pub(crate) fn check_url(url: &Url, loopback: bool) -> Result<(), RegistryError> {
    let host = url.host_str().unwrap_or_default();
    let Ok(address) = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>()
    else {
        return Ok(());
    };
    check_address(address, loopback).map_err(|refused| address_error(host, &refused))
}

/// The registry error for a refused address.
fn address_error(host: &str, refused: &AddressRefused) -> RegistryError {
    RegistryError::Address {
        host: host.to_owned(),
        address: refused.address.to_string(),
        reason: refused.reason,
    }
}

/// The first cause of type `T` in a chain of errors.
pub(crate) fn cause<'e, T: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An io::Error hides what it wraps from `source`, which names the cause of that.
        let wrapped = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = wrapped
            .map(|inner| inner as &(dyn StdError + 'static))
            .or_else(|| error.source());
    }
    None
}

/// Turns a failed connection into what it means: a refused address, or no connection. `trial` stands before the request.
pub(crate) fn connect_error(
    url: &Url,
    trial: &'static str,
    hint: String,
    error: reqwest::Error,
) -> RegistryError {
    if let Some(refused) = cause::<AddressRefused>(&error) {
        return address_error(url.host_str().unwrap_or_default(), refused);
    }
    RegistryError::Unreachable {
        trial,
        verb: "Get",
        url: url.into(),
        reason: unreachable::reason(url, &error),
        hint,
        cause: error.without_url(),
    }
}

impl Clients {
    pub(crate) fn new(user_agent: &str, connect_timeout: Duration) -> Self {
        Self {
            connect_timeout,
            user_agent: user_agent.to_owned(),
            resolver: Arc::default(),
            roots: OnceLock::new(),
            made: Mutex::default(),
        }
    }

    /// The client of this kind.
    pub(crate) fn get(
        &self,
        kind: &ClientKind,
        host: &str,
        config: &RegistryConfig,
    ) -> Result<reqwest::Client, RegistryError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(kind) {
            return Ok(client.clone());
        }
        let client = self.make(kind, host, config)?;
        made.insert(kind.clone(), client.clone());
        Ok(client)
    }

    fn make(
        &self,
        kind: &ClientKind,
        host: &str,
        config: &RegistryConfig,
    ) -> Result<reqwest::Client, RegistryError> {
        let resolver = Guarded {
            resolver: Arc::clone(&self.resolver),
            loopback: kind.loopback,
        };
        let mut builder = reqwest::Client::builder()
            .user_agent(&self.user_agent)
            .connect_timeout(self.connect_timeout)
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .http2_adaptive_window(true)
            .pool_idle_timeout(Duration::from_secs(30))
            .tls_backend_preconfigured(self.tls(kind, host, config)?)
            .dns_resolver(Arc::new(resolver))
            .no_proxy();
        for proxy in proxies(config)? {
            builder = builder.proxy(proxy);
        }
        builder.build().map_err(|source| RegistryError::Client {
            host: host.to_owned(),
            source,
        })
    }

    fn tls(
        &self,
        kind: &ClientKind,
        host: &str,
        config: &RegistryConfig,
    ) -> Result<ClientConfig, RegistryError> {
        let failed = |reason: String| RegistryError::Tls {
            host: host.to_owned(),
            reason,
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?;
        let builder = if !kind.tls {
            builder.with_root_certificates(RootCertStore::empty())
        } else if !kind.verify {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        } else {
            let mut roots = self.roots(config).clone();
            for path in &kind.files.ca {
                let (added, _) = roots.add_parsable_certificates(certificates(path).map_err(failed)?);
                if added == 0 {
                    return Err(failed(format!("{} has no certificate", path.display())));
                }
            }
            let believed = Believed::new(roots, provider).map_err(|error| failed(error.to_string()))?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(believed))
        };
        let mut tls = match kind.files.keypairs.first() {
            Some((certificate, key)) => {
                let shown = |error: &dyn StdError| failed(format!("{}: {error}", key.display()));
                let chain = certificates(certificate).map_err(failed)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| shown(&error))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| shown(&error))?
            }
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(tls)
    }

    /// The system's roots, or the built-in ones where the system has none. `SSL_CERT_FILE` and `SSL_CERT_DIR` replace
    /// the system's, as everywhere.
    fn roots(&self, config: &RegistryConfig) -> &RootCertStore {
        self.roots.get_or_init(|| {
            let path = |name: &str| config.env(name).map(Path::new);
            let (file, dir) = (path("SSL_CERT_FILE"), path("SSL_CERT_DIR"));
            let found = if file.is_some() || dir.is_some() {
                rustls_native_certs::load_certs_from_paths(file, dir)
            } else {
                rustls_native_certs::load_native_certs()
            };
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
            }
            roots
        })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = |error: &dyn StdError| format!("{}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| shown(&error))?;
    certificates
        .collect::<Result<_, _>>()
        .map_err(|error| shown(&error))
}

/// The proxies of the environment. As in Go, this machine is never reached through one.
fn proxies(config: &RegistryConfig) -> Result<Vec<Proxy>, RegistryError> {
    let mut exceptions = String::from("localhost,127.0.0.0/8,::1");
    if let Some(more) = config.env("NO_PROXY") {
        exceptions.push(',');
        exceptions.push_str(more);
    }
    let mut proxies = Vec::new();
    let http = config.env("HTTP_PROXY").map(Proxy::http);
    let https = config.env("HTTPS_PROXY").map(Proxy::https);
    let all = config.env("ALL_PROXY").map(Proxy::all);
    for (variable, proxy) in [("HTTP_PROXY", http), ("HTTPS_PROXY", https), ("ALL_PROXY", all)] {
        let Some(proxy) = proxy else { continue };
        let proxy = proxy.map_err(|source| RegistryError::Proxy {
            variable,
            source: source.without_url(),
        })?;
        proxies.push(proxy.no_proxy(NoProxy::from_string(&exceptions)));
    }
    Ok(proxies)
}

/// Resolves names and drops the addresses that are refused.
struct Guarded {
    resolver: Arc<OnceCell<TokioResolver>>,
    loopback: bool,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, loopback) = (Arc::clone(&self.resolver), self.loopback);
        Box::pin(async move {
            let name = name.as_str().trim_end_matches('.').to_ascii_lowercase();
            let found: Vec<IpAddr> = if name == "localhost" || name.ends_with(".localhost") {
                // RFC 6761, section 6.3; needs no configuration and no server.
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            } else {
                let resolver = resolver.get_or_try_init(system_resolver).await?;
                match resolver.lookup_ip(name.as_str()).await {
                    Ok(found) => found.iter().collect(),
                    Err(error) if error.is_no_records_found() => return Err(NoSuchHost(name).into()),
                    Err(error) => return Err(error.into()),
                }
            };
            Ok(Box::new(allowed(found, loopback)?.into_iter()) as Addrs)
        })
    }
}

/// The addresses of a name that may be connected to; an error if all are refused.
fn allowed(found: Vec<IpAddr>, loopback: bool) -> Result<Vec<SocketAddr>, AddressRefused> {
    let mut refused = None;
    let mut allowed = Vec::new();
    for address in found {
        match check_address(address, loopback) {
            Ok(()) => allowed.push(SocketAddr::new(address, 0)),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if allowed.is_empty() => Err(error),
        _ => Ok(allowed),
    }
}

/// The resolver that `/etc/resolv.conf` and `/etc/hosts` describe. Without them there is none: no public server is
/// asked instead.
async fn system_resolver() -> Result<TokioResolver, Box<dyn StdError + Send + Sync>> {
    let mut builder = TokioResolver::builder_tokio()?;
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    Ok(builder.build()?)
}

/// Accepts every certificate, for hosts that are marked insecure.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str, loopback: bool) -> bool {
        check_url(&Url::parse(url).expect(url), loopback).is_err()
    }

    #[test]
    fn row36_addresses_are_refused_however_they_are_written() {
        for url in [
            "http://169.254.169.254/latest",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://[::ffff:169.254.169.254]/",
            "https://[fd00:ec2::254]/",
            "https://[fe80::1]/",
        ] {
            assert!(refused(url, true), "{url}");
        }
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "https://[::1]/",
            "http://0.0.0.0/",
            "http://[::ffff:127.0.0.1]/",
        ] {
            assert!(refused(url, false) && !refused(url, true), "{url}");
        }
        assert!(!refused("https://10.0.0.1/", false) && !refused("https://example/", false));
    }

    #[test]
    fn row36_of_a_name_s_answers_only_those_that_may_be_asked_are() {
        let kept = |found: &[&str], loopback| {
            let found = found.iter().map(|text| text.parse().expect("an address"));
            let kept = allowed(found.collect(), loopback)?;
            Ok::<_, AddressRefused>(kept.iter().map(|kept| kept.ip().to_string()).collect::<Vec<_>>())
        };
        let far = "192.0.2.1";
        for (found, loopback, expected) in [
            (&[far, "169.254.169.254"][..], true, &[far][..]),
            (&["fe80::1", "fd00:ec2::254", far], true, &[far]),
            (&["127.0.0.1", far, "::1", "0.0.0.0"], false, &[far]),
            (&[far, "127.0.0.1"], true, &[far, "127.0.0.1"]),
            (&[], true, &[]),
        ] {
            assert_eq!(kept(found, loopback).expect("one is left"), expected, "{found:?}");
        }
        for (found, loopback) in [
            (&["169.254.169.254"][..], true),
            (&["::ffff:169.254.0.1", "fe80::1"], true),
            (&["127.0.0.1", "::1"], false),
        ] {
            kept(found, loopback).expect_err("none is left");
        }
    }

    #[tokio::test]
    async fn row36_names_are_checked_when_they_are_resolved() {
        let guard = |loopback| Guarded {
            resolver: Arc::default(),
            loopback,
        };
        let name = || "localhost".parse::<Name>().expect("a name");
        let found: Vec<_> = guard(true)
            .resolve(name())
            .await
            .expect("no DNS is needed")
            .collect();
        assert_eq!(found.len(), 2);
        let Err(error) = guard(false).resolve(name()).await else {
            panic!("localhost must be refused")
        };
        assert!(error.downcast_ref::<AddressRefused>().is_some());
    }
}
