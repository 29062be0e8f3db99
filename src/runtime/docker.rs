//! Docker, and engines that speak its API. The only place that knows bollard.
//!
//! Invariants
//! - Every call has a deadline; streams have one per piece, except for those that may be silent (logs, events, waiting).
//! - Containers are found by label. Their name only makes sure that a lease never gets two.
//! - What a container gets is decided by [`super::sandbox`]; `body` says the same in the engine's words.

mod abilities;
mod body;
mod components;
mod connect;
mod containers;
mod create;
mod disk;
mod errors;
mod exec;
mod facts;
mod gates;
mod gpus;
mod guard;
mod images;
mod import;
mod kernel_name;
mod limits;
mod logs;
mod networks;
mod probes;
mod provision;
mod witness;

use std::collections::HashMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, EventsOptionsBuilder};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::firewall::{NetworkPolicy, Verdict};
use super::gpu::{self, GpuBinding, GpuCard};
use super::isolation;
use super::network::{LeaseNetworkSpec, NetworkId, OwnedNetwork};
use super::sandbox::{EngineFacts, JobUser};
use super::vulnerable::Finding;
use super::{
    ContainerEvent, ContainerExit, ContainerId, ContainerRuntime, ContainerSpec, ContainerStatus, DiskUse, Exec,
    ExecId, ExecSpec, FreeSpace, LABEL_LEASE, LABEL_NODE, LogEntry, OwnedContainer, PinnedImage, PullProgress,
    RuntimeError,
};
pub use connect::EngineTls;
use connect::Place;

use crate::config::{Ceiling, RootRule};
use crate::wire::NodeId;
use crate::wire::job::{Isolation, Reach};
use crate::wire::node::Engine;
use crate::wire::reach::TerminalSize;

use guard::{Guard, Shown};

const PODMAN: &str = "podman";
use abilities::Abilities;

const API_NEEDED: &str = "1.41";
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
const CALL_DEADLINE: Duration = Duration::from_secs(30);
const START_DEADLINE: Duration = Duration::from_secs(120);
const PIECE_DEADLINE: Duration = Duration::from_secs(60);

/// A Docker engine. Clones share the connection settings; each call opens a connection of its own.
#[derive(Debug, Clone)]
pub struct DockerRuntime {
    docker: Docker,
    address: String,
    architecture: String,
    ceiling: Arc<Ceiling>,
    shared: Arc<Shared>,
    findings: Arc<Vec<Finding>>,
    guard: Arc<Guard>,
    shown: Arc<tokio::sync::Mutex<Shown>>,
}

/// Where the engine is, and what its containers may have at most.
#[derive(Debug, Clone, Default)]
pub struct DockerOptions {
    /// `unix:///…`, `npipe:////…` or `tcp://…`; else what `DOCKER_HOST` says, else Docker's usual socket.
    pub address: Option<String>,
    /// The certificates for an engine over TLS; else what `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH` say.
    pub tls: Option<EngineTls>,
    /// The owner's ceiling.
    pub ceiling: Ceiling,
    /// What is kept up between jobs and this home; one for all that this program opens of an engine.
    pub wall: Wall,
}

/// The rules and name servers that this program keeps up. Clones are the same wall, also when the engine is opened again.
#[derive(Debug, Clone, Default)]
pub struct Wall(Arc<OnceLock<Arc<Guard>>>);

/// What clones have learnt of the engine together.
#[derive(Debug, Default)]
struct Shared {
    facts: Mutex<Arc<EngineFacts>>,
    /// Who an image's named user is, by image id.
    users: Mutex<HashMap<String, JobUser>>,
}

