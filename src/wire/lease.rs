//! Leases: the coordinator's desired state for a node, and what the node says happened.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::challenge::PendingChallenge;
use super::ids::{Generation, JobId, LeaseId, Sequence};
use super::job::JobSpec;
use super::money::HourlyRate;
use super::reach::PendingReach;

mod words;

pub use words::Told;

/// `GET /v1/node/assignments?after=G&wait=25`: everything that should be on the node now.
///
/// Level-triggered: a lease that is not listed should not exist on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Assignments {
    /// Version of this desired state.
    pub generation: Generation,
    /// The leases that should be on the node.
    pub leases: Vec<Assignment>,
    /// What renters want to do in their running jobs and the node has not taken up yet. The call is answered at once when
    /// there is any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<PendingReach>,
    /// A challenge that waits for the node. The call is answered at once when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<PendingChallenge>,
}

/// One lease that should be on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Assignment {
    /// The lease.
    pub lease_id: LeaseId,
    /// The job behind it.
    pub job_id: JobId,
    /// Version of this lease's desired state.
    pub generation: Generation,
    /// Whether it should run or come to an end.
    pub desired: Desired,
    /// What an hour pays, before the network's fee.
    pub rate: HourlyRate,
    /// What to run.
    pub spec: JobSpec,
}

/// What the coordinator wants of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// Run to its end.
    Run,
    /// Stop (SIGTERM, grace, SIGKILL), then collect log and output as usual.
    Stop,
    /// A wish this build does not know; treated as `Run` for what already runs, never started.
    #[serde(other)]
    Unknown,
}

/// Where a lease stands on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeasePhase {
    /// Placed, not yet taken up.
    Assigned,
    /// The image is being fetched.
    Pulling,
    /// The container is being created and started.
    Starting,
    /// The container runs.
    Running,
    /// The container is frozen for the owner's sake.
    Frozen,
    /// The container ended; log and output are being handed over.
    Collecting,
    /// Ended, see [`LeaseEnd`].
    Done,
    /// Could not run, see [`LeaseEnd`].
    Failed,
    /// Given back by the node.
    Evicted,
    /// The coordinator's word for a lease whose node went silent past the grace period.
    Lost,
    /// A phase this build does not know.
    #[serde(other)]
    Unknown,
}

impl LeasePhase {
    /// Whether the lease is over.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Evicted | Self::Lost)
    }
}

/// `POST /v1/leases/{id}/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaseEvents {
    /// Events in order of their sequence; repeats are harmless.
    pub events: Vec<LeaseEvent>,
}

/// Answer to [`LeaseEvents`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventsAccepted {
    /// Every event up to this sequence is durable; send from the next one on.
    pub through: Sequence,
}

/// Something that happened to a lease on its node. Sequences start at 1 and have no gaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaseEvent {
    /// Place in this lease's stream of events.
    pub sequence: Sequence,
    /// When, by the coordinator's clock as the node knows it.
    pub at: Timestamp,
    /// What.
    pub what: LeaseChange,
}

/// What happened to a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LeaseChange {
    /// The pull began or moved on.
    Pulling {
        /// How far, 0 to 1000, when known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        per_mille: Option<u16>,
    },
    /// The image is here; the container is being made.
    Starting {
        /// The digest or local id the image was pinned to.
        image_digest: String,
    },
    /// The container runs.
    Running,
    /// Frozen for the owner's sake; frozen time is not paid.
    Frozen {
        /// For people.
        reason: String,
    },
    /// Runs again after a freeze.
    Thawed,
    /// A container ended and was started again, as its restart policy says.
    Restarted {
        /// Which service.
        service: String,
        /// How it had ended.
        code: i32,
        /// How often this service was started again so far.
        times: u32,
    },
    /// The container ended; log and output are on their way.
    Collecting,
    /// The lease is over. The last event of a lease, sent after its log and output were accepted.
    Ended {
        /// How it ended.
        end: LeaseEnd,
        /// Milliseconds the job ran: from its first container's start on, frozen time left out.
        ran_millis: u64,
    },
    /// An event this build does not know.
    #[serde(other)]
    Unknown,
}

/// How a lease ended: each end is typed, nobody guesses from an exit code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LeaseEnd {
    /// The container's main process ended.
    Exited {
        /// Its exit code; 128 + n when signal n ended it.
        code: i32,
    },
    /// The kernel ended it for using more memory than it asked for.
    OutOfMemory {
        /// The memory limit in bytes.
        limit_bytes: u64,
    },
    /// It reached its longest running time.
    TimedOut {
        /// The limit in seconds.
        limit_seconds: u64,
    },
    /// The renter stopped it.
    Stopped {
        /// Exit code after the stop.
        code: i32,
    },
    /// A signal ended its main process. Engines tell it as exit code 128 + n, as shells do.
    Signalled {
        /// The signal's number on Linux.
        signal: u8,
    },
    /// It used more of something than it asked for and was ended for it.
    OverLimit {
        /// Of what.
        limit: LimitKind,
        /// The limit, in that kind's unit.
        value: u64,
    },
    /// Its health check failed for good.
    Unhealthy {
        /// What the check said, for people.
        detail: String,
    },
    /// One of its services ended with a failure, and its restarts were used up.
    ServiceFailed {
        /// Which one.
        service: String,
        /// Its exit code.
        code: i32,
    },
    /// It could not be started or kept running.
    Failed {
        /// Why.
        why: FailureKind,
        /// What exactly happened, for people.
        detail: String,
    },
    /// The node gave it back: it may run elsewhere.
    Evicted {
        /// For people.
        reason: String,
    },
    /// The node went silent past the grace period (coordinator's word).
    Lost,
    /// An end this build does not know.
    #[serde(other)]
    Unknown,
}

