//! The agent's life as a pure machine: `handle(event, now) -> actions`.
//!
//! It compares what the coordinator wants (assignments) with what is here (leases with their tasks, containers) after every
//! event, so that no single event has to arrive for the outcome to be right.
//!
//! Invariants
//! - A lease has at most one task at a time, and none any more once it has been forgotten.
//! - Nothing of a lease is forgotten before its task has ended and the coordinator lists it no longer.
//! - A container without a lease is removed only when the coordinator's wish is known and does not name it.
//! - In the safe state (the journal cannot be trusted) nothing is started, stopped or removed.
//! - A drain always ends in [`NodeState::Stopped`]: at the latest [`HAND_BACK_MAX`] after its deadline.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Steady;
use crate::wire::lease::{Assignment, Assignments, Desired, LeasePhase};
use crate::wire::node::NodeState;
use crate::wire::{Generation, LeaseId};

#[cfg(test)]
mod tests;

/// Longest that handing back leases may take once a drain's deadline has passed; then their containers are left for the
/// next start to take up.
pub const HAND_BACK_MAX: Duration = Duration::from_secs(30);

/// What has happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The leases the journal knew at start and where they stood. Their tasks take them up there.
    Recovered(Vec<(Assignment, LeasePhase)>),
    /// The node has its id.
    Enrolled,
    /// The benchmarks are through, with or without a result.
    Measured,
    /// The container engine answers.
    EngineUp,
    /// It does not.
    EngineDown {
        /// For people.
        why: String,
    },
    /// The coordinator's wish.
    Assigned(Assignments),
    /// A lease's task says where it stands.
    Phase {
        /// The lease.
        lease_id: LeaseId,
        /// Where it stands.
        phase: LeasePhase,
    },
    /// A lease's task has ended.
    TaskEnded {
        /// The lease.
        lease_id: LeaseId,
        /// Whether the lease is over; otherwise the task broke and has to be started again.
        over: bool,
    },
    /// The journal could not keep a lease, so it was not started.
    NotKept {
        /// The lease.
        lease_id: LeaseId,
        /// For people.
        why: String,
    },
    /// What the owner lends does not fit this machine.
    OfferRefused {
        /// For people.
        why: String,
    },
    /// The engine that answers has a known hole that jobs could use, or has none any more. What runs goes on to its end.
    EngineRefused {
        /// For people: which hole, and what to install.
        why: Option<String>,
    },
    /// The containers with this node's label, by lease.
    Containers(Vec<LeaseId>),
    /// Time has passed, or something may have changed.
    Tick,
    /// Finish or hand back everything until then, and stop.
    Drain {
        /// When running leases are handed back.
        deadline: Steady,
    },
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Put the lease into the journal, then start its task.
    Spawn(Box<Assignment>),
    /// Put the newer wish for a lease into the journal.
    Keep(Box<Assignment>),
    /// The renter wants it to stop.
    Stop(LeaseId),
    /// Give it back.
    Evict {
        /// The lease.
        lease_id: LeaseId,
        /// For people.
        reason: String,
    },
    /// End it without a report: the coordinator has let go of it.
    Abandon(LeaseId),
    /// Look at its container.
    Poke(LeaseId),
    /// Take it out of the journal.
    Forget(LeaseId),
    /// Remove containers of this lease: nobody wants them.
    RemoveContainers(LeaseId),
    /// Report the last state and end.
    Stopped,
}

/// The agent's state.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    enrolled: bool,
    measured: bool,
    engine: Engine,
    not_kept: Option<String>,
    offer_refused: Option<String>,
    engine_refused: Option<String>,
    unsafe_why: Option<String>,
    drain: Option<Steady>,
    stopped: bool,
    wish: Option<Assignments>,
    leases: BTreeMap<LeaseId, Lease>,
    containers: Vec<LeaseId>,
}

#[derive(Debug, Clone)]
enum Engine {
    /// It has not answered since the start, so that there is nothing yet to run containers with.
    NeverUp(String),
    Up,
    Down(String),
}

impl Default for Engine {
    fn default() -> Self {
        Self::NeverUp("the container engine has not answered yet".to_owned())
    }
}

#[derive(Debug, Clone)]
struct Lease {
    assignment: Assignment,
    phase: LeasePhase,
    task: Task,
    /// The strongest command that its task has been given.
    told: Told,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Running,
    /// Ended before the lease was over; started again at the next tick.
    Broken,
    /// Ended with the lease.
    Over,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    #[default]
    Nothing,
    Stop,
    Evict,
    Abandon,
}

impl Machine {
    /// A machine that has just begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A machine whose memory cannot be trusted: it does nothing but say so and stop when asked.
    #[must_use]
    pub fn in_safe_state(why: String) -> Self {
        Self { unsafe_why: Some(why), ..Self::default() }
    }

