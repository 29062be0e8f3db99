//! The logs of a lease's containers on their way to the coordinator: in order, byte for byte, resumable, with bounded memory.
//!
//! Invariants
//! - The main container's bytes go as they are, on the streams it wrote them to. Every line of a companion goes on standard error
//!   behind the name of its service in brackets, so that standard output is the main container's alone.
//! - With one container an entry is always framed the same way, so what is read again after a restart gives the same bytes at the
//!   same offset; the coordinator skips what it has. How several were mingled cannot be told again: then the position behind a
//!   body is written down before the body is sent, and the coordinator is asked whether it has arrived.
//! - At most [`BUFFER_BYTES`] and one entry wait here; then the engine is not read, and the engine does not hold up the job.
//! - The log ends with at most one cut notice and the closing sentence, then `complete`.

mod lines;
mod source;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, SelectAll};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::machine::{CompanionPosition, LogPosition, Place};
use super::{LeasePort, PortError};
use crate::agent::journal::Journal;
use crate::runtime::{ContainerId, ContainerRuntime, LogEntry};
use crate::wire::LeaseId;
use crate::wire::logs::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, LogStream, encode, whole_frames};
use source::Piece;

/// What waits to be sent at most, before the engine is not read any more.
const BUFFER_BYTES: usize = 256 << 10;
/// Largest body of one call.
const BODY_BYTES_MAX: usize = 512 << 10;
/// Bodies that are not full are this far apart.
const BATCH_TIME: Duration = Duration::from_millis(200);
/// A position in the journal may be this old; framing is deterministic.
const POSITION_TIME: Duration = Duration::from_secs(1);

/// Everything the log of one lease needs.
pub(super) struct LogTask {
    pub(super) runtime: Arc<dyn ContainerRuntime>,
    pub(super) port: Arc<dyn LeasePort>,
    pub(super) journal: Journal,
    pub(super) lease_id: LeaseId,
    /// Names of all services; the first is the main one.
    pub(super) services: Vec<String>,
    pub(super) position: LogPosition,
    pub(super) bytes_max: u64,
}

/// What the log's task is told.
#[derive(Debug)]
pub(super) enum LogWord {
    /// A container was started, for the first time or again, or it has ended with a log that was not read to its end.
    Read {
        /// Number of its service.
        index: usize,
        /// The container.
        container: ContainerId,
    },
    /// Every container has ended: hand over the rest and this sentence.
    Close(Option<String>),
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LogOutcome {
    /// The coordinator has everything.
    Closed,
    /// The lease is over for this node.
    LeaseEnded,
    /// The coordinator does not take it, now or later.
    Rejected(String),
}

type Sending = BoxFuture<'static, Result<u64, PortError>>;

/// Hands the log over until it has ended and [`LogWord::Close`] has come with the last sentence.
pub(super) async fn run(task: LogTask, words: mpsc::Receiver<LogWord>) -> LogOutcome {
    if task.position.complete {
        return LogOutcome::Closed;
    }
    match Pump::begin(task).await {
        Ok(pump) => pump.run(words).await,
        Err(outcome) => outcome,
    }
}

/// One container's log.
#[derive(Debug, Default)]
struct Slot {
    container: Option<ContainerId>,
    is_open: bool,
    /// It was started again while it was read; whether that was seen is not known.
    again: bool,
}

struct Pump {
    task: LogTask,
    slots: Vec<Slot>,
    /// What is still to be read, with the number of its service; `None` is its end.
    pieces: SelectAll<BoxStream<'static, (usize, Option<Piece>)>>,
    /// Behind everything that was read.
    read: LogPosition,
    /// Behind everything that was accepted, when that is a place between entries.
    accepted: LogPosition,
    /// Framed and not on its way yet; ends at `read.offset`.
    buffer: BytesMut,
    /// Behind the body on its way, when that is a place between entries.
    sending_position: Option<LogPosition>,
    sends_complete: bool,
    /// When a body that is not full may go.
    next_send: Instant,
    written_at: Option<Instant>,
    /// The closing sentence, once the containers have ended.
    closing: Option<Option<String>>,
    closed: bool,
    rewound: bool,
}

impl Pump {
    async fn begin(mut task: LogTask) -> Result<Self, LogOutcome> {
        let mut read = std::mem::take(&mut task.position);
        read.companions.resize_with(task.services.len().saturating_sub(1), CompanionPosition::default);
        let mut lost = false;
        if let Some(mut ahead) = read.ahead.take() {
            let held = match send(task.port.clone(), task.lease_id, 0, false, Bytes::new()).await {
                Ok(held) => held,
                Err(PortError::LeaseEnded) => return Err(LogOutcome::LeaseEnded),
                Err(error) => return Err(LogOutcome::Rejected(error.to_string())),
            };
            if held >= ahead.offset {
                ahead.ahead = None;
                read = *ahead;
            } else if held != read.offset {
                lost = true;
                read.offset = held;
            }
        }
        let mut pump = Self {
            slots: task.services.iter().map(|_| Slot::default()).collect(),
            pieces: SelectAll::new(),
            accepted: read.clone(),
            read,
            task,
            buffer: BytesMut::new(),
            sending_position: None,
            sends_complete: false,
            next_send: Instant::now(),
            written_at: None,
            closing: None,
            closed: false,
            rewound: false,
        };
        if lost {
            pump.notice("what follows may repeat part of the log\n");
        }
        Ok(pump)
    }

