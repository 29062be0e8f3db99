//! A job's services besides its main one: when each starts, what its end means, and that all of them end with the main one.
//!
//! Invariants
//! - Nothing starts before the images and inputs of every service are here.
//! - A companion starts when everything it depends on is ready; the main container starts after every companion that does not
//!   depend on it has started, and after those it names are ready.
//! - Once the main container is over nothing is started any more, and a companion is ended after everything that depends on it.
//! - A companion that fails past its policy ends the job, unless the job is ending already.
//! - The log is closed after the last companion has ended, so that nothing of theirs is missing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::restart::Restarts;
use super::{Action, Cause, Deed, Heard, Machine, Now, Running, Stage, Step, between};
use crate::clock::Steady;
use crate::runtime::{ContainerExit, ContainerStatus, PinnedImage};
use crate::wire::lease::{FailureKind, LeaseChange};

/// Where a companion stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompanionStage {
    /// Not started yet; whether its container exists, the engine knows.
    #[default]
    Waiting,
    /// Its container runs.
    Running,
    /// Its container ended and is started again; whether it was, the engine knows.
    Restarting,
    /// It ended for good, or was never started.
    Ended,
}

/// What of a companion must survive the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCompanion {
    /// Where it stands.
    pub stage: CompanionStage,
    /// The image it was pinned to.
    #[serde(default)]
    pub image: Option<PinnedImage>,
    /// The engine's id of its container.
    #[serde(default)]
    pub container: Option<String>,
    /// Whether it was ever started: then there is a log of it.
    #[serde(default)]
    pub started: bool,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: Restarts,
    /// What its health check said, when it is being ended for that.
    #[serde(default)]
    pub unhealthy: Option<String>,
}

/// What goes on for a companion in this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Busy {
    #[default]
    No,
    Pulling,
    Starting,
    Ending,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Live {
    busy: Busy,
    ready: bool,
    restart_at: Option<Steady>,
}

impl Machine {
    /// Takes every companion up where it was recorded.
    pub(super) fn begin_companions(&mut self) -> Vec<Action> {
        let is_over = self.main_is_over() || self.saved.cause.is_some();
        let mut actions = Vec::new();
        for (slot, (saved, live)) in self.saved.companions.iter().zip(&mut self.companions).enumerate() {
            let mut deed = |deed| actions.push(Action::Service { index: slot + 1, deed });
            match saved.stage {
                CompanionStage::Waiting if is_over || saved.image.is_some() => {}
                CompanionStage::Waiting => {
                    live.busy = Busy::Pulling;
                    deed(Deed::Pull);
                }
                CompanionStage::Running | CompanionStage::Restarting => deed(Deed::Attach),
                CompanionStage::Ended if saved.started => deed(Deed::ReadLog),
                CompanionStage::Ended => {}
            }
        }
        actions
    }

    /// Something happened to the companion that is service number `index`.
    pub(super) fn companion(&mut self, index: usize, heard: Heard, now: Now) -> Step {
        let Some(slot) = index.checked_sub(1).filter(|slot| *slot < self.companions.len()) else {
            return Step::default();
        };
        match heard {
            Heard::Pulled(image) => self.companion_pulled(slot, image),
            Heard::Created { container } => self.companion_created(slot, container),
            Heard::Started { started_at } => self.companion_started(slot, Some(started_at), now),
            Heard::Attached(status) => self.companion_attached(slot, &status, now),
            Heard::Exited { exit, with_engine } => self.companion_exited(slot, &exit, with_engine, now),
            Heard::Failed { why, detail } => self.companion_failed(slot, why, &detail, now),
            Heard::Healthy => {
                self.companions[slot].ready = true;
                Step::default()
            }
            Heard::Unhealthy { detail } => self.companion_unhealthy(slot, detail),
        }
    }

