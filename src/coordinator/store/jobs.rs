//! Jobs: submitted once, shown to their renter.
//!
//! Invariants
//! - A job comes to be together with its escrow, or not at all.
//! - The same account and idempotency key make the same job, however often and however concurrently they are sent.
//! - A job is only ever shown to the account that submitted it, and never with the values of its environment.

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::lives::{json, waits};
use super::{
    Store, StoreError, int, ledger, millis, read_int, read_int_opt, read_json_opt, read_text, read_text_opt, read_time,
    read_time_opt, read_word,
};
use crate::coordinator::ledger::{LedgerAccount, Transaction};
use crate::wire::job::{JobSpec, JobView, LeaseView, OutputView, Resources};
use crate::wire::{AccountId, Amount, ErrorCode, HourlyRate, JobId, Secret};

/// A job to be stored; the specification has been validated.
#[derive(Debug)]
pub struct NewJob<'a> {
    /// Its identifier, if it is new.
    pub job_id: JobId,
    /// The renter.
    pub account_id: AccountId,
    /// What to run.
    pub spec: &'a JobSpec,
    /// What must be held for it.
    pub escrow: Amount,
    /// The renter's idempotency key.
    pub key: Option<&'a str>,
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// The job, new or from the first time this key was sent.
    pub job_id: JobId,
    /// Whether it is new.
    pub is_new: bool,
}

/// Where a job's output lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredOutput {
    /// Path in the object store.
    pub object: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, hex.
    pub sha256: String,
}

/// Everything a [`JobView`] is made of: the job, its newest lease, its escrow and its newest output. Callers add the WHERE.
macro_rules! job_query {
    ($rest:literal) => {
        concat!(
            "SELECT j.*, l.lease_id, l.node_id, l.rate, l.phase, l.pull_per_mille, b.balance AS escrow, \
             o.bytes AS output_bytes, o.sha256 AS output_sha256, \
             (SELECT json_extract(receipt, '$.billed_millis') FROM receipts r WHERE r.lease_id = l.lease_id) AS paid_millis \
             FROM jobs j \
             LEFT JOIN leases l ON l.job_id = j.job_id AND l.number = j.lease_count \
             LEFT JOIN ledger_balances b ON b.account = 'escrow:' || j.job_id \
             LEFT JOIN outputs o ON o.lease_id = l.lease_id ",
            $rest
        )
    };
}

