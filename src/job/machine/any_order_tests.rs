//! Any order of events, failures and crashes: one start per recorded start, one end, and events that keep their order.

use proptest::prelude::*;

use super::tests::{exit, image, now};
use super::*;
use crate::runtime::ContainerExit;
use crate::wire::job::{RestartPolicy, RestartWhen};
use crate::wire::lease::LimitKind;

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
        Just(Input::main(Heard::Pulled(image()))),
        Just(Input::main(Heard::Created { container: "c".into() })),
        Just(Input::main(Heard::Attached(ContainerStatus::Created))),
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
                Action::CancelPull => self.asked.retain(|asked| *asked != Action::main(Deed::Pull)),
                Action::Service { deed: Deed::Terminate | Deed::Kill, .. } => self.terminated = true,
                Action::Service { deed: Deed::ReadLog | Deed::CheckHealth, .. } => {}
                Action::Finish => self.over = true,
                Action::Service { .. }
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
        Some(match action {
            Action::Service { deed, .. } => Input::main(self.deed(deed, failing)?),
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
            Action::CancelPull | Action::Forget | Action::Finish => return None,
        })
    }

    fn deed(&mut self, deed: Deed, failing: bool) -> Option<Heard> {
        Some(match deed {
            Deed::Pull | Deed::Create | Deed::Attach if failing => {
                Heard::Failed { why: FailureKind::EngineError, detail: String::new() }
            }
            Deed::Pull => Heard::Pulled(image()),
            Deed::Create => Heard::Created { container: "c".into() },
            Deed::Start => {
                if self.started.is_none() {
                    self.start();
                }
                Heard::Started { started_at: now(self.second).wall }
            }
            Deed::Restart { ended_at } => {
                if self.exit.as_ref().is_some_and(|exit| exit.ended_at == ended_at) {
                    self.start();
                }
                Heard::Started { started_at: now(self.second).wall }
            }
            Deed::Attach => Heard::Attached(self.status()),
            Deed::Watch => {
                let code = if self.terminated { 143 } else { i32::from(failing) };
                // Two ends are never at the same time.
                self.second += 1;
                let ended = exit(self.started.unwrap(), self.second, code);
                let exit = self.exit.get_or_insert(ended).clone();
                self.frozen = false;
                Heard::Exited { exit, with_engine: false }
            }
            Deed::ReadLog | Deed::CheckHealth | Deed::Terminate | Deed::Kill | Deed::Freeze | Deed::Thaw => {
                return None;
            }
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
                    let is_pulled = matches!(input, Input::Heard { heard: Heard::Pulled(_), .. });
                    let is_created = matches!(input, Input::Heard { heard: Heard::Created { .. }, .. });
                    let honest = !(is_created || is_pulled && !world.asked.contains(&Action::main(Deed::Pull)));
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
