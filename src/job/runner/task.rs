//! The loop of one lease: inputs from everywhere, one machine, actions as tasks that end with the loop.

mod deeds;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::{LeaseCommand, LeaseSnapshot, RunnerDeps, engine, gpus, snapshot};
use crate::agent::journal::JournalError;
use crate::job::PortError;
use crate::job::backoff::Backoff;
use crate::job::inputs;
use crate::job::logs::LogWord;
use crate::job::machine::{Action, Deed, Heard, Input, LogPosition, Machine, Now, Stage, Terms};
use crate::job::output::{self, OutputOutcome, OutputTask};
use crate::runtime::network::NetworkId;
use crate::runtime::{OwnedContainer, PullProgress};
use crate::wire::lease::{Assignment, Desired, FailureKind, LeaseChange, LeaseEvent};
use crate::wire::{LeaseId, Sequence};

const PROGRESS_MAX: usize = 16;
const TROUBLE_MAX: usize = 8;
const HEARD_MAX: usize = 16;

/// What one of the lease's works came to.
enum Done {
    Input(Input),
    EventsTaken(Sequence),
    LeaseEnded,
    Nothing,
}

/// Runs one lease to its end.
pub(super) async fn run(
    deps: RunnerDeps,
    assignment: Assignment,
    found: Vec<OwnedContainer>,
    refused: Option<String>,
    inbox: mpsc::Receiver<LeaseCommand>,
    publish: watch::Sender<LeaseSnapshot>,
) {
    let lease_id = assignment.lease_id;
    match Task::load(deps, assignment, found, publish).await {
        Ok(mut task) => task.run(inbox, refused).await,
        Err(error) => tracing::error!(lease = %lease_id, %error, "a lease cannot be taken up"),
    }
}

/// Both ends of a queue: works hold the first, the loop reads the second.
type Channel<T> = (mpsc::Sender<T>, mpsc::Receiver<T>);

struct Task {
    deps: RunnerDeps,
    assignment: Assignment,
    machine: Machine,
    position: LogPosition,
    /// Whether the journal does not know the lease yet.
    is_new: bool,
    outbox: VecDeque<LeaseEvent>,
    works: JoinSet<Done>,
    publish: watch::Sender<LeaseSnapshot>,
    progress: Channel<PullProgress>,
    trouble: Channel<Option<String>>,
    trouble_now: Option<String>,
    pull_per_mille: Option<u16>,
    pull: Option<AbortHandle>,
    /// The way to the task that hands the log over.
    log: Option<mpsc::Sender<LogWord>>,
    /// What is heard of a container while the work that hears it goes on.
    heard: Channel<(usize, Heard)>,
    /// The checks that go on, by number of their service.
    checks: HashMap<usize, AbortHandle>,
    /// The lease's network, once it is made.
    network: Arc<Mutex<Option<NetworkId>>>,
    sending: bool,
    reporting: bool,
    over: bool,
}

impl Task {
    async fn load(
        deps: RunnerDeps,
        assignment: Assignment,
        found: Vec<OwnedContainer>,
        publish: watch::Sender<LeaseSnapshot>,
    ) -> Result<Self, JournalError> {
        let lease_id = assignment.lease_id;
        let record = deps.journal.lease(lease_id).await?;
        let is_new = record.is_none();
        if record.as_ref().is_some_and(|record| record.assignment.generation < assignment.generation) {
            deps.journal.put_lease(&assignment).await?;
        }
        let (mut saved, position) = record.map(|record| (record.saved, record.log)).unwrap_or_default();
        let outbox = if is_new { VecDeque::new() } else { deps.journal.unacked_events(lease_id).await?.into() };
        if saved.container.is_none() {
            let main = found.into_iter().find(|found| found.lease_id == lease_id && found.service.is_none());
            saved.container = main.map(|container| container.id.0);
        }
        Ok(Self {
            machine: Machine::new(Terms::of(&assignment.spec), saved),
            deps,
            assignment,
            position,
            is_new,
            outbox,
            works: JoinSet::new(),
            publish,
            progress: mpsc::channel(PROGRESS_MAX),
            trouble: mpsc::channel(TROUBLE_MAX),
            trouble_now: None,
            pull_per_mille: None,
            pull: None,
            log: None,
            heard: mpsc::channel(HEARD_MAX),
            checks: HashMap::new(),
            network: Arc::default(),
            sending: false,
            reporting: false,
            over: false,
        })
    }

