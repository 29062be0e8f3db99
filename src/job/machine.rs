//! The life of one lease as a pure machine: what happened goes in, what to record and what to do comes out.
//!
//! `Assigned → Pulling → Starting → Running ⇄ Frozen → Collecting → Closing → Reporting → Over`, and
//! `Running → Restarting → Running` where the job's restart policy says so. The stages are those of the main container; the other
//! services have stages of their own, in `companions`.
//!
//! Invariants
//! - What a [`Step`] says to record is recorded before any of its actions that could not be repeated; [`Input::Begin`] takes any recorded state up again.
//! - A container is started from `Starting`, which is never entered again, and once per restart that was recorded before it.
//! - Time counts, for pay and for the longest duration, from the first container on that is started, whichever service's it is. None is
//!   started before the images and inputs of all are here: what strangers' servers can delay or break comes before what is paid.
//! - `Ended` is emitted exactly once, when log and output are accepted.
//! - The first cause of an end stays: a job stopped by its renter and then evicted was stopped.

mod companions;
mod ending;
mod freezing;
mod restart;
mod saved;
mod words;

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Steady;
use crate::runtime::gpu::GpuBinding;
use crate::runtime::{ContainerStatus, PinnedImage};
use crate::wire::lease::{FailureKind, LeaseChange, LeaseEnd};

pub use companions::{CompanionStage, SavedCompanion};
pub use restart::Restarts;
pub use saved::{Cause, CompanionPosition, LogPosition, Place, Saved, Stage, StreamPosition};
pub use words::{Action, Deed, Heard, Input, Now, ServiceTerms, Step, Terms};

/// Progress events are this far apart, in thousandths.
const PULL_EVENT_STEP: u16 = 100;
/// For so long a lease may hold its share of the node, unpaid, before it runs; counted anew when the agent begins anew.
const START_MAX: Duration = Duration::from_secs(3600);

/// How long the job has been running, as this process saw it.
#[derive(Debug, Clone, Copy)]
struct Running {
    before: Duration,
    since: Steady,
}

/// One lease.
#[derive(Debug, Clone)]
pub struct Machine {
    terms: Terms,
    saved: Saved,
    begun: bool,
    /// When it must run at the latest.
    start_by: Option<Steady>,
    dropped: Option<bool>,
    running: Option<Running>,
    wants_freeze: Option<String>,
    pull_reported: u16,
    /// When the main container is started again, while that is waited for.
    restart_at: Option<Steady>,
    main_created: bool,
    main_starting: bool,
    /// Whether the main container runs and is healthy, for companions that depend on it.
    main_ready: bool,
    log_closing: bool,
    companions: Vec<companions::Live>,
}

impl Machine {
    /// Takes a lease up where it was recorded.
    #[must_use]
    pub fn new(terms: Terms, mut saved: Saved) -> Self {
        saved.companions.resize_with(terms.companions.len(), SavedCompanion::default);
        saved.began_at = saved.began_at.or(saved.started_at);
        Self {
            companions: vec![companions::Live::default(); terms.companions.len()],
            terms,
            saved,
            begun: false,
            start_by: None,
            dropped: None,
            running: None,
            wants_freeze: None,
            pull_reported: 0,
            restart_at: None,
            main_created: false,
            main_starting: false,
            main_ready: false,
            log_closing: false,
        }
    }

    /// The GPUs it gets, before it begins; recorded with its first step.
    pub fn bind_gpus(&mut self, gpus: Vec<GpuBinding>) {
        self.saved.gpus = gpus;
    }

    /// What must survive the agent.
    #[must_use]
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// When [`Input::Tick`] should come, if nothing else does.
    #[must_use]
    pub fn deadline(&self) -> Option<Steady> {
        [self.start_by(), self.time_out_at(), self.restart_at, self.companions_deadline()].into_iter().flatten().min()
    }

    /// When it is given back unless it runs by then: images and inputs come from strangers, who may send a byte an hour.
    fn start_by(&self) -> Option<Steady> {
        let waits = matches!(self.saved.stage, Stage::Assigned | Stage::Pulling | Stage::Starting);
        let free = self.running.is_none() && self.saved.cause.is_none() && self.dropped.is_none();
        self.start_by.filter(|_| waits && free)
    }

