//! Joining: `POST /v1/enrollments`, its poll, and the owner's decision.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, State};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::checked_name;
use super::sessions::check_agent_version;
use crate::coordinator::App;
use crate::coordinator::auth::AccountAuth;
use crate::coordinator::problem::{ApiError, Json, Path};
use crate::coordinator::secrets::{SecretKind, sha256};
use crate::coordinator::signatures::verify;
use crate::coordinator::store::enrollments::{Begun, EnrollmentRow, Joiner};
use crate::coordinator::user_code::UserCode;
use crate::wire::enroll::{EnrollDecision, EnrollPoll, EnrollRequest, EnrollStatus, EnrollmentView, PendingEnrollment};
use crate::wire::signed::enroll_message;
use crate::wire::{EnrollmentId, ErrorCode, Secret};

/// How long a device code may be approved.
pub(crate) const CODE_LIFE: Duration = Duration::from_secs(15 * 60);
const POLL_INTERVAL_SECONDS: u32 = 3;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(enroll))
        .routes(routes!(poll))
        .routes(routes!(show_enrollment))
        .routes(routes!(approve))
        .routes(routes!(deny))
}

/// Enrol a machine: at once with a join token, else by a code that its owner approves.
#[utoipa::path(post, path = "/v1/enrollments", tag = "node", request_body = EnrollRequest, responses(
    (status = 200, body = EnrollStatus),
))]
async fn enroll(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Json(request): Json<EnrollRequest>,
) -> Result<Json<EnrollStatus>, ApiError> {
    let name = checked_name(&request.name)?;
    check_agent_version(&app, &request.agent_version)?;
    if VerifyingKey::from_bytes(request.public_key.as_bytes()).is_ok_and(|key| key.is_weak()) {
        return Err(ApiError::new(ErrorCode::BadSignature, "the key is a weak one; make another"));
    }
    verify(&request.public_key, &enroll_message(&request.public_key, name), &request.proof)?;
    let (public_key, agent_version) = (&request.public_key, request.agent_version.as_str());
    let joiner = Joiner { public_key, name, agent_version };
    let now = app.clock.now();
    if let Some(token) = &request.join_token {
        if !SecretKind::Join.claims(token.expose()) {
            let detail = format!("a join token starts with {}", SecretKind::Join.prefix());
            return Err(ApiError::new(ErrorCode::TokenInvalid, detail));
        }
        let node_id = app.store.enroll_by_token(&sha256(token.expose()), joiner, now).await?;
        tracing::info!(%node_id, "a node joined by token");
        return Ok(Json(EnrollStatus::Approved { node_id }));
    }
    // Anybody may ask for a code, so one address must not fill the list of those that wait.
    app.limits.check_guess(peer.ip(), app.clock.steady())?;
    let expires_at = now.checked_add(CODE_LIFE).map_err(|error| ApiError::internal(&error))?;
    let fresh = (EnrollmentId::generate(now), UserCode::generate());
    Ok(Json(match app.store.begin_enrollment(joiner, fresh, now, expires_at).await? {
        Begun::Known(node_id) => EnrollStatus::Approved { node_id },
        Begun::Pending(row) => EnrollStatus::Pending(pending(&app, &row)),
    }))
}

/// Ask whether an enrolment has been decided.
#[utoipa::path(post, path = "/v1/enrollments/{enrollment_id}/poll", tag = "node", request_body = EnrollPoll,
    params(("enrollment_id" = EnrollmentId, Path)), responses(
    (status = 200, body = EnrollStatus),
))]
async fn poll(
    State(app): State<App>,
    Path(id): Path<EnrollmentId>,
    Json(request): Json<EnrollPoll>,
) -> Result<Json<EnrollStatus>, ApiError> {
    let expected = poll_token(&app.receipt_key, id);
    let same = request.poll_token.expose().as_bytes().ct_eq(expected.expose().as_bytes());
    if !bool::from(same) {
        return Err(ApiError::new(ErrorCode::Unauthorized, "the poll token belongs to another enrolment"));
    }
    // Only this coordinator could have made the token, so an enrolment that is gone has expired and was swept up.
    let Some(row) = app.store.enrollment(id).await? else { return Ok(Json(EnrollStatus::Expired)) };
    Ok(Json(match (row.decision, row.node_id) {
        (EnrollDecision::Approved, Some(node_id)) => EnrollStatus::Approved { node_id },
        (EnrollDecision::Denied, _) => EnrollStatus::Denied,
        (EnrollDecision::Pending, _) if app.clock.now() < row.expires_at => EnrollStatus::Pending(pending(&app, &row)),
        (EnrollDecision::Pending | EnrollDecision::Approved | EnrollDecision::Unknown, _) => EnrollStatus::Expired,
    }))
}

