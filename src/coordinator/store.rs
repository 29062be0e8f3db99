//! The coordinator's database: the only place with its SQL.
//!
//! Invariants
//! - What a write transaction committed survives a crash (WAL, `synchronous=FULL`).
//! - There is one writer at a time in this process; it begins immediately, so no transaction fails half-way for a lock.
//! - Migrations only go forward; a database made by a newer Fizz is refused, never touched.
//! - Only the owner of the process may read the file and its log; what was deleted leaves no bytes in them for longer than
//!   the janitor's period.
//! - Times are integer milliseconds, identifiers UUID text, money integer micro-USD, secrets SHA-256 only.

mod accounts;
pub(crate) mod challenges;
mod counts;
pub(crate) mod enrollments;
mod heartbeats;
mod jobs;
mod leases;
mod ledger;
mod lives;
mod logs;
mod market;
pub(crate) mod nodes;
mod receipts;
pub(crate) mod sessions;

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Connection as _, Row as _, SqlSafeStr as _, Sqlite, Transaction};
use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::files::{make_private_file, tighten};
use crate::wire::ErrorCode;

pub use jobs::{NewJob, StoredOutput, Submitted};
pub(crate) use leases::LiveRow;
pub use ledger::Balances;
pub(crate) use lives::Paymaster;
pub use logs::LogPiece;
pub(crate) use logs::LogUpload;
pub(crate) use market::JOBS_PER_PAGE;
pub use sessions::SessionRow;

/// Every migration in order. A new one is a new line; old ones never change.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "identity", include_str!("../../migrations/0001_identity.sql")),
    (2, "jobs and money", include_str!("../../migrations/0002_jobs_and_money.sql")),
    (3, "sandbox", include_str!("../../migrations/0003_sandbox.sql")),
    (4, "domains", include_str!("../../migrations/0004_domains.sql")),
    (5, "challenges", include_str!("../../migrations/0005_challenges.sql")),
];

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTIONS_MAX: u32 = 8;
/// How long writing the log back waits for readers; writers wait meanwhile.
const CHECKPOINT_PATIENCE: Duration = Duration::from_millis(500);

/// Why the store could not do what it was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file cannot be opened or made.
    #[error("the database {} cannot be opened; check that its folder exists and may be written", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The file is damaged or no database.
    #[error("the database {path} is damaged or no SQLite file; move it aside (`mv {path} {path}.broken`) or restore a backup", path = path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The file has migrations this build does not know.
    #[error("the database {} was made by a newer fizz (it has schema version {version}); update fizz", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its newest schema version.
        version: i64,
    },
    /// Another process holds the file.
    #[error("the database {path} is locked by another process; see which with `fuser {path}`", path = path.display())]
    Locked {
        /// Which file.
        path: PathBuf,
    },
    /// A migration failed.
    #[error("the database {} could not be brought up to date", path.display())]
    Migrate {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<MigrateError>,
    },
    /// The writer's turn did not come in time.
    #[error("the database is busy")]
    Busy,
    /// A statement failed.
    #[error("a database statement failed")]
    Query(#[source] sqlx::Error),
    /// A stored value cannot be read back.
    #[error("the database holds an unreadable {column}")]
    BadRow {
        /// Which column.
        column: &'static str,
    },
    /// The place for outputs failed.
    #[error(transparent)]
    Outputs(#[from] super::outputs::OutputError),
    /// The rules say no; goes to the caller as a problem of this code.
    #[error("{detail}")]
    Refused {
        /// The problem's code.
        code: ErrorCode,
        /// What exactly, for people.
        detail: String,
    },
}

impl StoreError {
    /// The rules say no.
    pub(crate) fn refused(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::Refused { code, detail: detail.into() }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match result_code(&error) {
            Some(SQLITE_BUSY | SQLITE_LOCKED) => Self::Busy,
            _ if matches!(error, sqlx::Error::PoolTimedOut) => Self::Busy,
            _ => Self::Query(error),
        }
    }
}

const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_NOTADB: i32 = 26;

/// SQLite's primary result code.
fn result_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// The database of one coordinator. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
    writer: Arc<Mutex<()>>,
    path: PathBuf,
}

