use proptest::prelude::*;

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
    let _ = machine.handle(Input::Pulled(image()), now(5));
    let _ = machine.handle(Input::Created { container: "c".into() }, now(9));
    let step = machine.handle(Input::Started { started_at: now(10).wall }, now(10));
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
    assert_eq!(step, Step::recorded(vec![LeaseChange::Pulling { per_mille: None }], vec![Action::Pull]));
    let step = machine.handle(Input::Pulled(image()), now(1));
    assert_eq!(step.changes, [LeaseChange::Starting { image_digest: "x@sha256:1".into() }]);
    assert_eq!(step.actions, [Action::Create]);
    assert_eq!(machine.handle(Input::Created { container: "c".into() }, now(2)).actions, [Action::Start]);
    let step = machine.handle(Input::Started { started_at: now(2).wall }, now(2));
    assert_eq!(step.actions, [Action::Watch, Action::ReadLog]);
    let step = machine.handle(Input::Exited { exit: exit(2, 5, 3), with_engine: false }, now(5));
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
    assert_eq!(machine.handle(Input::Tick, now(310)).actions, [Action::Terminate]);
    let _ = machine.handle(Input::Exited { exit: exit(10, 310, 137), with_engine: false }, now(310));
    assert_eq!(end_of(machine), (LeaseEnd::TimedOut { limit_seconds: 100 }, 100_000));
}

#[test]
fn stopping_what_never_started_ends_it_without_starting_it() {
    let mut machine = machine(Saved::default());
    let _ = machine.handle(Input::Begin, now(0));
    let step = machine.handle(Input::Stop, now(1));
    assert_eq!(step.actions, [Action::CancelPull, Action::CloseLog { notice: None }]);
    assert_eq!(machine.handle(Input::Pulled(image()), now(2)), Step::default());
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
            let _ = machine.handle(Input::Created { container: "c".into() }, now(3601));
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
    let _ = machine.handle(Input::Pulled(image()), now(3100));
    late(machine.clone(), FailureKind::EngineError);
    let _ = machine.handle(Input::Created { container: "c".into() }, now(3101));
    let _ = machine.handle(Input::Started { started_at: now(3102).wall }, now(3102));
    assert_eq!(machine.deadline(), Some(now(3202).steady), "from then on its own limit counts");
}

#[test]
fn a_stop_between_create_and_start_does_not_start_it() {
    let mut machine = machine(Saved::default());
    let _ = machine.handle(Input::Begin, now(0));
    let _ = machine.handle(Input::Pulled(image()), now(1));
    assert!(machine.handle(Input::Evict { reason: "game".into() }, now(1)).actions.is_empty());
    let step = machine.handle(Input::Created { container: "c".into() }, now(2));
    assert_eq!(step.actions, [Action::CloseLog { notice: None }]);
    assert_eq!(end_of(machine), (LeaseEnd::Evicted { reason: "game".into() }, 0));
}

#[test]
fn the_first_cause_stays() {
    let mut machine = running();
    let _ = machine.handle(Input::Stop, now(20));
    assert_eq!(machine.handle(Input::Evict { reason: "game".into() }, now(21)), Step::default());
    let _ = machine.handle(Input::Exited { exit: exit(10, 22, 0), with_engine: false }, now(22));
    assert_eq!(end_of(machine), (LeaseEnd::Stopped { code: 0 }, 12_000));
}

#[test]
fn a_clock_that_is_set_while_the_job_runs_changes_neither_its_pay_nor_its_limit() {
    // It runs from 10 to 30 by the steady clock; by the wall it ends a day later, a little earlier, or before it began.
    for ended in [86_430, 22, 3] {
        let mut machine = running();
        let at = Now { wall: now(ended).wall, steady: now(30).steady };
        assert_eq!(machine.handle(Input::Tick, at), Step::default());
        let _ = machine.handle(Input::Exited { exit: exit(10, ended, 0), with_engine: false }, at);
        assert_eq!(end_of(machine), (LeaseEnd::Exited { code: 0 }, 20_000), "{ended}");
    }
}

