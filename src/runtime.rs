//! The container engine as the agent sees it: a trait with a real implementation and a fake that keeps the same contract.
//!
//! Invariants
//! - Containers are found by label, never by name: `io.fizz.node`, `io.fizz.lease`.
//! - A [`ContainerSpec`] cannot express privileged mode, host mounts, host namespaces, devices or capabilities.
//! - Every call has a deadline inside the implementation; none waits for ever on an engine that hangs.
//! - Only containers with our node's label are listed, stopped or removed.

pub mod archive;
pub mod docker;
mod error;
mod exec;
pub mod fake;
pub mod firewall;
pub mod gpu;
pub mod images;
pub mod isolation;
pub mod names;
pub mod network;
pub mod provision;
pub mod sandbox;
mod status;
pub mod vulnerable;

pub use error::RuntimeError;
pub use exec::{EXEC_MARK, Exec, ExecId, ExecSpec};
pub use status::{ContainerEvent, ContainerExit, ContainerStatus, DiskUse, FreeSpace, LogEntry, OwnedContainer};

use std::net::Ipv4Addr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use vulnerable::Finding;

use firewall::Verdict;
use gpu::{GpuBinding, GpuCard};
use network::{ContainerNetwork, LeaseNetworkSpec, NetworkId, OwnedNetwork};

use crate::wire::job::{Isolation, Reach};
use crate::wire::node::Engine;
use crate::wire::reach::TerminalSize;
use crate::wire::{LeaseId, NodeId, Secret};

/// Label that carries the node's id.
pub const LABEL_NODE: &str = "io.fizz.node";
/// Label that carries the lease's id.
pub const LABEL_LEASE: &str = "io.fizz.lease";
/// Label that carries the generation of the lease the container was made for.
pub const LABEL_GENERATION: &str = "io.fizz.generation";
/// Label that carries the name of the job's service, on all but the main container.
pub const LABEL_SERVICE: &str = "io.fizz.service";
/// Label of a network whose containers may reach some domains only: which, with commas between.
pub const LABEL_DOMAINS: &str = "io.fizz.domains";
/// Label of what proves that jobs are shut off: the probe's image, its containers and networks.
pub const LABEL_PROBE: &str = "io.fizz.probe";
/// Label of an image by which its owner lends it, with the value `true`: jobs may use it though no registry has it.
pub const LABEL_SHARED: &str = "io.fizz.shared";

/// The engine's identifier of a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerId(pub String);

/// An image that is on this machine, pinned to exact content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedImage {
    /// What containers are created from: the engine's image id `sha256:…`.
    pub image_id: String,
    /// `repository@sha256:…` when it came from a registry, else the image id.
    pub digest: String,
    /// What the image says of its containers.
    #[serde(default)]
    pub settings: ImageSettings,
}

/// What an image says of its containers, as far as the sandbox must know it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSettings {
    /// Whom its program runs as: a name or number, with a group behind a colon; root when empty.
    #[serde(default)]
    pub user: String,
    /// Where its program begins.
    #[serde(default)]
    pub workdir: String,
    /// Folders that it wants outside of the container's own layer.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Its size in bytes.
    #[serde(default)]
    pub bytes: u64,
    /// Names of the variables it sets.
    #[serde(default)]
    pub variables: Vec<String>,
}

/// How far a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullProgress {
    /// Bytes fetched so far, over all layers seen.
    pub bytes_done: u64,
    /// Bytes to fetch, over all layers seen so far; grows while layers are discovered.
    pub bytes_total: u64,
}

