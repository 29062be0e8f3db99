//! What a lease's task reports, over the agent's client.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::io::ReaderStream;

use super::{Client, ClientError};
use crate::http::{CALL_TIMEOUT, HttpError};
use crate::job::{LeasePort, PortError};
use crate::wire::lease::{EventsAccepted, LeaseEvent, LeaseEvents, LogAccepted, OutputAccepted};
use crate::wire::{ErrorCode, LOG_MEDIA_TYPE, LeaseId, Sequence};

/// An output may take as long as it does at this speed.
const OUTPUT_BYTES_PER_SECOND_MIN: u64 = 50_000;

#[async_trait]
impl LeasePort for Client {
    async fn send_events(&self, lease_id: LeaseId, events: &[LeaseEvent]) -> Result<Sequence, PortError> {
        let offset = self.known().offset;
        let events = events.iter().map(|e| LeaseEvent { at: self.to_network(e.at, offset), ..e.clone() }).collect();
        let body = LeaseEvents { events };
        let path = format!("/v1/leases/{lease_id}/events");
        let answer: Result<EventsAccepted, _> = self.authorized(|api| api.post(&path).json(&body)).await;
        answer.map(|accepted| accepted.through).map_err(refused)
    }

    async fn send_logs(&self, lease_id: LeaseId, offset: u64, complete: bool, frames: Bytes) -> Result<u64, PortError> {
        let end = if complete { "&complete=true" } else { "" };
        let path = format!("/v1/leases/{lease_id}/logs?offset={offset}{end}");
        let answer: Result<LogAccepted, _> =
            self.authorized(|api| api.post(&path).body(LOG_MEDIA_TYPE, frames.clone())).await;
        match answer {
            Ok(accepted) => Ok(accepted.next_offset),
            Err(error) if error.code() == Some(ErrorCode::OffsetGap) => {
                // Where to go on is asked with an empty body, which the coordinator always takes.
                let path = format!("/v1/leases/{lease_id}/logs?offset=0");
                let asked: LogAccepted =
                    self.authorized(|api| api.post(&path).body(LOG_MEDIA_TYPE, Bytes::new())).await.map_err(refused)?;
                Err(PortError::OffsetGap { next_offset: asked.next_offset })
            }
            Err(error) => Err(refused(error)),
        }
    }

    async fn send_output(
        &self,
        lease_id: LeaseId,
        path: &Path,
        sha256: &str,
        bytes: u64,
    ) -> Result<OutputAccepted, PortError> {
        let to = format!("/v1/leases/{lease_id}/output");
        let timeout = CALL_TIMEOUT + Duration::from_secs(bytes / OUTPUT_BYTES_PER_SECOND_MIN);
        if let Err(error) = tokio::fs::metadata(path).await {
            let why = format!("the collected output at {} cannot be read ({error})", path.display());
            return Err(PortError::Unavailable { why });
        }
        self.authorized(|api| {
            // Opened anew for every attempt. One that vanished meanwhile is refused by its hash, not taken as empty.
            let body = match std::fs::File::open(path) {
                Ok(file) => reqwest::Body::wrap_stream(ReaderStream::new(tokio::fs::File::from_std(file))),
                Err(_) => reqwest::Body::from(Bytes::new()),
            };
            api.put(&to).header("x-fizz-sha256", sha256).timeout(timeout).body("application/x-tar", body)
        })
        .await
        .map_err(refused)
    }
}

/// What an error of the client means for a lease's task.
fn refused(error: ClientError) -> PortError {
    let ClientError::Http(HttpError::Problem(problem)) = error else {
        return PortError::Unavailable { why: error.to_string() };
    };
    if problem.code == ErrorCode::LeaseEnded {
        PortError::LeaseEnded
    } else if problem.status >= 500 || matches!(problem.status, 401 | 408 | 429) {
        // Credentials and limits are the agent's to mend, not the lease's: the call is worth repeating.
        PortError::Unavailable { why: problem.to_string() }
    } else {
        PortError::Rejected(problem)
    }
}
