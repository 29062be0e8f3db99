//! Jobs' lives in the database: the one way a job or lease changes.
//!
//! Invariants
//! - Every change goes through [`advance`]: load the life, ask the pure machine, store what it says — all in the caller's one
//!   write transaction, money, receipt and node generation included.
//! - Nothing is announced before it is committed: [`Changes`] is handed out for that.

use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::jobs::{read_spec, redacted};
use super::{
    Store, StoreError, int, ledger, millis, read_int, read_text, read_time, read_time_opt, read_word, receipts, word,
};
use crate::coordinator::ledger::{LedgerAccount, Settlement, Transaction};
use crate::coordinator::placement::{Action, Ending, Event, Life, LiveLease, Refused};
use crate::coordinator::receipts::Paid;
use crate::coordinator::wake::Wake;
use crate::wire::job::JobState;
use crate::wire::lease::{LeaseEnd, LeaseEvent, LeasePhase};
use crate::wire::{AccountId, Amount, HourlyRate, JobId, LeaseId, NodeId, Sequence};

/// Longest sentence kept for people; nodes write parts of them.
const WHY_CHARS_MAX: usize = 500;
/// Events of one lease that are kept as rows; later ones count but leave no trace.
const EVENTS_KEPT_MAX: u64 = 10_000;

/// How leases are paid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paymaster<'a> {
    /// The network's fee.
    pub(crate) fee_per_mille: u16,
    /// Signs receipts.
    pub(crate) receipt_key: &'a SigningKey,
}

/// Who must be told, once the transaction is durable.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub(crate) struct Changes {
    jobs: Vec<JobId>,
    nodes: Vec<NodeId>,
    match_again: bool,
}

impl Changes {
    /// Wakes everybody concerned. Only after the commit.
    pub(crate) fn announce(self, wake: &Wake) {
        self.jobs.into_iter().for_each(|job| wake.job_changed(job));
        self.nodes.into_iter().for_each(|node| wake.node_changed(node));
        if self.match_again {
            wake.match_jobs();
        }
    }

    /// Takes in what another step changed.
    pub(crate) fn merge(&mut self, other: Self) {
        self.jobs.extend(other.jobs);
        self.nodes.extend(other.nodes);
        self.match_again |= other.match_again;
    }
}

impl Store {
    /// Lets one event happen to a job, in a transaction of its own. `Ok(Err(_))` when the machine refuses it.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn advance_job(
        &self,
        job_id: JobId,
        event: Event<'_>,
        paymaster: Paymaster<'_>,
        now: Timestamp,
    ) -> Result<Result<Changes, Refused>, StoreError> {
        let mut tx = self.write().await?;
        let done = advance(&mut tx, job_id, event, None, paymaster, now).await?;
        if done.is_ok() {
            tx.commit().await?;
        }
        Ok(done)
    }
}

/// Lets one event happen to a job inside the caller's transaction. `rate` is what a placement costs.
pub(super) async fn advance(
    tx: &mut SqliteConnection,
    job_id: JobId,
    event: Event<'_>,
    rate: Option<HourlyRate>,
    paymaster: Paymaster<'_>,
    now: Timestamp,
) -> Result<Result<Changes, Refused>, StoreError> {
    let mut life = load(tx, job_id).await?;
    let before = life.clone();
    let actions = match life.handle(event, now) {
        Ok(actions) => actions,
        Err(refused) => return Ok(Err(refused)),
    };
    let mut changes = Changes::default();
    if life == before {
        return Ok(Ok(changes));
    }
    changes.jobs.push(job_id);
    for action in &actions {
        apply(tx, Applying { job_id, event, rate, paymaster, now }, action, &mut changes).await?;
    }
    save(tx, job_id, &life).await?;
    if let Event::Reported { lease_id, event } = event {
        keep_event(tx, lease_id, event, now).await?;
    }
    Ok(Ok(changes))
}

