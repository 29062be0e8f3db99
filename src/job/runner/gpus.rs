//! A lease's GPUs: taken before its containers are made, watched from inside while they run.
//!
//! Invariant: what is heard from inside a container is its renter's word. It makes the node at fault only when the machine itself has
//! lost the card; else it is a failed check of the job's, paid and subject to its restart policy like any other. A new start also gives
//! back a card that only the container had lost.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use crate::job::gpus::Gpus;
use crate::job::machine::{Heard, Input, Machine};
use crate::runtime::gpu::{GpuBinding, GpuCard, check_command};
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
        None => {
            let detail = format!("{count} GPUs are asked for and not as many are free here");
            Some(Input::main(Heard::Failed { why: FailureKind::GpuUnavailable, detail }))
        }
    }
}

/// Which of a lease's GPUs are of service number `index`: in the order of the services.
pub(super) fn of_service(spec: &JobSpec, index: usize, taken: &[GpuBinding]) -> Vec<GpuBinding> {
    let counts = spec.services.iter().map(|service| usize::try_from(service.resources.gpus).unwrap_or(usize::MAX));
    let before: usize = counts.clone().take(index).fold(0, usize::saturating_add);
    let own = counts.clone().nth(index).unwrap_or(0);
    taken.iter().skip(before).take(own).cloned().collect()
}

/// Answers when a GPU was taken from the running container of service number `index` (a reload of the service manager rewrites its
/// device rules); `None` when it has ended before.
pub(super) async fn watch(
    runtime: Arc<dyn ContainerRuntime>,
    id: ContainerId,
    index: usize,
    gpus: Vec<GpuBinding>,
    machine: Gpus,
) -> Option<Input> {
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
                return Some(verdict(gpu, machine_has(&machine, gpu).await, index));
            }
        }
    }
}

/// What follows when a container says that a GPU was taken from it.
fn verdict(gpu: &GpuBinding, machine_has_it: bool, index: usize) -> Input {
    let name = match gpu {
        GpuBinding::Nvidia { uuid } => uuid,
        GpuBinding::RenderNode { pci, .. } => pci,
    };
    if machine_has_it {
        let detail = format!("the container no longer reaches its GPU {name}, which its node still has");
        Input::Heard { index, heard: Heard::Unhealthy { detail } }
    } else {
        Input::GiveUp { why: FailureKind::GpuLost, detail: format!("the node has lost the GPU {name}") }
    }
}

/// Whether the machine itself still has the card: by the kernel's lists, and for NVIDIA's also by the driver's own program where that
/// is installed, because a card that fell off its bus stays in the lists.
async fn machine_has(machine: &Gpus, gpu: &GpuBinding) -> bool {
    let machine = machine.clone();
    let look = tokio::task::spawn_blocking(move || machine.on_the_machine());
    let listed = look.await.is_ok_and(|cards| is_listed(gpu, &cards));
    match gpu {
        GpuBinding::Nvidia { uuid } if listed => driver_lists(uuid).await,
        GpuBinding::Nvidia { .. } | GpuBinding::RenderNode { .. } => listed,
    }
}

fn is_listed(gpu: &GpuBinding, cards: &[GpuCard]) -> bool {
    cards.iter().any(|card| match gpu {
        GpuBinding::Nvidia { uuid } => card.uuid.as_ref() == Some(uuid),
        GpuBinding::RenderNode { pci, .. } => card.pci == *pci && card.render_node.is_some(),
    })
}

/// A driver that does not answer has lost its cards; one without the program is believed.
async fn driver_lists(uuid: &str) -> bool {
    let mut command = tokio::process::Command::new("nvidia-smi");
    command.arg("-L").stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(ANSWER_MAX, command.output()).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).contains(uuid),
        Ok(Err(error)) => error.kind() == std::io::ErrorKind::NotFound,
        Err(_) => false,
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
    fn a_containers_word_for_a_lost_gpu_is_the_nodes_fault_only_when_the_machine_has_lost_it() {
        let gpu = GpuBinding::Nvidia { uuid: "GPU-a".into() };
        let card =
            |uuid: &str| GpuCard { pci: "0000:01:00.0".into(), uuid: Some(uuid.into()), render_node: None, group: 0 };
        assert!(is_listed(&gpu, &[card("GPU-b"), card("GPU-a")]) && !is_listed(&gpu, &[card("GPU-b")]));
        let amd = GpuBinding::RenderNode { path: "/dev/dri/renderD128".into(), pci: "0000:01:00.0".into(), group: 1 };
        assert!(!is_listed(&amd, &[card("GPU-b")]), "its node is gone");
        assert!(matches!(verdict(&gpu, false, 0), Input::GiveUp { why: FailureKind::GpuLost, .. }));
        for (index, own) in [(0, true), (2, false)] {
            let told = verdict(&gpu, true, index);
            let of = |index| matches!(&told, Input::Heard { index: i, heard: Heard::Unhealthy { .. } } if *i == index);
            assert_eq!((of(0), of(2)), (own, !own));
        }
    }

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
