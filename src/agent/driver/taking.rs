//! How the driver takes a lease up, and what it lets go when the lease is over.

use std::sync::Arc;

use super::{Driver, room};
use crate::agent::machine::Event;
use crate::job::runner::RunnerDeps;
use crate::wire::LeaseId;
use crate::wire::lease::Assignment;

impl Driver {
    pub(super) async fn spawn(&mut self, assignment: Assignment) -> Option<Event> {
        let lease_id = assignment.lease_id;
        let parts = (&self.journal, &self.runtime, self.node_id, self.images.clone());
        let (Some(journal), Some(runtime), Some(node_id), Some(images)) = parts else {
            return Some(Event::NotKept { lease_id, why: "the container engine has not answered yet".to_owned() });
        };
        if let Err(error) = journal.put_lease(&assignment).await {
            tracing::warn!(%error, %lease_id, "a lease could not be kept and is not started");
            return Some(Event::NotKept { lease_id, why: error.to_string() });
        }
        tracing::info!(%lease_id, job_id = %assignment.job_id, "taking up a lease");
        // Where nothing is offered yet, the lease is one of an earlier start.
        let (offer, asked) = (self.notes.offer.as_ref(), assignment.spec.resources());
        let refused = offer.and_then(|offer| room::refuses(offer, &self.leases.in_use(), &asked));
        let deps = RunnerDeps {
            runtime: Arc::clone(runtime),
            port: Arc::new(self.client.clone()),
            journal: journal.clone(),
            images,
            clock: self.clock.clone(),
            gpus: self.gpus.clone(),
            node_id,
            spool_dir: self.options.state_dir.spool(),
        };
        let found = self.found.remove(&lease_id).unwrap_or_default();
        self.leases.start(deps, assignment, found, refused, self.inbox.clone());
        None
    }

    /// What the lease ran on may go, if the cache is over its budget.
    pub(super) fn release_images(&mut self, lease_id: LeaseId) {
        if let (Some(images), Some(runtime)) = (self.images.clone(), self.runtime.clone()) {
            self.tasks.spawn(async move { images.lease_over(&*runtime, lease_id).await });
        }
    }
}
