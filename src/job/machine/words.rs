//! What the machine is told and what it answers.

use jiff::Timestamp;

use crate::clock::Steady;
use crate::runtime::{ContainerExit, ContainerStatus, PinnedImage};
use crate::wire::job::{JobSpec, RestartPolicy, ServiceSpec};
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Longest running time in seconds, frozen time left out.
    pub duration_seconds_max: u64,
    /// Memory limit in bytes.
    pub memory_bytes: u64,
    /// Disk of the main service in bytes.
    pub disk_bytes: u64,
    /// Whether there is an output folder to hand over.
    pub has_output: bool,
    /// The main service.
    pub main: ServiceTerms,
    /// The others, in the job's order.
    pub companions: Vec<ServiceTerms>,
}

/// What the machine knows of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceTerms {
    /// Its name within the job.
    pub name: String,
    /// Numbers of the services that must be ready before it starts.
    pub depends_on: Vec<usize>,
    /// After which ends it is started again.
    pub restart: RestartPolicy,
    /// Whether there is a way to find out whether it works.
    pub has_health: bool,
}

impl Terms {
    /// From what the renter submitted.
    #[must_use]
    pub fn of(spec: &JobSpec) -> Self {
        Self {
            duration_seconds_max: spec.limits.duration_seconds_max,
            memory_bytes: spec.services.first().map_or(0, |service| service.resources.memory_bytes),
            disk_bytes: spec.services.first().map_or(0, |service| service.resources.disk_bytes),
            has_output: spec.output_path.is_some(),
            main: spec.services.first().map(|service| ServiceTerms::of(service, spec)).unwrap_or_default(),
            companions: spec.services.iter().skip(1).map(|service| ServiceTerms::of(service, spec)).collect(),
        }
    }
}

impl ServiceTerms {
    fn of(service: &ServiceSpec, job: &JobSpec) -> Self {
        let number = |name: &String| job.services.iter().position(|other| other.name == *name);
        Self {
            name: service.name.clone(),
            depends_on: service.depends_on.iter().filter_map(number).collect(),
            restart: service.restart,
            has_health: service.health.is_some(),
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
    /// One of its containers was seen to use more of something than it may.
    OverLimit {
        /// Of what.
        limit: LimitKind,
        /// The limit, in that kind's unit.
        value: u64,
    },
    /// The owner's disk is nearly full.
    DiskFull,
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
    /// The node cannot let it go on although its containers run: they are ended.
    GiveUp {
        /// Why.
        why: FailureKind,
        /// For people.
        detail: String,
    },
    /// Something happened to one of its containers.
    Heard {
        /// Number of its service; 0 is the main one.
        index: usize,
        /// What.
        heard: Heard,
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

/// What can be heard of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Its image is here.
    Pulled(PinnedImage),
    /// It exists.
    Created {
        /// The engine's id.
        container: String,
    },
    /// It was started, now or before.
    Started {
        /// By the engine's clock.
        started_at: Timestamp,
    },
    /// What it was found to be after a restart of the agent.
    Attached(ContainerStatus),
    /// It ended.
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
    /// Its health check succeeded for the first time since it was started or thawed.
    Healthy,
    /// Its health check failed too often.
    Unhealthy {
        /// What it said.
        detail: String,
    },
}

impl Input {
    /// What was heard of the main container.
    #[must_use]
    pub const fn main(heard: Heard) -> Self {
        Self::Heard { index: 0, heard }
    }
}

/// What can be done for one container; answered with [`Heard`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Make sure its image is here; answer [`Heard::Pulled`] or [`Heard::Failed`].
    Pull,
    /// Make it or find it; answer [`Heard::Created`] or [`Heard::Failed`].
    Create,
    /// Start it unless it was started before; answer [`Heard::Started`] or [`Heard::Failed`].
    Start,
    /// Start it again, unless it was started since that end; answer [`Heard::Started`] or [`Heard::Failed`].
    Restart {
        /// The end that it follows.
        ended_at: Timestamp,
    },
    /// Look at it after a restart of the agent; answer [`Heard::Attached`] or [`Heard::Failed`].
    Attach,
    /// Wait for its end; answer [`Heard::Exited`] or [`Heard::Failed`].
    Watch,
    /// Hand its log over as it comes, or go on with it after a restart of the container.
    ReadLog,
    /// Try again and again whether it works, until it ends or is frozen; answer [`Heard::Healthy`] once, [`Heard::Unhealthy`].
    CheckHealth,
    /// SIGTERM, grace, SIGKILL.
    Terminate,
    /// SIGKILL at once.
    Kill,
    /// Freeze it alone; nothing is answered.
    Freeze,
    /// Thaw it alone; nothing is answered.
    Thaw,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Do something for one of its containers.
    Service {
        /// Number of its service; 0 is the main one.
        index: usize,
        /// What.
        deed: Deed,
    },
    /// Give up the main container's pull.
    CancelPull,
    /// Freeze every container that runs; answer [`Input::Froze`].
    Freeze {
        /// For people.
        reason: String,
    },
    /// Thaw all of them; answer [`Input::Thawed`].
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
    /// Kill and remove the containers, stop everything else; answer [`Input::Removed`].
    Remove,
    /// Forget the lease in the journal.
    Forget,
    /// The task ends.
    Finish,
}

impl Action {
    /// Does something for the main container.
    #[must_use]
    pub const fn main(deed: Deed) -> Self {
        Self::Service { index: 0, deed }
    }
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
