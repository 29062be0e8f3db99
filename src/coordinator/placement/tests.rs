//! Stories of single jobs, then random orders of everything that can happen to one.

use proptest::prelude::*;

use super::*;
use crate::coordinator::ledger::Settlement;
use crate::wire::{Amount, HourlyRate};

const DURATION_SECONDS: u64 = 100;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn job() -> Life {
    Life {
        state: JobState::Queued,
        ending: None,
        start_deadline_at: None,
        duration_seconds_max: DURATION_SECONDS,
        stop_grace_seconds: 10,
        lease_count: 0,
        started: false,
        live: None,
    }
}

fn lease(n: u8) -> LeaseId {
    uuid::Uuid::from_bytes([n; 16]).into()
}

fn node(n: u8) -> NodeId {
    uuid::Uuid::from_bytes([100 + n; 16]).into()
}

fn place(life: &mut Life, n: u8, now: Timestamp) {
    life.handle(Event::Placed { lease_id: lease(n), node_id: node(n) }, now).unwrap();
}

fn report(life: &mut Life, n: u8, sequence: u64, what: LeaseChange, now: Timestamp) -> Result<Vec<Action>, Refused> {
    let event = LeaseEvent { sequence: Sequence(sequence), at: now, what };
    life.handle(Event::Reported { lease_id: lease(n), event: &event }, now)
}

fn ended(end: LeaseEnd, ran_millis: u64) -> LeaseChange {
    LeaseChange::Ended { end, ran_millis }
}

fn failed(why: FailureKind) -> LeaseEnd {
    LeaseEnd::Failed { why, detail: "because".into() }
}

#[test]
fn a_job_that_runs_and_exits_is_paid_for_what_it_ran() {
    let mut life = job();
    place(&mut life, 1, at(0));
    report(&mut life, 1, 1, LeaseChange::Pulling { per_mille: Some(10) }, at(1)).unwrap();
    assert_eq!(life.state, JobState::Placed);
    let actions = report(&mut life, 1, 2, LeaseChange::Running, at(2)).unwrap();
    assert!(actions.contains(&Action::Started));
    let actions = report(&mut life, 1, 3, ended(LeaseEnd::Exited { code: 3 }, 4_000), at(7)).unwrap();
    assert!(matches!(&actions[0], Action::Close { pay_millis: Some(4_000), .. }));
    assert!(matches!(
        &actions[1],
        Action::Finish { state: JobState::Done, outcome: Some(LeaseEnd::Exited { code: 3 }), .. }
    ));
}

#[test]
fn a_repeated_event_changes_nothing_and_a_gap_is_refused() {
    let mut life = job();
    place(&mut life, 1, at(0));
    report(&mut life, 1, 1, LeaseChange::Running, at(1)).unwrap();
    let before = life.clone();
    assert_eq!(report(&mut life, 1, 1, LeaseChange::Collecting, at(2)), Ok(vec![]));
    assert_eq!(report(&mut life, 1, 3, LeaseChange::Collecting, at(2)), Err(Refused::Gap { expected: Sequence(2) }));
    assert_eq!(life, before);
}

#[test]
fn a_silent_node_loses_the_lease_and_its_late_word_is_refused_and_unpaid() {
    let mut life = job();
    place(&mut life, 1, at(0));
    report(&mut life, 1, 1, LeaseChange::Running, at(1)).unwrap();
    let actions = life.handle(Event::NodeSilent { lease_id: lease(1) }, at(90)).unwrap();
    assert!(matches!(&actions[0], Action::Close { end: LeaseEnd::Lost, pay_millis: None, .. }));
    assert!(matches!(&actions[1], Action::Requeue { .. }));
    place(&mut life, 2, at(91));
    assert_eq!(report(&mut life, 1, 2, ended(LeaseEnd::Exited { code: 0 }, 80_000), at(92)), Err(Refused::LeaseOver));
    assert_eq!(life.live.as_ref().unwrap().lease_id, lease(2));
}

