//! Following a job's log across broken connections.

use std::time::Duration;

use bytes::BytesMut;
use futures_util::Stream;

use super::{RentClient, RentError};
use crate::http::HttpError;
use crate::wire::JobId;
use crate::wire::logs::{FRAME_HEADER_BYTES, LogFrame, decode};

/// A stream that is held open this long is opened anew.
const STREAM_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Pauses without a byte in between before the failure is reported, about five minutes.
const PAUSES_MAX: u32 = 64;

/// A job's log, frame by frame. Offsets count framed bytes, so that one number resumes it.
#[derive(Debug)]
pub struct LogFollower {
    client: RentClient,
    job: JobId,
    offset: u64,
    follow: bool,
    buffer: BytesMut,
    answer: Option<reqwest::Response>,
    pauses: u32,
    ended: bool,
}

impl LogFollower {
    pub(super) fn new(client: RentClient, job: JobId, offset: u64, follow: bool) -> Self {
        Self { client, job, offset, follow, buffer: BytesMut::new(), answer: None, pauses: 0, ended: false }
    }

    /// Framed bytes taken so far, those before the start included: where another follower would go on.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The next frame; `None` when no more will come.
    ///
    /// # Errors
    /// When the job is not there, the log is no log, or the coordinator stays away for minutes.
    pub async fn next(&mut self) -> Result<Option<LogFrame>, RentError> {
        loop {
            if let Some(frame) = decode(&mut self.buffer).map_err(RentError::Log)? {
                self.offset += (FRAME_HEADER_BYTES + frame.bytes.len()) as u64;
                return Ok(Some(frame));
            }
            if self.ended {
                return Ok(None);
            }
            match self.fill().await {
                Ok(()) => {}
                Err(error) => self.pause(error).await?,
            }
        }
    }

    /// The frames as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<LogFrame, RentError>> {
        futures_util::stream::unfold(Some(self), |follower| async move {
            let mut follower = follower?;
            match follower.next().await {
                Ok(Some(frame)) => Some((Ok(frame), Some(follower))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// Reads more bytes, opening the stream where none is open.
    async fn fill(&mut self) -> Result<(), HttpError> {
        let Some(answer) = &mut self.answer else {
            // What is left of a half frame comes again from the offset on.
            self.buffer.clear();
            let path = format!("/v1/jobs/{}/logs?offset={}&follow={}", self.job, self.offset, self.follow);
            let call = self.client.api.get(&path).bearer(&self.client.api_key).timeout(STREAM_TIMEOUT);
            self.answer = Some(call.open().await?);
            return Ok(());
        };
        match answer.chunk().await {
            Ok(Some(chunk)) => {
                self.pauses = 0;
                self.buffer.extend_from_slice(&chunk);
                Ok(())
            }
            Ok(None) => {
                self.answer = None;
                self.ended = !self.follow || self.is_complete().await?;
                if !self.ended {
                    // A coordinator that is going down ends its streams in good order; the rest comes from the next one.
                    let url = self.client.coordinator().to_owned();
                    return Err(HttpError::Unreachable { url, why: "it ended the log before its end".to_owned() });
                }
                Ok(())
            }
            Err(error) => {
                self.answer = None;
                Err(self.client.api.classify(&error))
            }
        }
    }

    /// Whether everything there will ever be has been read.
    async fn is_complete(&self) -> Result<bool, HttpError> {
        let call = self.client.api.get(&format!("/v1/jobs/{}", self.job)).bearer(&self.client.api_key);
        let view: crate::wire::job::JobView = call.receive().await?;
        Ok((view.log_complete || view.state.is_final()) && self.offset >= view.log_bytes)
    }

    async fn pause(&mut self, error: HttpError) -> Result<(), RentError> {
        self.answer = None;
        self.buffer.clear();
        if !error.is_temporary() || self.pauses >= PAUSES_MAX {
            return Err(error.into());
        }
        let pause = (PAUSE_MIN * 2_u32.saturating_pow(self.pauses.min(8))).min(PAUSE_MAX);
        self.pauses += 1;
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
