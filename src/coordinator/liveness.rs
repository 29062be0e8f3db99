//! Heartbeats, in memory.

/// When each node was last heard from, and what it said.
#[derive(Debug, Default)]
pub(crate) struct Liveness {}