    /// Where the agent stands.
    #[must_use]
    pub fn state(&self) -> NodeState {
        if self.stopped {
            NodeState::Stopped
        } else if self.drain.is_some() {
            NodeState::Draining
        } else if self.unsafe_why.is_some() {
            NodeState::Paused
        } else if !self.enrolled {
            NodeState::Enrolling
        } else if !self.measured {
            NodeState::Benchmarking
        } else if !matches!(self.engine, Engine::Up)
            || [&self.not_kept, &self.offer_refused, &self.engine_refused].into_iter().any(Option::is_some)
        {
            NodeState::Paused
        } else if self.live().next().is_some() {
            NodeState::Working
        } else {
            NodeState::Idle
        }
    }

    /// Why it stands there, when that is not plain.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self.state() {
            NodeState::Paused => {
                let engine = match &self.engine {
                    Engine::Up => None,
                    Engine::NeverUp(why) | Engine::Down(why) => Some(why.as_str()),
                };
                let own = [&self.unsafe_why, &self.offer_refused, &self.engine_refused, &self.not_kept];
                own.into_iter().find_map(Option::as_deref).or(engine)
            }
            NodeState::Draining => Some("it finishes or hands back what runs, then stops"),
            NodeState::Enrolling
            | NodeState::Benchmarking
            | NodeState::Idle
            | NodeState::Working
            | NodeState::Updating
            | NodeState::Stopped
            | NodeState::Unknown => None,
        }
    }

    /// The newest wish acted on.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.wish.as_ref().map(|wish| wish.generation).unwrap_or_default()
    }

    /// Every lease that is here, with where it stands.
    pub fn leases(&self) -> impl Iterator<Item = (LeaseId, LeasePhase)> + '_ {
        self.leases.iter().map(|(id, lease)| (*id, lease.phase))
    }

    /// When the machine wants a [`Event::Tick`] at the latest, if time alone changes anything.
    #[must_use]
    pub fn wakes_at(&self, now: Steady) -> Option<Steady> {
        let deadline = self.drain.filter(|_| !self.stopped)?;
        Some(if now < deadline { deadline } else { deadline.after(HAND_BACK_MAX) })
    }

    /// Takes in what happened and decides what to do.
    pub fn handle(&mut self, event: Event, now: Steady) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.stopped {
            return actions;
        }
        let tick = event == Event::Tick;
        self.take_in(event, &mut actions);
        if self.unsafe_why.is_none() {
            self.end_unwanted(&mut actions);
            self.begin_wanted(tick, &mut actions);
            self.tell(now, &mut actions);
            self.remove_orphans(&mut actions);
            if tick {
                actions.extend(self.live().map(|(id, _)| Action::Poke(*id)).collect::<Vec<_>>());
            }
        }
        self.finish_drain(now, &mut actions);
        actions
    }

    fn take_in(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Recovered(assignments) if self.unsafe_why.is_none() => {
                for (assignment, phase) in assignments {
                    let lease_id = assignment.lease_id;
                    if !self.leases.contains_key(&lease_id) {
                        actions.push(self.spawn(assignment));
                        self.leases.entry(lease_id).and_modify(|lease| lease.phase = phase);
                    }
                }
            }
            Event::Recovered(_) => {}
            Event::Enrolled => self.enrolled = true,
            Event::Measured => self.measured = true,
            Event::EngineUp => self.engine = Engine::Up,
            Event::EngineDown { why } => {
                self.engine = match &self.engine {
                    Engine::NeverUp(_) => Engine::NeverUp(why),
                    Engine::Up | Engine::Down(_) => Engine::Down(why),
                };
            }
            Event::Assigned(wish) => {
                // An answer that was overtaken by a newer one says nothing any more.
                if self.wish.as_ref().is_none_or(|known| wish.generation >= known.generation) {
                    self.wish = Some(wish);
                }
            }
            Event::Phase { lease_id, phase } => {
                if let Some(lease) = self.leases.get_mut(&lease_id) {
                    lease.phase = phase;
                }
            }
            Event::TaskEnded { lease_id, over } => {
                if let Some(lease) = self.leases.get_mut(&lease_id) {
                    // A task told to abandon leaves nothing behind, whatever it managed to say.
                    let over = over || lease.told == Told::Abandon;
                    lease.task = if over { Task::Over } else { Task::Broken };
                }
            }
            Event::NotKept { lease_id, why } => {
                self.leases.remove(&lease_id);
                self.not_kept = Some(why);
            }
            Event::OfferRefused { why } => self.offer_refused = Some(why),
            Event::EngineRefused { why } => self.engine_refused = why,
            Event::Containers(leases) => self.containers = leases,
            Event::Tick => self.not_kept = None,
            Event::Drain { deadline } => {
                self.drain = Some(self.drain.map_or(deadline, |known| known.min(deadline)));
            }
        }
    }

    /// Lets go of what the coordinator lists no longer.
    fn end_unwanted(&mut self, actions: &mut Vec<Action>) {
        let Some(wish) = &self.wish else { return };
        let gone: Vec<LeaseId> =
            self.leases.keys().filter(|id| !wish.leases.iter().any(|a| a.lease_id == **id)).copied().collect();
        for lease_id in gone {
            let Some(lease) = self.leases.get_mut(&lease_id) else { continue };
            match lease.task {
                Task::Running if lease.told < Told::Abandon => {
                    lease.told = Told::Abandon;
                    actions.push(Action::Abandon(lease_id));
                }
                Task::Running => {}
                Task::Broken | Task::Over => {
                    // A broken task may have left its container; as nobody's it is removed by its label.
                    self.leases.remove(&lease_id);
                    actions.push(Action::Forget(lease_id));
                }
            }
        }
    }

    /// Starts what the coordinator lists and is not here, and starts again what broke.
    fn begin_wanted(&mut self, tick: bool, actions: &mut Vec<Action>) {
        if tick {
            let broken: Vec<Assignment> =
                self.leases.values().filter(|l| l.task == Task::Broken).map(|l| l.assignment.clone()).collect();
            for assignment in broken {
                actions.push(self.spawn(assignment));
            }
        }
        // While it drains, what is new is taken up only to be handed back at once.
        let ready = (self.enrolled && self.measured) || self.drain.is_some();
        if !ready || self.not_kept.is_some() || matches!(self.engine, Engine::NeverUp(_)) {
            return;
        }
        let wanted = self.wish.as_ref().map(|wish| wish.leases.clone()).unwrap_or_default();
        for assignment in wanted {
            match self.leases.get_mut(&assignment.lease_id) {
                Some(lease) if assignment.generation > lease.assignment.generation => {
                    lease.assignment = assignment.clone();
                    actions.push(Action::Keep(Box::new(assignment)));
                }
                Some(_) => {}
                None => match assignment.desired {
                    Desired::Run | Desired::Stop => actions.push(self.spawn(assignment)),
                    Desired::Unknown => {}
                },
            }
        }
    }

    fn spawn(&mut self, assignment: Assignment) -> Action {
        let known = self.leases.get(&assignment.lease_id);
        let phase = known.map_or(LeasePhase::Assigned, |lease| lease.phase);
        let lease = Lease { assignment: assignment.clone(), phase, task: Task::Running, told: Told::Nothing };
        self.leases.insert(assignment.lease_id, lease);
        Action::Spawn(Box::new(assignment))
    }

    /// Tells tasks to stop what the renter stopped and to give back what cannot run here.
    fn tell(&mut self, now: Steady, actions: &mut Vec<Action>) {
        let engine_down = match &self.engine {
            Engine::NeverUp(_) | Engine::Up => None,
            Engine::Down(why) => Some(why.clone()),
        };
        let drain = self.drain;
        for (lease_id, lease) in &mut self.leases {
            if lease.task != Task::Running {
                continue;
            }
            let hand_back = match (drain, lease.phase) {
                (_, LeasePhase::Collecting) => None,
                (_, phase) if phase.is_final() => None,
                (Some(deadline), _) if now >= deadline => Some("the node stops".to_owned()),
                (Some(_), LeasePhase::Assigned | LeasePhase::Pulling) => Some("the node stops".to_owned()),
                // What has not begun need not wait for an engine to come back.
                (None, LeasePhase::Assigned) => engine_down.clone(),
                (_, _) => None,
            };
            if let Some(reason) = hand_back
                && lease.told < Told::Evict
            {
                lease.told = Told::Evict;
                actions.push(Action::Evict { lease_id: *lease_id, reason });
            } else if lease.assignment.desired == Desired::Stop && lease.told < Told::Stop {
                lease.told = Told::Stop;
                actions.push(Action::Stop(*lease_id));
            }
        }
    }

    /// Removes containers that neither the journal nor the coordinator knows.
    fn remove_orphans(&mut self, actions: &mut Vec<Action>) {
        let Some(wish) = &self.wish else { return };
        for lease_id in std::mem::take(&mut self.containers) {
            let wanted = wish.leases.iter().any(|a| a.lease_id == lease_id);
            if !wanted && !self.leases.contains_key(&lease_id) {
                actions.push(Action::RemoveContainers(lease_id));
            }
        }
    }

    fn finish_drain(&mut self, now: Steady, actions: &mut Vec<Action>) {
        let Some(deadline) = self.drain else { return };
        let done = self.leases.values().all(|lease| lease.task == Task::Over);
        if done || self.unsafe_why.is_some() || now >= deadline.after(HAND_BACK_MAX) {
            self.stopped = true;
            actions.push(Action::Stopped);
        }
    }

    fn live(&self) -> impl Iterator<Item = (&LeaseId, &Lease)> {
        self.leases.iter().filter(|(_, lease)| lease.task == Task::Running)
    }
}
