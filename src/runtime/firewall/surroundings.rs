//! What is around a job's bridge: this machine's addresses, its wires and its ways out. Parsing is pure; [`Surroundings::read`]
//! looks.
//!
//! Interfaces of ours are left out: they come and go with jobs, and the rules are about them anyway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use super::nft;
use crate::runtime::network::{BRIDGE_PREFIX, Subnet};

/// What the names of bridges begin with that probes use as their control; the rules are not about these.
pub const CONTROL_PREFIX: &str = "fzc";

/// This machine as its network sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Its own addresses, loopback and link-local ones left out.
    pub addresses: Vec<IpAddr>,
    /// Networks it routes to other than by default: wires, tunnels, other bridges.
    pub on_link: Vec<Subnet>,
    /// Its default routes.
    pub upstreams: Vec<Upstream>,
}

/// A way out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Upstream {
    /// Interface.
    pub interface: String,
    /// Next hop; none on a line that has only another end.
    pub gateway: Option<Ipv4Addr>,
}

/// The kernel's tables as text; empty where there is none.
#[derive(Debug, Clone, Default)]
pub struct KernelTables {
    /// `/proc/net/route`.
    pub route: String,
    /// `/proc/net/fib_trie`.
    pub fib_trie: String,
    /// `/proc/net/if_inet6`.
    pub if_inet6: String,
}

impl Surroundings {
    /// Looks.
    #[must_use]
    pub fn read() -> Self {
        let mut around = Self::parse(&nft::kernel_tables());
        // Where the kernel has no such tables, at least the address that others see.
        if let Some(address) = outward_address()
            && !around.addresses.contains(&address)
        {
            around.addresses.push(address);
        }
        around
    }

    /// Reads the kernel's tables.
    #[must_use]
    pub fn parse(tables: &KernelTables) -> Self {
        let routes: Vec<Route> = tables.route.lines().skip(1).filter_map(route).collect();
        let ours: Vec<Subnet> = routes.iter().filter(|route| is_ours(&route.interface)).map(|route| route.to).collect();
        let mut around = Self::default();
        for route in routes.iter().filter(|route| !is_ours(&route.interface)) {
            // Tunnels halve the default route to win over it.
            if route.to.prefix() <= 1 {
                around.upstreams.push(Upstream { interface: route.interface.clone(), gateway: route.gateway });
            } else {
                around.on_link.push(route.to);
            }
        }
        let v4 = local_addresses(&tables.fib_trie).filter(|address| {
            !address.is_loopback() && !address.is_link_local() && !ours.iter().any(|net| net.contains(*address))
        });
        around.addresses.extend(v4.map(IpAddr::V4));
        around.addresses.extend(tables.if_inet6.lines().filter_map(address6).map(IpAddr::V6));
        around.addresses.sort_unstable();
        around.addresses.dedup();
        around.on_link.sort_unstable();
        around.on_link.dedup();
        around.upstreams.sort_unstable();
        around.upstreams.dedup();
        around
    }
}

/// Every network that this machine routes to other than by default, also over interfaces of ours.
#[must_use]
pub fn routed() -> Vec<Subnet> {
    let tables = nft::kernel_tables();
    tables.route.lines().skip(1).filter_map(route).map(|route| route.to).filter(|to| to.prefix() > 0).collect()
}

fn is_ours(interface: &str) -> bool {
    interface.starts_with(BRIDGE_PREFIX) || interface.starts_with(CONTROL_PREFIX)
}

struct Route {
    interface: String,
    to: Subnet,
    gateway: Option<Ipv4Addr>,
}

/// A line `interface destination gateway flags … mask …`, numbers in the machine's own byte order.
fn route(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |index: usize| u32::from_str_radix(fields.get(index)?, 16).ok();
    let address = |index| number(index).map(|number| Ipv4Addr::from(number.to_ne_bytes()));
    let prefix = u8::try_from(number(7)?.count_ones()).ok()?;
    Some(Route {
        interface: (*fields.first()?).to_owned(),
        to: Subnet::new(address(1)?, prefix),
        gateway: address(2).filter(|gateway| !gateway.is_unspecified()),
    })
}

/// Addresses that are followed by a line `/32 host LOCAL`.
fn local_addresses(fib_trie: &str) -> impl Iterator<Item = Ipv4Addr> {
    let mut last = None;
    fib_trie.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
            return None;
        }
        (line == "/32 host LOCAL").then_some(last).flatten()
    })
}

/// A line `address index prefix scope flags interface`.
fn address6(line: &str) -> Option<Ipv6Addr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let address = Ipv6Addr::from(u128::from_str_radix(fields.first()?, 16).ok()?);
    let counts = !is_ours(fields.get(5)?) && !address.is_loopback() && !address.is_unicast_link_local();
    counts.then_some(address)
}

/// The address from which this machine would speak to the internet. Nothing is sent.
fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(9, 9, 9, 9), 53)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_unspecified())
}
