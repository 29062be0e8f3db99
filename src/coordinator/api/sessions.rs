//! Sessions: a nonce, signed, becomes a token that lives an hour.

use std::time::Duration;

use axum::extract::State;
use semver::Version;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::coordinator::App;
use crate::coordinator::problem::{ApiError, Json};
use crate::coordinator::secrets::{SecretKind, random_bytes, sha256};
use crate::coordinator::signatures::verify;
use crate::coordinator::store::sessions::NewSession;
use crate::wire::enroll::{NonceGrant, NonceRequest, SessionGrant, SessionRequest};
use crate::wire::signed::session_message;
use crate::wire::{ErrorCode, Nonce};

const NONCE_LIFE: Duration = Duration::from_secs(120);
const SESSION_LIFE: Duration = Duration::from_secs(3600);

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(grant_nonce)).routes(routes!(open_session))
}

/// Get a number to sign.
#[utoipa::path(post, path = "/v1/sessions/nonce", tag = "node", request_body = NonceRequest, responses(
    (status = 200, body = NonceGrant),
))]
async fn grant_nonce(State(app): State<App>, Json(request): Json<NonceRequest>) -> Result<Json<NonceGrant>, ApiError> {
    let server_time = app.clock.now();
    let expires_at = server_time.checked_add(NONCE_LIFE).map_err(|error| ApiError::internal(&error))?;
    let nonce = Nonce::from_bytes(random_bytes());
    app.store.add_nonce(request.node_id, &nonce, expires_at).await?;
    Ok(Json(NonceGrant { nonce, expires_at, server_time }))
}

/// Open a session with a signed nonce.
#[utoipa::path(post, path = "/v1/sessions", tag = "node", request_body = SessionRequest, responses(
    (status = 200, body = SessionGrant),
))]
async fn open_session(
    State(app): State<App>,
    Json(request): Json<SessionRequest>,
) -> Result<Json<SessionGrant>, ApiError> {
    let SessionRequest { node_id, nonce, agent_version, signature } = &request;
    check_agent_version(&app, agent_version)?;
    let key = app.store.node_key(*node_id).await?;
    let key = key.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "the coordinator does not know this node"))?;
    verify(&key, &session_message(*node_id, nonce, agent_version), signature)?;
    let token = SecretKind::Session.generate();
    let (token_sha256, now) = (sha256(token.expose()), app.clock.now());
    let session =
        NewSession { node_id: *node_id, nonce, token_sha256: &token_sha256, agent_version, now, life: SESSION_LIFE };
    let expires_at = app.store.open_session(session).await?;
    Ok(Json(SessionGrant { token, expires_at, server_time: now }))
}

/// Refuses versions that are none, and versions older than the coordinator supports.
pub(super) fn check_agent_version(app: &App, agent_version: &str) -> Result<(), ApiError> {
    let version = Version::parse(agent_version)
        .ok()
        .filter(|_| agent_version.len() <= 64)
        .ok_or_else(|| ApiError::new(ErrorCode::InvalidRequest, "agent_version is no version like 0.1.0"))?;
    match &app.config.min_agent_version {
        Some(min) if version < *min => {
            let detail = format!("it is {version} and must be at least {min}");
            Err(ApiError::new(ErrorCode::AgentTooOld, detail))
        }
        Some(_) | None => Ok(()),
    }
}
