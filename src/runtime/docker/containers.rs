//! Containers: how they are found, looked at, waited for and stopped.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};

use super::super::{
    ContainerExit, ContainerId, ContainerSpec, ContainerStatus, LABEL_GENERATION, LABEL_LEASE, LABEL_NODE,
    LABEL_SERVICE, OwnedContainer, RuntimeError,
};
use super::{CALL_DEADLINE, DockerRuntime, START_DEADLINE, errors};
use crate::wire::NodeId;

/// What the engine gets on top of the grace before its answer is overdue.
const STOP_MARGIN: Duration = Duration::from_secs(30);
/// So many containers are looked at at once.
const LOOKS_AT_ONCE: usize = 8;
/// Exit codes with which the engine's init says that it could not run the command.
const INIT_CANNOT_EXECUTE: i32 = 126;
const INIT_NOT_FOUND: i32 = 127;
/// So soon after its start at the latest.
const INIT_FAILS_WITHIN: SignedDuration = SignedDuration::from_secs(3);
const INIT_SAYS: &str = "[FATAL tini (";

/// Which of the lease's services a container is; nothing for the main one.
fn service_of(labels: &HashMap<String, String>) -> Option<String> {
    labels.get(LABEL_SERVICE).filter(|service| !service.is_empty()).cloned()
}

impl DockerRuntime {
    pub(super) async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let remove = self.docker.remove_container(&id.0, Some(options));
        match self.call("remove a container", START_DEADLINE, remove).await {
            Err(RuntimeError::NoSuchContainer) => Ok(()),
            // Somebody else removes it at this moment.
            Err(RuntimeError::Engine { detail, .. }) if detail.contains("already in progress") => Ok(()),
            other => other,
        }
    }

    pub(super) async fn container_of(&self, spec: &ContainerSpec) -> Result<Option<ContainerId>, RuntimeError> {
        let labels = vec![format!("{LABEL_NODE}={}", spec.node_id), format!("{LABEL_LEASE}={}", spec.lease_id)];
        let made = self.labelled(labels).await?;
        Ok(made.into_iter().find(|(_, labels)| service_of(labels) == spec.service).map(|(id, _)| id))
    }

    pub(super) async fn restart_container(&self, id: &ContainerId, ended_at: Timestamp) -> Result<(), RuntimeError> {
        match self.look_at(id).await? {
            ContainerStatus::Exited(exit) if exit.ended_at == ended_at => {
                self.call("start a container", START_DEADLINE, self.docker.start_container(&id.0, None)).await
            }
            ContainerStatus::Exited(_)
            | ContainerStatus::Created
            | ContainerStatus::Running { .. }
            | ContainerStatus::Paused { .. } => Ok(()),
        }
    }

    /// Containers with all of these labels, and their labels.
    async fn labelled(&self, labels: Vec<String>) -> Result<Vec<(ContainerId, HashMap<String, String>)>, RuntimeError> {
        let filters = HashMap::from([("label".to_owned(), labels)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.call("list containers", CALL_DEADLINE, self.docker.list_containers(Some(options))).await?;
        Ok(found.into_iter().filter_map(|c| Some((ContainerId(c.id?), c.labels.unwrap_or_default()))).collect())
    }

    pub(super) async fn list_owned(&self, node_id: NodeId) -> Result<Vec<OwnedContainer>, RuntimeError> {
        let found = self.labelled(vec![format!("{LABEL_NODE}={node_id}")]).await?;
        let looks = found.into_iter().filter_map(|(id, labels)| {
            let lease_id = labels.get(LABEL_LEASE)?.parse().ok()?;
            let generation = labels.get(LABEL_GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0);
            let service = service_of(&labels);
            Some(async move {
                match self.look_at(&id).await {
                    Ok(status) => Ok(Some(OwnedContainer { id, lease_id, generation, service, status })),
                    Err(RuntimeError::NoSuchContainer) => Ok(None),
                    Err(error) => Err(error),
                }
            })
        });
        let looks = stream::iter(looks).buffered(LOOKS_AT_ONCE);
        looks.try_filter_map(|owned| std::future::ready(Ok(owned))).try_collect().await
    }

    pub(super) async fn look_at(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        let look = self.docker.inspect_container(&id.0, None);
        let found = self.call("look at a container", CALL_DEADLINE, look).await?;
        status_of(&found).ok_or(RuntimeError::NoSuchContainer)
    }

    pub(super) async fn wait_for_end(&self, id: &ContainerId) -> Result<ContainerExit, RuntimeError> {
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        let mut answers = self.docker.wait_container(&id.0, Some(options)).boxed();
        match answers.next().await {
            Some(Ok(_) | Err(bollard::errors::Error::DockerContainerWaitError { .. })) => {}
            Some(Err(error)) => return Err(errors::classify(&self.address, "wait for a container", error)),
            None => {
                return Err(RuntimeError::NotRunning {
                    address: self.address.clone(),
                    source: "it hung up while a container ran".into(),
                });
            }
        }
        let exit = match self.look_at(id).await? {
            ContainerStatus::Exited(exit) => exit,
            other @ (ContainerStatus::Created | ContainerStatus::Running { .. } | ContainerStatus::Paused { .. }) => {
                let detail = format!("it says that it ended, and then that it is {other:?}");
                return Err(RuntimeError::Engine { what: "wait for a container", detail });
            }
        };
        match exit.code {
            INIT_NOT_FOUND | INIT_CANNOT_EXECUTE if !exit.out_of_memory => self.init_failure(id, exit).await,
            _ => Ok(exit),
        }
    }

    /// The engine's init runs the command; when it cannot, only its exit code and its last words tell.
    async fn init_failure(&self, id: &ContainerId, exit: ContainerExit) -> Result<ContainerExit, RuntimeError> {
        // It fails at once. A program that takes its time and then says the same has run, and is paid for.
        if exit.ended_at.duration_since(exit.started_at) > INIT_FAILS_WITHIN {
            return Ok(exit);
        }
        let last = self.last_words(id).await?;
        let Some((_, detail)) = last.split_once(INIT_SAYS).and_then(|(_, rest)| rest.split_once("] ")) else {
            return Ok(exit);
        };
        let detail = detail.trim().to_owned();
        if exit.code == INIT_NOT_FOUND && detail.contains("No such file or directory") {
            Err(RuntimeError::CommandNotFound { detail })
        } else {
            Err(RuntimeError::CommandNotExecutable { detail })
        }
    }

    pub(super) async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        if let ContainerStatus::Paused { .. } = self.look_at(id).await? {
            self.call("thaw a container", CALL_DEADLINE, self.docker.unpause_container(&id.0)).await?;
        }
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(300);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let patient = self.docker.clone().with_timeout(grace + STOP_MARGIN);
        self.call("stop a container", grace + STOP_MARGIN, patient.stop_container(&id.0, Some(options))).await
    }
}

