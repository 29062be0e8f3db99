//! What others see of the agent: the owner's snapshot and the coordinator's heartbeat.

use super::Driver;
use crate::agent::sync::Report;
use crate::control::Snapshot;
use crate::wire::account::Earnings;
use crate::wire::challenge::Proof;
use crate::wire::enroll::PendingEnrollment;
use crate::wire::node::{LeaseReport, NodeState, Offer};

/// What the driver knows besides the machine, for people.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// What the enrolment waits for.
    pub(super) joining: Option<String>,
    /// What the benchmarks do.
    pub(super) measuring: Option<String>,
    /// Why there is no score.
    pub(super) bench_failed: Option<String>,
    /// Why the coordinator refuses heartbeats.
    pub(super) heartbeat_refused: Option<String>,
    /// Why the coordinator refuses inventory or benchmarks.
    pub(super) upload_refused: Option<String>,
    /// How far the coordinator believes this machine's hardware.
    pub(super) proof: Option<Proof>,
    /// What is lent.
    pub(super) offer: Option<Offer>,
    /// Newest earnings.
    pub(super) earnings: Option<Earnings>,
}

/// What a person has to do to let the node in.
pub(super) fn approve_sentence(pending: &PendingEnrollment) -> String {
    format!("waiting for approval: open {} and enter the code {}", pending.verification_url, pending.user_code)
}

impl Driver {
    /// Shows the present state to whoever looks, and wakes the heartbeat when it has to say something new.
    pub(super) fn publish(&self) {
        let snapshot = self.snapshot();
        self.snapshots.send_if_modified(|known| {
            let changed = *known != Snapshot { as_of: known.as_of, ..snapshot.clone() };
            if changed {
                *known = snapshot;
            }
            changed
        });
        let free = self.is_free();
        self.free.send_if_modified(|known| std::mem::replace(known, free) != free);
        let report = self.report();
        self.reports.send_if_modified(|known| {
            let changed = *known != report;
            *known = report;
            changed
        });
    }

    fn snapshot(&self) -> Snapshot {
        let state = self.machine.state();
        let why = match state {
            NodeState::Enrolling => self.notes.joining.clone(),
            NodeState::Benchmarking => self.notes.measuring.clone(),
            NodeState::Idle
            | NodeState::Working
            | NodeState::Paused
            | NodeState::Updating
            | NodeState::Draining
            | NodeState::Stopped
            | NodeState::Unknown => None,
        };
        let report = self.bench.as_ref().map(|bench| &bench.report);
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node_id: self.node_id,
            name: self.options.name.clone(),
            state,
            why: why.or_else(|| self.machine.why().map(str::to_owned)),
            warnings: self.warnings(),
            coordinator: self.client.link().borrow().clone(),
            score: report.map(|report| report.score),
            gpus: report.map(|report| report.gpus.clone()).unwrap_or_default(),
            proof: self.notes.proof.clone(),
            offer: self.notes.offer.clone(),
            leases: self.leases.lines(self.clock.steady()),
            earnings: self.notes.earnings.clone(),
            as_of: self.clock.now(),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let bench = self.notes.bench_failed.as_ref().map(|why| format!("this machine has no score: {why}"));
        let (heartbeat, upload) = (self.notes.heartbeat_refused.clone(), self.notes.upload_refused.clone());
        let mut warnings: Vec<String> =
            [self.client.clock_warning(), bench, heartbeat, upload, self.isolation.warning()]
                .into_iter()
                .flatten()
                .collect();
        warnings.extend(self.runtime.iter().flat_map(|runtime| runtime.notices()));
        warnings.dedup();
        warnings
    }

    fn report(&self) -> Report {
        let waiting = self.waiting.iter().map(|record| (record.assignment.lease_id, record.saved.phase()));
        let leases = self.machine.leases().chain(waiting);
        Report {
            state: self.machine.state(),
            reason: self.machine.why().map(str::to_owned),
            generation: self.machine.generation(),
            leases: leases.map(|(lease_id, phase)| LeaseReport { lease_id, phase }).collect(),
        }
    }
}
