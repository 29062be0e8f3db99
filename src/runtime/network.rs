//! Networks of leases: what is asked for, what there is, and which addresses they get. Pure.
//!
//! Invariants
//! - A lease has at most one network. Its bridge is called `fz-…` ([`bridge_name`]), so that one static set of firewall rules
//!   covers every one of them.
//! - A network's addresses overlap no route of this machine and no other network of the engine.
//! - A network reaches the internet only when it was asked for as such, and then only past the firewall's rules.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::RuntimeError;
use crate::wire::domain::{DOMAINS_MAX, DomainPattern, in_words, within};
use crate::wire::job::{HealthTest, Reach, ServiceSpec};
use crate::wire::lease::Assignment;
use crate::wire::{LeaseId, NodeId};

/// What the names of all our bridges begin with; the firewall's rules are about these and no others.
pub const BRIDGE_PREFIX: &str = "fz-";

/// The engine's identifier of a network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NetworkId(pub String);

/// A network to be made for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseNetworkSpec {
    /// Whose network it is.
    pub node_id: NodeId,
    /// For which lease.
    pub lease_id: LeaseId,
    /// Generation label.
    pub generation: u64,
    /// How far it reaches. [`Reach::None`]: the lease's own containers and this machine's agent, which checks their health.
    pub reach: Reach,
    /// With [`Reach::Internet`]: only these domains, as the job wrote them; what the owner lends when empty.
    pub domains: Vec<String>,
}

impl LeaseNetworkSpec {
    /// The network a lease needs; `None` when its one container needs none. Several containers find each other on one, and
    /// the agent reaches a container over it to see whether it answers.
    #[must_use]
    pub fn of(node_id: NodeId, assignment: &Assignment) -> Option<Self> {
        let job = &assignment.spec;
        let is_tried = |service: &ServiceSpec| matches!(&service.health, Some(health) if matches!(health.test, HealthTest::Http { .. } | HealthTest::Tcp { .. }));
        let needed = job.network.reach != Reach::None || job.services.len() > 1 || job.services.iter().any(is_tried);
        needed.then(|| Self {
            node_id,
            lease_id: assignment.lease_id,
            generation: assignment.generation.0,
            reach: job.network.reach,
            domains: job.network.domains.clone(),
        })
    }

    /// Which domains it is kept to where the owner lends these; to none when the list is empty.
    ///
    /// # Errors
    /// [`RuntimeError::OwnerRefuses`], or [`RuntimeError::InvalidSpec`] where the job names something that is no domain.
    pub(super) fn kept_to(&self, lent: &[DomainPattern]) -> Result<Vec<DomainPattern>, RuntimeError> {
        if self.reach != Reach::Internet {
            return Ok(Vec::new());
        }
        let asked: Result<Vec<DomainPattern>, String> = self.domains.iter().map(|domain| domain.parse()).collect();
        let asked = asked.map_err(|detail| RuntimeError::InvalidSpec { detail })?;
        if asked.len() > DOMAINS_MAX {
            let detail = format!("the job names {} domains, at most {DOMAINS_MAX} are allowed", asked.len());
            return Err(RuntimeError::InvalidSpec { detail });
        }
        within(&asked, lent).map_err(|beyond| RuntimeError::OwnerRefuses {
            detail: format!("the job asks for {beyond}, and this node's owner lends {} only", in_words(lent)),
        })
    }

    /// Refuses a reach that this build does not know.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidSpec`].
    pub(super) fn check(&self) -> Result<(), RuntimeError> {
        match self.reach {
            Reach::None | Reach::Internet => Ok(()),
            Reach::Unknown => Err(RuntimeError::InvalidSpec {
                detail: "the job asks for a network reach that this version of fizz does not know".to_owned(),
            }),
        }
    }
}

/// A network of ours as the engine reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedNetwork {
    /// The network.
    pub id: NetworkId,
    /// Its lease.
    pub lease_id: LeaseId,
    /// Its generation label.
    pub generation: u64,
    /// How far it reaches.
    pub reach: Reach,
    /// Its addresses, where the engine says them.
    pub subnet: Option<Subnet>,
}