#[test]
fn a_failure_that_is_the_jobs_own_fault_is_not_tried_elsewhere() {
    let mut life = job();
    place(&mut life, 1, at(0));
    let actions = report(&mut life, 1, 1, ended(failed(FailureKind::CommandNotFound), 0), at(1)).unwrap();
    assert!(matches!(&actions[0], Action::Close { pay_millis: None, .. }));
    assert!(matches!(&actions[1], Action::Finish { state: JobState::Failed, .. }));
}

#[test]
fn a_job_that_ran_and_then_failed_by_its_own_fault_is_paid_and_by_the_nodes_is_not() {
    let run_then = |why| {
        let mut life = job();
        place(&mut life, 1, at(0));
        report(&mut life, 1, 1, LeaseChange::Running, at(1)).unwrap();
        report(&mut life, 1, 2, ended(failed(why), 50_000), at(51)).unwrap()
    };
    let own = run_then(FailureKind::CommandNotFound);
    assert!(matches!(&own[0], Action::Close { pay_millis: Some(50_000), .. }), "{own:?}");
    assert!(matches!(&own[1], Action::Finish { state: JobState::Failed, .. }));
    for why in [FailureKind::EngineError, FailureKind::ContainerVanished, FailureKind::NoSpace] {
        let nodes = run_then(why);
        assert!(matches!(&nodes[0], Action::Close { pay_millis: None, .. }), "{nodes:?}");
        assert!(matches!(&nodes[1], Action::Requeue { .. }));
    }
}

#[test]
fn a_job_is_given_up_after_five_leases() {
    let mut life = job();
    for n in 1..=5 {
        assert_eq!(life.state, JobState::Queued);
        place(&mut life, n, at(i64::from(n)));
        report(&mut life, n, 1, ended(failed(FailureKind::NoSpace), 0), at(i64::from(n))).unwrap();
    }
    assert_eq!(life.state, JobState::Failed);
}

#[test]
fn a_queued_job_is_cancelled_at_once_and_a_running_one_when_its_node_says_so() {
    let mut queued = job();
    let actions = queued.handle(Event::StopRequested, at(1)).unwrap();
    assert!(matches!(&actions[..], [Action::Finish { state: JobState::Cancelled, .. }]));

    let mut running = job();
    place(&mut running, 1, at(0));
    report(&mut running, 1, 1, LeaseChange::Running, at(1)).unwrap();
    let actions = running.handle(Event::StopRequested, at(2)).unwrap();
    assert!(matches!(&actions[..], [Action::Stop { .. }]));
    assert_eq!(running.handle(Event::StopRequested, at(3)), Ok(vec![]));
    report(&mut running, 1, 2, ended(LeaseEnd::Stopped { code: 143 }, 1_000), at(4)).unwrap();
    assert_eq!(running.state, JobState::Cancelled);
}

#[test]
fn a_stopped_job_whose_node_goes_silent_is_cancelled_and_not_placed_again() {
    let mut life = job();
    place(&mut life, 1, at(0));
    life.handle(Event::StopRequested, at(2)).unwrap();
    life.handle(Event::NodeSilent { lease_id: lease(1) }, at(200)).unwrap();
    assert_eq!(life.state, JobState::Cancelled);
}

#[test]
fn a_job_that_no_node_starts_in_time_fails_at_its_start_deadline() {
    let mut waiting = Life { start_deadline_at: Some(at(60)), ..job() };
    assert_eq!(waiting.handle(Event::Tick, at(59)), Ok(vec![]));
    waiting.handle(Event::Tick, at(60)).unwrap();
    assert_eq!(waiting.state, JobState::Failed);

    let mut pulling = Life { start_deadline_at: Some(at(60)), ..job() };
    place(&mut pulling, 1, at(0));
    assert!(matches!(&pulling.handle(Event::Tick, at(61)).unwrap()[..], [Action::Stop { .. }]));
    report(&mut pulling, 1, 1, ended(LeaseEnd::Stopped { code: 137 }, 0), at(62)).unwrap();
    assert_eq!(pulling.state, JobState::Failed);

    let mut running = Life { start_deadline_at: Some(at(60)), ..job() };
    place(&mut running, 1, at(0));
    report(&mut running, 1, 1, LeaseChange::Running, at(5)).unwrap();
    assert_eq!(running.handle(Event::Tick, at(61)), Ok(vec![]));
}

