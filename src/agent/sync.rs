//! The loops that keep node and coordinator in step: heartbeats out, assignments in, inventory and benchmarks up.
//!
//! Invariants
//! - The first heartbeat goes out at once, the next ones at the coordinator's interval with jitter, and one soon after every
//!   change of state; changes that come together share one.
//! - Sequences count up within a boot, so that a delayed heartbeat never overrides a newer one.
//! - Each loop waits before it tries again what failed, and longer each time.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::client::{Client, ClientError};
use super::driver::Input;
use super::machine::Event;
use crate::wire::bench::BenchmarkReport;
use crate::wire::challenge::PendingChallenge;
use crate::wire::lease::Assignments;
use crate::wire::node::{Heartbeat, Inventory, LeaseReport, NodeState};
use crate::wire::reach::PendingReach;
use crate::wire::{BootId, Generation, Sequence};

/// Changes within this time share a heartbeat.
const COALESCE: Duration = Duration::from_millis(50);
/// Pause before a poll that brought nothing is repeated.
const POLL_PAUSE: Duration = Duration::from_millis(250);
/// Shortest and longest interval that a coordinator may ask for.
const INTERVAL_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));

/// What a heartbeat says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) state: NodeState,
    pub(super) reason: Option<String>,
    pub(super) generation: Generation,
    pub(super) leases: Vec<LeaseReport>,
}

/// What is sent up whenever it changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Uploads {
    pub(super) inventory: Option<Inventory>,
    pub(super) benchmark: Option<BenchmarkReport>,
}

/// Where the answers to a poll go besides the driver.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) sessions: mpsc::Sender<Vec<PendingReach>>,
    pub(super) challenges: mpsc::Sender<PendingChallenge>,
    /// Whether this machine may be challenged.
    pub(super) free: watch::Receiver<bool>,
}

/// Sends heartbeats until one has said [`NodeState::Stopped`] or nobody writes reports any more.
pub(super) async fn heartbeats(
    client: Client,
    boot_id: BootId,
    mut reports: watch::Receiver<Report>,
    newest: watch::Sender<Generation>,
    inbox: mpsc::Sender<Input>,
) {
    let mut sequence = Sequence(0);
    let mut failures = 0;
    let mut refused = None;
    let mut believed = None;
    loop {
        let report = reports.borrow_and_update().clone();
        sequence = sequence.next();
        let heartbeat = Heartbeat {
            boot_id,
            sequence,
            state: report.state,
            reason: report.reason,
            assignment_generation: report.generation,
            leases: report.leases,
        };
        let answer = client.heartbeat(&heartbeat).await;
        if heartbeat.state == NodeState::Stopped {
            return;
        }
        // Being refused wants a person; being unreachable shows in the link.
        let refusal = answer.as_ref().err().filter(|error| error.code().is_some()).map(ToString::to_string);
        if refusal != refused {
            refused.clone_from(&refusal);
            // A closed inbox means that the agent ends; the last heartbeat still goes out.
            let _ = inbox.send(Input::HeartbeatRefused(refusal)).await;
        }
        match answer {
            Ok(ack) => {
                failures = 0;
                if let Some(proof) = ack.proof
                    && believed.replace(proof.clone()) != Some(proof.clone())
                {
                    let _ = inbox.send(Input::Proof(proof)).await;
                }
                newest.send_if_modified(|known| std::mem::replace(known, ack.assignment_generation) != *known);
                let interval = jittered(Duration::from_millis(ack.interval_millis));
                let changed = tokio::time::timeout(interval, reports.changed()).await;
                match changed {
                    Ok(Ok(())) => tokio::time::sleep(COALESCE).await,
                    Ok(Err(_)) => return,
                    Err(_) => {}
                }
            }
            Err(error) => {
                complain("a heartbeat was not taken", &error, failures);
                let wait = client.patience(&error, failures);
                failures += 1;
                // Stopping does not wait for a coordinator that rests.
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = reports.wait_for(|report| report.state == NodeState::Stopped) => {}
                }
            }
        }
    }
}

