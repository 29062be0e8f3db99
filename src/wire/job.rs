//! Jobs: what a renter submits, and how the coordinator shows it back.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ids::{JobId, LeaseId, NodeId};
use super::lease::{LeaseEnd, LeasePhase};
use super::money::{Amount, HourlyRate};

mod service;

pub use service::{
    HealthCheck, HealthTest, InputSpec, RegistryLogin, Resources, RestartPolicy, RestartWhen, ServiceSpec,
    default_health_interval_seconds, default_health_retries, default_health_timeout_seconds,
};

/// What a renter submits: containers, what they need and what they may cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobSpec {
    /// A name for people, up to 63 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The containers of the job, 1 to 8. The first one is the main one: when it ends, the job ends. They share a private network.
    pub services: Vec<ServiceSpec>,
    /// What the node must have.
    #[serde(default)]
    pub requirements: Requirements,
    /// What the job may cost and how long it may take.
    pub limits: JobLimits,
    /// Folder inside the main container that is handed back as a tar when the job ends; absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_path: Option<String>,
    /// What its containers may reach beyond each other.
    #[serde(default, skip_serializing_if = "NetworkSpec::is_none")]
    pub network: NetworkSpec,
    /// Whether its renter may run commands in it and copy files while it runs (`fizz exec`, `fizz cp`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub interactive: bool,
}

impl JobSpec {
    /// What all its services use together: what a node must have free for it.
    #[must_use]
    pub fn resources(&self) -> Resources {
        let none = Resources { cpu_millis: 0, memory_bytes: 0, disk_bytes: 0, gpus: 0 };
        self.services.iter().fold(none, |sum, service| sum.plus(&service.resources))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) const fn is_false(value: &bool) -> bool {
    !*value
}

/// What the containers of a job may reach beyond each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkSpec {
    /// How far.
    pub reach: Reach,
    /// With [`Reach::Internet`]: only these domains, see [`super::domain`]: `example.com` is that name, `*.example.com` what is
    /// below it. Everything public when empty, or what the node's owner lends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
}

impl NetworkSpec {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.reach == Reach::None && self.domains.is_empty()
    }
}

/// How far a job's network reaches. The owner's own network is never in reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// The job's own containers only.
    #[default]
    None,
    /// Public addresses.
    Internet,
    /// A reach this build does not know; a node refuses it.
    #[serde(other)]
    Unknown,
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
    /// How well its containers must be separated from the node's owner, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Only nodes whose hardware has passed its newest challenge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proven: bool,
}

/// What separates a container from the machine it runs on, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Namespaces, cgroups, seccomp, no capabilities: the machine's own kernel.
    Container,
    /// The same, and root in the container is nobody outside (user namespace).
    UserNamespace,
    /// A kernel of its own in user space (gVisor).
    Gvisor,
    /// A virtual machine of its own (Kata Containers).
    Kata,
    /// A kind this build does not know; satisfies nothing and is satisfied by nothing.
    #[serde(other)]
    Unknown,
}

impl Isolation {
    /// Whether this one is at least as strong as `wanted`.
    #[must_use]
    pub const fn satisfies(self, wanted: Self) -> bool {
        match (self.strength(), wanted.strength()) {
            (Some(here), Some(wanted)) => here >= wanted,
            (None, _) | (_, None) => false,
        }
    }

    const fn strength(self) -> Option<u8> {
        match self {
            Self::Container => Some(0),
            Self::UserNamespace => Some(1),
            Self::Gvisor => Some(2),
            Self::Kata => Some(3),
            Self::Unknown => None,
        }
    }
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

impl Default for JobLimits {
    /// The lowest price, one hour, and the documented default of everything else.
    fn default() -> Self {
        Self {
            price_max: HourlyRate::MIN,
            duration_seconds_max: 3600,
            start_deadline_seconds: None,
            stop_grace_seconds: default_stop_grace_seconds(),
            log_bytes_max: default_log_bytes_max(),
            output_bytes_max: default_output_bytes_max(),
            pids_max: default_pids_max(),
        }
    }
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
    /// Milliseconds of running time that were paid, once a lease was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid_millis: Option<u64>,
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
