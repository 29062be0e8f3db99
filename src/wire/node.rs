//! What a node says about itself: inventory, offer, heartbeat.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::challenge::Proof;
use super::ids::{BootId, Generation, LeaseId, NodeId, Sequence};
use super::job::Isolation;
use super::lease::LeasePhase;
use super::money::HourlyRate;

/// The hardware as found, and what of it is lent. `PUT /v1/node/inventory` (signed).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Inventory {
    /// The machine.
    pub host: Host,
    /// Graphics adapters, software ones included and labelled.
    pub gpus: Vec<Gpu>,
    /// The container engine.
    pub engine: Engine,
    /// What the owner lends.
    pub offer: Offer,
}

/// The machine without its GPUs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Operating system and version, for people.
    pub os: String,
    /// Kernel version.
    pub kernel: String,
    /// Processor architecture as Docker names it: `amd64`, `arm64`.
    pub architecture: String,
    /// Processor's own name.
    pub cpu_model: String,
    /// Physical cores.
    pub cpu_cores: u32,
    /// Hardware threads.
    pub cpu_threads: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Free space where the engine keeps its data, in bytes.
    pub disk_bytes_free: u64,
}

/// A graphics adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Gpu {
    /// Name as the driver gives it.
    pub name: String,
    /// Who made it: `nvidia`, `amd`, `intel`, `apple`, or the PCI vendor id in hex.
    pub vendor: String,
    /// What it is.
    pub kind: GpuKind,
    /// API it was found through: `vulkan`, `dx12`, `metal`.
    pub backend: String,
    /// Driver and its version, for people.
    pub driver: String,
    /// PCI address `0000:01:00.0`, where the backend tells; two equal cards differ here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    /// The driver's own identifier of this very card (`GPU-…`), where it gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
}

/// What a graphics adapter is. Software adapters are never offered as GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GpuKind {
    /// A card of its own.
    Discrete,
    /// Part of the processor.
    Integrated,
    /// Given by a hypervisor.
    Virtual,
    /// A processor that pretends (llvmpipe, WARP).
    Software,
    /// A kind this build does not know.
    #[serde(other)]
    Unknown,
}

impl GpuKind {
    /// Whether it may be offered as a GPU.
    #[must_use]
    pub const fn is_hardware(self) -> bool {
        matches!(self, Self::Discrete | Self::Integrated | Self::Virtual)
    }
}

/// The container engine as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Engine {
    /// `docker` or `podman`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// API version in use.
    pub api_version: String,
}

/// What a node lends, and its lowest price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Offer {
    /// Thousandths of CPU cores.
    pub cpu_millis: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Disk in bytes.
    pub disk_bytes: u64,
    /// Hardware GPUs.
    pub gpus: u32,
    /// Lowest price for the whole offer; a lease of part of it pays in proportion to its largest share.
    pub price_min: HourlyRate,
    /// Whether jobs that ask for the internet may run here: the owner allows it, and it was shown that they cannot reach the
    /// owner's network.
    #[serde(default)]
    pub internet: bool,
    /// The domains that jobs which name some may name here, see [`super::domain`]; any when empty. Absent where jobs cannot be
    /// kept to domains: the proof of it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domains: Option<Vec<String>>,
    /// The separations a job can have here, see [`Isolation`]; the plain one alone when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub isolation: Vec<Isolation>,
}

/// Where an agent stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Not yet known to a coordinator.
    Enrolling,
    /// Measuring itself.
    Benchmarking,
    /// Ready for work.
    Idle,
    /// Has at least one lease.
    Working,
    /// Takes nothing new, by the owner's rule.
    Paused,
    /// Replacing itself by a newer version.
    Updating,
    /// Finishing what it has, then stopping.
    Draining,
    /// Gone on purpose.
    Stopped,
    /// A state this build does not know.
    #[serde(other)]
    Unknown,
}

impl NodeState {
    /// Whether the coordinator may place new leases.
    #[must_use]
    pub const fn takes_leases(self) -> bool {
        matches!(self, Self::Idle | Self::Working)
    }
}

/// The node's periodic report of its actual state. `POST /v1/node/heartbeat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Heartbeat {
    /// This start of the agent.
    pub boot_id: BootId,
    /// Counts up within the boot; an older one than the newest seen is ignored.
    pub sequence: Sequence,
    /// Where the agent stands.
    pub state: NodeState,
    /// Why, when it takes no work; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Newest assignments the node has acted on.
    pub assignment_generation: Generation,
    /// What is actually on the node.
    pub leases: Vec<LeaseReport>,
}

/// One lease as it actually is on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaseReport {
    /// The lease.
    pub lease_id: LeaseId,
    /// Where it stands.
    pub phase: LeasePhase,
}

/// Answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatAck {
    /// The coordinator's clock.
    pub server_time: Timestamp,
    /// Newest desired state; fetch it when it is ahead of what the node has.
    pub assignment_generation: Generation,
    /// When to report next, in milliseconds; the node adds jitter.
    pub interval_millis: u64,
    /// How far the node's hardware is believed, where the coordinator looks into that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// A node as an operator sees it, `GET /v1/admin/nodes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// The node.
    pub node_id: NodeId,
    /// Its name, for people.
    pub name: String,
    /// Where it stands.
    pub state: NodeState,
    /// Whether it was heard from within the grace period.
    pub online: bool,
    /// When it was last heard from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<Timestamp>,
    /// Newest benchmark score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<u32>,
    /// What it lends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
    /// Leases on it now.
    pub leases: u32,
    /// How far its hardware is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// `GET /v1/admin/nodes`, in the order of their names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// The nodes.
    pub nodes: Vec<NodeView>,
}
