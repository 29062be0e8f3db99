//! What a lease's task shows of itself.

use super::LeaseSnapshot;
use crate::clock::Steady;
use crate::job::machine::{Machine, Stage};
use crate::wire::lease::{Assignment, LeasePhase, Told};

/// Before the task has looked at anything.
pub(super) fn first(assignment: &Assignment) -> LeaseSnapshot {
    let image = assignment.spec.services.first().map(|service| service.image.clone()).unwrap_or_default();
    LeaseSnapshot {
        lease_id: assignment.lease_id,
        job_id: assignment.job_id,
        phase: LeasePhase::Assigned,
        detail: "waits to be taken up".to_owned(),
        pull_per_mille: None,
        started_at: None,
        ran_millis: 0,
        image,
        rate: assignment.rate,
        over: false,
    }
}

/// Brings a snapshot up to what the machine says; `trouble` is what the task waits for.
pub(super) fn update(
    snapshot: &mut LeaseSnapshot,
    machine: &Machine,
    pull_per_mille: Option<u16>,
    trouble: Option<&str>,
    now: Steady,
) {
    let saved = machine.saved();
    snapshot.phase = saved.phase();
    snapshot.detail = trouble.map_or_else(|| sentence(machine), str::to_owned);
    snapshot.pull_per_mille = pull_per_mille.filter(|_| saved.stage == Stage::Pulling);
    snapshot.started_at = saved.began_at;
    snapshot.ran_millis = machine.ran_millis(now);
    snapshot.over = saved.stage == Stage::Over;
}

fn sentence(machine: &Machine) -> String {
    let saved = machine.saved();
    let words = match saved.stage {
        Stage::Assigned => "waits to be taken up",
        Stage::Pulling => "fetches the image",
        Stage::Starting if saved.began_at.is_some() => "waits for the services that it depends on",
        Stage::Starting => "starts the container",
        Stage::Running if saved.cause.is_some() => "stops the container",
        Stage::Running if saved.unhealthy.is_some() => "ends the container, whose health check failed",
        Stage::Running => "runs",
        Stage::Restarting => "waits to start the container again",
        Stage::Frozen => "is frozen",
        Stage::Collecting => "hands the output over",
        Stage::Closing => "hands the rest of the log over",
        Stage::Reporting => "reports its end",
        Stage::Over => return saved.end.as_ref().map_or_else(|| "is over".to_owned(), |end| end.in_words(Told::Owner)),
    };
    words.to_owned()
}