/// Holds a poll for assignments open, and hands over each answer.
pub(super) async fn assignments(
    client: Client,
    mut newest: watch::Receiver<Generation>,
    inbox: mpsc::Sender<Input>,
    told: Told,
) {
    let Told { sessions, challenges, mut free } = told;
    let mut after = Generation(0);
    let mut failures = 0;
    loop {
        let prove = *free.borrow_and_update();
        let answer = tokio::select! {
            answer = client.assignments(after, prove) => answer,
            // What this machine says of itself with the open poll is not true any more.
            changed = free.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            // A heartbeat told of something newer than what the open poll waits for: ask anew.
            alive = async { newest.wait_for(|generation| *generation > after).await.is_ok() } => {
                if !alive {
                    return;
                }
                client.assignments(after, prove).await
            }
        };
        match answer {
            Ok(mut wish) => {
                failures = 0;
                let pending = std::mem::take(&mut wish.sessions);
                if !pending.is_empty() {
                    // What finds no room, or nobody, is told again with the next answer until it is taken up or given up.
                    let _ = sessions.try_send(pending);
                }
                if let Some(challenge) = wish.challenge.take() {
                    let _ = challenges.try_send(challenge);
                }
                if wish.generation <= after {
                    // Nothing new: the poll ran out. A coordinator that stops answers at once; do not storm it.
                    tokio::time::sleep(POLL_PAUSE).await;
                }
                after = deliver(wish, after, &inbox).await;
            }
            Err(error) => {
                complain("assignments could not be fetched", &error, failures);
                tokio::time::sleep(client.patience(&error, failures)).await;
                failures += 1;
            }
        }
    }
}

async fn deliver(wish: Assignments, after: Generation, inbox: &mpsc::Sender<Input>) -> Generation {
    let generation = wish.generation.max(after);
    // A closed inbox means that the agent ends, and this task with it.
    let _ = inbox.send(Input::Event(Event::Assigned(wish))).await;
    generation
}

/// Sends inventory and benchmarks up whenever they change.
pub(super) async fn uploads(client: Client, mut wanted: watch::Receiver<Uploads>, inbox: mpsc::Sender<Input>) {
    let mut sent = Uploads::default();
    let mut failures = 0;
    loop {
        let next = wanted.borrow_and_update().clone();
        match upload(&client, &next, &mut sent).await {
            Ok(()) => {
                failures = 0;
                let _ = inbox.send(Input::Uploaded(None)).await;
                if wanted.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                complain("a report about this machine was not taken", &error, failures);
                if error.code().is_some() {
                    let _ = inbox.send(Input::Uploaded(Some(error.to_string()))).await;
                }
                tokio::time::sleep(client.patience(&error, failures)).await;
                failures += 1;
            }
        }
    }
}

async fn upload(client: &Client, next: &Uploads, sent: &mut Uploads) -> Result<(), ClientError> {
    if let Some(inventory) = &next.inventory
        && sent.inventory.as_ref() != Some(inventory)
    {
        client.put_inventory(inventory).await?;
        sent.inventory = Some(inventory.clone());
    }
    if let Some(report) = &next.benchmark
        && sent.benchmark.as_ref() != Some(report)
    {
        client.post_benchmarks(report).await?;
        sent.benchmark = Some(report.clone());
    }
    Ok(())
}

/// The first failure is worth a line, its repetitions are not.
fn complain(what: &str, error: &ClientError, failures: u32) {
    if failures == 0 {
        tracing::warn!(%error, "{what}");
    } else {
        tracing::debug!(%error, failures, "{what}");
    }
}

/// Nine to eleven tenths of the interval.
fn jittered(interval: Duration) -> Duration {
    interval.clamp(INTERVAL_BOUNDS.0, INTERVAL_BOUNDS.1).mul_f64(0.9 + 0.2 * rand::random::<f64>())
}
