//! The life of a lease of one container, told as stories.

use super::*;
use crate::runtime::ContainerExit;
use crate::wire::job::{RestartPolicy, RestartWhen};
use crate::wire::lease::LimitKind;

pub(super) fn now(second: i64) -> Now {
    let steady = Steady::from_start(Duration::from_secs(u64::try_from(second).unwrap()));
    Now { wall: Timestamp::from_second(1_000_000 + second).unwrap(), steady }
}

fn machine(saved: Saved) -> Machine {
    Machine::new(Terms { duration_seconds_max: 100, memory_bytes: 1 << 20, ..Terms::default() }, saved)
}

pub(super) fn image() -> PinnedImage {
    PinnedImage {
        image_id: "sha256:1".into(),
        digest: "x@sha256:1".into(),
        settings: crate::runtime::ImageSettings::default(),
    }
}

pub(super) fn exit(started: i64, ended: i64, code: i32) -> ContainerExit {
    ContainerExit { code, out_of_memory: false, started_at: now(started).wall, ended_at: now(ended).wall }
}

/// A machine whose container has run since second 10.
fn running() -> Machine {
    let mut machine = machine(Saved::default());
    let _ = machine.handle(Input::Begin, now(0));
    let _ = machine.handle(Input::main(Heard::Pulled(image())), now(5));
    let _ = machine.handle(Input::main(Heard::Created { container: "c".into() }), now(9));
    let step = machine.handle(Input::main(Heard::Started { started_at: now(10).wall }), now(10));
    assert_eq!(step.changes, [LeaseChange::Running]);
    machine
}

fn end_of(mut machine: Machine) -> (LeaseEnd, u64) {
    let step = machine.handle(Input::LogClosed, now(500));
    match step.changes.as_slice() {
        [LeaseChange::Ended { end, ran_millis }] => (end.clone(), *ran_millis),
        other => panic!("expected an end, got {other:?}"),
    }
}

#[test]
fn a_job_runs_from_pull_to_end_and_tells_every_step_once() {
    let mut machine = machine(Saved::default());
    let step = machine.handle(Input::Begin, now(0));
    assert_eq!(step, Step::recorded(vec![LeaseChange::Pulling { per_mille: None }], vec![Action::main(Deed::Pull)]));
    let step = machine.handle(Input::main(Heard::Pulled(image())), now(1));
    assert_eq!(step.changes, [LeaseChange::Starting { image_digest: "x@sha256:1".into() }]);
    assert_eq!(step.actions, [Action::main(Deed::Create)]);
    assert_eq!(
        machine.handle(Input::main(Heard::Created { container: "c".into() }), now(2)).actions,
        [Action::main(Deed::Start)]
    );
    let step = machine.handle(Input::main(Heard::Started { started_at: now(2).wall }), now(2));
    assert_eq!(step.actions, [Action::main(Deed::Watch), Action::main(Deed::ReadLog)]);
    let step = machine.handle(Input::main(Heard::Exited { exit: exit(2, 5, 3), with_engine: false }), now(5));
    assert_eq!(step, Step::recorded(vec![LeaseChange::Collecting], vec![Action::CloseLog { notice: None }]));
    let step = machine.handle(Input::LogClosed, now(6));
    assert_eq!(step.changes, [LeaseChange::Ended { end: LeaseEnd::Exited { code: 3 }, ran_millis: 3000 }]);
    assert_eq!(machine.handle(Input::Reported, now(6)).actions, [Action::Remove]);
    assert_eq!(machine.handle(Input::Removed, now(7)).actions, [Action::Finish]);
    assert_eq!(machine.saved().stage, Stage::Over);
}

#[test]
fn a_job_is_stopped_when_its_longest_time_is_over_and_frozen_time_does_not_count() {
    let mut machine = running();
    assert_eq!(machine.deadline(), Some(now(110).steady));
    let step = machine.handle(Input::Freeze { reason: "game".into() }, now(20));
    assert_eq!(step.actions, [Action::Freeze { reason: "game".into() }]);
    let step = machine.handle(Input::Froze { reason: "game".into() }, now(20));
    assert_eq!(step.changes, [LeaseChange::Frozen { reason: "game".into() }]);
    assert_eq!(machine.deadline(), None);
    assert_eq!(machine.handle(Input::Thaw, now(220)).actions, [Action::Thaw]);
    assert_eq!(machine.handle(Input::Thawed, now(220)).changes, [LeaseChange::Thawed]);
    assert_eq!(machine.deadline(), Some(now(310).steady));
    assert_eq!(machine.handle(Input::Tick, now(309)), Step::default());
    assert_eq!(machine.handle(Input::Tick, now(310)).actions, [Action::main(Deed::Terminate)]);
    let _ = machine.handle(Input::main(Heard::Exited { exit: exit(10, 310, 137), with_engine: false }), now(310));
    assert_eq!(end_of(machine), (LeaseEnd::TimedOut { limit_seconds: 100 }, 100_000));
}

