//! One session into a running job, as its renter holds it.
//!
//! Invariants
//! - Its two streams go over connections of their own. A session whose stream breaks is over; it is never resumed.
//! - Dropping it ends it: the coordinator tells the node, which ends the command.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{RentClient, RentError};
use crate::http::{ApiClient, HttpError};
use crate::wire::reach::{NewReach, ReachFrame, ReachOpened, decode, encode_frame};
use crate::wire::{JobId, REACH_MEDIA_TYPE};

/// A session that is held open this long is cut.
const SESSION_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Pieces that wait to be sent.
const PIECES_MAX: usize = 4;

/// A session's answers. The way in is [`ReachInput`].
#[derive(Debug)]
pub struct ReachSession {
    api: ApiClient,
    answer: reqwest::Response,
    buffer: BytesMut,
    _sending: AbortOnDropHandle<Result<(), HttpError>>,
}

/// The way into a session. The input ends when [`ReachFrame::InputEnd`] is sent.
#[derive(Debug, Clone)]
pub struct ReachInput(mpsc::Sender<Bytes>);

impl RentClient {
    /// Begins a session into a running job of one's own.
    ///
    /// # Errors
    /// When the coordinator refuses: the job is not interactive, does not run, or has too many sessions.
    pub async fn reach(&self, job: JobId, new: &NewReach) -> Result<(ReachInput, ReachSession), RentError> {
        let call = self.api.post(&format!("/v1/jobs/{job}/sessions")).bearer(&self.api_key).json(new);
        let ReachOpened { session_id } = call.receive().await?;
        let api = self.api.apart()?;
        let path = format!("/v1/jobs/{job}/sessions/{session_id}");
        let (sender, pieces) = mpsc::channel::<Bytes>(PIECES_MAX);
        let body = stream::unfold(pieces, |mut pieces| async move {
            let piece = pieces.recv().await?;
            Some((Ok::<_, std::io::Error>(piece), pieces))
        });
        let input = api.post(&format!("{path}/input")).bearer(&self.api_key).timeout(SESSION_TIMEOUT);
        let input = input.body(REACH_MEDIA_TYPE, reqwest::Body::wrap_stream(body));
        let sending = AbortOnDropHandle::new(tokio::spawn(input.done()));
        let output = api.get(&format!("{path}/output")).bearer(&self.api_key).timeout(SESSION_TIMEOUT);
        let answer = output.open().await?;
        Ok((ReachInput(sender), ReachSession { api, answer, buffer: BytesMut::new(), _sending: sending }))
    }
}

impl ReachInput {
    /// Sends one frame, as soon as there is room; whether anybody still takes it.
    pub async fn send(&self, frame: &ReachFrame) -> bool {
        let mut out = BytesMut::new();
        encode_frame(frame, &mut out);
        self.0.send(out.freeze()).await.is_ok()
    }

    /// The same from a thread that may wait.
    #[must_use]
    pub fn send_blocking(&self, frame: &ReachFrame) -> bool {
        let mut out = BytesMut::new();
        encode_frame(frame, &mut out);
        self.0.blocking_send(out.freeze()).is_ok()
    }
}

impl ReachSession {
    /// The next frame of the answer; [`ReachFrame::Exit`] and [`ReachFrame::Error`] are the last ones.
    ///
    /// # Errors
    /// When the connection to the coordinator broke, or what comes are no frames.
    pub async fn next(&mut self) -> Result<ReachFrame, RentError> {
        loop {
            if let Some(frame) = decode(&mut self.buffer).map_err(RentError::Session)? {
                return Ok(frame);
            }
            match self.answer.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => return Err(self.cut_off("it ended the session before its end".to_owned())),
                Err(error) => return Err(self.api.classify(&error).into()),
            }
        }
    }

    fn cut_off(&self, why: String) -> RentError {
        let url = self.api.base().as_str().trim_end_matches('/').to_owned();
        HttpError::Unreachable { url, why }.into()
    }
}
