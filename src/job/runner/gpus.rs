//! A lease's GPUs: taken before its containers are made, watched from inside while they run.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use crate::job::gpus::Gpus;
use crate::job::machine::{Input, Machine};
use crate::runtime::gpu::{GpuBinding, check_command};
use crate::runtime::{ContainerId, ContainerRuntime, ContainerStatus, ExecSpec, RuntimeError};
use crate::wire::job::JobSpec;
use crate::wire::lease::{Assignment, FailureKind};

/// How often a container is asked whether it still has its GPUs.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long its answer may take; a driver that hangs does not answer, and is no proof.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Exit code with which the check says that a GPU was taken.
const CODE_LOST: i32 = 1;

/// Gives the lease the GPUs it asks for, to be recorded with its next step. Why it cannot go on, when it cannot.
pub(super) fn take(gpus: &Gpus, assignment: &Assignment, machine: &mut Machine) -> Option<Input> {
    let count = assignment.spec.services.iter().map(|service| service.resources.gpus).sum();
    if count == 0 {
        return None;
    }
    match gpus.take(assignment.lease_id, count) {
        Some(taken) => {
            machine.bind_gpus(taken);
            None
        }
        None => Some(Input::Failed {
            why: FailureKind::GpuUnavailable,
            detail: format!("{count} GPUs are asked for and not as many are free here"),
        }),
    }
}

/// Which of a lease's GPUs are of service number `index`: in the order of the services.
pub(super) fn of_service(spec: &JobSpec, index: usize, taken: &[GpuBinding]) -> Vec<GpuBinding> {
    let counts = spec.services.iter().map(|service| usize::try_from(service.resources.gpus).unwrap_or(usize::MAX));
    let before: usize = counts.clone().take(index).fold(0, usize::saturating_add);
    let own = counts.clone().nth(index).unwrap_or(0);
    taken.iter().skip(before).take(own).cloned().collect()
}

/// Answers when a GPU was taken from the running container (a reload of the service manager rewrites its device rules); `None`
/// when it has ended before.
pub(super) async fn watch(runtime: Arc<dyn ContainerRuntime>, id: ContainerId, gpus: Vec<GpuBinding>) -> Option<Input> {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match runtime.inspect(&id).await {
            Ok(ContainerStatus::Running { .. }) => {}
            Ok(ContainerStatus::Exited(_)) | Err(RuntimeError::NoSuchContainer) => return None,
            Ok(ContainerStatus::Created | ContainerStatus::Paused { .. }) | Err(_) => continue,
        }
        for gpu in &gpus {
            // Once may be the driver's moment; twice is not.
            if is_lost(&runtime, &id, gpu).await && is_lost(&runtime, &id, gpu).await {
                let name = match gpu {
                    GpuBinding::Nvidia { uuid } => uuid,
                    GpuBinding::RenderNode { pci, .. } => pci,
                };
                let detail = format!("the container no longer reaches its GPU {name}");
                return Some(Input::GiveUp { why: FailureKind::GpuLost, detail });
            }
        }
    }
}

async fn is_lost(runtime: &Arc<dyn ContainerRuntime>, id: &ContainerId, gpu: &GpuBinding) -> bool {
    let spec =
        ExecSpec { command: check_command(gpu), tty: None, env: Vec::new(), workdir: None, mark: "gpu".to_owned() };
    let asked = async {
        let mut exec = runtime.exec(id, &spec).await.ok()?;
        while exec.output.next().await.is_some() {}
        runtime.exec_code(&exec.id).await.ok()?
    };
    tokio::time::timeout(ANSWER_MAX, asked).await == Ok(Some(CODE_LOST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::job::{Resources, ServiceSpec};

    #[test]
    fn services_get_their_own_gpus_and_no_other() {
        let service =
            |gpus| ServiceSpec { resources: Resources { gpus, ..Resources::default() }, ..ServiceSpec::default() };
        let spec = JobSpec { services: vec![service(1), service(0), service(2)], ..JobSpec::default() };
        let taken: Vec<_> = (0..3).map(|n| GpuBinding::Nvidia { uuid: format!("GPU-{n}") }).collect();
        assert_eq!(of_service(&spec, 0, &taken), taken[..1]);
        assert_eq!(of_service(&spec, 1, &taken), []);
        assert_eq!(of_service(&spec, 2, &taken), taken[1..]);
        assert_eq!(of_service(&spec, 9, &taken), []);
    }
}