#[test]
fn an_exit_that_came_with_the_engines_end_is_the_nodes_fault() {
    // Also one that looks like a success: the end of the log went with the engine.
    for code in [137, 143, 255, 1, 0] {
        let mut machine = running();
        let _ = machine.handle(Input::Exited { exit: exit(10, 22, code), with_engine: true }, now(30));
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
    let _ = machine.handle(Input::Attached(ContainerStatus::Running { started_at: now(10).wall }), now(20));
    let step = machine.handle(Input::Unhealthy { detail: "sick".into() }, now(21));
    assert!(step.actions.contains(&Action::Terminate), "{step:?}");
    // Somebody's order ended it: this agent's.
    let step = machine.handle(Input::Exited { exit: exit(10, 22, 143), with_engine: true }, now(22));
    assert_eq!(step.changes, [LeaseChange::Restarted { service: "main".into(), code: 143, times: 1 }]);
}

#[test]
fn an_adopted_container_keeps_the_time_it_has_run() {
    let mut machine = machine(running().saved().clone());
    assert_eq!(machine.handle(Input::Begin, now(40)).actions, [Action::Attach]);
    let status = ContainerStatus::Running { started_at: now(10).wall };
    let step = machine.handle(Input::Attached(status), now(40));
    assert_eq!(step, Step { actions: vec![Action::Watch, Action::ReadLog], ..Step::default() });
    assert_eq!(machine.deadline(), Some(now(110).steady));
    assert_eq!(machine.ran_millis(now(45).steady), 35_000);
}

#[test]
fn a_stop_that_was_recorded_is_taken_up_again_after_a_crash() {
    let mut before = running();
    let _ = before.handle(Input::Stop, now(20));
    let mut machine = machine(before.saved().clone());
    let _ = machine.handle(Input::Begin, now(30));
    let step = machine.handle(Input::Attached(ContainerStatus::Running { started_at: now(10).wall }), now(30));
    assert_eq!(step.actions, [Action::Watch, Action::ReadLog, Action::Terminate]);
}

#[test]
fn a_container_found_thawed_or_frozen_after_a_crash_is_put_right() {
    let mut machine_running = machine(running().saved().clone());
    let _ = machine_running.handle(Input::Begin, now(30));
    let paused = ContainerStatus::Paused { started_at: now(10).wall };
    let step = machine_running.handle(Input::Attached(paused), now(30));
    assert_eq!(step.actions.last(), Some(&Action::Thaw));

    let mut before = running();
    let _ = before.handle(Input::Freeze { reason: "game".into() }, now(20));
    let _ = before.handle(Input::Froze { reason: "game".into() }, now(20));
    let mut machine = machine(before.saved().clone());
    let _ = machine.handle(Input::Begin, now(30));
    let step = machine.handle(Input::Attached(ContainerStatus::Running { started_at: now(10).wall }), now(30));
    assert_eq!(step.changes, [LeaseChange::Thawed]);
    assert_eq!(machine.saved().frozen_millis, 10_000);
}

#[test]
fn a_vanished_container_fails_the_lease_and_may_run_elsewhere() {
    let mut machine = running();
    let failed = Input::Failed { why: FailureKind::ContainerVanished, detail: "gone".into() };
    assert_eq!(machine.handle(failed, now(20)).changes, [LeaseChange::Collecting]);
    let (end, ran_millis) = end_of(machine);
    assert!(end.retries_elsewhere());
    assert_eq!(ran_millis, 10_000);
}

#[test]
fn a_dropped_lease_says_nothing_more() {
    let mut machine = running();
    assert_eq!(machine.handle(Input::Drop { forget: true }, now(20)).actions, [Action::Remove]);
    assert_eq!(machine.handle(Input::Exited { exit: exit(10, 21, 137), with_engine: false }, now(21)), Step::default());
    let step = machine.handle(Input::Removed, now(22));
    assert_eq!(step, Step { actions: vec![Action::Forget, Action::Finish], ..Step::default() });
}

#[test]
fn the_output_is_collected_only_when_the_job_ran_to_some_end_of_its_own() {
    let terms = Terms { duration_seconds_max: 100, memory_bytes: 1, has_output: true, ..Terms::default() };
    let mut done = Machine { terms: terms.clone(), ..running() };
    let step = done.handle(Input::Exited { exit: exit(10, 20, 1), with_engine: false }, now(20));
    assert_eq!(step.actions, [Action::Collect]);
    let step = done.handle(Input::Collected { notice: Some("too large".into()) }, now(21));
    assert_eq!(step.actions, [Action::CloseLog { notice: Some("too large".into()) }]);
    let mut evicted = Machine { terms, ..running() };
    let _ = evicted.handle(Input::Evict { reason: "game".into() }, now(20));
    let step = evicted.handle(Input::Exited { exit: exit(10, 20, 143), with_engine: false }, now(20));
    assert_eq!(step.actions, [Action::CloseLog { notice: None }]);
}

#[test]
fn a_job_over_a_limit_is_killed_at_once_and_ended_as_such() {
    let over = Input::OverLimit { limit: LimitKind::DiskBytes, value: 1 << 20 };
    let mut machine = running();
    assert_eq!(machine.handle(over.clone(), now(20)), Step::recorded(Vec::new(), vec![Action::Kill]));
    // A restart of the agent in between kills it again.
    let mut restarted = super::tests::machine(machine.saved().clone());
    let _ = restarted.handle(Input::Begin, now(21));
    let attached = Input::Attached(ContainerStatus::Running { started_at: now(10).wall });
    assert_eq!(restarted.handle(attached, now(21)).actions, [Action::Watch, Action::ReadLog, Action::Kill]);
    let _ = machine.handle(Input::Exited { exit: exit(10, 22, 137), with_engine: false }, now(22));
    let (end, ran) = end_of(machine);
    assert_eq!(end, LeaseEnd::OverLimit { limit: LimitKind::DiskBytes, value: 1 << 20 });
    assert_eq!(ran, 12_000, "what it ran is paid");
}

#[test]
fn a_job_that_fills_the_disk_while_it_is_being_stopped_loses_its_grace_and_was_stopped() {
    let mut machine = running();
    let _ = machine.handle(Input::Stop, now(20));
    let over = Input::OverLimit { limit: LimitKind::DiskBytes, value: 1 };
    assert_eq!(machine.handle(over, now(21)), Step::act(Action::Kill));
    let _ = machine.handle(Input::Exited { exit: exit(10, 22, 137), with_engine: false }, now(22));
    assert_eq!(end_of(machine).0, LeaseEnd::Stopped { code: 137 });
}

#[test]
fn a_container_that_ended_within_the_instant_of_its_start_has_run_and_is_paid() {
    let mut machine = running();
    let _ = machine.handle(Input::Exited { exit: exit(10, 10, 0), with_engine: false }, now(10));
    assert_eq!(end_of(machine), (LeaseEnd::Exited { code: 0 }, 1));
}

/// What a test throws at the machine; answers are only given to actions that were asked for.
#[derive(Debug, Clone)]
enum Throw {
    Command(Input),
    Answer {
        failing: bool,
        choice: usize,
    },
    /// The engine does it, and the agent is killed before it hears of it.
    Unheard {
        failing: bool,
        choice: usize,
    },
    Crash,
    Stray(Input),
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(Input::Begin),
        Just(Input::Pulled(image())),
        Just(Input::Created { container: "c".into() }),
        Just(Input::Attached(ContainerStatus::Created)),
        Just(Input::Froze { reason: "r".into() }),
        Just(Input::Thawed),
        Just(Input::Tick),
        (0u16..2000).prop_map(|per_mille| Input::PullMoved { per_mille }),
    ]
}

