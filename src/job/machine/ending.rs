//! How the main container's end becomes the lease's: restart, typed end, or the cause that brought it about.

use std::time::Duration;

use super::{Action, Cause, CompanionStage, Deed, Machine, Now, Stage, Step, between, millis};
use crate::runtime::{ContainerExit, ContainerStatus};
use crate::wire::lease::{FailureKind, LeaseChange, LeaseEnd, LimitKind};

/// What `SIGTERM` leaves as exit code; stands for a stop before there was anything to stop.
const CODE_TERMINATED: i32 = 143;
/// Engines tell a signal as this plus its number, as shells do.
const CODE_SIGNAL: i32 = 128;
/// What a container that ran has run for at least: engines note a start after the fact, and one that ends at once ends "before" it.
const RAN_MIN: Duration = Duration::from_millis(1);
/// The highest signal of Linux.
const SIGNAL_MAX: u8 = 64;
/// `SIGXFSZ`: a file grew past what one may have.
const SIGNAL_FILE_SIZE: u8 = 25;
/// A refusal to start a container, for no reason that has a name, is the engine's fault unless the job has run for so long.
const ENGINE_TRUSTED: Duration = Duration::from_secs(60);

impl Machine {
    /// Brings everything to its end; the first cause stays.
    pub(super) fn end_because(&mut self, cause: Cause, now: Now) -> Step {
        if self.saved.cause.is_some() || self.main_is_over() {
            return Step::default();
        }
        self.saved.cause = Some(cause);
        match self.saved.stage {
            _ if !self.begun => Step::recorded(Vec::new(), Vec::new()),
            Stage::Assigned | Stage::Pulling => self.never_ran(None, now),
            Stage::Running | Stage::Frozen => Step::recorded(Vec::new(), vec![self.ending()]),
            // It waits for its companions and would not answer.
            Stage::Starting if self.main_created && !self.main_starting => self.never_ran(None, now),
            Stage::Restarting if self.restart_at.take().is_some() => {
                let ran = Duration::from_millis(self.ran_millis(now.steady));
                let end = self.end_by_cause(self.saved.restarts.code).unwrap_or(LeaseEnd::Unknown);
                self.ended(end, ran)
            }
            // Whether it was made or started comes as an answer; then it is ended.
            Stage::Starting
            | Stage::Restarting
            | Stage::Collecting
            | Stage::Closing
            | Stage::Reporting
            | Stage::Over => Step::recorded(Vec::new(), Vec::new()),
        }
    }

    /// Why a lease is given back that did not start in time: another node may be nearer to what it waits for.
    pub(super) fn too_late(&self) -> Cause {
        let fetches = self.saved.image.is_none() || self.saved.companions.iter().any(|saved| saved.image.is_none());
        let (why, waited_for) = match fetches {
            true => (FailureKind::ImagePullFailed, "its images and inputs were not fetched by then"),
            false => (FailureKind::EngineError, "the container engine had not started it by then"),
        };
        Cause::Failed { why, detail: format!("it did not start within 1 h: {waited_for}") }
    }

    /// What uses too much is not asked first. One that is being ended for another reason loses the rest of its grace.
    pub(super) fn over_limit(&mut self, limit: LimitKind, value: u64, now: Now) -> Step {
        match self.saved.stage {
            Stage::Running | Stage::Frozen if self.saved.cause.is_some() => Step::act(Action::main(Deed::Kill)),
            Stage::Running | Stage::Frozen | Stage::Restarting => {
                self.end_because(Cause::OverLimit { limit, value }, now)
            }
            // A companion runs before the main container does.
            Stage::Starting if !self.companions.is_empty() => self.end_because(Cause::OverLimit { limit, value }, now),
            Stage::Assigned
            | Stage::Pulling
            | Stage::Starting
            | Stage::Collecting
            | Stage::Closing
            | Stage::Reporting
            | Stage::Over => Step::default(),
        }
    }

    /// Given back, whoever filled the disk, and at once: what writes would use its grace to write on.
    pub(super) fn disk_full(&mut self, now: Now) -> Step {
        let runs = matches!(self.saved.stage, Stage::Running | Stage::Frozen);
        if runs && self.saved.cause.is_some() {
            return Step::act(Action::main(Deed::Kill));
        }
        let reason = "the disk of this node is nearly full".to_owned();
        let mut step = self.end_because(Cause::Evicted { reason }, now);
        for action in step.actions.iter_mut().filter(|action| **action == Action::main(Deed::Terminate)) {
            *action = Action::main(Deed::Kill);
        }
        step
    }

