//! What can be rented now.

use axum::Router;

use crate::coordinator::App;

/// The routes of this file.
pub(super) fn routes() -> Router<App> {
    Router::new()
}
