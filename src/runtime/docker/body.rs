//! A plan in the engine's own words.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, ResourcesUlimits,
};

use super::super::sandbox::{EngineFacts, Limit, Plan, Tmpfs, WORK_PATH};
use super::super::{ContainerSpec, LABEL_GENERATION, LABEL_LEASE, LABEL_NODE, LABEL_PROBE, LABEL_SERVICE};
use super::gpus;

/// What the engine is asked for.
pub(super) fn body(spec: &ContainerSpec, plan: &Plan, facts: &EngineFacts) -> ContainerCreateBody {
    let mut labels = HashMap::from([
        (LABEL_NODE.to_owned(), spec.node_id.to_string()),
        (LABEL_LEASE.to_owned(), spec.lease_id.to_string()),
        (LABEL_GENERATION.to_owned(), spec.generation.to_string()),
    ]);
    // An image's labels go to its containers: what means something to Fizz is said here, or the image would say it.
    labels.insert(LABEL_SERVICE.to_owned(), spec.service.clone().unwrap_or_default());
    labels.insert(LABEL_PROBE.to_owned(), String::new());
    ContainerCreateBody {
        image: Some(spec.image_id.clone()),
        user: Some(plan.user.written()),
        entrypoint: spec.entrypoint.clone(),
        cmd: (!spec.command.is_empty()).then(|| spec.command.clone()),
        env: Some(environment(spec, plan, facts)),
        working_dir: Some(plan.workdir.clone()),
        labels: Some(labels),
        // The image's own would be run beside the job, outside of its share of the processor; a job's checks are Fizz's.
        // An image's own could be one that ends nothing.
        stop_signal: Some("SIGTERM".to_owned()),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        tty: Some(false),
        open_stdin: Some(false),
        attach_stdin: Some(false),
        attach_stdout: Some(false),
        attach_stderr: Some(false),
        host_config: Some(host_config(plan, facts)),
        ..ContainerCreateBody::default()
    }
}

/// What must not reach the container is left out of the job's variables and taken off the image's: a name without a value does that
/// with Docker; podman takes the agent's value for such a one, so there it is emptied.
fn environment(spec: &ContainerSpec, plan: &Plan, facts: &EngineFacts) -> Vec<String> {
    let kept = spec.env.iter().filter(|(name, _)| !plan.stripped.contains(name));
    let mut env: Vec<String> = kept.map(|(name, value)| format!("{name}={}", value.expose())).collect();
    env.extend(plan.stripped.iter().map(|name| if facts.podman { format!("{name}=") } else { name.clone() }));
    if !spec.env.iter().any(|(name, _)| name == "HOME") {
        env.push(format!("HOME={WORK_PATH}"));
    }
    env
}

/// What is not named here stays as the engine has it by default: its filter of system calls, its AppArmor or SELinux profile, its
/// masked paths, no devices, no mounts of the host's, namespaces of the container's own.
fn host_config(plan: &Plan, facts: &EngineFacts) -> HostConfig {
    let memory = signed(plan.memory_bytes);
    let gpus = gpus::words(&plan.gpus, &facts.gpus);
    HostConfig {
        memory: Some(memory),
        // The same number for memory and swap together: no swap on top.
        memory_swap: Some(memory),
        nano_cpus: Some(i64::from(plan.cpu_millis) * 1_000_000),
        cpu_shares: Some(i64::from(plan.cpu_weight)),
        blkio_weight: plan.disk_weight,
        pids_limit: Some(i64::from(plan.pids_max)),
        ulimits: Some(plan.limits.iter().map(ulimit).collect()),
        oom_score_adj: Some(i64::from(plan.out_of_memory_score)),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        privileged: Some(false),
        readonly_rootfs: Some(plan.read_only_root),
        tmpfs: Some(plan.tmpfs.iter().map(|tmpfs| (tmpfs.path.clone(), options(tmpfs, facts))).collect()),
        storage_opt: plan.layer_bytes_max.map(|bytes| HashMap::from([("size".to_owned(), bytes.to_string())])),
        ipc_mode: Some("private".to_owned()),
        shm_size: Some(signed(plan.shm_bytes)),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        init: Some(true),
        auto_remove: Some(false),
        runtime: plan.runtime.clone(),
        device_requests: gpus.requests,
        devices: gpus.devices,
        group_add: gpus.groups,
        log_config: Some(log_config(plan.log_bytes_max, facts)),
        ..HostConfig::default()
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn ulimit(limit: &Limit) -> ResourcesUlimits {
    let value = Some(signed(limit.value));
    ResourcesUlimits { name: Some(limit.name.to_owned()), soft: value, hard: value }
}

fn options(tmpfs: &Tmpfs, facts: &EngineFacts) -> String {
    let exec = if tmpfs.exec { "exec" } else { "noexec" };
    let common = format!("rw,nosuid,nodev,{exec},size={}", tmpfs.bytes);
    match tmpfs.owner {
        // It knows neither a number of files nor an owner; both count as the container's memory and nobody else is in there.
        _ if facts.podman => format!("{common},mode=1777"),
        None => format!("{common},nr_inodes={},mode={:04o}", tmpfs.files, tmpfs.mode),
        Some((uid, gid)) => format!("{common},nr_inodes={},mode={:04o},uid={uid},gid={gid}", tmpfs.files, tmpfs.mode),
    }
}

/// The engine keeps two log files; the agent reads along, and what it has read may go. A stranger does not decide how much of the
/// owner's disk they take.
const LOG_FILE_BYTES_MAX: u64 = 256 << 20;

/// Twice the wanted bytes per file, for the engine's own overhead per line; two files. Not compressed: that costs the owner
/// time on every rotation.
fn log_config(log_bytes_max: u64, facts: &EngineFacts) -> HostConfigLogConfig {
    let file_bytes = log_bytes_max.saturating_mul(2).saturating_add(1 << 20).min(LOG_FILE_BYTES_MAX);
    let size = ("max-size".to_owned(), file_bytes.to_string());
    if facts.podman {
        return HostConfigLogConfig { typ: Some("k8s-file".to_owned()), config: Some(HashMap::from([size])) };
    }
    let config =
        HashMap::from([size, ("max-file".to_owned(), "2".to_owned()), ("compress".to_owned(), "false".to_owned())]);
    HostConfigLogConfig { typ: Some("local".to_owned()), config: Some(config) }
}