/// Which network a container is on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ContainerNetwork {
    /// None: not even a loopback that leads anywhere.
    #[default]
    None,
    /// Its lease's.
    Lease {
        /// From [`OwnedNetwork::id`].
        network: NetworkId,
        /// The names by which the lease's other containers find it.
        aliases: Vec<String>,
    },
}

/// The name of the bridge of a lease's network: 14 characters, of the 15 that an interface may have.
#[must_use]
pub fn bridge_name(lease_id: LeaseId) -> String {
    // The end of the identifier is random; its beginning is the time, which two leases may share.
    let hex = lease_id.as_uuid().simple().to_string();
    format!("{BRIDGE_PREFIX}{}", hex.get(hex.len().saturating_sub(11)..).unwrap_or(&hex))
}

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    address: u32,
    prefix: u8,
}

impl Subnet {
    /// The network of `prefix` bits that holds `address`; the whole of IPv4 when `prefix` is past 32.
    #[must_use]
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = if prefix > 32 { 0 } else { prefix };
        Self { address: u32::from(address) & mask(prefix), prefix }
    }

    /// Its first address.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        self.address.into()
    }

    /// Bits that all its addresses share.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let shared = mask(self.prefix.min(other.prefix));
        self.address & shared == other.address & shared
    }

    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.address
    }

    /// How many networks of `prefix` bits it holds; none when they are larger than it.
    #[must_use]
    pub fn count(self, prefix: u8) -> u32 {
        prefix
            .checked_sub(self.prefix)
            .filter(|_| prefix <= 32)
            .map_or(0, |bits| 1_u32.checked_shl(bits.into()).unwrap_or(0))
    }

    /// Its network number `index` of `prefix` bits.
    fn part(self, index: u32, prefix: u8) -> Self {
        let step = 1_u32.checked_shl(u32::from(32 - prefix.min(32))).unwrap_or(0);
        Self { address: self.address.wrapping_add(index.wrapping_mul(step)), prefix }
    }
}

const fn mask(prefix: u8) -> u32 {
    match prefix {
        0 => 0,
        1..=31 => !(u32::MAX >> prefix),
        _ => u32::MAX,
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            let (address, prefix): (Ipv4Addr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
            (prefix <= 32).then_some((address, prefix))
        });
        let (address, prefix) = parsed.ok_or_else(|| format!("'{text}' must be an IPv4 network like 10.219.0.0/16"))?;
        let network = Self::new(address, prefix);
        if network.address() == address {
            Ok(network)
        } else {
            Err(format!("'{text}' has bits beyond its prefix; write {network}"))
        }
    }
}

/// Sixteen addresses: the bridge, up to eight containers, and room.
const LEASE_PREFIX: u8 = 28;

/// Where addresses are looked for unless the owner names a pool: private networks that homes, offices and engines seldom use.
const POOLS: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::new(10, 219, 0, 0), 16),
    (Ipv4Addr::new(172, 29, 0, 0), 16),
    (Ipv4Addr::new(192, 168, 219, 0), 24),
    (Ipv4Addr::new(10, 83, 0, 0), 16),
];

/// A free network for a lease out of `pool`, or out of the usual ones; `None` when all of it is taken. `start` is where the
/// search begins, so that networks made at the same moment rarely want the same one.
#[must_use]
pub fn free_subnet(pool: Option<Subnet>, taken: &[Subnet], start: u32) -> Option<Subnet> {
    let usual = || POOLS.iter().map(|&(address, prefix)| Subnet::new(address, prefix)).collect();
    let pools: Vec<Subnet> = pool.map_or_else(usual, |pool| vec![pool]);
    pools.into_iter().find_map(|pool| {
        let count = pool.count(LEASE_PREFIX);
        let parts = (0..count).map(|index| pool.part(index.wrapping_add(start) % count, LEASE_PREFIX));
        parts.into_iter().find(|part| !taken.iter().any(|taken| taken.overlaps(*part)))
    })
}

/// Where [`free_subnet`] begins for a lease.
#[must_use]
pub fn search_start(lease_id: LeaseId) -> u32 {
    let bytes = lease_id.as_uuid().as_bytes();
    bytes.iter().rev().take(3).fold(0, |start, &byte| start << 8 | u32::from(byte))
}

#[cfg(test)]
mod tests;
