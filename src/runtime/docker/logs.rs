//! A container's log as entries with the time the engine stored them.
//!
//! The engine is asked for timestamps: each message then starts with an RFC 3339 time of fixed width and a space, which are
//! taken off again. Lines over 16 KiB come as several messages with the time of the first and a line end only on the last; where
//! the last is empty (a line of exactly n × 16 KiB) the engine leaves its line end out, and it is put back here.

use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;

use super::super::{ContainerId, LogEntry, RuntimeError};
use super::{DockerRuntime, errors};
use crate::wire::logs::LogStream;

const STAMP_BYTES_MAX: usize = 40;
const TAIL_DEADLINE: Duration = Duration::from_secs(10);

impl DockerRuntime {
    pub(super) fn log_entries(
        &self,
        id: &ContainerId,
        since_nanos: i128,
    ) -> BoxStream<'static, Result<LogEntry, RuntimeError>> {
        let since = whole_seconds(since_nanos);
        let options =
            LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).timestamps(true).since(since).build();
        let address = self.address.clone();
        let entries = self
            .docker
            .logs(&id.0, Some(options))
            .map(move |message| match message {
                Ok(message) => entry_of(message),
                Err(error) => Err(errors::classify(&address, "read a log", error)),
            })
            .filter(move |entry| std::future::ready(entry.as_ref().map_or(true, |entry| entry.at_nanos >= since_nanos)))
            .boxed();
        let reader = Reader { runtime: self.clone(), id: id.clone(), since_nanos, entries, last: None };
        stream::unfold(Some(reader), |reader| async move { reader?.next().await }).boxed()
    }

    /// The newest entry of both streams.
    async fn newest_entry(&self, id: &ContainerId) -> Result<Option<LogEntry>, RuntimeError> {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true).tail("1").build();
        let mut messages = self.docker.logs(&id.0, Some(options)).boxed();
        let newest = async { messages.next().await.transpose() };
        self.call("read a log", TAIL_DEADLINE, newest).await?.map(entry_of).transpose()
    }

    /// The last message on standard error; empty when there is none.
    pub(super) async fn last_words(&self, id: &ContainerId) -> Result<String, RuntimeError> {
        let options = LogsOptionsBuilder::new().stderr(true).tail("1").build();
        let mut messages = self.docker.logs(&id.0, Some(options)).boxed();
        let last = async { messages.next().await.transpose() };
        let last = self.call("read a log", TAIL_DEADLINE, last).await?;
        Ok(last.map(|message| String::from_utf8_lossy(&message.into_bytes()).into_owned()).unwrap_or_default())
    }
}

/// Reads a log to its true end: an engine that follows a log for a slow reader may hang up early when the container ends.
struct Reader {
    runtime: DockerRuntime,
    id: ContainerId,
    since_nanos: i128,
    entries: BoxStream<'static, Result<LogEntry, RuntimeError>>,
    last: Option<LogEntry>,
}

impl Reader {
    async fn next(mut self) -> Option<(Result<LogEntry, RuntimeError>, Option<Self>)> {
        match self.entries.next().await {
            Some(Ok(entry)) => {
                self.last = Some(entry.clone());
                Some((Ok(entry), Some(self)))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None => match self.runtime.newest_entry(&self.id).await {
                Ok(newest) if newest == self.last => None,
                Ok(newest) if newest.as_ref().is_none_or(|newest| newest.at_nanos < self.since_nanos) => None,
                Ok(_) => Some((Err(broken("the engine hung up before its end")), None)),
                Err(error) => Some((Err(error), None)),
            },
        }
    }
}

/// What the engine is asked for; what is older than wished is left out by whoever asks. The client library has 32 bits for it:
/// from January 2038 on more is asked for than is needed, and never less.
fn whole_seconds(nanos: i128) -> i32 {
    i32::try_from(nanos.max(0) / 1_000_000_000).unwrap_or(i32::MAX)
}

fn entry_of(message: LogOutput) -> Result<LogEntry, RuntimeError> {
    let (stream, mut bytes) = match message {
        LogOutput::StdOut { message } => (LogStream::Stdout, message),
        LogOutput::StdErr { message } => (LogStream::Stderr, message),
        // The engine's own error text in mid-stream.
        LogOutput::Console { message } | LogOutput::StdIn { message } => {
            return Err(broken(&String::from_utf8_lossy(&message)));
        }
    };
    let at_nanos = take_stamp(&mut bytes).ok_or_else(|| broken("a message has no time"))?;
    if bytes.is_empty() {
        bytes = Bytes::from_static(b"\n");
    }
    Ok(LogEntry { at_nanos, stream, bytes })
}

fn take_stamp(bytes: &mut Bytes) -> Option<i128> {
    let head = bytes.get(..bytes.len().min(STAMP_BYTES_MAX))?;
    let space = head.iter().position(|&b| b == b' ')?;
    let stamp: Timestamp = std::str::from_utf8(head.get(..space)?).ok()?.parse().ok()?;
    bytes.advance(space + 1);
    Some(stamp.as_nanosecond())
}

fn broken(detail: &str) -> RuntimeError {
    RuntimeError::Engine { what: "read a log", detail: detail.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_taken_off_and_the_bytes_stay_as_they_are() {
        let message = Bytes::from_static(b"2026-11-22T08:35:37.077463651Z x\xffy \n");
        let entry = entry_of(LogOutput::StdErr { message }).unwrap();
        assert_eq!(entry.bytes, &b"x\xffy \n"[..]);
        assert_eq!(entry.stream, LogStream::Stderr);
        assert_eq!(entry.at_nanos % 1_000_000_000, 77_463_651);
    }

    #[test]
    fn what_is_asked_for_never_begins_later_than_what_is_wished() {
        let year_2040 = 2_208_988_800_000_000_001;
        for (nanos, seconds) in [(-1, 0), (0, 0), (1_999_999_999, 1), (year_2040, i32::MAX), (i128::MAX, i32::MAX)] {
            assert_eq!(whole_seconds(nanos), seconds);
            assert!(i128::from(whole_seconds(nanos)) * 1_000_000_000 <= nanos.max(0));
        }
    }

    #[test]
    fn a_message_without_a_time_is_an_error_and_not_a_guess() {
        for bad in [&b"no time here"[..], b"", b"\xff\xfe \n"] {
            assert!(entry_of(LogOutput::StdOut { message: Bytes::copy_from_slice(bad) }).is_err());
        }
    }
}
