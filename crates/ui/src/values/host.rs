//! `--add-host` (`buildx/build/utils.go`): `name=address` or `name:address`, several addresses by comma.

use std::net::IpAddr;

use rbuild_graph::HostIp;

/// Why a text is not an extra host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// There is no name, no address, or the address is not one.
    #[error("invalid host {0}")]
    Invalid(String),
    /// `host-gateway` is an address of a daemon's network; there is none here.
    #[error("host-gateway is not supported in {0}: steps have no gateway to the host")]
    Gateway(String),
}

/// Reads one `--add-host`.
///
/// # Errors
/// [`HostError`].
pub fn parse(text: &str) -> Result<Vec<HostIp>, HostError> {
    let invalid = || HostError::Invalid(text.to_owned());
    let (host, addresses) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(invalid)?;
    if host.is_empty()
        || host
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '#')
    {
        return Err(invalid());
    }
    if addresses == "host-gateway" {
        return Err(HostError::Gateway(text.to_owned()));
    }
    addresses
        .split(',')
        .map(|address| {
            let bare = address
                .strip_prefix('[')
                .and_then(|inner| inner.strip_suffix(']'))
                .unwrap_or(address);
            bare.parse::<IpAddr>().map_err(|_not_an_address| invalid())?;
            Ok(HostIp {
                host: host.to_owned(),
                ip: bare.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let one = |text: &str| -> Vec<(String, String)> {
            parse(text).unwrap().into_iter().map(|h| (h.host, h.ip)).collect()
        };
        let pair = |host: &str, ip: &str| (host.to_owned(), ip.to_owned());
        assert_eq!(one("a:1.2.3.4"), [pair("a", "1.2.3.4")]);
        assert_eq!(one("a=1.2.3.4"), [pair("a", "1.2.3.4")]);
        assert_eq!(one("a:::1"), [pair("a", "::1")]);
        assert_eq!(one("a=[::1]"), [pair("a", "::1")]);
        assert_eq!(
            one("a=1.2.3.4,[::1],::2"),
            [pair("a", "1.2.3.4"), pair("a", "::1"), pair("a", "::2")]
        );
    }

    #[test]
    fn row45_what_would_forge_a_line_of_etc_hosts_is_no_host() {
        for text in [
            "a",
            "a:",
            ":1.2.3.4",
            "a:x",
            "a=1.2.3.4,",
            "a\n9.9.9.9 b:1.2.3.4",
            "a b:1.2.3.4",
            "#:1.2.3.4",
        ] {
            assert_eq!(parse(text), Err(HostError::Invalid(text.to_owned())), "{text:?}");
        }
        assert!(matches!(parse("a:host-gateway"), Err(HostError::Gateway(_))));
    }
}
