//! Begins rounds, ends what runs out, and writes down what came of them.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use rand::RngExt as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::exam::{Exam, OPENED};
use super::rounds::{Ended, NewChallenge};
use super::schedule::{self, Candidate};
use super::sizing;
use super::trust::Outcome;
use crate::coordinator::problem::chain;
use crate::coordinator::secrets::random_bytes;
use crate::coordinator::store::StoreError;
use crate::coordinator::store::challenges::ProvableNode;
use crate::coordinator::{App, AppState};
use crate::wire::challenge::{Answer, Opening, Part};
use crate::wire::{ChallengeId, Digest, Nonce};

/// Between two looks while challenges run, and while none do.
const PERIODS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// Stirring is answered at most this often.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs until it is told to stop.
pub(crate) async fn run(app: App, stop: CancellationToken) {
    if !app.config.challenges {
        return;
    }
    if let Err(error) = app.store.void_challenges(app.clock.now()).await {
        tracing::warn!(error = %chain(&error), "challenges of before could not be given up");
    }
    loop {
        if let Err(error) = pass(&app).await {
            tracing::warn!(error = %chain(&error), "challenges could not be looked after; tried again soon");
        }
        let period = if app.rounds.any() { PERIODS.0 } else { PERIODS.1 };
        tokio::select! {
            () = stop.cancelled() => return,
            () = app.rounds.stirred.notified() => tokio::time::sleep(PAUSE).await,
            () = tokio::time::sleep(period) => {}
        }
    }
}

async fn pass(app: &AppState) -> Result<(), StoreError> {
    for ended in app.rounds.expire(app.clock.steady()) {
        conclude(app, ended).await?;
    }
    let listening = app.rounds.free();
    if listening.is_empty() {
        return Ok(());
    }
    let now = app.clock.now();
    let nodes = app.store.provable_nodes(now).await?;
    let candidate = |node: &ProvableNode| Candidate {
        node_id: node.node_id,
        account_id: node.account_id,
        due: node.due,
        free: !node.busy && listening.contains(&node.node_id),
        spent_millis: node.spent_millis,
        cost_millis: sizing::plan(&node.report).cost_millis,
    };
    let candidates: Vec<Candidate> = nodes.iter().map(candidate).collect();
    for round in schedule::rounds(&candidates) {
        let members = nodes.iter().filter(|node| round.contains(&node.node_id));
        begin(app, members).await?;
    }
    Ok(())
}

async fn begin(app: &AppState, nodes: impl Iterator<Item = &ProvableNode>) -> Result<(), StoreError> {
    let now = app.clock.now();
    let challenges: Vec<NewChallenge> = nodes
        .map(|node| {
            let sizing::Plan { parts, millis_max, .. } = sizing::plan(&node.report);
            NewChallenge {
                challenge_id: ChallengeId::generate(now),
                node_id: node.node_id,
                node: node.key,
                nonce: Nonce::from_bytes(random_bytes()),
                parts,
                millis_max,
            }
        })
        .collect();
    app.store.add_challenges(&challenges, now).await?;
    let told: Vec<_> = challenges.iter().map(|challenge| (challenge.challenge_id, challenge.node_id)).collect();
    app.rounds.begin(challenges, app.clock.steady());
    for (challenge_id, node_id) in told {
        tracing::info!(%challenge_id, %node_id, "challenged");
        app.wake.node_changed(node_id);
    }
    Ok(())
}

/// Writes down how a challenge ended and what that makes of the node.
pub(crate) async fn conclude(app: &AppState, ended: Ended) -> Result<(), StoreError> {
    let Ended { challenge_id, node_id, outcome, work_millis } = &ended;
    match outcome {
        Outcome::Passed => tracing::info!(%challenge_id, %node_id, work_millis, "the node passed its challenge"),
        Outcome::Missed { why } => tracing::warn!(%challenge_id, %node_id, why, "the node did not pass its challenge"),
        Outcome::Unheard { .. } => {
            tracing::info!(%challenge_id, %node_id, "the node did not get ready for its challenge")
        }
        Outcome::Void => tracing::debug!(%challenge_id, %node_id, "the challenge was given up"),
    }
    let random = rand::rng().random::<f64>();
    app.store.end_challenge(&ended, random, app.clock.now()).await?;
    app.wake.match_jobs();
    Ok(())
}

/// What to open of each part: rows and a vector that nobody knew before.
pub(crate) fn draw(parts: &[Part]) -> Opening {
    let mut random = rand::rng();
    let rows = parts.iter().map(|part| {
        let size = part.size.max(1);
        (0..OPENED).map(|_| random.random_range(0..size)).collect()
    });
    Opening { rows: rows.collect(), vector_seed: Digest::from_bytes(random_bytes()) }
}

/// Marks an answer on a thread of its own; few at a time.
pub(crate) async fn mark(examiners: Arc<Semaphore>, exam: Exam, answers: Vec<Answer>) -> Result<(), String> {
    // Nobody closes it.
    let _turn = examiners.acquire_owned().await.ok();
    let marked = tokio::task::spawn_blocking(move || exam.mark(&answers)).await;
    marked.unwrap_or_else(|_| Err("the answer could not be checked".to_owned()))
}

/// How many answers are checked at the same time: half of the processors.
pub(crate) fn examiners() -> Arc<Semaphore> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    Arc::new(Semaphore::new(processors.div_ceil(2)))
}

/// How long ago an hour began.
pub(crate) const HOUR: SignedDuration = SignedDuration::from_hours(1);
