//! The life of one lease as a pure machine: what happened goes in, what to record and what to do comes out.
//!
//! `Assigned → Pulling → Starting → Running ⇄ Frozen → Collecting → Closing → Reporting → Over`
//!
//! Invariants
//! - What a [`Step`] says to record is recorded before any of its actions that could not be repeated; [`Input::Begin`] takes any recorded state up again.
//! - A container is started from `Starting` only, and `Starting` is never entered again.
//! - `Ended` is emitted exactly once, when log and output are accepted.
//! - The first cause of an end stays: a job stopped by its renter and then evicted was stopped.

mod saved;
mod words;

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Steady;
use crate::runtime::{ContainerExit, ContainerStatus, PinnedImage};
use crate::wire::lease::{FailureKind, LeaseChange, LeaseEnd, LimitKind};

pub use saved::{Cause, LogPosition, Saved, Stage, StreamPosition};
pub use words::{Action, Input, Now, Step, Terms};

/// What `SIGTERM` leaves as exit code; stands for a stop before there was anything to stop.
const CODE_TERMINATED: i32 = 143;
/// Progress events are this far apart, in thousandths.
const PULL_EVENT_STEP: u16 = 100;

/// How long the container has been running, as this process saw it.
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
    dropped: Option<bool>,
    running: Option<Running>,
    wants_freeze: Option<String>,
    pull_reported: u16,
}

impl Machine {
    /// Takes a lease up where it was recorded.
    #[must_use]
    pub fn new(terms: Terms, saved: Saved) -> Self {
        Self { terms, saved, begun: false, dropped: None, running: None, wants_freeze: None, pull_reported: 0 }
    }

    /// What must survive the agent.
    #[must_use]
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// When [`Input::Tick`] should come, if nothing else does.
    #[must_use]
    pub fn deadline(&self) -> Option<Steady> {
        let running = self.running.filter(|_| self.saved.stage == Stage::Running && self.saved.cause.is_none())?;
        Some(running.since.after(self.duration_max().saturating_sub(running.before)))
    }

    /// Milliseconds the container has run so far, frozen time left out.
    #[must_use]
    pub fn ran_millis(&self, now: Steady) -> u64 {
        match self.running {
            Some(running) if self.saved.stage == Stage::Running => millis(running.before + now.since(running.since)),
            Some(running) if self.saved.stage == Stage::Frozen => millis(running.before),
            Some(_) | None => self.saved.ran_millis,
        }
    }