fn command() -> impl Strategy<Value = Input> {
    prop_oneof![
        2 => Just(Input::Stop),
        1 => Just(Input::Evict { reason: "game".into() }),
        1 => Just(Input::Freeze { reason: "game".into() }),
        1 => Just(Input::Thaw),
        1 => Just(Input::Tick),
        1 => Just(Input::OverLimit { limit: LimitKind::DiskBytes, value: 7 }),
        1 => Just(Input::DiskFull),
    ]
}

fn throws() -> impl Strategy<Value = Vec<Throw>> {
    let throw = prop_oneof![
        6 => (any::<bool>(), any::<usize>()).prop_map(|(failing, choice)| Throw::Answer { failing, choice }),
        1 => (any::<bool>(), any::<usize>()).prop_map(|(failing, choice)| Throw::Unheard { failing, choice }),
        2 => command().prop_map(Throw::Command),
        1 => Just(Throw::Crash),
        1 => any_input().prop_map(Throw::Stray),
    ];
    prop::collection::vec(throw, 0..60)
}

/// An engine, an outbox and a clock, just enough to answer the machine honestly.
struct World {
    terms: Terms,
    machine: Machine,
    journal: Saved,
    changes: Vec<LeaseChange>,
    asked: Vec<Action>,
    second: i64,
    exists: bool,
    started: Option<i64>,
    exit: Option<ContainerExit>,
    starts: u32,
    frozen: bool,
    terminated: bool,
    over: bool,
}

