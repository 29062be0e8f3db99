//! What of a lease must survive the agent: written to the journal before it is acted upon.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::companions::SavedCompanion;
use super::restart::Restarts;
use crate::runtime::PinnedImage;
use crate::runtime::gpu::GpuBinding;
use crate::wire::lease::{FailureKind, LeaseEnd, LeasePhase, LimitKind};

/// Where a lease stands; a little finer than [`LeasePhase`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Placed, not yet taken up.
    #[default]
    Assigned,
    /// The image is being fetched.
    Pulling,
    /// The container is being created and started; whether it exists, the engine knows.
    Starting,
    /// The container runs.
    Running,
    /// The container is frozen.
    Frozen,
    /// The container ended and is started again; whether it was, the engine knows.
    Restarting,
    /// The container ended; its output is being handed over, its log goes on.
    Collecting,
    /// The output is done; the log is being completed.
    Closing,
    /// The last event is in the outbox; then the container is removed.
    Reporting,
    /// Nothing is left to do.
    Over,
}

/// Why a container is being brought to its end; the first one stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// The renter asked.
    Stopped,
    /// The owner or the agent gave it back.
    Evicted {
        /// For people.
        reason: String,
    },
    /// It ran for as long as it may.
    TimedOut,
    /// It used too much of something.
    OverLimit {
        /// Of what.
        limit: LimitKind,
        /// The limit.
        value: u64,
    },
    /// A companion's health check failed past its restart policy.
    Unhealthy {
        /// For people.
        detail: String,
    },
    /// A companion ended with a failure past its restart policy.
    ServiceFailed {
        /// Which one.
        service: String,
        /// Its exit code.
        code: i32,
    },
    /// The node cannot let it go on.
    Failed {
        /// Why.
        why: FailureKind,
        /// For people.
        detail: String,
    },
}

/// All of a lease that the journal keeps besides its assignment and its log position.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Where it stands.
    pub stage: Stage,
    /// The image it was pinned to.
    #[serde(default)]
    pub image: Option<PinnedImage>,
    /// The GPUs it has, recorded before a container is made with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuBinding>,
    /// The engine's id of the container.
    #[serde(default)]
    pub container: Option<String>,
    /// When the container was started, by the engine's clock.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When the first container of the lease was started, be it another service's: from then on time counts. Older
    /// versions counted from `started_at` on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_at: Option<Timestamp>,
    /// Milliseconds it was frozen, finished freezes only.
    #[serde(default)]
    pub frozen_millis: u64,
    /// When the present freeze began.
    #[serde(default)]
    pub frozen_since: Option<Timestamp>,
    /// Milliseconds the job ran, frozen time left out; final once it has ended.
    #[serde(default)]
    pub ran_millis: u64,
    /// Why it is being ended, when it does not end by itself.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// How it ended, once that is known.
    #[serde(default)]
    pub end: Option<LeaseEnd>,
    /// Sentence about the output that the log still has to carry.
    #[serde(default)]
    pub notice: Option<String>,
    /// How often the main container was started again.
    #[serde(default)]
    pub restarts: Restarts,
    /// What the main container's health check said, when it is being ended for that.
    #[serde(default)]
    pub unhealthy: Option<String>,
    /// The other services, in the job's order.
    #[serde(default)]
    pub companions: Vec<SavedCompanion>,
}

impl Saved {
    /// The phase as the wire has it.
    #[must_use]
    pub fn phase(&self) -> LeasePhase {
        match self.stage {
            Stage::Assigned => LeasePhase::Assigned,
            Stage::Pulling => LeasePhase::Pulling,
            Stage::Starting if self.began_at.is_none() => LeasePhase::Starting,
            Stage::Starting | Stage::Running | Stage::Restarting => LeasePhase::Running,
            Stage::Frozen => LeasePhase::Frozen,
            Stage::Collecting | Stage::Closing => LeasePhase::Collecting,
            Stage::Reporting | Stage::Over => self.end.as_ref().map_or(LeasePhase::Failed, LeaseEnd::phase),
        }
    }
}

/// How far one stream of the log has been handed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPosition {
    /// Time of the newest entry that was accepted, nanoseconds since the epoch.
    pub at_nanos: i128,
    /// How many entries of exactly that time were accepted.
    pub count: u64,
}

/// How far the log of one container has been read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Of standard output.
    pub stdout: StreamPosition,
    /// Of standard error.
    pub stderr: StreamPosition,
}

/// How far a lease's log has been handed over. The framing of one container is deterministic, so that an older position is as good
/// as a newer one. How the logs of several were mingled is not: then the position behind a body is written down before it is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// Framed bytes the coordinator has accepted.
    pub offset: u64,
    /// Of the main container's standard output.
    pub stdout: StreamPosition,
    /// Of its standard error.
    pub stderr: StreamPosition,
    /// Whether the log reached its limit and said so; nothing of the job's follows.
    pub cut: bool,
    /// Whether the coordinator knows that nothing follows.
    pub complete: bool,
    /// Of the other containers, in the job's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub companions: Vec<CompanionPosition>,
    /// Behind the body that was on its way; the coordinator knows whether it has arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<Box<Self>>,
}

/// How far the log of a companion has been handed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanionPosition {
    /// Of its standard output.
    pub stdout: StreamPosition,
    /// Of its standard error.
    pub stderr: StreamPosition,
    /// Whether its standard output stands in the middle of a line.
    pub stdout_open: bool,
    /// Whether its standard error does.
    pub stderr_open: bool,
}

impl LogPosition {
    /// How far the container of service number `index` has been read; 0 is the main one.
    #[must_use]
    pub fn place(&self, index: usize) -> Place {
        match index.checked_sub(1) {
            None => Place { stdout: self.stdout, stderr: self.stderr },
            Some(slot) => self
                .companions
                .get(slot)
                .map_or_else(Place::default, |of| Place { stdout: of.stdout, stderr: of.stderr }),
        }
    }
}
