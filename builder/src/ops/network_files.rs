//! `/etc/hosts` and `/etc/resolv.conf` as a step sees them (`executor/oci/{hosts,resolvconf}.go`).

use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::Path;

use rbuild_graph::HostIp;

use crate::private_network;

/// Host name of a step that was given none.
pub(crate) const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// Where a step looks for name servers.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What systemd-resolved knows of the real name servers.
const RESOLV_CONF_UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
const RESOLV_CONF_BYTES_MAX: u64 = 64 * 1024;
/// Used where a step has its own network and the host's servers are all on its loopback, as libnetwork does.
const PUBLIC_SERVERS: &str = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";

/// The hosts file of a step.
#[must_use]
pub fn hosts(hostname: &str, extra: &[HostIp]) -> Vec<u8> {
    use std::fmt::Write as _;
    let hostname = if hostname.is_empty() {
        DEFAULT_HOSTNAME
    } else {
        hostname
    };
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for host in extra {
        // Writing to a string cannot fail.
        let written = writeln!(text, "{}\t{}", host.ip, host.host);
        debug_assert!(written.is_ok());
    }
    text.into_bytes()
}

/// What a server's configuration says of name servers; an empty list says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Domains that short names are looked up in.
    pub search: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
}

impl Dns {
    /// The resolver file with these instead of its own lines of their kind.
    fn apply(&self, text: &[u8]) -> Vec<u8> {
        use std::fmt::Write as _;
        let text = String::from_utf8_lossy(text);
        let said = |word: Option<&str>| match word {
            Some("nameserver") => !self.servers.is_empty(),
            Some("search" | "domain") => !self.search.is_empty(),
            Some("options") => !self.options.is_empty(),
            _ => false,
        };
        let kept = text.lines().filter(|line| !said(line.split_whitespace().next()));
        let mut text: String = kept.flat_map(|line| [line, "\n"]).collect();
        for server in &self.servers {
            // Writing to a string cannot fail.
            let written = writeln!(text, "nameserver {server}");
            debug_assert!(written.is_ok());
        }
        for (word, list) in [("search", &self.search), ("options", &self.options)] {
            if !list.is_empty() {
                let written = writeln!(text, "{word} {}", list.join(" "));
                debug_assert!(written.is_ok());
            }
        }
        text.into_bytes()
    }
}

/// The resolver file of a step. With the host's network it is the host's own, since a resolver on loopback is
/// reachable there; otherwise servers on loopback are of no use and left out.
///
/// # Errors
/// The kernel's, when the host's file is there and cannot be read.
pub fn resolv_conf(host_network: bool, dns: &Dns) -> io::Result<Vec<u8>> {
    let own = read(Path::new(RESOLV_CONF))?;
    if host_network {
        return Ok(dns.apply(&own));
    }
    let upstream = match is_stub(&own) {
        true => read(Path::new(RESOLV_CONF_UPSTREAM))?,
        false => Vec::new(),
    };
    Ok(for_own_network(&own, &upstream, dns))
}

/// Whether systemd-resolved on the host's loopback is the only name server.
fn is_stub(text: &[u8]) -> bool {
    servers(text) == ["127.0.0.53"]
}

/// What a step with a network of its own is given; `upstream` is empty if it is not there.
fn for_own_network(own: &[u8], upstream: &[u8], dns: &Dns) -> Vec<u8> {
    let real = is_stub(own) && !upstream.is_empty();
    without_loopback(&dns.apply(if real { upstream } else { own }))
}

/// The resolver file of a step on a network of the build's own: what asks the host's servers is the only server there,
/// unless a server's configuration names others.
///
/// # Errors
/// As [`resolv_conf`].
pub(crate) fn private_resolv_conf(dns: &Dns) -> io::Result<Vec<u8>> {
    let forwarder = Dns {
        servers: vec![private_network::NAME_SERVER],
        ..Dns::default()
    };
    Ok(dns.apply(&forwarder.apply(&read(Path::new(RESOLV_CONF))?)))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(RESOLV_CONF_BYTES_MAX).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(bytes)
}

