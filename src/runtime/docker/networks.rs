//! Networks of leases: how they are made, found and removed.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, Ipam, IpamConfig, Network, NetworkCreateRequest,
    NetworkingConfig,
};
use bollard::query_parameters::ListNetworksOptionsBuilder;

use super::super::firewall::surroundings::routed;
use super::super::network::{
    ContainerNetwork, LeaseNetworkSpec, NetworkId, OwnedNetwork, Subnet, bridge_name, free_subnet, search_start,
};
use super::super::{ContainerId, LABEL_DOMAINS, LABEL_GENERATION, LABEL_LEASE, LABEL_NODE, RuntimeError};
use super::gates::{self, GateSpec};
use super::{CALL_DEADLINE, DockerRuntime, START_DEADLINE};
use crate::wire::domain::DomainPattern;
use crate::wire::job::Reach;
use crate::wire::{LeaseId, NodeId};

/// So many free addresses are tried when others take them at the same moment.
const ATTEMPTS_MAX: u32 = 8;
const MAKE: &str = "make a network";
const NO_ADDRESSES: &str = "every address of the pool is taken; name another one in fizz.toml: [network] pool";

/// A network to be made, whoever it is for.
pub(super) struct NetworkRequest {
    pub(super) name: String,
    pub(super) bridge: String,
    /// Without a way out.
    pub(super) internal: bool,
    pub(super) labels: HashMap<String, String>,
    pub(super) pool: Option<Subnet>,
    /// Where the search for free addresses begins.
    pub(super) start: u32,
}

impl DockerRuntime {
    /// Makes the lease's network or finds it.
    pub(super) async fn network(&self, spec: &LeaseNetworkSpec) -> Result<OwnedNetwork, RuntimeError> {
        spec.check()?;
        if let Some(found) = self.network_of(spec.node_id, spec.lease_id).await? {
            return Ok(found);
        }
        let domains = spec.kept_to(&self.guard.policy.domains)?;
        let verdict = if domains.is_empty() {
            self.verdict(spec.node_id, spec.reach, true).await
        } else {
            self.verdict_on_domains(spec.node_id, true).await
        };
        if !verdict.is_isolated() {
            return Err(RuntimeError::IsolationNotShown { why: verdict.sentence() });
        }
        let request = NetworkRequest {
            name: format!("fizz-{}", spec.lease_id),
            bridge: bridge_name(spec.lease_id),
            internal: spec.reach != Reach::Internet,
            labels: labels(spec, &domains),
            pool: self.guard.policy.pool,
            start: search_start(spec.lease_id),
        };
        match self.make_network(&request).await {
            Ok((id, subnet)) => {
                let LeaseNetworkSpec { lease_id, generation, reach, .. } = *spec;
                self.guard.seen(&id);
                if !domains.is_empty() {
                    self.open_gate(&id, request.bridge, subnet, domains).await?;
                }
                Ok(OwnedNetwork { id, lease_id, generation, reach, subnet: Some(subnet) })
            }
            // Made by a call of an agent that was killed since.
            Err(error) => self.network_of(spec.node_id, spec.lease_id).await?.ok_or(error),
        }
    }

    /// Opens the way out of a network that is kept to some domains, or removes the network.
    async fn open_gate(
        &self,
        id: &NetworkId,
        bridge: String,
        subnet: Subnet,
        domains: Vec<DomainPattern>,
    ) -> Result<(), RuntimeError> {
        let spec = GateSpec { bridge, subnet, domains, network: Some(id.clone()) };
        let opened = self.guard.gates.lock().await.open(spec, &self.guard.policy).await;
        if let Err(why) = opened {
            self.drop_network(id).await?;
            return Err(RuntimeError::IsolationNotShown { why });
        }
        Ok(())
    }

    /// Takes up what an earlier agent left of a network: it is watched, and its way out opened.
    async fn take_up(&self, network: &Network, owned: &OwnedNetwork) {
        self.guard.seen(&owned.id);
        let label = network.labels.as_ref().and_then(|labels| labels.get(LABEL_DOMAINS));
        let (Some(label), Some(subnet)) = (label, owned.subnet) else { return };
        let mut gates = self.guard.gates.lock().await;
        if gates.resolver(&owned.id).is_some() {
            return;
        }
        let domains = gates::list_of(label, &self.guard.policy.domains);
        let bridge = bridge_name(owned.lease_id);
        let spec = GateSpec { bridge, subnet, domains, network: Some(owned.id.clone()) };
        if let Err(why) = gates.open(spec, &self.guard.policy).await {
            tracing::warn!(why, lease_id = %owned.lease_id, "a job finds no names for now");
        }
    }

    /// Where containers on a network ask for names.
    pub(super) async fn resolvers(&self, network: &ContainerNetwork) -> Vec<Ipv4Addr> {
        let own = match network {
            ContainerNetwork::None => None,
            ContainerNetwork::Lease { network, .. } => self.guard.gates.lock().await.resolver(network),
        };
        own.map_or_else(|| self.guard.policy.resolvers.clone(), |own| vec![own])
    }

