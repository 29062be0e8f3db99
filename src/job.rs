//! A lease on its node: the pure machine that decides, the task that drives it, its log and its output.
//!
//! Invariants
//! - One task owns one lease; everybody else sends it commands and reads its snapshot.
//! - What was decided is in the journal before it is done, so that a killed agent goes on where it was.
//! - `Ended` is the last event of a lease, sent after its log and output were accepted.

mod backoff;
mod disk;
pub mod fake;
pub mod images;
mod logs;
pub mod machine;
mod output;
pub mod runner;

use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

use crate::wire::lease::{LeaseEvent, OutputAccepted};
use crate::wire::{LeaseId, Problem, Sequence};

/// Where reports about leases go: the coordinator, or a fake in tests. Every call may be repeated without harm.
#[async_trait]
pub trait LeasePort: Send + Sync + 'static {
    /// Hands over events in order of their sequence; answers up to which one they are durable.
    async fn send_events(&self, lease_id: LeaseId, events: &[LeaseEvent]) -> Result<Sequence, PortError>;

    /// Hands over framed log bytes that start at `offset`; answers how many framed bytes the coordinator holds.
    ///
    /// An empty body at offset 0 asks for that number. `complete` says that nothing follows these bytes.
    async fn send_logs(&self, lease_id: LeaseId, offset: u64, complete: bool, frames: Bytes) -> Result<u64, PortError>;

    /// Hands over the output tar at `path`, of `bytes` bytes with this SHA-256 (hex).
    async fn send_output(
        &self,
        lease_id: LeaseId,
        path: &Path,
        sha256: &str,
        bytes: u64,
    ) -> Result<OutputAccepted, PortError>;
}

/// Why a report was not taken.
#[derive(Debug, Error)]
pub enum PortError {
    /// The lease is over for this node: kill, remove, report nothing more.
    #[error("the lease has ended at the coordinator")]
    LeaseEnded,
    /// Log bytes before the offset are missing at the coordinator.
    #[error("the coordinator holds the log up to byte {next_offset} only")]
    OffsetGap {
        /// Where to send from.
        next_offset: u64,
    },
    /// The coordinator will never take it.
    #[error(transparent)]
    Rejected(Box<Problem>),
    /// Nobody took it; try again later.
    #[error("the coordinator cannot be reached: {why}")]
    Unavailable {
        /// For people.
        why: String,
    },
}