    /// What the companions and the gates between them and the main container need now; comes after every input.
    pub(super) fn attend(&mut self, step: &mut Step, now: Now) {
        self.give_back_instead_of_freezing(step, now);
        if self.main_is_over() {
            self.end_companions(step);
            if self.saved.stage == Stage::Closing && !self.log_closing && self.companions_ended() {
                self.log_closing = true;
                step.actions.push(Action::CloseLog { notice: self.saved.notice.clone() });
            }
        } else if self.saved.cause.is_none() && self.wants_freeze.is_none() && self.everything_is_here() {
            self.start_companions(step);
            let may_start = self.main_created && !self.main_starting && self.main_may_start();
            if self.saved.stage == Stage::Starting && may_start {
                self.main_starting = true;
                step.actions.push(Action::main(Deed::Start));
            }
        }
    }

    /// A container was started: from the first one on, time counts.
    pub(super) fn time_begins(&mut self, started_at: Timestamp, now: Now) -> Vec<LeaseChange> {
        if self.running.is_some() || self.saved.stage != Stage::Starting {
            return Vec::new();
        }
        self.saved.began_at = Some(started_at);
        // Not zero when the agent was killed between the start and its record.
        self.running = Some(Running { before: between(started_at, now.wall), since: now.steady });
        vec![LeaseChange::Running]
    }

    /// Companions run and the main container, which a freeze is about, does not yet: the renter would pay for time in which nothing
    /// may be started.
    fn give_back_instead_of_freezing(&mut self, step: &mut Step, now: Now) {
        let waits = self.saved.stage == Stage::Starting && self.running.is_some() && !self.main_starting;
        if let (Some(reason), true, None) = (self.wants_freeze.clone(), waits, &self.saved.cause) {
            let ended = self.end_because(Cause::Evicted { reason }, now);
            step.record |= ended.record;
            step.changes.extend(ended.changes);
            step.actions.extend(ended.actions);
        }
    }

    /// Whether the images and inputs of all services were fetched.
    fn everything_is_here(&self) -> bool {
        let fetched = |saved: &SavedCompanion| saved.image.is_some() || saved.stage != CompanionStage::Waiting;
        !matches!(self.saved.stage, Stage::Assigned | Stage::Pulling) && self.saved.companions.iter().all(fetched)
    }

    /// Starts again what has waited long enough.
    pub(super) fn companions_due(&mut self, now: Steady) -> Vec<Action> {
        let mut actions = Vec::new();
        for (slot, (saved, live)) in self.saved.companions.iter().zip(&mut self.companions).enumerate() {
            if let (Some(_), Some(ended_at)) = (live.restart_at.take_if(|at| *at <= now), saved.restarts.ended_at) {
                actions.push(Action::Service { index: slot + 1, deed: Deed::Restart { ended_at } });
            }
        }
        actions
    }

    pub(super) fn companions_deadline(&self) -> Option<Steady> {
        self.companions.iter().filter_map(|live| live.restart_at).min()
    }

    pub(super) fn companions_ended(&self) -> bool {
        self.saved.companions.iter().all(|saved| saved.stage == CompanionStage::Ended)
    }

    fn companion_pulled(&mut self, slot: usize, image: PinnedImage) -> Step {
        self.companions[slot].busy = Busy::No;
        if self.saved.companions[slot].stage != CompanionStage::Waiting {
            return Step::default();
        }
        self.saved.companions[slot].image = Some(image);
        Step::recorded(Vec::new(), Vec::new())
    }

    fn companion_created(&mut self, slot: usize, container: String) -> Step {
        let saved = &mut self.saved.companions[slot];
        if saved.stage != CompanionStage::Waiting {
            return Step::default();
        }
        saved.container = Some(container);
        if self.saved.cause.is_some() || self.main_is_over() {
            self.companions[slot].busy = Busy::No;
            return Step::default();
        }
        // Not recorded: until it runs, the engine is asked for it by label.
        Step::act(Action::Service { index: slot + 1, deed: Deed::Start })
    }

    fn companion_started(&mut self, slot: usize, started_at: Option<Timestamp>, now: Now) -> Step {
        let saved = &mut self.saved.companions[slot];
        if !matches!(saved.stage, CompanionStage::Waiting | CompanionStage::Restarting) {
            return Step::default();
        }
        saved.stage = CompanionStage::Running;
        saved.started = true;
        let live = &mut self.companions[slot];
        live.busy = Busy::No;
        live.ready = !self.terms.companions[slot].has_health;
        let changes = started_at.map(|at| self.time_begins(at, now)).unwrap_or_default();
        Step::recorded(changes, self.follow_companion(slot))
    }