    /// How containers that run are brought to their end.
    pub(super) fn ending(&self) -> Action {
        if self.is_over_limit() { Action::main(Deed::Kill) } else { Action::main(Deed::Terminate) }
    }

    pub(super) fn is_over_limit(&self) -> bool {
        matches!(self.saved.cause, Some(Cause::OverLimit { .. }))
    }

    pub(super) fn exited(&mut self, exit: &ContainerExit, with_engine: bool, now: Now) -> Step {
        if !matches!(self.saved.stage, Stage::Running | Stage::Frozen) {
            return Step::default();
        }
        // An unhealthy one was told to end by this agent.
        let with_engine = with_engine && self.saved.unhealthy.is_none();
        let is_failure = exit.code != 0 || self.saved.unhealthy.is_some();
        let covered = self.saved.restarts.covered_by(self.terms.main.restart, is_failure);
        if self.saved.cause.is_none() && !with_engine && covered {
            return self.restart(exit, now);
        }
        let frozen = Duration::from_millis(self.saved.frozen_millis + self.present_freeze(exit.ended_at));
        let began = self.saved.began_at.filter(|_| self.saved.restarts.times > 0 || !self.companions.is_empty());
        let by_engine = between(began.unwrap_or(exit.started_at), exit.ended_at).saturating_sub(frozen);
        // By the steady clock, without the time until the end was noticed: a clock that was set, in whichever direction, changes
        // no pay. Where the engine's clock is not this machine's, its own difference is the better one.
        let watched = Duration::from_millis(self.ran_millis(now.steady));
        let ran = watched.min(by_engine.max(watched.saturating_sub(between(exit.ended_at, now.wall)))).max(RAN_MIN);
        let end = self.end_by_cause(exit.code).unwrap_or_else(|| self.end_by_itself(exit, with_engine));
        self.ended(end, ran)
    }

    /// Counts a restart; it is done when its time has come.
    fn restart(&mut self, exit: &ContainerExit, now: Now) -> Step {
        let mut changes = Vec::new();
        if self.saved.stage == Stage::Frozen {
            self.saved.frozen_millis += self.present_freeze(exit.ended_at);
            self.saved.frozen_since = None;
            if let Some(running) = &mut self.running {
                running.since = now.steady;
            }
            changes.push(LeaseChange::Thawed);
        }
        self.saved.stage = Stage::Restarting;
        self.saved.unhealthy = None;
        self.main_ready = false;
        self.saved.restarts.count(exit);
        self.restart_at = Some(now.steady.after(self.saved.restarts.delay()));
        let (service, times) = (self.terms.main.name.clone(), self.saved.restarts.times);
        changes.push(LeaseChange::Restarted { service, code: exit.code, times });
        Step::recorded(changes, Vec::new())
    }

    /// What a container that was being started again was found to be after a restart of the agent.
    pub(super) fn attached_restarting(&mut self, status: &ContainerStatus, now: Now) -> Step {
        match status {
            ContainerStatus::Exited(exit) if self.saved.restarts.follows(exit) => {
                if let Some(end) = self.end_by_cause(exit.code) {
                    let ran = Duration::from_millis(self.ran_millis(now.steady));
                    let mut step = self.ended(end, ran);
                    step.actions.insert(0, Action::main(Deed::ReadLog));
                    return step;
                }
                self.restart_at = Some(now.steady.after(self.saved.restarts.delay_left(now.wall)));
                Step::act(Action::main(Deed::ReadLog))
            }
            ContainerStatus::Exited(_)
            | ContainerStatus::Created
            | ContainerStatus::Running { .. }
            | ContainerStatus::Paused { .. } => self.runs(Vec::new()),
        }
    }

    fn end_by_itself(&self, exit: &ContainerExit, with_engine: bool) -> LeaseEnd {
        let code = exit.code;
        if let Some(detail) = &self.saved.unhealthy {
            return LeaseEnd::Unhealthy { detail: detail.clone() };
        }
        if exit.out_of_memory {
            return LeaseEnd::OutOfMemory { limit_bytes: self.terms.memory_bytes };
        }
        if with_engine {
            let detail = format!("the container engine stopped while the job ran (exit code {code})");
            return LeaseEnd::Failed { why: FailureKind::EngineUnavailable, detail };
        }
        // A program that exits with such a code itself looks the same: engines tell no more.
        let signal = u8::try_from(code - CODE_SIGNAL).ok().filter(|signal| (1..=SIGNAL_MAX).contains(signal));
        match signal {
            // One file larger than its whole disk.
            Some(SIGNAL_FILE_SIZE) => LeaseEnd::OverLimit { limit: LimitKind::DiskBytes, value: self.terms.disk_bytes },
            Some(signal) => LeaseEnd::Signalled { signal },
            None => LeaseEnd::Exited { code },
        }
    }

