//! The host: operating system, processor, memory, and free disk space where the container engine keeps its data.

use std::path::Path;

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use super::{HardwareError, cgroup};
use crate::os;
use crate::wire::node::Host;

/// The host and how much of its processor may be used.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) host: Host,
    /// Thousandths of a core.
    pub(super) cpu_millis: u32,
}

/// Looks at this machine.
pub(super) fn look(docker_data_dir: &Path) -> Result<Machine, HardwareError> {
    let kinds =
        RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()).with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kinds).map_err(HardwareError::Unreadable)?;
    let limits = cgroup::read(Path::new(cgroup::ROOT));

    let listed = u32::try_from(system.cpus().len()).unwrap_or(u32::MAX);
    let (threads, cpu_millis) = bound_cpu(listed, limits);
    let cores = System::physical_core_count().ok().and_then(|cores| u32::try_from(cores).ok()).unwrap_or(threads);
    let brand = system.cpus().first().map(|cpu| cpu.brand().trim()).unwrap_or_default();
    let host = Host {
        os: System::long_os_version().or_else(|_| System::name()).unwrap_or_else(|_| std::env::consts::OS.to_owned()),
        kernel: System::kernel_version().unwrap_or_else(|_| "unknown".to_owned()),
        architecture: architecture(std::env::consts::ARCH).to_owned(),
        cpu_model: if brand.is_empty() { "unknown".to_owned() } else { brand.to_owned() },
        cpu_cores: cores.clamp(1, threads),
        cpu_threads: threads,
        memory_bytes: limits.memory_bytes.unwrap_or(u64::MAX).min(system.total_memory()),
        disk_bytes_free: disk_bytes_free(docker_data_dir)?,
    };
    Ok(Machine { host, cpu_millis })
}

/// Threads and thousandths of a core that may be used, of `listed` threads.
fn bound_cpu(listed: u32, limits: cgroup::Limits) -> (u32, u32) {
    let allowed = listed.max(1).min(limits.cpu_threads.unwrap_or(u32::MAX).max(1));
    let millis = allowed.saturating_mul(1000).min(limits.cpu_millis.unwrap_or(u32::MAX));
    (millis.div_ceil(1000).max(1), millis)
}

/// Docker's name of a processor architecture.
fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// Free bytes for ordinary users at `path`, or at its nearest parent that exists (the engine may not have made it yet).
fn disk_bytes_free(path: &Path) -> Result<u64, HardwareError> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    os::disk_bytes_free(existing).map_err(|source| HardwareError::Disk { path: existing.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_processor_memory_and_disk() {
        let machine = look(Path::new("/var/lib/docker")).unwrap();
        assert!(machine.host.cpu_threads >= 1);
        assert!((1..=machine.host.cpu_threads).contains(&machine.host.cpu_cores));
        assert!((1..=machine.host.cpu_threads * 1000).contains(&machine.cpu_millis));
        assert!(machine.host.memory_bytes > 64 << 20);
        assert!(!machine.host.os.is_empty() && !machine.host.kernel.is_empty() && !machine.host.cpu_model.is_empty());
    }

    #[test]
    fn a_folder_that_does_not_exist_yet_is_measured_at_its_parent() {
        let folder = tempfile::tempdir().unwrap();
        disk_bytes_free(&folder.path().join("not/made/yet")).unwrap();
    }

    #[test]
    fn a_quota_of_one_and_a_half_cores_gives_two_threads() {
        let limits = cgroup::Limits { cpu_millis: Some(1500), ..cgroup::Limits::default() };
        assert_eq!(bound_cpu(8, limits), (2, 1500));
    }

    #[test]
    fn a_cpuset_bounds_threads_and_a_generous_quota_changes_nothing() {
        let limits = cgroup::Limits { cpu_threads: Some(3), cpu_millis: Some(64_000), memory_bytes: None };
        assert_eq!(bound_cpu(8, limits), (3, 3000));
        assert_eq!(bound_cpu(0, cgroup::Limits::default()), (1, 1000));
    }

    #[test]
    fn architectures_are_named_as_docker_names_them() {
        assert_eq!(architecture("x86_64"), "amd64");
        assert_eq!(architecture("aarch64"), "arm64");
        assert_eq!(architecture("riscv64"), "riscv64");
    }
}
