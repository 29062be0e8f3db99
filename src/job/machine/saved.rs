//! What of a lease must survive the agent: written to the journal before it is acted upon.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::runtime::PinnedImage;
use crate::wire::lease::{LeaseEnd, LeasePhase, LimitKind};

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
    /// It used more of something than it may.
    OverLimit {
        /// Of what.
        limit: LimitKind,
        /// The limit, in that kind's unit.
        value: u64,
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
    /// The engine's id of the container.
    #[serde(default)]
    pub container: Option<String>,
    /// When the container was started, by the engine's clock.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// Milliseconds it was frozen, finished freezes only.
    #[serde(default)]
    pub frozen_millis: u64,
    /// When the present freeze began.
    #[serde(default)]
    pub frozen_since: Option<Timestamp>,
    /// Milliseconds the container ran, frozen time left out; final once it has ended.
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
}

impl Saved {
    /// The phase as the wire has it.
    #[must_use]
    pub fn phase(&self) -> LeasePhase {
        match self.stage {
            Stage::Assigned => LeasePhase::Assigned,
            Stage::Pulling => LeasePhase::Pulling,
            Stage::Starting => LeasePhase::Starting,
            Stage::Running => LeasePhase::Running,
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

/// How far a lease's log has been handed over. Framing is deterministic, so an older position is as good as a newer one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// Framed bytes the coordinator has accepted.
    pub offset: u64,
    /// Of standard output.
    pub stdout: StreamPosition,
    /// Of standard error.
    pub stderr: StreamPosition,
    /// Whether the log reached its limit and said so; nothing of the job's follows.
    pub cut: bool,
    /// Whether the coordinator knows that nothing follows.
    pub complete: bool,
}
