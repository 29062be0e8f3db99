//! What matching and expiry read, and how a placement is made.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::jobs::{read_rate, read_resources, read_spec};
use super::lives::{Changes, Paymaster, advance, waits};
use super::{
    Store, StoreError, int, millis, read_int, read_int_opt, read_json_opt, read_text, read_time, read_time_opt,
};
use crate::coordinator::matching::{self, Placement, Waiting};
use crate::coordinator::placement::{Event, HANDOVER_SECONDS_MAX, OVERRUN_SLACK_SECONDS, START_SECONDS_MAX};
use crate::wire::job::Resources;
use crate::wire::lease::{LeaseEnd, Told};
use crate::wire::node::Offer;
use crate::wire::{JobId, LeaseId, NodeId};

/// Jobs looked at in one go.
pub(crate) const JOBS_PER_PAGE: usize = 200;
/// Most of a failure's own words that are told while the job waits.
const FAILURE_CHARS_MAX: usize = 400;

const NODE_QUERY: &str = "SELECT n.node_id, n.architecture, n.score, n.offer_cpu_millis, n.offer_memory_bytes, \
     n.offer_disk_bytes, n.offer_gpus, n.offer_price_min, n.offer_internet, n.offer_domains, n.offer_isolation, n.leased_at, \
     n.fingerprint, n.proof_fingerprint, n.proof_passed_at, n.proof_doubt, n.proof_missed, n.proof_why, \
     COALESCE(SUM(j.cpu_millis), 0) AS cpu_millis, COALESCE(SUM(j.memory_bytes), 0) AS memory_bytes, \
     COALESCE(SUM(j.disk_bytes), 0) AS disk_bytes, COALESCE(SUM(j.gpus), 0) AS gpus \
     FROM nodes n LEFT JOIN leases l ON l.node_id = n.node_id AND l.ended_at IS NULL LEFT JOIN jobs j USING (job_id) \
     WHERE n.offer_price_min IS NOT NULL AND (?1 IS NULL OR n.node_id = ?1) GROUP BY n.node_id";

impl Store {
    /// Every node that has said what it lends, with what of it is in use. `takes_leases` is for the caller to fill in.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn offering_nodes(&self, now: Timestamp) -> Result<Vec<matching::Node>, StoreError> {
        let rows = sqlx::query(NODE_QUERY).bind(None::<String>).fetch_all(self.pool()).await?;
        rows.iter().map(|row| read_node(row, now)).collect()
    }

    /// The oldest jobs that wait, after `after`.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn queued_jobs(&self, after: Option<JobId>) -> Result<Vec<matching::Job>, StoreError> {
        let mut tx = self.pool().begin().await?;
        let rows = sqlx::query(
            "SELECT job_id, spec, lease_count FROM jobs WHERE state = ? AND ended_at IS NULL AND job_id > ? \
             ORDER BY job_id LIMIT ?",
        )
        .bind(waits())
        .bind(after.map(|id| id.to_string()).unwrap_or_default())
        .bind(int(JOBS_PER_PAGE as u64))
        .fetch_all(&mut *tx)
        .await?;
        let mut jobs = Vec::with_capacity(rows.len());
        for row in &rows {
            let spec = read_spec(row)?;
            let job_id = read_text(row, "job_id")?;
            let lease_count = read_int(row, "lease_count")?;
            let (failed_on, last_failure) =
                if lease_count == 0 { Default::default() } else { failures(&mut tx, job_id).await? };
            jobs.push(matching::Job {
                job_id,
                resources: spec.resources(),
                network: spec.network,
                requirements: spec.requirements,
                price_max: spec.limits.price_max,
                failed_on,
                lease_count,
                last_failure,
            });
        }
        Ok(jobs)
    }

    /// Makes a placement, if it is still possible: the job waits and the node still lends that much at that rate.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn place(
        &self,
        placement: &Placement,
        paymaster: Paymaster<'_>,
        now: Timestamp,
    ) -> Result<Option<Changes>, StoreError> {
        let mut tx = self.write().await?;
        let node_id = placement.node_id;
        let row = sqlx::query(NODE_QUERY).bind(Some(node_id.to_string())).fetch_optional(&mut *tx).await?;
        let job = sqlx::query("SELECT spec, cpu_millis, memory_bytes, disk_bytes, gpus FROM jobs WHERE job_id = ?")
            .bind(placement.job_id.to_string())
            .fetch_one(&mut *tx)
            .await?;
        let asked = read_resources(&job)?;
        let Some(node) = row.as_ref().map(|row| read_node(row, now)).transpose()? else { return Ok(None) };
        let spec = read_spec(&job)?;
        let shut_in = matching::still_shuts_in(&node.offer, &spec.requirements, &spec.network);
        let unchanged = shut_in && matching::rate(&node.offer, &asked) == Some(placement.rate);
        if !unchanged || !node.has_free(&asked) {
            return Ok(None);
        }
        let placed = Event::Placed { lease_id: LeaseId::generate(now), node_id };
        let Ok(changes) = advance(&mut tx, placement.job_id, placed, Some(placement.rate), paymaster, now).await?
        else {
            return Ok(None);
        };
        tx.commit().await?;
        Ok(Some(changes))
    }

    /// Stores why jobs wait.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn explain(&self, waiting: &[Waiting]) -> Result<(), StoreError> {
        let stored = self.whys(waiting).await?;
        let changed: Vec<_> = waiting.iter().filter(|w| stored.get(&w.job_id) != Some(&w.why)).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let mut tx = self.write().await?;
        for waiting in changed {
            sqlx::query("UPDATE jobs SET why = ? WHERE job_id = ? AND state = ? AND ended_at IS NULL")
                .bind(&waiting.why)
                .bind(waiting.job_id.to_string())
                .bind(waits())
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await
    }

    async fn whys(&self, waiting: &[Waiting]) -> Result<HashMap<JobId, String>, StoreError> {
        let Some((first, last)) = waiting.first().zip(waiting.last()) else { return Ok(HashMap::new()) };
        let rows =
            sqlx::query("SELECT job_id, why FROM jobs WHERE state = ? AND ended_at IS NULL AND job_id BETWEEN ? AND ?")
                .bind(waits())
                .bind(first.job_id.to_string())
                .bind(last.job_id.to_string())
                .fetch_all(self.pool())
                .await?;
        rows.iter().map(|row| Ok((read_text(row, "job_id")?, row.try_get("why")?))).collect()
    }

    /// Jobs for which time may have run out: the machine decides.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn overdue_jobs(&self, now: Timestamp) -> Result<Vec<JobId>, StoreError> {
        let seconds = |s: i64| s.saturating_mul(1000);
        let rows = sqlx::query(
            "SELECT j.job_id FROM jobs j LEFT JOIN leases l ON l.job_id = j.job_id AND l.ended_at IS NULL \
             WHERE j.ended_at IS NULL AND ( \
                 (j.started_at IS NULL AND j.start_deadline_at <= ?1 AND l.stop_asked_at IS NULL) \
                 OR (l.running_at IS NULL AND l.made_at < ?1 - ?2) \
                 OR (l.stop_asked_at IS NULL AND l.running_at + l.frozen_millis + j.duration_seconds_max * 1000 < ?1 - ?3) \
                 OR l.stop_asked_at + j.stop_grace_seconds * 1000 < ?1 - ?4) \
             ORDER BY j.job_id LIMIT ?5",
        )
        .bind(millis(now))
        .bind(seconds(START_SECONDS_MAX))
        .bind(seconds(OVERRUN_SLACK_SECONDS))
        .bind(seconds(HANDOVER_SECONDS_MAX))
        .bind(int(JOBS_PER_PAGE as u64))
        .fetch_all(self.pool())
        .await?;
        rows.iter().map(|row| read_text(row, "job_id")).collect()
    }
}

