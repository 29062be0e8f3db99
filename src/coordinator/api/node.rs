//! Heartbeats, assignments, earnings and receipts of a node.

use std::time::Duration;

use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::coordinator::App;
use crate::coordinator::auth::NodeAuth;
use crate::coordinator::liveness::Taken;
use crate::coordinator::problem::{ApiError, Json, Query};
use crate::coordinator::receipts::public_key;
use crate::wire::account::{Earnings, ReceiptList};
use crate::wire::lease::Assignments;
use crate::wire::node::{Heartbeat, HeartbeatAck};
use crate::wire::{Generation, Problem, Sequence};

/// Longest time an assignments call is held, in seconds.
const WAIT_SECONDS_MAX: u64 = 60;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(heartbeat))
        .routes(routes!(assignments))
        .routes(routes!(earnings))
        .routes(routes!(receipts))
}

/// Takes a node's report of its actual state.
#[utoipa::path(
    post, path = "/v1/node/heartbeat", tag = "node", request_body = Heartbeat,
    responses((status = 200, body = HeartbeatAck), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("session" = []))
)]
async fn heartbeat(
    State(app): State<App>,
    node: NodeAuth,
    Json(heartbeat): Json<Heartbeat>,
) -> Result<Json<HeartbeatAck>, ApiError> {
    let now = app.clock.now();
    let times = (now, app.clock.steady());
    let (taken, interval) = app.liveness.take(node.node_id, &heartbeat, app.config.heartbeat_interval(), times);
    if taken == Taken::TakesLeases {
        app.wake.match_jobs();
    }
    let generation = app.store.catch_up_generation(node.node_id, heartbeat.assignment_generation).await?;
    let interval_millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    let proof = if app.config.challenges { Some(app.store.proof(node.node_id, now).await?) } else { None };
    Ok(Json(HeartbeatAck { server_time: now, assignment_generation: generation, interval_millis, proof }))
}

/// Which assignments a node has, and how long it waits for newer ones.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct After {
    /// Generation the node has; the call is held until there is a newer one.
    #[serde(default)]
    after: Option<u64>,
    /// Seconds to hold the call, at most 60.
    #[serde(default)]
    wait: u64,
    /// Whether the node is idle and could prove its hardware now.
    #[serde(default)]
    prove: bool,
}

/// Everything that should be on the node; held until the generation passes `after` a renter wants to reach into a job, or
/// the node is challenged.
#[utoipa::path(
    get, path = "/v1/node/assignments", tag = "node", params(After),
    responses((status = 200, body = Assignments), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("session" = []))
)]
async fn assignments(
    State(app): State<App>,
    node: NodeAuth,
    Query(After { after, wait, prove }): Query<After>,
) -> Result<Json<Assignments>, ApiError> {
    let mut changed = app.wake.watch_node(node.node_id);
    let _listening = (prove && app.config.challenges).then(|| app.rounds.listen(node.node_id));
    let challenge = || if prove { app.rounds.pending(node.node_id) } else { None };
    let wait = tokio::time::sleep(Duration::from_secs(wait.min(WAIT_SECONDS_MAX)));
    tokio::pin!(wait);
    loop {
        let is_new = match after {
            Some(after) => app.store.assignment_generation(node.node_id).await? > Generation(after),
            None => true,
        };
        if is_new || !app.relay.pending(node.node_id).is_empty() || challenge().is_some() {
            break;
        }
        tokio::select! {
            () = changed.changed() => {}
            () = &mut wait => break,
            () = app.stopping.cancelled() => break,
        }
    }
    let mut found = app.store.assignments(node.node_id).await?;
    found.sessions = app.relay.pending(node.node_id);
    found.challenge = challenge();
    Ok(Json(found))
}

/// What the node has earned, net of the network's fee.
#[utoipa::path(
    get, path = "/v1/node/earnings", tag = "node",
    responses((status = 200, body = Earnings), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("session" = []))
)]
async fn earnings(State(app): State<App>, node: NodeAuth) -> Result<Json<Earnings>, ApiError> {
    let now = app.clock.now();
    Ok(Json(app.store.earnings(node.node_id, app.config.fee_per_mille, now).await?))
}

/// From where to list receipts.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ReceiptsAfter {
    /// Sequence of the last receipt the caller has.
    #[serde(default)]
    after: u64,
}

/// The node's receipts, oldest first, at most 100.
#[utoipa::path(
    get, path = "/v1/node/receipts", tag = "node", params(ReceiptsAfter),
    responses((status = 200, body = ReceiptList), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("session" = []))
)]
async fn receipts(
    State(app): State<App>,
    node: NodeAuth,
    Query(from): Query<ReceiptsAfter>,
) -> Result<Json<ReceiptList>, ApiError> {
    let receipts = app.store.receipts(node.node_id, Sequence(from.after)).await?;
    Ok(Json(ReceiptList { coordinator_key: public_key(&app.receipt_key), receipts }))
}
