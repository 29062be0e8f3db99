//! For operators and their tools: health, readiness, metrics, the interface's own description.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::coordinator::App;
use crate::coordinator::auth::AdminAuth;
use crate::coordinator::metrics::Gauge;
use crate::coordinator::problem::{ApiError, Json};
use crate::coordinator::store::int;
use crate::wire::{ErrorCode, Problem};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
        .routes(routes!(openapi))
}

/// Whether the process answers at all.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, body = Value)))]
async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

/// Whether it can serve: the database answers, and it is not stopping.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses(
    (status = 200, body = Value),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
async fn readyz(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    if app.stopping.is_cancelled() {
        return Err(ApiError::new(ErrorCode::Unavailable, "it is stopping").retry_after(5));
    }
    app.store.ping().await.map_err(|error| {
        tracing::warn!(%error, "the database does not answer");
        ApiError::new(ErrorCode::Unavailable, "its database does not answer").retry_after(5)
    })?;
    Ok(Json(json!({ "status": "ready" })))
}

/// Numbers in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "operations", security(("admin_token" = [])), responses(
    (status = 200, body = String, content_type = "text/plain"),
))]
async fn metrics(State(app): State<App>, _: AdminAuth) -> Result<impl IntoResponse, ApiError> {
    let counts = app.store.counts().await?;
    let online = app.liveness.count_online(app.config.lease_grace(), app.clock.steady());
    let single = |name, help, value| Gauge { name, help, values: vec![(String::new(), value)] };
    let jobs = counts.jobs.into_iter().map(|(state, jobs)| (format!("state=\"{state}\""), jobs)).collect();
    let gauges = [
        single("fizz_nodes", "Nodes enrolled.", counts.nodes),
        single("fizz_nodes_online", "Nodes heard from within their grace.", i64::try_from(online).unwrap_or(i64::MAX)),
        Gauge { name: "fizz_jobs", help: "Unfinished jobs by state.", values: jobs },
        single("fizz_leases_live", "Leases that are not over.", counts.leases_live),
        single("fizz_ledger_sum_microusd", "Sum over all ledger accounts; always zero.", counts.ledger_sum),
        single("fizz_database_bytes", "Size of the database with its log.", int(app.store.size_bytes())),
    ];
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render(&gauges)))
}

/// This interface as an OpenAPI 3.1 document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "operations", responses((status = 200, body = Value)))]
async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], super::openapi_json())
}
