//! What a lease asks of the container engine, with patience: each call is repeated while repeating it may help.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Mutex, mpsc};

use super::RunnerDeps;
use crate::job::backoff::Backoff;
use crate::job::inputs;
use crate::job::machine::{Heard, Input};
use crate::runtime::network::{ContainerNetwork, LeaseNetworkSpec, NetworkId};
use crate::runtime::{
    ContainerId, ContainerRuntime, ContainerSpec, ContainerStatus, PinnedImage, PullProgress, RuntimeError,
};
use crate::wire::job::ServiceSpec;
use crate::wire::lease::{Assignment, FailureKind};
use crate::wire::{LeaseId, NodeId};

/// For so long an engine may be away before a lease that does not run yet is handed back.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// So often a call is made that the engine refuses for a reason it may get over.
const REFUSALS_MAX: u32 = 3;

/// What goes wrong and heals itself, for the snapshot; `None` when it has healed.
pub(super) type Trouble = mpsc::Sender<Option<String>>;

/// Fetches the image, and the inputs meanwhile.
pub(super) async fn pull(
    deps: RunnerDeps,
    lease_id: LeaseId,
    service: ServiceSpec,
    progress: mpsc::Sender<PullProgress>,
    trouble: Trouble,
) -> Heard {
    let say = |what| say(&trouble, Some(what));
    let pull = || deps.images.prepare(&*deps.runtime, lease_id, &service, progress.clone(), &say);
    let image = async { patiently(pull, &trouble).await.map_err(|error| failed(&error)) };
    let inputs = async { inputs::fetch(&deps, lease_id, &service).await.map_err(Heard::from) };
    match futures_util::future::try_join(image, inputs).await {
        Ok((image, ())) => Heard::Pulled(image),
        Err(failure) => failure,
    }
}

/// Puts the inputs into a container that was just made.
pub(super) async fn put_inputs(deps: RunnerDeps, lease_id: LeaseId, service: ServiceSpec, made: Heard) -> Heard {
    let Heard::Created { container } = &made else { return made };
    match inputs::put(&deps, lease_id, &service, &ContainerId(container.clone())).await {
        Ok(()) => made,
        Err(failure) => failure.into(),
    }
}

/// The network of a lease and the one name by which the others find a container on it. Several containers are made side by side:
/// the first makes the network for all.
#[derive(Debug, Clone)]
pub(super) struct Joining {
    pub(super) network: LeaseNetworkSpec,
    pub(super) alias: String,
    pub(super) made: Arc<Mutex<Option<NetworkId>>>,
}

/// Makes the lease's network, if it needs one, and the container, or finds them.
pub(super) async fn create(
    runtime: Arc<dyn ContainerRuntime>,
    mut spec: ContainerSpec,
    joining: Option<Joining>,
    trouble: Trouble,
) -> Heard {
    if let Some(joining) = joining {
        match join(&runtime, joining, &trouble).await {
            Ok(network) => spec.network = network,
            Err(error) => return failed(&error),
        }
    }
    match patiently(|| runtime.create(&spec), &trouble).await {
        Ok(id) => Heard::Created { container: id.0 },
        Err(error) => failed(&error),
    }
}

async fn join(
    runtime: &Arc<dyn ContainerRuntime>,
    joining: Joining,
    trouble: &Trouble,
) -> Result<ContainerNetwork, RuntimeError> {
    let mut made = joining.made.lock().await;
    let network = match made.clone() {
        Some(network) => network,
        None => patiently(|| runtime.ensure_network(&joining.network), trouble).await?.id,
    };
    *made = Some(network.clone());
    Ok(ContainerNetwork::Lease { network, aliases: vec![joining.alias] })
}

/// Starts it unless it was started before, and says since when it runs.
pub(super) async fn start(runtime: Arc<dyn ContainerRuntime>, id: ContainerId, trouble: Trouble) -> Heard {
    if let Err(error) = patiently(|| runtime.start(&id), &trouble).await {
        return failed(&error);
    }
    started(&runtime, &id, &trouble).await
}

