//! The ways out of leases that may reach some domains only: opened before their first container, taken up after a restart of the
//! agent, kept as they were set, closed with their network.
//!
//! Invariants
//! - Which network is kept to which domains stands on the network itself ([`LABEL_DOMAINS`]), so that no start of an agent forgets
//!   it; the owner's list of today narrows it further.
//! - The kernel's table is there before a container is on the network, and outlives the agent. Without the agent no name is
//!   found and what is open closes by itself.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::super::firewall::gate::Gate;
use super::super::firewall::{NetworkPolicy, NftError, nft};
use super::super::names::server::{NameServer, NameServerSpec};
use super::super::network::{NetworkId, Subnet};
use crate::wire::domain::DomainPattern;

/// The open ways, by bridge.
#[derive(Debug, Default)]
pub(super) struct Gates(HashMap<String, OpenGate>);

#[derive(Debug)]
struct OpenGate {
    server: NameServer,
    /// The table as the kernel listed it when it was set.
    listing: String,
    /// The engine's network; none for a probe's.
    network: Option<NetworkId>,
}

/// What a way out is opened for.
pub(super) struct GateSpec {
    pub(super) bridge: String,
    pub(super) subnet: Subnet,
    pub(super) domains: Vec<DomainPattern>,
    pub(super) network: Option<NetworkId>,
}

impl Gates {
    /// Opens a way unless it is open.
    ///
    /// # Errors
    /// Why it cannot be, for people.
    pub(super) async fn open(&mut self, spec: GateSpec, policy: &NetworkPolicy) -> Result<(), String> {
        if self.0.contains_key(&spec.bridge) {
            return Ok(());
        }
        let GateSpec { bridge, subnet, domains, network } = spec;
        let (address, resolvers) = (own_end(subnet), policy.resolvers.clone());
        let server = NameServer::open(NameServerSpec { bridge: bridge.clone(), address, subnet, domains, resolvers });
        let server = server.await.map_err(|error| {
            format!(
                "a name server for jobs cannot listen on {address}, so they cannot be kept to some domains ({error})"
            )
        })?;
        let listing = set(server.gate(), &[]).await.map_err(|error| error.to_string())?;
        nft::apply(&server.gate().door()).await.map_err(|error| error.to_string())?;
        self.0.insert(bridge, OpenGate { server, listing, network });
        Ok(())
    }

    /// Where containers on a network ask for names; none when it is kept to no domains.
    pub(super) fn resolver(&self, network: &NetworkId) -> Option<Ipv4Addr> {
        let gate = self.0.values().find(|gate| gate.network.as_ref() == Some(network))?;
        Some(gate.server.gate().address)
    }

    /// The lines that let containers reach the name servers, for a table that is set anew.
    pub(super) fn doors(&self) -> String {
        self.0.values().map(|gate| gate.server.gate().door()).collect()
    }

    /// Sets right what somebody changed.
    pub(super) async fn keep(&mut self) -> Result<(), NftError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let doors = nft::doors().await?;
        for open in self.0.values_mut() {
            let gate = open.server.gate();
            if nft::gate_listing(&gate.bridge).await?.as_ref() != Some(&open.listing) {
                tracing::warn!(bridge = gate.bridge, "the rules of a lease were changed; they are set again");
                open.listing = set(gate, &open.server.in_use()).await?;
            }
            if !doors.contains(&format!("{} . {}", gate.address, gate.port)) {
                nft::apply(&gate.door()).await?;
            }
        }
        Ok(())
    }

    /// Forgets the way out of a network, or those of probes; [`sweep`] takes away what the kernel has of them.
    pub(super) async fn close(&mut self, network: Option<&NetworkId>) {
        let mut closed = Vec::new();
        self.0.retain(|_, open| {
            let stays = open.network.as_ref() != network;
            closed.extend((!stays).then(|| open.server.gate().clone()));
            stays
        });
        for gate in closed {
            // Gone already where the table was.
            let _ = nft::apply(&gate.shutting()).await;
        }
    }
}

/// Takes away the tables of bridges that are gone.
pub(super) async fn sweep() {
    let Ok(tables) = nft::gates().await else { return };
    for (bridge, _) in tables.into_iter().filter(|(_, is_there)| !is_there) {
        if let Err(error) = nft::apply(&Gate::removal(&bridge)).await {
            tracing::debug!(%error, bridge, "the rules of a lease that is over stay");
        }
    }
}

/// Sets a table and answers with the kernel's listing of it.
async fn set(gate: &Gate, open: &[Ipv4Addr]) -> Result<String, NftError> {
    let listed = async |script: String| {
        nft::apply(&script).await?;
        let listing = nft::gate_listing(&gate.bridge).await?;
        listing.ok_or_else(|| NftError::Failed { detail: "the rules vanished at once".to_owned() })
    };
    match listed(gate.script(open)).await {
        // One that somebody made otherwise cannot be set right; it is replaced.
        Err(NftError::Failed { .. }) => listed(format!("{}{}", Gate::removal(&gate.bridge), gate.script(open))).await,
        other => other,
    }
}

/// A bridge's own end: the first address of its network.
pub(super) fn own_end(subnet: Subnet) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.address()).saturating_add(1))
}

/// A list as a label holds it.
pub(super) fn label_of(domains: &[DomainPattern]) -> String {
    domains.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// A label's list, as far as the owner lends it today.
pub(super) fn list_of(label: &str, lent: &[DomainPattern]) -> Vec<DomainPattern> {
    let domains = label.split(',').filter_map(|domain| domain.parse::<DomainPattern>().ok());
    domains.filter(|domain| lent.is_empty() || lent.iter().any(|lent| lent.covers(domain))).collect()
}
