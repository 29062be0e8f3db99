//! Which addresses are the internet's, and neither this home's nor nobody's.
//!
//! Sources: IANA's special-purpose registries for IPv4 and IPv6 (RFC 6890 and its successors).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// A home's own part of the IPv6 internet: providers hand out prefixes of 48 to 64 bits; within 56 all is taken as home.
const HOME_PREFIX_BITS: u32 = 56;

/// Whether strangers may have us connect to this address: it is public, and it is not this home's own.
pub(super) fn is_strangers(address: IpAddr) -> bool {
    is_public(address) && !own_source(address).is_some_and(|own| is_home(address, own))
}

/// Whether an address is on the public internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let reserved = match (a, b, c) {
        // This network, private, loopback, multicast and reserved.
        (0 | 10 | 127, ..) | (224.., ..) => true,
        // Carrier-grade NAT.
        (100, 64..=127, _) => true,
        // Link-local, where clouds keep their metadata.
        (169, 254, _) => true,
        // Private.
        (172, 16..=31, _) | (192, 168, _) => true,
        // Protocol assignments, documentation, 6to4 relays, benchmarks.
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => true,
        _ => false,
    };
    !reserved
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    match (a, b) {
        // NAT64 (RFC 6052): as good as the IPv4 address inside.
        (0x64, 0xff9b) => {
            let [g1, g2] = g.to_be_bytes();
            let [h1, h2] = h.to_be_bytes();
            (c, d, e, f) == (0, 0, 0, 0) && is_public_v4(Ipv4Addr::new(g1, g2, h1, h2))
        }
        // Teredo, benchmarks, ORCHID and documentation; 6to4, which carries an IPv4 address; documentation.
        (0x2001, 0..=0x1ff | 0xdb8) | (0x2002, _) => false,
        (0x3fff, 0..=0xfff) => false,
        // Global unicast. Mapped IPv4, local, link-local and multicast addresses are elsewhere.
        (0x2000..=0x3fff, _) => true,
        _ => false,
    }
}

/// From which of our addresses the system would reach it. Nothing is sent.
fn own_source(address: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((address, 9)).ok()?;
    socket.local_addr().ok().map(|own| own.ip())
}

/// Whether an address is this machine's own, or of the same home in the IPv6 internet.
fn is_home(address: IpAddr, own: IpAddr) -> bool {
    match (address, own) {
        (IpAddr::V6(there), IpAddr::V6(here)) => {
            (u128::from(there) ^ u128::from(here)) >> (128 - HOME_PREFIX_BITS) == 0
        }
        (there, here) => there == here,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_internet_is_public() {
        for private in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.9.9",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "64:ff9b::10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::808:808",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::",
            "2002:808:808::",
            "3fff::1",
            "100::1",
            "5f00::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860:4860::8888",
            "64:ff9b::8.8.8.8",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn this_machine_and_its_ipv6_neighbours_are_home() {
        let home = |there: &str, here: &str| is_home(there.parse().unwrap(), here.parse().unwrap());
        assert!(home("2a00:1:2:3400::5", "2a00:1:2:3400::9"));
        assert!(home("2a00:1:2:34ff::5", "2a00:1:2:3400::9"), "another network of the same home");
        assert!(!home("2a00:1:2:3500::5", "2a00:1:2:3400::9"));
        assert!(home("8.8.8.8", "8.8.8.8"));
        assert!(!home("8.8.8.9", "8.8.8.8"));
    }
}