impl Shared {
    fn users(&self) -> MutexGuard<'_, HashMap<String, JobUser>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_facts(&self, facts: EngineFacts) {
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(facts);
    }

    fn facts(&self) -> Arc<EngineFacts> {
        Arc::clone(&self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn refuse_quota(&self) {
        let facts = self.facts();
        self.set_facts(EngineFacts { disk_quota: false, ..(*facts).clone() });
    }
}

impl DockerRuntime {
    /// As [`DockerRuntime::open`], with the default ceiling.
    ///
    /// # Errors
    /// See [`DockerRuntime::open`].
    pub async fn connect(address: Option<&str>) -> Result<Self, RuntimeError> {
        Self::open(DockerOptions { address: address.map(str::to_owned), ..DockerOptions::default() }).await
    }

    /// Connects to an engine and learns what it can do.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`], [`RuntimeError::PermissionDenied`], [`RuntimeError::ApiTooOld`], [`RuntimeError::Unsafe`], or
    /// that it does not answer.
    pub async fn open(options: DockerOptions) -> Result<Self, RuntimeError> {
        let place = Place::find(&options, |name| std::env::var(name).ok());
        let mut runtime = Self::unasked(place.open()?, place.address, options.ceiling, &options.wall);
        let (engine, architecture) = runtime.version().await?;
        runtime.architecture = architecture;
        runtime.docker = connect::in_version(runtime.docker, &engine.api_version);
        let facts = runtime.ask_facts(engine.name == PODMAN).await?;
        let facts = runtime.see_limits(facts).await?;
        if let Some(detail) = facts.unusable() {
            return Err(RuntimeError::Unsafe { detail });
        }
        let Abilities { given, gpus, plain_runtime } =
            runtime.look_at_abilities(facts.root_is_nobody_outside()).await?;
        runtime.shared.set_facts(EngineFacts { given, gpus, plain_runtime, ..facts });
        runtime.findings = Arc::new(runtime.look_for_holes().await?);
        Ok(runtime)
    }

    /// Nothing is known of the engine yet.
    fn unasked(docker: Docker, address: String, ceiling: Ceiling, wall: &Wall) -> Self {
        let guard = Arc::clone(wall.0.get_or_init(|| Arc::new(Guard::new(NetworkPolicy::from(&ceiling.network)))));
        let (ceiling, shared) = (Arc::new(ceiling), Arc::new(Shared::default()));
        Self {
            docker,
            address,
            architecture: String::new(),
            ceiling,
            shared,
            findings: Arc::default(),
            guard,
            shown: Arc::default(),
        }
    }

    /// What is known of the engine.
    #[must_use]
    pub fn facts(&self) -> Arc<EngineFacts> {
        self.shared.facts()
    }

    /// Where the engine listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// This machine's processor as Docker names it: `amd64`, `arm64`.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Name, version and API version; and the architecture as Docker names it.
    async fn version(&self) -> Result<(Engine, String), RuntimeError> {
        let found = self.call("say its version", CONNECT_DEADLINE, self.docker.version()).await?;
        let api_version = found.api_version.unwrap_or_default();
        if !errors::api_is_enough(&api_version, API_NEEDED) {
            let found = if api_version.is_empty() { "unknown".to_owned() } else { api_version };
            return Err(RuntimeError::ApiTooOld { found, needed: API_NEEDED });
        }
        let components = found.components.unwrap_or_default();
        let podman = components.iter().any(|component| component.name.contains("Podman"));
        let name = if podman { PODMAN } else { "docker" }.to_owned();
        let engine = Engine { name, version: found.version.unwrap_or_default(), api_version };
        Ok((engine, found.arch.unwrap_or_default()))
    }

    async fn call<T>(
        &self,
        what: &'static str,
        deadline: Duration,
        future: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, RuntimeError> {
        match tokio::time::timeout(deadline, future).await {
            Ok(result) => result.map_err(|error| errors::classify(&self.address, what, error)),
            Err(_) => Err(RuntimeError::TimedOut { what, seconds: deadline.as_secs() }),
        }
    }
}

#[async_trait]
impl ContainerRuntime for DockerRuntime {
    async fn engine(&self) -> Result<Engine, RuntimeError> {
        self.version().await.map(|(engine, _)| engine)
    }

    fn notices(&self) -> Vec<String> {
        let root_allowed = self.ceiling.sandbox.root == RootRule::Yes;
        self.facts().notices(root_allowed).into_iter().map(str::to_owned).collect()
    }

    fn findings(&self) -> Vec<Finding> {
        self.findings.to_vec()
    }

    fn isolation(&self) -> Vec<Isolation> {
        isolation::offered(&self.facts().given, self.ceiling.sandbox.isolation)
    }

    fn bind_gpu(&self, card: &GpuCard) -> Option<GpuBinding> {
        self.refuse_vulnerable(true).ok()?;
        gpu::bind(card, &self.facts().gpus)
    }

    async fn ensure_image(
        &self,
        image: &str,
        progress: mpsc::Sender<PullProgress>,
    ) -> Result<PinnedImage, RuntimeError> {
        self.image(image, &progress).await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId, RuntimeError> {
        self.refuse_vulnerable(!spec.gpus.is_empty())?;
        self.create_container(spec).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        // The engine would start an ended container again.
        if self.inspect(id).await? != ContainerStatus::Created {
            return Ok(());
        }
        let start = self.docker.start_container(&id.0, None);
        match self.call("start a container", START_DEADLINE, start).await {
            Err(error @ (RuntimeError::NotRunning { .. } | RuntimeError::TimedOut { .. })) => {
                Err(RuntimeError::StartInterrupted { detail: error.to_string() })
            }
            other => other,
        }
    }

    async fn restart(&self, id: &ContainerId, ended_at: Timestamp) -> Result<(), RuntimeError> {
        self.restart_container(id, ended_at).await
    }

    async fn wait(&self, id: &ContainerId) -> Result<ContainerExit, RuntimeError> {
        self.wait_for_end(id).await
    }

    async fn witnessed(&self, id: &ContainerId, exit: &ContainerExit) -> Result<bool, RuntimeError> {
        self.saw_end(id, exit).await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        self.look_at(id).await
    }

    async fn list(&self, node_id: NodeId) -> Result<Vec<OwnedContainer>, RuntimeError> {
        self.list_owned(node_id).await
    }

    fn events(&self, node_id: NodeId) -> BoxStream<'static, Result<ContainerEvent, RuntimeError>> {
        let filters = [
            ("type".to_owned(), vec!["container".to_owned()]),
            ("label".to_owned(), vec![format!("{LABEL_NODE}={node_id}")]),
        ];
        let options = EventsOptionsBuilder::new().filters(&filters.into_iter().collect()).build();
        let address = self.address.clone();
        self.docker
            .events(Some(options))
            .filter_map(move |event| {
                let event = match event {
                    Ok(event) => {
                        let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
                        let lease = attributes.get(LABEL_LEASE).and_then(|lease| lease.parse().ok());
                        lease.map(|lease_id| Ok(ContainerEvent { lease_id }))
                    }
                    Err(error) => Some(Err(errors::classify(&address, "report events", error))),
                };
                std::future::ready(event)
            })
            .boxed()
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        self.stop_container(id, grace).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.call("freeze a container", CALL_DEADLINE, self.docker.pause_container(&id.0)).await
    }

    async fn unpause(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.call("thaw a container", CALL_DEADLINE, self.docker.unpause_container(&id.0)).await
    }

    fn logs(&self, id: &ContainerId, since_nanos: i128) -> BoxStream<'static, Result<LogEntry, RuntimeError>> {
        self.log_entries(id, since_nanos)
    }

    fn archive(&self, id: &ContainerId, path: &str) -> BoxStream<'static, Result<Bytes, RuntimeError>> {
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        let pieces = self.docker.download_from_container(&id.0, Some(options)).boxed();
        let (address, path) = (self.address.clone(), path.to_owned());
        stream::unfold(Some(pieces), move |pieces| {
            let (address, path) = (address.clone(), path.clone());
            async move {
                let mut pieces = pieces?;
                let seconds = PIECE_DEADLINE.as_secs();
                match tokio::time::timeout(PIECE_DEADLINE, pieces.next()).await {
                    Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(pieces))),
                    Ok(Some(Err(error))) => Some((Err(errors::classify_archive(&address, &path, error)), None)),
                    Ok(None) => None,
                    Err(_) => Some((Err(RuntimeError::TimedOut { what: "read a folder", seconds }), None)),
                }
            }
        })
        .boxed()
    }

    async fn exec(&self, id: &ContainerId, spec: &ExecSpec) -> Result<Exec, RuntimeError> {
        self.exec_in(id, spec).await
    }

    async fn exec_code(&self, exec: &ExecId) -> Result<Option<i32>, RuntimeError> {
        self.exit_code_of(exec).await
    }

    async fn exec_resize(&self, exec: &ExecId, size: TerminalSize) -> Result<(), RuntimeError> {
        self.resize(exec, size).await
    }

    async fn exec_kill(&self, id: &ContainerId, mark: &str) -> Result<(), RuntimeError> {
        self.kill_marked(id, mark).await
    }

    async fn put(
        &self,
        id: &ContainerId,
        path: &str,
        tar: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), RuntimeError> {
        self.unpack_into(id, path, tar).await
    }

    async fn disk_used(&self, id: &ContainerId) -> Result<DiskUse, RuntimeError> {
        self.disk_use(id).await
    }

    async fn files_made(&self, id: &ContainerId, files_max: u64) -> Result<u64, RuntimeError> {
        self.count_files(id, files_max).await
    }

    async fn free_space(&self) -> Option<FreeSpace> {
        self.space_left().await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.remove_container(id).await
    }

    async fn ensure_network(&self, spec: &LeaseNetworkSpec) -> Result<OwnedNetwork, RuntimeError> {
        self.network(spec).await
    }

    async fn network_verdict(&self, node_id: NodeId, reach: Reach) -> Verdict {
        self.verdict(node_id, reach, false).await
    }

    async fn remove_leftovers(&self, node_id: NodeId) -> Result<(), RuntimeError> {
        self.remove_broken_probes(node_id).await
    }

    async fn domains_verdict(&self, node_id: NodeId) -> Verdict {
        self.verdict_on_domains(node_id, false).await
    }

    async fn withdraw(&self) {
        self.withdraw_rules().await;
    }

    async fn networks(&self, node_id: NodeId) -> Result<Vec<OwnedNetwork>, RuntimeError> {
        self.owned_networks(node_id).await
    }

    async fn remove_network(&self, id: &NetworkId) -> Result<(), RuntimeError> {
        self.drop_network(id).await
    }

    async fn address(&self, id: &ContainerId) -> Result<Option<Ipv4Addr>, RuntimeError> {
        self.address_of(id).await
    }
}

#[cfg(test)]
mod tests;
