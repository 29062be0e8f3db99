//! Keeps the way to the container engine: finds it, follows its events, and finds it again when it went away.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::{Driver, Input, Listing};
use crate::agent::EngineSource;
use crate::agent::failover::backoff;
use crate::agent::machine::Event;
use crate::config::Ceiling;
use crate::runtime::docker::{DockerOptions, DockerRuntime, Wall};
use crate::runtime::network::OwnedNetwork;
use crate::runtime::{ContainerRuntime, OwnedContainer, RuntimeError};
use crate::wire::node::Engine;
use crate::wire::{LeaseId, NodeId};

/// First and longest wait before an engine that does not answer is asked again.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Tells the driver of the engine and of what happens to containers. Never ends by itself.
pub(super) async fn watch_engine(source: EngineSource, ceiling: Ceiling, node_id: NodeId, inbox: mpsc::Sender<Input>) {
    let mut failures = 0;
    let mut told = String::new();
    let mut noticed = Vec::new();
    let wall = Wall::default();
    loop {
        match open_engine(&source, &ceiling, &wall).await {
            Ok((runtime, engine)) => {
                told.clear();
                let notices = runtime.notices();
                for notice in notices.iter().filter(|notice| !noticed.contains(*notice)) {
                    tracing::warn!(notice, "about the container engine");
                }
                noticed = notices;
                // Nothing of ours is under way on an engine that was just found.
                if let Err(error) = runtime.remove_leftovers(node_id).await {
                    tracing::debug!(%error, "what probes left stays until the next one");
                }
                let mut events = runtime.events(node_id);
                if inbox.send(Input::Engine(runtime, engine)).await.is_err() {
                    return;
                }
                while let Some(Ok(event)) = events.next().await {
                    failures = 0;
                    let _ = inbox.send(Input::Container(event.lease_id)).await;
                }
            }
            Err(error) => {
                let why = error.to_string();
                if told != why {
                    tracing::warn!(why, "no container engine");
                    told.clone_from(&why);
                }
                let _ = inbox.send(Input::Event(Event::EngineDown { why })).await;
            }
        }
        // An engine that ends its events at once is asked as rarely as one that does not answer.
        let wait = backoff(failures, WAITS.0, WAITS.1, rand::random::<f64>());
        tokio::time::sleep(wait).await;
        failures += 1;
    }
}

async fn open_engine(
    source: &EngineSource,
    ceiling: &Ceiling,
    wall: &Wall,
) -> Result<(Arc<dyn ContainerRuntime>, Engine), RuntimeError> {
    let runtime: Arc<dyn ContainerRuntime> = match source {
        EngineSource::Docker { address, tls } => {
            let (address, ceiling, wall) = (address.clone(), ceiling.clone(), wall.clone());
            let options = DockerOptions { address, tls: tls.clone(), ceiling, wall };
            Arc::new(DockerRuntime::open(options).await?)
        }
        EngineSource::Given(runtime) => Arc::clone(runtime),
    };
    let engine = runtime.engine().await?;
    Ok((runtime, engine))
}

impl Driver {
    /// Asks for what carries our label, once at a time.
    pub(super) fn list_containers(&mut self) {
        let (Some(runtime), Some(node_id)) = (self.runtime.clone(), self.node_id) else { return };
        if self.listing != Listing::No {
            self.listing = Listing::Again;
            return;
        }
        self.listing = Listing::UnderWay;
        let inbox = self.inbox.clone();
        self.tasks.spawn(async move {
            let listed = owned(runtime.as_ref(), node_id).await;
            // A closed inbox is a driver that has ended.
            let _ = inbox.send(Input::Containers(listed)).await;
        });
    }

    /// Removes what a lease that nobody owns has left.
    pub(super) fn remove_containers(&mut self, lease_id: LeaseId) {
        let Some(runtime) = self.runtime.clone() else { return };
        let containers = self.found.remove(&lease_id).unwrap_or_default();
        let network = self.found_networks.remove(&lease_id);
        if !containers.is_empty() || network.is_some() {
            self.tasks.spawn(async move { remove_orphans(runtime.as_ref(), lease_id, containers, network).await });
        }
    }
}

/// What carries our label.
pub(in crate::agent) struct Owned {
    pub(in crate::agent) containers: Vec<OwnedContainer>,
    pub(in crate::agent) networks: Vec<OwnedNetwork>,
}

pub(super) async fn owned(runtime: &dyn ContainerRuntime, node_id: NodeId) -> Result<Owned, RuntimeError> {
    // Networks first: one that is made between the two questions belongs to a lease whose container is only missed once.
    let networks = runtime.networks(node_id).await?;
    Ok(Owned { networks, containers: runtime.list(node_id).await? })
}

/// Removes what no lease owns: the containers first, because an engine keeps a network that one is on.
pub(super) async fn remove_orphans(
    runtime: &dyn ContainerRuntime,
    lease_id: LeaseId,
    containers: Vec<OwnedContainer>,
    network: Option<OwnedNetwork>,
) {
    tracing::warn!(%lease_id, "removing a container or network that no lease owns");
    for container in containers {
        if let Err(error) = runtime.remove(&container.id).await {
            tracing::warn!(%error, %lease_id, "a container that no lease owns could not be removed");
            return;
        }
    }
    if let Some(network) = network
        && let Err(error) = runtime.remove_network(&network.id).await
    {
        tracing::warn!(%error, %lease_id, "a network that no lease owns could not be removed");
    }
}