/// A container to be made. Everything it may not have is not in here.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// Whose container it is.
    pub node_id: NodeId,
    /// For which lease.
    pub lease_id: LeaseId,
    /// Generation label.
    pub generation: u64,
    /// Which of the lease's companions it is, by the name of its service; none for the main container.
    pub service: Option<String>,
    /// How many containers the lease has in all.
    pub services: usize,
    /// From [`PinnedImage::image_id`].
    pub image_id: String,
    /// Replaces the image's entrypoint when present.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command when not empty.
    pub command: Vec<String>,
    /// Environment.
    pub env: Vec<(String, Secret)>,
    /// Working directory.
    pub workdir: Option<String>,
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// Memory limit in bytes; no swap on top.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids_max: u32,
    /// Bytes of log the engine keeps at least; what exceeds a small multiple of it is dropped by the engine.
    pub log_bytes_max: u64,
    /// Which network it is on.
    pub network: ContainerNetwork,
    /// What the image says.
    pub settings: ImageSettings,
    /// Whether it may be root of its container.
    pub root: bool,
    /// Disk it may fill; with 0 nothing but memory can be written.
    pub disk_bytes: u64,
    /// Size of `/dev/shm`; 64 MiB when absent.
    pub shm_bytes: Option<u64>,
    /// Folder that is made for it, beside its work folder.
    pub output_path: Option<String>,
    /// How well it must be separated from this machine at least; the owner may want more.
    pub isolation: Option<Isolation>,
    /// The GPUs it gets, and no other.
    pub gpus: Vec<GpuBinding>,
}

impl ContainerSpec {
    /// A container of `image_id` that runs the image's own command with the smallest limits; everything else is filled in.
    #[must_use]
    pub fn new(node_id: NodeId, lease_id: LeaseId, image_id: String) -> Self {
        Self {
            node_id,
            lease_id,
            generation: 0,
            service: None,
            services: 1,
            image_id,
            entrypoint: None,
            command: Vec::new(),
            env: Vec::new(),
            workdir: None,
            cpu_millis: 1000,
            memory_bytes: 64 << 20,
            pids_max: 64,
            log_bytes_max: 1 << 20,
            network: ContainerNetwork::None,
            settings: ImageSettings::default(),
            root: false,
            disk_bytes: 64 << 20,
            shm_bytes: None,
            output_path: None,
            isolation: None,
            gpus: Vec::new(),
        }
    }
}

