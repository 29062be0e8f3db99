//! The output folder on its way to the coordinator: spooled to a file with a size limit, hashed, handed over part by part.
//!
//! Invariants
//! - The spool file is named after its lease. It is whole when its note is beside it, and is then never collected again: an agent
//!   that was killed goes on where the coordinator says.
//! - Nothing is handed over that is larger than the job's limit; the limit is kept while reading.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use super::backoff::Backoff;
use super::{LeasePort, OutputPart, PortError};
use crate::runtime::{ContainerId, ContainerRuntime, RuntimeError};
use crate::wire::LeaseId;

const ENGINE_ATTEMPTS_MAX: u32 = 5;
/// Bytes of one part: what a broken connection costs at most.
const PART_BYTES: u64 = 2 << 20;

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

/// What is noted beside a whole spool file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// Says that the spool file is whole, and what it is.
fn note_path(file: &Path) -> PathBuf {
    file.with_extension("json")
}

/// Spools the folder, unless that is done, and hands it over.
pub(super) async fn run(task: OutputTask) -> OutputOutcome {
    let file = spool_path(&task.spool_dir, task.lease_id);
    let kept = kept(&file, task.bytes_max).await;
    let spooled = match kept {
        Some(spooled) => Ok(spooled),
        None => spool_with_retry(&task, &file).await,
    };
    let outcome = match spooled {
        Ok(spooled) => send(&task, &file, &spooled).await,
        Err(why) => OutputOutcome::Absent(format!("no output was kept: {why}")),
    };
    discard(&file).await;
    outcome
}

/// What an agent before this one spooled, if it got to the end.
async fn kept(file: &Path, bytes_max: u64) -> Option<Spooled> {
    let note = tokio::fs::read(note_path(file)).await.ok()?;
    let spooled: Spooled = serde_json::from_slice(&note).ok()?;
    let length = tokio::fs::metadata(file).await.ok()?.len();
    (length == spooled.bytes && length <= bytes_max).then_some(spooled)
}

/// Removes a spool file and what is noted of it; nothing happens when there is none.
pub(super) async fn discard(file: &Path) {
    for file in [&note_path(file), &file.with_extension("half"), file] {
        if let Err(error) = tokio::fs::remove_file(file).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(file = %file.display(), %error, "a spooled output could not be removed");
        }
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
    discard(path).await;
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
    let spooled = Spooled { bytes, sha256: hex::encode(hash.finalize()) };
    note(&file, path, &spooled).await.map_err(failed)?;
    Ok(spooled)
}

/// On disk in this order: the bytes, then the word that they are whole.
async fn note(file: &File, path: &Path, spooled: &Spooled) -> std::io::Result<()> {
    file.sync_data().await?;
    let (note, half) = (note_path(path), path.with_extension("half"));
    tokio::fs::write(&half, serde_json::to_vec(spooled)?).await?;
    tokio::fs::rename(half, note).await
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

/// Hands the file over from where the coordinator has it, however often that breaks off.
async fn send(task: &OutputTask, file: &Path, spooled: &Spooled) -> OutputOutcome {
    let mut backoff = Backoff::coordinator();
    let mut offset = None;
    loop {
        match step(task, file, spooled, offset).await {
            Ok(Some(next)) => {
                if offset.is_some_and(|before| next > before) {
                    backoff.reset();
                }
                offset = Some(next);
            }
            Ok(None) => return OutputOutcome::Sent,
            Err(PortError::LeaseEnded) => return OutputOutcome::LeaseEnded,
            Err(PortError::Rejected(problem)) => {
                return OutputOutcome::Absent(format!("no output was kept: {problem}"));
            }
            Err(PortError::OffsetGap { .. } | PortError::Unavailable { .. }) => {
                // How much of the last part came through is for the coordinator to say.
                offset = None;
                backoff.wait().await;
            }
        }
    }
}

/// Asks where to go on, hands over a part, or finishes; up to which byte the coordinator has it, until it has all.
async fn step(
    task: &OutputTask,
    file: &Path,
    spooled: &Spooled,
    offset: Option<u64>,
) -> Result<Option<u64>, PortError> {
    let Some(offset) = offset else {
        return task.port.output_offset(task.lease_id, &spooled.sha256).await.map(Some);
    };
    if offset >= spooled.bytes {
        return task.port.finish_output(task.lease_id, &spooled.sha256, spooled.bytes).await.map(|_| None);
    }
    let part = OutputPart { file, offset, bytes: PART_BYTES.min(spooled.bytes - offset) };
    task.port.send_output_part(task.lease_id, &spooled.sha256, part).await.map(Some)
}
