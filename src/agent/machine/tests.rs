//! The machine's story, told event by event, and properties that hold whatever the order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::wire::JobId;
use crate::wire::job::{JobLimits, JobSpec, Requirements};
use crate::wire::money::HourlyRate;

fn at(seconds: u64) -> Steady {
    Steady::from_start(Duration::from_secs(seconds))
}

fn lease_id(number: u8) -> LeaseId {
    LeaseId::from(uuid::Uuid::from_u128(u128::from(number)))
}

fn assignment(number: u8, desired: Desired) -> Assignment {
    let limits = JobLimits {
        price_max: HourlyRate::MIN,
        duration_seconds_max: 60,
        start_deadline_seconds: None,
        stop_grace_seconds: 1,
        log_bytes_max: 1,
        output_bytes_max: 1,
        pids_max: 1,
    };
    Assignment {
        lease_id: lease_id(number),
        job_id: JobId::from(uuid::Uuid::nil()),
        generation: Generation(if desired == Desired::Run { 1 } else { 2 }),
        desired,
        rate: HourlyRate::MIN,
        spec: JobSpec {
            name: None,
            services: Vec::new(),
            requirements: Requirements::default(),
            limits,
            output_path: None,
            ..JobSpec::default()
        },
    }
}

fn wish(generation: u64, leases: Vec<Assignment>) -> Event {
    Event::Assigned(Assignments { generation: Generation(generation), leases, sessions: Vec::new(), challenge: None })
}

fn phase(number: u8, phase: LeasePhase) -> Event {
    Event::Phase { lease_id: lease_id(number), phase }
}

fn ended(number: u8, over: bool) -> Event {
    Event::TaskEnded { lease_id: lease_id(number), over }
}

fn ready() -> Machine {
    let mut machine = Machine::new();
    for event in [Event::Enrolled, Event::Measured, Event::EngineUp] {
        assert_eq!(machine.handle(event, at(0)), []);
    }
    assert_eq!(machine.state(), NodeState::Idle);
    machine
}

fn spawn(number: u8) -> Action {
    Action::Spawn(Box::new(assignment(number, Desired::Run)))
}

#[test]
fn a_lease_goes_from_the_wish_through_its_task_to_oblivion() {
    let mut machine = ready();
    let wished = assignment(1, Desired::Run);
    let actions = machine.handle(wish(1, vec![wished.clone()]), at(1));
    assert_eq!(actions, [Action::Spawn(Box::new(wished.clone()))]);
    assert_eq!(machine.state(), NodeState::Working);
    assert_eq!(machine.handle(wish(1, vec![wished.clone()]), at(2)), [], "a repeated wish changes nothing");
    assert_eq!(machine.handle(phase(1, LeasePhase::Running), at(3)), []);
    assert_eq!(machine.handle(phase(1, LeasePhase::Done), at(4)), []);
    assert_eq!(machine.handle(ended(1, true), at(5)), []);
    assert_eq!(machine.state(), NodeState::Idle);
    assert_eq!(machine.handle(wish(1, vec![wished]), at(6)), [], "it is over, though still listed");
    assert_eq!(machine.handle(wish(2, vec![]), at(7)), [Action::Forget(lease_id(1))]);
}

#[test]
fn the_way_to_idle_leads_through_enrolling_and_benchmarking() {
    let mut machine = Machine::new();
    assert_eq!(machine.state(), NodeState::Enrolling);
    machine.handle(Event::Enrolled, at(0));
    assert_eq!(machine.state(), NodeState::Benchmarking);
    machine.handle(Event::Measured, at(0));
    assert_eq!(machine.state(), NodeState::Paused);
    machine.handle(Event::EngineDown { why: "no Docker".to_owned() }, at(0));
    assert_eq!(machine.why(), Some("no Docker"));
    machine.handle(Event::EngineUp, at(0));
    assert_eq!((machine.state(), machine.why()), (NodeState::Idle, None));
}

#[test]
fn an_overtaken_answer_does_not_bring_an_ended_lease_back() {
    let mut machine = ready();
    machine.handle(wish(1, vec![assignment(1, Desired::Run)]), at(0));
    machine.handle(ended(1, true), at(0));
    machine.handle(wish(3, vec![]), at(0));
    assert_eq!(machine.handle(wish(2, vec![assignment(1, Desired::Run)]), at(0)), []);
}