async fn load(tx: &mut SqliteConnection, job_id: JobId) -> Result<Life, StoreError> {
    let row = sqlx::query(
        "SELECT j.state, j.ending, j.start_deadline_at, j.duration_seconds_max, j.stop_grace_seconds, j.lease_count, \
         j.started_at, l.lease_id, l.node_id, l.made_at, l.running_at, l.frozen_since, l.frozen_millis, l.stop_asked_at, \
         l.phase, l.events_through \
         FROM jobs j LEFT JOIN leases l ON l.job_id = j.job_id AND l.ended_at IS NULL WHERE j.job_id = ?",
    )
    .bind(job_id.to_string())
    .fetch_one(tx)
    .await?;
    let ending = match row.try_get::<Option<&str>, _>("ending")? {
        None => None,
        Some("renter") => Some(Ending::Renter),
        Some("start_deadline") => Some(Ending::StartDeadline),
        Some(_) => return Err(StoreError::BadRow { column: "ending" }),
    };
    let has_live = row.try_get::<Option<&str>, _>("lease_id")?.is_some();
    Ok(Life {
        state: read_word(&row, "state")?,
        ending,
        start_deadline_at: read_time_opt(&row, "start_deadline_at")?,
        duration_seconds_max: read_int(&row, "duration_seconds_max")?,
        stop_grace_seconds: read_int(&row, "stop_grace_seconds")?,
        lease_count: read_int(&row, "lease_count")?,
        started: read_time_opt(&row, "started_at")?.is_some(),
        live: if has_live { Some(read_live(&row)?) } else { None },
    })
}

fn read_live(row: &SqliteRow) -> Result<LiveLease, StoreError> {
    Ok(LiveLease {
        lease_id: read_text(row, "lease_id")?,
        node_id: read_text(row, "node_id")?,
        made_at: read_time(row, "made_at")?,
        running_at: read_time_opt(row, "running_at")?,
        frozen_since: read_time_opt(row, "frozen_since")?,
        frozen_millis: read_int(row, "frozen_millis")?,
        stop_asked_at: read_time_opt(row, "stop_asked_at")?,
        phase: read_word(row, "phase")?,
        through: Sequence(read_int(row, "events_through")?),
    })
}

/// Stores what decisions read; what only people read was stored by [`apply`].
async fn save(tx: &mut SqliteConnection, job_id: JobId, life: &Life) -> Result<(), StoreError> {
    let ending = life.ending.map(|ending| match ending {
        Ending::Renter => "renter",
        Ending::StartDeadline => "start_deadline",
    });
    sqlx::query("UPDATE jobs SET state = ?, ending = ?, lease_count = ? WHERE job_id = ?")
        .bind(word(&life.state))
        .bind(ending)
        .bind(life.lease_count)
        .bind(job_id.to_string())
        .execute(&mut *tx)
        .await?;
    let Some(live) = &life.live else { return Ok(()) };
    sqlx::query(
        "UPDATE leases SET phase = ?, running_at = ?, frozen_since = ?, frozen_millis = ?, stop_asked_at = ?, \
         events_through = ? WHERE lease_id = ?",
    )
    .bind(word(&live.phase))
    .bind(live.running_at.map(millis))
    .bind(live.frozen_since.map(millis))
    .bind(live.frozen_millis)
    .bind(live.stop_asked_at.map(millis))
    .bind(int(live.through.0))
    .bind(live.lease_id.to_string())
    .execute(tx)
    .await?;
    Ok(())
}

/// What an action needs to know beside itself.
#[derive(Clone, Copy)]
struct Applying<'a> {
    job_id: JobId,
    event: Event<'a>,
    rate: Option<HourlyRate>,
    paymaster: Paymaster<'a>,
    now: Timestamp,
}

