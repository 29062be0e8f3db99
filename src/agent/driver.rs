//! The loop that drives the agent: one select, one machine, and the doing of what the machine decides.
//!
//! Invariants
//! - Only this loop changes the machine, the leases' tasks and the snapshot; every other task sends it inputs.
//! - A lease is in the journal before its task starts.
//! - The loop waits for nothing but the journal: the network and the engine are asked by tasks.
//! - When the loop ends, however it ends, its tasks end with it; containers do not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::client::Client;
use super::enroll::EnrollStep;
use super::journal::{Journal, LeaseRecord};
use super::machine::{Action, Event, Machine};
use super::signals::Stop;
use super::sync::{self, Report, Told, Uploads};
use super::{AgentOptions, Outcome, whole};
use crate::bench::BenchOutput;
use crate::clock::{Clock, Steady};
use crate::control::{ControlCommand, ControlHandle, EarningsReply, Server, Snapshot};
use crate::job::gpus::Gpus;
use crate::job::images::{ImagePolicy, Images, Logins};
use crate::job::runner::LeaseCommand;
use crate::runtime::gpu::GpuCard;
use crate::runtime::network::OwnedNetwork;
use crate::runtime::vulnerable;
use crate::runtime::{ContainerRuntime, OwnedContainer, RuntimeError};
use crate::wire::account::Earnings;
use crate::wire::challenge::Proof;
use crate::wire::node::{Engine, NodeState};
use crate::wire::{BootId, Generation, LeaseId, NodeId};

mod earnings;
mod engine;
mod inventory;
mod isolation;
mod joining;
mod leases;
mod measure;
mod prove;
mod reach;
mod room;
mod taking;
mod view;

use engine::Owned;
use leases::Leases;
pub(super) use measure::image_cache_default;

const INBOX_MAX: usize = 256;
const CONTROL_MAX: usize = 16;
/// Longest that a drain waits for jobs to end by themselves when a signal asked for it. With the time to hand the others back
/// ([`super::machine::HAND_BACK_MAX`]) and for the last heartbeat it stays within the 90 s that systemd gives at a shutdown.
const SIGNAL_DRAIN_MAX: Duration = Duration::from_secs(45);
/// Time for the last heartbeat on the way out.
const FAREWELL: Duration = Duration::from_secs(3);

/// What an agent has opened.
pub(super) struct Parts {
    pub(super) options: AgentOptions,
    pub(super) clock: Clock,
    pub(super) client: Client,
    pub(super) memory: Result<Journal, String>,
    pub(super) image_policy: ImagePolicy,
    pub(super) control: Option<Server>,
    pub(super) snapshots: watch::Sender<Snapshot>,
}

/// What the loop's tasks tell it.
pub(super) enum Input {
    /// Something for the machine as it is.
    Event(Event),
    /// The enrolment went on, or why it does not.
    Enrollment(Result<EnrollStep, String>),
    /// How far the benchmarks are, for people.
    Measuring(String),
    /// The benchmarks' result, or why there is none.
    Measured(Result<Box<BenchOutput>, String>),
    /// The engine answers; containers can be run with this.
    Engine(Arc<dyn ContainerRuntime>, Engine),
    /// The engine says that something happened to a lease's container.
    Container(LeaseId),
    /// The containers and networks with our label, or why they could not be listed.
    Containers(Result<Owned, RuntimeError>),
    /// Whether jobs' networks are shut off from this home.
    Isolation(isolation::Verdicts),
    /// A lease's snapshot changed.
    Lease(LeaseId),
    /// A lease's task ended.
    LeaseEnded(LeaseId, bool),
    /// Why the coordinator refuses heartbeats; nothing when it takes them.
    HeartbeatRefused(Option<String>),
    /// Inventory and benchmarks were taken, or why the coordinator refuses them.
    Uploaded(Option<String>),
    /// How far the coordinator believes this machine's hardware.
    Proof(Proof),
    /// Earnings, and who asked.
    Earnings(Result<Box<Earnings>, String>, Option<oneshot::Sender<EarningsReply>>),
}

/// The asking for our containers, of which there is one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    No,
    UnderWay,
    /// Under way, and it may miss what came since: once more.
    Again,
}

