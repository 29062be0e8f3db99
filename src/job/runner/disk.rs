//! The watch over what a container writes: asks when `job/disk` says so, until it has ended or is over a limit.

use std::sync::Arc;

use crate::clock::Clock;
use crate::job::disk::{DiskLimits, DiskWatch, LOOK_EVERY_MIN};
use crate::job::machine::Input;
use crate::runtime::{ContainerId, ContainerRuntime, ContainerStatus, RuntimeError};
use crate::wire::lease::LimitKind;

/// Answers when the container is over a limit; `None` when it has ended before.
pub(super) async fn watch(
    runtime: Arc<dyn ContainerRuntime>,
    clock: Clock,
    id: ContainerId,
    limits: DiskLimits,
) -> Option<Input> {
    let mut watch = DiskWatch::new(limits, runtime.free_space().await, clock.steady());
    loop {
        if watch.is_nearly_full(runtime.free_space().await) {
            tracing::warn!(container = %id.0, "the disk is nearly full: a job is ended and given back");
            return Some(Input::DiskFull);
        }
        match look(&runtime, &clock, &id, &mut watch).await {
            Ok(Some(limit)) => {
                let value = watch.value(limit);
                tracing::info!(container = %id.0, ?limit, value, "a job is over a limit and is ended");
                return Some(Input::OverLimit { limit, value });
            }
            Ok(None) => {}
            Err(Over) => return None,
        }
        tokio::time::sleep(LOOK_EVERY_MIN).await;
    }
}

/// There is nothing more to watch.
struct Over;

async fn look(
    runtime: &Arc<dyn ContainerRuntime>,
    clock: &Clock,
    id: &ContainerId,
    watch: &mut DiskWatch,
) -> Result<Option<LimitKind>, Over> {
    let free = runtime.free_space().await;
    let began = clock.steady();
    if watch.wants_bytes(free, began) {
        match runtime.disk_used(id).await {
            Ok(used) => {
                let now = clock.steady();
                let over = watch.saw_bytes(&used, free, now.since(began), now);
                match used.status {
                    ContainerStatus::Exited(_) => return Err(Over),
                    ContainerStatus::Created | ContainerStatus::Running { .. } | ContainerStatus::Paused { .. } => {}
                }
                if over.is_some() {
                    return Ok(over);
                }
            }
            Err(RuntimeError::NoSuchContainer) => return Err(Over),
            // Whoever waits for its end tells of an engine in trouble; it is looked at again soon.
            Err(_) => return Ok(None),
        }
    }
    let began = clock.steady();
    if !watch.wants_files(free, began) {
        return Ok(None);
    }
    match runtime.files_made(id, watch.files_max().saturating_add(1)).await {
        Ok(files) => {
            let now = clock.steady();
            Ok(watch.saw_files(files, free, now.since(began), now))
        }
        Err(RuntimeError::NoSuchContainer) => Err(Over),
        Err(_) => Ok(None),
    }
}
