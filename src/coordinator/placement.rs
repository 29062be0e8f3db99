//! The life of a job and its leases as a pure machine: what happened in, what to store, steer and pay out.
//!
//! Invariants (kept by [`Life::handle`], tested over random orders of events in `placement/tests.rs`)
//! - A job waits, has exactly one live lease, or is final; there is no fourth way, so no job is forgotten.
//! - A lease is opened once and closed once, and only its closing can pay, once.
//! - A final job never changes again, and becoming final is the one moment its escrow is released.
//! - A lease that is over stays over: whatever its node says later is refused.
//! - Nothing waits for a node without end: silence, forgetting, a start that takes too long and an end that is never
//!   reported each have a limit.

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

use super::ledger::billable_millis;
use crate::wire::job::JobState;
use crate::wire::lease::{Desired, FailureKind, LeaseChange, LeaseEnd, LeaseEvent, LeasePhase, Told};
use crate::wire::{LeaseId, NodeId, Sequence};

/// Leases a job may have, one after another.
pub const LEASES_MAX: u32 = 5;
/// Seconds a node may take from getting a lease to running its container.
pub const START_SECONDS_MAX: i64 = 2 * 3600;
/// Seconds past its longest running time before the coordinator itself asks a lease to stop.
pub const OVERRUN_SLACK_SECONDS: i64 = 60;
/// Seconds a node has, after a stop and its grace, to hand over log and output and report the end.
pub const HANDOVER_SECONDS_MAX: i64 = 2 * 3600;

/// What a decision needs to know of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// Where it stands.
    pub state: JobState,
    /// Why it was asked to end, if it was.
    pub ending: Option<Ending>,
    /// When to give up if its container never ran.
    pub start_deadline_at: Option<Timestamp>,
    /// Longest running time in seconds.
    pub duration_seconds_max: u64,
    /// Seconds between SIGTERM and SIGKILL.
    pub stop_grace_seconds: u32,
    /// Leases it has had, the live one included.
    pub lease_count: u32,
    /// Whether its container ever ran.
    pub started: bool,
    /// The lease that is not over.
    pub live: Option<LiveLease>,
}

/// A lease that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveLease {
    /// The lease.
    pub lease_id: LeaseId,
    /// Its node.
    pub node_id: NodeId,
    /// When it was made, by the coordinator's clock.
    pub made_at: Timestamp,
    /// When the coordinator heard that the container runs.
    pub running_at: Option<Timestamp>,
    /// Since when it is frozen.
    pub frozen_since: Option<Timestamp>,
    /// Milliseconds of freezes that are over.
    pub frozen_millis: i64,
    /// When it was asked to stop.
    pub stop_asked_at: Option<Timestamp>,
    /// Where it stands.
    pub phase: LeasePhase,
    /// Newest event taken.
    pub through: Sequence,
}

impl LiveLease {
    /// What the coordinator wants of it.
    #[must_use]
    pub const fn desired(&self) -> Desired {
        if self.stop_asked_at.is_some() { Desired::Stop } else { Desired::Run }
    }
}

/// Who asked the job to end before its container did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The renter.
    Renter,
    /// Its own start deadline.
    StartDeadline,
}

/// Something that happened.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Matching found a node.
    Placed {
        /// The lease to be.
        lease_id: LeaseId,
        /// Where.
        node_id: NodeId,
    },
    /// The node says something about a lease.
    Reported {
        /// Which lease.
        lease_id: LeaseId,
        /// What it says.
        event: &'a LeaseEvent,
    },
    /// The lease's node was not heard from for longer than the grace period.
    NodeSilent {
        /// Which lease.
        lease_id: LeaseId,
    },
    /// The lease's node acted on newer assignments and no longer knows the lease.
    NodeForgot {
        /// Which lease.
        lease_id: LeaseId,
    },
    /// The renter wants it to end.
    StopRequested,
    /// Time has passed.
    Tick,
}

