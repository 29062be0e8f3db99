//! What the node earned, for its owner: asked of the coordinator, shown as last known when it cannot be asked.

use tokio::sync::oneshot;

use super::{Driver, Input};
use crate::agent::client::ClientError;
use crate::control::EarningsReply;
use crate::wire::account::Earnings;

impl Driver {
    /// Asks the coordinator; the answer comes as an input.
    pub(super) fn ask_earnings(&mut self, asker: Option<oneshot::Sender<EarningsReply>>) {
        let (client, inbox) = (self.client.clone(), self.inbox.clone());
        self.tasks.spawn(async move {
            let result = client.earnings().await.map(Box::new).map_err(|error: ClientError| error.to_string());
            // A closed inbox drops the asker, which tells it.
            let _ = inbox.send(Input::Earnings(result, asker)).await;
        });
    }

    /// Keeps the answer, and passes it on to whoever asked.
    pub(super) fn earnings(
        &mut self,
        result: Result<Box<Earnings>, String>,
        asker: Option<oneshot::Sender<EarningsReply>>,
    ) {
        let stale = match result {
            Ok(earnings) => {
                self.notes.earnings = Some(*earnings);
                None
            }
            Err(why) => Some(why),
        };
        if let Some(asker) = asker {
            // Nobody waits any more when this fails.
            let _ = asker.send(EarningsReply { earnings: self.notes.earnings.clone(), stale });
        }
    }
}