impl World {
    fn new(restart: RestartPolicy) -> Self {
        let main = ServiceTerms { name: "main".into(), restart, ..ServiceTerms::default() };
        let terms = Terms { duration_seconds_max: 100, memory_bytes: 1 << 20, main, ..Terms::default() };
        let mut world = Self {
            machine: Machine::new(terms.clone(), Saved::default()),
            terms,
            journal: Saved::default(),
            changes: Vec::new(),
            asked: Vec::new(),
            second: 1,
            exists: false,
            started: None,
            exit: None,
            starts: 0,
            frozen: false,
            terminated: false,
            over: false,
        };
        world.feed(Input::Begin);
        world
    }

    fn feed(&mut self, input: Input) {
        self.second += 1;
        let step = self.machine.handle(input, now(self.second));
        assert!(step.record || step.changes.is_empty(), "what is told must be recorded");
        if step.record {
            self.journal = self.machine.saved().clone();
            self.changes.extend(step.changes);
        }
        for action in step.actions {
            match action {
                Action::CancelPull => self.asked.retain(|asked| *asked != Action::Pull),
                Action::Terminate | Action::Kill => self.terminated = true,
                Action::ReadLog | Action::CheckHealth | Action::Companion { .. } => {}
                Action::Finish => self.over = true,
                Action::Pull
                | Action::Create
                | Action::Start
                | Action::Restart { .. }
                | Action::Attach
                | Action::Watch
                | Action::Freeze { .. }
                | Action::Thaw
                | Action::Collect
                | Action::CloseLog { .. }
                | Action::Report
                | Action::Remove
                | Action::Forget => self.asked.push(action),
            }
        }
    }

    fn crash(&mut self) {
        self.machine = Machine::new(self.terms.clone(), self.journal.clone());
        self.asked.clear();
        self.feed(Input::Begin);
    }

    fn status(&self) -> ContainerStatus {
        match (&self.exit, self.started) {
            (Some(exit), _) => ContainerStatus::Exited(exit.clone()),
            (None, None) => ContainerStatus::Created,
            (None, Some(at)) if self.frozen => ContainerStatus::Paused { started_at: now(at).wall },
            (None, Some(at)) => ContainerStatus::Running { started_at: now(at).wall },
        }
    }

    fn start(&mut self) {
        self.started = Some(self.second);
        self.exit = None;
        self.terminated = false;
        self.starts += 1;
    }

    /// Does the chosen one of the asked actions and answers it, unless the agent is killed before it hears.
    fn answer(&mut self, failing: bool, choice: usize, heard: bool) {
        if self.asked.is_empty() {
            return;
        }
        let action = self.asked.remove(choice % self.asked.len());
        let input = self.done(action, failing);
        match input {
            Some(input) if heard => self.feed(input),
            Some(_) => self.crash(),
            None => {}
        }
    }

    fn done(&mut self, action: Action, failing: bool) -> Option<Input> {
        let failed = Input::Failed { why: FailureKind::EngineError, detail: String::new() };
        Some(match action {
            Action::Pull | Action::Create | Action::Attach if failing => failed,
            Action::Pull => Input::Pulled(image()),
            Action::Create => {
                self.exists = true;
                Input::Created { container: "c".into() }
            }
            Action::Start => {
                if self.started.is_none() {
                    self.start();
                }
                Input::Started { started_at: now(self.second).wall }
            }
            Action::Restart { ended_at } => {
                if self.exit.as_ref().is_some_and(|exit| exit.ended_at == ended_at) {
                    self.start();
                }
                Input::Started { started_at: now(self.second).wall }
            }
            Action::Attach => Input::Attached(self.status()),
            Action::Watch => {
                let code = if self.terminated { 143 } else { i32::from(failing) };
                // Two ends are never at the same time.
                self.second += 1;
                let ended = exit(self.started.unwrap(), self.second, code);
                let exit = self.exit.get_or_insert(ended).clone();
                self.frozen = false;
                Input::Exited { exit, with_engine: false }
            }
            Action::Freeze { .. } | Action::Thaw if self.exit.is_some() => return None,
            Action::Freeze { reason } => {
                self.frozen = true;
                Input::Froze { reason }
            }
            Action::Thaw => {
                self.frozen = false;
                Input::Thawed
            }
            Action::Collect => Input::Collected { notice: None },
            Action::CloseLog { .. } => Input::LogClosed,
            Action::Report => Input::Reported,
            Action::Remove => Input::Removed,
            Action::CheckHealth
            | Action::Companion { .. }
            | Action::CancelPull
            | Action::ReadLog
            | Action::Terminate
            | Action::Kill
            | Action::Forget
            | Action::Finish => return None,
        })
    }

