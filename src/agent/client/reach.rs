//! The node's two streams of a session into one of its jobs.
//!
//! Each goes over a connection of its own, so that a renter who reads slowly holds up no heartbeat. They are never repeated: a
//! session whose stream breaks is over.

use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use tokio::sync::mpsc;

use super::{Client, ClientError};
use crate::agent::failover::Pick;
use crate::http::{ApiClient, HttpError};
use crate::wire::{REACH_MEDIA_TYPE, ReachId};

/// A stream that is held open this long is cut.
const STREAM_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

impl Client {
    /// What the renter of a session sends; asking for it takes the session up.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn reach_input(
        &self,
        id: ReachId,
    ) -> Result<impl Stream<Item = Result<Bytes, HttpError>> + Send + use<>, ClientError> {
        let token = self.session(None).await?;
        let api = self.apart()?;
        let call = api.get(&format!("/v1/node/sessions/{id}/input")).bearer(&token).timeout(STREAM_TIMEOUT);
        let answer = call.open().await?;
        Ok(stream::unfold(Some((answer, api)), |state| async move {
            let (mut answer, api) = state?;
            match answer.chunk().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some((answer, api)))),
                Ok(None) => None,
                Err(error) => Some((Err(api.classify(&error)), None)),
            }
        }))
    }

    /// Sends what a session answers until the sender is dropped; comes back when the renter has all of it.
    ///
    /// # Errors
    /// [`ClientError`]; also when the session is over before that.
    pub(crate) async fn reach_output(&self, id: ReachId, frames: mpsc::Receiver<Bytes>) -> Result<(), ClientError> {
        let token = self.session(None).await?;
        let body = stream::unfold(frames, |mut frames| async move {
            let piece = frames.recv().await?;
            Some((Ok::<_, std::io::Error>(piece), frames))
        });
        let call = self.apart()?.post(&format!("/v1/node/sessions/{id}/output")).bearer(&token).timeout(STREAM_TIMEOUT);
        Ok(call.body(REACH_MEDIA_TYPE, reqwest::Body::wrap_stream(body)).done().await?)
    }

    /// The coordinator that is used now, over connections apart from all others.
    fn apart(&self) -> Result<ApiClient, ClientError> {
        let pick = self.known().failover.pick(self.inner.clock.steady());
        let index = match pick {
            Pick::Use { index } => index,
            Pick::Nothing | Pick::Wait { .. } => return Err(ClientError::NoCoordinator),
        };
        let api = self.inner.addresses.get(index).ok_or(ClientError::NoCoordinator)?;
        Ok(api.apart()?)
    }
}
