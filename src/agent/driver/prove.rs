//! Challenges: when this machine may be challenged, and the owner's wish for one.

use tokio::sync::{mpsc, oneshot};

use super::Driver;
use crate::agent::prove::{self, ProveDeps};
use crate::wire::challenge::PendingChallenge;
use crate::wire::node::NodeState;

impl Driver {
    /// Begins to take up challenges; what the coordinator says of them goes into what is returned.
    pub(super) fn serve_challenges(&mut self) -> mpsc::Sender<PendingChallenge> {
        let (told, pending) = mpsc::channel(1);
        if let Some(program) = self.options.prover.clone() {
            let deps = ProveDeps {
                client: self.client.clone(),
                program,
                free: self.free.subscribe(),
                inbox: self.inbox.clone(),
            };
            self.tasks.spawn(prove::serve(deps, pending));
        }
        told
    }

    /// Whether this machine may be challenged now: measured, idle, and able to.
    pub(super) fn is_free(&self) -> bool {
        self.options.prover.is_some() && self.bench.is_some() && self.machine.state() == NodeState::Idle
    }

    /// Asks the coordinator for a challenge, and tells the asker whether one will come.
    pub(super) fn ask_challenge(&mut self, asker: oneshot::Sender<Result<(), String>>) {
        let client = self.client.clone();
        let able = self.options.prover.is_some();
        self.tasks.spawn(async move {
            let asked = if able {
                client.ask_challenge().await.map_err(|error| error.to_string())
            } else {
                Err("this agent was started without what it needs to prove hardware".to_owned())
            };
            // Whoever asked may have gone.
            let _ = asker.send(asked);
        });
    }
}
