//! A container of the fake engine and the task that follows its script.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use super::super::{ContainerExit, ContainerId, ContainerSpec, ContainerStatus, LogEntry, OwnedContainer};
use super::{FakeRuntime, Step};
use crate::wire::LeaseId;
use crate::wire::logs::LogStream;

pub(super) struct FakeContainer {
    pub(super) spec: ContainerSpec,
    pub(super) script: Vec<Step>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) paused: bool,
    pub(super) exit: Option<ContainerExit>,
    /// Whether the engine was stopped when it ended.
    pub(super) ended_unseen: bool,
    pub(super) log: Vec<LogEntry>,
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) holds_released: u32,
    pub(super) term: bool,
    pub(super) ignores_term: bool,
}

impl FakeContainer {
    pub(super) fn new(spec: ContainerSpec, script: Vec<Step>) -> Self {
        Self {
            spec,
            script,
            started_at: None,
            paused: false,
            exit: None,
            ended_unseen: false,
            log: Vec::new(),
            files: BTreeMap::new(),
            holds_released: 0,
            term: false,
            ignores_term: false,
        }
    }

    pub(super) fn status(&self) -> ContainerStatus {
        match (&self.exit, self.started_at) {
            (Some(exit), _) => ContainerStatus::Exited(exit.clone()),
            (None, None) => ContainerStatus::Created,
            (None, Some(started_at)) if self.paused => ContainerStatus::Paused { started_at },
            (None, Some(started_at)) => ContainerStatus::Running { started_at },
        }
    }

    pub(super) fn owned(&self, id: &str) -> OwnedContainer {
        OwnedContainer {
            id: ContainerId(id.to_owned()),
            lease_id: self.spec.lease_id,
            generation: self.spec.generation,
            service: self.spec.service.clone(),
            status: self.status(),
        }
    }

    /// Whether it is this container of this lease.
    pub(super) fn is(&self, lease_id: LeaseId, service: Option<&str>) -> bool {
        self.spec.lease_id == lease_id && self.spec.service.as_deref() == service
    }

    /// Starts it, for the first time or again: its script begins anew, its files and its log go on.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.started_at = Some(now);
        self.exit = None;
        self.term = false;
        self.ignores_term = false;
        self.holds_released = 0;
    }

    /// Ends it, once.
    pub(super) fn end(&mut self, code: i32, out_of_memory: bool, now: Timestamp) {
        if let (None, Some(started_at)) = (&self.exit, self.started_at) {
            self.paused = false;
            self.exit = Some(ContainerExit { code, out_of_memory, started_at, ended_at: now });
        }
    }

    fn write(&mut self, stream: LogStream, bytes: Vec<u8>, now: Timestamp) {
        // The engine's timestamps do not run backwards within a stream.
        let newest = self.log.iter().rev().find(|entry| entry.stream == stream).map_or(0, |entry| entry.at_nanos);
        self.log.push(LogEntry { at_nanos: now.as_nanosecond().max(newest), stream, bytes: Bytes::from(bytes) });
    }
}

/// What the container's task finds when it looks at its container.
enum Look {
    Gone,
    Terminated,
    Blocked,
    Free,
}

/// Follows the script of a started container to its end.
pub(super) async fn follow(runtime: FakeRuntime, id: String) {
    let mut changed = runtime.changed.subscribe();
    let Some(script) = runtime.world().containers.get(&id).map(|container| container.script.clone()) else { return };
    let mut holds = 0;
    for step in script {
        let outcome = match &step {
            Step::Sleep(time) => {
                let time = *time;
                let mut signals = runtime.changed.subscribe();
                tokio::select! {
                    () = tokio::time::sleep(time) => passable(&runtime, &id, &mut changed, 0).await,
                    // A hold that is never released: ends on a signal only.
                    ended = passable(&runtime, &id, &mut signals, u32::MAX) => ended,
                }
            }
            Step::Hold => {
                holds += 1;
                passable(&runtime, &id, &mut changed, holds).await
            }
            Step::Out(_) | Step::Err(_) | Step::IgnoreTerm | Step::File(..) | Step::Exit(_) | Step::OutOfMemory => {
                match passable(&runtime, &id, &mut changed, 0).await {
                    Ok(()) => act(&runtime, &id, step),
                    Err(over) => Err(over),
                }
            }
        };
        if outcome.is_err() {
            return;
        }
    }
    end(&runtime, &id, 0, false);
}

/// The container is over.
struct Over;

/// Waits until the container may go on: not frozen, and released so often.
async fn passable(
    runtime: &FakeRuntime,
    id: &str,
    changed: &mut watch::Receiver<u64>,
    releases: u32,
) -> Result<(), Over> {
    loop {
        changed.borrow_and_update();
        match look(runtime, id, releases) {
            Look::Free => return Ok(()),
            Look::Gone => return Err(Over),
            Look::Terminated => {
                end(runtime, id, 143, false);
                return Err(Over);
            }
            Look::Blocked => {}
        }
        if changed.changed().await.is_err() {
            return Err(Over);
        }
    }
}

fn look(runtime: &FakeRuntime, id: &str, releases: u32) -> Look {
    let world = runtime.world();
    match world.containers.get(id) {
        None => Look::Gone,
        Some(container) if container.exit.is_some() => Look::Gone,
        Some(container) if container.paused => Look::Blocked,
        Some(container) if container.term && !container.ignores_term => Look::Terminated,
        Some(container) if container.holds_released < releases => Look::Blocked,
        Some(_) => Look::Free,
    }
}

fn act(runtime: &FakeRuntime, id: &str, step: Step) -> Result<(), Over> {
    let now = runtime.clock.now();
    let mut world = runtime.world();
    let container = world.containers.get_mut(id).ok_or(Over)?;
    match step {
        Step::Out(bytes) => container.write(LogStream::Stdout, bytes, now),
        Step::Err(bytes) => container.write(LogStream::Stderr, bytes, now),
        Step::IgnoreTerm => container.ignores_term = true,
        Step::File(path, bytes) => drop(container.files.insert(path, bytes)),
        Step::Sleep(_) | Step::Hold => {}
        Step::Exit(code) => {
            drop(world);
            end(runtime, id, code, false);
            return Err(Over);
        }
        Step::OutOfMemory => {
            drop(world);
            end(runtime, id, 137, true);
            return Err(Over);
        }
    }
    drop(world);
    runtime.bump();
    Ok(())
}

/// Ends a container and tells everybody.
pub(super) fn end(runtime: &FakeRuntime, id: &str, code: i32, out_of_memory: bool) {
    let now = runtime.clock.now();
    let lease_id = {
        let mut world = runtime.world();
        let up = world.up;
        let Some(container) = world.containers.get_mut(id) else { return };
        container.ended_unseen = container.exit.is_none() && !up;
        container.end(code, out_of_memory, now);
        container.spec.lease_id
    };
    runtime.bump();
    let _ = runtime.events.send(lease_id);
}
