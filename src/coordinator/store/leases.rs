//! Leases as their nodes see them: what should run, and what is said to have happened.
//!
//! Invariants
//! - A lease is only ever shown to, and changed by, the node it is on; for any other node it does not exist.
//! - Events are taken in the order of their sequence without gaps, all of a batch in one transaction.
//! - When a lease has ended, its node's repeats are acknowledged and everything new is refused.

use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::jobs::{read_rate, read_spec};
use super::lives::{Changes, Paymaster, advance};
use super::{Store, StoreError, int, read_int, read_text, read_time_opt};
use crate::coordinator::placement::{Event, Refused};
use crate::wire::lease::{Assignment, Assignments, Desired, LeaseEvent};
use crate::wire::{ErrorCode, Generation, JobId, LeaseId, NodeId, Sequence};

/// Higher generations are not believed: SQLite must hold them and count on.
const GENERATION_MAX: u64 = 1 << 53;

/// A lease that is not over, for expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LiveRow {
    /// The lease.
    pub(crate) lease_id: LeaseId,
    /// Its job.
    pub(crate) job_id: JobId,
    /// Its node.
    pub(crate) node_id: NodeId,
    /// The node's generation when the lease's desired state last changed.
    pub(crate) generation: Generation,
}

/// A lease as its node addresses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaseHead {
    /// Its job.
    pub(crate) job_id: JobId,
    /// Newest event taken.
    pub(crate) through: Sequence,
    /// Whether it is over.
    pub(crate) ended: bool,
    /// Whether it is over by the node's own word.
    pub(crate) ended_by_node: bool,
}

impl Store {
    /// Everything that should be on a node now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn assignments(&self, node_id: NodeId) -> Result<Assignments, StoreError> {
        let mut tx = self.pool().begin().await?;
        let generation: i64 = sqlx::query_scalar("SELECT assignment_generation FROM nodes WHERE node_id = ?")
            .bind(node_id.to_string())
            .fetch_one(&mut *tx)
            .await?;
        let rows = sqlx::query(
            "SELECT l.lease_id, l.job_id, l.generation, l.stop_asked_at, l.rate, j.spec \
             FROM leases l JOIN jobs j USING (job_id) WHERE l.node_id = ? AND l.ended_at IS NULL ORDER BY l.lease_id",
        )
        .bind(node_id.to_string())
        .fetch_all(&mut *tx)
        .await?;
        let mut leases = Vec::with_capacity(rows.len());
        for row in &rows {
            let stop = read_time_opt(row, "stop_asked_at")?.is_some();
            leases.push(Assignment {
                lease_id: read_text(row, "lease_id")?,
                job_id: read_text(row, "job_id")?,
                generation: Generation(read_int(row, "generation")?),
                desired: if stop { Desired::Stop } else { Desired::Run },
                rate: read_rate(row, "rate")?,
                spec: read_spec(row)?,
            });
        }
        let generation =
            u64::try_from(generation).map_err(|_| StoreError::BadRow { column: "assignment_generation" })?;
        Ok(Assignments { generation: Generation(generation), leases, sessions: Vec::new(), challenge: None })
    }

    /// Makes sure that a node's generation is not behind what the node has acted on, as it can be after the database was
    /// restored from a backup: the node would ignore every new assignment. Returns the generation.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn catch_up_generation(
        &self,
        node_id: NodeId,
        acted: Generation,
    ) -> Result<Generation, StoreError> {
        let generation = self.assignment_generation(node_id).await?;
        if acted <= generation || acted.0 > GENERATION_MAX {
            return Ok(generation);
        }
        let mut tx = self.write().await?;
        sqlx::query("UPDATE nodes SET assignment_generation = MAX(assignment_generation, ?) WHERE node_id = ?")
            .bind(int(acted.next().0))
            .bind(node_id.to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        self.assignment_generation(node_id).await
    }

    /// Takes a batch of a node's events; returns up to which one everything is durable.
    ///
    /// # Errors
    /// `lease_ended` when the lease is over and the batch says something new, `not_found` for another node's lease.
    pub(crate) async fn report_events(
        &self,
        node_id: NodeId,
        lease_id: LeaseId,
        events: &[LeaseEvent],
        paymaster: Paymaster<'_>,
        now: Timestamp,
    ) -> Result<(Sequence, Changes), StoreError> {
        let mut tx = self.write().await?;
        let head = lease_head(&mut tx, node_id, lease_id).await?;
        let mut changes = Changes::default();
        if head.ended {
            let says_new = events.iter().any(|e| e.sequence > head.through);
            return if head.ended_by_node && !says_new {
                Ok((head.through, changes))
            } else {
                Err(lease_ended(lease_id))
            };
        }
        for event in events {
            let reported = Event::Reported { lease_id, event };
            match advance(&mut tx, head.job_id, reported, None, paymaster, now).await? {
                Ok(more) => changes.merge(more),
                // What is missing, or came after the last word, is for the node to see in the answer.
                Err(Refused::Gap { .. } | Refused::LeaseOver) => break,
                Err(Refused::NotWaiting) => return Err(StoreError::BadRow { column: "state" }),
            }
        }
        let through = lease_head(&mut tx, node_id, lease_id).await?.through;
        tx.commit().await?;
        Ok((through, changes))
    }

    /// The leases that are not over, of every node.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn live_leases(&self) -> Result<Vec<LiveRow>, StoreError> {
        let rows = sqlx::query("SELECT lease_id, job_id, node_id, generation FROM leases WHERE ended_at IS NULL")
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(LiveRow {
                    lease_id: read_text(row, "lease_id")?,
                    job_id: read_text(row, "job_id")?,
                    node_id: read_text(row, "node_id")?,
                    generation: Generation(read_int(row, "generation")?),
                })
            })
            .collect()
    }
}

/// A lease of `node_id`.
pub(super) async fn lease_head(
    tx: &mut SqliteConnection,
    node_id: NodeId,
    lease_id: LeaseId,
) -> Result<LeaseHead, StoreError> {
    let row = sqlx::query(
        "SELECT job_id, events_through, ended_at, ended_by_node FROM leases WHERE lease_id = ? AND node_id = ?",
    )
    .bind(lease_id.to_string())
    .bind(node_id.to_string())
    .fetch_optional(tx)
    .await?;
    let row = row.ok_or_else(|| unknown_lease(lease_id))?;
    Ok(LeaseHead {
        job_id: read_text(&row, "job_id")?,
        through: Sequence(read_int(&row, "events_through")?),
        ended: read_time_opt(&row, "ended_at")?.is_some(),
        ended_by_node: row.try_get("ended_by_node")?,
    })
}

/// The answer for leases that are not there and for those of other nodes.
pub(super) fn unknown_lease(lease_id: LeaseId) -> StoreError {
    StoreError::refused(ErrorCode::NotFound, format!("this node has no lease {lease_id}"))
}

/// The lease is over for its node.
pub(super) fn lease_ended(lease_id: LeaseId) -> StoreError {
    StoreError::refused(ErrorCode::LeaseEnded, format!("lease {lease_id} is over"))
}
