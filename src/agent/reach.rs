//! Renters who reach into their own running jobs: takes sessions up, and ends what is left of them.
//!
//! Invariants
//! - The owner's ceiling and the job's own word both have to allow it; nothing the coordinator says can go around them.
//! - A session goes only into a container of its own lease that runs.
//! - However a session ends, its command is ended too; what an agent that was killed left behind is ended by the next one.

mod parcel;
mod session;

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::client::Client;
use super::journal::Journal;
use crate::runtime::{ContainerRuntime, ContainerStatus};
use crate::wire::reach::PendingReach;
use crate::wire::{NodeId, ReachId};

/// Sessions on this node at once; a coordinator allows no more either.
const SESSIONS_MAX: usize = 32;

/// What sessions need.
#[derive(Clone)]
pub(super) struct ReachDeps {
    pub(super) client: Client,
    pub(super) journal: Journal,
    pub(super) node_id: NodeId,
    /// The engine, once it has answered.
    pub(super) runtime: watch::Receiver<Option<Arc<dyn ContainerRuntime>>>,
    /// The owner's word.
    pub(super) allowed: bool,
}

/// Takes up the sessions it is told of until nobody tells it of any more. The same one may be told again.
pub(super) async fn serve(mut deps: ReachDeps, mut pending: mpsc::Receiver<Vec<PendingReach>>) {
    let mut sessions: JoinSet<ReachId> = JoinSet::new();
    let mut known: HashSet<ReachId> = HashSet::new();
    let mut cleaned = false;
    loop {
        tokio::select! {
            found = async { deps.runtime.wait_for(Option::is_some).await.ok().and_then(|runtime| runtime.clone()) }, if !cleaned => {
                cleaned = true;
                if let Some(runtime) = found {
                    end_leftovers(&deps, runtime.as_ref()).await;
                }
            }
            Some(ended) = sessions.join_next() => {
                if let Ok(id) = ended {
                    known.remove(&id);
                }
            }
            told = pending.recv() => {
                let Some(told) = told else { return };
                for session in told {
                    if known.len() < SESSIONS_MAX && known.insert(session.session_id) {
                        sessions.spawn(session::run(deps.clone(), session));
                    }
                }
            }
        }
    }
}

/// Ends commands of sessions that the agent before this one held: whoever wanted them has heard that they are gone.
async fn end_leftovers(deps: &ReachDeps, runtime: &dyn ContainerRuntime) {
    let Ok(found) = runtime.list(deps.node_id).await else { return };
    for container in found {
        let runs = matches!(container.status, ContainerStatus::Running { .. });
        let interactive = async {
            let lease = deps.journal.lease(container.lease_id).await;
            lease.is_ok_and(|lease| lease.is_some_and(|lease| lease.assignment.spec.interactive))
        };
        if runs
            && interactive.await
            && let Err(error) = runtime.exec_kill(&container.id, "").await
        {
            tracing::debug!(%error, lease = %container.lease_id, "commands of earlier sessions could not be ended");
        }
    }
}
