//! The ledger's tables: transactions that balance, posted once each, and the balances they add up to.
//!
//! Invariants
//! - Only [`post`] writes these tables, and only a [`Transaction`] (which sums to zero) can be given to it.
//! - A key is posted once; the same key with the same entries is a repeat and changes nothing, with others a conflict.
//! - No balance but `deposits` falls below zero (checked here and by the table itself).

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::{Store, StoreError, millis, read_int, read_text};
use crate::coordinator::ledger::{Entry, LedgerAccount, LedgerError, Transaction};
use crate::wire::account::{LedgerLine, LedgerView};
use crate::wire::{AccountId, Amount, ErrorCode};

/// What an account of the coordinator has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balances {
    /// Money that can be spent.
    pub spendable: Amount,
    /// Money held for its unfinished jobs.
    pub escrow: Amount,
    /// Money its nodes have earned.
    pub earned: Amount,
}

impl From<LedgerError> for StoreError {
    fn from(error: LedgerError) -> Self {
        Self::refused(ErrorCode::InvalidRequest, error.to_string())
    }
}

impl Store {
    /// Adds money to an account; the same `key` twice adds it once. Returns what can be spent afterwards.
    ///
    /// # Errors
    /// `invalid_request` for an amount of zero or less or past counting, `not_found` for an unknown account, `conflict` when
    /// the key was used for another amount.
    pub async fn deposit(
        &self,
        account_id: AccountId,
        amount: Amount,
        key: &str,
        now: Timestamp,
    ) -> Result<Amount, StoreError> {
        if amount <= Amount::ZERO {
            let detail = format!("a deposit must be above zero, not {amount}");
            return Err(StoreError::refused(ErrorCode::InvalidRequest, detail));
        }
        let transaction = Transaction::deposit(account_id, amount, key)?;
        let mut tx = self.write().await?;
        let known = sqlx::query("SELECT 1 FROM accounts WHERE account_id = ?")
            .bind(account_id.to_string())
            .fetch_optional(&mut *tx)
            .await?;
        if known.is_none() {
            return Err(StoreError::refused(ErrorCode::NotFound, format!("there is no account {account_id}")));
        }
        post(&mut tx, &transaction, now).await?;
        let spendable = balance(&mut tx, LedgerAccount::Spendable(account_id)).await?;
        tx.commit().await?;
        Ok(spendable)
    }

    /// What an account has.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn balances(&self, account_id: AccountId) -> Result<Balances, StoreError> {
        let mut tx = self.pool().begin().await?;
        let spendable = balance(&mut tx, LedgerAccount::Spendable(account_id)).await?;
        let earned = balance(&mut tx, LedgerAccount::Earned(account_id)).await?;
        let escrow: i64 = sqlx::query_scalar(
            "SELECT COALESCE(SUM(b.balance), 0) FROM jobs j JOIN ledger_balances b ON b.account = 'escrow:' || j.job_id \
             WHERE j.account_id = ? AND j.ended_at IS NULL",
        )
        .bind(account_id.to_string())
        .fetch_one(&mut *tx)
        .await?;
        Ok(Balances { spendable, escrow: Amount::from_micros(escrow), earned })
    }

    /// Every balance, and the proof that they add up. Lines of finished jobs' empty escrows are left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ledger_view(&self) -> Result<LedgerView, StoreError> {
        let mut tx = self.pool().begin().await?;
        let rows = sqlx::query(
            "SELECT account, balance FROM ledger_balances WHERE balance <> 0 OR account NOT LIKE 'escrow:%' ORDER BY account",
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut lines = Vec::with_capacity(rows.len());
        for row in &rows {
            let balance = Amount::from_micros(row.try_get("balance")?);
            lines.push(LedgerLine { account: row.try_get("account")?, balance });
        }
        let sum =
            Amount::checked_sum(lines.iter().map(|l| l.balance)).ok_or(StoreError::BadRow { column: "balance" })?;
        let transactions: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM ledger_transactions").fetch_one(&mut *tx).await?;
        let unbalanced: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM (SELECT 1 FROM ledger_entries GROUP BY transaction_id HAVING SUM(amount) <> 0)",
        )
        .fetch_one(&mut *tx)
        .await?;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(LedgerView { lines, sum, transactions: count(transactions), unbalanced: count(unbalanced) })
    }

    /// Ledger accounts whose balance is not the sum of their entries. Always none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ledger_drift(&self) -> Result<Vec<LedgerAccount>, StoreError> {
        let rows = sqlx::query(
            "SELECT b.account FROM ledger_balances b WHERE b.balance <> \
             (SELECT COALESCE(SUM(e.amount), 0) FROM ledger_entries e WHERE e.account = b.account)",
        )
        .fetch_all(self.pool())
        .await?;
        rows.iter().map(|row| read_text(row, "account")).collect()
    }
}

