//! Challenges, and how far nodes are believed.

use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{Store, StoreError, int, millis, read_int, read_json_opt, read_text, read_time_opt};
use crate::coordinator::verify::drive::HOUR;
use crate::coordinator::verify::rounds::{Ended, NewChallenge};
use crate::coordinator::verify::trust::{Outcome, Trust};
use crate::wire::bench::BenchmarkReport;
use crate::wire::challenge::Proof;
use crate::wire::{AccountId, NodeId, PublicKey};

/// Columns that [`read_proof`] reads.
macro_rules! proof_columns {
    () => {
        "fingerprint, proof_fingerprint, proof_passed_at, proof_doubt, proof_missed, proof_why"
    };
}
pub(super) use proof_columns;

/// A node that could be challenged.
#[derive(Debug, Clone)]
pub(crate) struct ProvableNode {
    pub(crate) node_id: NodeId,
    pub(crate) account_id: AccountId,
    pub(crate) key: PublicKey,
    pub(crate) report: BenchmarkReport,
    /// Whether its time has come.
    pub(crate) due: bool,
    /// Whether it has a lease.
    pub(crate) busy: bool,
    /// Milliseconds it has computed for challenges within the last hour.
    pub(crate) spent_millis: u64,
}

impl Store {
    /// The measured nodes of every owner who has one that is due.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn provable_nodes(&self, now: Timestamp) -> Result<Vec<ProvableNode>, StoreError> {
        let rows = sqlx::query(
            "SELECT node_id, account_id, public_key, benchmark, proof_due_at <= ?1 AS due, \
             EXISTS (SELECT 1 FROM leases l WHERE l.node_id = n.node_id AND l.ended_at IS NULL) AS busy, \
             (SELECT coalesce(sum(work_millis), 0) FROM challenges c WHERE c.node_id = n.node_id AND c.made_at > ?2) AS spent \
             FROM nodes n WHERE benchmark IS NOT NULL AND account_id IN \
             (SELECT account_id FROM nodes WHERE proof_due_at <= ?1 AND benchmark IS NOT NULL) ORDER BY node_id",
        )
        .bind(millis(now))
        .bind(millis(now).saturating_sub(i64::try_from(HOUR.as_millis()).unwrap_or(0)))
        .fetch_all(self.pool())
        .await?;
        rows.iter().map(provable_node).collect()
    }

    /// Writes down challenges that begin.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn add_challenges(&self, challenges: &[NewChallenge], now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        for challenge in challenges {
            sqlx::query("INSERT INTO challenges (challenge_id, node_id, made_at, parts) VALUES (?, ?, ?, ?)")
                .bind(challenge.challenge_id.to_string())
                .bind(challenge.node_id.to_string())
                .bind(millis(now))
                .bind(serde_json::to_string(&challenge.parts).unwrap_or_default())
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await
    }

    /// Gives up what ran when the coordinator stopped.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn void_challenges(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("UPDATE challenges SET outcome = 'void', ended_at = ? WHERE ended_at IS NULL")
            .bind(millis(now))
            .execute(&mut *tx)
            .await?;
        tx.commit().await
    }

    /// Writes down how a challenge ended, what that makes of its node, and when the next one comes. A second end changes
    /// nothing. `random` is anywhere in 0..1.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn end_challenge(&self, ended: &Ended, random: f64, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let (word, why) = match &ended.outcome {
            Outcome::Passed => ("passed", None),
            Outcome::Missed { why } => ("missed", Some(why.as_str())),
            Outcome::Unheard { .. } => ("unheard", None),
            Outcome::Void => ("void", None),
        };
        let changed = sqlx::query(
            "UPDATE challenges SET outcome = ?, why = ?, work_millis = ?, ended_at = ? WHERE challenge_id = ? AND ended_at IS NULL",
        )
        .bind(word)
        .bind(why)
        .bind(int(ended.work_millis))
        .bind(millis(now))
        .bind(ended.challenge_id.to_string())
        .execute(&mut *tx)
        .await?;
        if changed.rows_affected() == 0 {
            return Ok(());
        }
        let trust = trust(&mut tx, ended.node_id).await?.after(&ended.outcome, now);
        let due = now.checked_add(trust.rest(&ended.outcome, random)).unwrap_or(now);
        sqlx::query(
            "UPDATE nodes SET proof_passed_at = ?1, proof_doubt = ?2, proof_missed = ?3, proof_why = ?4, proof_due_at = ?5, \
             proof_fingerprint = CASE WHEN ?6 THEN fingerprint ELSE proof_fingerprint END WHERE node_id = ?7",
        )
        .bind(trust.passed_at.map(millis))
        .bind(i64::from(trust.doubt))
        .bind(i64::from(trust.missed))
        .bind(&trust.why)
        .bind(millis(due))
        .bind(ended.outcome == Outcome::Passed)
        .bind(ended.node_id.to_string())
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }

    /// The owner of a node asks for a challenge.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn ask_challenge(&self, node_id: NodeId, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("UPDATE nodes SET proof_due_at = min(proof_due_at, ?) WHERE node_id = ?")
            .bind(millis(now))
            .bind(node_id.to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await
    }

    /// How far a node is believed.
    ///
    /// # Errors
    /// When the database fails or there is no such node.
    pub(crate) async fn proof(&self, node_id: NodeId, now: Timestamp) -> Result<Proof, StoreError> {
        let row = sqlx::query(concat!("SELECT ", proof_columns!(), " FROM nodes WHERE node_id = ?"))
            .bind(node_id.to_string())
            .fetch_one(self.pool())
            .await?;
        read_proof(&row, now)
    }
}

async fn trust(db: &mut SqliteConnection, node_id: NodeId) -> Result<Trust, StoreError> {
    let row = sqlx::query(concat!("SELECT ", proof_columns!(), " FROM nodes WHERE node_id = ?"))
        .bind(node_id.to_string())
        .fetch_one(db)
        .await?;
    read_trust(&row)
}

fn read_trust(row: &SqliteRow) -> Result<Trust, StoreError> {
    Ok(Trust {
        passed_at: read_time_opt(row, "proof_passed_at")?,
        doubt: read_int(row, "proof_doubt")?,
        missed: read_int(row, "proof_missed")?,
        why: row.try_get("proof_why")?,
    })
}

/// How far the node of this row is believed.
pub(super) fn read_proof(row: &SqliteRow, now: Timestamp) -> Result<Proof, StoreError> {
    let hardware: (Option<String>, Option<String>) = (row.try_get("fingerprint")?, row.try_get("proof_fingerprint")?);
    Ok(read_trust(row)?.view(hardware.0 == hardware.1, now))
}

fn provable_node(row: &SqliteRow) -> Result<ProvableNode, StoreError> {
    let report = read_json_opt(row, "benchmark")?.ok_or(StoreError::BadRow { column: "benchmark" })?;
    Ok(ProvableNode {
        node_id: read_text(row, "node_id")?,
        account_id: read_text(row, "account_id")?,
        key: super::nodes::read_key(row, "public_key")?,
        report,
        due: row.try_get("due")?,
        busy: row.try_get("busy")?,
        spent_millis: read_int(row, "spent")?,
    })
}
