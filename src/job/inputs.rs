//! A job's inputs: fetched by the node while the image is pulled, checked, and put into the container before it starts.
//!
//! Invariants
//! - Only public addresses are asked, see [`crate::http::public`]: an input is no way into the owner's network.
//! - No more than the job's disk is ever stored, whatever a server sends; what is stored is named after its lease.
//! - A file gets its last name only when its SHA-256 is right; what has that name is not fetched again.
//! - Inputs are put into a container that was never started, and belong to the user it runs as.

mod fetch;
mod place;

use std::path::{Path, PathBuf};

use super::runner::RunnerDeps;
use crate::job::machine::Heard;
use crate::runtime::{ContainerId, ContainerStatus, RuntimeError};
use crate::wire::LeaseId;
use crate::wire::job::{InputSpec, ServiceSpec};
use crate::wire::lease::FailureKind;

/// Folders that are memory or the kernel's while a container runs: what is put there is not seen.
const HIDDEN: &[&str] = &["/tmp", "/run", "/var/tmp", "/dev", "/proc", "/sys"];

/// Why an input is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InputFailure {
    pub(super) why: FailureKind,
    pub(super) detail: String,
}

impl InputFailure {
    fn new(why: FailureKind, detail: impl Into<String>) -> Self {
        Self { why, detail: detail.into() }
    }
}

impl From<InputFailure> for Heard {
    fn from(failure: InputFailure) -> Self {
        Self::Failed { why: failure.why, detail: failure.detail }
    }
}

/// Fetches what is not here yet.
pub(super) async fn fetch(deps: &RunnerDeps, lease_id: LeaseId, service: &ServiceSpec) -> Result<(), InputFailure> {
    if service.inputs.is_empty() {
        return Ok(());
    }
    let http = deps
        .images
        .strangers_http()
        .map_err(|error| InputFailure::new(FailureKind::InputUnavailable, error.to_string()))?;
    let mut left = service.resources.disk_bytes;
    for (index, input) in service.inputs.iter().enumerate() {
        check_path(&input.path)?;
        let bytes_max = input.bytes_max.unwrap_or(left).min(left);
        let file = spool_path(&deps.spool_dir, lease_id, service, index);
        left = left.saturating_sub(fetch::one(&http, input, &file, bytes_max).await?);
    }
    Ok(())
}

/// Puts the inputs into a container that was just made; nothing happens when it was started before.
pub(super) async fn put(
    deps: &RunnerDeps,
    lease_id: LeaseId,
    service: &ServiceSpec,
    container: &ContainerId,
) -> Result<(), InputFailure> {
    if service.inputs.is_empty()
        || deps.runtime.inspect(container).await.map_err(of_engine)? != ContainerStatus::Created
    {
        return Ok(());
    }
    // After a restart of the agent they may be gone.
    fetch(deps, lease_id, service).await?;
    let user = deps.runtime.user_of(container).await.map_err(of_engine)?;
    for (index, input) in service.inputs.iter().enumerate() {
        let file = spool_path(&deps.spool_dir, lease_id, service, index);
        let tar = place::tar(&file, input, user).await.map_err(|error| {
            InputFailure::new(FailureKind::InputUnavailable, format!("it cannot be read ({error})"))
        })?;
        deps.runtime.put(container, "/", tar).await.map_err(of_engine)?;
    }
    Ok(())
}

/// Removes what was fetched for a lease, or for one of its services; nothing happens when there is nothing.
pub(super) async fn discard(spool_dir: &Path, lease_id: LeaseId, service: Option<&ServiceSpec>) {
    let Ok(mut entries) = tokio::fs::read_dir(spool_dir).await else { return };
    let beginning = beginning(lease_id, service);
    while let Ok(Some(entry)) = entries.next_entry().await {
        if entry.file_name().to_string_lossy().starts_with(&beginning) {
            super::output::discard(&entry.path()).await;
        }
    }
}

/// What the names of a lease's files begin with. No service has a dot in its name.
fn beginning(lease_id: LeaseId, service: Option<&ServiceSpec>) -> String {
    service.map_or_else(|| format!("{lease_id}.input."), |service| format!("{lease_id}.input.{}.", service.name))
}

fn spool_path(spool_dir: &Path, lease_id: LeaseId, service: &ServiceSpec, index: usize) -> PathBuf {
    spool_dir.join(format!("{}{index}", beginning(lease_id, Some(service))))
}

/// The coordinator has checked it; whoever talks to this node may be another.
fn check_path(path: &str) -> Result<(), InputFailure> {
    let bad = |why: &str| Err(InputFailure::new(FailureKind::InvalidSpec, format!("input '{path}' {why}")));
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return bad("must be the absolute path of a file");
    }
    if path.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) {
        return bad("must be a plain path, without '..' and '//'");
    }
    match HIDDEN.iter().find(|hidden| Path::new(path).starts_with(hidden)) {
        Some(hidden) => bad(&format!("would not be seen: {hidden} is not on disk while a job runs; use /work")),
        None => Ok(()),
    }
}

fn of_engine(error: RuntimeError) -> InputFailure {
    let detail = error.to_string();
    if detail.contains("read-only") {
        let detail = "a job with inputs needs disk to keep them on; ask for some".to_owned();
        return InputFailure { why: FailureKind::InvalidSpec, detail };
    }
    InputFailure { why: super::runner::failure_of(&error), detail }
}

/// What an input is called in sentences: its address without what may be secret in it.
fn shown(input: &InputSpec) -> String {
    let address = input.url.split(['?', '#']).next().unwrap_or_default();
    let shown: String = match url::Url::parse(address) {
        Ok(url) => format!("{}{}", url.host_str().unwrap_or_default(), url.path()),
        Err(_) => address.to_owned(),
    };
    shown.chars().take(200).collect()
}

#[cfg(test)]
mod tests;