    /// Whose fault a failure is that the engine has no name for. A job's own image and files can make the start of one more
    /// container fail, hours after the first was started: then it is the job's, or its time would be for nothing.
    pub(super) fn blamed(&self, why: FailureKind, now: Now) -> FailureKind {
        let ran = Duration::from_millis(self.ran_millis(now.steady));
        if why == FailureKind::EngineError && ran > ENGINE_TRUSTED { FailureKind::InvalidSpec } else { why }
    }

    pub(super) fn failed(&mut self, why: FailureKind, detail: String, now: Now) -> Step {
        let why = self.blamed(why, now);
        match self.saved.stage {
            Stage::Assigned | Stage::Pulling | Stage::Starting => self.never_ran(Some((why, detail)), now),
            Stage::Running | Stage::Frozen | Stage::Restarting => {
                let ran = Duration::from_millis(self.ran_millis(now.steady));
                let end = self.end_by_cause(CODE_TERMINATED).unwrap_or(LeaseEnd::Failed { why, detail });
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
        self.restart_at = None;
        self.saved.frozen_since = None;
        let actions = if wants_output {
            self.saved.stage = Stage::Collecting;
            vec![Action::Collect]
        } else {
            self.saved.stage = Stage::Closing;
            self.close_log(None).into_iter().collect()
        };
        Step::recorded(vec![LeaseChange::Collecting], actions)
    }

    /// The main container was never started: there is no log of it and no output. Others may have run, and that time counts.
    pub(super) fn never_ran(&mut self, failure: Option<(FailureKind, String)>, now: Now) -> Step {
        self.saved.ran_millis = self.ran_millis(now.steady);
        self.running = None;
        let cancels = self.saved.stage == Stage::Pulling && failure.is_none() && self.begun;
        let (why, detail) = failure.unwrap_or((FailureKind::Unknown, String::new()));
        self.saved.end = Some(self.end_by_cause(CODE_TERMINATED).unwrap_or(LeaseEnd::Failed { why, detail }));
        self.saved.stage = Stage::Closing;
        let mut actions = if cancels { vec![Action::CancelPull] } else { Vec::new() };
        actions.extend(self.close_log(None));
        Step::recorded(Vec::new(), actions)
    }

    /// Closes the log once every companion has ended; `attend` does it when that is later.
    pub(super) fn close_log(&mut self, notice: Option<String>) -> Option<Action> {
        self.saved.notice.clone_from(&notice);
        if !self.companions_ended() {
            return None;
        }
        self.log_closing = true;
        Some(Action::CloseLog { notice })
    }

    fn end_by_cause(&self, code: i32) -> Option<LeaseEnd> {
        Some(match self.saved.cause.clone()? {
            Cause::Stopped => LeaseEnd::Stopped { code },
            Cause::Evicted { reason } => LeaseEnd::Evicted { reason },
            Cause::TimedOut => LeaseEnd::TimedOut { limit_seconds: self.terms.duration_seconds_max },
            Cause::OverLimit { limit, value } => LeaseEnd::OverLimit { limit, value },
            Cause::Unhealthy { detail } => LeaseEnd::Unhealthy { detail },
            Cause::ServiceFailed { service, code } => LeaseEnd::ServiceFailed { service, code },
            Cause::Failed { why, detail } => LeaseEnd::Failed { why, detail },
        })
    }

    /// Checks begin anew after a freeze.
    pub(super) fn check_health_again(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.terms.main.has_health && self.saved.cause.is_none() && self.saved.unhealthy.is_none() {
            actions.push(Action::main(Deed::CheckHealth));
        }
        let companions = self.saved.companions.iter().zip(&self.terms.companions).enumerate();
        for (slot, (saved, terms)) in companions {
            if terms.has_health && saved.stage == CompanionStage::Running && saved.unhealthy.is_none() {
                actions.push(Action::Service { index: slot + 1, deed: Deed::CheckHealth });
            }
        }
        actions
    }
}
