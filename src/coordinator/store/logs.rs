//! Jobs' logs and where their outputs lie.
//!
//! Invariants
//! - A job's log has no gaps and no overlaps: a chunk starts where the one before ended.
//! - Only the job's live lease adds to it, so a lease's part is contiguous.
//! - Chunks hold whole frames only.

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use sqlx::Row as _;

use super::jobs::{read_spec, unknown_job};
use super::leases::{lease_ended, lease_head, unknown_lease};
use super::{Store, StoreError, int, millis, read_int, read_text, read_time_opt};
use crate::wire::logs::whole_frames;
use crate::wire::{AccountId, ErrorCode, JobId, LeaseId, NodeId};

/// Framed bytes a log may have beyond its limit: a byte written alone takes six with its frame's header.
const FRAMING_FACTOR: u64 = 6;
/// Room for the notice that the log was cut.
const NOTICE_BYTES: u64 = 64 << 10;
/// Bytes read from a log at once (one chunk more at most).
const READ_BYTES: usize = 256 << 10;

/// A piece of a lease's log, as its node sends it.
#[derive(Debug)]
pub(crate) struct LogUpload<'a> {
    /// Framed bytes of this lease before `bytes`.
    pub(crate) offset: u64,
    /// Whole frames.
    pub(crate) bytes: &'a [u8],
    /// Whether nothing follows.
    pub(crate) complete: bool,
}

/// A piece of a job's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPiece {
    /// Framed bytes from the asked offset on; empty when there are none yet.
    pub bytes: Bytes,
    /// Whether the job is final and these are its last bytes.
    pub is_last: bool,
}

