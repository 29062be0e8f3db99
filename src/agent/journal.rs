//! The agent's memory: one SQLite file with its leases, the outbox of unacknowledged events, and a few facts about itself.
//!
//! Invariants
//! - What a call has written is on the disk when it returns (WAL, synchronous FULL).
//! - An event gets its sequence in the transaction that stores it: sequences of a lease start at 1 and have no gaps.
//! - A registry's password is never in it: an assignment is written without, and its lease gets it again from the coordinator.
//! - It holds what renters gave their jobs: only its owner may read it, and a forgotten lease leaves no bytes in it.
//! - A file that cannot be trusted is never repaired or thrown away silently; the error says how to move it aside.
//! - One connection; calls queue up behind one another.

mod error;
mod images;
mod schema;

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};

use super::private;
use crate::job::machine::{LogPosition, Saved};
use crate::wire::lease::{Assignment, LeaseChange, LeaseEvent};
use crate::wire::{LeaseId, Sequence};

pub use error::JournalError;
pub use images::CachedImage;

const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The open journal. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Journal {
    pool: SqlitePool,
    path: std::sync::Arc<Path>,
}

/// A lease as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    /// What the coordinator asked for.
    pub assignment: Assignment,
    /// Where it stands.
    pub saved: Saved,
    /// How far its log has been handed over.
    pub log: LogPosition,
}