#[test]
fn a_stop_reaches_the_task_once() {
    let mut machine = ready();
    machine.handle(wish(1, vec![assignment(1, Desired::Run)]), at(0));
    let stop = assignment(1, Desired::Stop);
    let actions = machine.handle(wish(2, vec![stop.clone()]), at(0));
    assert_eq!(actions, [Action::Keep(Box::new(stop.clone())), Action::Stop(lease_id(1))]);
    assert_eq!(machine.handle(wish(2, vec![stop]), at(0)), []);
}

#[test]
fn a_lease_the_coordinator_lets_go_of_is_abandoned_and_then_forgotten() {
    let mut machine = ready();
    machine.handle(wish(1, vec![assignment(1, Desired::Run)]), at(0));
    assert_eq!(machine.handle(wish(2, vec![]), at(0)), [Action::Abandon(lease_id(1))]);
    assert_eq!(machine.handle(Event::Tick, at(0)), [Action::Poke(lease_id(1))]);
    assert_eq!(machine.handle(ended(1, false), at(0)), [Action::Forget(lease_id(1))]);
}

#[test]
fn leases_of_the_journal_are_taken_up_before_anything_else_is_known() {
    let mut machine = Machine::new();
    let known = assignment(1, Desired::Run);
    let actions = machine.handle(Event::Recovered(vec![(known.clone(), LeasePhase::Running)]), at(0));
    assert_eq!(actions, [Action::Spawn(Box::new(known.clone()))]);
    assert_eq!(machine.handle(Event::EngineDown { why: "asleep".to_owned() }, at(0)), []);
    assert_eq!(machine.handle(wish(4, vec![known]), at(1)), []);
}

#[test]
fn containers_nobody_wants_are_removed_only_once_the_wish_is_known() {
    let mut machine = ready();
    assert_eq!(machine.handle(Event::Containers(vec![lease_id(1), lease_id(2)]), at(0)), []);
    let actions = machine.handle(wish(1, vec![assignment(1, Desired::Run)]), at(0));
    assert_eq!(actions, [spawn(1), Action::RemoveContainers(lease_id(2))]);
}

#[test]
fn a_broken_task_is_started_again_at_the_next_tick() {
    let mut machine = ready();
    machine.handle(wish(1, vec![assignment(1, Desired::Run)]), at(0));
    assert_eq!(machine.handle(ended(1, false), at(0)), []);
    assert_eq!(machine.handle(Event::Tick, at(60)), [spawn(1), Action::Poke(lease_id(1))]);
}

#[test]
fn without_an_engine_new_leases_are_handed_back_and_running_ones_kept() {
    let mut machine = ready();
    machine.handle(wish(1, vec![assignment(1, Desired::Run)]), at(0));
    machine.handle(phase(1, LeasePhase::Running), at(0));
    assert_eq!(machine.handle(Event::EngineDown { why: "no Docker".to_owned() }, at(0)), []);
    let evict = Action::Evict { lease_id: lease_id(2), reason: "no Docker".to_owned() };
    let both = vec![assignment(1, Desired::Run), assignment(2, Desired::Run)];
    assert_eq!(machine.handle(wish(2, both), at(0)), [spawn(2), evict]);
}

#[test]
fn what_the_journal_cannot_keep_is_not_started_until_it_can() {
    let mut machine = ready();
    machine.handle(wish(1, vec![assignment(1, Desired::Run)]), at(0));
    let full = Event::NotKept { lease_id: lease_id(1), why: "disk full".to_owned() };
    assert_eq!(machine.handle(full, at(0)), []);
    assert_eq!((machine.state(), machine.why()), (NodeState::Paused, Some("disk full")));
    assert_eq!(machine.handle(Event::Tick, at(60)), [spawn(1), Action::Poke(lease_id(1))]);
}

#[test]
fn a_drain_lets_running_leases_finish_and_hands_back_the_rest() {
    let mut machine = ready();
    machine.handle(wish(1, vec![assignment(1, Desired::Run), assignment(2, Desired::Run)]), at(0));
    machine.handle(phase(1, LeasePhase::Running), at(0));
    let hand_back = |number| Action::Evict { lease_id: lease_id(number), reason: "the node stops".to_owned() };
    assert_eq!(machine.handle(Event::Drain { deadline: at(60) }, at(0)), [hand_back(2)]);
    assert_eq!(machine.state(), NodeState::Draining);
    assert_eq!(machine.handle(ended(2, true), at(1)), []);
    assert_eq!(machine.wakes_at(at(1)), Some(at(60)));
    assert_eq!(machine.handle(Event::Tick, at(60)), [hand_back(1), Action::Poke(lease_id(1))]);
    assert_eq!(machine.handle(ended(1, true), at(61)), [Action::Stopped]);
    assert_eq!(machine.state(), NodeState::Stopped);
}