impl Store {
    /// Adds to a lease's log, skipping what is held already. Returns how much is held now, and the job.
    ///
    /// # Errors
    /// `offset_gap` (with the offset to send from as its detail), `lease_ended`, `too_large` past the job's limit,
    /// `invalid_request` for what is no frames, `conflict` for bytes after the end.
    pub(crate) async fn append_log(
        &self,
        node_id: NodeId,
        lease_id: LeaseId,
        upload: &LogUpload<'_>,
    ) -> Result<(u64, JobId), StoreError> {
        let mut tx = self.write().await?;
        let row = sqlx::query(
            "SELECT l.job_id, l.log_base, l.log_bytes AS held, l.log_complete, l.ended_at, j.spec \
             FROM leases l JOIN jobs j USING (job_id) WHERE l.lease_id = ? AND l.node_id = ?",
        )
        .bind(lease_id.to_string())
        .bind(node_id.to_string())
        .fetch_optional(&mut *tx)
        .await?
        .ok_or_else(|| unknown_lease(lease_id))?;
        if read_time_opt(&row, "ended_at")?.is_some() {
            return Err(lease_ended(lease_id));
        }
        let job_id: JobId = read_text(&row, "job_id")?;
        let held: u64 = read_int(&row, "held")?;
        let limit = read_spec(&row)?.limits.log_bytes_max.saturating_mul(FRAMING_FACTOR).saturating_add(NOTICE_BYTES);
        let new = fresh_part(upload, held, row.try_get("log_complete")?, limit)?;
        let now_held = held + new.len() as u64;
        if !new.is_empty() {
            let start = read_int::<u64>(&row, "log_base")? + held;
            sqlx::query("INSERT INTO log_chunks (job_id, start, bytes) VALUES (?, ?, ?)")
                .bind(job_id.to_string())
                .bind(int(start))
                .bind(new)
                .execute(&mut *tx)
                .await?;
            sqlx::query("UPDATE jobs SET log_bytes = log_bytes + ? WHERE job_id = ?")
                .bind(int(new.len() as u64))
                .bind(job_id.to_string())
                .execute(&mut *tx)
                .await?;
        }
        let ends_here = upload.complete && upload.offset + upload.bytes.len() as u64 == now_held;
        sqlx::query("UPDATE leases SET log_bytes = ?, log_complete = log_complete OR ? WHERE lease_id = ?")
            .bind(int(now_held))
            .bind(ends_here)
            .bind(lease_id.to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok((now_held, job_id))
    }

    /// A piece of the log of a job of `account_id`, from `offset` on.
    ///
    /// # Errors
    /// `not_found`, also for somebody else's job.
    pub async fn read_log(&self, account_id: AccountId, job_id: JobId, offset: u64) -> Result<LogPiece, StoreError> {
        // Read before the chunks: when the job was final then, no chunk came after.
        let row = sqlx::query("SELECT log_bytes, ended_at FROM jobs WHERE job_id = ? AND account_id = ?")
            .bind(job_id.to_string())
            .bind(account_id.to_string())
            .fetch_optional(self.pool())
            .await?
            .ok_or_else(|| unknown_job(job_id))?;
        let is_final = read_time_opt(&row, "ended_at")?.is_some();
        let log_bytes: u64 = read_int(&row, "log_bytes")?;
        if offset >= log_bytes {
            return Ok(LogPiece { bytes: Bytes::new(), is_last: is_final });
        }
        let mut rows = sqlx::query(
            "SELECT start, bytes FROM log_chunks WHERE job_id = ?1 AND start >= \
             (SELECT MAX(start) FROM log_chunks WHERE job_id = ?1 AND start <= ?2) ORDER BY start",
        )
        .bind(job_id.to_string())
        .bind(int(offset))
        .fetch(self.pool());
        let mut piece = BytesMut::new();
        while piece.len() < READ_BYTES
            && let Some(row) = rows.try_next().await?
        {
            let skip = usize::try_from(offset.saturating_sub(read_int(&row, "start")?)).unwrap_or(usize::MAX);
            piece.extend_from_slice(row.try_get::<&[u8], _>("bytes")?.get(skip..).unwrap_or_default());
        }
        let is_last = is_final && offset + piece.len() as u64 >= log_bytes;
        Ok(LogPiece { bytes: piece.freeze(), is_last })
    }

    /// A live lease's job, and the largest output it may hand over.
    ///
    /// # Errors
    /// `lease_ended`, `not_found`.
    pub(crate) async fn output_limit(&self, node_id: NodeId, lease_id: LeaseId) -> Result<(JobId, u64), StoreError> {
        let row = sqlx::query(
            "SELECT l.job_id, l.ended_at AS lease_ended_at, j.spec FROM leases l JOIN jobs j USING (job_id) \
             WHERE l.lease_id = ? AND l.node_id = ?",
        )
        .bind(lease_id.to_string())
        .bind(node_id.to_string())
        .fetch_optional(self.pool())
        .await?
        .ok_or_else(|| unknown_lease(lease_id))?;
        if read_time_opt(&row, "lease_ended_at")?.is_some() {
            return Err(lease_ended(lease_id));
        }
        Ok((read_text(&row, "job_id")?, read_spec(&row)?.limits.output_bytes_max))
    }

    /// The output of a lease, if it was recorded with this SHA-256.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn recorded_output(
        &self,
        lease_id: LeaseId,
        sha256: &str,
    ) -> Result<Option<super::StoredOutput>, StoreError> {
        let row = sqlx::query("SELECT object, bytes, sha256 FROM outputs WHERE lease_id = ? AND sha256 = ?")
            .bind(lease_id.to_string())
            .bind(sha256)
            .fetch_optional(self.pool())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (object, bytes) = (row.try_get("object")?, super::read_int(&row, "bytes")?);
        Ok(Some(super::StoredOutput { object, bytes, sha256: row.try_get("sha256")? }))
    }