/// What a container engine can do for the agent.
#[async_trait]
pub trait ContainerRuntime: provision::Provision + Send + Sync + 'static {
    /// Asks the engine who it is; the way to see whether it is there and allowed.
    async fn engine(&self) -> Result<Engine, RuntimeError>;

    /// The known holes that it had when it was opened, the gravest first. A container that one of them refuses is not made.
    fn findings(&self) -> Vec<Finding>;

    /// The separations that containers can have, seen working when the engine was opened, and none below the owner's wish.
    fn isolation(&self) -> Vec<Isolation>;

    /// How it would hand over this card and no other; nothing when it cannot.
    fn bind_gpu(&self, card: &GpuCard) -> Option<GpuBinding>;

    /// What its owner should know of it though jobs are taken; whole sentences.
    fn notices(&self) -> Vec<String> {
        Vec::new()
    }

    /// Makes sure the image is here and pins it. Progress is best effort: a full channel drops it.
    async fn ensure_image(
        &self,
        image: &str,
        progress: mpsc::Sender<PullProgress>,
    ) -> Result<PinnedImage, RuntimeError>;

    /// Makes a container, or finds the one already made for the same lease and service.
    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId, RuntimeError>;

    /// Starts it if it was never started; nothing happens when it runs or has ended.
    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Starts it again, with the files and the log it has, if its end at `ended_at` is still its last; nothing happens when it was
    /// started since.
    async fn restart(&self, id: &ContainerId, ended_at: Timestamp) -> Result<(), RuntimeError>;

    /// Waits until it has ended.
    async fn wait(&self, id: &ContainerId) -> Result<ContainerExit, RuntimeError>;

    /// Whether the engine that answers now saw this end itself, rather than having been started later and found the container
    /// dead or ended it. For what it has not seen it cannot vouch: neither for the exit code nor for the end of the log.
    async fn witnessed(&self, id: &ContainerId, exit: &ContainerExit) -> Result<bool, RuntimeError>;

    /// Looks at it.
    async fn inspect(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError>;

    /// All containers with this node's label, ended ones too.
    async fn list(&self, node_id: NodeId) -> Result<Vec<OwnedContainer>, RuntimeError>;

    /// Wakes the caller when something happens to this node's containers. Ends when the engine goes away.
    fn events(&self, node_id: NodeId) -> BoxStream<'static, Result<ContainerEvent, RuntimeError>>;

    /// SIGTERM, then SIGKILL after `grace`; returns when it has ended. Works on a frozen one; nothing happens when it has ended.
    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError>;

    /// Freezes every process in it.
    async fn pause(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Undoes [`ContainerRuntime::pause`].
    async fn unpause(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Its log from `since_nanos` (inclusive) on, following it until it has ended.
    fn logs(&self, id: &ContainerId, since_nanos: i128) -> BoxStream<'static, Result<LogEntry, RuntimeError>>;

    /// A folder of it as a tar stream; works on an ended container.
    fn archive(&self, id: &ContainerId, path: &str) -> BoxStream<'static, Result<Bytes, RuntimeError>>;

    /// Runs a command in a running container. It outlives what is returned here; see [`ContainerRuntime::exec_kill`].
    async fn exec(&self, id: &ContainerId, spec: &ExecSpec) -> Result<Exec, RuntimeError>;

    /// The exit code of a command; `None` while it runs.
    async fn exec_code(&self, exec: &ExecId) -> Result<Option<i32>, RuntimeError>;

    /// Changes the size of a command's terminal.
    async fn exec_resize(&self, exec: &ExecId, size: TerminalSize) -> Result<(), RuntimeError>;

    /// Ends the commands with this mark, and what they started; those with any mark when it is empty. It is done from inside
    /// the container, with its shell: where there is none they end with the container.
    async fn exec_kill(&self, id: &ContainerId, mark: &str) -> Result<(), RuntimeError>;

    /// Unpacks a tar into a folder of it, as it is: the caller has checked every entry.
    async fn put(
        &self,
        id: &ContainerId,
        path: &str,
        tar: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), RuntimeError>;

    /// How much it has on disk. Dear: the engine walks all its files.
    async fn disk_used(&self, id: &ContainerId) -> Result<DiskUse, RuntimeError>;

    /// How many files and folders it has made or changed, counted up to `files_max`.
    async fn files_made(&self, id: &ContainerId, files_max: u64) -> Result<u64, RuntimeError>;

    /// What is free where containers are kept; `None` where that cannot be seen. Cheap.
    async fn free_space(&self) -> Option<FreeSpace>;

    /// Removes it with its anonymous volumes; nothing happens when it is gone.
    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Makes the network of a lease, or finds the one already made for it. Comes before the lease's first container.
    ///
    /// Refused with [`RuntimeError::IsolationNotShown`] where it could not be shown that containers on such a network cannot
    /// reach this machine and the networks around it.
    async fn ensure_network(&self, spec: &LeaseNetworkSpec) -> Result<OwnedNetwork, RuntimeError>;

    /// Whether jobs may have a network of this reach here. Looks whether what was shown still holds, and shows it again when
    /// it may not; so this can take seconds.
    async fn network_verdict(&self, node_id: NodeId, reach: Reach) -> Verdict;

    /// Removes what was made to show how far networks reach and was left by an agent or an engine that was killed meanwhile.
    async fn remove_leftovers(&self, node_id: NodeId) -> Result<(), RuntimeError>;

    /// Whether jobs that reach the internet can be kept to some domains here; otherwise as [`ContainerRuntime::network_verdict`].
    async fn domains_verdict(&self, node_id: NodeId) -> Verdict;

    /// The agent ends for good: takes away what it set up on this machine for networks, if no job's network is left.
    async fn withdraw(&self);

    /// All networks with this node's label.
    async fn networks(&self, node_id: NodeId) -> Result<Vec<OwnedNetwork>, RuntimeError>;

    /// Removes a network of ours; nothing happens when it is gone. Comes after the lease's last container is removed: an engine
    /// refuses while one is on it.
    async fn remove_network(&self, id: &NetworkId) -> Result<(), RuntimeError>;

    /// The address at which a running container of ours answers from this machine; `None` when it is on no network.
    async fn address(&self, id: &ContainerId) -> Result<Option<Ipv4Addr>, RuntimeError>;
}