fn servers(text: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(text)
        .lines()
        .filter_map(server)
        .map(str::to_owned)
        .collect()
}

fn server(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver"))
        .then(|| words.next())
        .flatten()
}

fn without_loopback(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let is_loopback = |address: &str| address.starts_with("127.") || address == "::1";
    let mut kept: String = text
        .lines()
        .filter(|line| !server(line).is_some_and(is_loopback))
        .flat_map(|line| [line, "\n"])
        .collect();
    if servers(kept.as_bytes()).is_empty() {
        kept.push_str(PUBLIC_SERVERS);
    }
    kept.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_as_buildkit_writes_them() {
        let extra = [HostIp {
            host: "db".into(),
            ip: "10.0.0.2".into(),
        }];
        assert_eq!(
            String::from_utf8(hosts("", &extra)).unwrap(),
            "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.2\tdb\n"
        );
        assert!(
            String::from_utf8(hosts("box", &[]))
                .unwrap()
                .starts_with("127.0.0.1\tlocalhost box\n")
        );
    }

    #[test]
    fn what_the_configuration_says_takes_the_place_of_the_hosts_lines() {
        let host = b"# host\nsearch lan\nnameserver 10.0.0.1\noptions ndots:1\n";
        assert_eq!(Dns::default().apply(host), host);
        let dns = Dns {
            servers: vec!["1.1.1.1".parse().unwrap(), "2606:4700::1".parse().unwrap()],
            search: vec!["example.com".into(), "example.org".into()],
            options: vec!["edns0".into()],
        };
        assert_eq!(
            String::from_utf8(dns.apply(host)).unwrap(),
            "# host\nnameserver 1.1.1.1\nnameserver 2606:4700::1\nsearch example.com example.org\noptions edns0\n"
        );
        let servers_only = Dns {
            servers: vec!["1.1.1.1".parse().unwrap()],
            ..Dns::default()
        };
        assert_eq!(
            String::from_utf8(servers_only.apply(host)).unwrap(),
            "# host\nsearch lan\noptions ndots:1\nnameserver 1.1.1.1\n"
        );
    }

    #[test]
    fn item52_a_step_with_its_own_network_gets_the_servers_behind_systemd_resolved() {
        let stub = b"nameserver 127.0.0.53\nsearch lan\n";
        let upstream = b"nameserver 10.0.0.1\nnameserver 127.0.0.1\n";
        let given = |own: &[u8], upstream: &[u8]| {
            String::from_utf8(for_own_network(own, upstream, &Dns::default())).unwrap()
        };
        assert_eq!(given(stub, upstream), "nameserver 10.0.0.1\n");
        assert_eq!(given(stub, b""), format!("search lan\n{PUBLIC_SERVERS}"));
        // Another server beside the stub: the file is the host's own choice.
        let two = b"nameserver 127.0.0.53\nnameserver 9.9.9.9\n";
        assert_eq!(given(two, upstream), "nameserver 9.9.9.9\n");
        assert_eq!(given(b"nameserver 127.0.0.1\n", upstream), PUBLIC_SERVERS);
    }

    #[test]
    fn item52_a_step_on_the_hosts_network_gets_the_hosts_file() {
        let stub = b"# systemd-resolved\nnameserver 127.0.0.53\noptions edns0\n";
        assert_eq!(Dns::default().apply(stub), stub, "a stub is reachable there");
        let own = std::fs::read(RESOLV_CONF).unwrap_or_default();
        let given = resolv_conf(true, &Dns::default()).unwrap();
        assert_eq!(given.trim_ascii_end(), own.trim_ascii_end());
    }

    #[test]
    fn servers_on_loopback_are_left_out_of_a_network_of_its_own() {
        let kept = without_loopback(b"search lan\nnameserver 127.0.0.53\nnameserver 9.9.9.9\noptions edns0");
        assert_eq!(
            String::from_utf8(kept).unwrap(),
            "search lan\nnameserver 9.9.9.9\noptions edns0\n"
        );
        let none = without_loopback(b"nameserver ::1\n");
        assert_eq!(String::from_utf8(none).unwrap(), PUBLIC_SERVERS);
    }
}