    /// When it will have run for as long as it may. Waiting counts (restarts, services): the lease holds its share of the node.
    fn time_out_at(&self) -> Option<Steady> {
        let runs = matches!(self.saved.stage, Stage::Starting | Stage::Running | Stage::Restarting);
        let running = self.running.filter(|_| runs && self.saved.cause.is_none())?;
        Some(running.since.after(self.duration_max().saturating_sub(running.before)))
    }

    /// Milliseconds the job has run so far: from its first container's first start on, frozen time left out.
    #[must_use]
    pub fn ran_millis(&self, now: Steady) -> u64 {
        match (self.running, self.saved.stage) {
            (Some(running), Stage::Starting | Stage::Running | Stage::Restarting) => {
                millis(running.before + now.since(running.since))
            }
            (Some(running), Stage::Frozen) => millis(running.before),
            (
                _,
                Stage::Assigned
                | Stage::Pulling
                | Stage::Starting
                | Stage::Running
                | Stage::Frozen
                | Stage::Restarting
                | Stage::Collecting
                | Stage::Closing
                | Stage::Reporting
                | Stage::Over,
            ) => self.saved.ran_millis,
        }
    }

    /// Says what follows from an input. Inputs that make no sense where the lease stands change nothing.
    #[must_use]
    pub fn handle(&mut self, input: Input, now: Now) -> Step {
        if self.dropped.is_some() && !matches!(input, Input::Removed | Input::Drop { .. }) {
            return Step::default();
        }
        let mut step = self.take(input, now);
        if self.begun && self.dropped.is_none() && !self.companions.is_empty() {
            self.attend(&mut step, now);
        }
        step
    }

    fn take(&mut self, input: Input, now: Now) -> Step {
        match input {
            Input::Begin => self.begin(now),
            Input::Stop => self.end_because(Cause::Stopped, now),
            Input::Evict { reason } => self.end_because(Cause::Evicted { reason }, now),
            Input::DiskFull => self.disk_full(now),
            Input::OverLimit { limit, value } => self.over_limit(limit, value, now),
            Input::GiveUp { why, detail } => self.end_because(Cause::Failed { why, detail }, now),
            Input::Drop { forget } => self.drop_lease(forget),
            Input::Freeze { reason } => self.freeze(reason),
            Input::Thaw => self.thaw(),
            Input::PullMoved { per_mille } => self.pull_moved(per_mille),
            Input::Heard { index: 0, heard } => self.heard(heard, now),
            Input::Heard { index, heard } => self.companion(index, heard, now),
            Input::Froze { reason } => self.froze(reason, now),
            Input::Thawed => self.thawed(now),
            Input::Tick => self.tick(now),
            Input::Collected { notice } => self.collected(notice),
            Input::LogClosed => self.log_closed(),
            Input::Reported if self.saved.stage == Stage::Reporting => Step::act(Action::Remove),
            Input::Reported => Step::default(),
            Input::Removed => self.removed(),
        }
    }

    /// Something happened to the main container.
    fn heard(&mut self, heard: Heard, now: Now) -> Step {
        match heard {
            Heard::Pulled(image) => self.pulled(image),
            Heard::Created { container } => self.created(container, now),
            Heard::Started { started_at } => self.started(started_at, now),
            Heard::Attached(status) => self.attached(&status, now),
            Heard::Exited { exit, with_engine } => self.exited(&exit, with_engine, now),
            Heard::Failed { why, detail } => self.failed(why, detail, now),
            Heard::Healthy => self.healthy(),
            Heard::Unhealthy { detail } => self.unhealthy(detail),
        }
    }

    fn begin(&mut self, now: Now) -> Step {
        self.begun = true;
        self.start_by.get_or_insert(now.steady.after(START_MAX));
        // Where the main container was started, it says itself since when.
        if let (Some(began_at), Stage::Starting) = (self.saved.began_at, self.saved.stage) {
            self.running = Some(Running { before: between(began_at, now.wall), since: now.steady });
        }
        let mut actions = self.begin_companions();
        let mut step = match self.saved.stage {
            Stage::Assigned | Stage::Pulling | Stage::Starting if self.saved.cause.is_some() => {
                self.never_ran(None, now)
            }
            Stage::Assigned => {
                self.saved.stage = Stage::Pulling;
                Step::recorded(vec![LeaseChange::Pulling { per_mille: None }], vec![Action::main(Deed::Pull)])
            }
            Stage::Pulling => Step::act(Action::main(Deed::Pull)),
            Stage::Starting => Step::act(Action::main(Deed::Create)),
            Stage::Running | Stage::Frozen | Stage::Restarting => Step::act(Action::main(Deed::Attach)),
            Stage::Collecting => {
                Step { actions: vec![Action::main(Deed::ReadLog), Action::Collect], ..Step::default() }
            }
            Stage::Closing => {
                let mut actions =
                    if self.saved.started_at.is_some() { vec![Action::main(Deed::ReadLog)] } else { Vec::new() };
                actions.extend(self.close_log(self.saved.notice.clone()));
                Step { actions, ..Step::default() }
            }
            Stage::Reporting => Step::act(Action::Report),
            Stage::Over => Step::act(Action::Finish),
        };
        // Their logs are opened before the lease's log may be closed.
        actions.append(&mut step.actions);
        Step { actions, ..step }
    }

