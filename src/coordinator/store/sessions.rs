//! Sessions and the nonces that open them.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::Row as _;

use super::{Store, StoreError, millis, read_text, read_time};
use crate::wire::{AccountId, ErrorCode, NodeId, Nonce};

/// Nonces that one node may hold unused; the oldest go first. Many, because anybody who knows a node's identifier can ask
/// for nonces in its name, and must not push out the one that the node is about to use.
const NONCES_PER_NODE_MAX: i64 = 4096;
/// Sessions that one node may hold; the oldest go first.
const SESSIONS_PER_NODE_MAX: i64 = 8;

/// A session as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRow {
    /// Whose it is.
    pub node_id: NodeId,
    /// The node's owner.
    pub account_id: AccountId,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A session about to be opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewSession<'a> {
    /// For whom.
    pub(crate) node_id: NodeId,
    /// The nonce it was signed with; taken in the same transaction.
    pub(crate) nonce: &'a Nonce,
    /// The token it will be known by.
    pub(crate) token_sha256: &'a [u8; 32],
    /// Version of the agent.
    pub(crate) agent_version: &'a str,
    /// Now.
    pub(crate) now: Timestamp,
    /// How long it lives.
    pub(crate) life: Duration,
}

impl Store {
    /// The session of a token, expired or not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session(&self, token_sha256: &[u8; 32]) -> Result<Option<SessionRow>, StoreError> {
        let row = sqlx::query(
            "SELECT s.node_id, n.account_id, s.expires_at FROM sessions s JOIN nodes n USING (node_id) \
             WHERE s.token_sha256 = ?",
        )
        .bind(&token_sha256[..])
        .fetch_optional(self.pool())
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(SessionRow {
            node_id: read_text(&row, "node_id")?,
            account_id: read_text(&row, "account_id")?,
            expires_at: read_time(&row, "expires_at")?,
        }))
    }

    /// Gives out a nonce to a known node.
    pub(crate) async fn add_nonce(
        &self,
        node_id: NodeId,
        nonce: &Nonce,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let known = sqlx::query("SELECT 1 FROM nodes WHERE node_id = ?").bind(node_id.to_string());
        if known.fetch_optional(&mut *tx).await?.is_none() {
            let detail = "the coordinator does not know this node; enrol it: `fizz enroll`";
            return Err(StoreError::refused(ErrorCode::NotFound, detail));
        }
        sqlx::query(
            "DELETE FROM session_nonces WHERE node_id = ?1 AND nonce NOT IN (SELECT nonce FROM session_nonces \
             WHERE node_id = ?1 ORDER BY expires_at DESC LIMIT ?2)",
        )
        .bind(node_id.to_string())
        .bind(NONCES_PER_NODE_MAX - 1)
        .execute(&mut *tx)
        .await?;
        sqlx::query("INSERT INTO session_nonces (nonce, node_id, expires_at) VALUES (?, ?, ?)")
            .bind(&nonce.as_bytes()[..])
            .bind(node_id.to_string())
            .bind(millis(expires_at))
            .execute(&mut *tx)
            .await?;
        tx.commit().await
    }

    /// Takes the nonce and opens the session; a nonce that is unknown, taken or too old opens none.
    pub(crate) async fn open_session(&self, session: NewSession<'_>) -> Result<Timestamp, StoreError> {
        let NewSession { node_id, nonce, token_sha256, agent_version, now, life } = session;
        let mut tx = self.write().await?;
        let taken = sqlx::query("DELETE FROM session_nonces WHERE nonce = ? AND node_id = ? RETURNING expires_at")
            .bind(&nonce.as_bytes()[..])
            .bind(node_id.to_string())
            .fetch_optional(&mut *tx)
            .await?;
        let good_until: Option<i64> = taken.map(|row| row.try_get("expires_at")).transpose()?;
        if good_until.is_none_or(|until| until <= millis(now)) {
            return Err(StoreError::refused(ErrorCode::NonceRejected, ""));
        }
        let expires_at = now.checked_add(life).unwrap_or(Timestamp::MAX);
        sqlx::query("INSERT INTO sessions (token_sha256, node_id, created_at, expires_at) VALUES (?, ?, ?, ?)")
            .bind(&token_sha256[..])
            .bind(node_id.to_string())
            .bind(millis(now))
            .bind(millis(expires_at))
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "DELETE FROM sessions WHERE node_id = ?1 AND token_sha256 NOT IN (SELECT token_sha256 FROM sessions \
             WHERE node_id = ?1 ORDER BY created_at DESC, token_sha256 = ?3 DESC LIMIT ?2)",
        )
        .bind(node_id.to_string())
        .bind(SESSIONS_PER_NODE_MAX)
        .bind(&token_sha256[..])
        .execute(&mut *tx)
        .await?;
        sqlx::query("UPDATE nodes SET agent_version = ? WHERE node_id = ?")
            .bind(agent_version)
            .bind(node_id.to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(expires_at)
    }

    /// Deletes what has expired: sessions, nonces, and enrolments and unused join tokens a day later.
    pub(crate) async fn delete_expired(&self, now: Timestamp) -> Result<(), StoreError> {
        let day_ago = millis(now) - 24 * 3_600_000;
        let mut tx = self.write().await?;
        for (statement, before) in [
            // An expired session is kept for a day, so that its node is told "expired" and not "unknown".
            ("DELETE FROM sessions WHERE expires_at < ?", day_ago),
            ("DELETE FROM session_nonces WHERE expires_at < ?", millis(now)),
            ("DELETE FROM report_nonces WHERE expires_at < ?", millis(now)),
            ("DELETE FROM enrollments WHERE expires_at < ?", day_ago),
            ("DELETE FROM join_tokens WHERE used_by IS NULL AND expires_at < ?", day_ago),
        ] {
            sqlx::query(statement).bind(before).execute(&mut *tx).await?;
        }
        tx.commit().await
    }
}
