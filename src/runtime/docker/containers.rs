//! Containers: how they are made, looked at, waited for and stopped.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, ContainerState, ContainerStateStatusEnum, HostConfig, HostConfigLogConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt as _;
use jiff::Timestamp;

use super::super::{
    ContainerExit, ContainerId, ContainerSpec, ContainerStatus, LABEL_GENERATION, LABEL_LEASE, LABEL_NODE,
    LABEL_SERVICE, OwnedContainer, RuntimeError,
};
use super::{CALL_DEADLINE, DockerRuntime, START_DEADLINE, errors, networks};
use crate::wire::NodeId;

/// What the engine gets on top of the grace before its answer is overdue.
const STOP_MARGIN: Duration = Duration::from_secs(30);
/// Exit codes with which the engine's init says that it could not run the command.
const INIT_CANNOT_EXECUTE: i32 = 126;
const INIT_NOT_FOUND: i32 = 127;
const INIT_SAYS: &str = "[FATAL tini (";

impl DockerRuntime {
    pub(super) async fn create_container(&self, spec: &ContainerSpec) -> Result<ContainerId, RuntimeError> {
        let name = container_name(spec);
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let create = self.docker.create_container(Some(options.clone()), body(spec));
        match self.call("create a container", START_DEADLINE, create).await {
            Ok(made) => Ok(ContainerId(made.id)),
            // The name is taken: this lease has its container already.
            Err(RuntimeError::Engine { detail, .. }) if detail.contains("is already in use") => {
                let made = self.container_of(spec).await?;
                // A call of an agent that was killed may be making it at this moment: the name is taken before the container
                // is listed. Asking again finds it.
                let made = made.ok_or(RuntimeError::Engine { what: "create a container", detail })?;
                if self.look_at(&made).await? != ContainerStatus::Created {
                    return Ok(made);
                }
                // A call of an agent that was killed may still be on its way to start this one; were it late, it would start an
                // ended one a second time. It cannot find one that is new.
                self.remove_container(&made).await?;
                let create = self.docker.create_container(Some(options), body(spec));
                Ok(ContainerId(self.call("create a container", START_DEADLINE, create).await?.id))
            }
            Err(error) => Err(error),
        }
    }

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

