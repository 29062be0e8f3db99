//! What can be rented now.

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::coordinator::App;
use crate::coordinator::auth::AccountAuth;
use crate::coordinator::problem::{ApiError, Json};
use crate::wire::Problem;
use crate::wire::job::MarketView;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(market))
}

/// Nodes online, their lowest price, and the jobs there are.
#[utoipa::path(
    get, path = "/v1/market", tag = "renter",
    responses((status = 200, body = MarketView), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("api_key" = []))
)]
async fn market(State(app): State<App>, _account: AccountAuth) -> Result<Json<MarketView>, ApiError> {
    let (jobs_queued, jobs_running) = app.store.count_open_jobs().await?;
    let (grace, now) = (app.config.lease_grace(), app.clock.steady());
    let nodes = app.store.offering_nodes(app.clock.now()).await?;
    let online = nodes.iter().filter(|n| app.liveness.is_online(n.node_id, grace, now));
    Ok(Json(MarketView {
        nodes_online: u32::try_from(app.liveness.count_online(grace, now)).unwrap_or(u32::MAX),
        jobs_queued,
        jobs_running,
        price_min: online.map(|n| n.offer.price_min).min(),
    }))
}