/// Posts a transaction inside the caller's; `false` when it was posted before.
pub(super) async fn post(
    tx: &mut SqliteConnection,
    transaction: &Transaction,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "INSERT INTO ledger_transactions (idempotency_key, posted_at) VALUES (?, ?) \
         ON CONFLICT (idempotency_key) DO NOTHING RETURNING transaction_id",
    )
    .bind(transaction.key())
    .bind(millis(now))
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else {
        repeats(tx, transaction).await?;
        return Ok(false);
    };
    let transaction_id: i64 = row.try_get("transaction_id")?;
    for entry in transaction.entries() {
        sqlx::query("INSERT INTO ledger_entries (transaction_id, account, amount) VALUES (?, ?, ?)")
            .bind(transaction_id)
            .bind(entry.account.to_string())
            .bind(entry.amount.micros())
            .execute(&mut *tx)
            .await?;
        move_balance(tx, *entry).await?;
    }
    Ok(true)
}

async fn move_balance(tx: &mut SqliteConnection, entry: Entry) -> Result<(), StoreError> {
    let before = balance(tx, entry.account).await?;
    let after = before
        .checked_add(entry.amount)
        .ok_or_else(|| StoreError::refused(ErrorCode::InvalidRequest, "that is more money than can be counted"))?;
    if after < Amount::ZERO && !entry.account.may_be_negative() {
        let detail = format!(
            "{} is needed and the account has {before}",
            Amount::ZERO.checked_sub(entry.amount).unwrap_or(before)
        );
        return Err(StoreError::refused(ErrorCode::InsufficientFunds, detail));
    }
    sqlx::query(
        "INSERT INTO ledger_balances (account, balance) VALUES (?, ?) \
         ON CONFLICT (account) DO UPDATE SET balance = excluded.balance",
    )
    .bind(entry.account.to_string())
    .bind(after.micros())
    .execute(tx)
    .await?;
    Ok(())
}

/// The balance of one ledger account; zero when it was never used.
pub(super) async fn balance(tx: &mut SqliteConnection, account: LedgerAccount) -> Result<Amount, StoreError> {
    let balance: Option<i64> = sqlx::query_scalar("SELECT balance FROM ledger_balances WHERE account = ?")
        .bind(account.to_string())
        .fetch_optional(tx)
        .await?;
    Ok(Amount::from_micros(balance.unwrap_or(0)))
}

/// The key is taken: the same entries are a repeat, others a conflict.
async fn repeats(tx: &mut SqliteConnection, transaction: &Transaction) -> Result<(), StoreError> {
    let rows = sqlx::query(
        "SELECT account, amount FROM ledger_entries JOIN ledger_transactions USING (transaction_id) WHERE idempotency_key = ?",
    )
    .bind(transaction.key())
    .fetch_all(tx)
    .await?;
    let mut posted = BTreeMap::new();
    for row in &rows {
        posted.insert(read_text::<LedgerAccount>(row, "account")?, read_int::<i64>(row, "amount")?);
    }
    let wanted: BTreeMap<_, _> = transaction.entries().iter().map(|e| (e.account, e.amount.micros())).collect();
    if posted == wanted {
        return Ok(());
    }
    Err(StoreError::refused(ErrorCode::Conflict, "this idempotency key was used for another amount"))
}
