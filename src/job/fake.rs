//! A coordinator's side of [`LeasePort`] in memory, with the same rules: events without gaps, logs by offset, outputs by hash.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::{LeasePort, OutputPart, PortError};
use crate::wire::error::ErrorCode;
use crate::wire::lease::{LeaseChange, LeaseEnd, LeaseEvent, OutputAccepted};
use crate::wire::logs::{LogFrame, LogStream, decode, whole_frames};
use crate::wire::{LeaseId, Problem, Sequence};

/// The port. Clones are the same port.
#[derive(Clone)]
pub struct FakePort {
    inner: Arc<Mutex<Inner>>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    down: bool,
    leases: HashMap<LeaseId, Received>,
    refused: Vec<String>,
    lost_parts: Option<LostParts>,
    output_calls: u32,
}

/// Which parts of outputs are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostParts {
    /// Each so manieth one.
    Every(u32),
    /// All but so many.
    After(u32),
}

/// What came for one lease.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// Events in order, each once.
    pub events: Vec<LeaseEvent>,
    /// The framed log.
    pub log: Vec<u8>,
    /// Whether nothing follows.
    pub log_complete: bool,
    /// How many bodies of log came.
    pub log_calls: u32,
    /// The largest of them in bytes.
    pub log_body_bytes_max: usize,
    /// The output tar.
    pub output: Option<Vec<u8>>,
    /// Bytes of output that came, those that were lost on the way or came twice included.
    pub output_bytes_sent: u64,
    /// Whether the lease is over for the node.
    pub ended: bool,
    /// Parts of an output, and its announced hash.
    parts: (String, Vec<u8>),
}

impl Received {
    /// The bytes of the output with this hash so far; another one's are dropped.
    fn parts(&mut self, sha256: &str) -> &mut Vec<u8> {
        if self.parts.0 != sha256 {
            self.parts = (sha256.to_owned(), Vec::new());
        }
        &mut self.parts.1
    }

    /// What happened, without times and sequences.
    #[must_use]
    pub fn changes(&self) -> Vec<LeaseChange> {
        self.events.iter().map(|event| event.what.clone()).collect()
    }

    /// How it ended and for how many milliseconds it ran, if it has.
    #[must_use]
    pub fn end(&self) -> Option<(LeaseEnd, u64)> {
        self.events.iter().find_map(|event| match &event.what {
            LeaseChange::Ended { end, ran_millis } => Some((end.clone(), *ran_millis)),
            LeaseChange::Pulling { .. }
            | LeaseChange::Starting { .. }
            | LeaseChange::Running
            | LeaseChange::Frozen { .. }
            | LeaseChange::Thawed
            | LeaseChange::Restarted { .. }
            | LeaseChange::Collecting
            | LeaseChange::Unknown => None,
        })
    }

    /// The log's frames; what cannot be decoded is left out.
    #[must_use]
    pub fn frames(&self) -> Vec<LogFrame> {
        let mut buffer = BytesMut::from(&self.log[..]);
        std::iter::from_fn(|| decode(&mut buffer).ok().flatten()).collect()
    }

    /// The bytes of one stream.
    #[must_use]
    pub fn text(&self, stream: LogStream) -> Vec<u8> {
        self.frames().into_iter().filter(|frame| frame.stream == stream).flat_map(|frame| frame.bytes).collect()
    }
}

impl Default for FakePort {
    fn default() -> Self {
        Self { inner: Arc::default(), changed: watch::channel(0).0 }
    }
}

impl FakePort {
    /// Takes (false) or refuses (true) every call as unavailable.
    pub fn set_down(&self, down: bool) {
        self.inner().down = down;
        self.bump();
    }

    /// Loses parts of outputs on their way; none when absent.
    pub fn lose_parts(&self, lost: Option<LostParts>) {
        let mut inner = self.inner();
        inner.lost_parts = lost;
        inner.output_calls = 0;
    }

    /// Ends a lease from the coordinator's side.
    pub fn end_lease(&self, lease_id: LeaseId) {
        self.inner().leases.entry(lease_id).or_default().ended = true;
        self.bump();
    }

    /// Forgets all log bytes from `length` on, as a coordinator restored from a backup would.
    pub fn lose_log_after(&self, lease_id: LeaseId, length: usize) {
        self.inner().leases.entry(lease_id).or_default().log.truncate(length);
    }

    /// What came for a lease so far.
    #[must_use]
    pub fn received(&self, lease_id: LeaseId) -> Received {
        self.inner().leases.get(&lease_id).cloned().unwrap_or_default()
    }