async fn apply(
    tx: &mut SqliteConnection,
    what: Applying<'_>,
    action: &Action,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    match action {
        Action::Open { lease_id, node_id } => {
            changes.nodes.push(*node_id);
            open(tx, what, *lease_id, *node_id).await
        }
        Action::Phase { pull_per_mille, why, .. } => {
            let per_mille = pull_per_mille.map(|p| p.min(1000));
            sqlx::query("UPDATE leases SET pull_per_mille = ? WHERE job_id = ? AND ended_at IS NULL")
                .bind(per_mille)
                .bind(what.job_id.to_string())
                .execute(&mut *tx)
                .await?;
            set_why(tx, what.job_id, why).await
        }
        Action::Started => {
            sqlx::query("UPDATE jobs SET started_at = ? WHERE job_id = ?")
                .bind(millis(what.now))
                .bind(what.job_id.to_string())
                .execute(tx)
                .await?;
            Ok(())
        }
        Action::Stop { lease_id, node_id } => {
            changes.nodes.push(*node_id);
            let generation = bump_generation(tx, *node_id).await?;
            sqlx::query("UPDATE leases SET generation = ? WHERE lease_id = ?")
                .bind(generation)
                .bind(lease_id.to_string())
                .execute(&mut *tx)
                .await?;
            set_why(tx, what.job_id, "asked to stop; waits for the node to hand over its log and output").await
        }
        Action::Close { lease_id, node_id, end, pay_millis } => {
            changes.nodes.push(*node_id);
            changes.match_again = true;
            close(tx, what, Closing { lease_id: *lease_id, node_id: *node_id, end, pay_millis: *pay_millis }).await
        }
        Action::Requeue { why } => {
            changes.match_again = true;
            set_why(tx, what.job_id, why).await
        }
        Action::Finish { outcome, why, state: _ } => finish(tx, what, outcome.as_ref(), why).await,
    }
}

async fn open(
    tx: &mut SqliteConnection,
    what: Applying<'_>,
    lease_id: LeaseId,
    node_id: NodeId,
) -> Result<(), StoreError> {
    let rate = what.rate.ok_or(StoreError::BadRow { column: "rate" })?;
    let generation = bump_generation(tx, node_id).await?;
    sqlx::query("UPDATE nodes SET leased_at = ? WHERE node_id = ?")
        .bind(millis(what.now))
        .bind(node_id.to_string())
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "INSERT INTO leases (lease_id, job_id, node_id, owner_id, number, rate, generation, phase, made_at, log_base) \
         SELECT ?, j.job_id, n.node_id, n.account_id, j.lease_count + 1, ?, ?, ?, ?, j.log_bytes \
         FROM jobs j, nodes n WHERE j.job_id = ? AND n.node_id = ?",
    )
    .bind(lease_id.to_string())
    .bind(rate.micros())
    .bind(generation)
    .bind(word(&LeasePhase::Assigned))
    .bind(millis(what.now))
    .bind(what.job_id.to_string())
    .bind(node_id.to_string())
    .execute(&mut *tx)
    .await?;
    set_why(tx, what.job_id, "placed; waits for the node to take it up").await
}

#[derive(Clone, Copy)]
struct Closing<'a> {
    lease_id: LeaseId,
    node_id: NodeId,
    end: &'a LeaseEnd,
    pay_millis: Option<u64>,
}

async fn close(tx: &mut SqliteConnection, what: Applying<'_>, closing: Closing<'_>) -> Result<(), StoreError> {
    let by_node = match what.event {
        Event::Reported { event, .. } => Some(event.sequence),
        Event::Placed { .. }
        | Event::NodeSilent { .. }
        | Event::NodeForgot { .. }
        | Event::StopRequested
        | Event::Tick => None,
    };
    let row = sqlx::query(
        "UPDATE leases SET phase = ?, ended_at = ?, ended_by_node = ?, end = ?, pull_per_mille = NULL, \
         events_through = COALESCE(?, events_through) WHERE lease_id = ? AND ended_at IS NULL RETURNING rate, owner_id",
    )
    .bind(word(&closing.end.phase()))
    .bind(millis(what.now))
    .bind(by_node.is_some())
    .bind(json(closing.end))
    .bind(by_node.map(|sequence| int(sequence.0)))
    .bind(closing.lease_id.to_string())
    .fetch_one(&mut *tx)
    .await?;
    bump_generation(tx, closing.node_id).await?;
    let Some(billed_millis) = closing.pay_millis else { return Ok(()) };
    let rate =
        HourlyRate::try_from(read_int::<i64>(&row, "rate")?).map_err(|_| StoreError::BadRow { column: "rate" })?;
    let owner_id: AccountId = read_text(&row, "owner_id")?;
    let pay = Settlement::of(rate, billed_millis, what.paymaster.fee_per_mille);
    ledger::post(tx, &Transaction::settle_lease(closing.lease_id, what.job_id, owner_id, pay)?, what.now).await?;
    sqlx::query("UPDATE jobs SET cost = cost + ? WHERE job_id = ?")
        .bind(pay.gross.micros())
        .bind(what.job_id.to_string())
        .execute(&mut *tx)
        .await?;
    sqlx::query("UPDATE leases SET net = ? WHERE lease_id = ?")
        .bind(pay.net.micros())
        .bind(closing.lease_id.to_string())
        .execute(&mut *tx)
        .await?;
    let paid = Paid {
        node_id: closing.node_id,
        lease_id: closing.lease_id,
        job_id: what.job_id,
        ended_at: what.now,
        rate,
        pay,
    };
    receipts::issue(tx, &paid, what.paymaster.receipt_key).await
}

