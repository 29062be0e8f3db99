//! The HTTP interface: one file per family of calls, put together here.

mod jobs;
mod leases;
mod market;
mod node;

use axum::Router;

use super::App;

/// Every route of the protocol, without the layers around it.
pub(crate) fn routes() -> Router<App> {
    Router::new().merge(jobs::routes()).merge(leases::routes()).merge(market::routes()).merge(node::routes())
}
