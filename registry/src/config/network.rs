//! Hosts as addresses: which are this machine, which are in a network of `insecure-registries`, and which no image
//! may come from. Refuses to resolve names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Reads `10.0.0.0/8`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let bits: u32 = bits.parse().ok()?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        (bits <= max).then_some(Self { address, bits })
    }

    /// Whether `host` (an address with or without port) is in the network.
    pub(super) fn contains_host(&self, host: &str) -> bool {
        let same = |a: u128, b: u128, width: u32| self.bits == 0 || (a ^ b) >> (width - self.bits) == 0;
        match (self.address, address_of(host)) {
            (IpAddr::V4(net), Some(IpAddr::V4(host))) => {
                same(u32::from(net).into(), u32::from(host).into(), 32)
            }
            (IpAddr::V6(net), Some(IpAddr::V6(host))) => same(net.into(), host.into(), 128),
            _ => false,
        }
    }
}

/// Whether `host` (with or without port) is written as an address of this machine or as `localhost`.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    let name = without_port(host);
    name.eq_ignore_ascii_case("localhost") || address_of(host).is_some_and(is_loopback)
}

/// Whether this is an address of this machine; `0.0.0.0` and `::` connect there too.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || address.is_unspecified()
}

/// Whether this is a link-local address: the metadata services of clouds answer there.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == METADATA_V6,
    }
}

/// The metadata service of one large cloud in IPv6, which is not in the link-local range.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254);

fn without_port(host: &str) -> &str {
    match host.rfind(']') {
        Some(end) => &host[..=end],
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

fn address_of(host: &str) -> Option<IpAddr> {
    let name = without_port(host);
    match name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_this_machine() {
        for host in [
            "localhost",
            "LocalHost:5000",
            "127.0.0.1",
            "127.9.8.7:1",
            "[::1]:5000",
            "[::ffff:127.0.0.1]",
            "0.0.0.0:5",
        ] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "localhost.example",
            "128.0.0.1",
            "[::2]",
            "127.0.0.1.example:80",
            "example",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn networks_contain_addresses() {
        let ten = Network::parse("10.1.0.0/16").expect("network");
        assert!(
            ten.contains_host("10.1.2.3:5000") && !ten.contains_host("10.2.0.0") && !ten.contains_host("x")
        );
        assert!(
            Network::parse("0.0.0.0/0")
                .expect("network")
                .contains_host("9.9.9.9")
        );
        assert!(
            Network::parse("fd00::/8")
                .expect("network")
                .contains_host("[fdff::1]:5000")
        );
        assert!(Network::parse("10.0.0.0/33").is_none() && Network::parse("x/8").is_none());
    }

    #[test]
    fn row36_metadata_addresses_are_known() {
        for text in [
            "169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
        ] {
            assert!(is_link_local(text.parse().expect(text)), "{text}");
        }
        for text in ["169.253.1.1", "10.0.0.1", "fd00::1", "127.0.0.1"] {
            assert!(!is_link_local(text.parse().expect(text)), "{text}");
        }
    }
}