    /// Says what follows from an input. Inputs that make no sense where the lease stands change nothing.
    #[must_use]
    pub fn handle(&mut self, input: Input, now: Now) -> Step {
        if self.dropped.is_some() && !matches!(input, Input::Removed | Input::Drop { .. }) {
            return Step::default();
        }
        match input {
            Input::Begin => self.begin(),
            Input::Stop => self.end_because(Cause::Stopped),
            Input::Evict { reason } => self.end_because(Cause::Evicted { reason }),
            Input::OverLimit { limit, value } => self.over_limit(limit, value),
            Input::Drop { forget } => self.drop_lease(forget),
            Input::Freeze { reason } => self.freeze(reason),
            Input::Thaw => self.thaw(),
            Input::PullMoved { per_mille } => self.pull_moved(per_mille),
            Input::Pulled(image) => self.pulled(image),
            Input::Created { container } => self.created(container),
            Input::Started { started_at } => self.started(started_at, now),
            Input::Attached(status) => self.attached(&status, now),
            Input::Exited { exit, with_engine } => self.exited(&exit, with_engine, now),
            Input::Failed { why, detail } => self.failed(why, detail, now),
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

    fn begin(&mut self) -> Step {
        self.begun = true;
        match self.saved.stage {
            Stage::Assigned | Stage::Pulling | Stage::Starting if self.saved.cause.is_some() => self.never_ran(None),
            Stage::Assigned => {
                self.saved.stage = Stage::Pulling;
                Step::recorded(vec![LeaseChange::Pulling { per_mille: None }], vec![Action::Pull])
            }
            Stage::Pulling => Step::act(Action::Pull),
            Stage::Starting => Step::act(Action::Create),
            Stage::Running | Stage::Frozen => Step::act(Action::Attach),
            Stage::Collecting => Step { actions: vec![Action::ReadLog, Action::Collect], ..Step::default() },
            Stage::Closing => {
                let mut actions = if self.saved.started_at.is_some() { vec![Action::ReadLog] } else { Vec::new() };
                actions.push(Action::CloseLog { notice: self.saved.notice.clone() });
                Step { actions, ..Step::default() }
            }
            Stage::Reporting => Step::act(Action::Report),
            Stage::Over => Step::act(Action::Finish),
        }
    }

    fn end_because(&mut self, cause: Cause) -> Step {
        if self.saved.cause.is_some() {
            return Step::default();
        }
        let stage = self.saved.stage;
        if matches!(stage, Stage::Collecting | Stage::Closing | Stage::Reporting | Stage::Over) {
            return Step::default();
        }
        self.saved.cause = Some(cause);
        match stage {
            _ if !self.begun => Step::recorded(Vec::new(), Vec::new()),
            Stage::Assigned | Stage::Pulling => self.never_ran(None),
            Stage::Running | Stage::Frozen => Step::recorded(Vec::new(), vec![self.ending()]),
            // Whether it was made or started comes as an answer; then it is ended.
            Stage::Starting | Stage::Collecting | Stage::Closing | Stage::Reporting | Stage::Over => {
                Step::recorded(Vec::new(), Vec::new())
            }
        }
    }

    /// What uses too much is not asked first. One that is being ended for another reason loses the rest of its grace.
    fn over_limit(&mut self, limit: LimitKind, value: u64) -> Step {
        match self.saved.stage {
            Stage::Running | Stage::Frozen if self.saved.cause.is_some() => Step::act(Action::Kill),
            Stage::Running | Stage::Frozen => self.end_because(Cause::OverLimit { limit, value }),
            Stage::Assigned
            | Stage::Pulling
            | Stage::Starting
            | Stage::Collecting
            | Stage::Closing
            | Stage::Reporting
            | Stage::Over => Step::default(),
        }
    }

    /// How a container that runs is brought to its end.
    fn ending(&self) -> Action {
        match &self.saved.cause {
            Some(Cause::OverLimit { .. }) => Action::Kill,
            Some(Cause::Stopped | Cause::Evicted { .. } | Cause::TimedOut) | None => Action::Terminate,
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

    fn freeze(&mut self, reason: String) -> Step {
        self.wants_freeze = Some(reason.clone());
        if self.saved.stage == Stage::Running && self.saved.cause.is_none() && self.begun {
            return Step::act(Action::Freeze { reason });
        }
        Step::default()
    }

    fn thaw(&mut self) -> Step {
        self.wants_freeze = None;
        if self.saved.stage == Stage::Frozen && self.begun { Step::act(Action::Thaw) } else { Step::default() }
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
        Step::recorded(vec![change], vec![Action::Create])
    }

    fn created(&mut self, container: String) -> Step {
        if self.saved.stage != Stage::Starting {
            return Step::default();
        }
        self.saved.container = Some(container);
        // Not recorded: until it runs, the engine is asked for it by label.
        if self.saved.cause.is_some() { self.never_ran(None) } else { Step::act(Action::Start) }
    }

    fn started(&mut self, started_at: Timestamp, now: Now) -> Step {
        if self.saved.stage != Stage::Starting {
            return Step::default();
        }
        self.saved.stage = Stage::Running;
        self.saved.started_at = Some(started_at);
        // Not zero when the agent was killed between the start and its record.
        self.running = Some(Running { before: between(started_at, now.wall), since: now.steady });
        Step::recorded(vec![LeaseChange::Running], self.follow())
    }

    /// What a container that runs needs.
    fn follow(&self) -> Vec<Action> {
        let mut actions = vec![Action::Watch, Action::ReadLog];
        if self.saved.cause.is_some() {
            actions.push(self.ending());
        } else if let Some(reason) = &self.wants_freeze
            && self.saved.stage == Stage::Running
        {
            actions.push(Action::Freeze { reason: reason.clone() });
        }
        actions
    }

    fn attached(&mut self, status: &ContainerStatus, now: Now) -> Step {
        if !matches!(self.saved.stage, Stage::Running | Stage::Frozen) || self.running.is_some() {
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
        let frozen = self.saved.frozen_millis + self.present_freeze(now.wall);
        let before = between(started_at, now.wall).saturating_sub(Duration::from_millis(frozen));
        self.running = Some(Running { before, since: now.steady });
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

    fn exited(&mut self, exit: &ContainerExit, with_engine: bool, now: Now) -> Step {
        if !matches!(self.saved.stage, Stage::Running | Stage::Frozen) {
            return Step::default();
        }
        let frozen = Duration::from_millis(self.saved.frozen_millis + self.present_freeze(exit.ended_at));
        let by_engine = between(exit.started_at, exit.ended_at).saturating_sub(frozen);
        // Neither a clock that was set nor the time until the end was noticed should be paid.
        let ran = by_engine.min(Duration::from_millis(self.ran_millis(now.steady)));
        let (code, limit_seconds) = (exit.code, self.terms.duration_seconds_max);
        let end = match &self.saved.cause {
            Some(Cause::Stopped) => LeaseEnd::Stopped { code },
            Some(Cause::Evicted { reason }) => LeaseEnd::Evicted { reason: reason.clone() },
            Some(Cause::TimedOut) => LeaseEnd::TimedOut { limit_seconds },
            Some(Cause::OverLimit { limit, value }) => LeaseEnd::OverLimit { limit: *limit, value: *value },
            None if exit.out_of_memory => LeaseEnd::OutOfMemory { limit_bytes: self.terms.memory_bytes },
            None if with_engine => LeaseEnd::Failed {
                why: FailureKind::EngineUnavailable,
                detail: format!("the container engine stopped while the job ran (exit code {code})"),
            },
            None => LeaseEnd::Exited { code },
        };
        self.ended(end, ran)
    }

    fn failed(&mut self, why: FailureKind, detail: String, now: Now) -> Step {
        match self.saved.stage {
            Stage::Assigned | Stage::Pulling | Stage::Starting => self.never_ran(Some((why, detail))),
            Stage::Running | Stage::Frozen => {
                let ran = Duration::from_millis(self.ran_millis(now.steady));
                let end = self.end_without_exit().unwrap_or(LeaseEnd::Failed { why, detail });
                self.ended(end, ran)
            }
            Stage::Collecting | Stage::Closing | Stage::Reporting | Stage::Over => Step::default(),
        }
    }

    /// The container is over: what is left is its output and its log.
    fn ended(&mut self, end: LeaseEnd, ran: Duration) -> Step {
        let wants_output = match &end {
            LeaseEnd::Exited { .. }
            | LeaseEnd::OutOfMemory { .. }
            | LeaseEnd::TimedOut { .. }
            | LeaseEnd::Signalled { .. }
            | LeaseEnd::OverLimit { .. }
            | LeaseEnd::Unhealthy { .. }
            | LeaseEnd::ServiceFailed { .. }
            | LeaseEnd::Stopped { .. } => self.terms.has_output,
            LeaseEnd::Failed { .. } | LeaseEnd::Evicted { .. } | LeaseEnd::Lost | LeaseEnd::Unknown => false,
        };
        self.saved.ran_millis = millis(ran);
        self.saved.end = Some(end);
        self.running = None;
        self.saved.frozen_since = None;
        let action = if wants_output {
            self.saved.stage = Stage::Collecting;
            Action::Collect
        } else {
            self.saved.stage = Stage::Closing;
            Action::CloseLog { notice: None }
        };
        Step::recorded(vec![LeaseChange::Collecting], vec![action])
    }

    /// The container was never started: there is no log and no output.
    fn never_ran(&mut self, failure: Option<(FailureKind, String)>) -> Step {
        let cancels = self.saved.stage == Stage::Pulling && failure.is_none() && self.begun;
        let (why, detail) = failure.unwrap_or((FailureKind::Unknown, String::new()));
        self.saved.end = Some(self.end_without_exit().unwrap_or(LeaseEnd::Failed { why, detail }));
        self.saved.stage = Stage::Closing;
        let mut actions = if cancels { vec![Action::CancelPull] } else { Vec::new() };
        actions.push(Action::CloseLog { notice: None });
        Step::recorded(Vec::new(), actions)
    }

    fn end_without_exit(&self) -> Option<LeaseEnd> {
        Some(match self.saved.cause.as_ref()? {
            Cause::Stopped => LeaseEnd::Stopped { code: CODE_TERMINATED },
            Cause::Evicted { reason } => LeaseEnd::Evicted { reason: reason.clone() },
            Cause::TimedOut => LeaseEnd::TimedOut { limit_seconds: self.terms.duration_seconds_max },
            Cause::OverLimit { limit, value } => LeaseEnd::OverLimit { limit: *limit, value: *value },
        })
    }

    fn froze(&mut self, reason: String, now: Now) -> Step {
        if self.saved.stage != Stage::Running {
            return Step::default();
        }
        if let Some(running) = &mut self.running {
            running.before += now.steady.since(running.since);
        }
        self.saved.stage = Stage::Frozen;
        self.saved.frozen_since = Some(now.wall);
        let actions = if self.wants_freeze.is_none() { vec![Action::Thaw] } else { Vec::new() };
        Step::recorded(vec![LeaseChange::Frozen { reason }], actions)
    }

    fn thawed(&mut self, now: Now) -> Step {
        if self.saved.stage != Stage::Frozen {
            return Step::default();
        }
        self.saved.frozen_millis += self.present_freeze(now.wall);
        self.saved.frozen_since = None;
        self.saved.stage = Stage::Running;
        if let Some(running) = &mut self.running {
            running.since = now.steady;
        }
        let again = self.wants_freeze.clone().filter(|_| self.saved.cause.is_none());
        let actions = again.map(|reason| Action::Freeze { reason }).into_iter().collect();
        Step::recorded(vec![LeaseChange::Thawed], actions)
    }

    fn tick(&mut self, now: Now) -> Step {
        match self.deadline() {
            Some(deadline) if now.steady >= deadline => self.end_because(Cause::TimedOut),
            Some(_) | None => Step::default(),
        }
    }

    fn collected(&mut self, notice: Option<String>) -> Step {
        if self.saved.stage != Stage::Collecting {
            return Step::default();
        }
        self.saved.stage = Stage::Closing;
        self.saved.notice.clone_from(&notice);
        Step::recorded(Vec::new(), vec![Action::CloseLog { notice }])
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

    fn present_freeze(&self, until: Timestamp) -> u64 {
        self.saved.frozen_since.map_or(0, |since| millis(between(since, until)))
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
mod tests;
