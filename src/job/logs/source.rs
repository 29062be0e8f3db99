//! Reads a container's log from a position on, through restarts of the engine, without a gap or a repeat.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use super::super::backoff::Backoff;
use super::super::machine::{Place, StreamPosition};
use crate::runtime::{ContainerId, ContainerRuntime, ContainerStatus, LogEntry, RuntimeError};
use crate::wire::logs::LogStream;

/// The two streams are stamped apart; an entry may be stored after one of the other stream that is a little younger.
const STAMP_SLACK_NANOS: i128 = 2_000_000_000;
/// A log that cannot be read so often in a row, while the engine is there, has ended.
pub(super) const ATTEMPTS_MAX: u32 = 8;

/// What comes of a log.
#[derive(Debug)]
pub(super) enum Piece {
    /// The next entry, and the place behind it.
    Entry {
        /// The entry.
        entry: LogEntry,
        /// Behind it.
        after: Place,
    },
    /// Entries between the position and what comes next are gone.
    Lost,
    /// What follows the position cannot be read; nothing comes any more.
    Unreadable {
        /// The engine's trouble, for people.
        why: String,
    },
}

/// Everything behind `position`, until the container has ended and its log is read.
pub(super) fn pieces(
    runtime: Arc<dyn ContainerRuntime>,
    container: ContainerId,
    position: Place,
) -> BoxStream<'static, Piece> {
    let source =
        Source { runtime, container, position, open: None, backoff: Backoff::engine(), pending: None, over: false };
    stream::unfold(source, |mut source| async move { source.next().await.map(|piece| (piece, source)) }).boxed()
}

struct Source {
    runtime: Arc<dyn ContainerRuntime>,
    container: ContainerId,
    position: Place,
    open: Option<Open>,
    backoff: Backoff,
    /// What came right behind a loss.
    pending: Option<LogEntry>,
    /// It was given up.
    over: bool,
}

struct Open {
    entries: BoxStream<'static, Result<LogEntry, RuntimeError>>,
    stdout: Resume,
    stderr: Resume,
}

/// What of one stream is known already when its log is opened again.
#[derive(Debug, Clone, Copy)]
struct Resume {
    known: StreamPosition,
    /// Entries of exactly the known time that were seen again.
    seen: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Known,
    New,
    AfterLoss,
}

impl Resume {
    fn new(known: StreamPosition) -> Self {
        Self { known, seen: 0 }
    }

    fn judge(&mut self, at_nanos: i128) -> Verdict {
        if self.known.count == 0 {
            return Verdict::New;
        }
        if at_nanos < self.known.at_nanos {
            return Verdict::Known;
        }
        if at_nanos == self.known.at_nanos && self.seen < self.known.count {
            self.seen += 1;
            return Verdict::Known;
        }
        let lost = self.seen < self.known.count;
        // Judged once; from here on everything is new.
        self.known.count = 0;
        if lost { Verdict::AfterLoss } else { Verdict::New }
    }
}

impl Source {
    async fn next(&mut self) -> Option<Piece> {
        if let Some(entry) = self.pending.take() {
            return Some(self.entry(entry));
        }
        if self.over {
            return None;
        }
        loop {
            let open = self.open.get_or_insert_with(|| open(&self.runtime, &self.container, &self.position));
            match open.entries.next().await {
                Some(Ok(entry)) => {
                    let resume = if entry.stream == LogStream::Stderr { &mut open.stderr } else { &mut open.stdout };
                    let verdict = resume.judge(entry.at_nanos);
                    self.backoff.reset();
                    match verdict {
                        Verdict::Known => {}
                        Verdict::New => return Some(self.entry(entry)),
                        Verdict::AfterLoss => {
                            self.pending = Some(entry);
                            return Some(Piece::Lost);
                        }
                    }
                }
                Some(Err(RuntimeError::NoSuchContainer)) => return None,
                Some(Err(error @ RuntimeError::Engine { .. })) if self.backoff.attempts() >= ATTEMPTS_MAX => {
                    self.over = true;
                    return Some(Piece::Unreadable { why: error.to_string() });
                }
                Some(Err(_)) => self.again().await,
                None if self.has_ended().await => return None,
                None => self.again().await,
            }
        }
    }

    async fn again(&mut self) {
        self.open = None;
        self.backoff.wait().await;
    }

    /// Whether the end of the log is its end, or only the engine's.
    async fn has_ended(&mut self) -> bool {
        loop {
            match self.runtime.inspect(&self.container).await {
                Ok(ContainerStatus::Exited(_)) | Err(RuntimeError::NoSuchContainer) => return true,
                Ok(ContainerStatus::Created | ContainerStatus::Running { .. } | ContainerStatus::Paused { .. }) => {
                    return false;
                }
                Err(_) => self.backoff.wait().await,
            }
        }
    }

    fn entry(&mut self, entry: LogEntry) -> Piece {
        let stream = match entry.stream {
            LogStream::Stderr => &mut self.position.stderr,
            LogStream::Stdout | LogStream::Notice => &mut self.position.stdout,
        };
        let same = stream.count > 0 && stream.at_nanos == entry.at_nanos;
        *stream = StreamPosition { at_nanos: entry.at_nanos, count: if same { stream.count + 1 } else { 1 } };
        Piece::Entry { entry, after: self.position }
    }
}

fn open(runtime: &Arc<dyn ContainerRuntime>, container: &ContainerId, position: &Place) -> Open {
    let known = [position.stdout, position.stderr].into_iter().filter(|stream| stream.count > 0);
    let oldest = known.map(|stream| stream.at_nanos).min();
    let both = position.stdout.count > 0 && position.stderr.count > 0;
    let slack = if both { 0 } else { STAMP_SLACK_NANOS };
    let since = oldest.map_or(0, |at| (at - slack).max(0));
    Open {
        entries: runtime.logs(container, since),
        stdout: Resume::new(position.stdout),
        stderr: Resume::new(position.stderr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(known: StreamPosition, times: &[i128]) -> Vec<Verdict> {
        let mut resume = Resume::new(known);
        times.iter().map(|&at| resume.judge(at)).collect()
    }

    #[test]
    fn what_was_accepted_is_skipped_and_entries_of_the_same_time_are_counted() {
        use Verdict::{Known, New};
        let known = StreamPosition { at_nanos: 20, count: 2 };
        assert_eq!(judge(known, &[10, 20, 20, 20, 30]), [Known, Known, Known, New, New]);
        assert_eq!(judge(StreamPosition::default(), &[10, 10]), [New, New]);
    }

    #[test]
    fn a_gap_is_noticed_once() {
        use Verdict::{AfterLoss, Known, New};
        let known = StreamPosition { at_nanos: 20, count: 2 };
        assert_eq!(judge(known, &[30, 40]), [AfterLoss, New]);
        assert_eq!(judge(known, &[20, 30, 30]), [Known, AfterLoss, New]);
    }
}
