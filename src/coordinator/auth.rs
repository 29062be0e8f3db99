//! Who is calling: extractors that turn a bearer token into a node, an account or the operator.
//!
//! Invariants
//! - Only SHA-256 of a token is looked up or compared; tokens are never logged.
//! - Each kind of token opens only its own kind of door: the prefix is checked before the database is asked.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use subtle::ConstantTimeEq as _;

use super::App;
use super::problem::ApiError;
use super::secrets::{SecretKind, sha256};
use crate::wire::{AccountId, ErrorCode, NodeId};

/// A node with a live session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeAuth {
    /// The node.
    pub node_id: NodeId,
    /// Its owner.
    pub account_id: AccountId,
}

/// An account: a renter, an owner, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountAuth {
    /// The account.
    pub account_id: AccountId,
}

/// The operator of this coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminAuth;

impl FromRequestParts<App> for NodeAuth {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let token = bearer(parts, SecretKind::Session, "a node's session token")?;
        let session = app.store.session(&sha256(token)).await?;
        let Some(session) = session else {
            return Err(ApiError::new(ErrorCode::SessionExpired, "the session is not known here"));
        };
        if session.expires_at <= app.clock.now() {
            return Err(ApiError::new(ErrorCode::SessionExpired, ""));
        }
        Ok(Self { node_id: session.node_id, account_id: session.account_id })
    }
}

impl FromRequestParts<App> for AccountAuth {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let token = bearer(parts, SecretKind::ApiKey, "an account's API key")?;
        match app.store.account_by_key(&sha256(token)).await? {
            Some(account_id) => Ok(Self { account_id }),
            None => Err(ApiError::new(ErrorCode::Unauthorized, "no account has this API key")),
        }
    }
}

impl FromRequestParts<App> for AdminAuth {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let token = bearer(parts, SecretKind::Admin, "the operator's token")?;
        if bool::from(sha256(token).ct_eq(&app.admin_token_sha256)) {
            Ok(Self)
        } else {
            Err(ApiError::new(ErrorCode::Unauthorized, "the operator's token is another one"))
        }
    }
}

fn bearer<'a>(parts: &'a Parts, kind: SecretKind, wanted: &str) -> Result<&'a str, ApiError> {
    let header = parts.headers.get(AUTHORIZATION);
    let token = header.and_then(|value| value.to_str().ok()).and_then(bearer_token);
    match token {
        Some(token) if kind.claims(token) => Ok(token),
        Some(_) => {
            Err(ApiError::new(ErrorCode::Unauthorized, format!("this call takes {wanted} ({}…)", kind.prefix())))
        }
        None => Err(ApiError::new(
            ErrorCode::Unauthorized,
            format!("this call takes {wanted} as 'Authorization: Bearer {}…'", kind.prefix()),
        )),
    }
}

fn bearer_token(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
