//! A lease on its node: the pure machine that decides, the task that drives it, its log and its output.
//!
//! Invariants
//! - One task owns one lease; everybody else sends it commands and reads its snapshot.
//! - What was decided is in the journal before it is done, so that a killed agent goes on where it was.
//! - `Ended` is the last event of a lease, sent after its log and output were accepted.

mod backoff;
mod disk;
pub mod fake;
pub mod gpus;
mod health;
pub mod images;
mod inputs;
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

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputPart<'a> {
    /// The file.
    pub file: &'a Path,
    /// Bytes of the file before the piece.
    pub offset: u64,
    /// Bytes of the piece.
    pub bytes: u64,
}

/// Where reports about leases go: the coordinator, or a fake in tests. Every call may be repeated without harm.
#[async_trait]
pub trait LeasePort: Send + Sync + 'static {
    /// Hands over events in order of their sequence; answers up to which one they are durable.
    async fn send_events(&self, lease_id: LeaseId, events: &[LeaseEvent]) -> Result<Sequence, PortError>;

    /// Hands over framed log bytes that start at `offset`; answers how many framed bytes the coordinator holds.
    ///
    /// An empty body at offset 0 asks for that number. `complete` says that nothing follows these bytes.
    async fn send_logs(&self, lease_id: LeaseId, offset: u64, complete: bool, frames: Bytes) -> Result<u64, PortError>;

    /// Up to which byte the coordinator holds the output with this SHA-256 (hex).
    async fn output_offset(&self, lease_id: LeaseId, sha256: &str) -> Result<u64, PortError>;

    /// Hands over a part of the output; answers up to which byte the coordinator holds it.
    async fn send_output_part(&self, lease_id: LeaseId, sha256: &str, part: OutputPart<'_>) -> Result<u64, PortError>;

    /// All parts of the output, of `bytes` bytes with this SHA-256 (hex), are handed over.
    async fn finish_output(&self, lease_id: LeaseId, sha256: &str, bytes: u64) -> Result<OutputAccepted, PortError>;
}

/// Why a report was not taken.
#[derive(Debug, Error)]
pub enum PortError {
    /// The lease is over for this node: kill, remove, report nothing more.
    #[error("the lease has ended at the coordinator")]
    LeaseEnded,
    /// Bytes of a log or an output before the offset are missing at the coordinator.
    #[error("the coordinator holds it up to byte {next_offset} only")]
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
