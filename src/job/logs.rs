//! A container's log on its way to the coordinator: in order, byte for byte, resumable, with bounded memory.
//!
//! Invariants
//! - An entry is always framed the same way, so what is read again after a restart gives the same bytes at the same offset;
//!   the coordinator skips what it has.
//! - At most [`BUFFER_BYTES`] and one entry wait here; then the engine is not read, and the engine does not hold up the job.
//! - The log ends with at most one cut notice and the closing sentence, then `complete`.

mod source;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::machine::LogPosition;
use super::{LeasePort, PortError};
use crate::agent::journal::Journal;
use crate::runtime::{ContainerId, ContainerRuntime};
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
    /// Nothing was ever started when there is none.
    pub(super) container: Option<ContainerId>,
    pub(super) position: LogPosition,
    pub(super) bytes_max: u64,
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

/// Hands the log over until it has ended and `close` has come with the last sentence.
pub(super) async fn run(task: LogTask, close: oneshot::Receiver<Option<String>>) -> LogOutcome {
    if task.position.complete {
        return LogOutcome::Closed;
    }
    Pump::new(task).run(close).await
}

struct Pump {
    task: LogTask,
    /// What is still to be read.
    pieces: Option<BoxStream<'static, Piece>>,
    /// Behind everything that was read.
    read: LogPosition,
    /// Framed and not on its way yet; ends at `read.offset`.
    buffer: BytesMut,
    /// Behind the body on its way, when that is a place between entries.
    sending_position: Option<LogPosition>,
    sends_complete: bool,
    /// When a body that is not full may go.
    next_send: Instant,
    written_at: Option<Instant>,
    /// The closing sentence, once the container has ended.
    closing: Option<Option<String>>,
    closed: bool,
    rewound: bool,
}

impl Pump {
    fn new(task: LogTask) -> Self {
        let read = task.position;
        Self {
            pieces: open(&task, read),
            task,
            read,
            buffer: BytesMut::new(),
            sending_position: None,
            sends_complete: false,
            next_send: Instant::now(),
            written_at: None,
            closing: None,
            closed: false,
            rewound: false,
        }
    }

    async fn run(mut self, close: oneshot::Receiver<Option<String>>) -> LogOutcome {
        let mut close = Some(close);
        let mut sending: Option<Sending> = None;
        loop {
            if sending.is_none() {
                sending = self.next_body();
            }
            let room = self.pieces.is_some() && self.buffer.len() < BUFFER_BYTES;
            let waits = sending.is_none() && !self.buffer.is_empty();
            tokio::select! {
                biased;
                answer = poll_option(&mut sending) => {
                    sending = None;
                    if let Some(outcome) = self.answered(answer).await {
                        return outcome;
                    }
                }
                last_words = poll_option(&mut close) => {
                    close = None;
                    // Whoever would close it is gone, and so is the lease.
                    let Ok(last_words) = last_words else { return LogOutcome::LeaseEnded };
                    self.closing = Some(last_words);
                }
                piece = next_option(&mut self.pieces), if room => self.take(piece).await,
                () = tokio::time::sleep_until(self.next_send), if waits => {}
            }
        }
    }

    /// Takes what was read into the buffer.
    async fn take(&mut self, piece: Option<Piece>) {
        match piece {
            None => self.pieces = None,
            Some(Piece::Lost) => self.resume_after_loss().await,
            Some(Piece::Unreadable { why }) => {
                self.pieces = None;
                // It ends here after a restart as well.
                self.read.cut = true;
                self.notice(&format!("part of the log was lost: {why}\n"));
            }
            Some(Piece::Entry { entry, after }) => {
                let framed = framed_bytes(entry.bytes.len());
                if self.read.offset + framed > self.task.bytes_max {
                    self.pieces = None;
                    self.read.cut = true;
                    let limit = self.task.bytes_max;
                    self.notice(&format!("the log was cut at its limit of {limit} bytes; the job wrote more\n"));
                    return;
                }
                encode(entry.stream, &entry.bytes, &mut self.buffer);
                self.read.offset += framed;
                self.read.stdout = after.stdout;
                self.read.stderr = after.stderr;
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
        if self.pieces.is_none()
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
        self.sending_position = self.buffer.is_empty().then_some(self.read);
        Some(Box::pin(send(self.task.port.clone(), self.task.lease_id, offset, self.sends_complete, body)))
    }

    async fn answered(&mut self, answer: Result<u64, PortError>) -> Option<LogOutcome> {
        let position = self.sending_position.take();
        match answer {
            Ok(_) => {
                self.next_send = Instant::now() + BATCH_TIME;
                if let Some(position) = position {
                    self.keep(LogPosition { complete: self.sends_complete, ..position }).await;
                }
                self.sends_complete.then_some(LogOutcome::Closed)
            }
            Err(PortError::LeaseEnded) => Some(LogOutcome::LeaseEnded),
            Err(PortError::OffsetGap { next_offset }) if self.rewound => {
                Some(LogOutcome::Rejected(format!("it asks for byte {next_offset} again and again")))
            }
            Err(PortError::OffsetGap { .. }) => {
                self.rewind();
                None
            }
            Err(PortError::Rejected(problem)) => Some(LogOutcome::Rejected(problem.to_string())),
            Err(PortError::Unavailable { why }) => Some(LogOutcome::Rejected(why)),
        }
    }

    /// The coordinator has less than it said once: everything again, it skips what it has.
    fn rewind(&mut self) {
        self.rewound = true;
        self.closed = false;
        self.read = LogPosition::default();
        self.buffer.clear();
        self.pieces = open(&self.task, self.read);
    }

    async fn keep(&mut self, position: LogPosition) {
        let now = Instant::now();
        if !position.complete && self.written_at.is_some_and(|at| now < at + POSITION_TIME) {
            return;
        }
        self.written_at = Some(now);
        if let Err(error) = self.task.journal.put_log_position(self.task.lease_id, &position).await {
            // An older position is as good: what follows it is framed again the same way.
            tracing::warn!(lease = %self.task.lease_id, %error, "the log position could not be kept");
        }
    }
}

fn open(task: &LogTask, position: LogPosition) -> Option<BoxStream<'static, Piece>> {
    let container = task.container.clone().filter(|_| !position.cut)?;
    Some(source::pieces(task.runtime.clone(), container, position))
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

async fn next_option(pieces: &mut Option<BoxStream<'static, Piece>>) -> Option<Piece> {
    match pieces {
        Some(pieces) => pieces.next().await,
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
            container: Some(container),
            position: LogPosition::default(),
            bytes_max: 1 << 20,
        };
        let (close, closing) = oneshot::channel();
        close.send(Some("the end".to_owned())).unwrap();
        tokio::time::pause();
        assert_eq!(run(task, closing).await, LogOutcome::Closed);
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