/// Starts it again unless it was since its end at `ended_at`, and says since when it runs.
pub(super) async fn restart(
    runtime: Arc<dyn ContainerRuntime>,
    id: ContainerId,
    ended_at: Timestamp,
    trouble: Trouble,
) -> Heard {
    if let Err(error) = patiently(|| runtime.restart(&id, ended_at), &trouble).await {
        return failed(&error);
    }
    started(&runtime, &id, &trouble).await
}

async fn started(runtime: &Arc<dyn ContainerRuntime>, id: &ContainerId, trouble: &Trouble) -> Heard {
    match look(runtime, id, trouble).await {
        Ok(ContainerStatus::Running { started_at } | ContainerStatus::Paused { started_at }) => {
            Heard::Started { started_at }
        }
        Ok(ContainerStatus::Exited(exit)) => Heard::Started { started_at: exit.started_at },
        Ok(ContainerStatus::Created) => Heard::Failed {
            why: FailureKind::EngineError,
            detail: "the container does not run although it was started".to_owned(),
        },
        Err(error) => failed(&error),
    }
}

/// Looks at a container after a restart of the agent.
pub(super) async fn attach(runtime: Arc<dyn ContainerRuntime>, id: ContainerId, trouble: Trouble) -> Heard {
    match look(&runtime, &id, &trouble).await {
        Ok(status) => Heard::Attached(status),
        Err(error) => failed(&error),
    }
}

/// Looks until the engine says something; the only error is that the container is gone.
async fn look(
    runtime: &Arc<dyn ContainerRuntime>,
    id: &ContainerId,
    trouble: &Trouble,
) -> Result<ContainerStatus, RuntimeError> {
    let mut backoff = Backoff::engine();
    loop {
        match runtime.inspect(id).await {
            Ok(status) => return Ok(status),
            Err(error @ RuntimeError::NoSuchContainer) => return Err(error),
            Err(error) => wait(&mut backoff, &error, trouble).await,
        }
    }
}