struct Driver {
    options: AgentOptions,
    clock: Clock,
    client: Client,
    journal: Option<Journal>,
    /// Images for leases; none in the safe state.
    images: Option<Images>,
    /// Registry logins, as the coordinator has said them last.
    logins: Logins,
    machine: Machine,
    boot_id: BootId,
    node_id: Option<NodeId>,
    runtime: Option<Arc<dyn ContainerRuntime>>,
    /// The same, for the sessions of renters.
    engines: watch::Sender<Option<Arc<dyn ContainerRuntime>>>,
    engine: Option<Engine>,
    bench: Option<Box<BenchOutput>>,
    /// The graphics cards when they were last looked at.
    cards: Vec<GpuCard>,
    gpus: Gpus,
    /// Leases of the journal that wait for an engine to be taken up with.
    waiting: Vec<LeaseRecord>,
    /// Containers of leases that have no task yet.
    found: HashMap<LeaseId, Vec<OwnedContainer>>,
    found_networks: HashMap<LeaseId, OwnedNetwork>,
    listing: Listing,
    isolation: isolation::Isolation,
    leases: Leases,
    inbox: mpsc::Sender<Input>,
    tasks: JoinSet<()>,
    farewell: Option<tokio::task::JoinHandle<()>>,
    newest: watch::Sender<Generation>,
    reports: watch::Sender<Report>,
    /// Whether this machine may be challenged.
    free: watch::Sender<bool>,
    uploads: watch::Sender<Uploads>,
    snapshots: watch::Sender<Snapshot>,
    notes: view::Notes,
}

/// Runs the agent until it has stopped.
pub(super) async fn run(parts: Parts, mut stop: watch::Receiver<Stop>) -> Outcome {
    let (inbox, mut inputs) = mpsc::channel(INBOX_MAX);
    let (commands, mut controls) = mpsc::channel(CONTROL_MAX);
    let reconcile_every = parts.options.reconcile_every;
    let mut link = parts.client.link();
    let mut driver = Driver::begin(parts, inbox, commands).await;
    driver.publish();
    let mut reconcile_at = driver.clock.steady().after(reconcile_every);
    loop {
        let now = driver.clock.steady();
        let wake = driver.machine.wakes_at(now).map_or(reconcile_at, |at| at.min(reconcile_at));
        tokio::select! {
            Some(input) = inputs.recv() => driver.take(input).await,
            Some(command) = controls.recv() => driver.command(command).await,
            Ok(()) = stop.changed() => {
                let word = *stop.borrow_and_update();
                match word {
                    Stop::No => {}
                    Stop::Drain => driver.drain(driver.options.drain_deadline.min(SIGNAL_DRAIN_MAX)).await,
                    Stop::Leave => return driver.leave().await,
                }
            }
            Ok(()) = link.changed() => { link.borrow_and_update(); }
            Some(_) = driver.tasks.join_next() => {}
            () = tokio::time::sleep(wake.since(now)) => {
                if driver.clock.steady() >= reconcile_at {
                    reconcile_at = driver.clock.steady().after(reconcile_every);
                    driver.list_containers();
                    driver.check_isolation();
                    driver.look_for_cards();
                    if driver.machine.state() == NodeState::Idle {
                        super::footprint::release();
                    }
                }
                driver.feed(Event::Tick).await;
            }
        }
        driver.publish();
        if driver.machine.state() == NodeState::Stopped {
            return driver.end().await;
        }
    }
}

impl Driver {
    async fn begin(parts: Parts, inbox: mpsc::Sender<Input>, commands: mpsc::Sender<ControlCommand>) -> Self {
        let now = parts.clock.now();
        let mut tasks = JoinSet::new();
        if let Some(server) = parts.control {
            let handle = ControlHandle { snapshots: parts.snapshots.subscribe(), commands };
            tasks.spawn(server.run(handle, parts.clock.clone()));
        }
        let (journal, waiting, machine) = recall(parts.memory).await;
        let logins = Logins::default();
        let policy = parts.image_policy;
        let images = journal.clone().map(|journal| Images::new(journal, parts.clock.clone(), policy, logins.clone()));
        let first = Report { state: machine.state(), reason: None, generation: Generation(0), leases: Vec::new() };
        let mut driver = Self {
            options: parts.options,
            clock: parts.clock,
            client: parts.client,
            journal,
            images,
            logins,
            machine,
            boot_id: BootId::generate(now),
            node_id: None,
            runtime: None,
            engines: watch::channel(None).0,
            engine: None,
            bench: None,
            cards: Vec::new(),
            gpus: inventory::gpus_of(&waiting),
            waiting,
            found: HashMap::new(),
            found_networks: HashMap::new(),
            listing: Listing::No,
            isolation: isolation::Isolation::default(),
            leases: Leases::default(),
            inbox,
            tasks,
            farewell: None,
            newest: watch::channel(Generation(0)).0,
            reports: watch::channel(first).0,
            free: watch::channel(false).0,
            uploads: watch::channel(Uploads::default()).0,
            snapshots: parts.snapshots,
            notes: view::Notes::default(),
        };
        driver.join_network();
        driver
    }

