//! The output folder on its way to the coordinator: spooled to a file with a size limit, hashed, handed over.
//!
//! Invariants
//! - The spool file is named after its lease, so that a restart overwrites it and nothing is left behind.
//! - Nothing is handed over that is larger than the job's limit; the limit is kept while reading.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use super::backoff::Backoff;
use super::{LeasePort, PortError};
use crate::runtime::{ContainerId, ContainerRuntime, RuntimeError};
use crate::wire::LeaseId;

const ENGINE_ATTEMPTS_MAX: u32 = 5;

/// Everything the output of one lease needs.
pub(super) struct OutputTask {
    pub(super) runtime: Arc<dyn ContainerRuntime>,
    pub(super) port: Arc<dyn LeasePort>,
    pub(super) lease_id: LeaseId,
    pub(super) container: ContainerId,
    pub(super) path: String,
    pub(super) bytes_max: u64,
    pub(super) spool_dir: PathBuf,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OutputOutcome {
    /// The coordinator has it.
    Sent,
    /// There is none; the log should say why.
    Absent(String),
    /// The lease is over for this node.
    LeaseEnded,
}

struct Spooled {
    bytes: u64,
    sha256: String,
}

enum SpoolError {
    /// Trying again would end the same way.
    Final(String),
    /// The engine is away or hiccups.
    Engine(RuntimeError),
}

/// Where the output of a lease waits.
pub(super) fn spool_path(spool_dir: &Path, lease_id: LeaseId) -> PathBuf {
    spool_dir.join(format!("{lease_id}.tar"))
}

/// Spools the folder and hands it over.
pub(super) async fn run(task: OutputTask) -> OutputOutcome {
    let file = spool_path(&task.spool_dir, task.lease_id);
    let outcome = match spool_with_retry(&task, &file).await {
        Ok(spooled) => send(&task, &file, &spooled).await,
        Err(why) => OutputOutcome::Absent(format!("no output was kept: {why}")),
    };
    discard(&file).await;
    outcome
}

/// Removes a spool file; nothing happens when there is none.
pub(super) async fn discard(file: &Path) {
    if let Err(error) = tokio::fs::remove_file(file).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(file = %file.display(), %error, "a spooled output could not be removed");
    }
}

async fn spool_with_retry(task: &OutputTask, file: &Path) -> Result<Spooled, String> {
    let mut backoff = Backoff::engine();
    loop {
        match spool(task, file).await {
            Ok(spooled) => return Ok(spooled),
            Err(SpoolError::Final(why)) => return Err(why),
            Err(SpoolError::Engine(error)) => {
                let away = matches!(error, RuntimeError::NotRunning { .. } | RuntimeError::TimedOut { .. });
                if !away && backoff.attempts() >= ENGINE_ATTEMPTS_MAX {
                    return Err(error.to_string());
                }
                backoff.wait().await;
            }
        }
    }
}

async fn spool(task: &OutputTask, path: &Path) -> Result<Spooled, SpoolError> {
    let failed = |error: std::io::Error| SpoolError::Final(format!("the node could not store it ({error})"));
    let mut file = File::create(path).await.map_err(failed)?;
    let mut pieces = task.runtime.archive(&task.container, &task.path);
    let (mut bytes, mut hash) = (0_u64, Sha256::new());
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| of_engine(error, task))?;
        bytes += piece.len() as u64;
        if bytes > task.bytes_max {
            let limit = task.bytes_max;
            return Err(SpoolError::Final(format!("'{}' is larger than the limit of {limit} bytes", task.path)));
        }
        hash.update(&piece);
        file.write_all(&piece).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    Ok(Spooled { bytes, sha256: hex::encode(hash.finalize()) })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other error of the engine is tried again")]
fn of_engine(error: RuntimeError, task: &OutputTask) -> SpoolError {
    match error {
        RuntimeError::NoSuchPath { path } => SpoolError::Final(format!("the container has no '{path}'")),
        RuntimeError::NoSuchContainer => {
            SpoolError::Final(format!("the container is gone, and '{}' with it", task.path))
        }
        error => SpoolError::Engine(error),
    }
}

async fn send(task: &OutputTask, file: &Path, spooled: &Spooled) -> OutputOutcome {
    let mut backoff = Backoff::coordinator();
    loop {
        let sent = task.port.send_output(task.lease_id, file, &spooled.sha256, spooled.bytes).await;
        match sent {
            Ok(_) => return OutputOutcome::Sent,
            Err(PortError::LeaseEnded) => return OutputOutcome::LeaseEnded,
            Err(PortError::Rejected(problem)) => {
                return OutputOutcome::Absent(format!("no output was kept: {problem}"));
            }
            Err(PortError::OffsetGap { .. } | PortError::Unavailable { .. }) => backoff.wait().await,
        }
    }
}