impl Store {
    /// Stores a job and holds its escrow.
    ///
    /// # Errors
    /// `insufficient_funds`, or `conflict` when the key was sent with another job.
    pub async fn submit_job(&self, new: &NewJob<'_>, now: Timestamp) -> Result<Submitted, StoreError> {
        let digest = Sha256::digest(json(new.spec).as_bytes());
        let mut tx = self.write().await?;
        if let Some(key) = new.key
            && let Some(job_id) = submitted_before(&mut tx, new.account_id, key, &digest).await?
        {
            return Ok(Submitted { job_id, is_new: false });
        }
        let spendable = ledger::balance(&mut tx, LedgerAccount::Spendable(new.account_id)).await?;
        if spendable < new.escrow {
            let detail = format!(
                "{} is held while it may run (highest price times longest duration) and the account has {spendable}",
                new.escrow
            );
            return Err(StoreError::refused(ErrorCode::InsufficientFunds, detail));
        }
        insert(&mut tx, new, now).await?;
        ledger::post(&mut tx, &Transaction::hold_escrow(new.job_id, new.account_id, new.escrow)?, now).await?;
        if let Some(key) = new.key {
            sqlx::query(
                "INSERT INTO submissions (account_id, idempotency_key, spec_sha256, job_id) VALUES (?, ?, ?, ?)",
            )
            .bind(new.account_id.to_string())
            .bind(key)
            .bind(digest.as_slice())
            .bind(new.job_id.to_string())
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(Submitted { job_id: new.job_id, is_new: true })
    }

    /// One job of `account_id`.
    ///
    /// # Errors
    /// `not_found`, also for somebody else's job.
    pub async fn job(&self, account_id: AccountId, job_id: JobId) -> Result<JobView, StoreError> {
        let row = sqlx::query(job_query!("WHERE j.job_id = ? AND j.account_id = ?"))
            .bind(job_id.to_string())
            .bind(account_id.to_string())
            .fetch_optional(self.pool())
            .await?;
        read_view(&row.ok_or_else(|| unknown_job(job_id))?)
    }

    /// The jobs of `account_id`, newest first; only those older than `before`, if given.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn jobs(
        &self,
        account_id: AccountId,
        before: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<JobView>, StoreError> {
        let rows = sqlx::query(job_query!("WHERE j.account_id = ? AND j.job_id < ? ORDER BY j.job_id DESC LIMIT ?"))
            .bind(account_id.to_string())
            // Sorts after every UUID.
            .bind(before.map_or_else(|| "g".to_owned(), |id| id.to_string()))
            .bind(limit)
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(read_view).collect()
    }

    /// Where the output of a job of `account_id` lies; `None` when it has none.
    ///
    /// # Errors
    /// `not_found`, also for somebody else's job.
    pub async fn job_output(&self, account_id: AccountId, job_id: JobId) -> Result<Option<StoredOutput>, StoreError> {
        let row = sqlx::query(
            "SELECT o.object, o.bytes, o.sha256 FROM jobs j \
             LEFT JOIN leases l ON l.job_id = j.job_id AND l.number = j.lease_count \
             LEFT JOIN outputs o ON o.lease_id = l.lease_id WHERE j.job_id = ? AND j.account_id = ?",
        )
        .bind(job_id.to_string())
        .bind(account_id.to_string())
        .fetch_optional(self.pool())
        .await?;
        let row = row.ok_or_else(|| unknown_job(job_id))?;
        let Some(object) = row.try_get::<Option<String>, _>("object")? else { return Ok(None) };
        Ok(Some(StoredOutput { object, bytes: read_int(&row, "bytes")?, sha256: row.try_get("sha256")? }))
    }

    /// Jobs that wait, and jobs with a live lease.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_open_jobs(&self) -> Result<(u32, u32), StoreError> {
        let row = sqlx::query(
            "SELECT COALESCE(SUM(state = ?), 0) AS queued, COALESCE(SUM(state <> ?), 0) AS running \
             FROM jobs WHERE ended_at IS NULL",
        )
        .bind(waits())
        .bind(waits())
        .fetch_one(self.pool())
        .await?;
        Ok((read_int(&row, "queued")?, read_int(&row, "running")?))
    }
}

/// The answer for jobs that are not there and for those of others: the same, so that nothing can be guessed.
pub(super) fn unknown_job(job_id: JobId) -> StoreError {
    StoreError::refused(ErrorCode::NotFound, format!("this account has no job {job_id}"))
}

async fn submitted_before(
    tx: &mut SqliteConnection,
    account_id: AccountId,
    key: &str,
    digest: &[u8],
) -> Result<Option<JobId>, StoreError> {
    let row = sqlx::query("SELECT job_id, spec_sha256 FROM submissions WHERE account_id = ? AND idempotency_key = ?")
        .bind(account_id.to_string())
        .bind(key)
        .fetch_optional(tx)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let job_id: JobId = read_text(&row, "job_id")?;
    if row.try_get::<&[u8], _>("spec_sha256")? == digest {
        return Ok(Some(job_id));
    }
    let detail = format!("this idempotency key was used for another job, {job_id}");
    Err(StoreError::refused(ErrorCode::Conflict, detail))
}