    /// What a companion that runs needs.
    fn follow_companion(&self, slot: usize) -> Vec<Action> {
        let mut deeds = vec![Deed::Watch, Deed::ReadLog];
        if self.saved.companions[slot].unhealthy.is_some() {
            deeds.push(Deed::Terminate);
        } else if self.terms.companions[slot].has_health {
            deeds.push(Deed::CheckHealth);
        }
        if self.wants_freeze.is_some() && self.saved.stage == Stage::Frozen {
            deeds.push(Deed::Freeze);
        }
        deeds.into_iter().map(|deed| Action::Service { index: slot + 1, deed }).collect()
    }

    fn companion_attached(&mut self, slot: usize, status: &ContainerStatus, now: Now) -> Step {
        let saved = &self.saved.companions[slot];
        let is_restarting = saved.stage == CompanionStage::Restarting;
        match (status, saved.stage) {
            (_, CompanionStage::Waiting | CompanionStage::Ended) => Step::default(),
            (ContainerStatus::Created, CompanionStage::Running | CompanionStage::Restarting) => {
                let detail = "the container that ran is new again";
                self.companion_failed(slot, FailureKind::ContainerVanished, detail, now)
            }
            (ContainerStatus::Exited(exit), _) if is_restarting && saved.restarts.follows(exit) => {
                self.companions[slot].restart_at = Some(now.steady.after(saved.restarts.delay_left(now.wall)));
                Step::act(Action::Service { index: slot + 1, deed: Deed::ReadLog })
            }
            (
                ContainerStatus::Running { .. } | ContainerStatus::Paused { .. } | ContainerStatus::Exited(_),
                CompanionStage::Restarting,
            ) => self.companion_started(slot, None, now),
            (
                ContainerStatus::Running { .. } | ContainerStatus::Paused { .. } | ContainerStatus::Exited(_),
                CompanionStage::Running,
            ) => {
                self.companions[slot].ready = !self.terms.companions[slot].has_health;
                let mut step = Step { actions: self.follow_companion(slot), ..Step::default() };
                // Killed between freezing one container and the other, or between thawing them.
                let is_paused = matches!(status, ContainerStatus::Paused { .. });
                let put_right = match self.saved.stage == Stage::Frozen {
                    true if !is_paused => Some(Deed::Freeze),
                    false if is_paused => Some(Deed::Thaw),
                    true | false => None,
                };
                step.actions.extend(put_right.map(|deed| Action::Service { index: slot + 1, deed }));
                step
            }
        }
    }

    fn companion_exited(&mut self, slot: usize, exit: &ContainerExit, with_engine: bool, now: Now) -> Step {
        let ending = self.main_is_over() || self.saved.cause.is_some();
        let terms = &self.terms.companions[slot];
        let saved = &mut self.saved.companions[slot];
        if saved.stage != CompanionStage::Running {
            return Step::default();
        }
        let unhealthy = saved.unhealthy.take();
        // An unhealthy one was told to end by this agent.
        let with_engine = with_engine && unhealthy.is_none();
        let is_failure = exit.code != 0 || unhealthy.is_some();
        if !ending && !with_engine && saved.restarts.covered_by(terms.restart, is_failure) {
            saved.restarts.count(exit);
            saved.stage = CompanionStage::Restarting;
            let (service, times) = (terms.name.clone(), saved.restarts.times);
            self.companions[slot].ready = false;
            self.companions[slot].restart_at = Some(now.steady.after(saved.restarts.delay()));
            return Step::recorded(vec![LeaseChange::Restarted { service, code: exit.code, times }], Vec::new());
        }
        saved.stage = CompanionStage::Ended;
        self.companions[slot].ready = !is_failure;
        if ending || !(is_failure || with_engine) {
            return Step::recorded(Vec::new(), Vec::new());
        }
        let service = terms.name.clone();
        let cause = match unhealthy {
            _ if with_engine => Cause::Failed {
                why: FailureKind::EngineUnavailable,
                detail: format!("the container engine stopped while service '{service}' ran"),
            },
            Some(detail) => Cause::Unhealthy { detail: format!("service '{service}': {detail}") },
            None => Cause::ServiceFailed { service, code: exit.code },
        };
        self.end_because(cause, now)
    }