    /// What broke the rules; empty in every good test.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        self.inner().refused.clone()
    }

    /// Waits until what came for a lease is as wished; for tests, under a deadline of their own.
    pub async fn until(&self, lease_id: LeaseId, wished: impl Fn(&Received) -> bool) -> Received {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let received = self.received(lease_id);
            if wished(&received) || changed.changed().await.is_err() {
                return received;
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bump(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    fn enter(&self, lease_id: LeaseId) -> Result<MutexGuard<'_, Inner>, PortError> {
        let mut inner = self.inner();
        if inner.down {
            return Err(PortError::Unavailable { why: "the fake coordinator is down".to_owned() });
        }
        if inner.leases.entry(lease_id).or_default().ended {
            return Err(PortError::LeaseEnded);
        }
        Ok(inner)
    }
}

impl Inner {
    fn refuse(&mut self, what: String) -> PortError {
        self.refused.push(what.clone());
        PortError::Rejected(Box::new(Problem::new(ErrorCode::Conflict, what)))
    }
}

#[async_trait]
impl LeasePort for FakePort {
    async fn send_events(&self, lease_id: LeaseId, events: &[LeaseEvent]) -> Result<Sequence, PortError> {
        let mut inner = self.enter(lease_id)?;
        for event in events {
            let received = inner.leases.entry(lease_id).or_default();
            let next = received.events.len() as u64 + 1;
            if event.sequence.0 > next {
                let what = format!("event {} came, {next} is next", event.sequence);
                return Err(inner.refuse(what));
            }
            if event.sequence.0 == next {
                if matches!(event.what, LeaseChange::Ended { .. }) && !received.log_complete {
                    return Err(inner.refuse("the end came before the end of the log".to_owned()));
                }
                received.events.push(event.clone());
            }
        }
        let through = Sequence(inner.leases.entry(lease_id).or_default().events.len() as u64);
        drop(inner);
        self.bump();
        Ok(through)
    }

    async fn send_logs(&self, lease_id: LeaseId, offset: u64, complete: bool, frames: Bytes) -> Result<u64, PortError> {
        let mut inner = self.enter(lease_id)?;
        if whole_frames(&frames).ok() != Some(frames.len()) {
            return Err(inner.refuse("a body of log that is no frames".to_owned()));
        }
        let received = inner.leases.entry(lease_id).or_default();
        let have = received.log.len() as u64;
        if offset > have {
            return Err(PortError::OffsetGap { next_offset: have });
        }
        received.log_calls += 1;
        received.log_body_bytes_max = received.log_body_bytes_max.max(frames.len());
        let known = usize::try_from(have - offset).unwrap_or(usize::MAX).min(frames.len());
        let overlap = usize::try_from(offset).unwrap_or(usize::MAX);
        let same = received.log.get(overlap..overlap + known) == frames.get(..known);
        received.log.extend_from_slice(frames.get(known..).unwrap_or_default());
        received.log_complete |= complete;
        let next_offset = received.log.len() as u64;
        if !same {
            return Err(inner.refuse(format!("other bytes than before at offset {offset}")));
        }
        drop(inner);
        self.bump();
        Ok(next_offset)
    }

    async fn output_offset(&self, lease_id: LeaseId, sha256: &str) -> Result<u64, PortError> {
        let mut inner = self.enter(lease_id)?;
        Ok(inner.leases.entry(lease_id).or_default().parts(sha256).len() as u64)
    }

    async fn send_output_part(&self, lease_id: LeaseId, sha256: &str, part: OutputPart<'_>) -> Result<u64, PortError> {
        drop(self.enter(lease_id)?);
        let gone = |error: std::io::Error| PortError::Unavailable { why: error.to_string() };
        let tar = tokio::fs::read(part.file).await.map_err(gone)?;
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(tar.len());
        let bytes = &tar[at(part.offset)..at(part.offset + part.bytes)];
        let mut inner = self.enter(lease_id)?;
        inner.output_calls += 1;
        let breaks = match inner.lost_parts {
            None => false,
            Some(LostParts::Every(number)) => inner.output_calls.is_multiple_of(number),
            Some(LostParts::After(number)) => inner.output_calls > number,
        };
        let received = inner.leases.entry(lease_id).or_default();
        received.output_bytes_sent += bytes.len() as u64;
        let held = received.parts(sha256);
        if part.offset > held.len() as u64 {
            return Err(PortError::OffsetGap { next_offset: held.len() as u64 });
        }
        let known = at(held.len() as u64 - part.offset).min(bytes.len());
        if !breaks {
            held.extend_from_slice(&bytes[known..]);
        }
        let next_offset = held.len() as u64;
        drop(inner);
        self.bump();
        if breaks { Err(PortError::Unavailable { why: "the connection broke".to_owned() }) } else { Ok(next_offset) }
    }

    async fn finish_output(&self, lease_id: LeaseId, sha256: &str, bytes: u64) -> Result<OutputAccepted, PortError> {
        let mut inner = self.enter(lease_id)?;
        let received = inner.leases.entry(lease_id).or_default();
        let tar = received.parts(sha256).clone();
        if hex::encode(Sha256::digest(&tar)) != sha256 || tar.len() as u64 != bytes {
            return Err(inner.refuse("the output is not what its hash says".to_owned()));
        }
        received.output = Some(tar);
        drop(inner);
        self.bump();
        Ok(OutputAccepted { bytes, sha256: sha256.to_owned() })
    }
}