#[test]
fn a_lease_past_its_time_is_asked_to_stop_but_frozen_time_does_not_count() {
    let mut life = job();
    place(&mut life, 1, at(0));
    report(&mut life, 1, 1, LeaseChange::Running, at(0)).unwrap();
    report(&mut life, 1, 2, LeaseChange::Frozen { reason: "a game".into() }, at(50)).unwrap();
    assert_eq!(life.handle(Event::Tick, at(10_000)), Ok(vec![]));
    report(&mut life, 1, 3, LeaseChange::Thawed, at(10_000)).unwrap();
    assert_eq!(life.handle(Event::Tick, at(10_110)), Ok(vec![]));
    assert!(matches!(&life.handle(Event::Tick, at(10_111)).unwrap()[..], [Action::Stop { .. }]));
}

#[test]
fn an_end_that_is_never_reported_does_not_hold_the_job_for_ever() {
    let mut life = job();
    place(&mut life, 1, at(0));
    report(&mut life, 1, 1, LeaseChange::Running, at(0)).unwrap();
    life.handle(Event::Tick, at(200)).unwrap();
    let actions = life.handle(Event::Tick, at(200 + 10 + HANDOVER_SECONDS_MAX + 1)).unwrap();
    assert!(matches!(&actions[0], Action::Close { pay_millis: None, end: LeaseEnd::TimedOut { .. }, .. }));
    assert_eq!(life.state, JobState::Done);
}

/// What the world outside can do next; numbers are reduced to what exists at that moment.
#[derive(Debug, Clone)]
enum Step {
    Place,
    /// The n-th lease's node writes its next event (it does so whether or not the lease is still live).
    NodeWrites {
        lease: u8,
        what: u8,
        ran: u64,
    },
    /// One of all events ever written arrives, perhaps again, perhaps late.
    Deliver {
        which: usize,
    },
    Silent {
        lease: u8,
    },
    Forgot {
        lease: u8,
    },
    Stop,
    Wait {
        seconds: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Place),
        6 => (0u8..6, 0u8..10, 0u64..1_000_000).prop_map(|(lease, what, ran)| Step::NodeWrites { lease, what, ran }),
        12 => (0usize..64).prop_map(|which| Step::Deliver { which }),
        1 => (0u8..6).prop_map(|lease| Step::Silent { lease }),
        1 => (0u8..6).prop_map(|lease| Step::Forgot { lease }),
        1 => Just(Step::Stop),
        2 => (0i64..20_000).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

fn change(what: u8, ran_millis: u64) -> LeaseChange {
    match what {
        0 => LeaseChange::Pulling { per_mille: None },
        1 => LeaseChange::Starting { image_digest: "sha256:0".into() },
        2 => LeaseChange::Running,
        3 => LeaseChange::Frozen { reason: "a game".into() },
        4 => LeaseChange::Thawed,
        5 => LeaseChange::Collecting,
        6 => ended(LeaseEnd::Exited { code: 0 }, ran_millis),
        7 => ended(failed(FailureKind::EngineError), ran_millis),
        8 => ended(LeaseEnd::Evicted { reason: "a game".into() }, ran_millis),
        _ => LeaseChange::Unknown,
    }
}

/// The books an obedient store would keep from the actions alone.
#[derive(Debug, Default)]
struct Books {
    opened: Vec<LeaseId>,
    closed: Vec<LeaseId>,
    paid: Vec<LeaseId>,
    escrow: Amount,
    finished: u32,
}

impl Books {
    fn apply(&mut self, actions: &[Action]) -> Result<(), TestCaseError> {
        for action in actions {
            prop_assert_eq!(self.finished, 0, "nothing happens after the end");
            match action {
                Action::Open { lease_id, .. } => {
                    prop_assert_eq!(self.opened.len(), self.closed.len(), "two live leases");
                    prop_assert!(!self.opened.contains(lease_id), "a lease opened twice");
                    self.opened.push(*lease_id);
                }
                Action::Close { lease_id, pay_millis, .. } => {
                    prop_assert!(self.opened.contains(lease_id) && !self.closed.contains(lease_id));
                    self.closed.push(*lease_id);
                    if let Some(millis) = pay_millis {
                        let pay = Settlement::of(HourlyRate::MAX, *millis, 50);
                        self.escrow = self.escrow.checked_sub(pay.gross).unwrap();
                        self.paid.push(*lease_id);
                    }
                }
                Action::Finish { .. } => {
                    prop_assert!(self.escrow >= Amount::ZERO, "more was paid than was held");
                    self.escrow = Amount::ZERO;
                    self.finished += 1;
                }
                Action::Phase { .. } | Action::Started | Action::Stop { .. } | Action::Requeue { .. } => {}
            }
        }
        prop_assert!(self.paid.len() <= 1, "paid twice");
        Ok(())
    }