impl LeaseEnd {
    /// The phase a lease with this end is in.
    #[must_use]
    pub const fn phase(&self) -> LeasePhase {
        match self {
            Self::Exited { .. }
            | Self::OutOfMemory { .. }
            | Self::TimedOut { .. }
            | Self::Stopped { .. }
            | Self::Signalled { .. }
            | Self::OverLimit { .. }
            | Self::Unhealthy { .. }
            | Self::ServiceFailed { .. } => LeasePhase::Done,
            Self::Failed { .. } | Self::Unknown => LeasePhase::Failed,
            Self::Evicted { .. } => LeasePhase::Evicted,
            Self::Lost => LeasePhase::Lost,
        }
    }

    /// Whether the job may run again on another node: the renter's job was not at fault.
    #[must_use]
    pub const fn retries_elsewhere(&self) -> bool {
        match self {
            Self::Evicted { .. } | Self::Lost => true,
            Self::Failed { why, .. } => why.is_the_nodes_fault(),
            Self::Exited { .. }
            | Self::OutOfMemory { .. }
            | Self::TimedOut { .. }
            | Self::Stopped { .. }
            | Self::Signalled { .. }
            | Self::OverLimit { .. }
            | Self::Unhealthy { .. }
            | Self::ServiceFailed { .. }
            | Self::Unknown => false,
        }
    }
}

/// What a container used too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// Bytes on disk.
    DiskBytes,
    /// Files on disk.
    DiskFiles,
    /// A limit this build does not know.
    #[serde(other)]
    Unknown,
}

/// Why a lease failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The registry has no such image, or it is private.
    ImageNotFound,
    /// The image is for another processor.
    ImageWrongArchitecture,
    /// The registry could not be reached or broke off.
    ImagePullFailed,
    /// The command is not in the image.
    CommandNotFound,
    /// The command is there but cannot be executed.
    CommandNotExecutable,
    /// What was asked for is not valid for the engine (bad working directory, bad name).
    InvalidSpec,
    /// The node's disk is full.
    NoSpace,
    /// The container engine does not answer.
    EngineUnavailable,
    /// The container engine refused or broke.
    EngineError,
    /// The output folder is missing, too large or could not be read.
    OutputFailed,
    /// The container vanished under the agent.
    ContainerVanished,
    /// The owner does not take images from there.
    ImageRefused,
    /// The image is not signed by anybody the owner trusts.
    ImageUnsigned,
    /// The node could not show that the job's network is cut off from the owner's.
    IsolationNotShown,
    /// The separation the job asks for cannot be had here.
    IsolationUnavailable,
    /// The engine or one of its parts has a known hole.
    EngineVulnerable,
    /// Not as many GPUs are free as the lease has.
    GpuUnavailable,
    /// A GPU was taken from the running container.
    GpuLost,
    /// An input could not be fetched.
    InputUnavailable,
    /// An input is not what its checksum says.
    InputMismatch,
    /// A failure this build does not know.
    #[serde(other)]
    Unknown,
}

impl FailureKind {
    /// Whether another node could do better with the same job.
    #[must_use]
    pub const fn is_the_nodes_fault(self) -> bool {
        match self {
            Self::NoSpace
            | Self::EngineUnavailable
            | Self::EngineError
            | Self::ContainerVanished
            | Self::ImagePullFailed
            | Self::ImageRefused
            | Self::ImageUnsigned
            | Self::IsolationNotShown
            | Self::IsolationUnavailable
            | Self::EngineVulnerable
            | Self::GpuUnavailable
            | Self::GpuLost
            | Self::InputUnavailable => true,
            Self::ImageNotFound
            | Self::ImageWrongArchitecture
            | Self::CommandNotFound
            | Self::CommandNotExecutable
            | Self::InvalidSpec
            | Self::OutputFailed
            | Self::InputMismatch
            | Self::Unknown => false,
        }
    }
}

/// Answer to a log upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogAccepted {
    /// Framed bytes the coordinator holds; send from here on.
    pub next_offset: u64,
}

/// Answer to a part of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputProgress {
    /// Every byte before this one is durable; send from here on.
    pub next_offset: u64,
}

/// `PUT /v1/leases/{id}/output`: all parts are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputFinished {
    /// Size of the tar in bytes.
    pub bytes: u64,
    /// SHA-256 of the tar, hex.
    pub sha256: String,
}

/// Answer to [`OutputFinished`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputAccepted {
    /// Size of the tar in bytes.
    pub bytes: u64,
    /// SHA-256 of the tar, hex.
    pub sha256: String,
}