async fn insert(tx: &mut SqliteConnection, new: &NewJob<'_>, now: Timestamp) -> Result<(), StoreError> {
    let limits = &new.spec.limits;
    let resources = new.spec.resources();
    let seconds = |s: u64| i64::try_from(s).unwrap_or(i64::MAX);
    let deadline = limits.start_deadline_seconds.map(|s| millis(now).saturating_add(seconds(s).saturating_mul(1000)));
    sqlx::query(
        "INSERT INTO jobs (job_id, account_id, spec, cpu_millis, memory_bytes, disk_bytes, gpus, state, why, \
         submitted_at, start_deadline_at, duration_seconds_max, stop_grace_seconds) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'waits to be matched with a node', ?, ?, ?, ?)",
    )
    .bind(new.job_id.to_string())
    .bind(new.account_id.to_string())
    .bind(json(new.spec))
    .bind(resources.cpu_millis)
    .bind(int(resources.memory_bytes))
    .bind(int(resources.disk_bytes))
    .bind(resources.gpus)
    .bind(waits())
    .bind(millis(now))
    .bind(deadline)
    .bind(int(limits.duration_seconds_max))
    .bind(limits.stop_grace_seconds)
    .execute(tx)
    .await?;
    Ok(())
}

/// The resource columns of a job.
pub(super) fn read_resources(row: &SqliteRow) -> Result<Resources, StoreError> {
    Ok(Resources {
        cpu_millis: read_int(row, "cpu_millis")?,
        memory_bytes: read_int(row, "memory_bytes")?,
        disk_bytes: read_int(row, "disk_bytes")?,
        gpus: read_int(row, "gpus")?,
    })
}

/// A job's specification, secrets included.
pub(super) fn read_spec(row: &SqliteRow) -> Result<JobSpec, StoreError> {
    read_json_opt(row, "spec")?.ok_or(StoreError::BadRow { column: "spec" })
}

/// A stored price.
pub(super) fn read_rate(row: &SqliteRow, column: &'static str) -> Result<HourlyRate, StoreError> {
    HourlyRate::try_from(row.try_get::<i64, _>(column)?).map_err(|_| StoreError::BadRow { column })
}

fn read_view(row: &SqliteRow) -> Result<JobView, StoreError> {
    let ended_at = read_time_opt(row, "ended_at")?;
    let lease = match read_text_opt(row, "lease_id")? {
        None => None,
        Some(lease_id) => Some(LeaseView {
            lease_id,
            node_id: read_text(row, "node_id")?,
            rate: read_rate(row, "rate")?,
            phase: read_word(row, "phase")?,
            pull_per_mille: read_int_opt(row, "pull_per_mille")?,
        }),
    };
    let output = match row.try_get::<Option<String>, _>("output_sha256")? {
        None => None,
        Some(sha256) => Some(OutputView { bytes: read_int(row, "output_bytes")?, sha256 }),
    };
    Ok(JobView {
        job_id: read_text(row, "job_id")?,
        spec: redacted(read_spec(row)?),
        state: read_word(row, "state")?,
        why: row.try_get("why")?,
        submitted_at: read_time(row, "submitted_at")?,
        started_at: read_time_opt(row, "started_at")?,
        ended_at,
        lease,
        lease_count: read_int(row, "lease_count")?,
        outcome: read_json_opt(row, "outcome")?,
        cost: Amount::from_micros(row.try_get("cost")?),
        paid_millis: read_int_opt(row, "paid_millis")?,
        escrow: Amount::from_micros(row.try_get::<Option<i64>, _>("escrow")?.unwrap_or(0)),
        log_bytes: read_int(row, "log_bytes")?,
        log_complete: ended_at.is_some(),
        output,
    })
}

/// A specification without the values of its environment and without passwords.
pub(super) fn redacted(mut spec: JobSpec) -> JobSpec {
    for service in &mut spec.services {
        if let Some(login) = &mut service.registry {
            login.password = Secret::new("");
        }
        for value in service.env.values_mut() {
            *value = Secret::new("");
        }
    }
    spec
}
