//! Sessions and the nonces that open them.

use jiff::Timestamp;

use super::{Store, StoreError, read_text, read_time};
use crate::wire::{AccountId, NodeId};

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
}