    async fn run(&mut self, mut inbox: mpsc::Receiver<LeaseCommand>, refused: Option<String>) {
        if self.assignment.desired == Desired::Stop {
            self.feed(Input::Stop).await;
        }
        let is_first = self.machine.saved().stage == Stage::Assigned;
        let take = || match refused {
            Some(detail) => Some(Input::main(Heard::Failed { why: FailureKind::EngineError, detail })),
            None => gpus::take(&self.deps.gpus, &self.assignment, &mut self.machine),
        };
        let refused = is_first.then(take).flatten();
        self.feed(Input::Begin).await;
        if let Some(refused) = refused {
            self.feed(refused).await;
        }
        let mut commanded = true;
        while !self.over {
            self.send_events();
            let deadline = self.until_deadline();
            tokio::select! {
                command = inbox.recv(), if commanded => match command {
                    Some(command) => self.command(command).await,
                    // Nobody will say anything more; the lease goes on to its end.
                    None => commanded = false,
                },
                Some(done) = self.works.join_next() => self.done(done.unwrap_or(Done::Nothing)).await,
                Some(progress) = self.progress.1.recv() => self.pull_moved(progress).await,
                Some((index, heard)) = self.heard.1.recv() => self.feed(Input::Heard { index, heard }).await,
                Some(trouble) = self.trouble.1.recv() => {
                    self.trouble_now = trouble;
                    self.show();
                }
                () = sleep_option(deadline) => self.feed(Input::Tick).await,
            }
        }
    }

    fn until_deadline(&self) -> Option<Duration> {
        self.machine.deadline().map(|deadline| deadline.since(self.deps.clock.steady()))
    }

    async fn command(&mut self, command: LeaseCommand) {
        match command {
            LeaseCommand::Stop => self.feed(Input::Stop).await,
            LeaseCommand::Evict { reason } => self.feed(Input::Evict { reason }).await,
            LeaseCommand::Forget => self.feed(Input::Drop { forget: true }).await,
            LeaseCommand::Freeze { reason } => self.feed(Input::Freeze { reason }).await,
            LeaseCommand::Thaw => self.feed(Input::Thaw).await,
            // Ends are waited for anyway; this only re-reads the clock, which a suspend may have moved.
            LeaseCommand::Poke => self.feed(Input::Tick).await,
        }
    }

    async fn done(&mut self, done: Done) {
        match done {
            Done::Input(input) => {
                self.trouble_now = None;
                self.feed(input).await;
            }
            Done::EventsTaken(through) => {
                self.sending = false;
                self.outbox.retain(|event| event.sequence > through);
                self.report_when_empty().await;
            }
            Done::LeaseEnded => self.feed(Input::Drop { forget: false }).await,
            Done::Nothing => {}
        }
    }

    async fn pull_moved(&mut self, progress: PullProgress) {
        let per_mille = progress.bytes_done.saturating_mul(1000).checked_div(progress.bytes_total).unwrap_or(0);
        // The total grows while layers are found; what is shown never goes back.
        let per_mille = u16::try_from(per_mille.min(1000)).unwrap_or(1000).max(self.pull_per_mille.unwrap_or(0));
        self.pull_per_mille = Some(per_mille);
        self.feed(Input::PullMoved { per_mille }).await;
    }

    async fn feed(&mut self, input: Input) {
        let now = Now { wall: self.deps.clock.now(), steady: self.deps.clock.steady() };
        let step = self.machine.handle(input, now);
        let (early, late): (Vec<_>, Vec<_>) = step.actions.into_iter().partition(may_begin_early);
        for action in early {
            self.act(action).await;
        }
        if step.record && !self.record(now, &step.changes).await {
            return;
        }
        for action in late {
            self.act(action).await;
        }
        self.show();
    }

    /// Writes down where the lease stands. What cannot be written is not done: the lease waits until it can.
    async fn record(&mut self, now: Now, changes: &[LeaseChange]) -> bool {
        let mut backoff = Backoff::engine();
        loop {
            let (journal, lease_id, saved) = (&self.deps.journal, self.assignment.lease_id, self.machine.saved());
            let recorded = if self.is_new {
                journal.record_new(&self.assignment, saved, now.wall, changes).await
            } else {
                journal.record(lease_id, saved, now.wall, changes).await
            };
            match recorded {
                Ok(events) => {
                    self.is_new = false;
                    self.outbox.extend(events);
                    return true;
                }
                Err(JournalError::UnknownLease { .. }) => {
                    // Forgotten by the agent: the container must go, and nobody is told.
                    self.start_removal().await;
                    return false;
                }
                Err(error) => {
                    tracing::error!(lease = %lease_id, %error, "the lease waits for the state database");
                    self.trouble_now = Some(error.to_string());
                    self.show();
                    backoff.wait().await;
                }
            }
        }
    }

    async fn start_removal(&mut self) {
        let now = Now { wall: self.deps.clock.now(), steady: self.deps.clock.steady() };
        let step = self.machine.handle(Input::Drop { forget: true }, now);
        if step.actions.contains(&Action::Remove) {
            self.remove().await;
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::CancelPull => {
                if let Some(pull) = self.pull.take() {
                    pull.abort();
                }
            }
            Action::Service { index, deed } => self.deed(index, deed).await,
            Action::Freeze { reason } => self.freeze(Some(reason)),
            Action::Thaw => self.freeze(None),
            Action::Collect => self.collect(),
            Action::CloseLog { notice } => self.close_log(notice).await,
            Action::Report => {
                self.reporting = true;
                Box::pin(self.report_when_empty()).await;
            }
            Action::Remove => self.remove().await,
            Action::Forget => self.forget().await,
            Action::Finish => {
                self.deps.gpus.give_back(self.assignment.lease_id);
                self.over = true;
            }
        }
    }