/// What must be stored, all in one transaction with the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A lease comes to be; its node gets new assignments.
    Open {
        /// The lease.
        lease_id: LeaseId,
        /// Its node.
        node_id: NodeId,
    },
    /// The lease moved on.
    Phase {
        /// Where it stands now.
        phase: LeasePhase,
        /// Progress of the pull, per mille.
        pull_per_mille: Option<u16>,
        /// One sentence for the renter.
        why: String,
    },
    /// The job's container runs for the first time.
    Started,
    /// The node gets new assignments that ask the lease to stop.
    Stop {
        /// The lease.
        lease_id: LeaseId,
        /// Its node.
        node_id: NodeId,
    },
    /// The lease is over; its node gets new assignments without it.
    Close {
        /// The lease.
        lease_id: LeaseId,
        /// Its node.
        node_id: NodeId,
        /// How it ended.
        end: LeaseEnd,
        /// Milliseconds to pay; `None` when nothing is paid and there is no receipt.
        pay_millis: Option<u64>,
    },
    /// The job waits for another node.
    Requeue {
        /// One sentence for the renter.
        why: String,
    },
    /// The job is final; what is left of its escrow goes back.
    Finish {
        /// Its final state.
        state: JobState,
        /// How its last lease ended, if it had one that decided it.
        outcome: Option<LeaseEnd>,
        /// One sentence for the renter.
        why: String,
    },
}

/// Why an event was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// The lease is over or never was.
    #[error("the lease is over")]
    LeaseOver,
    /// An event before this one is missing.
    #[error("event {expected} has not come yet")]
    Gap {
        /// The event that must come next.
        expected: Sequence,
    },
    /// The job does not wait for a node (any more).
    #[error("the job does not wait for a node")]
    NotWaiting,
}

impl Life {
    /// Takes one event: changes the job's life and says what must be stored. Repeated events change nothing.
    ///
    /// # Errors
    /// [`Refused`], and then nothing has changed.
    pub fn handle(&mut self, event: Event<'_>, now: Timestamp) -> Result<Vec<Action>, Refused> {
        match event {
            Event::Placed { lease_id, node_id } => self.placed(lease_id, node_id, now),
            Event::Reported { lease_id, event } => {
                let expected = self.live_lease(lease_id)?.through.next();
                if event.sequence < expected {
                    return Ok(Vec::new());
                }
                if event.sequence > expected {
                    return Err(Refused::Gap { expected });
                }
                Ok(self.reported(&event.what, event.sequence, now))
            }
            Event::NodeSilent { lease_id } => {
                self.live_lease(lease_id)?;
                Ok(self.close(LeaseEnd::Lost, None, now))
            }
            Event::NodeForgot { lease_id } => {
                self.live_lease(lease_id)?;
                let detail = "the node no longer knows the lease".to_owned();
                Ok(self.close(LeaseEnd::Failed { why: FailureKind::ContainerVanished, detail }, None, now))
            }
            Event::StopRequested => Ok(self.stop_requested(now)),
            Event::Tick => Ok(self.tick(now)),
        }
    }

    fn live_lease(&mut self, lease_id: LeaseId) -> Result<&mut LiveLease, Refused> {
        self.live.as_mut().filter(|l| l.lease_id == lease_id).ok_or(Refused::LeaseOver)
    }

    fn placed(&mut self, lease_id: LeaseId, node_id: NodeId, now: Timestamp) -> Result<Vec<Action>, Refused> {
        if self.state != JobState::Queued || self.live.is_some() || self.lease_count >= LEASES_MAX {
            return Err(Refused::NotWaiting);
        }
        self.live = Some(LiveLease {
            lease_id,
            node_id,
            made_at: now,
            running_at: None,
            frozen_since: None,
            frozen_millis: 0,
            stop_asked_at: None,
            phase: LeasePhase::Assigned,
            through: Sequence(0),
        });
        self.lease_count += 1;
        self.state = JobState::Placed;
        Ok(vec![Action::Open { lease_id, node_id }])
    }

