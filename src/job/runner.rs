//! One task per lease: it drives the pure machine over the container engine, the coordinator and the journal.
//!
//! Invariants
//! - What the machine wants recorded is in the journal before any action that could not be repeated; a pull, the making of a
//!   container (it is found again by label) and looking at one may begin while it is written. A start never does.
//! - Everything that goes on for a lease lives in its one task: aborting it stops all of it, as a crash would, and
//!   [`spawn`] takes it up again.

mod check;
mod disk;
mod engine;
mod gpus;
mod snapshot;
mod task;

pub(super) use engine::failure_of;

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::agent::journal::Journal;
use crate::clock::Clock;
use crate::job::LeasePort;
use crate::job::gpus::Gpus;
use crate::job::images::Images;
use crate::runtime::{ContainerRuntime, OwnedContainer};
use crate::wire::lease::{Assignment, LeasePhase};
use crate::wire::{HourlyRate, JobId, LeaseId, NodeId};

const COMMANDS_MAX: usize = 16;

/// What a lease's task needs from outside.
#[derive(Clone)]
pub struct RunnerDeps {
    /// The container engine.
    pub runtime: Arc<dyn ContainerRuntime>,
    /// Where reports go.
    pub port: Arc<dyn LeasePort>,
    /// The agent's memory.
    pub journal: Journal,
    /// Images, shared by all leases.
    pub images: Images,
    /// Wall and steady time.
    pub clock: Clock,
    /// This node's GPUs, and who has which.
    pub gpus: Gpus,
    /// This node.
    pub node_id: NodeId,
    /// Folder for outputs on their way; exists and is ours alone.
    pub spool_dir: PathBuf,
}

/// What can be asked of a lease's task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseCommand {
    /// The renter wants it to stop: SIGTERM, grace, SIGKILL, then log and output as usual.
    Stop,
    /// The node gives it back: SIGTERM, grace, SIGKILL, log to its end, no output; it may run elsewhere.
    Evict {
        /// For people.
        reason: String,
    },
    /// The lease is over for the coordinator: kill, remove, report nothing, leave no trace in the journal.
    Forget,
    /// Something happened to the container; look at it.
    Poke,
    /// Freeze it for the owner's sake.
    Freeze {
        /// For people.
        reason: String,
    },
    /// Undo the freeze.
    Thaw,
}

/// A lease as its task sees it now, and as every view of its owner shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseSnapshot {
    /// The lease.
    pub lease_id: LeaseId,
    /// The job behind it.
    pub job_id: JobId,
    /// Where it stands.
    pub phase: LeasePhase,
    /// One sentence about what it does or waits for, for people; empty when there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Progress of the pull, 0 to 1000, while pulling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_per_mille: Option<u16>,
    /// When the container was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Milliseconds it had run, frozen time left out, when this snapshot was taken.
    pub ran_millis: u64,
    /// The image as the job names it.
    pub image: String,
    /// What an hour pays, before the network's fee.
    pub rate: HourlyRate,
    /// Whether everything is reported and removed: the task has ended or is about to. For the agent alone.
    #[serde(skip)]
    pub over: bool,
}

/// The way to a lease's task.
#[derive(Debug)]
pub struct LeaseHandle {
    /// Commands; a full queue means that the task is busy, try again.
    pub commands: mpsc::Sender<LeaseCommand>,
    /// The newest snapshot.
    pub snapshot: watch::Receiver<LeaseSnapshot>,
    /// Ends when the lease is over and its container removed. Aborting it is what a crash does: nothing is lost.
    pub done: JoinHandle<()>,
}

/// Starts the task of one lease, or takes it up again where the journal says it was.
///
/// A lease that the journal knows to be over ends at once and is not started again. After the end the journal keeps the lease
/// until [`Journal::forget_lease`], so that a late assignment cannot start it a second time.
///
/// `found` are the lease's containers, if the engine has any; they are used where the journal knows nothing of them.
#[must_use]
pub fn spawn(deps: RunnerDeps, assignment: Assignment, found: Vec<OwnedContainer>) -> LeaseHandle {
    begin(deps, assignment, found, None)
}

/// The same for a lease that this node must not take: if it has not begun, it ends with this reason and may run elsewhere.
#[must_use]
pub fn refuse(deps: RunnerDeps, assignment: Assignment, found: Vec<OwnedContainer>, why: String) -> LeaseHandle {
    begin(deps, assignment, found, Some(why))
}

fn begin(deps: RunnerDeps, assignment: Assignment, found: Vec<OwnedContainer>, refused: Option<String>) -> LeaseHandle {
    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    let (publish, snapshot) = watch::channel(snapshot::first(&assignment));
    let done = tokio::spawn(task::run(deps, assignment, found, refused, inbox, publish));
    LeaseHandle { commands, snapshot, done }
}

#[cfg(test)]
mod handover_tests;
#[cfg(test)]
mod services_tests;
#[cfg(test)]
mod tests;