    /// Whether several logs are mingled, in an order that cannot be told again.
    fn is_mingled(&self) -> bool {
        self.slots.len() > 1
    }

    async fn run(mut self, mut words: mpsc::Receiver<LogWord>) -> LogOutcome {
        let mut sending: Option<Sending> = None;
        loop {
            if sending.is_none() {
                sending = self.next_body();
            }
            let room = !self.pieces.is_empty() && self.buffer.len() < BUFFER_BYTES;
            let waits = sending.is_none() && !self.buffer.is_empty();
            tokio::select! {
                biased;
                answer = poll_option(&mut sending) => {
                    sending = None;
                    if let Some(outcome) = self.answered(answer).await {
                        return outcome;
                    }
                }
                word = words.recv(), if self.closing.is_none() => match word {
                    Some(LogWord::Read { index, container }) => self.open(index, container),
                    Some(LogWord::Close(last_words)) => self.closing = Some(last_words),
                    // Whoever would close it is gone, and so is the lease.
                    None => return LogOutcome::LeaseEnded,
                },
                // None when the last of them has ended: then there is room to look whether the log can be closed.
                next = self.pieces.next(), if room => if let Some((index, piece)) = next {
                    self.take(index, piece).await;
                },
                () = tokio::time::sleep_until(self.next_send), if waits => {}
            }
        }
    }

    /// Reads a container's log from where it stands.
    fn open(&mut self, index: usize, container: ContainerId) {
        let place = self.read.place(index);
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.container = Some(container.clone());
        if self.read.cut {
            return;
        }
        if std::mem::replace(&mut slot.is_open, true) {
            slot.again = true;
            return;
        }
        let pieces = source::pieces(self.task.runtime.clone(), container, place);
        let end = futures_util::stream::once(std::future::ready(None));
        self.pieces.push(pieces.map(Some).chain(end).map(move |piece| (index, piece)).boxed());
    }

    /// One container's log is read; it goes on when the container was started again meanwhile.
    fn source_ended(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.is_open = false;
        if std::mem::take(&mut slot.again)
            && let Some(container) = slot.container.clone()
        {
            self.open(index, container);
        }
    }

    /// Nothing more is read, now or after a restart.
    fn cut(&mut self) {
        self.pieces.clear();
        self.slots.iter_mut().for_each(|slot| slot.is_open = false);
        self.read.cut = true;
    }

    /// Takes what was read into the buffer.
    async fn take(&mut self, index: usize, piece: Option<Piece>) {
        match piece {
            None => self.source_ended(index),
            Some(Piece::Lost) => self.resume_after_loss().await,
            Some(Piece::Unreadable { why }) => {
                self.cut();
                self.notice(&format!("part of the log was lost: {why}\n"));
            }
            Some(Piece::Entry { entry, after }) => self.entry(index, &entry, after),
        }
    }

    fn entry(&mut self, index: usize, entry: &LogEntry, after: Place) {
        let mut companion = index.checked_sub(1).and_then(|slot| self.read.companions.get(slot).copied());
        let (stream, bytes) = match (&mut companion, self.task.services.get(index)) {
            (Some(position), Some(name)) => {
                let is_stderr = entry.stream == LogStream::Stderr;
                let open = if is_stderr { &mut position.stderr_open } else { &mut position.stdout_open };
                (LogStream::Stderr, lines::with_name(name, &entry.bytes, open))
            }
            (None, _) | (_, None) => (entry.stream, entry.bytes.clone()),
        };
        let framed = framed_bytes(bytes.len());
        if self.read.offset + framed > self.task.bytes_max {
            self.cut();
            let limit = self.task.bytes_max;
            self.notice(&format!("the log was cut at its limit of {limit} bytes; the job wrote more\n"));
            return;
        }
        encode(stream, &bytes, &mut self.buffer);
        self.read.offset += framed;
        match companion {
            None => (self.read.stdout, self.read.stderr) = (after.stdout, after.stderr),
            Some(position) => {
                if let Some(kept) = self.read.companions.get_mut(index - 1) {
                    *kept = CompanionPosition { stdout: after.stdout, stderr: after.stderr, ..position };
                }
            }
        }
    }

