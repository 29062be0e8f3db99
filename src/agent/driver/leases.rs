//! The leases' tasks, each watched by a task that tells the driver what changes.

use std::collections::HashMap;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::Input;
use crate::clock::Steady;
use crate::job::runner::{self, LeaseCommand, LeaseHandle, LeaseSnapshot, RunnerDeps};
use crate::runtime::OwnedContainer;
use crate::wire::LeaseId;
use crate::wire::job::{Reach, Resources};
use crate::wire::lease::{Assignment, LeasePhase};

/// Every lease with a task.
#[derive(Debug, Default)]
pub(super) struct Leases(HashMap<LeaseId, Entry>);

#[derive(Debug)]
struct Entry {
    commands: mpsc::Sender<LeaseCommand>,
    snapshot: watch::Receiver<LeaseSnapshot>,
    task: AbortHandle,
    watcher: AbortHandle,
    /// Whether its containers reach the internet.
    on_network: bool,
    /// Whether its job names domains.
    names_domains: bool,
    /// What its containers use together.
    resources: Resources,
    /// Whether it is no part of what this node has promised: refused, or over for the coordinator.
    leaving: bool,
    /// When the snapshot last changed.
    seen: Steady,
}

impl Leases {
    /// Starts a lease's task, or takes the lease up where the journal says it was. One that has not begun and is `refused` only
    /// reports why.
    pub(super) fn start(
        &mut self,
        deps: RunnerDeps,
        assignment: Assignment,
        found: Vec<OwnedContainer>,
        refused: Option<String>,
        inbox: mpsc::Sender<Input>,
    ) {
        let seen = deps.clock.steady();
        let lease_id = assignment.lease_id;
        let on_network = assignment.spec.network.reach != Reach::None;
        let names_domains = !assignment.spec.network.domains.is_empty();
        let (resources, leaving) = (assignment.spec.resources(), refused.is_some());
        let handle = match refused {
            Some(why) => runner::refuse(deps, assignment, found, why),
            None => runner::spawn(deps, assignment, found),
        };
        let (commands, snapshot) = (handle.commands.clone(), handle.snapshot.clone());
        let task = handle.done.abort_handle();
        let watcher = tokio::spawn(follow(lease_id, handle, inbox)).abort_handle();
        let entry = Entry { commands, snapshot, task, watcher, on_network, names_domains, resources, leaving, seen };
        self.0.insert(lease_id, entry);
    }

    /// What the leases that are not over use together.
    pub(super) fn in_use(&self) -> Resources {
        let live = self.0.values().filter(|entry| !entry.leaving && !entry.snapshot.borrow().phase.is_final());
        let none = Resources { cpu_millis: 0, memory_bytes: 0, disk_bytes: 0, gpus: 0 };
        live.fold(none, |sum, entry| sum.plus(&entry.resources))
    }

    /// Whether a lease has a task.
    pub(super) fn has(&self, lease_id: LeaseId) -> bool {
        self.0.contains_key(&lease_id)
    }

    /// The leases whose containers reach the internet.
    pub(super) fn on_networks(&self) -> Vec<LeaseId> {
        self.0.iter().filter(|(_, entry)| entry.on_network).map(|(lease_id, _)| *lease_id).collect()
    }

    /// The leases whose jobs name domains.
    pub(super) fn kept_to_domains(&self) -> Vec<LeaseId> {
        self.0.iter().filter(|(_, entry)| entry.names_domains).map(|(lease_id, _)| *lease_id).collect()
    }

    /// Gives a lease's task a command.
    pub(super) fn tell(&mut self, lease_id: LeaseId, command: LeaseCommand) {
        let Some(entry) = self.0.get_mut(&lease_id) else { return };
        entry.leaving |= command == LeaseCommand::Forget;
        match entry.commands.try_send(command) {
            // A task that ended says so by itself; a full queue holds something that makes it look already.
            Ok(())
            | Err(mpsc::error::TrySendError::Closed(_) | mpsc::error::TrySendError::Full(LeaseCommand::Poke)) => {}
            Err(mpsc::error::TrySendError::Full(command)) => {
                let commands = entry.commands.clone();
                tokio::spawn(async move {
                    // Closed means ended, as above.
                    let _ = commands.send(command).await;
                });
            }
        }
    }

    /// Where a lease stands, looked at now.
    pub(super) fn look(&mut self, lease_id: LeaseId, now: Steady) -> Option<LeasePhase> {
        let entry = self.0.get_mut(&lease_id)?;
        entry.seen = now;
        Some(entry.snapshot.borrow().phase)
    }

    /// A lease's task has ended.
    pub(super) fn remove(&mut self, lease_id: LeaseId) {
        self.0.remove(&lease_id);
    }

    /// Ends every task where it is. Containers run on; the journal knows what they are.
    pub(super) fn leave(&mut self) {
        for entry in self.0.values() {
            entry.watcher.abort();
            entry.task.abort();
        }
        self.0.clear();
    }

    /// Every lease for the owner's eyes, oldest first.
    pub(super) fn lines(&self, now: Steady) -> Vec<LeaseSnapshot> {
        let mut lines: Vec<LeaseSnapshot> = self.0.values().map(|entry| line(entry, now)).collect();
        lines.sort_by_key(|line| line.lease_id);
        lines
    }
}

fn line(entry: &Entry, now: Steady) -> LeaseSnapshot {
    let mut snapshot = entry.snapshot.borrow().clone();
    // A task speaks up when something changes; until then what runs runs on.
    if snapshot.phase == LeasePhase::Running {
        let since = u64::try_from(now.since(entry.seen).as_millis()).unwrap_or(0);
        snapshot.ran_millis = snapshot.ran_millis.saturating_add(since);
    }
    snapshot
}

async fn follow(lease_id: LeaseId, mut handle: LeaseHandle, inbox: mpsc::Sender<Input>) {
    while handle.snapshot.changed().await.is_ok() {
        handle.snapshot.borrow_and_update();
        // The snapshot is read when the driver gets there, so that a burst of changes costs one look.
        let _ = inbox.send(Input::Lease(lease_id)).await;
    }
    // The task has let go of its snapshot; it ends, or it broke.
    let finished = (&mut handle.done).await.is_ok();
    let over = finished && handle.snapshot.borrow().over;
    if !over {
        tracing::warn!(%lease_id, "a lease's task broke off; it will be taken up again");
    }
    let _ = inbox.send(Input::LeaseEnded(lease_id, over)).await;
}
