//! The wall between jobs' networks and the owner's home: one nftables table of our own, and the proof that it holds.
//!
//! - [`rules`] writes the table, [`surroundings`] is what it is written from, [`nft`] hands it to the kernel.
//! - [`gate`] writes the table of a lease that may reach some domains only.
//! - [`proof`] decides, from what a probe container reached, whether jobs may have a network.
//!
//! Invariants
//! - The table is called `inet fizz` and speaks only of interfaces named `fz-…`; a lease that is kept to some domains has one
//!   more, `ip fz-…`, called like its bridge. No other table is read, changed or removed.
//! - The rules only ever forbid. What they let pass still has to pass the engine's and the owner's own rules.
//! - They hold without us: they stay when the agent, the engine or other firewalls restart, until `fizz firewall remove`, or
//!   the end of an agent that leaves no network behind.
//! - Nobody is believed: a network is lent only after a probe container on one like it reached nothing of this home, while the
//!   same probe on a network without the rules showed that it would have.

pub mod gate;
pub mod proof;
pub mod rules;
pub mod surroundings;

#[cfg_attr(target_os = "linux", path = "firewall/linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "firewall/os.rs")]
pub mod nft;

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::network::Subnet;
use crate::config::NetworkConfig;
use crate::wire::domain::DomainPattern;

/// What the owner allows jobs to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Whether jobs may reach the internet at all.
    pub internet: bool,
    /// Name servers that jobs may ask.
    pub resolvers: Vec<Ipv4Addr>,
    /// Only these domains; everything public when empty.
    pub domains: Vec<DomainPattern>,
    /// Most bytes per second a lease may receive.
    pub download_per_second: Option<u64>,
    /// Most bytes per second a lease may send.
    pub upload_per_second: Option<u64>,
    /// Where leases' addresses come from; found when absent.
    pub pool: Option<Subnet>,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self {
            internet: true,
            resolvers: vec![Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(1, 1, 1, 1)],
            domains: Vec::new(),
            download_per_second: None,
            upload_per_second: None,
            pool: None,
        }
    }
}

impl From<&NetworkConfig> for NetworkPolicy {
    /// The owner's configuration.
    fn from(config: &NetworkConfig) -> Self {
        Self {
            internet: config.internet,
            resolvers: config.resolvers.clone(),
            domains: config.domains.clone(),
            download_per_second: config.download_per_second.map(|size| size.0),
            upload_per_second: config.upload_per_second.map(|size| size.0),
            pool: config.pool.map(|pool| Subnet::new(pool.address(), pool.prefix())),
        }
    }
}

/// Whether it was shown that jobs on a network cannot reach this home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// A probe reached nothing, and a control showed that it could have.
    Isolated,
    /// A probe reached what it must not.
    Reaches {
        /// What, for people.
        what: Vec<String>,
    },
    /// It could not be shown either way.
    NotShown {
        /// What is missing and what to do about it.
        why: String,
    },
}

impl Verdict {
    /// Whether jobs may have such a network.
    #[must_use]
    pub const fn is_isolated(&self) -> bool {
        match self {
            Self::Isolated => true,
            Self::Reaches { .. } | Self::NotShown { .. } => false,
        }
    }

    /// The verdict as a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Isolated => "jobs were shown not to reach this home".to_owned(),
            Self::Reaches { what } => format!("a probe reached {}", what.join(", ")),
            Self::NotShown { why } => why.clone(),
        }
    }
}

/// Why the kernel did not get or tell the rules.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NftError {
    /// There is no `nft`.
    #[error("nftables is not installed; install it: `sudo apt-get install nftables`")]
    Missing,
    /// This system has no nftables.
    #[error("this system has no nftables, so jobs' networks rely on what its engine does by itself")]
    NoSuchSystem,
    /// The agent may not.
    #[error(
        "no permission to set firewall rules; let the agent do that and nothing more: \
         `sudo setcap cap_net_admin+ep $(command -v fizz)`, or start it with the capability CAP_NET_ADMIN"
    )]
    NotPermitted,
    /// It took too long.
    #[error("nft did not answer within {seconds} s")]
    TimedOut {
        /// The deadline.
        seconds: u64,
    },
    /// Anything else.
    #[error("nft failed: {detail}")]
    Failed {
        /// Its words.
        detail: String,
    },
}

#[cfg(test)]
mod tests;
