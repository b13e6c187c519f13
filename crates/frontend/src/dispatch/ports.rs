//! EXPOSE.

use std::net::IpAddr;

use rbuild_dockerfile::quote::quote;

use crate::dispatch::Site;
use crate::error::{FrontendError, FrontendErrorKind};
use crate::lint::Rule;
use crate::lowering::Lowering;

/// A port that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Nothing before the protocol.
    #[error("invalid port: {}: no port specified", quote(.0))]
    NoPort(String),
    /// A protocol there is not.
    #[error("invalid port: {}: invalid proto: {protocol}", quote(.port))]
    Protocol {
        /// As written.
        port: String,
        /// Its protocol.
        protocol: String,
    },
    /// An address that is none.
    #[error("invalid IP address: {0}")]
    Address(String),
    /// No number or range.
    #[error("invalid containerPort: {0}")]
    ContainerPort(String),
    /// No number or range for the host.
    #[error("invalid hostPort: {0}")]
    HostPort(String),
    /// Ranges of different length.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges {
        /// In the container.
        container: String,
        /// On the host.
        host: String,
    },
}

pub(super) fn expose(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    ports: &[String],
) -> Result<(), FrontendError> {
    let mut found = Vec::new();
    for written in ports {
        let lexer = lowering.lexer;
        let env = lowering.take_env(site);
        let words = lexer.split(written, &env).map_err(FrontendErrorKind::Expand);
        lowering.give_env(site, env);
        let words = words?.words;
        lowering.budget.spend(words.iter().map(String::len).sum())?;
        for word in words {
            let spec = Spec::parse(&word).map_err(FrontendErrorKind::Port)?;
            // What is odd is told of what is wrong, too.
            lint(lowering, site, &word, &spec);
            let (first, last) = spec.ports().map_err(FrontendErrorKind::Port)?;
            found.extend((first..=last).map(|port| format!("{port}/{}", spec.protocol.to_lowercase())));
        }
    }
    let created_by = format!("EXPOSE [{}]", found.join(" "));
    lowering.budget.spend(created_by.len())?;
    lowering.stages.list[site.stage]
        .image
        .config
        .exposed_ports
        .extend(found);
    lowering.commit(site.stage, created_by, false);
    Ok(())
}

fn lint(lowering: &mut Lowering<'_>, site: Site<'_>, word: &str, spec: &Spec<'_>) {
    if spec.protocol != spec.protocol.to_lowercase() {
        let message = format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
        lowering
            .lint
            .warn(Rule::ExposeProtoCasing, message, site.span(), site.comments());
    }
    if !spec.address.is_empty() || !spec.host.is_empty() {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
        );
        lowering
            .lint
            .warn(Rule::ExposeInvalidFormat, message, site.span(), site.comments());
    }
}

/// `[[ip:]host:]port[-port][/protocol]`.
#[derive(Debug, PartialEq, Eq)]
struct Spec<'a> {
    address: &'a str,
    host: &'a str,
    port: &'a str,
    protocol: &'a str,
}

impl<'a> Spec<'a> {
    fn parse(word: &'a str) -> Result<Self, PortError> {
        let (front, container) = word
            .rsplit_once(':')
            .map_or(("", word), |(front, port)| (front, port));
        let (address, host) = front.rsplit_once(':').unwrap_or(("", front));
        let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
        if port.is_empty() {
            return Err(PortError::NoPort(word.to_owned()));
        }
        let protocol = if protocol.is_empty() { "tcp" } else { protocol };
        if !matches!(protocol.to_lowercase().as_str(), "tcp" | "udp" | "sctp") {
            let (port, protocol) = (word.to_owned(), protocol.to_owned());
            return Err(PortError::Protocol { port, protocol });
        }
        Ok(Self {
            address,
            host,
            port,
            protocol,
        })
    }

    /// The first and the last port of the container.
    fn ports(&self) -> Result<(u16, u16), PortError> {
        let (address, host, port) = (self.address, self.host, self.port);
        if !address.is_empty() {
            let bare = address
                .strip_prefix('[')
                .and_then(|a| a.strip_suffix(']'))
                .unwrap_or(address);
            bare.parse::<IpAddr>()
                .map_err(|_| PortError::Address(address.to_owned()))?;
        }
        let (first, last) = range(port).ok_or_else(|| PortError::ContainerPort(port.to_owned()))?;
        if !host.is_empty() {
            let (host_first, host_last) = range(host).ok_or_else(|| PortError::HostPort(host.to_owned()))?;
            if last != first && last - first != host_last - host_first {
                let (container, host) = (port.to_owned(), host.to_owned());
                return Err(PortError::Ranges { container, host });
            }
        }
        Ok((first, last))
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs() {
        for (word, expected) in [
            ("80", Some((80, 80, "tcp", false))),
            ("80/udp", Some((80, 80, "udp", false))),
            ("80/TCP", Some((80, 80, "TCP", false))),
            ("80-82/sctp", Some((80, 82, "sctp", false))),
            ("8080:80", Some((80, 80, "tcp", true))),
            ("127.0.0.1:8080:80", Some((80, 80, "tcp", true))),
            ("127.0.0.1::80", Some((80, 80, "tcp", true))),
            ("[::1]:8080:80/udp", Some((80, 80, "udp", true))),
            ("8000-9000:80", Some((80, 80, "tcp", true))),
            ("0", Some((0, 0, "tcp", false))),
            ("80/icmp", None),
            ("/tcp", None),
            ("65536", None),
            ("82-80", None),
            ("a", None),
            ("1.2.3:80:80", None),
            ("8000-8001:80-82", None),
            ("x:80", None),
        ] {
            let found = Spec::parse(word).and_then(|spec| {
                let (first, last) = spec.ports()?;
                let names_host = !spec.address.is_empty() || !spec.host.is_empty();
                Ok((first, last, spec.protocol, names_host))
            });
            let found = found.ok();
            assert_eq!(found, expected, "{word}");
        }
    }
}
