//! How a stranger's container is shut in: from what the job asks for, what the owner allows and what the engine can do to plain
//! data that an engine's driver carries out. Pure.
//!
//! What is not in a [`Plan`] no container gets: no capability, no way to gain one, no device, no path, socket or namespace of the
//! host. The engine's own seccomp filter, AppArmor profile or SELinux label, masked and read-only paths stay as they are.
//!
//! Invariants
//! - Nothing in a [`ContainerSpec`] raises what the owner's configuration allows.
//! - A job writes to its own layer, which is measured or limited, or to memory, which is limited; nowhere else.
//! - Without `root` no program of the job has user id 0.

mod facts;
mod folders;
mod user;

use thiserror::Error;

use super::ContainerSpec;
use super::gpu::{self, GpuBinding};
use super::isolation;
use crate::config::{RootRule, SandboxConfig};
use crate::wire::job::Isolation;

pub use facts::{CgroupVersion, EngineFacts};
pub use folders::{Folder, Tmpfs, WORK_PATH};
pub use user::{JobUser, from_passwd};

/// Shared memory where the job names none.
const SHM_BYTES_DEFAULT: u64 = 64 << 20;
/// Open files of one process.
const OPEN_FILES_MAX: u64 = 16_384;
/// The same where the engine itself may be held lower and can give no more than it has.
const OPEN_FILES_MAX_ROOTLESS: u64 = 4096;
/// Processes of one user over all containers, where an engine must be told a number: several jobs' worth.
const PROCESSES_OF_USER_MAX: u64 = 4096;
/// Memory one process may keep from being moved, in bytes.
const LOCKED_BYTES_MAX: u64 = 64 << 10;
/// Where the owner's programs want the disk too: the smallest share that every kernel takes, of 10 to 1000, usually 500.
const DISK_WEIGHT: u16 = 10;
/// When memory runs out, jobs go before the owner's programs; -1000 to 1000.
const OUT_OF_MEMORY_SCORE: i16 = 900;

/// A limit of the kernel's on each process; soft and hard are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// As the engine calls it.
    pub name: &'static str,
    /// In that limit's unit.
    pub value: u64,
}

/// A container as it will be made. Everything that is not in here it does not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Whom its program runs as.
    pub user: JobUser,
    /// Where it begins.
    pub workdir: String,
    /// Whether nothing of its layer can be written.
    pub read_only_root: bool,
    /// Folders made in its layer before the start, its user's own.
    pub folders: Vec<Folder>,
    /// File systems in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Memory in bytes; no swap on top.
    pub memory_bytes: u64,
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: u64,
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// Share of the processor where others want it too, of 1024.
    pub cpu_weight: u16,
    /// Share of the disk's time, where the engine can give one.
    pub disk_weight: Option<u16>,
    /// Processes and threads.
    pub pids_max: u32,
    /// Limits of each process.
    pub limits: Vec<Limit>,
    /// How early it goes when the machine's memory runs out.
    pub out_of_memory_score: i16,
    /// Most bytes of its layer, where the engine's storage keeps to it.
    pub layer_bytes_max: Option<u64>,
    /// Bytes of log the engine keeps at least.
    pub log_bytes_max: u64,
    /// The engine's runtime for it; the usual one when absent.
    pub runtime: Option<String>,
    /// Its GPUs.
    pub gpus: Vec<GpuBinding>,
    /// Variables of the job or its image that must not reach it.
    pub stripped: Vec<String>,
}

/// Why a container cannot be made as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The owner's ceiling.
    #[error("jobs may not run as root here{hint}")]
    RootRefused {
        /// What would be needed, for people.
        hint: &'static str,
    },
    /// A folder that cannot be made for the job.
    #[error("the output folder '{path}' {why}")]
    BadOutput {
        /// As the job wrote it.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A volume of the image in a place where there can be none.
    #[error("the image has a volume at '{path}', where the kernel's own files are; build it without")]
    BadVolume {
        /// As the image has it.
        path: String,
    },
    /// Not separated as well as somebody wants.
    #[error("{} isolation{} cannot be had here", word(asked.unwrap_or(*owner)), if *with_gpus { " with a GPU" } else { "" })]
    NoIsolation {
        /// What the job asks for.
        asked: Option<Isolation>,
        /// What the owner wants for every job.
        owner: Isolation,
        /// Whether it comes with GPUs.
        with_gpus: bool,
    },
    /// More volumes than could be kept in memory.
    #[error("the image has {volumes} volumes; at most {most} can be had")]
    TooManyVolumes {
        /// How many it has.
        volumes: usize,
        /// How many it may have.
        most: usize,
    },
}