    fn notice(&mut self, words: &str) {
        encode(LogStream::Notice, words.as_bytes(), &mut self.buffer);
        self.read.offset += framed_bytes(words.len());
    }

    /// The engine has dropped entries that were to come next: frames can only go on behind what the coordinator has.
    async fn resume_after_loss(&mut self) {
        if self.buffer.is_empty() && self.sending_position.is_none() {
            let ask = send(self.task.port.clone(), self.task.lease_id, 0, false, Bytes::new());
            if let Ok(next_offset) = ask.await {
                self.read.offset = self.read.offset.max(next_offset);
            }
        }
        self.notice("part of the log was lost: the container engine had dropped it\n");
    }

    /// The next body, when there is reason to send one now.
    fn next_body(&mut self) -> Option<Sending> {
        if self.pieces.is_empty()
            && !self.closed
            && let Some(last_words) = self.closing.clone()
        {
            self.closed = true;
            if let Some(words) = last_words {
                self.notice(&format!("{words}\n"));
            }
        }
        let due = self.buffer.len() >= BUFFER_BYTES || (!self.buffer.is_empty() && Instant::now() >= self.next_send);
        if !self.closed && !due {
            return None;
        }
        let offset = self.read.offset - self.buffer.len() as u64;
        let window = self.buffer.get(..self.buffer.len().min(BODY_BYTES_MAX)).unwrap_or_default();
        let length = whole_frames(window).expect("the buffer holds frames of our own making");
        let body = self.buffer.split_to(length).freeze();
        self.sends_complete = self.closed && self.buffer.is_empty();
        self.sending_position = self.buffer.is_empty().then(|| self.read.clone());
        let sending = send(self.task.port.clone(), self.task.lease_id, offset, self.sends_complete, body);
        let ahead = self.sending_position.clone().filter(|_| self.is_mingled());
        let Some(ahead) = ahead else { return Some(Box::pin(sending)) };
        let intent = LogPosition { ahead: Some(Box::new(ahead)), ..self.accepted.clone() };
        let (journal, lease_id) = (self.task.journal.clone(), self.task.lease_id);
        Some(Box::pin(async move {
            keep(&journal, lease_id, &intent).await;
            sending.await
        }))
    }

    async fn answered(&mut self, answer: Result<u64, PortError>) -> Option<LogOutcome> {
        let position = self.sending_position.take();
        match answer {
            Ok(_) => {
                self.next_send = Instant::now() + BATCH_TIME;
                if let Some(position) = position {
                    self.accepted = LogPosition { complete: self.sends_complete, ..position };
                    self.keep_accepted().await;
                }
                self.sends_complete.then_some(LogOutcome::Closed)
            }
            Err(PortError::LeaseEnded) => Some(LogOutcome::LeaseEnded),
            Err(PortError::OffsetGap { next_offset }) if self.rewound => {
                Some(LogOutcome::Rejected(format!("it asks for byte {next_offset} again and again")))
            }
            Err(PortError::OffsetGap { next_offset }) => {
                self.rewind(next_offset);
                None
            }
            Err(PortError::Rejected(problem)) => Some(LogOutcome::Rejected(problem.to_string())),
            Err(PortError::Unavailable { why }) => Some(LogOutcome::Rejected(why)),
        }
    }

    /// The coordinator has less than it said once: everything again. Of one container it skips what it has; the logs of several
    /// are mingled differently this time, so they go on behind what it has.
    fn rewind(&mut self, next_offset: u64) {
        self.rewound = true;
        self.closed = false;
        self.read = LogPosition::default();
        self.read.companions.resize_with(self.slots.len() - 1, CompanionPosition::default);
        self.buffer.clear();
        self.pieces.clear();
        if self.is_mingled() {
            self.read.offset = next_offset;
            self.notice("part of the log was lost on its way; it is repeated from its beginning\n");
        }
        self.accepted = self.read.clone();
        for index in 0..self.slots.len() {
            self.slots[index].is_open = false;
            if let Some(container) = self.slots[index].container.clone() {
                self.open(index, container);
            }
        }
    }