/// `None` while the container is being removed.
pub(super) fn status_of(found: &ContainerInspectResponse) -> Option<ContainerStatus> {
    use ContainerStateStatusEnum as S;
    let state = found.state.as_ref()?;
    let started_at = time_of(state.started_at.as_deref());
    // An engine that is killed between a start and its note of it finds the container running, and knows no time.
    let at = started_at.or_else(|| time_of(found.created.as_deref())).unwrap_or(Timestamp::UNIX_EPOCH);
    match state.status? {
        S::RUNNING | S::RESTARTING | S::STOPPING => Some(ContainerStatus::Running { started_at: at }),
        S::PAUSED => Some(ContainerStatus::Paused { started_at: at }),
        S::CREATED => Some(ContainerStatus::Created),
        // An engine that is killed in the middle of a removal calls the container dead afterwards, whether it ever ran or not.
        S::DEAD if started_at.is_none() => Some(ContainerStatus::Created),
        S::EXITED | S::DEAD => {
            let code = state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
            let ended_at = time_of(state.finished_at.as_deref());
            // A process of the job may be ended for lack of memory and the job go on to succeed.
            let out_of_memory = state.oom_killed.unwrap_or(false) && code != 0;
            // The engine notes a start after the fact; a container that is quick ends "before" it.
            let started_at = started_at.or(ended_at).map_or(at, |at| ended_at.map_or(at, |ended_at| at.min(ended_at)));
            let ended_at = ended_at.unwrap_or(started_at);
            Some(ContainerStatus::Exited(ContainerExit { code, out_of_memory, started_at, ended_at }))
        }
        S::REMOVING | S::EMPTY => None,
    }
}

/// The engine writes what never was as a time in the year 1.
fn time_of(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok().filter(|at| *at > Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerState;

    use super::*;

    const NEVER: &str = "0001-01-01T00:00:00Z";
    const EIGHT: &str = "2026-11-22T08:00:00Z";
    const NINE: &str = "2026-11-22T09:00:00Z";
    const TEN: &str = "2026-11-22T10:00:00Z";

    fn seen(status: ContainerStateStatusEnum, started_at: &str, finished_at: &str) -> Option<ContainerStatus> {
        let (started_at, finished_at) = (Some(started_at.to_owned()), Some(finished_at.to_owned()));
        let state = ContainerState { status: Some(status), started_at, finished_at, ..ContainerState::default() };
        let created = Some(EIGHT.to_owned());
        status_of(&ContainerInspectResponse { state: Some(state), created, ..ContainerInspectResponse::default() })
    }

    fn exited(started_at: &str, ended_at: &str) -> Option<ContainerStatus> {
        let (started_at, ended_at) = (started_at.parse().unwrap(), ended_at.parse().unwrap());
        Some(ContainerStatus::Exited(ContainerExit { code: -1, out_of_memory: false, started_at, ended_at }))
    }

    #[test]
    fn a_container_that_died_before_it_was_started_is_new() {
        use ContainerStateStatusEnum::{CREATED, DEAD, EXITED};
        assert_eq!(seen(DEAD, NEVER, NEVER), Some(ContainerStatus::Created));
        assert_eq!(seen(CREATED, NEVER, NEVER), Some(ContainerStatus::Created));
        assert_eq!(seen(DEAD, NINE, TEN), exited(NINE, TEN));
        assert_eq!(seen(EXITED, NINE, TEN), exited(NINE, TEN));
    }

    #[test]
    fn a_time_that_never_was_makes_no_job_two_thousand_years_old() {
        use ContainerStateStatusEnum::{EXITED, PAUSED, RUNNING};
        assert_eq!(seen(EXITED, NINE, NEVER), exited(NINE, NINE), "its end was not noted");
        assert_eq!(seen(EXITED, NEVER, TEN), exited(TEN, TEN), "its start was not noted");
        assert_eq!(seen(EXITED, TEN, NINE), exited(NINE, NINE), "its start was noted late");
        let (made_at, noted_at) = (EIGHT.parse().unwrap(), NINE.parse().unwrap());
        assert_eq!(seen(RUNNING, NINE, NEVER), Some(ContainerStatus::Running { started_at: noted_at }));
        // Its engine was killed before it noted the start.
        assert_eq!(seen(RUNNING, NEVER, NEVER), Some(ContainerStatus::Running { started_at: made_at }));
        assert_eq!(seen(PAUSED, NEVER, NEVER), Some(ContainerStatus::Paused { started_at: made_at }));
        assert_eq!(seen(EXITED, NEVER, NEVER), exited(EIGHT, EIGHT));
    }
}