    fn join_network(&mut self) {
        let Some(journal) = self.journal.clone() else { return };
        let (client, inbox) = (self.client.clone(), self.inbox.clone());
        let (name, token) = (self.options.name.clone(), self.options.join_token.take());
        self.tasks.spawn(joining::enroll(client, journal, name, token, inbox));
    }

    /// The node has its id: everything that needs one begins.
    fn joined(&mut self, node_id: NodeId) {
        if self.node_id.replace(node_id).is_some() {
            return;
        }
        tracing::info!(%node_id, "this machine is enrolled");
        self.notes.joining = None;
        let (client, inbox) = (self.client.clone(), self.inbox.clone());
        let (reports, newest) = (self.reports.subscribe(), self.newest.clone());
        let beats = sync::heartbeats(client.clone(), self.boot_id, reports, newest, inbox.clone());
        self.farewell = Some(tokio::spawn(beats));
        let (sessions, challenges) = (self.serve_sessions(node_id), self.serve_challenges());
        let told = Told { sessions, challenges, free: self.free.subscribe() };
        self.tasks.spawn(sync::assignments(client.clone(), self.newest.subscribe(), inbox.clone(), told));
        self.tasks.spawn(sync::uploads(client, self.uploads.subscribe(), inbox.clone()));
        self.tasks.spawn(engine::watch_engine(
            self.options.engine.clone(),
            self.options.ceiling.clone(),
            node_id,
            inbox.clone(),
        ));
        if let Some(journal) = self.journal.clone() {
            self.tasks.spawn(measure::measure(self.options.benchmark.clone(), journal, self.clock.clone(), inbox));
        }
        self.ask_earnings(None);
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => {
                if let Event::Assigned(wish) = &event {
                    self.logins.learn(&wish.leases);
                }
                self.feed(event).await;
            }
            Input::Enrollment(step) => match step {
                Ok(EnrollStep::Enrolled { node_id, .. }) => {
                    self.joined(node_id);
                    self.feed(Event::Enrolled).await;
                }
                Ok(EnrollStep::Approve(pending)) => self.notes.joining = Some(view::approve_sentence(&pending)),
                Err(why) => self.notes.joining = Some(why),
            },
            Input::Measuring(doing) => self.notes.measuring = Some(doing),
            Input::Measured(result) => self.measured(result).await,
            Input::Engine(runtime, engine) => self.engine_up(runtime, engine).await,
            Input::Container(lease_id) if self.leases.has(lease_id) => self.leases.tell(lease_id, LeaseCommand::Poke),
            // Somebody started a container that no lease owns any more, or never did.
            Input::Container(_) => self.list_containers(),
            Input::Containers(listed) => self.listed(listed).await,
            Input::Isolation(verdicts) => self.isolated(verdicts).await,
            Input::Lease(lease_id) => {
                if let Some(phase) = self.leases.look(lease_id, self.clock.steady()) {
                    self.feed(Event::Phase { lease_id, phase }).await;
                }
            }
            Input::LeaseEnded(lease_id, over) => {
                self.leases.remove(lease_id);
                self.release_images(lease_id);
                self.feed(Event::TaskEnded { lease_id, over }).await;
                self.ask_earnings(None);
            }
            Input::HeartbeatRefused(why) => self.notes.heartbeat_refused = why,
            Input::Proof(proof) => self.notes.proof = Some(proof),
            Input::Uploaded(refused) => self.notes.upload_refused = refused,
            Input::Earnings(result, asker) => self.earnings(result, asker),
        }
    }

    /// Hands an event to the machine and does what it decides.
    async fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.machine.handle(event, self.clock.steady()) {
                events.extend(self.act(action).await);
            }
        }
    }

    async fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Spawn(assignment) => return self.spawn(*assignment).await,
            Action::Keep(assignment) => {
                if let Some(journal) = &self.journal
                    && let Err(error) = journal.put_lease(&assignment).await
                {
                    tracing::warn!(%error, lease_id = %assignment.lease_id, "a newer wish could not be kept");
                }
            }
            Action::Stop(lease_id) => self.leases.tell(lease_id, LeaseCommand::Stop),
            Action::Evict { lease_id, reason } => self.leases.tell(lease_id, LeaseCommand::Evict { reason }),
            Action::Abandon(lease_id) => self.leases.tell(lease_id, LeaseCommand::Forget),
            Action::Poke(lease_id) => self.leases.tell(lease_id, LeaseCommand::Poke),
            Action::Forget(lease_id) => {
                self.found.remove(&lease_id);
                self.found_networks.remove(&lease_id);
                if let Some(journal) = &self.journal
                    && let Err(error) = journal.forget_lease(lease_id).await
                {
                    // It stays until the next start, which finds that nobody wants it and forgets it then.
                    tracing::warn!(%error, %lease_id, "an ended lease could not be forgotten");
                }
            }
            Action::RemoveContainers(lease_id) => self.remove_containers(lease_id),
            Action::Stopped => {}
        }
        None
    }

    async fn engine_up(&mut self, runtime: Arc<dyn ContainerRuntime>, engine: Engine) {
        let why = vulnerable::refuses_jobs(&runtime.findings());
        if let Some(why) = &why {
            tracing::error!(why, "no jobs are taken");
        }
        self.engines.send_replace(Some(Arc::clone(&runtime)));
        self.runtime = Some(runtime);
        self.engine = Some(engine);
        self.feed(Event::EngineRefused { why }).await;
        self.describe().await;
        // Leases of the journal wait for the list of containers, so that each is taken up with its own.
        self.list_containers();
        self.check_isolation();
        self.feed(Event::EngineUp).await;
    }

    async fn listed(&mut self, listed: Result<Owned, RuntimeError>) {
        let again = std::mem::replace(&mut self.listing, Listing::No) == Listing::Again;
        match listed {
            Ok(found) => self.containers(found).await,
            Err(error) => tracing::debug!(%error, "containers could not be listed"),
        }
        if again {
            self.list_containers();
        }
    }

    async fn containers(&mut self, found: Owned) {
        let of_networks = found.networks.iter().map(|network| network.lease_id);
        let mut leases: Vec<LeaseId> =
            found.containers.iter().map(|container| container.lease_id).chain(of_networks).collect();
        leases.sort_unstable();
        leases.dedup();
        self.found = HashMap::new();
        for container in found.containers {
            self.found.entry(container.lease_id).or_default().push(container);
        }
        self.found_networks = found.networks.into_iter().map(|network| (network.lease_id, network)).collect();
        let waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_empty() {
            let known = waiting.into_iter().map(|record| (record.assignment, record.saved.phase())).collect();
            self.feed(Event::Recovered(known)).await;
        }
        self.feed(Event::Containers(leases)).await;
    }

    async fn measured(&mut self, result: Result<Box<BenchOutput>, String>) {
        self.notes.measuring = None;
        match result {
            Ok(output) => {
                self.uploads.send_modify(|uploads| uploads.benchmark = Some(output.report.clone()));
                self.bench = Some(output);
            }
            Err(why) => self.notes.bench_failed = Some(why),
        }
        self.describe().await;
        self.feed(Event::Measured).await;
    }

    async fn command(&mut self, command: ControlCommand) {
        match command {
            ControlCommand::Drain => self.drain(self.options.drain_deadline).await,
            ControlCommand::Prove(asker) => self.ask_challenge(asker),
            ControlCommand::Earnings(asker) => self.ask_earnings(Some(asker)),
        }
    }

    async fn drain(&mut self, patience: Duration) {
        tracing::info!("draining");
        let deadline: Steady = self.clock.steady().after(patience);
        self.feed(Event::Drain { deadline }).await;
    }

    /// Everything is handed back or left to the next start: say goodbye.
    async fn end(mut self) -> Outcome {
        self.leases.leave();
        if let Some(last) = self.farewell.take() {
            // The coordinator finds out by itself when the last heartbeat does not reach it.
            let _ = tokio::time::timeout(FAREWELL, last).await;
        }
        if let Some(runtime) = &self.runtime {
            // What cannot be taken away in time forbids nothing that the owner does.
            let _ = tokio::time::timeout(FAREWELL, runtime.withdraw()).await;
        }
        self.close().await;
        Outcome::Drained
    }

    /// Leaves at once; containers run on and the journal knows them.
    async fn leave(mut self) -> Outcome {
        tracing::warn!("stopping without a drain; running containers are left for the next start");
        self.leases.leave();
        self.close().await;
        Outcome::Left
    }

    async fn close(&mut self) {
        self.tasks.shutdown().await;
        if let Some(journal) = &self.journal {
            journal.close().await;
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Cancelled from outside, which is what a crash looks like: no task may outlive the loop.
        self.leases.leave();
        if let Some(task) = &self.farewell {
            task.abort();
        }
    }
}

/// Reads what the journal knows; what cannot be read means the safe state.
async fn recall(memory: Result<Journal, String>) -> (Option<Journal>, Vec<LeaseRecord>, Machine) {
    let why = match memory {
        Ok(journal) => match journal.leases().await {
            Ok(leases) => return (Some(journal), leases, Machine::new()),
            Err(error) => whole(&error),
        },
        Err(why) => why,
    };
    tracing::error!(why, "paused: what this node intended cannot be read, so nothing is touched");
    (None, Vec::new(), Machine::in_safe_state(why))
}
