//! What an account can see and make: itself, and join tokens.

use std::time::Duration;

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::coordinator::App;
use crate::coordinator::auth::AccountAuth;
use crate::coordinator::problem::{ApiError, Json};
use crate::coordinator::secrets::{SecretKind, sha256};
use crate::wire::account::{AccountView, JoinTokenCreated, NewJoinToken};
use crate::wire::{AccountId, ErrorCode};

const TOKEN_SECONDS_MIN: u64 = 60;
const TOKEN_SECONDS_MAX: u64 = 30 * 24 * 3600;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show_account)).routes(routes!(add_join_token))
}

/// See who one is and what one has.
#[utoipa::path(get, path = "/v1/account", tag = "account", security(("api_key" = [])), responses(
    (status = 200, body = AccountView),
))]
async fn show_account(State(app): State<App>, account: AccountAuth) -> Result<Json<AccountView>, ApiError> {
    account_view(&app, account.account_id).await.map(Json)
}

/// An account with its money.
pub(super) async fn account_view(app: &App, account_id: AccountId) -> Result<AccountView, ApiError> {
    let name = app.store.account_name(account_id).await?;
    let name = name.ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("there is no account {account_id}")))?;
    let money = app.store.balances(account_id).await?;
    Ok(AccountView { account_id, name, balance: money.spendable, escrow: money.escrow, earned: money.earned })
}

/// Make a join token: it enrols one machine as a node of this account.
#[utoipa::path(post, path = "/v1/account/join-tokens", tag = "account", request_body = NewJoinToken,
    security(("api_key" = [])), responses(
    (status = 200, body = JoinTokenCreated),
))]
async fn add_join_token(
    State(app): State<App>,
    account: AccountAuth,
    Json(wish): Json<NewJoinToken>,
) -> Result<Json<JoinTokenCreated>, ApiError> {
    if !(TOKEN_SECONDS_MIN..=TOKEN_SECONDS_MAX).contains(&wish.expires_seconds) {
        let detail = format!(
            "expires_seconds is {}; it must be from {TOKEN_SECONDS_MIN} to {TOKEN_SECONDS_MAX}",
            wish.expires_seconds
        );
        return Err(ApiError::new(ErrorCode::InvalidRequest, detail));
    }
    let now = app.clock.now();
    let expires_at =
        now.checked_add(Duration::from_secs(wish.expires_seconds)).map_err(|error| ApiError::internal(&error))?;
    let join_token = SecretKind::Join.generate();
    app.store.add_join_token(&sha256(join_token.expose()), account.account_id, now, expires_at).await?;
    Ok(Json(JoinTokenCreated { join_token, expires_at }))
}
