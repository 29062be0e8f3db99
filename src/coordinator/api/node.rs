//! Heartbeats, assignments, earnings and receipts of a node.

use utoipa_axum::router::OpenApiRouter;

use crate::coordinator::App;

/// The routes of this file: `.routes(routes!(handler))` registers a `#[utoipa::path]` handler and documents it.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}
