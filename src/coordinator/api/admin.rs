//! The operator's calls: accounts, deposits, nodes, the ledger.

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::checked_name;
use crate::coordinator::App;
use crate::coordinator::auth::AdminAuth;
use crate::coordinator::problem::{ApiError, Json};
use crate::coordinator::secrets::{SecretKind, sha256};
use crate::wire::account::{AccountCreated, NewAccount};
use crate::wire::{AccountId, Problem};

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(add_account))
}

/// Make an account. Its key is shown only in this answer.
#[utoipa::path(post, path = "/v1/admin/accounts", tag = "admin", request_body = NewAccount,
    security(("admin_token" = [])), responses(
    (status = 200, body = AccountCreated),
    (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
async fn add_account(
    State(app): State<App>,
    _: AdminAuth,
    Json(wish): Json<NewAccount>,
) -> Result<Json<AccountCreated>, ApiError> {
    let name = checked_name(&wish.name)?;
    let now = app.clock.now();
    let (account_id, api_key) = (AccountId::generate(now), SecretKind::ApiKey.generate());
    app.store.add_account(account_id, name, &sha256(api_key.expose()), now).await?;
    tracing::info!(%account_id, "an account is made");
    Ok(Json(AccountCreated { account_id, api_key }))
}
