//! Counts for operators.

use sqlx::Row as _;

use super::{Store, StoreError};

/// What the database holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Nodes enrolled.
    pub(crate) nodes: i64,
    /// Unfinished jobs, by state.
    pub(crate) jobs: Vec<(String, i64)>,
    /// Leases that are not over.
    pub(crate) leases_live: i64,
    /// Sum over all ledger accounts, in micro-USD. Always zero.
    pub(crate) ledger_sum: i64,
}

impl Store {
    /// Counts what the metrics show, at one moment.
    pub(crate) async fn counts(&self) -> Result<Counts, StoreError> {
        let mut tx = self.pool().begin().await?;
        let nodes = sqlx::query_scalar("SELECT count(*) FROM nodes").fetch_one(&mut *tx).await?;
        let rows = sqlx::query("SELECT state, count(*) AS jobs FROM jobs WHERE ended_at IS NULL GROUP BY state")
            .fetch_all(&mut *tx)
            .await?;
        let jobs = rows.iter().map(|row| Ok((row.try_get("state")?, row.try_get("jobs")?)));
        let jobs = jobs.collect::<Result<_, sqlx::Error>>()?;
        let leases_live =
            sqlx::query_scalar("SELECT count(*) FROM leases WHERE ended_at IS NULL").fetch_one(&mut *tx).await?;
        let ledger_sum =
            sqlx::query_scalar("SELECT COALESCE(SUM(balance), 0) FROM ledger_balances").fetch_one(&mut *tx).await?;
        Ok(Counts { nodes, jobs, leases_live, ledger_sum })
    }
}