#[test]
fn stopping_what_never_started_ends_it_without_starting_it() {
    let mut machine = machine(Saved::default());
    let _ = machine.handle(Input::Begin, now(0));
    let step = machine.handle(Input::Stop, now(1));
    assert_eq!(step.actions, [Action::CancelPull, Action::CloseLog { notice: None }]);
    assert_eq!(machine.handle(Input::main(Heard::Pulled(image())), now(2)), Step::default());
    assert_eq!(end_of(machine), (LeaseEnd::Stopped { code: 143 }, 0));
}

#[test]
fn a_lease_that_does_not_run_within_an_hour_is_given_back() {
    let late = |mut machine: Machine, expected: FailureKind| {
        assert_eq!(machine.deadline(), Some(now(3600).steady));
        assert_eq!(machine.handle(Input::Tick, now(3599)), Step::default());
        let step = machine.handle(Input::Tick, now(3600));
        assert_eq!(machine.deadline(), None, "it is told once");
        if machine.saved().stage == Stage::Starting {
            let _ = machine.handle(Input::main(Heard::Created { container: "c".into() }), now(3601));
        } else {
            assert_eq!(step.actions, [Action::CancelPull, Action::CloseLog { notice: None }]);
        }
        let (end, ran) = end_of(machine);
        let LeaseEnd::Failed { why, detail } = end else { panic!("{end:?}") };
        assert_eq!((why, ran), (expected, 0));
        assert!(detail.starts_with("it did not start within 1 h"), "{detail}");
    };
    let mut machine = machine(Saved::default());
    let _ = machine.handle(Input::Begin, now(0));
    // However it drips.
    let _ = machine.handle(Input::PullMoved { per_mille: 500 }, now(3000));
    late(machine.clone(), FailureKind::ImagePullFailed);
    let _ = machine.handle(Input::main(Heard::Pulled(image())), now(3100));
    late(machine.clone(), FailureKind::EngineError);
    let _ = machine.handle(Input::main(Heard::Created { container: "c".into() }), now(3101));
    let _ = machine.handle(Input::main(Heard::Started { started_at: now(3102).wall }), now(3102));
    assert_eq!(machine.deadline(), Some(now(3202).steady), "from then on its own limit counts");
}

#[test]
fn a_stop_between_create_and_start_does_not_start_it() {
    let mut machine = machine(Saved::default());
    let _ = machine.handle(Input::Begin, now(0));
    let _ = machine.handle(Input::main(Heard::Pulled(image())), now(1));
    assert!(machine.handle(Input::Evict { reason: "game".into() }, now(1)).actions.is_empty());
    let step = machine.handle(Input::main(Heard::Created { container: "c".into() }), now(2));
    assert_eq!(step.actions, [Action::CloseLog { notice: None }]);
    assert_eq!(end_of(machine), (LeaseEnd::Evicted { reason: "game".into() }, 0));
}

#[test]
fn the_first_cause_stays() {
    let mut machine = running();
    let _ = machine.handle(Input::Stop, now(20));
    assert_eq!(machine.handle(Input::Evict { reason: "game".into() }, now(21)), Step::default());
    let _ = machine.handle(Input::main(Heard::Exited { exit: exit(10, 22, 0), with_engine: false }), now(22));
    assert_eq!(end_of(machine), (LeaseEnd::Stopped { code: 0 }, 12_000));
}