    /// Begins a work. Each is a task of its own: several use the journal's one connection and must not wait for this loop.
    fn push(&mut self, work: impl Future<Output = Done> + Send + 'static) -> AbortHandle {
        self.works.spawn(work)
    }

    fn collect(&mut self) {
        let (Some(container), Some(path)) = (self.container(0), self.assignment.spec.output_path.clone()) else {
            self.push(async { Done::Input(Input::Collected { notice: None }) });
            return;
        };
        let task = OutputTask {
            runtime: self.deps.runtime.clone(),
            port: self.deps.port.clone(),
            lease_id: self.assignment.lease_id,
            container,
            path,
            bytes_max: self.assignment.spec.limits.output_bytes_max,
            spool_dir: self.deps.spool_dir.clone(),
        };
        self.push(async move {
            match output::run(task).await {
                OutputOutcome::Sent => Done::Input(Input::Collected { notice: None }),
                OutputOutcome::Absent(why) => Done::Input(Input::Collected { notice: Some(why) }),
                OutputOutcome::LeaseEnded => Done::LeaseEnded,
            }
        });
    }

    /// Nothing else goes on while the container is removed.
    async fn remove(&mut self) {
        self.works.shutdown().await;
        self.log = None;
        self.sending = false;
        self.outbox.clear();
        let (node_id, lease_id) = (self.deps.node_id, self.assignment.lease_id);
        let (runtime, trouble) = (self.deps.runtime.clone(), self.trouble.0.clone());
        // Several are found by label.
        let known = self.container(0).filter(|_| self.assignment.spec.services.len() == 1);
        let spool_dir = self.deps.spool_dir.clone();
        let spool = output::spool_path(&spool_dir, lease_id);
        self.push(async move {
            output::discard(&spool).await;
            inputs::discard(&spool_dir, lease_id, None).await;
            Done::Input(engine::remove(runtime, known, node_id, lease_id, trouble).await)
        });
    }

    async fn forget(&mut self) {
        let lease_id = self.assignment.lease_id;
        if let Err(error) = self.deps.journal.forget_lease(lease_id).await {
            // It is found over at the next start and forgotten then.
            tracing::warn!(lease = %lease_id, %error, "a lease could not be forgotten");
        }
    }

    async fn report_when_empty(&mut self) {
        if self.reporting && self.outbox.is_empty() && !self.sending {
            self.reporting = false;
            Box::pin(self.feed(Input::Reported)).await;
        }
    }

    fn send_events(&mut self) {
        if self.sending || self.outbox.is_empty() || self.over {
            return;
        }
        self.sending = true;
        let events: Vec<LeaseEvent> = self.outbox.iter().cloned().collect();
        self.push(send_events(self.deps.clone(), self.assignment.lease_id, events));
    }

    fn show(&self) {
        let now = self.deps.clock.steady();
        self.publish.send_if_modified(|shown| {
            let before = shown.clone();
            snapshot::update(shown, &self.machine, self.pull_per_mille, self.trouble_now.as_deref(), now);
            *shown != before
        });
    }
}

/// What changes nothing, or nothing that could not be found again by label, need not wait for the journal: the write and the
/// work go on side by side. A start always waits.
fn may_begin_early(action: &Action) -> bool {
    match action {
        Action::Service { deed: Deed::Pull | Deed::Create | Deed::Watch, .. } => true,
        Action::CancelPull
        | Action::Service {
            deed:
                Deed::Start
                | Deed::Restart { .. }
                | Deed::Attach
                | Deed::ReadLog
                | Deed::CheckHealth
                | Deed::Terminate
                | Deed::Kill
                | Deed::Freeze
                | Deed::Thaw,
            ..
        }
        | Action::Freeze { .. }
        | Action::Thaw
        | Action::Collect
        | Action::CloseLog { .. }
        | Action::Report
        | Action::Remove
        | Action::Forget
        | Action::Finish => false,
    }
}

async fn send_events(deps: RunnerDeps, lease_id: LeaseId, events: Vec<LeaseEvent>) -> Done {
    let mut backoff = Backoff::coordinator();
    let through = loop {
        match deps.port.send_events(lease_id, &events).await {
            Ok(through) => break through,
            Err(PortError::LeaseEnded) => return Done::LeaseEnded,
            Err(PortError::Rejected(problem)) => {
                tracing::warn!(lease = %lease_id, %problem, "the coordinator refuses a lease's events; it is dropped");
                return Done::LeaseEnded;
            }
            Err(PortError::OffsetGap { .. } | PortError::Unavailable { .. }) => backoff.wait().await,
        }
    };
    if let Err(error) = deps.journal.ack_events(lease_id, through).await {
        // They are sent again after a restart, which is harmless.
        tracing::warn!(lease = %lease_id, %error, "acknowledged events could not be let go");
    }
    Done::EventsTaken(through)
}

async fn sleep_option(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
