//! Heartbeats, written down in batches: for people, and for what was known before a restart.

use super::{Store, StoreError, int, millis, word};
use crate::coordinator::liveness::Seen;

impl Store {
    /// Stores what was last heard of some nodes, all in one transaction.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn flush_heartbeats(&self, seen: &[Seen]) -> Result<(), StoreError> {
        if seen.is_empty() {
            return Ok(());
        }
        let mut tx = self.write().await?;
        for node in seen {
            sqlx::query(
                "UPDATE nodes SET state = ?, state_reason = ?, boot_id = ?, heartbeat_sequence = ?, seen_at = ? \
                 WHERE node_id = ?",
            )
            .bind(word(&node.state))
            .bind(&node.reason)
            .bind(node.boot_id.to_string())
            .bind(int(node.sequence.0))
            .bind(millis(node.at))
            .bind(node.node_id.to_string())
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await
    }
}
