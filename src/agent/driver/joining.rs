//! Enrols from within the agent: keeps trying, and shows what a person has to do.

use std::time::Duration;

use tokio::sync::mpsc;

use super::Input;
use crate::agent::client::Client;
use crate::agent::enroll::{EnrollError, EnrollStep, Flow};
use crate::agent::journal::Journal;
use crate::wire::Secret;

/// Pause after a refusal that only a person can mend.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// Enrols, or finds that the node is enrolled, and ends then.
pub(super) async fn enroll(
    client: Client,
    journal: Journal,
    name: String,
    join_token: Option<Secret>,
    inbox: mpsc::Sender<Input>,
) {
    let mut flow = Flow::new(client.clone(), journal, &name, join_token);
    let mut failures = 0;
    loop {
        let step = flow.next().await;
        let pause = match &step {
            Ok(EnrollStep::Enrolled { .. }) => None,
            Ok(EnrollStep::Approve(pending)) => {
                failures = 0;
                tracing::info!(code = pending.user_code, url = pending.verification_url, "waiting for approval");
                Some(Duration::ZERO)
            }
            Err(EnrollError::Client(error)) => {
                tracing::warn!(%error, "not enrolled yet");
                let pause = client.patience(error, failures);
                failures += 1;
                // A refused token stays refused.
                Some(if error.code().is_some_and(|code| code.status() < 500) { REFUSED_PAUSE } else { pause })
            }
            Err(EnrollError::Expired) => Some(Duration::ZERO),
            Err(error) => {
                tracing::error!(%error, "not enrolled");
                Some(REFUSED_PAUSE)
            }
        };
        // A closed inbox means that the agent ends, and this task with it.
        let _ = inbox.send(Input::Enrollment(step.map_err(|error| error.to_string()))).await;
        match pause {
            None => return,
            Some(pause) => tokio::time::sleep(pause).await,
        }
    }
}