/// Waits for its end, however long the engine is away meanwhile.
pub(super) async fn watch(deps: RunnerDeps, id: ContainerId, trouble: Trouble) -> Heard {
    let mut backoff = Backoff::engine();
    loop {
        let error = match deps.runtime.wait(&id).await {
            Ok(exit) => match deps.runtime.witnessed(&id, &exit).await {
                Ok(seen) => {
                    say(&trouble, None);
                    return Heard::Exited { exit, with_engine: !seen };
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        if matches!(
            error,
            RuntimeError::NoSuchContainer
                | RuntimeError::CommandNotFound { .. }
                | RuntimeError::CommandNotExecutable { .. }
        ) {
            return failed(&error);
        }
        wait(&mut backoff, &error, &trouble).await;
        // It is back, and the container has outlived it.
        if let Ok(ContainerStatus::Running { .. } | ContainerStatus::Paused { .. }) = deps.runtime.inspect(&id).await {
            say(&trouble, None);
        }
    }
}

/// SIGTERM, grace, SIGKILL; until the engine has done it.
pub(super) async fn terminate(runtime: Arc<dyn ContainerRuntime>, id: ContainerId, grace: Duration, trouble: Trouble) {
    let mut backoff = Backoff::engine();
    loop {
        match runtime.stop(&id, grace).await {
            Ok(()) | Err(RuntimeError::NoSuchContainer) => return,
            Err(error) => wait(&mut backoff, &error, &trouble).await,
        }
    }
}

/// Removes the lease's container, known or found by label, and then its network; gives up only on an engine that is there and refuses.
pub(super) async fn remove(
    runtime: Arc<dyn ContainerRuntime>,
    known: Option<ContainerId>,
    node_id: NodeId,
    lease_id: LeaseId,
    trouble: Trouble,
) -> Input {
    let mut backoff = Backoff::engine();
    loop {
        match remove_once(&runtime, known.as_ref(), node_id, lease_id).await {
            Ok(()) => break,
            Err(error @ (RuntimeError::NotRunning { .. } | RuntimeError::TimedOut { .. })) => {
                wait(&mut backoff, &error, &trouble).await;
            }
            Err(error) if backoff.attempts() >= REFUSALS_MAX => {
                tracing::warn!(lease = %lease_id, %error, "a container could not be removed; it is tried again later");
                break;
            }
            Err(error) => wait(&mut backoff, &error, &trouble).await,
        }
    }
    Input::Removed
}

async fn remove_once(
    runtime: &Arc<dyn ContainerRuntime>,
    known: Option<&ContainerId>,
    node_id: NodeId,
    lease_id: LeaseId,
) -> Result<(), RuntimeError> {
    if let Some(id) = known {
        runtime.remove(id).await?;
    } else {
        for container in runtime.list(node_id).await?.into_iter().filter(|container| container.lease_id == lease_id) {
            runtime.remove(&container.id).await?;
        }
    }
    for network in runtime.networks(node_id).await?.into_iter().filter(|network| network.lease_id == lease_id) {
        runtime.remove_network(&network.id).await?;
    }
    Ok(())
}

/// Freezes or thaws it. One that has ended meanwhile cannot be, and its end comes by itself.
pub(super) async fn freeze(
    runtime: Arc<dyn ContainerRuntime>,
    id: ContainerId,
    reason: Option<String>,
) -> Option<Input> {
    let mut backoff = Backoff::engine();
    loop {
        let done = if reason.is_some() { runtime.pause(&id).await } else { runtime.unpause(&id).await };
        let frozen = match (done, runtime.inspect(&id).await) {
            (Ok(()), _) => reason.is_some(),
            (Err(_), Ok(ContainerStatus::Paused { .. })) => true,
            (Err(_), Ok(ContainerStatus::Running { .. })) => false,
            (
                Err(_),
                Ok(ContainerStatus::Created | ContainerStatus::Exited(_)) | Err(RuntimeError::NoSuchContainer),
            ) => {
                return None;
            }
            (Err(_), Err(_)) => {
                backoff.wait().await;
                continue;
            }
        };
        match (&reason, frozen) {
            (Some(reason), true) => return Some(Input::Froze { reason: reason.clone() }),
            (None, false) => return Some(Input::Thawed),
            (Some(_), false) | (None, true) if backoff.attempts() >= REFUSALS_MAX => return None,
            (Some(_), false) | (None, true) => backoff.wait().await,
        }
    }
}

/// What to make of service number `index` of an assignment.
pub(super) fn spec_of(
    assignment: &Assignment,
    index: usize,
    node_id: NodeId,
    image: &PinnedImage,
) -> Option<ContainerSpec> {
    let service = assignment.spec.services.get(index)?;
    Some(ContainerSpec {
        node_id,
        lease_id: assignment.lease_id,
        generation: assignment.generation.0,
        services: assignment.spec.services.len(),
        service: (index > 0).then(|| service.name.clone()),
        image_id: image.image_id.clone(),
        entrypoint: service.entrypoint.clone(),
        command: service.command.clone(),
        env: service.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        workdir: service.workdir.clone(),
        cpu_millis: service.resources.cpu_millis,
        memory_bytes: service.resources.memory_bytes,
        pids_max: assignment.spec.limits.pids_max,
        log_bytes_max: assignment.spec.limits.log_bytes_max,
        network: ContainerNetwork::None,
        settings: image.settings.clone(),
        root: service.root,
        disk_bytes: service.resources.disk_bytes,
        shm_bytes: service.shm_bytes,
        output_path: assignment.spec.output_path.clone().filter(|_| index == 0),
        isolation: assignment.spec.requirements.isolation,
        gpus: Vec::new(),
    })
}

/// Repeats a call while the engine is away, up to a limit, and a few times when it refuses.
async fn patiently<T, F: Future<Output = Result<T, RuntimeError>>>(
    call: impl Fn() -> F,
    trouble: &Trouble,
) -> Result<T, RuntimeError> {
    let mut backoff = Backoff::engine();
    loop {
        let error = match call().await {
            Ok(value) => {
                say(trouble, None);
                return Ok(value);
            }
            Err(error) => error,
        };
        let again = match &error {
            RuntimeError::NotRunning { .. } | RuntimeError::TimedOut { .. } => backoff.waited() < AWAY_MAX,
            RuntimeError::PullFailed { .. } | RuntimeError::Engine { .. } => backoff.attempts() < REFUSALS_MAX,
            RuntimeError::PermissionDenied { .. }
            | RuntimeError::StartInterrupted { .. }
            | RuntimeError::ApiTooOld { .. }
            | RuntimeError::ImageNotFound { .. }
            | RuntimeError::ImageRefused { .. }
            | RuntimeError::ImageUnsigned { .. }
            // Was waited for already.
            | RuntimeError::RegistryBusy { .. }
            | RuntimeError::WrongArchitecture { .. }
            | RuntimeError::CommandNotFound { .. }
            | RuntimeError::CommandNotExecutable { .. }
            | RuntimeError::InvalidSpec { .. }
            | RuntimeError::IsolationNotShown { .. }
            | RuntimeError::NoSpace { .. }
            | RuntimeError::OwnerRefuses { .. }
            | RuntimeError::EngineTls { .. }
            | RuntimeError::Unsafe { .. }
            | RuntimeError::Vulnerable { .. }
            | RuntimeError::NoIsolation { .. }
            | RuntimeError::NoSuchContainer
            | RuntimeError::NoSuchPath { .. } => false,
        };
        if !again {
            return Err(error);
        }
        wait(&mut backoff, &error, trouble).await;
    }
}

async fn wait(backoff: &mut Backoff, error: &RuntimeError, trouble: &Trouble) {
    say(trouble, Some(error.to_string()));
    backoff.wait().await;
}

/// Best effort: the snapshot shows the newest trouble that got through.
fn say(trouble: &Trouble, what: Option<String>) {
    let _ = trouble.try_send(what);
}

fn failed(error: &RuntimeError) -> Heard {
    Heard::Failed { why: failure_of(error), detail: error.to_string() }
}

/// The engine's errors as the coordinator hears of them.
pub(in crate::job) fn failure_of(error: &RuntimeError) -> FailureKind {
    match error {
        RuntimeError::NotRunning { .. }
        | RuntimeError::PermissionDenied { .. }
        | RuntimeError::ApiTooOld { .. }
        | RuntimeError::StartInterrupted { .. }
        | RuntimeError::EngineTls { .. }
        | RuntimeError::TimedOut { .. } => FailureKind::EngineUnavailable,
        RuntimeError::ImageNotFound { .. } => FailureKind::ImageNotFound,
        RuntimeError::WrongArchitecture { .. } => FailureKind::ImageWrongArchitecture,
        RuntimeError::ImageRefused { .. } => FailureKind::ImageRefused,
        RuntimeError::ImageUnsigned { .. } => FailureKind::ImageUnsigned,
        RuntimeError::PullFailed { .. } | RuntimeError::RegistryBusy { .. } => FailureKind::ImagePullFailed,
        RuntimeError::CommandNotFound { .. } => FailureKind::CommandNotFound,
        RuntimeError::CommandNotExecutable { .. } => FailureKind::CommandNotExecutable,
        RuntimeError::InvalidSpec { .. } => FailureKind::InvalidSpec,
        RuntimeError::IsolationNotShown { .. } => FailureKind::IsolationNotShown,
        RuntimeError::NoSpace { .. } => FailureKind::NoSpace,
        RuntimeError::NoIsolation { .. } | RuntimeError::OwnerRefuses { .. } | RuntimeError::Unsafe { .. } => {
            FailureKind::IsolationUnavailable
        }
        RuntimeError::Vulnerable { .. } => FailureKind::EngineVulnerable,
        RuntimeError::NoSuchContainer => FailureKind::ContainerVanished,
        RuntimeError::NoSuchPath { .. } | RuntimeError::Engine { .. } => FailureKind::EngineError,
    }
}