    /// Whether the main container will not run any more.
    fn main_is_over(&self) -> bool {
        match self.saved.stage {
            Stage::Assigned | Stage::Pulling | Stage::Starting | Stage::Running | Stage::Frozen | Stage::Restarting => {
                false
            }
            Stage::Collecting | Stage::Closing | Stage::Reporting | Stage::Over => true,
        }
    }

    fn drop_lease(&mut self, forget: bool) -> Step {
        let first = self.dropped.is_none();
        self.dropped = Some(forget || self.dropped == Some(true));
        if self.saved.stage == Stage::Over {
            let actions = if forget { vec![Action::Forget, Action::Finish] } else { vec![Action::Finish] };
            return Step { actions, ..Step::default() };
        }
        if first { Step::act(Action::Remove) } else { Step::default() }
    }

    fn pull_moved(&mut self, per_mille: u16) -> Step {
        if self.saved.stage != Stage::Pulling || per_mille < self.pull_reported.saturating_add(PULL_EVENT_STEP) {
            return Step::default();
        }
        self.pull_reported = per_mille;
        Step::recorded(vec![LeaseChange::Pulling { per_mille: Some(per_mille.min(1000)) }], Vec::new())
    }

    fn pulled(&mut self, image: PinnedImage) -> Step {
        if self.saved.stage != Stage::Pulling {
            return Step::default();
        }
        self.saved.stage = Stage::Starting;
        let change = LeaseChange::Starting { image_digest: image.digest.clone() };
        self.saved.image = Some(image);
        Step::recorded(vec![change], vec![Action::main(Deed::Create)])
    }

    fn created(&mut self, container: String, now: Now) -> Step {
        if self.saved.stage != Stage::Starting {
            return Step::default();
        }
        self.saved.container = Some(container);
        self.main_created = true;
        // Not recorded: until it runs, the engine is asked for it by label.
        if self.saved.cause.is_some() {
            return self.never_ran(None, now);
        }
        // With companions, `attend` says when.
        if !self.companions.is_empty() {
            return Step::default();
        }
        self.main_starting = true;
        Step::act(Action::main(Deed::Start))
    }

    fn started(&mut self, started_at: Timestamp, now: Now) -> Step {
        match self.saved.stage {
            Stage::Starting => {
                self.saved.started_at = Some(started_at);
                let changes = self.time_begins(started_at, now);
                self.runs(changes)
            }
            Stage::Restarting => self.runs(Vec::new()),
            Stage::Assigned
            | Stage::Pulling
            | Stage::Running
            | Stage::Frozen
            | Stage::Collecting
            | Stage::Closing
            | Stage::Reporting
            | Stage::Over => Step::default(),
        }
    }

    fn runs(&mut self, changes: Vec<LeaseChange>) -> Step {
        self.saved.stage = Stage::Running;
        self.main_ready = !self.terms.main.has_health;
        Step::recorded(changes, self.follow())
    }

    /// What a container that runs needs.
    fn follow(&self) -> Vec<Action> {
        let mut actions = vec![Action::main(Deed::Watch), Action::main(Deed::ReadLog)];
        if self.saved.cause.is_some() || self.saved.unhealthy.is_some() {
            actions.push(self.ending());
        } else if let Some(reason) = &self.wants_freeze
            && self.saved.stage == Stage::Running
        {
            actions.push(Action::Freeze { reason: reason.clone() });
        } else if self.terms.main.has_health && self.saved.stage == Stage::Running {
            actions.push(Action::main(Deed::CheckHealth));
        }
        actions
    }

