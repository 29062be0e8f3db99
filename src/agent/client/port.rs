//! What a lease's task reports, over the agent's client.

use std::io::{Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use super::{Client, ClientError};
use crate::http::{CALL_TIMEOUT, HttpError};
use crate::job::{LeasePort, OutputPart, PortError};
use crate::wire::lease::{
    EventsAccepted, LeaseEvent, LeaseEvents, LogAccepted, OutputAccepted, OutputFinished, OutputProgress,
};
use crate::wire::{ErrorCode, LOG_MEDIA_TYPE, LeaseId, Sequence};

/// A part of an output may take as long as it does at this speed.
const OUTPUT_BYTES_PER_SECOND_MIN: u64 = 50_000;
/// The coordinator reads and writes parts at this speed at least.
const ASSEMBLED_BYTES_PER_SECOND_MIN: u64 = 5_000_000;

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

    async fn output_offset(&self, lease_id: LeaseId, sha256: &str) -> Result<u64, PortError> {
        let path = format!("/v1/leases/{lease_id}/output/parts?offset=0&sha256={sha256}");
        let asked: Result<OutputProgress, _> =
            self.authorized(|api| api.post(&path).body("application/x-tar", Bytes::new())).await;
        asked.map(|progress| progress.next_offset).map_err(refused)
    }

    async fn send_output_part(&self, lease_id: LeaseId, sha256: &str, part: OutputPart<'_>) -> Result<u64, PortError> {
        let OutputPart { file, offset, bytes } = part;
        if let Err(error) = tokio::fs::metadata(file).await {
            let why = format!("the collected output at {} cannot be read ({error})", file.display());
            return Err(PortError::Unavailable { why });
        }
        let path = format!("/v1/leases/{lease_id}/output/parts?offset={offset}&sha256={sha256}");
        let timeout = CALL_TIMEOUT + Duration::from_secs(bytes / OUTPUT_BYTES_PER_SECOND_MIN);
        // Opened anew for every attempt. One that vanished meanwhile is sent short, and its hash refuses the whole.
        let body = || match open_at(file, offset) {
            Ok(file) => reqwest::Body::wrap_stream(ReaderStream::new(tokio::fs::File::from_std(file).take(bytes))),
            Err(_) => reqwest::Body::from(Bytes::new()),
        };
        let sent: Result<OutputProgress, _> =
            self.authorized(|api| api.post(&path).timeout(timeout).body("application/x-tar", body())).await;
        match sent {
            Ok(progress) => Ok(progress.next_offset),
            Err(error) if error.code() == Some(ErrorCode::OffsetGap) => {
                Err(PortError::OffsetGap { next_offset: self.output_offset(lease_id, sha256).await? })
            }
            Err(error) => Err(refused(error)),
        }
    }

    async fn finish_output(&self, lease_id: LeaseId, sha256: &str, bytes: u64) -> Result<OutputAccepted, PortError> {
        let path = format!("/v1/leases/{lease_id}/output");
        let finished = OutputFinished { bytes, sha256: sha256.to_owned() };
        // The coordinator puts the parts together before it answers.
        let timeout = CALL_TIMEOUT + Duration::from_secs(bytes / ASSEMBLED_BYTES_PER_SECOND_MIN);
        match self.authorized(|api| api.put(&path).timeout(timeout).json(&finished)).await {
            Err(error) if error.code() == Some(ErrorCode::OffsetGap) => {
                Err(PortError::OffsetGap { next_offset: self.output_offset(lease_id, sha256).await? })
            }
            other => other.map_err(refused),
        }
    }
}

fn open_at(file: &Path, offset: u64) -> std::io::Result<std::fs::File> {
    let mut file = std::fs::File::open(file)?;
    file.seek(SeekFrom::Start(offset))?;
    Ok(file)
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