#[test]
fn the_safe_state_touches_nothing_and_stops_when_asked() {
    let mut machine = Machine::in_safe_state("the state database is damaged".to_owned());
    for event in [
        Event::Recovered(vec![(assignment(1, Desired::Run), LeasePhase::Running)]),
        Event::Enrolled,
        Event::Measured,
        Event::EngineUp,
        wish(1, vec![assignment(2, Desired::Run)]),
        Event::Containers(vec![lease_id(3)]),
        Event::Tick,
    ] {
        assert_eq!(machine.handle(event, at(0)), []);
    }
    assert_eq!((machine.state(), machine.why()), (NodeState::Paused, Some("the state database is damaged")));
    assert_eq!(machine.handle(Event::Drain { deadline: at(60) }, at(0)), [Action::Stopped]);
}

/// One thing that happens to the world around the machine.
#[derive(Debug, Clone)]
enum Step {
    Place(u8),
    RenterStops(u8),
    LetGo(u8),
    Deliver,
    DeliverOld,
    PhaseMoves(u8, bool),
    TaskEnds(u8, bool),
    Engine(bool),
    Enrolled,
    Measured,
    List,
    Tick(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let lease = 0_u8..4;
    prop_oneof![
        3 => lease.clone().prop_map(Step::Place),
        1 => lease.clone().prop_map(Step::RenterStops),
        1 => lease.clone().prop_map(Step::LetGo),
        4 => Just(Step::Deliver),
        1 => Just(Step::DeliverOld),
        2 => (lease.clone(), any::<bool>()).prop_map(|(l, b)| Step::PhaseMoves(l, b)),
        2 => (lease.clone(), any::<bool>()).prop_map(|(l, b)| Step::TaskEnds(l, b)),
        1 => any::<bool>().prop_map(Step::Engine),
        1 => Just(Step::Enrolled),
        1 => Just(Step::Measured),
        1 => Just(Step::List),
        2 => (1_u8..70).prop_map(Step::Tick),
    ]
}

/// The world: what the coordinator lists, which tasks run, what the journal holds.
#[derive(Default)]
struct World {
    machine: Machine,
    now: u64,
    generation: u64,
    listed: Vec<Assignment>,
    placed: BTreeSet<u8>,
    running: BTreeSet<LeaseId>,
    over: BTreeSet<LeaseId>,
    journal: BTreeSet<LeaseId>,
    forgotten: BTreeSet<LeaseId>,
    history: Vec<Event>,
    stopped: bool,
}

impl World {
    fn send(&mut self, event: Event) {
        for action in self.machine.handle(event, at(self.now)) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        assert!(!self.stopped, "{action:?} after the end");
        match action {
            Action::Spawn(assignment) => {
                let id = assignment.lease_id;
                assert!(!self.forgotten.contains(&id), "a forgotten lease was started");
                assert!(!self.over.contains(&id), "a lease that is over was started again");
                assert!(self.running.insert(id), "a lease has two tasks");
                self.journal.insert(id);
            }
            Action::Forget(id) => {
                assert!(!self.running.contains(&id), "a lease was forgotten under its task");
                assert!(!self.listed.iter().any(|a| a.lease_id == id), "a listed lease was forgotten");
                assert!(self.journal.remove(&id), "a lease was forgotten twice");
                self.forgotten.insert(id);
            }
            Action::RemoveContainers(id) => {
                assert!(!self.running.contains(&id), "a container was removed under its task");
            }
            Action::Keep(assignment) => assert!(self.journal.contains(&assignment.lease_id)),
            Action::Stop(id) | Action::Evict { lease_id: id, .. } | Action::Abandon(id) | Action::Poke(id) => {
                assert!(self.running.contains(&id), "a command for a lease without a task");
            }
            Action::Stopped => self.stopped = true,
        }
    }

    fn end_task(&mut self, id: LeaseId, over: bool) {
        if self.running.remove(&id) {
            if over {
                self.over.insert(id);
            }
            self.send(Event::TaskEnded { lease_id: id, over });
        }
    }

