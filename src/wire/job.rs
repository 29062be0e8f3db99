//! Jobs: what a renter submits, and how the coordinator shows it back.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ids::{JobId, LeaseId, NodeId};
use super::keys::Secret;
use super::lease::{LeaseEnd, LeasePhase};
use super::money::{Amount, HourlyRate};

/// What a renter submits: one container (for the present), what it needs and what it may cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobSpec {
    /// A name for people, up to 63 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The containers of the job. Version 1 coordinators accept exactly one.
    pub services: Vec<ServiceSpec>,
    /// What the node must have.
    #[serde(default)]
    pub requirements: Requirements,
    /// What the job may cost and how long it may take.
    pub limits: JobLimits,
    /// Folder inside the container that is handed back as a tar when the job ends; absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_path: Option<String>,
}

/// One container of a job.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceSpec {
    /// Name within the job, `[a-z0-9-]`, up to 63 characters.
    pub name: String,
    /// Image reference as Docker writes it: `alpine:3.20`, `ghcr.io/a/b@sha256:…`, or a local image id.
    pub image: String,
    /// Replaces the image's entrypoint when present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command when not empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Environment of the container. Values are never logged.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Secret>,
    /// Working directory inside the container; the image's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// What the container may use.
    pub resources: Resources,
}

impl fmt::Debug for ServiceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceSpec")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("command", &self.command)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("resources", &self.resources)
            .finish_non_exhaustive()
    }
}

/// What a container may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// Thousandths of one CPU core, 10 to 1,024,000.
    pub cpu_millis: u32,
    /// Memory ceiling in bytes; swap is not added to it. At least 6 MiB.
    pub memory_bytes: u64,
    /// Disk for the writable layer and the output, in bytes.
    pub disk_bytes: u64,
    /// Whole GPUs.
    #[serde(default)]
    pub gpus: u32,
}

impl Default for Resources {
    /// One core, 512 MiB of memory, 1 GiB of disk, no GPU.
    fn default() -> Self {
        Self { cpu_millis: 1000, memory_bytes: 512 << 20, disk_bytes: 1 << 30, gpus: 0 }
    }
}

/// What a node must have beyond the resources.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Requirements {
    /// Lowest hardware score, see [`super::bench::BenchmarkReport::score`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_min: Option<u32>,
    /// Only this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// Processor architecture as Docker names it (`amd64`, `arm64`); any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
}

/// What the job may cost and how long it may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobLimits {
    /// Highest price per hour the renter pays.
    pub price_max: HourlyRate,
    /// Longest running time in seconds, 1 to 30 days. Escrow holds this much at the lease's price.
    pub duration_seconds_max: u64,
    /// Give up when no lease started within so many seconds of submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_deadline_seconds: Option<u64>,
    /// Seconds between SIGTERM and SIGKILL when the job is stopped, at most 300.
    #[serde(default = "default_stop_grace_seconds")]
    pub stop_grace_seconds: u32,
    /// Log bytes kept; what a job writes past it is dropped, and the log says so.
    #[serde(default = "default_log_bytes_max")]
    pub log_bytes_max: u64,
    /// Largest output tar in bytes.
    #[serde(default = "default_output_bytes_max")]
    pub output_bytes_max: u64,
    /// Processes and threads the container may have.
    #[serde(default = "default_pids_max")]
    pub pids_max: u32,
}

/// Ten seconds, as `docker stop` has it.
#[must_use]
pub const fn default_stop_grace_seconds() -> u32 {
    10
}

/// 16 MiB.
#[must_use]
pub const fn default_log_bytes_max() -> u64 {
    16 << 20
}

/// 1 GiB.
#[must_use]
pub const fn default_output_bytes_max() -> u64 {
    1 << 30
}

/// 512 processes and threads.
#[must_use]
pub const fn default_pids_max() -> u32 {
    512
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for a node.
    Queued,
    /// A lease exists and is on its way to running.
    Placed,
    /// Its container runs.
    Running,
    /// Its container ended by itself or reached a limit; see the outcome.
    Done,
    /// It could not be run; see the outcome.
    Failed,
    /// The renter stopped it.
    Cancelled,
    /// A state this build does not know.
    #[serde(other)]
    Unknown,
}

impl JobState {
    /// Whether nothing will change any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// `POST /v1/jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubmitJob {
    /// What to run.
    pub spec: JobSpec,
}

/// A job as its renter sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// The job.
    pub job_id: JobId,
    /// What was submitted, without the values of its environment.
    pub spec: JobSpec,
    /// Where it stands.
    pub state: JobState,
    /// One sentence on why it stands there, for people.
    pub why: String,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// When its container first ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it reached a final state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The newest lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseView>,
    /// How many leases it has had.
    pub lease_count: u32,
    /// How the last lease ended, once the job is final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<LeaseEnd>,
    /// What it has cost so far (settled leases).
    pub cost: Amount,
    /// What is held in escrow for it now.
    pub escrow: Amount,
    /// Log bytes available, counted over the frames of [`super::logs`].
    pub log_bytes: u64,
    /// Whether no more log will come.
    pub log_complete: bool,
    /// The output, once it has been handed back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputView>,
}

/// A lease as the renter sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaseView {
    /// The lease.
    pub lease_id: LeaseId,
    /// The node it runs on.
    pub node_id: NodeId,
    /// What an hour costs.
    pub rate: HourlyRate,
    /// Where it stands on the node.
    pub phase: LeasePhase,
    /// Progress of the image pull, 0 to 1000 per mille, while pulling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_per_mille: Option<u16>,
}

/// A collected output folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputView {
    /// Size of the tar in bytes.
    pub bytes: u64,
    /// SHA-256 of the tar, hex.
    pub sha256: String,
}

/// `GET /v1/jobs`, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobList {
    /// The jobs.
    pub jobs: Vec<JobView>,
}

/// `GET /v1/market`: what can be rented now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MarketView {
    /// Nodes that answer now.
    pub nodes_online: u32,
    /// Jobs that wait for a node.
    pub jobs_queued: u32,
    /// Jobs with a live lease.
    pub jobs_running: u32,
    /// Lowest price for a whole node, if any is online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_min: Option<HourlyRate>,
}