impl Store {
    /// Opens the file, makes it where there is none, and brings it up to date.
    ///
    /// # Errors
    /// The first seven of [`StoreError`], each saying what to do.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        // SQLite gives its log the mode of the database.
        make_private_file(path)
            .and_then(|()| [path, &beside(path, "-wal"), &beside(path, "-shm")].into_iter().try_for_each(tighten))
            .map_err(|e| open_error(path, sqlx::Error::Io(e)))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("secure_delete", "ON")
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options)
            .await
            .map_err(|source| open_error(path, source))?;
        let store = Self { pool, writer: Arc::new(Mutex::new(())), path: path.to_owned() };
        store.migrate().await?;
        Ok(store)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let migrations = MIGRATIONS.iter().map(|(version, name, sql)| {
            Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
        });
        match Migrator::with_migrations(migrations.collect()).run(&self.pool).await {
            Ok(()) => Ok(()),
            Err(MigrateError::VersionMissing(version)) => Err(StoreError::Newer { path: self.path.clone(), version }),
            Err(MigrateError::Execute(source)) => Err(open_error(&self.path, source)),
            Err(source) => Err(StoreError::Migrate { path: self.path.clone(), source: Box::new(source) }),
        }
    }

    /// Begins a write transaction; waits for its turn. Dropped without [`WriteTx::commit`], it changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the turn does not come within five seconds.
    pub(crate) async fn write(&self) -> Result<WriteTx, StoreError> {
        let guard = self.turn().await?;
        let tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        Ok(WriteTx { tx, _guard: guard })
    }

    async fn turn(&self) -> Result<OwnedMutexGuard<()>, StoreError> {
        let turn = tokio::time::timeout(BUSY_TIMEOUT, Arc::clone(&self.writer).lock_owned());
        turn.await.map_err(|_| StoreError::Busy)
    }

    /// For reading.
    pub(crate) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Bytes of the database file and its log.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let both = [self.path.clone(), beside(&self.path, "-wal")];
        both.iter().filter_map(|p| std::fs::metadata(p).ok()).map(|m| m.len()).sum()
    }

    /// Writes the log back into the file and empties it: it still holds what has been overwritten since, secrets too.
    /// Returns whether it is empty now; a reader in the way makes it stay for the next time.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn empty_log(&self) -> Result<bool, StoreError> {
        if std::fs::metadata(beside(&self.path, "-wal")).is_ok_and(|log| log.len() == 0) {
            return Ok(true);
        }
        let _turn = self.turn().await?;
        // A connection of its own, for it may not wait as long as the others.
        let options = (*self.pool.connect_options()).clone().busy_timeout(CHECKPOINT_PATIENCE);
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let busy: i64 = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(busy == 0)
    }

    /// Writes the log back and closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// A file that SQLite keeps beside the database.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(ending);
    name.into()
}

fn open_error(path: &Path, source: sqlx::Error) -> StoreError {
    let path = path.to_owned();
    match result_code(&source) {
        Some(SQLITE_CORRUPT | SQLITE_NOTADB) => StoreError::Corrupt { path, source },
        Some(SQLITE_BUSY | SQLITE_LOCKED) => StoreError::Locked { path },
        // The pool gives up when every try to connect found the file locked.
        None if matches!(source, sqlx::Error::PoolTimedOut) => StoreError::Locked { path },
        Some(_) | None => StoreError::Open { path, source },
    }
}

/// A write transaction and the turn to write. Use it as a connection: `.execute(&mut *tx)`.
#[derive(Debug)]
pub(crate) struct WriteTx {
    // Declared first, so dropped first: the rollback is queued before the next writer's turn.
    tx: Transaction<'static, Sqlite>,
    _guard: OwnedMutexGuard<()>,
}

impl WriteTx {
    /// Makes it durable.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }
}

impl Deref for WriteTx {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.tx
    }
}

impl DerefMut for WriteTx {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }
}

/// A time as it is stored.
pub(crate) fn millis(time: Timestamp) -> i64 {
    time.as_millisecond()
}

/// A time as it comes back from the store: to the millisecond.
pub(crate) fn to_millis(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(millis(time)).unwrap_or(time)
}

/// A stored time.
pub(crate) fn read_time(row: &SqliteRow, column: &'static str) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(row.try_get(column)?).map_err(|_| StoreError::BadRow { column })
}

/// A stored time that may be absent.
pub(crate) fn read_time_opt(row: &SqliteRow, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
    let stored: Option<i64> = row.try_get(column)?;
    stored.map(|millis| Timestamp::from_millisecond(millis).map_err(|_| StoreError::BadRow { column })).transpose()
}

/// A value stored as text: identifiers.
pub(crate) fn read_text<T: FromStr>(row: &SqliteRow, column: &'static str) -> Result<T, StoreError> {
    row.try_get::<&str, _>(column)?.parse().map_err(|_| StoreError::BadRow { column })
}

/// A value stored as text that may be absent.
pub(crate) fn read_text_opt<T: FromStr>(row: &SqliteRow, column: &'static str) -> Result<Option<T>, StoreError> {
    let stored: Option<&str> = row.try_get(column)?;
    stored.map(|text| text.parse().map_err(|_| StoreError::BadRow { column })).transpose()
}

/// An integer of another width than SQLite's.
pub(crate) fn read_int<T: TryFrom<i64>>(row: &SqliteRow, column: &'static str) -> Result<T, StoreError> {
    T::try_from(row.try_get::<i64, _>(column)?).map_err(|_| StoreError::BadRow { column })
}

/// An integer of another width than SQLite's, that may be absent.
pub(crate) fn read_int_opt<T: TryFrom<i64>>(row: &SqliteRow, column: &'static str) -> Result<Option<T>, StoreError> {
    let stored: Option<i64> = row.try_get(column)?;
    stored.map(|number| T::try_from(number).map_err(|_| StoreError::BadRow { column })).transpose()
}

/// An unsigned number as it is stored; what SQLite cannot hold is stored as its largest.
pub(crate) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A value stored as JSON text that may be absent.
pub(crate) fn read_json_opt<T: serde::de::DeserializeOwned>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<T>, StoreError> {
    let stored: Option<&str> = row.try_get(column)?;
    stored.map(|text| serde_json::from_str(text).map_err(|_| StoreError::BadRow { column })).transpose()
}

/// A value that serialises as a plain string (our snake_case enums), as that string.
pub(crate) fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(_) | Err(_) => "unknown".to_owned(),
    }
}

/// The reverse of [`word`].
pub(crate) fn read_word<T: serde::de::DeserializeOwned>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    serde_json::from_value(serde_json::Value::String(text)).map_err(|_| StoreError::BadRow { column })
}

#[cfg(test)]
mod life_tests;
