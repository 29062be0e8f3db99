//! Challenges: the node proves its hardware to the coordinator, when nothing else is to be done.
//!
//! Invariants
//! - The owner and jobs come first: a challenge is given up, and its child killed, as soon as this machine is not idle any more.
//! - One challenge at a time, and each is tried once; what does not come about is the coordinator's to repeat.
//! - The computation runs in a child process, never in the agent.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, watch};

use super::client::{Client, ClientError};
use super::driver::Input;
use crate::bench::challenge::{ProveError, Prover};
use crate::proof::generator::Seed;
use crate::wire::Digest;
use crate::wire::challenge::{Commit, PendingChallenge, Reveal, Verdict};

/// On top of the coordinator's time; whoever is that late has missed it anyway.
const LATE_MAX: Duration = Duration::from_secs(5);

/// What challenges need.
#[derive(Debug)]
pub(super) struct ProveDeps {
    pub(super) client: Client,
    /// The fizz binary.
    pub(super) program: PathBuf,
    /// Whether this machine is idle.
    pub(super) free: watch::Receiver<bool>,
    pub(super) inbox: mpsc::Sender<Input>,
}

#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Compute(#[from] ProveError),
    #[error(transparent)]
    Call(#[from] ClientError),
}

/// Takes up the challenges it is told of until nobody tells it of any more. The same one may be told again.
pub(super) async fn serve(deps: ProveDeps, mut pending: mpsc::Receiver<PendingChallenge>) {
    let mut newest = None;
    while let Some(challenge) = pending.recv().await {
        let id = challenge.challenge_id;
        if newest.replace(id) == Some(id) {
            continue;
        }
        let mut free = deps.free.clone();
        let outcome = tokio::select! {
            outcome = prove(&deps, challenge) => outcome,
            _ = free.wait_for(|free| !free) => {
                tracing::info!(%id, "a challenge is given up: this machine has other work");
                continue;
            }
        };
        match outcome {
            Ok(verdict) => {
                match &verdict.why {
                    None => tracing::info!(%id, "this machine's hardware is proven"),
                    Some(why) => tracing::warn!(%id, why, "this machine did not pass its challenge"),
                }
                // A closed inbox means that the agent ends.
                let _ = deps.inbox.send(Input::Proof(verdict.proof)).await;
            }
            Err(error) => tracing::warn!(%id, %error, "a challenge could not be answered"),
        }
    }
}

async fn prove(deps: &ProveDeps, challenge: PendingChallenge) -> Result<Verdict, Failure> {
    let PendingChallenge { challenge_id: id, parts } = challenge;
    let mut prover = Prover::start(&deps.program, &parts).await?;
    let go = deps.client.challenge_ready(id).await?;
    let key = deps.client.identity().public_key();
    let seeds = (0u32..).zip(&parts).map(|(part, _)| Seed::derive(&go.nonce, &key, id, part));
    let seeds = seeds.map(|seed| Digest::from_bytes(*seed.as_bytes())).collect();
    let roots = prover.compute(seeds, Duration::from_millis(go.millis_max) + LATE_MAX).await?;
    let opening = deps.client.challenge_commit(id, &Commit { roots }).await?;
    let answers = prover.open(opening).await?;
    drop(prover);
    Ok(deps.client.challenge_reveal(id, &Reveal { answers }).await?)
}
