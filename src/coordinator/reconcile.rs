//! The loops that bring what is into line with what should be.
//!
//! Invariants
//! - One loop expires and places; it is woken by [`super::wake::Wake::match_jobs`] and by a period, takes no input, and a pass
//!   that is run twice changes nothing the second time.
//! - A pass decides nothing itself: `placement` and `matching` decide, `store` makes it durable, then waiters are woken.
//! - A failed pass loses nothing: the next one starts from the database again.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::matching;
use super::placement::Event;
use super::problem::chain;
use super::store::{JOBS_PER_PAGE, Paymaster, StoreError};
use super::verify::drive::conclude;
use super::{App, AppState};
use crate::wire::JobId;
use crate::wire::challenge::ProofState;

const PERIOD: Duration = Duration::from_secs(5);
const FLUSH_PERIOD: Duration = Duration::from_secs(10);

/// Starts the background tasks; each ends soon after `stop` is cancelled.
pub(crate) fn spawn_background(app: &App, stop: &CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    app.liveness.watch_from(app.clock.steady());
    tasks.spawn(reconcile(Arc::clone(app), stop.clone()));
    tasks.spawn(flush(Arc::clone(app), stop.clone()));
    tasks
}

async fn reconcile(app: App, stop: CancellationToken) {
    loop {
        if let Err(error) = pass(&app).await {
            tracing::warn!(error = %chain(&error), "a pass over leases and jobs failed; the next one tries again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = app.wake.matching_needed() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

async fn flush(app: App, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(FLUSH_PERIOD)).await.is_some() {
        flush_once(&app).await;
    }
    flush_once(&app).await;
}

async fn flush_once(app: &AppState) {
    if let Err(error) = app.store.flush_heartbeats(&app.liveness.unflushed()).await {
        tracing::warn!(error = %chain(&error), "heartbeats could not be written down; the next ones will be");
    }
}

/// One pass: silent nodes, forgotten leases, overdue jobs, then placement.
pub(crate) async fn pass(app: &AppState) -> Result<(), StoreError> {
    expire(app).await?;
    for job_id in app.store.overdue_jobs(app.clock.now()).await? {
        advance(app, job_id, Event::Tick).await;
    }
    place(app).await
}

async fn expire(app: &AppState) -> Result<(), StoreError> {
    let (grace, now) = (app.config.lease_grace(), app.clock.steady());
    if app.liveness.look(grace, now) {
        tracing::warn!("this machine slept; every node gets time to be heard again");
    }
    let live = app.store.live_leases().await?;
    for lease in app.liveness.forgotten(&live, grace, now) {
        tracing::warn!(lease_id = %lease.lease_id, node_id = %lease.node_id, "the node does not know its lease any more");
        advance(app, lease.job_id, Event::NodeForgot { lease_id: lease.lease_id }).await;
    }
    for lease in live.iter().filter(|l| app.liveness.is_silent(l.node_id, grace, now)) {
        tracing::warn!(lease_id = %lease.lease_id, node_id = %lease.node_id, "the node went silent; its lease is lost");
        advance(app, lease.job_id, Event::NodeSilent { lease_id: lease.lease_id }).await;
    }
    Ok(())
}

/// One job that cannot be moved must not hold up the others.
async fn advance(app: &AppState, job_id: JobId, event: Event<'_>) {
    match app.store.advance_job(job_id, event, app.paymaster(), app.clock.now()).await {
        Ok(Ok(changes)) => changes.announce(&app.wake),
        Ok(Err(refused)) => tracing::debug!(%job_id, %refused, "the lease ended meanwhile"),
        Err(error) => tracing::warn!(%job_id, error = %chain(&error), "a job could not be moved on; tried again soon"),
    }
}

async fn place(app: &AppState) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let jobs = app.store.queued_jobs(after).await?;
        let Some(last) = jobs.last() else { return Ok(()) };
        after = Some(last.job_id);
        let (grace, steady) = (app.config.lease_grace(), app.clock.steady());
        let mut nodes = app.store.offering_nodes(app.clock.now()).await?;
        for node in &mut nodes {
            node.takes_leases = app.liveness.takes_leases(node.node_id, grace, steady);
            if !app.config.challenges {
                node.proof = ProofState::Unproven;
            }
        }
        let matching = matching::run(nodes, &jobs, app.clock.now());
        for placement in &matching.placed {
            let now = app.clock.now();
            match app.store.place(placement, app.paymaster(), now).await {
                Ok(Some(changes)) => {
                    tracing::info!(job_id = %placement.job_id, node_id = %placement.node_id, rate = %placement.rate, "placed");
                    changes.announce(&app.wake);
                    // The job comes first.
                    if let Some(ended) = app.rounds.give_up(placement.node_id) {
                        conclude(app, ended).await?;
                    }
                }
                Ok(None) => tracing::debug!(job_id = %placement.job_id, "what was matched changed meanwhile"),
                Err(error) => {
                    tracing::warn!(job_id = %placement.job_id, error = %chain(&error), "a job could not be placed");
                }
            }
        }
        app.store.explain(&matching.waiting).await?;
        if jobs.len() < JOBS_PER_PAGE {
            return Ok(());
        }
    }
}

impl AppState {
    /// How leases are paid.
    pub(crate) fn paymaster(&self) -> Paymaster<'_> {
        Paymaster { fee_per_mille: self.config.fee_per_mille, receipt_key: &self.receipt_key }
    }
}
