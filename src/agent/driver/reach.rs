//! Starts the task that holds renters' sessions into running jobs.

use tokio::sync::mpsc;

use super::Driver;
use crate::agent::reach::{self, ReachDeps};
use crate::wire::NodeId;
use crate::wire::reach::PendingReach;

/// Lists of sessions on their way to the task; one that finds no room comes again with the next answer.
const LISTS_MAX: usize = 4;

impl Driver {
    /// Begins to take up sessions; what the coordinator says of them goes into what is returned.
    pub(super) fn serve_sessions(&mut self, node_id: NodeId) -> mpsc::Sender<Vec<PendingReach>> {
        let (told, pending) = mpsc::channel(LISTS_MAX);
        if let Some(journal) = self.journal.clone() {
            let deps = ReachDeps {
                client: self.client.clone(),
                journal,
                node_id,
                runtime: self.engines.subscribe(),
                allowed: self.options.ceiling.sandbox.interactive,
            };
            self.tasks.spawn(reach::serve(deps, pending));
        }
        told
    }
}
