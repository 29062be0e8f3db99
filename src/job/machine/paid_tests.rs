//! From when on a job of several services is paid, and that what it brings about itself is.

use super::tests::{exit, image, now};
use super::*;

/// A main service that waits for `db`, which may have a check.
fn terms(has_health: bool) -> Terms {
    let db = ServiceTerms { name: "db".into(), has_health, ..ServiceTerms::default() };
    let main = ServiceTerms { name: "main".into(), depends_on: vec![1], ..ServiceTerms::default() };
    Terms { duration_seconds_max: 100, main, companions: vec![db], ..Terms::default() }
}

fn db(heard: Heard) -> Input {
    Input::Heard { index: 1, heard }
}

fn starts(step: &Step) -> bool {
    step.actions.contains(&Action::Service { index: 1, deed: Deed::Create })
}

/// A machine whose `db` has run since second 10 and is not ready, and whose main container is made and waits.
fn waiting() -> Machine {
    let mut machine = Machine::new(terms(true), Saved::default());
    let _ = machine.handle(Input::Begin, now(0));
    let _ = machine.handle(Input::main(Heard::Pulled(image())), now(5));
    let _ = machine.handle(db(Heard::Pulled(image())), now(6));
    let _ = machine.handle(Input::main(Heard::Created { container: "c".into() }), now(7));
    let _ = machine.handle(db(Heard::Created { container: "d".into() }), now(8));
    let step = machine.handle(db(Heard::Started { started_at: now(10).wall }), now(10));
    assert_eq!(step.changes, [LeaseChange::Running], "its time counts, and the coordinator hears of it");
    machine
}

/// Ends `db`, closes the log, and answers the lease's end.
fn end_of(mut machine: Machine) -> (LeaseEnd, u64) {
    let _ = machine.handle(db(Heard::Exited { exit: exit(10, 499, 143), with_engine: false }), now(499));
    let step = machine.handle(Input::LogClosed, now(500));
    match step.changes.as_slice() {
        [LeaseChange::Ended { end, ran_millis }] => (end.clone(), *ran_millis),
        other => panic!("expected an end, got {other:?}"),
    }
}

#[test]
fn no_service_starts_before_the_images_of_all_are_here() {
    let mut machine = Machine::new(terms(false), Saved::default());
    let _ = machine.handle(Input::Begin, now(0));
    assert!(!starts(&machine.handle(db(Heard::Pulled(image())), now(1))), "the main image is not here");
    assert!(starts(&machine.handle(Input::main(Heard::Pulled(image())), now(2))));

    let mut other = Machine::new(terms(false), Saved::default());
    let _ = other.handle(Input::Begin, now(0));
    let _ = other.handle(Input::main(Heard::Pulled(image())), now(1));
    let _ = other.handle(Input::main(Heard::Created { container: "c".into() }), now(2));
    assert_eq!(other.ran_millis(now(3000).steady), 0, "what is fetched is not paid");
    assert_eq!(other.deadline(), Some(now(3600).steady));
}

#[test]
fn a_service_that_others_wait_for_is_paid_and_ends_with_the_jobs_longest_time() {
    let mut machine = waiting();
    assert_eq!(machine.saved().phase(), crate::wire::lease::LeasePhase::Running);
    assert_eq!(machine.deadline(), Some(now(110).steady));
    assert_eq!(machine.handle(Input::Tick, now(109)), Step::default());
    let step = machine.handle(Input::Tick, now(110));
    assert!(step.actions.contains(&Action::Service { index: 1, deed: Deed::Terminate }), "{step:?}");
    assert_eq!(end_of(machine), (LeaseEnd::TimedOut { limit_seconds: 100 }, 100_000));
}

#[test]
fn whatever_ends_a_job_whose_main_container_never_started_the_time_of_the_others_is_told() {
    let mut stopped = waiting();
    let _ = stopped.handle(Input::Stop, now(40));
    assert_eq!(end_of(stopped), (LeaseEnd::Stopped { code: 143 }, 30_000));

    let mut failed = waiting();
    let _ = failed.handle(db(Heard::Exited { exit: exit(10, 40, 3), with_engine: false }), now(40));
    assert_eq!(end_of(failed), (LeaseEnd::ServiceFailed { service: "db".into(), code: 3 }, 30_000));
}

#[test]
fn the_main_container_goes_on_with_the_time_of_those_it_waited_for() {
    let mut machine = waiting();
    let step = machine.handle(db(Heard::Healthy), now(20));
    assert_eq!(step.actions, [Action::main(Deed::Start)]);
    let step = machine.handle(Input::main(Heard::Started { started_at: now(21).wall }), now(21));
    assert_eq!(step.changes, [], "that it runs was told");
    assert_eq!(machine.deadline(), Some(now(110).steady));
    let step = machine.handle(Input::main(Heard::Exited { exit: exit(21, 50, 0), with_engine: false }), now(50));
    assert_eq!(step.changes, [LeaseChange::Collecting]);
    assert_eq!(end_of(machine), (LeaseEnd::Exited { code: 0 }, 40_000));
}

#[test]
fn an_agent_that_was_killed_goes_on_with_the_time_wherever_it_stood() {
    let mut machine = Machine::new(terms(true), waiting().saved().clone());
    let _ = machine.handle(Input::Begin, now(60));
    assert_eq!(machine.ran_millis(now(60).steady), 50_000);
    assert_eq!(machine.deadline(), Some(now(110).steady));

    let mut before = waiting();
    let _ = before.handle(db(Heard::Healthy), now(20));
    let _ = before.handle(Input::main(Heard::Started { started_at: now(21).wall }), now(21));
    let mut machine = Machine::new(terms(true), before.saved().clone());
    let _ = machine.handle(Input::Begin, now(60));
    let _ =
        machine.handle(Input::main(Heard::Attached(ContainerStatus::Running { started_at: now(21).wall })), now(60));
    assert_eq!(machine.ran_millis(now(60).steady), 50_000);
}

#[test]
fn a_freeze_while_others_are_waited_for_gives_the_lease_back_and_nobody_pays_for_it() {
    let mut machine = waiting();
    let step = machine.handle(Input::Freeze { reason: "game".into() }, now(20));
    assert!(step.actions.contains(&Action::Service { index: 1, deed: Deed::Terminate }), "{step:?}");
    assert_eq!(end_of(machine), (LeaseEnd::Evicted { reason: "game".into() }, 10_000));
}

#[test]
fn a_container_that_cannot_be_started_hours_after_the_first_is_the_jobs_own_matter() {
    let refused = || Input::main(Heard::Failed { why: FailureKind::EngineError, detail: "runc create failed".into() });
    for (second, whose) in [(20, FailureKind::EngineError), (95, FailureKind::InvalidSpec)] {
        let mut machine = waiting();
        let _ = machine.handle(db(Heard::Healthy), now(20));
        let _ = machine.handle(refused(), now(second));
        let (end, _) = end_of(machine);
        assert!(matches!(&end, LeaseEnd::Failed { why, .. } if *why == whose), "{second}: {end:?}");
    }
    // Nor does what is the node's for certain become the job's.
    let mut machine = waiting();
    let _ = machine.handle(db(Heard::Failed { why: FailureKind::ContainerVanished, detail: String::new() }), now(95));
    assert!(end_of(machine).0.retries_elsewhere());
}