    async fn container_of(&self, spec: &ContainerSpec) -> Result<Option<ContainerId>, RuntimeError> {
        let labels = vec![format!("{LABEL_NODE}={}", spec.node_id), format!("{LABEL_LEASE}={}", spec.lease_id)];
        let made = self.labelled(labels).await?;
        Ok(made.into_iter().find(|(_, labels)| labels.get(LABEL_SERVICE) == spec.service.as_ref()).map(|(id, _)| id))
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
        let mut owned = Vec::new();
        for (id, labels) in self.labelled(vec![format!("{LABEL_NODE}={node_id}")]).await? {
            let Some(lease_id) = labels.get(LABEL_LEASE).and_then(|text| text.parse().ok()) else { continue };
            let generation = labels.get(LABEL_GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0);
            let service = labels.get(LABEL_SERVICE).cloned();
            match self.look_at(&id).await {
                Ok(status) => owned.push(OwnedContainer { id, lease_id, generation, service, status }),
                Err(RuntimeError::NoSuchContainer) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(owned)
    }

    pub(super) async fn look_at(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        let look = self.docker.inspect_container(&id.0, None);
        let found = self.call("look at a container", CALL_DEADLINE, look).await?;
        found.state.as_ref().and_then(status_of).ok_or(RuntimeError::NoSuchContainer)
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

/// Taken once per lease and service, so that neither gets a second container.
fn container_name(spec: &ContainerSpec) -> String {
    match &spec.service {
        None => format!("fizz-{}", spec.lease_id),
        Some(service) => format!("fizz-{}-{service}", spec.lease_id),
    }
}

fn body(spec: &ContainerSpec) -> ContainerCreateBody {
    let mut labels = HashMap::from([
        (LABEL_NODE.to_owned(), spec.node_id.to_string()),
        (LABEL_LEASE.to_owned(), spec.lease_id.to_string()),
        (LABEL_GENERATION.to_owned(), spec.generation.to_string()),
    ]);
    labels.extend(spec.service.iter().map(|service| (LABEL_SERVICE.to_owned(), service.clone())));
    let (network_mode, networking_config) = networks::attachment(&spec.network);
    ContainerCreateBody {
        image: Some(spec.image_id.clone()),
        entrypoint: spec.entrypoint.clone(),
        cmd: (!spec.command.is_empty()).then(|| spec.command.clone()),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={}", value.expose())).collect()),
        working_dir: spec.workdir.clone(),
        labels: Some(labels),
        tty: Some(false),
        open_stdin: Some(false),
        attach_stdin: Some(false),
        attach_stdout: Some(false),
        attach_stderr: Some(false),
        host_config: Some(HostConfig { network_mode: Some(network_mode), ..host_config(spec) }),
        networking_config,
        ..ContainerCreateBody::default()
    }
}

/// The sandbox's first cut: limits, no capability, no way to gain one, the engine's seccomp filter.
fn host_config(spec: &ContainerSpec) -> HostConfig {
    let memory = i64::try_from(spec.memory_bytes).unwrap_or(i64::MAX);
    HostConfig {
        memory: Some(memory),
        // The same number for memory and swap together: no swap on top.
        memory_swap: Some(memory),
        nano_cpus: Some(i64::from(spec.cpu_millis) * 1_000_000),
        pids_limit: Some(i64::from(spec.pids_max)),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        privileged: Some(false),
        ipc_mode: Some("private".to_owned()),
        init: Some(true),
        auto_remove: Some(false),
        log_config: Some(log_config(spec.log_bytes_max)),
        ..HostConfig::default()
    }
}

/// Twice the wanted bytes per file, for the engine's own overhead per line; two files. Not compressed: that costs the owner
/// time on every rotation.
fn log_config(log_bytes_max: u64) -> HostConfigLogConfig {
    let file_bytes = log_bytes_max.saturating_mul(2).saturating_add(1 << 20).min(i64::MAX.unsigned_abs());
    let config = HashMap::from([
        ("max-size".to_owned(), file_bytes.to_string()),
        ("max-file".to_owned(), "2".to_owned()),
        ("compress".to_owned(), "false".to_owned()),
    ]);
    HostConfigLogConfig { typ: Some("local".to_owned()), config: Some(config) }
}

/// `None` while the container is being removed.
fn status_of(state: &ContainerState) -> Option<ContainerStatus> {
    use ContainerStateStatusEnum as S;
    let started_at = time_of(state.started_at.as_deref());
    let started = started_at.is_some_and(|at| at > Timestamp::UNIX_EPOCH);
    let at = started_at.unwrap_or(Timestamp::UNIX_EPOCH);
    match state.status? {
        S::RUNNING | S::RESTARTING | S::STOPPING => Some(ContainerStatus::Running { started_at: at }),
        S::PAUSED => Some(ContainerStatus::Paused { started_at: at }),
        S::CREATED => Some(ContainerStatus::Created),
        S::EXITED | S::DEAD => {
            let code = state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
            let ended_at = time_of(state.finished_at.as_deref()).unwrap_or(at);
            // A process of the job may be ended for lack of memory and the job go on to succeed.
            let out_of_memory = state.oom_killed.unwrap_or(false) && code != 0;
            // The engine notes a start after the fact; a container that is quick ends "before" it.
            let started_at = if started { at.min(ended_at) } else { ended_at };
            Some(ContainerStatus::Exited(ContainerExit { code, out_of_memory, started_at, ended_at }))
        }
        S::REMOVING | S::EMPTY => None,
    }
}

fn time_of(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok()
}
