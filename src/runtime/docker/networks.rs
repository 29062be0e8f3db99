//! Networks of leases: how they are made, found and removed.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use bollard::models::{EndpointSettings, Ipam, IpamConfig, Network, NetworkCreateRequest, NetworkingConfig};
use bollard::query_parameters::ListNetworksOptionsBuilder;

use super::super::network::{
    ContainerNetwork, LeaseNetworkSpec, NetworkId, OwnedNetwork, Subnet, bridge_name, free_subnet, routes, search_start,
};
use super::super::{ContainerId, LABEL_GENERATION, LABEL_LEASE, LABEL_NODE, RuntimeError};
use super::{CALL_DEADLINE, DockerRuntime, START_DEADLINE};
use crate::wire::job::Reach;
use crate::wire::{LeaseId, NodeId};

/// So many free addresses are tried when others take them at the same moment.
const ATTEMPTS_MAX: u32 = 8;
const MAKE: &str = "make a network";

impl DockerRuntime {
    /// Makes the lease's network or finds it.
    pub(super) async fn network(&self, spec: &LeaseNetworkSpec) -> Result<OwnedNetwork, RuntimeError> {
        spec.check()?;
        let mut refused = String::new();
        for attempt in 0..ATTEMPTS_MAX {
            if let Some(found) = self.network_of(spec.node_id, spec.lease_id).await? {
                return Ok(found);
            }
            let start = search_start(spec.lease_id).wrapping_add(attempt);
            let subnet = self.choose_subnet(start).await?;
            let made = self.docker.create_network(request(spec, subnet));
            match self.call(MAKE, START_DEADLINE, made).await {
                Ok(made) => {
                    let (id, subnet) = (NetworkId(made.id), Some(subnet));
                    let LeaseNetworkSpec { lease_id, generation, reach, .. } = *spec;
                    return Ok(OwnedNetwork { id, lease_id, generation, reach, subnet });
                }
                // Taken between looking and making; or made by a call of an agent that was killed since.
                Err(RuntimeError::Engine { detail, .. }) if is_taken(&detail) => refused = detail,
                Err(error) => return Err(error),
            }
        }
        Err(RuntimeError::Engine { what: MAKE, detail: refused })
    }

    async fn choose_subnet(&self, start: u32) -> Result<Subnet, RuntimeError> {
        let mut taken = routes();
        taken.extend(self.all_networks(None).await?.iter().flat_map(subnets));
        free_subnet(None, &taken, start).ok_or_else(|| RuntimeError::Engine {
            what: MAKE,
            detail: "every address of the pool is taken; name another in fizz.toml: [network] pool".to_owned(),
        })
    }

    async fn network_of(&self, node_id: NodeId, lease_id: LeaseId) -> Result<Option<OwnedNetwork>, RuntimeError> {
        Ok(self.owned_networks(node_id).await?.into_iter().find(|network| network.lease_id == lease_id))
    }

    /// Networks with this node's label.
    pub(super) async fn owned_networks(&self, node_id: NodeId) -> Result<Vec<OwnedNetwork>, RuntimeError> {
        let found = self.all_networks(Some(format!("{LABEL_NODE}={node_id}"))).await?;
        Ok(found.iter().filter_map(owned).collect())
    }

    async fn all_networks(&self, label: Option<String>) -> Result<Vec<Network>, RuntimeError> {
        let filters: HashMap<String, Vec<String>> =
            label.into_iter().map(|label| ("label".to_owned(), vec![label])).collect();
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        self.call("list networks", CALL_DEADLINE, self.docker.list_networks(Some(options))).await
    }

    pub(super) async fn drop_network(&self, id: &NetworkId) -> Result<(), RuntimeError> {
        let removed = self.docker.remove_network(&id.0);
        match self.call("remove a network", START_DEADLINE, removed).await {
            Err(RuntimeError::Engine { detail, .. })
                if detail.contains("not found") || detail.contains("o such network") =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// The container's address on its lease's network.
    pub(super) async fn address_of(&self, id: &ContainerId) -> Result<Option<Ipv4Addr>, RuntimeError> {
        let look = self.docker.inspect_container(&id.0, None);
        let found = self.call("look at a container", CALL_DEADLINE, look).await?;
        let networks = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        Ok(networks.into_values().find_map(|endpoint| endpoint.ip_address?.parse().ok()))
    }
}

/// How a container is put on its network: the mode for its host configuration, and the endpoint.
pub(super) fn attachment(network: &ContainerNetwork) -> (String, Option<NetworkingConfig>) {
    match network {
        ContainerNetwork::None => ("none".to_owned(), None),
        ContainerNetwork::Lease { network, aliases } => {
            let endpoint = EndpointSettings { aliases: Some(aliases.clone()), ..EndpointSettings::default() };
            let endpoints = HashMap::from([(network.0.clone(), endpoint)]);
            (network.0.clone(), Some(NetworkingConfig { endpoints_config: Some(endpoints) }))
        }
    }
}

fn request(spec: &LeaseNetworkSpec, subnet: Subnet) -> NetworkCreateRequest {
    let labels = HashMap::from([
        (LABEL_NODE.to_owned(), spec.node_id.to_string()),
        (LABEL_LEASE.to_owned(), spec.lease_id.to_string()),
        (LABEL_GENERATION.to_owned(), spec.generation.to_string()),
    ]);
    let options = HashMap::from([("com.docker.network.bridge.name".to_owned(), bridge_name(spec.lease_id))]);
    let config = IpamConfig { subnet: Some(subnet.to_string()), ..IpamConfig::default() };
    NetworkCreateRequest {
        name: format!("fizz-{}", spec.lease_id),
        driver: Some("bridge".to_owned()),
        internal: Some(spec.reach != Reach::Internet),
        attachable: Some(false),
        enable_ipv6: Some(false),
        ipam: Some(Ipam { config: Some(vec![config]), ..Ipam::default() }),
        options: Some(options),
        labels: Some(labels),
        ..NetworkCreateRequest::default()
    }
}

fn is_taken(detail: &str) -> bool {
    ["overlap", "already exists", "same bridge name", "already in use"].iter().any(|words| detail.contains(words))
}

fn subnets(network: &Network) -> Vec<Subnet> {
    let configs = network.ipam.iter().flat_map(|ipam| ipam.config.iter().flatten());
    configs.filter_map(|config| config.subnet.as_ref()?.parse().ok()).collect()
}

fn owned(network: &Network) -> Option<OwnedNetwork> {
    let labels = network.labels.as_ref()?;
    Some(OwnedNetwork {
        id: NetworkId(network.id.clone()?),
        lease_id: labels.get(LABEL_LEASE)?.parse().ok()?,
        generation: labels.get(LABEL_GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0),
        reach: if network.internal == Some(false) { Reach::Internet } else { Reach::None },
        subnet: subnets(network).first().copied(),
    })
}
