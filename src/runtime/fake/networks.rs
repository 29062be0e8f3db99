//! The fake engine's networks.

use std::net::Ipv4Addr;

use super::super::network::{ContainerNetwork, LeaseNetworkSpec, NetworkId, OwnedNetwork, free_subnet, search_start};
use super::super::{ContainerId, RuntimeError};
use super::{Call, FakeRuntime, World};
use crate::wire::NodeId;

pub(super) struct FakeNetwork {
    node_id: NodeId,
    pub(super) owned: OwnedNetwork,
}

impl FakeRuntime {
    pub(super) fn network(&self, spec: &LeaseNetworkSpec) -> Result<OwnedNetwork, RuntimeError> {
        spec.check()?;
        let mut world = self.enter(Call::EnsureNetwork)?;
        if let Some(found) = world.networks.values().find(|network| network.owned.lease_id == spec.lease_id) {
            return Ok(found.owned.clone());
        }
        if !world.verdict.is_isolated() {
            return Err(RuntimeError::IsolationNotShown { why: world.verdict.sentence() });
        }
        let taken: Vec<_> = world.networks.values().filter_map(|network| network.owned.subnet).collect();
        world.made += 1;
        let id = format!("fakenet{:04}", world.made);
        let owned = OwnedNetwork {
            id: NetworkId(id.clone()),
            lease_id: spec.lease_id,
            generation: spec.generation,
            reach: spec.reach,
            subnet: free_subnet(None, &taken, search_start(spec.lease_id)),
        };
        world.networks.insert(id, FakeNetwork { node_id: spec.node_id, owned: owned.clone() });
        drop(world);
        self.bump();
        Ok(owned)
    }

    pub(super) fn drop_network(&self, id: &NetworkId) -> Result<(), RuntimeError> {
        let mut world = self.enter(Call::RemoveNetwork)?;
        if world.containers.values().any(|container| is_on(&container.spec.network, id)) {
            let detail = "it has active endpoints".to_owned();
            return Err(RuntimeError::Engine { what: "remove a network", detail });
        }
        world.networks.remove(&id.0);
        drop(world);
        self.bump();
        Ok(())
    }
}

impl World {
    pub(super) fn networks_of(&self, node_id: NodeId) -> Vec<OwnedNetwork> {
        self.networks.values().filter(|network| network.node_id == node_id).map(|n| n.owned.clone()).collect()
    }

    /// A container can only be put on a network that is there.
    pub(super) fn check_network(&self, wanted: &ContainerNetwork) -> Result<(), RuntimeError> {
        match wanted {
            ContainerNetwork::Lease { network, .. } if !self.networks.contains_key(&network.0) => {
                let detail = format!("network {} not found", network.0);
                Err(RuntimeError::Engine { what: "create a container", detail })
            }
            ContainerNetwork::None | ContainerNetwork::Lease { .. } => Ok(()),
        }
    }

    /// An address of the container's network.
    pub(super) fn address_of(&mut self, id: &ContainerId) -> Result<Option<Ipv4Addr>, RuntimeError> {
        let ContainerNetwork::Lease { network, .. } = self.find(id)?.spec.network.clone() else { return Ok(None) };
        let subnet = self.networks.get(&network.0).and_then(|network| network.owned.subnet);
        Ok(subnet.map(|subnet| Ipv4Addr::from(u32::from(subnet.address()) + 2)))
    }
}

fn is_on(network: &ContainerNetwork, id: &NetworkId) -> bool {
    match network {
        ContainerNetwork::Lease { network, .. } => network == id,
        ContainerNetwork::None => false,
    }
}