/// Look at an enrolment before deciding.
#[utoipa::path(get, path = "/v1/account/enrollments/{user_code}", tag = "account",
    params(("user_code" = String, Path)), security(("api_key" = [])), responses(
    (status = 200, body = EnrollmentView),
))]
async fn show_enrollment(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    _: AccountAuth,
    Path(code): Path<String>,
) -> Result<Json<EnrollmentView>, ApiError> {
    app.limits.check_guess(peer.ip(), app.clock.steady())?;
    let row = app.store.enrollment_by_code(parse_code(&code)?, app.clock.now()).await?;
    Ok(Json(view(&row)))
}

/// Let the machine in, as a node of this account.
#[utoipa::path(post, path = "/v1/account/enrollments/{user_code}/approve", tag = "account",
    params(("user_code" = String, Path)), security(("api_key" = [])), responses(
    (status = 200, body = EnrollmentView),
))]
async fn approve(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    account: AccountAuth,
    Path(code): Path<String>,
) -> Result<Json<EnrollmentView>, ApiError> {
    decide(&app, peer, account, &code, true).await.map(|row| Json(view(&row)))
}

/// Keep the machine out.
#[utoipa::path(post, path = "/v1/account/enrollments/{user_code}/deny", tag = "account",
    params(("user_code" = String, Path)), security(("api_key" = [])), responses(
    (status = 200, body = EnrollmentView),
))]
async fn deny(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    account: AccountAuth,
    Path(code): Path<String>,
) -> Result<Json<EnrollmentView>, ApiError> {
    decide(&app, peer, account, &code, false).await.map(|row| Json(view(&row)))
}

/// Writes down an owner's decision.
pub(super) async fn decide(
    app: &App,
    peer: SocketAddr,
    account: AccountAuth,
    code: &str,
    approve: bool,
) -> Result<EnrollmentRow, ApiError> {
    app.limits.check_guess(peer.ip(), app.clock.steady())?;
    let code = parse_code(code)?;
    let row = app.store.decide_enrollment(code, account.account_id, approve, app.clock.now()).await?;
    tracing::info!(enrollment_id = %row.enrollment_id, decision = ?row.decision, "an enrolment is decided");
    Ok(row)
}

/// Reads a code as a person typed it.
pub(super) fn parse_code(code: &str) -> Result<UserCode, ApiError> {
    code.parse().map_err(|error| ApiError::new(ErrorCode::InvalidRequest, format!("{error}")))
}

fn view(row: &EnrollmentRow) -> EnrollmentView {
    EnrollmentView {
        user_code: row.user_code.to_string(),
        node_name: row.name.clone(),
        agent_version: row.agent_version.clone(),
        expires_at: row.expires_at,
        decision: row.decision,
        node_id: row.node_id,
    }
}

fn pending(app: &App, row: &EnrollmentRow) -> PendingEnrollment {
    let user_code = row.user_code.to_string();
    let mut page = app.public_url.clone();
    page.set_path("/activate");
    page.set_query(None);
    let verification_url = page.to_string();
    page.set_query(Some(&format!("code={user_code}")));
    PendingEnrollment {
        enrollment_id: row.enrollment_id,
        user_code,
        verification_url,
        verification_url_complete: page.to_string(),
        poll_token: poll_token(&app.receipt_key, row.enrollment_id),
        expires_at: row.expires_at,
        poll_interval_seconds: POLL_INTERVAL_SECONDS,
    }
}

/// The poll token of an enrolment. Derived, not stored: a repeated request gets the same one, and the database holds none.
fn poll_token(key: &SigningKey, id: EnrollmentId) -> Secret {
    let mut message = b"fizz/v1/poll-token".to_vec();
    message.extend_from_slice(id.as_uuid().as_bytes());
    SecretKind::Poll.with_bytes(&Sha256::digest(key.sign(&message).to_bytes()).into())
}
