//! Nodes: who they are and what they said about themselves.

use super::{Store, StoreError};
use crate::wire::{Generation, NodeId};

impl Store {
    /// Version of what the node should run.
    ///
    /// # Errors
    /// When the database fails or there is no such node.
    pub async fn assignment_generation(&self, node_id: NodeId) -> Result<Generation, StoreError> {
        let generation: i64 = sqlx::query_scalar("SELECT assignment_generation FROM nodes WHERE node_id = ?")
            .bind(node_id.to_string())
            .fetch_one(self.pool())
            .await?;
        u64::try_from(generation).map(Generation).map_err(|_| StoreError::BadRow { column: "assignment_generation" })
    }
}