    fn reported(&mut self, what: &LeaseChange, sequence: Sequence, now: Timestamp) -> Vec<Action> {
        let Some(live) = self.live.as_mut() else { return Vec::new() };
        live.through = sequence;
        let phase = |phase, pull_per_mille, why: &str| Action::Phase { phase, pull_per_mille, why: why.to_owned() };
        match what {
            LeaseChange::Pulling { per_mille } => {
                live.phase = LeasePhase::Pulling;
                vec![phase(LeasePhase::Pulling, *per_mille, "the node is fetching the image")]
            }
            LeaseChange::Starting { .. } => {
                live.phase = LeasePhase::Starting;
                vec![phase(LeasePhase::Starting, None, "the node is starting the container")]
            }
            LeaseChange::Running | LeaseChange::Thawed => {
                live.thaw(now);
                live.phase = LeasePhase::Running;
                live.running_at.get_or_insert(now);
                self.state = JobState::Running;
                let mut actions = vec![phase(LeasePhase::Running, None, "the container runs")];
                if !std::mem::replace(&mut self.started, true) {
                    actions.push(Action::Started);
                }
                actions
            }
            LeaseChange::Restarted { .. } => Vec::new(),
            LeaseChange::Frozen { reason } => {
                live.phase = LeasePhase::Frozen;
                live.frozen_since.get_or_insert(now);
                vec![phase(
                    LeasePhase::Frozen,
                    None,
                    &format!("frozen for the node's owner ({reason}); not paid meanwhile"),
                )]
            }
            LeaseChange::Collecting => {
                live.thaw(now);
                live.phase = LeasePhase::Collecting;
                vec![phase(LeasePhase::Collecting, None, "the container ended; its log and output are on their way")]
            }
            LeaseChange::Ended { end, ran_millis } => self.close(end.clone(), Some(*ran_millis), now),
            LeaseChange::Unknown => Vec::new(),
        }
    }

    fn stop_requested(&mut self, now: Timestamp) -> Vec<Action> {
        if self.state.is_final() || self.ending == Some(Ending::Renter) {
            return Vec::new();
        }
        self.ending = Some(Ending::Renter);
        match &self.live {
            Some(_) => self.ask_to_stop(now),
            None => {
                vec![self.finish(JobState::Cancelled, None, "stopped by the renter before a node took it".to_owned())]
            }
        }
    }

    fn tick(&mut self, now: Timestamp) -> Vec<Action> {
        if self.state.is_final() {
            return Vec::new();
        }
        let too_late = !self.started && self.start_deadline_at.is_some_and(|at| now >= at);
        let Some(live) = &self.live else {
            let why = "no node started it before its start deadline".to_owned();
            return if too_late { vec![self.finish(JobState::Failed, None, why)] } else { Vec::new() };
        };
        if let Some(asked_at) = live.stop_asked_at {
            let patience = i64::from(self.stop_grace_seconds).saturating_add(HANDOVER_SECONDS_MAX);
            return if seconds_between(asked_at, now) > patience { self.give_up_on_end(now) } else { Vec::new() };
        }
        if too_late {
            self.ending = Some(Ending::StartDeadline);
            return self.ask_to_stop(now);
        }
        if live.running_at.is_none() && seconds_between(live.made_at, now) > START_SECONDS_MAX {
            let detail = format!("the node did not start it within {} minutes", START_SECONDS_MAX / 60);
            return self.close(LeaseEnd::Failed { why: FailureKind::ImagePullFailed, detail }, None, now);
        }
        let longest =
            i64::try_from(self.duration_seconds_max).unwrap_or(i64::MAX).saturating_add(OVERRUN_SLACK_SECONDS);
        if live.ran_seconds(now) > longest { self.ask_to_stop(now) } else { Vec::new() }
    }

    /// The node was asked to stop long ago and answers, but never reports the end.
    fn give_up_on_end(&mut self, now: Timestamp) -> Vec<Action> {
        let end = match self.ending {
            Some(Ending::Renter | Ending::StartDeadline) => LeaseEnd::Lost,
            None => LeaseEnd::TimedOut { limit_seconds: self.duration_seconds_max },
        };
        self.close(end, None, now)
    }

