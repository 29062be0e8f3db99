//! What the machine is told and what it answers.

use jiff::Timestamp;

use crate::clock::Steady;
use crate::runtime::{ContainerExit, ContainerStatus, PinnedImage};
use crate::wire::job::JobSpec;
use crate::wire::lease::{FailureKind, LeaseChange, LimitKind};

/// The moment an input is handled.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For records.
    pub wall: Timestamp,
    /// For durations.
    pub steady: Steady,
}

/// What the machine knows of its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Longest running time in seconds, frozen time left out.
    pub duration_seconds_max: u64,
    /// Memory limit in bytes.
    pub memory_bytes: u64,
    /// Whether there is an output folder to hand over.
    pub has_output: bool,
}

impl Terms {
    /// From what the renter submitted.
    #[must_use]
    pub fn of(spec: &JobSpec) -> Self {
        Self {
            duration_seconds_max: spec.limits.duration_seconds_max,
            memory_bytes: spec.services.first().map_or(0, |service| service.resources.memory_bytes),
            has_output: spec.output_path.is_some(),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The task begins, for the first time or after a restart.
    Begin,
    /// The renter wants it to end.
    Stop,
    /// The node gives it back.
    Evict {
        /// For people.
        reason: String,
    },
    /// It was seen to use more of something than it may.
    OverLimit {
        /// Of what.
        limit: LimitKind,
        /// The limit, in that kind's unit.
        value: u64,
    },
    /// The coordinator has ended it; nobody wants to hear of it any more.
    Drop {
        /// Whether the journal should forget it too.
        forget: bool,
    },
    /// The owner needs the machine.
    Freeze {
        /// For people.
        reason: String,
    },
    /// The owner does not need it any more.
    Thaw,
    /// The pull moved.
    PullMoved {
        /// How far, 0 to 1000.
        per_mille: u16,
    },
    /// The image is here.
    Pulled(PinnedImage),
    /// The container exists.
    Created {
        /// The engine's id.
        container: String,
    },
    /// The container was started, now or before a restart.
    Started {
        /// By the engine's clock.
        started_at: Timestamp,
    },
    /// What the container was found to be after a restart of the agent.
    Attached(ContainerStatus),
    /// The container ended.
    Exited {
        /// How.
        exit: ContainerExit,
        /// Whether the engine was away at that time: it may have taken the container along, and the end of its log.
        with_engine: bool,
    },
    /// It cannot go on.
    Failed {
        /// Why.
        why: FailureKind,
        /// For people.
        detail: String,
    },
    /// A freeze took hold.
    Froze {
        /// For people.
        reason: String,
    },
    /// The container runs again.
    Thawed,
    /// Time passed; see [`Machine::deadline`].
    Tick,
    /// The output was handed over, or there is none and the log should say why.
    Collected {
        /// The sentence for the log.
        notice: Option<String>,
    },
    /// The whole log was accepted.
    LogClosed,
    /// Every event was accepted.
    Reported,
    /// The container is gone.
    Removed,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make sure the image is here; answer [`Input::Pulled`] or [`Input::Failed`].
    Pull,
    /// Give up a pull that goes on.
    CancelPull,
    /// Make the container or find it; answer [`Input::Created`] or [`Input::Failed`].
    Create,
    /// Start it unless it was started before; answer [`Input::Started`] or [`Input::Failed`].
    Start,
    /// Look at the container after a restart; answer [`Input::Attached`] or [`Input::Failed`].
    Attach,
    /// Wait for its end; answer [`Input::Exited`] or [`Input::Failed`].
    Watch,
    /// Hand its log over as it comes.
    ReadLog,
    /// SIGTERM, grace, SIGKILL.
    Terminate,
    /// SIGKILL at once.
    Kill,
    /// Freeze it; answer [`Input::Froze`].
    Freeze {
        /// For people.
        reason: String,
    },
    /// Thaw it; answer [`Input::Thawed`].
    Thaw,
    /// Hand the output folder over; answer [`Input::Collected`].
    Collect,
    /// Hand the rest of the log over, with this sentence at its end; answer [`Input::LogClosed`].
    CloseLog {
        /// The sentence.
        notice: Option<String>,
    },
    /// Answer [`Input::Reported`] once the outbox is empty.
    Report,
    /// Kill and remove the container, stop everything else; answer [`Input::Removed`].
    Remove,
    /// Forget the lease in the journal.
    Forget,
    /// The task ends.
    Finish,
}

/// What follows from an input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// Whether [`Machine::saved`] must be recorded, together with `changes`, before anything is done.
    pub record: bool,
    /// What the coordinator should hear, in order.
    pub changes: Vec<LeaseChange>,
    /// What to do, in order.
    pub actions: Vec<Action>,
}

impl Step {
    pub(super) fn act(action: Action) -> Self {
        Self { record: false, changes: Vec::new(), actions: vec![action] }
    }

    pub(super) fn recorded(changes: Vec<LeaseChange>, actions: Vec<Action>) -> Self {
        Self { record: true, changes, actions }
    }
}
