//! Joining: join tokens and device-code enrolments.
//!
//! Invariants
//! - A join token enrols one key, once; two keys that race for it are ordered by the write transaction.
//! - A public key belongs to one node for ever, and asking again gives that node back.

use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::nodes::{NewNode, add_node, node_by_key, read_key};
use super::{Store, StoreError, millis, read_text, read_text_opt, read_time, read_word, to_millis};
use crate::coordinator::user_code::UserCode;
use crate::wire::enroll::EnrollDecision;
use crate::wire::{AccountId, EnrollmentId, ErrorCode, NodeId, PublicKey};

/// Enrolments that may wait for their owner at once, over all machines.
const PENDING_MAX: i64 = 10_000;

/// A machine that asks to join.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Joiner<'a> {
    /// Its identity, whose possession is proven.
    pub(crate) public_key: &'a PublicKey,
    /// Its name.
    pub(crate) name: &'a str,
    /// Version of its agent.
    pub(crate) agent_version: &'a str,
}

/// A device-code enrolment as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct EnrollmentRow {
    /// The enrolment.
    pub(crate) enrollment_id: EnrollmentId,
    /// The machine's key.
    pub(crate) public_key: PublicKey,
    /// The machine's name.
    pub(crate) name: String,
    /// Version of its agent.
    pub(crate) agent_version: String,
    /// The code for people.
    pub(crate) user_code: UserCode,
    /// When the code runs out.
    pub(crate) expires_at: Timestamp,
    /// What was decided.
    pub(crate) decision: EnrollDecision,
    /// Who decided.
    pub(crate) account_id: Option<AccountId>,
    /// The node, once approved.
    pub(crate) node_id: Option<NodeId>,
}

/// Where a machine without a join token stands.
#[derive(Debug, Clone)]
pub(crate) enum Begun {
    /// It is a node already.
    Known(NodeId),
    /// Its owner has to approve.
    Pending(EnrollmentRow),
}

impl Store {
    /// Adds a single-use join token.
    pub(crate) async fn add_join_token(
        &self,
        token_sha256: &[u8; 32],
        account_id: AccountId,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("INSERT INTO join_tokens (token_sha256, account_id, created_at, expires_at) VALUES (?, ?, ?, ?)")
            .bind(&token_sha256[..])
            .bind(account_id.to_string())
            .bind(millis(now))
            .bind(millis(expires_at))
            .execute(&mut *tx)
            .await?;
        tx.commit().await
    }

    /// Enrols a machine by join token. Repeating it with the same key and token finds the same node.
    pub(crate) async fn enroll_by_token(
        &self,
        token_sha256: &[u8; 32],
        joiner: Joiner<'_>,
        now: Timestamp,
    ) -> Result<NodeId, StoreError> {
        let mut tx = self.write().await?;
        let token = sqlx::query("SELECT account_id, expires_at, used_by FROM join_tokens WHERE token_sha256 = ?")
            .bind(&token_sha256[..])
            .fetch_optional(&mut *tx)
            .await?;
        let token = token.ok_or_else(|| StoreError::refused(ErrorCode::TokenInvalid, ""))?;
        let known = node_by_key(&mut tx, joiner.public_key).await?;
        if let Some(used_by) = token.try_get::<Option<&[u8]>, _>("used_by")? {
            return match known {
                Some(node) if used_by == joiner.public_key.as_bytes() => Ok(node.node_id),
                Some(_) | None => Err(StoreError::refused(ErrorCode::TokenUsed, "")),
            };
        }
        let expires_at = read_time(&token, "expires_at")?;
        if expires_at <= now {
            return Err(StoreError::refused(ErrorCode::TokenExpired, format!("it ran out at {expires_at:.0}")));
        }
        let account_id: AccountId = read_text(&token, "account_id")?;
        if let Some(node) = known {
            // Already in: the token stays good for another machine.
            return same_owner(node.account_id, account_id).map(|()| node.node_id);
        }
        let Joiner { public_key, name, agent_version } = joiner;
        let node_id = add_node(&mut tx, NewNode { public_key, name, agent_version, account_id }, now).await?;
        sqlx::query("UPDATE join_tokens SET used_by = ?, used_at = ? WHERE token_sha256 = ?")
            .bind(&public_key.as_bytes()[..])
            .bind(millis(now))
            .bind(&token_sha256[..])
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(node_id)
    }