    /// With several containers the next intent holds it too, so that only the last one is written.
    async fn keep_accepted(&mut self) {
        let now = Instant::now();
        let is_soon = self.written_at.is_some_and(|at| now < at + POSITION_TIME);
        if !self.accepted.complete && (is_soon || self.is_mingled()) {
            return;
        }
        self.written_at = Some(now);
        keep(&self.task.journal, self.task.lease_id, &self.accepted).await;
    }
}

async fn keep(journal: &Journal, lease_id: LeaseId, position: &LogPosition) {
    if let Err(error) = journal.put_log_position(lease_id, position).await {
        // An older position is as good, or leads to a repetition that the log admits.
        tracing::warn!(lease = %lease_id, %error, "the log position could not be kept");
    }
}

/// Sends one body until it is answered for good.
async fn send(
    port: Arc<dyn LeasePort>,
    lease_id: LeaseId,
    offset: u64,
    complete: bool,
    body: Bytes,
) -> Result<u64, PortError> {
    let mut backoff = Backoff::coordinator();
    loop {
        match port.send_logs(lease_id, offset, complete, body.clone()).await {
            Err(PortError::Unavailable { .. }) => backoff.wait().await,
            answer => return answer,
        }
    }
}

/// Bytes an entry of this length has as frames.
fn framed_bytes(length: usize) -> u64 {
    (length + length.div_ceil(FRAME_BYTES_MAX) * FRAME_HEADER_BYTES) as u64
}

async fn poll_option<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::source::ATTEMPTS_MAX;
    use super::*;
    use crate::clock::Clock;
    use crate::job::fake::{FakePort, Received};
    use crate::runtime::fake::{Call, FakeImage, FakeRuntime, Step};
    use crate::runtime::{ContainerSpec, RuntimeError};
    use crate::wire::NodeId;

    /// The log of a job that says "hello" and ends, after so many failures to read it.
    async fn log_after(failures: u32) -> Received {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let engine = FakeRuntime::new(clock.clone());
        engine.add_image("job", FakeImage::running([Step::line("hello")]));
        let lease_id = LeaseId::generate(clock.now());
        let spec = ContainerSpec::new(NodeId::generate(clock.now()), lease_id, "job".to_owned());
        let container = engine.create(&spec).await.unwrap();
        engine.start(&container).await.unwrap();
        for _ in 0..failures {
            let detail = "invalid character in its file".to_owned();
            engine.fail_next(Call::Logs, RuntimeError::Engine { what: "read a log", detail });
        }
        let port = FakePort::default();
        let task = LogTask {
            runtime: Arc::new(engine),
            port: Arc::new(port.clone()),
            journal: Journal::open(&folder.path().join("state.sqlite")).await.unwrap(),
            lease_id,
            services: vec!["main".to_owned()],
            position: LogPosition::default(),
            bytes_max: 1 << 20,
        };
        let (say, words) = mpsc::channel(2);
        say.send(LogWord::Read { index: 0, container }).await.unwrap();
        say.send(LogWord::Close(Some("the end".to_owned()))).await.unwrap();
        tokio::time::pause();
        assert_eq!(run(task, words).await, LogOutcome::Closed);
        let received = port.received(lease_id);
        assert!(received.log_complete && port.refused().is_empty());
        received
    }

    fn text(received: &Received, stream: LogStream) -> String {
        String::from_utf8(received.text(stream)).unwrap()
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_read_ends_with_a_notice_of_why() {
        let received = log_after(ATTEMPTS_MAX + 1).await;
        let notices = text(&received, LogStream::Notice);
        assert!(notices.starts_with("part of the log was lost: ") && notices.ends_with("the end\n"), "{notices}");
        assert!(notices.contains("invalid character in its file"), "{notices}");
        assert_eq!(text(&received, LogStream::Stdout), "");
    }

    #[tokio::test]
    async fn a_log_that_can_be_read_in_the_end_is_whole_and_says_nothing() {
        let received = log_after(ATTEMPTS_MAX).await;
        let (stdout, notices) = (text(&received, LogStream::Stdout), text(&received, LogStream::Notice));
        assert_eq!((stdout.as_str(), notices.as_str()), ("hello\n", "the end\n"));
    }
}
