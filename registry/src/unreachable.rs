//! Why there is no connection, in the words of Go's `net`, `crypto/tls` and `crypto/x509`: those that BuildKit shows, and that
//! people and programs look for in logs. What Go has no word for is told in the library's.

use std::error::Error as StdError;
use std::io;

use reqwest::Url;
use rustls::{CertificateError, Error as TlsError, InvalidMessage};

use crate::net::{NoSuchHost, cause};

/// Why nothing was reached at `url`.
pub(crate) fn reason(url: &Url, error: &reqwest::Error) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    if let Some(error) = cause::<NoSuchHost>(error) {
        return error.to_string();
    }
    if let Some(error) = cause::<TlsError>(error) {
        return of_tls(host, error);
    }
    if error.is_timeout() {
        return format!("dial tcp {host}:{port}: i/o timeout");
    }
    if let Some(words) = cause::<io::Error>(error).and_then(of_connect) {
        return format!("dial tcp {host}:{port}: {words}");
    }
    let mut last: &dyn StdError = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

fn of_connect(error: &io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused",
        io::ErrorKind::ConnectionReset => "read: connection reset by peer",
        io::ErrorKind::HostUnreachable => "connect: no route to host",
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable",
        io::ErrorKind::TimedOut => "connect: connection timed out",
        _ => return None,
    })
}

fn of_tls(host: &str, error: &TlsError) -> String {
    let certificate = match error {
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
            return "tls: first record does not look like a TLS handshake".to_owned();
        }
        TlsError::InvalidCertificate(certificate) => certificate,
        other => return format!("tls: {other}"),
    };
    let what = match certificate {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            format!("certificate has expired or is not yet valid: {certificate}")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("certificate is not valid for {host}")
        }
        other => other.to_string(),
    };
    format!("tls: failed to verify certificate: x509: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_the_words_of_go() {
        for (kind, words) in [
            (
                io::ErrorKind::ConnectionRefused,
                Some("connect: connection refused"),
            ),
            (io::ErrorKind::HostUnreachable, Some("connect: no route to host")),
            (
                io::ErrorKind::NetworkUnreachable,
                Some("connect: network is unreachable"),
            ),
            (io::ErrorKind::NotFound, None),
        ] {
            assert_eq!(of_connect(&kind.into()), words);
        }
        for (error, words) in [
            (
                TlsError::InvalidMessage(InvalidMessage::InvalidContentType),
                "tls: first record does not look like a TLS handshake",
            ),
            (
                TlsError::InvalidCertificate(CertificateError::UnknownIssuer),
                "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            ),
            (
                TlsError::InvalidCertificate(CertificateError::NotValidForName),
                "tls: failed to verify certificate: x509: certificate is not valid for h.example",
            ),
            (
                TlsError::InvalidCertificate(CertificateError::NotValidForNameContext {
                    expected: rustls::pki_types::ServerName::try_from("h.example").unwrap(),
                    presented: vec!["DnsName(\"other.example\")".to_owned()],
                }),
                "tls: failed to verify certificate: x509: certificate is not valid for h.example",
            ),
            (TlsError::HandshakeNotComplete, "tls: handshake not complete"),
        ] {
            assert_eq!(of_tls("h.example", &error), words);
        }
    }
}
