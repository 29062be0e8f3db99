//! The calls of a challenge.

use std::time::Duration;

use super::{Client, ClientError};
use crate::http::HttpError;
use crate::wire::ChallengeId;
use crate::wire::challenge::{Commit, Go, Opening, Reveal, Verdict};

/// The coordinator holds the call until all nodes of the round are ready.
const READY_TIMEOUT: Duration = Duration::from_secs(75);
/// An answer may wait for others to be checked.
const REVEAL_TIMEOUT: Duration = Duration::from_secs(200);
/// Tries to hand in a commitment; each repetition of it is harmless, and time runs.
const COMMITS_MAX: usize = 4;

impl Client {
    /// This node is ready; comes back when the clock runs.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn challenge_ready(&self, id: ChallengeId) -> Result<Go, ClientError> {
        self.authorized(|api| api.post(&format!("/v1/challenges/{id}/ready")).timeout(READY_TIMEOUT)).await
    }

    /// Commits to the results.
    ///
    /// # Errors
    /// [`ClientError`]; also when it was too late.
    pub(crate) async fn challenge_commit(&self, id: ChallengeId, commit: &Commit) -> Result<Opening, ClientError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.authorized(|api| api.post(&format!("/v1/challenges/{id}/commit")).json(commit)).await {
                Err(ClientError::Http(error)) if tries < COMMITS_MAX && HttpError::is_temporary(&error) => {}
                result => return result,
            }
        }
    }

    /// Opens the results.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn challenge_reveal(&self, id: ChallengeId, reveal: &Reveal) -> Result<Verdict, ClientError> {
        self.authorized(|api| api.post(&format!("/v1/challenges/{id}/reveal")).json(reveal).timeout(REVEAL_TIMEOUT))
            .await
    }

    /// Asks to be challenged soon.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn ask_challenge(&self) -> Result<(), ClientError> {
        self.authorized_done(|api| api.post("/v1/node/challenges")).await
    }
}