    /// From here on everybody answers, and time passes.
    fn finish(&mut self) {
        for _ in 0..400 {
            if self.over {
                return;
            }
            if self.asked.is_empty() {
                let wait = self.machine.deadline().map(|at| at.since(Steady::from_start(Duration::ZERO)));
                self.second = self.second.max(wait.map_or(0, |wait| i64::try_from(wait.as_secs()).unwrap()));
                self.feed(Input::Tick);
            }
            self.answer(false, 0, true);
        }
    }
}

fn policies() -> impl Strategy<Value = RestartPolicy> {
    let when = prop_oneof![Just(RestartWhen::Never), Just(RestartWhen::OnFailure), Just(RestartWhen::Always)];
    (when, prop::option::of(0u32..4)).prop_map(|(when, times_max)| RestartPolicy { when, times_max })
}

/// Where a change may stand after another.
fn rank(change: &LeaseChange) -> u8 {
    match change {
        LeaseChange::Pulling { .. } => 1,
        LeaseChange::Starting { .. } => 2,
        LeaseChange::Running | LeaseChange::Frozen { .. } | LeaseChange::Thawed | LeaseChange::Restarted { .. } => 3,
        LeaseChange::Collecting => 4,
        LeaseChange::Ended { .. } => 5,
        LeaseChange::Unknown => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_container_starts_once_per_recorded_start_the_lease_ends_once_and_events_keep_their_order(policy in policies(), throws in throws()) {
        let mut world = World::new(policy);
        let mut stopped = false;
        for throw in throws {
            match throw {
                Throw::Command(input) => {
                    stopped |= matches!(input, Input::Stop | Input::Evict { .. });
                    world.feed(input);
                }
                Throw::Answer { failing, choice } => world.answer(failing, choice, true),
                Throw::Unheard { failing, choice } => world.answer(failing, choice, false),
                Throw::Crash => world.crash(),
                // Answers nobody asked for: late ones of a task that is gone.
                Throw::Stray(Input::Begin) => {}
                Throw::Stray(input) => {
                    let pulled = matches!(input, Input::Pulled(_)) && !world.asked.contains(&Action::Pull);
                    let honest = !pulled && !matches!(input, Input::Created { .. });
                    let before = world.machine.saved().stage;
                    let settled = !matches!(before, Stage::Running | Stage::Frozen | Stage::Starting | Stage::Restarting);
                    if !honest || settled {
                        world.feed(input);
                    }
                }
            }
            prop_assert!(world.starts <= 1 + world.journal.restarts.times);
        }
        // The lease comes to its end, stopped or not.
        world.finish();
        prop_assert!(world.over, "stuck in {:?} (stopped: {stopped})", world.machine.saved());
        let restarts = world.journal.restarts.times;
        prop_assert!(world.starts <= 1 + restarts);
        prop_assert!(policy.times_max.is_none_or(|most| restarts <= most));
        prop_assert!(policy.when != RestartWhen::Never || restarts == 0);
        let told = world.changes.iter().filter(|change| matches!(change, LeaseChange::Restarted { .. })).count();
        prop_assert_eq!(told, restarts as usize);
        let ends = world.changes.iter().filter(|change| matches!(change, LeaseChange::Ended { .. })).count();
        prop_assert_eq!(ends, 1);
        for pair in world.changes.windows(2) {
            prop_assert!(rank(&pair[0]) <= rank(&pair[1]), "{:?}", world.changes);
            if rank(&pair[0]) != 1 && rank(&pair[0]) != 3 {
                prop_assert!(rank(&pair[0]) < rank(&pair[1]), "{:?}", world.changes);
            }
            let twice = matches!(
                pair,
                [LeaseChange::Frozen { .. }, LeaseChange::Frozen { .. }] | [LeaseChange::Thawed, LeaseChange::Thawed]
            );
            prop_assert!(!twice, "frozen and thawed take turns");
        }
        if world.starts == 0 {
            prop_assert!(!world.changes.contains(&LeaseChange::Running));
        }
    }

    #[test]
    fn what_is_recorded_survives_its_json(policy in policies(), throws in throws()) {
        let mut world = World::new(policy);
        for throw in throws {
            if let Throw::Answer { choice, .. } = throw {
                world.answer(true, choice, true);
            }
            let json = serde_json::to_string(&world.journal).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Saved>(&json).unwrap(), &world.journal);
        }
    }
}
