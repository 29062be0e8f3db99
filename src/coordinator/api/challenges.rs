//! A node proves its hardware: it is ready, it commits, it opens, it asks for another challenge.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::coordinator::App;
use crate::coordinator::auth::NodeAuth;
use crate::coordinator::problem::{ApiError, Json, Path};
use crate::coordinator::verify::drive::{conclude, draw, mark};
use crate::coordinator::verify::rounds::{Committed, Ended};
use crate::coordinator::verify::trust::Outcome;
use crate::wire::challenge::{Commit, Go, Opening, Reveal, Verdict};
use crate::wire::{ChallengeId, ErrorCode, Problem};

/// Longest that a node which is ready waits for its siblings.
const HELD_MAX: Duration = Duration::from_secs(55);

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(ready)).routes(routes!(commit)).routes(routes!(reveal)).routes(routes!(ask))
}

/// The node is ready to compute. Held until all nodes of the round are; the answer starts the clock.
#[utoipa::path(
    post, path = "/v1/challenges/{challenge_id}/ready", tag = "node", params(("challenge_id" = ChallengeId, Path)),
    responses((status = 200, body = Go), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("session" = []))
)]
async fn ready(State(app): State<App>, node: NodeAuth, Path(id): Path<ChallengeId>) -> Result<Json<Go>, ApiError> {
    let mut released = app.rounds.ready(node.node_id, id, app.clock.steady())?;
    let gone = tokio::select! {
        changed = released.wait_for(Option::is_some) => changed.is_err(),
        () = tokio::time::sleep(HELD_MAX) => true,
        () = app.stopping.cancelled() => true,
    };
    if gone {
        return Err(ApiError::new(ErrorCode::ChallengeOver, "the round did not come about"));
    }
    Ok(Json(app.rounds.go(node.node_id, id, app.clock.steady())?))
}

/// The node commits to what it computed. The answer tells what to open; a late commitment ends the challenge.
#[utoipa::path(
    post, path = "/v1/challenges/{challenge_id}/commit", tag = "node", params(("challenge_id" = ChallengeId, Path)),
    request_body = Commit,
    responses((status = 200, body = Opening), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("session" = []))
)]
async fn commit(
    State(app): State<App>,
    node: NodeAuth,
    Path(id): Path<ChallengeId>,
    Json(commit): Json<Commit>,
) -> Result<Json<Opening>, ApiError> {
    let parts = app.rounds.parts(node.node_id, id)?;
    match app.rounds.commit(node.node_id, id, commit, draw(&parts), app.clock.steady())? {
        Committed::Open(opening) => Ok(Json(opening)),
        Committed::Over(ended) => {
            let why = missed(&ended);
            conclude(&app, ended).await?;
            Err(ApiError::new(ErrorCode::ChallengeOver, why))
        }
    }
}

/// The node opens what it committed to; answered when it is checked.
#[utoipa::path(
    post, path = "/v1/challenges/{challenge_id}/reveal", tag = "node", params(("challenge_id" = ChallengeId, Path)),
    request_body = Reveal,
    responses((status = 200, body = Verdict), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("session" = []))
)]
async fn reveal(
    State(app): State<App>,
    node: NodeAuth,
    Path(id): Path<ChallengeId>,
    Json(reveal): Json<Reveal>,
) -> Result<Json<Verdict>, ApiError> {
    let (exam, work_millis) = app.rounds.take_exam(node.node_id, id)?;
    // In a task of its own, for a node that hangs up must not leave its challenge without an end.
    let keeper = Arc::clone(&app);
    let concluded = tokio::spawn(async move {
        let app = keeper;
        let marked = mark(Arc::clone(&app.examiners), exam, reveal.answers).await;
        let outcome = marked.clone().map_or_else(|why| Outcome::Missed { why }, |()| Outcome::Passed);
        conclude(&app, Ended { challenge_id: id, node_id: node.node_id, outcome, work_millis }).await.map(|()| marked)
    });
    let marked = concluded.await.map_err(|_| ApiError::fault())??;
    let proof = app.store.proof(node.node_id, app.clock.now()).await?;
    Ok(Json(Verdict { passed: marked.is_ok(), why: marked.err(), proof }))
}

/// Ask for a challenge soon, as the node's owner: to lift a suspension, or after a repair. It comes when the node is idle and
/// its hour allows.
#[utoipa::path(
    post, path = "/v1/node/challenges", tag = "node",
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("session" = []))
)]
async fn ask(State(app): State<App>, node: NodeAuth) -> Result<StatusCode, ApiError> {
    if !app.config.challenges {
        return Err(ApiError::new(ErrorCode::Conflict, "this coordinator challenges nobody"));
    }
    app.store.ask_challenge(node.node_id, app.clock.now()).await?;
    app.rounds.stirred.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

fn missed(ended: &Ended) -> String {
    match &ended.outcome {
        Outcome::Missed { why } => why.clone(),
        Outcome::Passed | Outcome::Unheard { .. } | Outcome::Void => String::new(),
    }
}
