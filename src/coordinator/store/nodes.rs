//! Nodes: who they are and what they said about themselves.

use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::challenges::{proof_columns, read_proof};
use super::{Store, StoreError, int, millis, read_int, read_int_opt, read_text, read_time_opt, read_word};
use crate::coordinator::signatures::VerifiedReport;
use crate::wire::bench::BenchmarkReport;
use crate::wire::challenge::Proof;
use crate::wire::job::Isolation;
use crate::wire::node::{Inventory, NodeState, Offer};
use crate::wire::{AccountId, ErrorCode, Generation, HourlyRate, NodeId, PublicKey};

/// A node that a public key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownNode {
    /// The node.
    pub(crate) node_id: NodeId,
    /// Its owner.
    pub(crate) account_id: AccountId,
}

/// A node as an operator lists it.
#[derive(Debug, Clone)]
pub(crate) struct NodeRow {
    /// The node.
    pub(crate) node_id: NodeId,
    /// Its name.
    pub(crate) name: String,
    /// As of the last flushed heartbeat.
    pub(crate) state: NodeState,
    /// As of the last flushed heartbeat.
    pub(crate) seen_at: Option<Timestamp>,
    /// Newest benchmark score.
    pub(crate) score: Option<u32>,
    /// What it lends.
    pub(crate) offer: Option<Offer>,
    /// Leases on it now.
    pub(crate) leases: u32,
    /// How far its hardware is believed.
    pub(crate) proof: Proof,
}

/// A node about to be added.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewNode<'a> {
    pub(crate) public_key: &'a PublicKey,
    pub(crate) name: &'a str,
    pub(crate) agent_version: &'a str,
    pub(crate) account_id: AccountId,
}

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

    /// The key a node signs with; `None` when there is no such node.
    pub(crate) async fn node_key(&self, node_id: NodeId) -> Result<Option<PublicKey>, StoreError> {
        let row = sqlx::query("SELECT public_key FROM nodes WHERE node_id = ?")
            .bind(node_id.to_string())
            .fetch_optional(self.pool())
            .await?;
        row.map(|row| read_key(&row, "public_key")).transpose()
    }

    /// Every node, by name.
    pub(crate) async fn nodes(&self, now: Timestamp) -> Result<Vec<NodeRow>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT node_id, name, state, seen_at, score, offer_cpu_millis, offer_memory_bytes, offer_disk_bytes, \
             offer_gpus, offer_price_min, offer_internet, offer_domains, offer_isolation, ",
            proof_columns!(),
            ", (SELECT count(*) FROM leases l WHERE l.node_id = n.node_id AND l.ended_at IS NULL) AS leases FROM nodes n ORDER BY name, node_id",
        ))
        .fetch_all(self.pool())
        .await?;
        rows.iter().map(|row| node_row(row, now)).collect()
    }

    /// Stores a signed inventory; an older one than what is stored changes nothing. Its nonce is taken in any case.
    pub(crate) async fn put_inventory(&self, report: &VerifiedReport<'_, Inventory>) -> Result<(), StoreError> {
        let Inventory { host, offer, .. } = &report.content;
        let mut tx = self.write().await?;
        take_report_nonce(&mut tx, report).await?;
        sqlx::query(
            "UPDATE nodes SET inventory = ?1, inventory_at = ?2, architecture = ?3, offer_cpu_millis = ?4, \
             offer_memory_bytes = ?5, offer_disk_bytes = ?6, offer_gpus = ?7, offer_price_min = ?8, \
             offer_internet = ?10, offer_isolation = ?11, offer_domains = ?12 WHERE node_id = ?9 AND (inventory_at IS NULL OR inventory_at <= ?2)",
        )
        .bind(report.body)
        .bind(millis(report.at))
        .bind(&host.architecture)
        .bind(i64::from(offer.cpu_millis))
        .bind(int(offer.memory_bytes))
        .bind(int(offer.disk_bytes))
        .bind(i64::from(offer.gpus))
        .bind(offer.price_min.micros())
        .bind(report.node_id.to_string())
        .bind(offer.internet)
        .bind(serde_json::to_string(&offer.isolation).unwrap_or_default())
        .bind(offer.domains.as_ref().and_then(|domains| serde_json::to_string(domains).ok()))
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }

    /// Stores a signed benchmark report; an older one than what is stored changes nothing. Other hardware than before is to be
    /// proven at once. Its nonce is taken in any case.
    pub(crate) async fn put_benchmarks(&self, report: &VerifiedReport<'_, BenchmarkReport>) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        take_report_nonce(&mut tx, report).await?;
        sqlx::query(
            "UPDATE nodes SET benchmark = ?1, benchmarked_at = ?2, score = ?3, fingerprint = ?5, \
             proof_due_at = CASE WHEN fingerprint IS NOT ?5 THEN 0 ELSE proof_due_at END \
             WHERE node_id = ?4 AND (benchmarked_at IS NULL OR benchmarked_at <= ?2)",
        )
        .bind(report.body)
        .bind(millis(report.at))
        .bind(i64::from(report.content.score))
        .bind(report.node_id.to_string())
        .bind(&report.content.fingerprint)
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }
}

