//! What the engine says of a container.

use bytes::Bytes;
use jiff::Timestamp;

use super::ContainerId;
use crate::wire::LeaseId;
use crate::wire::logs::LogStream;

/// A container of ours as the engine reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedContainer {
    /// The container.
    pub id: ContainerId,
    /// Its lease.
    pub lease_id: LeaseId,
    /// Its generation label.
    pub generation: u64,
    /// Which of the lease's companions it is; none for the main container.
    pub service: Option<String>,
    /// Its state.
    pub status: ContainerStatus,
}

/// State of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerStatus {
    /// Made, never started.
    Created,
    /// Runs.
    Running {
        /// When it was started, by the engine's clock.
        started_at: Timestamp,
    },
    /// Frozen.
    Paused {
        /// When it was started, by the engine's clock.
        started_at: Timestamp,
    },
    /// Ended.
    Exited(ContainerExit),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerExit {
    /// Exit code of the main process; 128 + n for signal n.
    pub code: i32,
    /// Whether the kernel ended it for lack of memory.
    pub out_of_memory: bool,
    /// When it was started, by the engine's clock.
    pub started_at: Timestamp,
    /// When it ended, by the engine's clock.
    pub ended_at: Timestamp,
}

/// One piece of a container's log as the engine stored it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// When the engine stored it, in nanoseconds since the epoch; not decreasing within a stream.
    pub at_nanos: i128,
    /// Which stream.
    pub stream: LogStream,
    /// The bytes, line end included where there was one.
    pub bytes: Bytes,
}

/// What a container has on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUse {
    /// Bytes of the files it has written or changed, also of those that were deleted and are still open, as far as was seen.
    pub bytes: u64,
    /// All that it ever wrote to disks, in bytes, where not everything could be looked at and the kernel counts that.
    pub written_max: Option<u64>,
    /// Its state at that moment.
    pub status: ContainerStatus,
}

/// What is free where the engine keeps its containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeSpace {
    /// Bytes.
    pub bytes_free: u64,
    /// Files that can still be made.
    pub files_free: u64,
    /// Files that there can be; 0 where the file system has no such number.
    pub files_total: u64,
}

/// Something happened to one of our containers; look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    /// Its lease.
    pub lease_id: LeaseId,
}