    fn attached(&mut self, status: &ContainerStatus, now: Now) -> Step {
        if !matches!(self.saved.stage, Stage::Running | Stage::Frozen | Stage::Restarting) || self.running.is_some() {
            return Step::default();
        }
        let started_at = match status {
            ContainerStatus::Running { started_at } | ContainerStatus::Paused { started_at } => *started_at,
            ContainerStatus::Exited(exit) => exit.started_at,
            ContainerStatus::Created => {
                let detail = "the container that ran is new again".to_owned();
                return self.failed(FailureKind::ContainerVanished, detail, now);
            }
        };
        let since = self.saved.began_at.unwrap_or(started_at);
        let frozen = self.saved.frozen_millis + self.present_freeze(now.wall);
        let before = between(since, now.wall).saturating_sub(Duration::from_millis(frozen));
        self.running = Some(Running { before, since: now.steady });
        if self.saved.stage == Stage::Restarting {
            return self.attached_restarting(status, now);
        }
        self.main_ready = !self.terms.main.has_health;
        let mut step = Step { actions: self.follow(), ..Step::default() };
        match (status, self.saved.stage) {
            // Killed between freezing and writing it down, or frozen by somebody else: nobody here wants it frozen.
            (ContainerStatus::Paused { .. }, Stage::Running) if self.wants_freeze.is_none() => {
                step.actions.push(Action::Thaw);
            }
            (ContainerStatus::Running { .. }, Stage::Frozen) => {
                let thawed = self.thawed(now);
                step.record = thawed.record;
                step.changes = thawed.changes;
                step.actions.extend(thawed.actions);
            }
            (
                ContainerStatus::Running { .. }
                | ContainerStatus::Paused { .. }
                | ContainerStatus::Exited(_)
                | ContainerStatus::Created,
                _,
            ) => {}
        }
        step
    }

    fn tick(&mut self, now: Now) -> Step {
        if self.start_by().is_some_and(|at| at <= now.steady) {
            return self.end_because(self.too_late(), now);
        }
        let mut actions = self.companions_due(now.steady);
        if self.time_out_at().is_some_and(|at| at <= now.steady) {
            let mut step = self.end_because(Cause::TimedOut, now);
            step.actions.append(&mut actions);
            return step;
        }
        if let (Some(_), Some(ended_at)) =
            (self.restart_at.take_if(|at| *at <= now.steady), self.saved.restarts.ended_at)
        {
            actions.push(Action::main(Deed::Restart { ended_at }));
        }
        Step { actions, ..Step::default() }
    }

    fn healthy(&mut self) -> Step {
        self.main_ready = self.saved.stage == Stage::Running;
        Step::default()
    }

    fn unhealthy(&mut self, detail: String) -> Step {
        let runs = matches!(self.saved.stage, Stage::Running | Stage::Frozen);
        if !runs || self.saved.cause.is_some() || self.saved.unhealthy.is_some() {
            return Step::default();
        }
        self.saved.unhealthy = Some(detail);
        self.main_ready = false;
        Step::recorded(Vec::new(), vec![Action::main(Deed::Terminate)])
    }

    fn collected(&mut self, notice: Option<String>) -> Step {
        if self.saved.stage != Stage::Collecting {
            return Step::default();
        }
        self.saved.stage = Stage::Closing;
        let actions = self.close_log(notice).into_iter().collect();
        Step::recorded(Vec::new(), actions)
    }

    fn log_closed(&mut self) -> Step {
        if self.saved.stage != Stage::Closing {
            return Step::default();
        }
        self.saved.stage = Stage::Reporting;
        let end = self.saved.end.clone().unwrap_or(LeaseEnd::Unknown);
        let change = LeaseChange::Ended { end, ran_millis: self.saved.ran_millis };
        Step::recorded(vec![change], vec![Action::Report])
    }

    fn removed(&mut self) -> Step {
        if self.dropped.is_none() && self.saved.stage != Stage::Reporting {
            return Step::default();
        }
        self.saved.stage = Stage::Over;
        if self.dropped == Some(true) {
            return Step { actions: vec![Action::Forget, Action::Finish], ..Step::default() };
        }
        Step::recorded(Vec::new(), vec![Action::Finish])
    }

    fn duration_max(&self) -> Duration {
        Duration::from_secs(self.terms.duration_seconds_max)
    }
}

/// From one wall time to a later one; zero when it is not later.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod any_order_tests;
#[cfg(test)]
mod paid_tests;
#[cfg(test)]
mod tests;