async fn take_report_nonce<T>(db: &mut SqliteConnection, report: &VerifiedReport<'_, T>) -> Result<(), StoreError> {
    let added =
        sqlx::query("INSERT INTO report_nonces (node_id, nonce, expires_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(report.node_id.to_string())
            .bind(&report.nonce.as_bytes()[..])
            .bind(millis(report.remember_until))
            .execute(db)
            .await?;
    if added.rows_affected() == 0 {
        return Err(StoreError::refused(ErrorCode::NonceRejected, "this signed report was received before"));
    }
    Ok(())
}

/// The node of a key, inside a transaction.
pub(super) async fn node_by_key(db: &mut SqliteConnection, key: &PublicKey) -> Result<Option<KnownNode>, StoreError> {
    let row = sqlx::query("SELECT node_id, account_id FROM nodes WHERE public_key = ?")
        .bind(&key.as_bytes()[..])
        .fetch_optional(db)
        .await?;
    row.map(|row| Ok(KnownNode { node_id: read_text(&row, "node_id")?, account_id: read_text(&row, "account_id")? }))
        .transpose()
}

/// Adds a node, inside a transaction.
pub(super) async fn add_node(
    db: &mut SqliteConnection,
    node: NewNode<'_>,
    now: Timestamp,
) -> Result<NodeId, StoreError> {
    let node_id = NodeId::generate(now);
    sqlx::query(
        "INSERT INTO nodes (node_id, account_id, public_key, name, agent_version, enrolled_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(node_id.to_string())
    .bind(node.account_id.to_string())
    .bind(&node.public_key.as_bytes()[..])
    .bind(node.name)
    .bind(node.agent_version)
    .bind(millis(now))
    .execute(db)
    .await?;
    Ok(node_id)
}

/// A stored public key.
pub(super) fn read_key(row: &SqliteRow, column: &'static str) -> Result<PublicKey, StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map(PublicKey::from_bytes).map_err(|_| StoreError::BadRow { column })
}

fn node_row(row: &SqliteRow, now: Timestamp) -> Result<NodeRow, StoreError> {
    Ok(NodeRow {
        node_id: read_text(row, "node_id")?,
        name: row.try_get("name")?,
        state: read_word(row, "state")?,
        seen_at: read_time_opt(row, "seen_at")?,
        score: read_int_opt(row, "score")?,
        offer: read_offer(row)?,
        leases: read_int(row, "leases")?,
        proof: read_proof(row, now)?,
    })
}

/// The offer columns of a node; `None` before its first inventory.
pub(crate) fn read_offer(row: &SqliteRow) -> Result<Option<Offer>, StoreError> {
    let Some(cpu_millis) = read_int_opt(row, "offer_cpu_millis")? else { return Ok(None) };
    let price: i64 = row.try_get("offer_price_min")?;
    Ok(Some(Offer {
        cpu_millis,
        memory_bytes: read_int(row, "offer_memory_bytes")?,
        disk_bytes: read_int(row, "offer_disk_bytes")?,
        gpus: read_int(row, "offer_gpus")?,
        price_min: HourlyRate::try_from(price).map_err(|_| StoreError::BadRow { column: "offer_price_min" })?,
        internet: row.try_get("offer_internet")?,
        domains: read_domains(row)?,
        isolation: read_isolation(row)?,
    }))
}

/// The domains that jobs may name on a node; `None` where it cannot keep jobs to any.
pub(crate) fn read_domains(row: &SqliteRow) -> Result<Option<Vec<String>>, StoreError> {
    let text: Option<String> = row.try_get("offer_domains")?;
    let read = text.map(|text| serde_json::from_str(&text)).transpose();
    read.map_err(|_| StoreError::BadRow { column: "offer_domains" })
}

/// The separations a node offers.
pub(crate) fn read_isolation(row: &SqliteRow) -> Result<Vec<Isolation>, StoreError> {
    let text: String = row.try_get("offer_isolation")?;
    serde_json::from_str(&text).map_err(|_| StoreError::BadRow { column: "offer_isolation" })
}