    fn companion_failed(&mut self, slot: usize, why: FailureKind, detail: &str, now: Now) -> Step {
        let why = self.blamed(why, now);
        let saved = &mut self.saved.companions[slot];
        if saved.stage == CompanionStage::Ended {
            return Step::default();
        }
        saved.stage = CompanionStage::Ended;
        self.companions[slot] = Live::default();
        if self.main_is_over() || self.saved.cause.is_some() {
            return Step::recorded(Vec::new(), Vec::new());
        }
        let detail = format!("service '{}': {detail}", self.terms.companions[slot].name);
        self.end_because(Cause::Failed { why, detail }, now)
    }

    fn companion_unhealthy(&mut self, slot: usize, detail: String) -> Step {
        let is_over = self.main_is_over() || self.saved.cause.is_some();
        let saved = &mut self.saved.companions[slot];
        if is_over || saved.stage != CompanionStage::Running || saved.unhealthy.is_some() {
            return Step::default();
        }
        saved.unhealthy = Some(detail);
        self.companions[slot].ready = false;
        Step::recorded(Vec::new(), vec![Action::Service { index: slot + 1, deed: Deed::Terminate }])
    }

    fn start_companions(&mut self, step: &mut Step) {
        for slot in 0..self.companions.len() {
            let saved = &self.saved.companions[slot];
            let waits = saved.stage == CompanionStage::Waiting && self.companions[slot].busy == Busy::No;
            if waits && self.are_ready(&self.terms.companions[slot].depends_on) {
                self.companions[slot].busy = Busy::Starting;
                step.actions.push(Action::Service { index: slot + 1, deed: Deed::Create });
            }
        }
    }

    /// Whether the services with these numbers run, and are healthy where they have a check, or have done their work.
    fn are_ready(&self, services: &[usize]) -> bool {
        services.iter().all(|&index| match index.checked_sub(1) {
            None => self.main_ready,
            Some(slot) => self.companions.get(slot).is_none_or(|live| live.ready),
        })
    }

    fn main_may_start(&self) -> bool {
        let begun = |slot: usize| self.saved.companions[slot].stage != CompanionStage::Waiting;
        let after_main = self.after_main();
        self.are_ready(&self.terms.main.depends_on)
            && (0..self.companions.len()).all(|slot| after_main[slot] || begun(slot))
    }

    /// Which companions depend on the main container, be it through others.
    fn after_main(&self) -> Vec<bool> {
        let mut after = vec![false; self.companions.len()];
        for _ in 0..after.len() {
            for (slot, terms) in self.terms.companions.iter().enumerate() {
                after[slot] |= terms
                    .depends_on
                    .iter()
                    .any(|&index| index.checked_sub(1).is_none_or(|other| after.get(other).copied().unwrap_or(false)));
            }
        }
        after
    }

    fn end_companions(&mut self, step: &mut Step) {
        for (saved, live) in self.saved.companions.iter_mut().zip(&mut self.companions) {
            let waits = match saved.stage {
                CompanionStage::Waiting => live.busy != Busy::Starting,
                CompanionStage::Restarting => live.restart_at.take().is_some(),
                CompanionStage::Running | CompanionStage::Ended => false,
            };
            if waits {
                saved.stage = CompanionStage::Ended;
                step.record = true;
            }
        }
        for slot in (0..self.companions.len()).rev() {
            let runs = self.saved.companions[slot].stage == CompanionStage::Running;
            if runs && self.companions[slot].busy != Busy::Ending && !self.is_needed(slot) {
                self.companions[slot].busy = Busy::Ending;
                let deed = if self.is_over_limit() { Deed::Kill } else { Deed::Terminate };
                step.actions.push(Action::Service { index: slot + 1, deed });
            }
        }
    }

    /// Whether a companion that depends on this one has not ended yet.
    fn is_needed(&self, slot: usize) -> bool {
        let others = self.saved.companions.iter().zip(&self.terms.companions);
        others
            .into_iter()
            .any(|(saved, terms)| saved.stage != CompanionStage::Ended && terms.depends_on.contains(&(slot + 1)))
    }
}