    /// Makes an uploaded object a live lease's output. Returns the job, and the object that is not needed any more:
    /// the one before, or this one where it holds the same.
    ///
    /// # Errors
    /// `lease_ended`, `not_found`; `Busy` too means that nothing was recorded.
    pub(crate) async fn record_output(
        &self,
        node_id: NodeId,
        lease_id: LeaseId,
        output: &super::StoredOutput,
        now: Timestamp,
    ) -> Result<(JobId, Option<String>), StoreError> {
        let mut tx = self.write().await?;
        let head = lease_head(&mut tx, node_id, lease_id).await?;
        if head.ended {
            return Err(lease_ended(lease_id));
        }
        let before = sqlx::query("SELECT object, sha256 FROM outputs WHERE lease_id = ?")
            .bind(lease_id.to_string())
            .fetch_optional(&mut *tx)
            .await?;
        let mut surplus = None;
        if let Some(before) = before {
            if before.try_get::<&str, _>("sha256")? == output.sha256 {
                // A repeat. The first one stays: somebody may be about to read it.
                return Ok((head.job_id, Some(output.object.clone())));
            }
            surplus = Some(before.try_get("object")?);
        }
        sqlx::query(
            "INSERT INTO outputs (lease_id, job_id, object, bytes, sha256, stored_at) VALUES (?, ?, ?, ?, ?, ?) \
             ON CONFLICT (lease_id) DO UPDATE SET object = excluded.object, bytes = excluded.bytes, \
             sha256 = excluded.sha256, stored_at = excluded.stored_at",
        )
        .bind(lease_id.to_string())
        .bind(head.job_id.to_string())
        .bind(&output.object)
        .bind(int(output.bytes))
        .bind(&output.sha256)
        .bind(millis(now))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok((head.job_id, surplus))
    }
}

/// The bytes of an upload that are not held yet.
fn fresh_part<'a>(upload: &LogUpload<'a>, held: u64, complete: bool, limit: u64) -> Result<&'a [u8], StoreError> {
    if upload.offset > held {
        return Err(StoreError::refused(ErrorCode::OffsetGap, held.to_string()));
    }
    let skip = usize::try_from(held - upload.offset).unwrap_or(usize::MAX);
    let new = upload.bytes.get(skip..).unwrap_or_default();
    if new.is_empty() {
        return Ok(new);
    }
    if complete {
        return Err(StoreError::refused(ErrorCode::Conflict, "the log was said to be complete"));
    }
    let whole = whole_frames(new).map_err(|e| StoreError::refused(ErrorCode::InvalidRequest, e.to_string()))?;
    if whole != new.len() {
        return Err(StoreError::refused(ErrorCode::InvalidRequest, "the last log frame is cut off"));
    }
    if held.saturating_add(new.len() as u64) > limit {
        let detail = format!("a log of this job takes at most {limit} bytes with its frames");
        return Err(StoreError::refused(ErrorCode::TooLarge, detail));
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::logs::{LogStream, encode};

    fn framed(text: &str) -> Vec<u8> {
        let mut out = BytesMut::new();
        encode(LogStream::Stdout, text.as_bytes(), &mut out);
        out.to_vec()
    }

    fn code(result: Result<&[u8], StoreError>) -> ErrorCode {
        match result {
            Err(StoreError::Refused { code, .. }) => code,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn overlaps_are_skipped_gaps_and_cut_frames_refused() {
        let bytes = [framed("one"), framed("two")].concat();
        let at = |offset| LogUpload { offset, bytes: &bytes, complete: false };
        assert_eq!(fresh_part(&at(0), 0, false, 99).unwrap(), bytes);
        assert_eq!(fresh_part(&at(0), 8, false, 99).unwrap(), framed("two"));
        assert_eq!(fresh_part(&at(0), 16, false, 99).unwrap(), b"");
        assert_eq!(fresh_part(&at(0), 500, false, 99).unwrap(), b"");
        assert_eq!(code(fresh_part(&at(1), 0, false, 99)), ErrorCode::OffsetGap);
        assert_eq!(code(fresh_part(&at(0), 3, false, 99)), ErrorCode::InvalidRequest);
        assert_eq!(code(fresh_part(&at(0), 0, false, 15)), ErrorCode::TooLarge);
        assert_eq!(code(fresh_part(&at(16), 16, true, 99)), ErrorCode::Conflict);
        let cut = LogUpload { offset: 0, bytes: &bytes[..12], complete: false };
        assert_eq!(code(fresh_part(&cut, 0, false, 99)), ErrorCode::InvalidRequest);
    }
}