/// Decides what a container gets.
///
/// # Errors
/// [`PlanError`] when the owner does not allow it, or it asks for what cannot work.
pub fn plan(spec: &ContainerSpec, owner: &SandboxConfig, facts: &EngineFacts) -> Result<Plan, PlanError> {
    if spec.root {
        root_is_allowed(owner, facts)?;
    }
    let user = if spec.root { JobUser::ROOT } else { JobUser::of_image(&spec.settings.user) };
    let read_only_root = spec.disk_bytes == 0;
    Ok(Plan {
        workdir: folders::workdir(spec),
        folders: folders::made(spec, read_only_root)?,
        tmpfs: folders::in_memory(spec, &user, read_only_root)?,
        user,
        read_only_root,
        memory_bytes: spec.memory_bytes,
        shm_bytes: spec.shm_bytes.unwrap_or(SHM_BYTES_DEFAULT).min(spec.memory_bytes),
        cpu_millis: spec.cpu_millis,
        cpu_weight: owner.cpu_weight.get(),
        disk_weight: facts.disk_weight.then_some(DISK_WEIGHT),
        pids_max: spec.pids_max.min(owner.pids_max.get()),
        limits: limits(spec, facts),
        out_of_memory_score: OUT_OF_MEMORY_SCORE,
        layer_bytes_max: facts.layer_bytes_max(spec.disk_bytes, spec.settings.bytes),
        log_bytes_max: spec.log_bytes_max,
        runtime: runtime(spec, owner, facts)?,
        gpus: spec.gpus.clone(),
        stripped: stripped(spec),
    })
}

/// The weakest separation that satisfies job and owner. GPUs are devices of the machine's own kernel: a container with a kernel of
/// its own does not get one.
fn runtime(spec: &ContainerSpec, owner: &SandboxConfig, facts: &EngineFacts) -> Result<Option<String>, PlanError> {
    let wanted =
        || PlanError::NoIsolation { asked: spec.isolation, owner: owner.isolation, with_gpus: !spec.gpus.is_empty() };
    let given = isolation::choose(spec.isolation, owner.isolation, &facts.given).ok_or_else(wanted)?;
    match given.isolation {
        Isolation::Gvisor | Isolation::Kata if !spec.gpus.is_empty() => Err(wanted()),
        Isolation::Container | Isolation::UserNamespace | Isolation::Gvisor | Isolation::Kata | Isolation::Unknown => {
            Ok(given.runtime.clone().or_else(|| facts.plain_runtime.clone()))
        }
    }
}

fn stripped(spec: &ContainerSpec) -> Vec<String> {
    let names = spec.env.iter().map(|(name, _)| name).chain(&spec.settings.variables);
    let mut names: Vec<String> = names.filter(|name| gpu::is_stripped(name, !spec.gpus.is_empty())).cloned().collect();
    names.sort();
    names.dedup();
    names
}

const fn word(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Container => "container",
        Isolation::UserNamespace => "user namespace",
        Isolation::Gvisor => "gVisor",
        Isolation::Kata => "Kata",
        Isolation::Unknown => "unknown",
    }
}

fn root_is_allowed(owner: &SandboxConfig, facts: &EngineFacts) -> Result<(), PlanError> {
    match owner.root {
        RootRule::Yes => Ok(()),
        RootRule::Remapped if facts.root_is_nobody_outside() => Ok(()),
        RootRule::Remapped => {
            Err(PlanError::RootRefused { hint: ": the container engine does not map it to an unprivileged user" })
        }
        RootRule::No => Err(PlanError::RootRefused { hint: "" }),
    }
}

/// Soft and hard the same: a process could raise its own up to the hard one anyway. No limit on processes per user, which the
/// kernel counts over all containers together.
fn limits(spec: &ContainerSpec, facts: &EngineFacts) -> Vec<Limit> {
    let open_files = if facts.rootless { OPEN_FILES_MAX_ROOTLESS } else { OPEN_FILES_MAX };
    let mut limits = vec![
        Limit { name: "nofile", value: open_files },
        Limit { name: "core", value: 0 },
        Limit { name: "fsize", value: file_bytes_max(spec) },
        Limit { name: "memlock", value: LOCKED_BYTES_MAX },
    ];
    if facts.podman {
        // It would set the kernel's highest number, which it cannot where it is held lower itself.
        limits.push(Limit { name: "nproc", value: PROCESSES_OF_USER_MAX });
    }
    limits
}

/// No file need be larger than all that a job may write. It also bounds the few files that an engine keeps outside of the
/// container's layer and that root of a container may write, such as `/etc/hosts`.
fn file_bytes_max(spec: &ContainerSpec) -> u64 {
    match spec.disk_bytes {
        0 => spec.memory_bytes,
        disk => disk.max(spec.shm_bytes.unwrap_or(SHM_BYTES_DEFAULT)),
    }
}

#[cfg(test)]
mod tests;