#[test]
fn a_clock_that_is_set_while_the_job_runs_changes_neither_its_pay_nor_its_limit() {
    // It runs from 10 to 30 by the steady clock; by the wall it ends a day later, a little earlier, or before it began.
    for ended in [86_430, 22, 3] {
        let mut machine = running();
        let at = Now { wall: now(ended).wall, steady: now(30).steady };
        assert_eq!(machine.handle(Input::Tick, at), Step::default());
        let _ = machine.handle(Input::main(Heard::Exited { exit: exit(10, ended, 0), with_engine: false }), at);
        assert_eq!(end_of(machine), (LeaseEnd::Exited { code: 0 }, 20_000), "{ended}");
    }
}

#[test]
fn an_exit_that_came_with_the_engines_end_is_the_nodes_fault() {
    // Also one that looks like a success: the end of the log went with the engine.
    for code in [137, 143, 255, 1, 0] {
        let mut machine = running();
        let _ = machine.handle(Input::main(Heard::Exited { exit: exit(10, 22, code), with_engine: true }), now(30));
        let (end, _) = end_of(machine);
        assert!(matches!(end, LeaseEnd::Failed { why: FailureKind::EngineUnavailable, .. }), "{end:?}");
        assert!(end.retries_elsewhere());
    }
}

#[test]
fn an_unhealthy_container_that_was_told_to_end_is_started_again() {
    let restart = RestartPolicy { when: RestartWhen::OnFailure, times_max: Some(1) };
    let main = ServiceTerms { name: "main".into(), restart, ..ServiceTerms::default() };
    let terms = Terms { duration_seconds_max: 100, main, ..Terms::default() };
    let mut machine = Machine::new(terms, running().saved().clone());
    let _ = machine.handle(Input::Begin, now(20));
    let _ =
        machine.handle(Input::main(Heard::Attached(ContainerStatus::Running { started_at: now(10).wall })), now(20));
    let step = machine.handle(Input::main(Heard::Unhealthy { detail: "sick".into() }), now(21));
    assert!(step.actions.contains(&Action::main(Deed::Terminate)), "{step:?}");
    // Somebody's order ended it: this agent's.
    let step = machine.handle(Input::main(Heard::Exited { exit: exit(10, 22, 143), with_engine: true }), now(22));
    assert_eq!(step.changes, [LeaseChange::Restarted { service: "main".into(), code: 143, times: 1 }]);
}

#[test]
fn an_adopted_container_keeps_the_time_it_has_run() {
    let mut machine = machine(running().saved().clone());
    assert_eq!(machine.handle(Input::Begin, now(40)).actions, [Action::main(Deed::Attach)]);
    let status = ContainerStatus::Running { started_at: now(10).wall };
    let step = machine.handle(Input::main(Heard::Attached(status)), now(40));
    assert_eq!(step, Step { actions: vec![Action::main(Deed::Watch), Action::main(Deed::ReadLog)], ..Step::default() });
    assert_eq!(machine.deadline(), Some(now(110).steady));
    assert_eq!(machine.ran_millis(now(45).steady), 35_000);
}

#[test]
fn a_stop_that_was_recorded_is_taken_up_again_after_a_crash() {
    let mut before = running();
    let _ = before.handle(Input::Stop, now(20));
    let mut machine = machine(before.saved().clone());
    let _ = machine.handle(Input::Begin, now(30));
    let step =
        machine.handle(Input::main(Heard::Attached(ContainerStatus::Running { started_at: now(10).wall })), now(30));
    assert_eq!(step.actions, [Action::main(Deed::Watch), Action::main(Deed::ReadLog), Action::main(Deed::Terminate)]);
}

#[test]
fn a_container_found_thawed_or_frozen_after_a_crash_is_put_right() {
    let mut machine_running = machine(running().saved().clone());
    let _ = machine_running.handle(Input::Begin, now(30));
    let paused = ContainerStatus::Paused { started_at: now(10).wall };
    let step = machine_running.handle(Input::main(Heard::Attached(paused)), now(30));
    assert_eq!(step.actions.last(), Some(&Action::Thaw));

    let mut before = running();
    let _ = before.handle(Input::Freeze { reason: "game".into() }, now(20));
    let _ = before.handle(Input::Froze { reason: "game".into() }, now(20));
    let mut machine = machine(before.saved().clone());
    let _ = machine.handle(Input::Begin, now(30));
    let step =
        machine.handle(Input::main(Heard::Attached(ContainerStatus::Running { started_at: now(10).wall })), now(30));
    assert_eq!(step.changes, [LeaseChange::Thawed]);
    assert_eq!(machine.saved().frozen_millis, 10_000);
}

