//! Tables of the journal and the version they carry.

use std::path::Path;

use sqlx::sqlite::SqlitePool;

use super::JournalError;

/// Version this build writes; kept in SQLite's `user_version`.
pub(super) const VERSION: i64 = 2;

const VERSION_1: &str = "\
CREATE TABLE leases (
    lease_id TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    assignment TEXT NOT NULL,
    saved TEXT NOT NULL DEFAULT '{\"stage\":\"assigned\"}',
    log TEXT NOT NULL DEFAULT '{\"offset\":0,\"stdout\":{\"at_nanos\":0,\"count\":0},\
\"stderr\":{\"at_nanos\":0,\"count\":0},\"cut\":false,\"complete\":false}',
    last_sequence INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE events (
    lease_id TEXT NOT NULL REFERENCES leases (lease_id) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    event TEXT NOT NULL,
    PRIMARY KEY (lease_id, sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
";

/// Images that were pulled for jobs, so that the least recently used can go. Without an id while the pull goes on.
const VERSION_2: &str = "\
CREATE TABLE images (
    reference TEXT PRIMARY KEY,
    image_id TEXT,
    bytes INTEGER NOT NULL DEFAULT 0,
    pulled_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL,
    needed_login INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 2;
";

/// Checks the file and brings it to [`VERSION`].
pub(super) async fn prepare(pool: &SqlitePool, path: &Path) -> Result<(), JournalError> {
    let failed = |error| JournalError::from_sqlx(path, error);
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *tx).await.map_err(failed)?;
    if found > VERSION {
        return Err(JournalError::Newer { path: path.to_owned(), found, known: VERSION });
    }
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut *tx).await.map_err(failed)?;
    if verdict != "ok" {
        return Err(JournalError::Corrupt { path: path.to_owned(), detail: verdict });
    }
    for (version, statements) in [(1, VERSION_1), (2, VERSION_2)] {
        if found < version {
            sqlx::raw_sql(statements).execute(&mut *tx).await.map_err(failed)?;
        }
    }
    tx.commit().await.map_err(failed)
}