    fn ask_to_stop(&mut self, now: Timestamp) -> Vec<Action> {
        match self.live.as_mut() {
            Some(live) if live.stop_asked_at.is_none() => {
                live.stop_asked_at = Some(now);
                vec![Action::Stop { lease_id: live.lease_id, node_id: live.node_id }]
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// `ran_millis` is the node's own word for how long the container ran; `None` when the coordinator ends the lease.
    fn close(&mut self, end: LeaseEnd, ran_millis: Option<u64>, now: Timestamp) -> Vec<Action> {
        let Some(live) = self.live.take() else { return Vec::new() };
        let age_millis = u64::try_from(now.duration_since(live.made_at).as_millis()).unwrap_or(0);
        // A job that ran and then failed by its own fault (a service that cannot be started, a command that is gone) has had that time.
        let own_fault = match &end {
            LeaseEnd::Failed { why, .. } => !why.is_the_nodes_fault() && live.running_at.is_some(),
            LeaseEnd::Exited { .. }
            | LeaseEnd::OutOfMemory { .. }
            | LeaseEnd::TimedOut { .. }
            | LeaseEnd::Stopped { .. }
            | LeaseEnd::Signalled { .. }
            | LeaseEnd::OverLimit { .. }
            | LeaseEnd::Unhealthy { .. }
            | LeaseEnd::ServiceFailed { .. }
            | LeaseEnd::Evicted { .. }
            | LeaseEnd::Lost
            | LeaseEnd::Unknown => false,
        };
        let pay_millis = ran_millis
            .filter(|_| end.phase() == LeasePhase::Done || own_fault)
            .map(|ran| billable_millis(ran, self.duration_seconds_max, age_millis));
        let close = Action::Close { lease_id: live.lease_id, node_id: live.node_id, end: end.clone(), pay_millis };
        vec![close, self.after(end, now)]
    }

    fn after(&mut self, end: LeaseEnd, now: Timestamp) -> Action {
        let ran_to_its_end = end.phase() == LeasePhase::Done && !matches!(end, LeaseEnd::Stopped { .. });
        match self.ending {
            Some(Ending::Renter) => {
                let why = format!("stopped by the renter; {}", end.in_words(Told::Of("the node")));
                return self.finish(JobState::Cancelled, Some(end), why);
            }
            Some(Ending::StartDeadline) if !ran_to_its_end => {
                let why = "no node started it before its start deadline".to_owned();
                return self.finish(JobState::Failed, Some(end), why);
            }
            Some(Ending::StartDeadline) | None => {}
        }
        let too_late = !self.started && self.start_deadline_at.is_some_and(|at| now >= at);
        if end.retries_elsewhere() && self.lease_count < LEASES_MAX && !too_late {
            self.state = JobState::Queued;
            return Action::Requeue { why: format!("queued again: {}", end.in_words(Told::Of("the node"))) };
        }
        let state = if end.phase() == LeasePhase::Done { JobState::Done } else { JobState::Failed };
        let tries = match self.lease_count {
            LEASES_MAX if end.retries_elsewhere() => format!(", and it has been tried {LEASES_MAX} times"),
            _ => String::new(),
        };
        let why = format!("{}{tries}", end.in_words(Told::Of("the node")));
        self.finish(state, Some(end), why)
    }

    fn finish(&mut self, state: JobState, outcome: Option<LeaseEnd>, why: String) -> Action {
        self.state = state;
        Action::Finish { state, outcome, why }
    }
}

impl LiveLease {
    fn thaw(&mut self, now: Timestamp) {
        if let Some(since) = self.frozen_since.take() {
            let frozen = i64::try_from(now.duration_since(since).as_millis()).unwrap_or(0).max(0);
            self.frozen_millis = self.frozen_millis.saturating_add(frozen);
        }
    }

    /// Seconds since the container ran, freezes left out, as the coordinator saw it.
    fn ran_seconds(&self, now: Timestamp) -> i64 {
        let Some(running_at) = self.running_at else { return 0 };
        let until = self.frozen_since.unwrap_or(now);
        let frozen = SignedDuration::from_millis(self.frozen_millis);
        until.duration_since(running_at).saturating_sub(frozen).as_secs()
    }
}

fn seconds_between(earlier: Timestamp, later: Timestamp) -> i64 {
    later.duration_since(earlier).as_secs()
}

#[cfg(test)]
mod tests;