#[test]
fn a_vanished_container_fails_the_lease_and_may_run_elsewhere() {
    let mut machine = running();
    let failed = Input::main(Heard::Failed { why: FailureKind::ContainerVanished, detail: "gone".into() });
    assert_eq!(machine.handle(failed, now(20)).changes, [LeaseChange::Collecting]);
    let (end, ran_millis) = end_of(machine);
    assert!(end.retries_elsewhere());
    assert_eq!(ran_millis, 10_000);
}

#[test]
fn a_dropped_lease_says_nothing_more() {
    let mut machine = running();
    assert_eq!(machine.handle(Input::Drop { forget: true }, now(20)).actions, [Action::Remove]);
    assert_eq!(
        machine.handle(Input::main(Heard::Exited { exit: exit(10, 21, 137), with_engine: false }), now(21)),
        Step::default()
    );
    let step = machine.handle(Input::Removed, now(22));
    assert_eq!(step, Step { actions: vec![Action::Forget, Action::Finish], ..Step::default() });
}

#[test]
fn the_output_is_collected_only_when_the_job_ran_to_some_end_of_its_own() {
    let terms = Terms { duration_seconds_max: 100, memory_bytes: 1, has_output: true, ..Terms::default() };
    let mut done = Machine { terms: terms.clone(), ..running() };
    let step = done.handle(Input::main(Heard::Exited { exit: exit(10, 20, 1), with_engine: false }), now(20));
    assert_eq!(step.actions, [Action::Collect]);
    let step = done.handle(Input::Collected { notice: Some("too large".into()) }, now(21));
    assert_eq!(step.actions, [Action::CloseLog { notice: Some("too large".into()) }]);
    let mut evicted = Machine { terms, ..running() };
    let _ = evicted.handle(Input::Evict { reason: "game".into() }, now(20));
    let step = evicted.handle(Input::main(Heard::Exited { exit: exit(10, 20, 143), with_engine: false }), now(20));
    assert_eq!(step.actions, [Action::CloseLog { notice: None }]);
}

#[test]
fn a_job_over_a_limit_is_killed_at_once_and_ended_as_such() {
    let over = Input::OverLimit { limit: LimitKind::DiskBytes, value: 1 << 20 };
    let mut machine = running();
    assert_eq!(machine.handle(over.clone(), now(20)), Step::recorded(Vec::new(), vec![Action::main(Deed::Kill)]));
    // A restart of the agent in between kills it again.
    let mut restarted = super::tests::machine(machine.saved().clone());
    let _ = restarted.handle(Input::Begin, now(21));
    let attached = Input::main(Heard::Attached(ContainerStatus::Running { started_at: now(10).wall }));
    assert_eq!(
        restarted.handle(attached, now(21)).actions,
        [Action::main(Deed::Watch), Action::main(Deed::ReadLog), Action::main(Deed::Kill)]
    );
    let _ = machine.handle(Input::main(Heard::Exited { exit: exit(10, 22, 137), with_engine: false }), now(22));
    let (end, ran) = end_of(machine);
    assert_eq!(end, LeaseEnd::OverLimit { limit: LimitKind::DiskBytes, value: 1 << 20 });
    assert_eq!(ran, 12_000, "what it ran is paid");
}

#[test]
fn a_job_that_fills_the_disk_while_it_is_being_stopped_loses_its_grace_and_was_stopped() {
    let mut machine = running();
    let _ = machine.handle(Input::Stop, now(20));
    let over = Input::OverLimit { limit: LimitKind::DiskBytes, value: 1 };
    assert_eq!(machine.handle(over, now(21)), Step::act(Action::main(Deed::Kill)));
    let _ = machine.handle(Input::main(Heard::Exited { exit: exit(10, 22, 137), with_engine: false }), now(22));
    assert_eq!(end_of(machine).0, LeaseEnd::Stopped { code: 137 });
}

#[test]
fn a_container_that_ended_within_the_instant_of_its_start_has_run_and_is_paid() {
    let mut machine = running();
    let _ = machine.handle(Input::main(Heard::Exited { exit: exit(10, 10, 0), with_engine: false }), now(10));
    assert_eq!(end_of(machine), (LeaseEnd::Exited { code: 0 }, 1));
}
