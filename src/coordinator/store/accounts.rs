//! Accounts and their API keys.

use jiff::Timestamp;
use sqlx::Row as _;

use super::{Store, StoreError, millis, read_text};
use crate::wire::AccountId;

impl Store {
    /// Whose API key this is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn account_by_key(&self, key_sha256: &[u8; 32]) -> Result<Option<AccountId>, StoreError> {
        let row = sqlx::query("SELECT account_id FROM accounts WHERE api_key_sha256 = ?")
            .bind(&key_sha256[..])
            .fetch_optional(self.pool())
            .await?;
        row.map(|row| read_text(&row, "account_id")).transpose()
    }

    /// Adds an account.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn add_account(
        &self,
        account_id: AccountId,
        name: &str,
        key_sha256: &[u8; 32],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("INSERT INTO accounts (account_id, name, api_key_sha256, created_at) VALUES (?, ?, ?, ?)")
            .bind(account_id.to_string())
            .bind(name)
            .bind(&key_sha256[..])
            .bind(millis(now))
            .execute(&mut *tx)
            .await?;
        tx.commit().await
    }

    /// An account's name; `None` when there is no such account.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn account_name(&self, account_id: AccountId) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT name FROM accounts WHERE account_id = ?")
            .bind(account_id.to_string())
            .fetch_optional(self.pool())
            .await?;
        Ok(row.map(|row| row.try_get("name")).transpose()?)
    }
}