fn read_node(row: &SqliteRow, now: Timestamp) -> Result<matching::Node, StoreError> {
    Ok(matching::Node {
        node_id: read_text(row, "node_id")?,
        architecture: row.try_get::<Option<String>, _>("architecture")?.unwrap_or_default(),
        score: read_int_opt(row, "score")?,
        offer: Offer {
            cpu_millis: read_int(row, "offer_cpu_millis")?,
            memory_bytes: read_int(row, "offer_memory_bytes")?,
            disk_bytes: read_int(row, "offer_disk_bytes")?,
            gpus: read_int(row, "offer_gpus")?,
            price_min: read_rate(row, "offer_price_min")?,
            internet: row.try_get("offer_internet")?,
            domains: super::nodes::read_domains(row)?,
            isolation: super::nodes::read_isolation(row)?,
        },
        used: read_used(row)?,
        proof: super::challenges::read_proof(row, now)?.state,
        takes_leases: false,
        leased_at: read_time_opt(row, "leased_at")?,
    })
}

/// Sums may pass what one lease can ask for; more than that is full in any case.
fn read_used(row: &SqliteRow) -> Result<Resources, StoreError> {
    let narrow =
        |column| -> Result<u32, StoreError> { Ok(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or(u32::MAX)) };
    Ok(Resources {
        cpu_millis: narrow("cpu_millis")?,
        memory_bytes: read_int(row, "memory_bytes")?,
        disk_bytes: read_int(row, "disk_bytes")?,
        gpus: narrow("gpus")?,
    })
}

/// Where and when a job's leases ended, and how the newest of them did.
async fn failures(
    tx: &mut SqliteConnection,
    job_id: JobId,
) -> Result<(Vec<(NodeId, Timestamp)>, Option<String>), StoreError> {
    let rows = sqlx::query(
        "SELECT l.node_id, l.ended_at, l.end, n.name FROM leases l JOIN nodes n USING (node_id) \
         WHERE l.job_id = ? AND l.ended_at IS NOT NULL ORDER BY l.number",
    )
    .bind(job_id.to_string())
    .fetch_all(tx)
    .await?;
    let last = rows.last().map(failure).transpose()?.flatten();
    let ended = rows.iter().map(|row| Ok((read_text(row, "node_id")?, read_time(row, "ended_at")?)));
    Ok((ended.collect::<Result<_, StoreError>>()?, last))
}

fn failure(row: &SqliteRow) -> Result<Option<String>, StoreError> {
    let end = read_json_opt(row, "end")?;
    let node = format!("node '{}'", row.try_get::<&str, _>("name")?);
    Ok(end.map(|end: LeaseEnd| end.in_words(Told::Of(&node)).chars().take(FAILURE_CHARS_MAX).collect()))
}
