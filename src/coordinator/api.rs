//! The HTTP interface: one file per family of calls, put together here.
//!
//! Invariant: a route exists only together with its entry in the OpenAPI document, because `routes!` makes both.

mod jobs;
mod leases;
mod market;
mod node;

use utoipa_axum::router::OpenApiRouter;

use super::App;

/// Every route of the protocol, without the layers around it.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(jobs::routes()).merge(leases::routes()).merge(market::routes()).merge(node::routes())
}
