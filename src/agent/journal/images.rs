//! What the journal knows of images that were pulled for jobs: the memory of the image cache.

use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Journal, JournalError};
use crate::wire::Secret;
use crate::wire::lease::Assignment;

/// An image that was pulled for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedImage {
    /// The exact reference it was pulled by.
    pub reference: String,
    /// The engine's id of it; unknown while the pull goes on, or when it broke off.
    pub image_id: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// Whether it was pulled with a login: others must show that they may have it.
    pub needed_login: bool,
}

impl Journal {
    /// Notes that an image which is not here is about to be pulled by this reference.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be written.
    pub async fn claim_image(&self, reference: &str, needed_login: bool, at: Timestamp) -> Result<(), JournalError> {
        sqlx::query(
            "INSERT INTO images (reference, pulled_at, used_at, needed_login) VALUES (?, ?, ?, ?) \
             ON CONFLICT (reference) DO UPDATE SET used_at = excluded.used_at, needed_login = excluded.needed_login",
        )
        .bind(reference)
        .bind(at.as_millisecond())
        .bind(at.as_millisecond())
        .bind(needed_login)
        .execute(&self.pool)
        .await
        .map_err(|error| self.failed(error))?;
        Ok(())
    }

    /// Notes that the pull of a claimed image came to its end.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be written.
    pub async fn keep_image(
        &self,
        reference: &str,
        image_id: &str,
        bytes: u64,
        at: Timestamp,
    ) -> Result<(), JournalError> {
        sqlx::query("UPDATE images SET image_id = ?, bytes = ?, pulled_at = ?, used_at = ? WHERE reference = ?")
            .bind(image_id)
            .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
            .bind(at.as_millisecond())
            .bind(at.as_millisecond())
            .bind(reference)
            .execute(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(())
    }

    /// Notes that an image is used again. One that somebody may have without a login needs none from now on.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be written.
    pub async fn use_image(&self, reference: &str, needed_login: bool, at: Timestamp) -> Result<(), JournalError> {
        sqlx::query("UPDATE images SET used_at = ?, needed_login = needed_login AND ? WHERE reference = ?")
            .bind(at.as_millisecond())
            .bind(needed_login)
            .bind(reference)
            .execute(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(())
    }

    /// Forgets an image: it is gone, or it is the owner's.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be written.
    pub async fn forget_image(&self, reference: &str) -> Result<(), JournalError> {
        sqlx::query("DELETE FROM images WHERE reference = ?")
            .bind(reference)
            .execute(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(())
    }

    /// Every image that was pulled for a job, the least recently used first.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be read.
    pub async fn cached_images(&self) -> Result<Vec<CachedImage>, JournalError> {
        let rows =
            sqlx::query("SELECT reference, image_id, bytes, needed_login FROM images ORDER BY used_at, reference")
                .fetch_all(&self.pool)
                .await
                .map_err(|error| self.failed(error))?;
        rows.iter().map(|row| self.cached_image(row)).collect()
    }

    /// Whether a lease that is not over runs on this image, or is about to.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be read.
    pub async fn leases_name(&self, image_id: &str) -> Result<bool, JournalError> {
        // Wherever in a lease's state it is named: a lease has an image for each of its services.
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM leases WHERE json_extract(saved, '$.stage') <> 'over' AND instr(saved, ?) > 0)",
        )
        .bind(image_id)
        .fetch_one(&self.pool)
        .await
        .map_err(|error| self.failed(error))
    }

    fn cached_image(&self, row: &SqliteRow) -> Result<CachedImage, JournalError> {
        let read = || -> Result<CachedImage, sqlx::Error> {
            Ok(CachedImage {
                reference: row.try_get("reference")?,
                image_id: row.try_get("image_id")?,
                bytes: u64::try_from(row.try_get::<i64, _>("bytes")?).unwrap_or(0),
                needed_login: row.try_get("needed_login")?,
            })
        };
        read().map_err(|error| self.failed(error))
    }
}

/// An assignment as it may be written down. That there was a login stays visible.
pub(super) fn without_passwords(assignment: &Assignment) -> Assignment {
    let mut kept = assignment.clone();
    for login in kept.spec.services.iter_mut().filter_map(|service| service.registry.as_mut()) {
        login.password = Secret::new("");
    }
    kept
}
