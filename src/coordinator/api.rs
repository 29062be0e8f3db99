//! The HTTP interface: one file per family of calls, put together here.
//!
//! Invariant: a route exists only together with its entry in the OpenAPI document, because `routes!` makes both.

mod account;
mod activate;
mod admin;
mod challenges;
mod enroll;
mod jobs;
mod leases;
mod market;
mod node;
mod ops;
mod reach;
mod reports;
mod sessions;

use std::sync::LazyLock;

use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::App;
use super::openapi::finish;
use super::problem::ApiError;
use crate::wire::ErrorCode;

const NAME_CHARS_MAX: usize = 63;

/// Every route of the protocol, without the layers around it.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(enroll::routes())
        .merge(sessions::routes())
        .merge(reports::routes())
        .merge(node::routes())
        .merge(leases::routes())
        .merge(jobs::routes())
        .merge(market::routes())
        .merge(account::routes())
        .merge(activate::routes())
        .merge(admin::routes())
        .merge(reach::routes())
        .merge(challenges::routes())
        .merge(ops::routes())
}

/// The OpenAPI document of every route.
pub(crate) fn openapi() -> OpenApi {
    finish(routes().into_openapi())
}

/// The same as text, as it is served and as it is checked in.
pub(crate) fn openapi_json() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut text = openapi().to_pretty_json().unwrap_or_default();
        text.push('\n');
        text
    });
    &TEXT
}

/// A name for people: 1 to 63 characters, none of them a control character.
fn checked_name(name: &str) -> Result<&str, ApiError> {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.chars().count());
    if fits && !name.trim().is_empty() && !name.chars().any(char::is_control) {
        return Ok(name);
    }
    let detail = format!("a name has 1 to {NAME_CHARS_MAX} characters and no control characters");
    Err(ApiError::new(ErrorCode::InvalidRequest, detail))
}