impl Journal {
    /// Opens the journal at `path` and makes it when it is not there; its folder must exist.
    ///
    /// # Errors
    /// [`JournalError`] with what is wrong with the file and what to do.
    pub async fn open(path: &Path) -> Result<Self, JournalError> {
        keep_private(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // What is deleted is overwritten with zeros.
            .pragma("secure_delete", "ON")
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(|error| JournalError::from_sqlx(path, error))?;
        let journal = Self { pool, path: path.into() };
        match schema::prepare(&journal.pool, path).await {
            Ok(()) => Ok(journal),
            Err(error) => {
                journal.pool.close().await;
                Err(error)
            }
        }
    }

    /// Closes the file. Further calls fail.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Keeps an assignment, or the newer wish for a lease that is known; what happened to it so far stays.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be written.
    pub async fn put_lease(&self, assignment: &Assignment) -> Result<(), JournalError> {
        let mut tx = self.pool.begin().await.map_err(|error| self.failed(error))?;
        self.put_in(&mut tx, assignment).await?;
        tx.commit().await.map_err(|error| self.failed(error))
    }

    async fn put_in(&self, connection: &mut SqliteConnection, assignment: &Assignment) -> Result<(), JournalError> {
        sqlx::query(
            "INSERT INTO leases (lease_id, generation, assignment) VALUES (?, ?, ?) \
             ON CONFLICT (lease_id) DO UPDATE SET generation = excluded.generation, assignment = excluded.assignment \
             WHERE excluded.generation > leases.generation",
        )
        .bind(assignment.lease_id.to_string())
        .bind(i64::try_from(assignment.generation.0).unwrap_or(i64::MAX))
        .bind(self.encode(&images::without_passwords(assignment))?)
        .execute(connection)
        .await
        .map_err(|error| self.failed(error))?;
        Ok(())
    }

    /// Every lease the journal knows, oldest first.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be read.
    pub async fn leases(&self) -> Result<Vec<LeaseRecord>, JournalError> {
        let rows = sqlx::query("SELECT assignment, saved, log FROM leases ORDER BY lease_id")
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        rows.iter().map(|row| self.lease_record(row)).collect()
    }

    /// One lease.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be read.
    pub async fn lease(&self, lease_id: LeaseId) -> Result<Option<LeaseRecord>, JournalError> {
        let row = sqlx::query("SELECT assignment, saved, log FROM leases WHERE lease_id = ?")
            .bind(lease_id.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        row.map(|row| self.lease_record(&row)).transpose()
    }

    /// Forgets a lease with its events. Only for leases that the coordinator does not list any more.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be written.
    pub async fn forget_lease(&self, lease_id: LeaseId) -> Result<(), JournalError> {
        sqlx::query("DELETE FROM leases WHERE lease_id = ?")
            .bind(lease_id.to_string())
            .execute(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        // What the lease was is still in the write-ahead log.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.pool).await.map_err(|error| self.failed(error))?;
        Ok(())
    }

    /// Writes in one transaction where a lease stands now and what happened on the way there.
    ///
    /// # Errors
    /// [`JournalError::UnknownLease`] when the lease was never put or is forgotten; else when it cannot be written.
    pub async fn record(
        &self,
        lease_id: LeaseId,
        saved: &Saved,
        at: Timestamp,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseEvent>, JournalError> {
        let mut tx = self.pool.begin().await.map_err(|error| self.failed(error))?;
        let events = self.record_in(&mut tx, lease_id, saved, at, changes).await?;
        tx.commit().await.map_err(|error| self.failed(error))?;
        Ok(events)
    }

    /// [`Journal::put_lease`] and [`Journal::record`] in one transaction, for a lease that is new.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be written.
    pub async fn record_new(
        &self,
        assignment: &Assignment,
        saved: &Saved,
        at: Timestamp,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseEvent>, JournalError> {
        let mut tx = self.pool.begin().await.map_err(|error| self.failed(error))?;
        self.put_in(&mut tx, assignment).await?;
        let events = self.record_in(&mut tx, assignment.lease_id, saved, at, changes).await?;
        tx.commit().await.map_err(|error| self.failed(error))?;
        Ok(events)
    }

    async fn record_in(
        &self,
        connection: &mut SqliteConnection,
        lease_id: LeaseId,
        saved: &Saved,
        at: Timestamp,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseEvent>, JournalError> {
        let saved = self.encode(saved)?;
        let count = i64::try_from(changes.len()).unwrap_or(i64::MAX);
        let last: Option<i64> = sqlx::query_scalar(
            "UPDATE leases SET saved = ?, last_sequence = last_sequence + ? WHERE lease_id = ? RETURNING last_sequence",
        )
        .bind(saved)
        .bind(count)
        .bind(lease_id.to_string())
        .fetch_optional(&mut *connection)
        .await
        .map_err(|error| self.failed(error))?;
        let first = last.ok_or(JournalError::UnknownLease { lease_id })? - count + 1;
        let mut events = Vec::with_capacity(changes.len());
        for (sequence, what) in (first..).zip(changes) {
            let event = LeaseEvent { sequence: Sequence(u64::try_from(sequence).unwrap_or(0)), at, what: what.clone() };
            sqlx::query("INSERT INTO events (lease_id, sequence, event) VALUES (?, ?, ?)")
                .bind(lease_id.to_string())
                .bind(sequence)
                .bind(self.encode(&event)?)
                .execute(&mut *connection)
                .await
                .map_err(|error| self.failed(error))?;
            events.push(event);
        }
        Ok(events)
    }

    /// Stores one event durably under the lease's next sequence and leaves the lease as it stands.
    ///
    /// # Errors
    /// As [`Journal::record`].
    pub async fn append_event(
        &self,
        lease_id: LeaseId,
        at: Timestamp,
        what: LeaseChange,
    ) -> Result<Vec<LeaseEvent>, JournalError> {
        let record = self.lease(lease_id).await?.ok_or(JournalError::UnknownLease { lease_id })?;
        self.record(lease_id, &record.saved, at, &[what]).await
    }

    /// Events the coordinator has not yet acknowledged, in order.
    ///
    /// # Errors
    /// [`JournalError`] when they cannot be read.
    pub async fn unacked_events(&self, lease_id: LeaseId) -> Result<Vec<LeaseEvent>, JournalError> {
        let rows = sqlx::query("SELECT event FROM events WHERE lease_id = ? ORDER BY sequence")
            .bind(lease_id.to_string())
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        rows.iter().map(|row| self.decode(row, "event")).collect()
    }

    /// Lets go of every event up to `through`: the coordinator has them.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be written.
    pub async fn ack_events(&self, lease_id: LeaseId, through: Sequence) -> Result<(), JournalError> {
        sqlx::query("DELETE FROM events WHERE lease_id = ? AND sequence <= ?")
            .bind(lease_id.to_string())
            .bind(i64::try_from(through.0).unwrap_or(i64::MAX))
            .execute(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(())
    }

    /// Keeps how far a lease's log has been handed over.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be written.
    pub async fn put_log_position(&self, lease_id: LeaseId, position: &LogPosition) -> Result<(), JournalError> {
        sqlx::query("UPDATE leases SET log = ? WHERE lease_id = ?")
            .bind(self.encode(position)?)
            .bind(lease_id.to_string())
            .execute(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(())
    }

    /// A fact the agent keeps about itself.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be read.
    pub async fn meta(&self, key: &str) -> Result<Option<String>, JournalError> {
        sqlx::query_scalar("SELECT value FROM meta WHERE key = ?")
            .bind(key)
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.failed(error))
    }

    /// Keeps a fact about the agent; `None` forgets it.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be written.
    pub async fn set_meta(&self, key: &str, value: Option<&str>) -> Result<(), JournalError> {
        let query = match value {
            Some(value) => sqlx::query(
                "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            )
            .bind(key)
            .bind(value),
            None => sqlx::query("DELETE FROM meta WHERE key = ?").bind(key),
        };
        query.execute(&self.pool).await.map_err(|error| self.failed(error))?;
        Ok(())
    }

    fn lease_record(&self, row: &SqliteRow) -> Result<LeaseRecord, JournalError> {
        Ok(LeaseRecord {
            assignment: self.decode(row, "assignment")?,
            saved: self.decode(row, "saved")?,
            log: self.decode(row, "log")?,
        })
    }

    fn encode(&self, value: &impl Serialize) -> Result<String, JournalError> {
        serde_json::to_string(value).map_err(|source| JournalError::unreadable(&self.path, &source))
    }

    fn decode<T: DeserializeOwned>(&self, row: &SqliteRow, column: &str) -> Result<T, JournalError> {
        let text: String = row.try_get(column).map_err(|error| self.failed(error))?;
        serde_json::from_str(&text).map_err(|source| JournalError::unreadable(&self.path, &source))
    }

    fn failed(&self, error: sqlx::Error) -> JournalError {
        JournalError::from_sqlx(&self.path, error)
    }
}

/// Closes the file to everybody but its owner, before there is anything in it; SQLite gives the files beside it its mode.
fn keep_private(path: &Path) -> Result<(), JournalError> {
    let failed =
        |error: std::io::Error| JournalError::NotAccessible { path: path.to_owned(), detail: error.to_string() };
    private::close_to_others(path).map_err(failed)?;
    for suffix in ["-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        let beside = PathBuf::from(beside);
        if beside.exists() {
            private::close_to_others(&beside).map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