    fn agrees_with(&self, life: &Life) -> Result<(), TestCaseError> {
        let live: Vec<_> = self.opened.iter().filter(|l| !self.closed.contains(l)).collect();
        prop_assert_eq!(live, life.live.iter().map(|l| &l.lease_id).collect::<Vec<_>>());
        prop_assert_eq!(self.finished == 1, life.state.is_final(), "final exactly when escrow was released");
        prop_assert_eq!(life.live.is_some(), matches!(life.state, JobState::Placed | JobState::Running));
        prop_assert!(life.state.is_final() || self.escrow > Amount::ZERO, "an unfinished job holds its money");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_order_of_events_makes_two_live_leases_pays_twice_or_forgets_the_job(
        steps in prop::collection::vec(step(), 1..120), deadline in prop::option::of(0i64..30_000),
    ) {
        let mut life = Life { start_deadline_at: deadline.map(at), ..job() };
        let mut books = Books { escrow: HourlyRate::MAX.ceiling_for_seconds(DURATION_SECONDS), ..Books::default() };
        let mut written: Vec<(LeaseId, LeaseEvent)> = Vec::new();
        let (mut clock, mut placed) = (0, 0u8);
        for step in steps {
            let now = at(clock);
            let done = match step {
                Step::Place => {
                    placed += 1;
                    life.handle(Event::Placed { lease_id: lease(placed), node_id: node(placed % 3) }, now)
                }
                Step::NodeWrites { lease: n, what, ran } => {
                    let id = lease(n);
                    let sequence = Sequence(written.iter().filter(|(l, _)| *l == id).count() as u64 + 1);
                    written.push((id, LeaseEvent { sequence, at: now, what: change(what, ran) }));
                    continue;
                }
                Step::Deliver { which } if !written.is_empty() => {
                    let (lease_id, event) = &written[which % written.len()];
                    life.handle(Event::Reported { lease_id: *lease_id, event }, now)
                }
                Step::Deliver { .. } => continue,
                Step::Silent { lease: n } => life.handle(Event::NodeSilent { lease_id: lease(n) }, now),
                Step::Forgot { lease: n } => life.handle(Event::NodeForgot { lease_id: lease(n) }, now),
                Step::Stop => life.handle(Event::StopRequested, now),
                Step::Wait { seconds } => {
                    clock += seconds;
                    life.handle(Event::Tick, at(clock))
                }
            };
            books.apply(&done.unwrap_or_default())?;
            books.agrees_with(&life)?;
        }
        // Whatever happened: a stop and a node that is never heard again end the job, and its money goes back.
        books.apply(&life.handle(Event::StopRequested, at(clock)).unwrap())?;
        if let Some(live) = &life.live {
            let lease_id = live.lease_id;
            books.apply(&life.handle(Event::NodeSilent { lease_id }, at(clock)).unwrap())?;
        }
        prop_assert!(life.state.is_final());
        books.agrees_with(&life)?;
    }
}