    /// Makes a network with addresses that nobody has.
    pub(super) async fn make_network(&self, request: &NetworkRequest) -> Result<(NetworkId, Subnet), RuntimeError> {
        let mut refused = String::new();
        for attempt in 0..ATTEMPTS_MAX {
            let mut taken = routed();
            taken.extend(self.all_networks(&[]).await?.iter().flat_map(subnets));
            let free = free_subnet(request.pool, &taken, request.start.wrapping_add(attempt));
            let subnet = free.ok_or_else(|| RuntimeError::Engine { what: MAKE, detail: NO_ADDRESSES.to_owned() })?;
            match self.call(MAKE, START_DEADLINE, self.docker.create_network(body(request, subnet))).await {
                Ok(made) => return Ok((NetworkId(made.id), subnet)),
                // Taken between looking and making.
                Err(RuntimeError::Engine { detail, .. }) if is_taken(&detail) => refused = detail,
                Err(error) => return Err(error),
            }
        }
        Err(RuntimeError::Engine { what: MAKE, detail: refused })
    }

    /// Networks with all of these labels.
    pub(super) async fn labelled_networks(&self, labels: &[&str]) -> Result<Vec<NetworkId>, RuntimeError> {
        Ok(self.all_networks(labels).await?.into_iter().filter_map(|network| network.id.map(NetworkId)).collect())
    }

    async fn network_of(&self, node_id: NodeId, lease_id: LeaseId) -> Result<Option<OwnedNetwork>, RuntimeError> {
        Ok(self.owned_networks(node_id).await?.into_iter().find(|network| network.lease_id == lease_id))
    }

    /// Networks with this node's label.
    pub(super) async fn owned_networks(&self, node_id: NodeId) -> Result<Vec<OwnedNetwork>, RuntimeError> {
        let found = self.all_networks(&[&format!("{LABEL_NODE}={node_id}")]).await?;
        let found: Vec<(&Network, OwnedNetwork)> = found.iter().filter_map(|it| Some((it, owned(it)?))).collect();
        for (network, owned) in &found {
            self.take_up(network, owned).await;
        }
        Ok(found.into_iter().map(|(_, owned)| owned).collect())
    }

    async fn all_networks(&self, labels: &[&str]) -> Result<Vec<Network>, RuntimeError> {
        let mut filters = HashMap::new();
        if !labels.is_empty() {
            filters.insert("label".to_owned(), labels.iter().map(|&label| label.to_owned()).collect::<Vec<_>>());
        }
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        self.call("list networks", CALL_DEADLINE, self.docker.list_networks(Some(options))).await
    }

    pub(super) async fn drop_network(&self, id: &NetworkId) -> Result<(), RuntimeError> {
        let removed = self.docker.remove_network(&id.0);
        match self.call("remove a network", START_DEADLINE, removed).await {
            Err(RuntimeError::Engine { detail, .. })
                if detail.contains("not found") || detail.contains("o such network") => {}
            other => other?,
        }
        self.guard.gone(id).await;
        Ok(())
    }

    /// The container's address on its lease's network.
    pub(super) async fn address_of(&self, id: &ContainerId) -> Result<Option<Ipv4Addr>, RuntimeError> {
        let look = self.docker.inspect_container(&id.0, None);
        let found = self.call("look at a container", CALL_DEADLINE, look).await?;
        let networks = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        Ok(networks.into_values().find_map(|endpoint| endpoint.ip_address?.parse().ok()))
    }
}

/// Puts a container on its network. Its name servers are always named: otherwise the engine would ask those of this machine
/// on its behalf, past every rule.
pub(super) fn attach(body: &mut ContainerCreateBody, network: &ContainerNetwork, resolvers: &[Ipv4Addr]) {
    let host = body.host_config.get_or_insert_with(HostConfig::default);
    match network {
        ContainerNetwork::None => host.network_mode = Some("none".to_owned()),
        ContainerNetwork::Lease { network, aliases } => {
            host.network_mode = Some(network.0.clone());
            let resolvers: Vec<String> = resolvers.iter().map(ToString::to_string).collect();
            // The container itself: nobody answers there.
            host.dns = Some(if resolvers.is_empty() { vec!["127.0.0.1".to_owned()] } else { resolvers });
            let endpoint = EndpointSettings { aliases: Some(aliases.clone()), ..EndpointSettings::default() };
            let endpoints = HashMap::from([(network.0.clone(), endpoint)]);
            body.networking_config = Some(NetworkingConfig { endpoints_config: Some(endpoints) });
        }
    }
}

fn labels(spec: &LeaseNetworkSpec, domains: &[DomainPattern]) -> HashMap<String, String> {
    let mut labels = HashMap::from([
        (LABEL_NODE.to_owned(), spec.node_id.to_string()),
        (LABEL_LEASE.to_owned(), spec.lease_id.to_string()),
        (LABEL_GENERATION.to_owned(), spec.generation.to_string()),
    ]);
    if !domains.is_empty() {
        labels.insert(LABEL_DOMAINS.to_owned(), gates::label_of(domains));
    }
    labels
}

fn body(request: &NetworkRequest, subnet: Subnet) -> NetworkCreateRequest {
    let options = HashMap::from([("com.docker.network.bridge.name".to_owned(), request.bridge.clone())]);
    let config = IpamConfig { subnet: Some(subnet.to_string()), ..IpamConfig::default() };
    NetworkCreateRequest {
        name: request.name.clone(),
        driver: Some("bridge".to_owned()),
        internal: Some(request.internal),
        attachable: Some(false),
        enable_ipv6: Some(false),
        ipam: Some(Ipam { config: Some(vec![config]), ..Ipam::default() }),
        options: Some(options),
        labels: Some(request.labels.clone()),
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
