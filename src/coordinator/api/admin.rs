//! The operator's calls: accounts, deposits, nodes, the ledger.

use axum::extract::State;
use axum::http::HeaderMap;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::account::account_view;
use super::checked_name;
use crate::coordinator::App;
use crate::coordinator::auth::AdminAuth;
use crate::coordinator::problem::{ApiError, Json, Path};
use crate::coordinator::secrets::{SecretKind, sha256};
use crate::coordinator::store::nodes::NodeRow;
use crate::wire::account::{AccountCreated, AccountView, Deposit, LedgerView, NewAccount};
use crate::wire::node::{NodeList, NodeView};
use crate::wire::{AccountId, ErrorCode, IDEMPOTENCY_HEADER};

const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(add_account))
        .routes(routes!(deposit))
        .routes(routes!(nodes))
        .routes(routes!(ledger))
}

/// Make an account. Its key is shown only in this answer.
#[utoipa::path(post, path = "/v1/admin/accounts", tag = "admin", request_body = NewAccount,
    security(("admin_token" = [])), responses(
    (status = 200, body = AccountCreated),
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

/// Put money on an account. With the same `Idempotency-Key` it is put there once, however often it is sent.
#[utoipa::path(post, path = "/v1/admin/accounts/{account_id}/deposits", tag = "admin", request_body = Deposit,
    params(
        ("account_id" = AccountId, Path),
        ("idempotency-key" = String, Header, description = "1 to 128 characters, chosen by the caller"),
    ),
    security(("admin_token" = [])), responses(
    (status = 200, body = AccountView),
))]
async fn deposit(
    State(app): State<App>,
    _: AdminAuth,
    Path(account_id): Path<AccountId>,
    headers: HeaderMap,
    Json(wish): Json<Deposit>,
) -> Result<Json<AccountView>, ApiError> {
    let key = headers.get(IDEMPOTENCY_HEADER).and_then(|value| value.to_str().ok()).map(str::trim);
    let key = key.filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())).ok_or_else(|| {
        let detail =
            format!("a deposit needs an {IDEMPOTENCY_HEADER} header of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
        ApiError::new(ErrorCode::InvalidRequest, detail)
    })?;
    app.store.deposit(account_id, wish.amount, key, app.clock.now()).await?;
    tracing::info!(%account_id, amount = %wish.amount, "a deposit is made");
    account_view(&app, account_id).await.map(Json)
}

/// List every node.
#[utoipa::path(get, path = "/v1/admin/nodes", tag = "admin", security(("admin_token" = [])), responses(
    (status = 200, body = NodeList),
))]
async fn nodes(State(app): State<App>, _: AdminAuth) -> Result<Json<NodeList>, ApiError> {
    let rows = app.store.nodes(app.clock.now()).await?;
    Ok(Json(NodeList { nodes: rows.into_iter().map(|row| node_view(&app, row)).collect() }))
}

/// The newest word on a node: its heartbeat in memory, else the one last written down.
fn node_view(app: &App, row: NodeRow) -> NodeView {
    let heard = app.liveness.seen(row.node_id);
    let (state, seen_at) = heard.map_or((row.state, row.seen_at), |heard| (heard.state, Some(heard.at)));
    NodeView {
        node_id: row.node_id,
        name: row.name,
        state,
        online: app.liveness.is_online(row.node_id, app.config.lease_grace(), app.clock.steady()),
        seen_at,
        score: row.score,
        offer: row.offer,
        leases: row.leases,
        proof: app.config.challenges.then_some(row.proof),
    }
}

/// Every ledger account's balance, and the proof that they add up.
#[utoipa::path(get, path = "/v1/admin/ledger", tag = "admin", security(("admin_token" = [])), responses(
    (status = 200, body = LedgerView),
))]
async fn ledger(State(app): State<App>, _: AdminAuth) -> Result<Json<LedgerView>, ApiError> {
    Ok(Json(app.store.ledger_view().await?))
}