async fn finish(
    tx: &mut SqliteConnection,
    what: Applying<'_>,
    outcome: Option<&LeaseEnd>,
    why: &str,
) -> Result<(), StoreError> {
    let row = sqlx::query("UPDATE jobs SET ended_at = ?, outcome = ? WHERE job_id = ? RETURNING account_id")
        .bind(millis(what.now))
        .bind(outcome.map(json))
        .bind(what.job_id.to_string())
        .fetch_one(&mut *tx)
        .await?;
    set_why(tx, what.job_id, why).await?;
    forget_secrets(tx, what.job_id).await?;
    let renter: AccountId = read_text(&row, "account_id")?;
    let left: Amount = ledger::balance(tx, LedgerAccount::Escrow(what.job_id)).await?;
    ledger::post(tx, &Transaction::release_escrow(what.job_id, renter, left)?, what.now).await?;
    Ok(())
}

/// Nobody needs the values of a final job's environment any more.
async fn forget_secrets(tx: &mut SqliteConnection, job_id: JobId) -> Result<(), StoreError> {
    let row =
        sqlx::query("SELECT spec FROM jobs WHERE job_id = ?").bind(job_id.to_string()).fetch_one(&mut *tx).await?;
    sqlx::query("UPDATE jobs SET spec = ? WHERE job_id = ?")
        .bind(json(&redacted(read_spec(&row)?)))
        .bind(job_id.to_string())
        .execute(tx)
        .await?;
    Ok(())
}

async fn keep_event(
    tx: &mut SqliteConnection,
    lease_id: LeaseId,
    event: &LeaseEvent,
    now: Timestamp,
) -> Result<(), StoreError> {
    if event.sequence.0 > EVENTS_KEPT_MAX {
        return Ok(());
    }
    sqlx::query("INSERT INTO lease_events (lease_id, sequence, at, received_at, what) VALUES (?, ?, ?, ?, ?)")
        .bind(lease_id.to_string())
        .bind(int(event.sequence.0))
        .bind(millis(event.at))
        .bind(millis(now))
        .bind(json(&event.what))
        .execute(tx)
        .await?;
    Ok(())
}

/// The node gets new assignments.
pub(super) async fn bump_generation(tx: &mut SqliteConnection, node_id: NodeId) -> Result<i64, StoreError> {
    let generation = sqlx::query_scalar(
        "UPDATE nodes SET assignment_generation = assignment_generation + 1 WHERE node_id = ? \
         RETURNING assignment_generation",
    )
    .bind(node_id.to_string())
    .fetch_one(tx)
    .await?;
    Ok(generation)
}

async fn set_why(tx: &mut SqliteConnection, job_id: JobId, why: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE jobs SET why = ? WHERE job_id = ?")
        .bind(why.chars().take(WHY_CHARS_MAX).collect::<String>())
        .bind(job_id.to_string())
        .execute(tx)
        .await?;
    Ok(())
}

/// A job that is not final and has no lease waits.
pub(super) fn waits() -> String {
    word(&JobState::Queued)
}

/// A value as JSON text.
pub(super) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("wire types have no map with other keys than text")
}