    /// Begins a device-code enrolment, or finds the machine's pending one. `fresh` is used when a new one is needed.
    pub(crate) async fn begin_enrollment(
        &self,
        joiner: Joiner<'_>,
        fresh: (EnrollmentId, UserCode),
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Begun, StoreError> {
        let mut tx = self.write().await?;
        if let Some(node) = node_by_key(&mut tx, joiner.public_key).await? {
            return Ok(Begun::Known(node.node_id));
        }
        let pending = sqlx::query(
            "SELECT * FROM enrollments WHERE public_key = ? AND status = 'pending' AND expires_at > ? \
             ORDER BY created_at DESC LIMIT 1",
        )
        .bind(&joiner.public_key.as_bytes()[..])
        .bind(millis(now))
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(row) = pending {
            return enrollment_row(&row).map(Begun::Pending);
        }
        let waiting: i64 =
            sqlx::query_scalar("SELECT count(*) FROM enrollments WHERE status = 'pending' AND expires_at > ?")
                .bind(millis(now))
                .fetch_one(&mut *tx)
                .await?;
        if waiting >= PENDING_MAX {
            let detail = "too many machines wait for their owners; try again in some minutes";
            return Err(StoreError::refused(ErrorCode::Unavailable, detail));
        }
        let row = EnrollmentRow {
            enrollment_id: fresh.0,
            public_key: *joiner.public_key,
            name: joiner.name.to_owned(),
            agent_version: joiner.agent_version.to_owned(),
            user_code: fresh.1,
            expires_at: to_millis(expires_at),
            decision: EnrollDecision::Pending,
            account_id: None,
            node_id: None,
        };
        insert_enrollment(&mut tx, &row, now).await?;
        tx.commit().await?;
        Ok(Begun::Pending(row))
    }

    /// An enrolment by its identifier.
    pub(crate) async fn enrollment(&self, id: EnrollmentId) -> Result<Option<EnrollmentRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM enrollments WHERE enrollment_id = ?")
            .bind(id.to_string())
            .fetch_optional(self.pool())
            .await?;
        row.as_ref().map(enrollment_row).transpose()
    }

    /// An enrolment by its code, unless the code ran out undecided.
    pub(crate) async fn enrollment_by_code(&self, code: UserCode, now: Timestamp) -> Result<EnrollmentRow, StoreError> {
        let row = sqlx::query("SELECT * FROM enrollments WHERE user_code = ?")
            .bind(code.as_str())
            .fetch_optional(self.pool())
            .await?;
        readable(row.as_ref(), code, now)
    }

    /// Approves or denies an enrolment. Deciding the same again is harmless; deciding otherwise is refused.
    pub(crate) async fn decide_enrollment(
        &self,
        code: UserCode,
        account_id: AccountId,
        approve: bool,
        now: Timestamp,
    ) -> Result<EnrollmentRow, StoreError> {
        let mut tx = self.write().await?;
        let row = sqlx::query("SELECT * FROM enrollments WHERE user_code = ?")
            .bind(code.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        let mut row = readable(row.as_ref(), code, now)?;
        let decision = if approve { EnrollDecision::Approved } else { EnrollDecision::Denied };
        if row.decision != EnrollDecision::Pending {
            return if row.decision == decision && row.account_id == Some(account_id) {
                Ok(row)
            } else {
                Err(StoreError::refused(ErrorCode::Conflict, "this code has been decided already"))
            };
        }
        if approve {
            row.node_id = Some(approved_node(&mut tx, &row, account_id, now).await?);
        }
        (row.decision, row.account_id) = (decision, Some(account_id));
        sqlx::query(
            "UPDATE enrollments SET status = ?, account_id = ?, node_id = ?, decided_at = ? WHERE enrollment_id = ?",
        )
        .bind(super::word(&decision))
        .bind(account_id.to_string())
        .bind(row.node_id.map(|id| id.to_string()))
        .bind(millis(now))
        .bind(row.enrollment_id.to_string())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(row)
    }
}

async fn approved_node(
    db: &mut SqliteConnection,
    row: &EnrollmentRow,
    account_id: AccountId,
    now: Timestamp,
) -> Result<NodeId, StoreError> {
    // The machine may have joined by token while its code waited.
    if let Some(node) = node_by_key(db, &row.public_key).await? {
        return same_owner(node.account_id, account_id).map(|()| node.node_id);
    }
    let node = NewNode { public_key: &row.public_key, name: &row.name, agent_version: &row.agent_version, account_id };
    add_node(db, node, now).await
}

fn same_owner(has: AccountId, wants: AccountId) -> Result<(), StoreError> {
    if has == wants {
        return Ok(());
    }
    Err(StoreError::refused(ErrorCode::Conflict, "this machine's key is enrolled under another account already"))
}

fn readable(row: Option<&SqliteRow>, code: UserCode, now: Timestamp) -> Result<EnrollmentRow, StoreError> {
    let unknown = || StoreError::refused(ErrorCode::NotFound, format!("no machine waits with the code {code}"));
    let row = enrollment_row(row.ok_or_else(unknown)?)?;
    if row.decision == EnrollDecision::Pending && row.expires_at <= now {
        let detail = format!("the code {code} has run out; start the enrolment on the machine again");
        return Err(StoreError::refused(ErrorCode::NotFound, detail));
    }
    Ok(row)
}

async fn insert_enrollment(db: &mut SqliteConnection, row: &EnrollmentRow, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO enrollments (enrollment_id, public_key, name, agent_version, user_code, created_at, expires_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(row.enrollment_id.to_string())
    .bind(&row.public_key.as_bytes()[..])
    .bind(&row.name)
    .bind(&row.agent_version)
    .bind(row.user_code.as_str())
    .bind(millis(now))
    .bind(millis(row.expires_at))
    .execute(db)
    .await?;
    Ok(())
}

fn enrollment_row(row: &SqliteRow) -> Result<EnrollmentRow, StoreError> {
    Ok(EnrollmentRow {
        enrollment_id: read_text(row, "enrollment_id")?,
        public_key: read_key(row, "public_key")?,
        name: row.try_get("name")?,
        agent_version: row.try_get("agent_version")?,
        user_code: read_text(row, "user_code")?,
        expires_at: read_time(row, "expires_at")?,
        decision: read_word(row, "status")?,
        account_id: read_text_opt(row, "account_id")?,
        node_id: read_text_opt(row, "node_id")?,
    })
}
