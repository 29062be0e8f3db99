//! The nodes' chains of receipts, and what they add up to.

use ed25519_dalek::SigningKey;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::lives::json;
use super::{Store, StoreError, int, millis, read_int, read_time};
use crate::coordinator::receipts::{ChainEnd, Paid, next};
use crate::wire::account::{DayEarnings, Earnings, Receipt};
use crate::wire::{Amount, HourlyRate, NodeId, Sequence};

/// Receipts in one answer.
const RECEIPTS_MAX: i64 = 100;
/// Days in [`Earnings::days`].
const DAYS_MAX: usize = 31;
const DAY_MILLIS: i64 = 24 * 3600 * 1000;

impl Store {
    /// A node's receipts after `after`, oldest first, at most 100.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn receipts(&self, node_id: NodeId, after: Sequence) -> Result<Vec<Receipt>, StoreError> {
        let rows =
            sqlx::query("SELECT receipt FROM receipts WHERE node_id = ? AND sequence > ? ORDER BY sequence LIMIT ?")
                .bind(node_id.to_string())
                .bind(int(after.0))
                .bind(RECEIPTS_MAX)
                .fetch_all(self.pool())
                .await?;
        rows.iter()
            .map(|row| {
                let text: &str = row.try_get("receipt")?;
                serde_json::from_str(text).map_err(|_| StoreError::BadRow { column: "receipt" })
            })
            .collect()
    }

    /// What a node has earned, net of the fee.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn earnings(&self, node_id: NodeId, fee_per_mille: u16, now: Timestamp) -> Result<Earnings, StoreError> {
        let mut tx = self.pool().begin().await?;
        let today = now.to_zoned(TimeZone::UTC).date();
        let days = earned_by_day(&mut tx, node_id, today).await?;
        let row =
            sqlx::query("SELECT COALESCE(SUM(net), 0) AS net, COUNT(*) AS leases FROM receipts WHERE node_id = ?")
                .bind(node_id.to_string())
                .fetch_one(&mut *tx)
                .await?;
        let since = |earliest: Date| {
            Amount::checked_sum(days.iter().filter(|d| d.date >= earliest).map(|d| d.net)).unwrap_or(Amount::ZERO)
        };
        let week = today.checked_sub(6.days()).unwrap_or(today);
        Ok(Earnings {
            as_of: now,
            today: since(today),
            last_7_days: since(week),
            all_time: Amount::from_micros(row.try_get("net")?),
            pending: pending(&mut tx, node_id, fee_per_mille, now).await?,
            leases_paid: read_int(&row, "leases")?,
            fee_per_mille,
            days,
        })
    }
}

async fn earned_by_day(
    tx: &mut SqliteConnection,
    node_id: NodeId,
    today: Date,
) -> Result<Vec<DayEarnings>, StoreError> {
    let earliest = today.checked_sub(30.days()).unwrap_or(today);
    let from = earliest.to_zoned(TimeZone::UTC).map_err(|_| StoreError::BadRow { column: "ended_at" })?.timestamp();
    let rows = sqlx::query(
        "SELECT ended_at / ? AS day, SUM(net) AS net, COUNT(*) AS leases, MIN(ended_at) AS at FROM receipts \
         WHERE node_id = ? AND ended_at >= ? GROUP BY day ORDER BY day DESC",
    )
    .bind(DAY_MILLIS)
    .bind(node_id.to_string())
    .bind(millis(from))
    .fetch_all(tx)
    .await?;
    rows.iter()
        .take(DAYS_MAX)
        .map(|row| {
            let date = read_time(row, "at")?.to_zoned(TimeZone::UTC).date();
            Ok(DayEarnings { date, net: Amount::from_micros(row.try_get("net")?), leases: read_int(row, "leases")? })
        })
        .collect()
}

/// What live leases would pay if they ended now; an estimate from the coordinator's own clock.
async fn pending(
    tx: &mut SqliteConnection,
    node_id: NodeId,
    fee_per_mille: u16,
    now: Timestamp,
) -> Result<Amount, StoreError> {
    let rows = sqlx::query(
        "SELECT l.rate, l.running_at, l.frozen_millis, COALESCE(l.frozen_since, ?) AS until, j.duration_seconds_max \
         FROM leases l JOIN jobs j USING (job_id) \
         WHERE l.node_id = ? AND l.ended_at IS NULL AND l.running_at IS NOT NULL",
    )
    .bind(millis(now))
    .bind(node_id.to_string())
    .fetch_all(tx)
    .await?;
    let mut sum = Amount::ZERO;
    for row in &rows {
        let ran = row.try_get::<i64, _>("until")?
            - row.try_get::<i64, _>("running_at")?
            - row.try_get::<i64, _>("frozen_millis")?;
        let longest = read_int::<u64>(row, "duration_seconds_max")?.saturating_mul(1000);
        let rate =
            HourlyRate::try_from(row.try_get::<i64, _>("rate")?).map_err(|_| StoreError::BadRow { column: "rate" })?;
        let pay = crate::coordinator::ledger::Settlement::of(
            rate,
            u64::try_from(ran).unwrap_or(0).min(longest),
            fee_per_mille,
        );
        sum = sum.checked_add(pay.net).unwrap_or(sum);
    }
    Ok(sum)
}

/// Adds the next receipt to a node's chain, inside the transaction that pays it.
pub(super) async fn issue(tx: &mut SqliteConnection, paid: &Paid, key: &SigningKey) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT sequence, sha256 FROM receipts WHERE node_id = ? ORDER BY sequence DESC LIMIT 1")
        .bind(paid.node_id.to_string())
        .fetch_optional(&mut *tx)
        .await?;
    let chain = match row {
        Some(row) => ChainEnd { sequence: Sequence(read_int(&row, "sequence")?), sha256: row.try_get("sha256")? },
        None => ChainEnd::default(),
    };
    let (receipt, sha256) = next(&chain, paid, key);
    sqlx::query(
        "INSERT INTO receipts (node_id, sequence, lease_id, ended_at, net, sha256, receipt) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(paid.node_id.to_string())
    .bind(int(receipt.sequence.0))
    .bind(paid.lease_id.to_string())
    .bind(millis(paid.ended_at))
    .bind(receipt.net.micros())
    .bind(sha256)
    .bind(json(&receipt))
    .execute(tx)
    .await?;
    Ok(())
}