    fn wish(&self) -> Event {
        wish(self.generation, self.listed.clone())
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<Assignment>)) {
        self.history.push(self.wish());
        change(&mut self.listed);
        self.generation += 1;
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Place(l) => {
                if self.placed.insert(l) {
                    self.change(|listed| listed.push(assignment(l, Desired::Run)));
                }
            }
            Step::RenterStops(l) => self.change(|listed| {
                for a in listed.iter_mut().filter(|a| a.lease_id == lease_id(l)) {
                    *a = assignment(l, Desired::Stop);
                }
            }),
            Step::LetGo(l) => self.change(|listed| listed.retain(|a| a.lease_id != lease_id(l))),
            Step::Deliver => self.send(self.wish()),
            Step::DeliverOld => {
                // Answers on their way when the machine has seen a newer one; before the first there is nothing older.
                let seen = self.machine.generation();
                let old = self.history.iter().find(|e| matches!(e, Event::Assigned(a) if a.generation < seen));
                if let Some(old) = old.cloned() {
                    self.send(old);
                }
            }
            Step::PhaseMoves(l, running) => {
                let moved = if running { LeasePhase::Running } else { LeasePhase::Pulling };
                if self.running.contains(&lease_id(l)) {
                    self.send(phase(l, moved));
                }
            }
            Step::TaskEnds(l, over) => self.end_task(lease_id(l), over),
            Step::Engine(true) => self.send(Event::EngineUp),
            Step::Engine(false) => self.send(Event::EngineDown { why: "down".to_owned() }),
            Step::Enrolled => self.send(Event::Enrolled),
            Step::Measured => self.send(Event::Measured),
            Step::List => {
                let all = (0..4).map(lease_id).collect();
                self.send(Event::Containers(all));
            }
            Step::Tick(seconds) => {
                self.now += u64::from(seconds);
                self.send(Event::Tick);
            }
        }
    }
}

proptest! {
    #[test]
    fn no_order_of_events_starts_a_lease_twice_forgets_one_or_leaves_the_machine_stuck(
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut world = World { machine: Machine::new(), ..World::default() };
        steps.into_iter().for_each(|s| world.step(s));
        // The world calms down: everything is up and the newest wish arrives.
        for event in [Event::Enrolled, Event::Measured, Event::EngineUp, world.wish(), Event::Tick] {
            world.send(event);
        }
        for wanted in &world.listed {
            let id = wanted.lease_id;
            prop_assert!(world.running.contains(&id) || world.over.contains(&id), "a listed lease has no task");
        }
        // Tasks do as they are told; then only what is listed remains.
        let unlisted: Vec<_> =
            world.running.iter().filter(|id| !world.listed.iter().any(|a| a.lease_id == **id)).copied().collect();
        unlisted.into_iter().for_each(|id| world.end_task(id, true));
        prop_assert!(world.journal.iter().all(|id| world.listed.iter().any(|a| a.lease_id == *id)));
        let expected = if world.running.is_empty() { NodeState::Idle } else { NodeState::Working };
        prop_assert_eq!(world.machine.state(), expected);
    }

    #[test]
    fn a_drain_always_reaches_its_end(
        before in prop::collection::vec(step(), 0..60),
        deadline in 0_u64..120,
        during in prop::collection::vec(step(), 0..60),
    ) {
        let mut world = World { machine: Machine::new(), ..World::default() };
        before.into_iter().for_each(|s| world.step(s));
        let deadline = world.now + deadline;
        world.send(Event::Drain { deadline: at(deadline) });
        during.into_iter().for_each(|s| world.step(s));
        // Nothing more happens but the passing of time, as the machine asks for it.
        let mut wakes = 0;
        while let Some(wake) = world.machine.wakes_at(at(world.now)) {
            world.now = world.now.max(wake.since(at(0)).as_secs());
            world.send(Event::Tick);
            wakes += 1;
            prop_assert!(wakes <= 3, "the drain does not end");
        }
        prop_assert!(world.stopped);
        prop_assert_eq!(world.machine.state(), NodeState::Stopped);
    }
}

#[test]
fn an_engine_with_a_known_hole_pauses_the_node_until_it_is_mended() {
    let mut machine = Machine::new();
    for event in [Event::Enrolled, Event::Measured, Event::EngineUp] {
        let _ = machine.handle(event, at(0));
    }
    let why = Some("runc 1.1.11 has CVE-2024-21626".to_owned());
    let _ = machine.handle(Event::EngineRefused { why }, at(1));
    assert_eq!((machine.state(), machine.why()), (NodeState::Paused, Some("runc 1.1.11 has CVE-2024-21626")));
    let _ = machine.handle(Event::EngineRefused { why: None }, at(2));
    assert_eq!(machine.state(), NodeState::Idle);
}
