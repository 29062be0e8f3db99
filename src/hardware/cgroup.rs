//! Limits of the container or virtual machine that we run in.
//!
//! Read at the root of the mounted hierarchy: inside a container that is the container's own group, on a host it has no limits.
//! The agent's own group is not looked at: limiting the agent (a systemd unit with `MemoryMax=`) does not limit the jobs, which
//! run below the container engine.

use std::path::Path;

/// Where Linux mounts control groups.
pub(super) const ROOT: &str = "/sys/fs/cgroup";

/// What may be used. `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// Thousandths of a core.
    pub(super) cpu_millis: Option<u32>,
    /// Number of hardware threads that may be run on.
    pub(super) cpu_threads: Option<u32>,
    /// Bytes.
    pub(super) memory_bytes: Option<u64>,
}

/// Reads the limits below `root`, version 2 first, then version 1. What cannot be read is no limit.
pub(super) fn read(root: &Path) -> Limits {
    let text = |name: &str| std::fs::read_to_string(root.join(name)).ok();
    let quota = || {
        let quota = text("cpu/cpu.cfs_quota_us").or_else(|| text("cpu,cpuacct/cpu.cfs_quota_us"))?;
        let period = text("cpu/cpu.cfs_period_us").or_else(|| text("cpu,cpuacct/cpu.cfs_period_us"))?;
        Some(format!("{} {}", quota.trim(), period.trim()))
    };
    let cpus = text("cpuset.cpus.effective")
        .or_else(|| text("cpuset/cpuset.effective_cpus"))
        .or_else(|| text("cpuset/cpuset.cpus"));
    let memory = text("memory.max").or_else(|| text("memory/memory.limit_in_bytes"));
    Limits {
        cpu_millis: text("cpu.max").or_else(quota).as_deref().and_then(cpu_millis),
        cpu_threads: cpus.as_deref().and_then(cpu_threads),
        memory_bytes: memory.as_deref().and_then(memory_bytes),
    }
}

/// `150000 100000` (quota and period in microseconds) is 1500; `max …` and `-1 …` are no limit.
fn cpu_millis(text: &str) -> Option<u32> {
    let mut words = text.split_whitespace();
    let quota: u64 = words.next()?.parse().ok()?;
    let period: u64 = words.next()?.parse().ok().filter(|period| *period > 0)?;
    u32::try_from(quota.saturating_mul(1000) / period).ok().filter(|millis| *millis > 0)
}

/// `0-3,8,10-11` is 7 threads. An empty list is no limit.
fn cpu_threads(text: &str) -> Option<u32> {
    let mut threads: u32 = 0;
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        threads = threads.saturating_add(last.checked_sub(first)?.saturating_add(1));
    }
    Some(threads)
}

/// Bytes; `max` and version 1's "unlimited" (nearly 2⁶³) are no limit.
fn memory_bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| (1..1 << 62).contains(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_become_thousandths_of_a_core() {
        assert_eq!(cpu_millis("150000 100000\n"), Some(1500));
        assert_eq!(cpu_millis("50000 100000"), Some(500));
        for unlimited in ["max 100000", "-1 100000", "100000 0", "", "garbage", "1"] {
            assert_eq!(cpu_millis(unlimited), None, "{unlimited:?}");
        }
    }

    #[test]
    fn lists_of_cpus_are_counted() {
        assert_eq!(cpu_threads("0-3,8,10-11\n"), Some(7));
        assert_eq!(cpu_threads("0"), Some(1));
        for nothing in ["", "\n", "3-1", "a-b", "0,,1"] {
            assert_eq!(cpu_threads(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn unlimited_memory_is_no_limit() {
        assert_eq!(memory_bytes("536870912\n"), Some(512 << 20));
        for unlimited in ["max", "9223372036854771712", "0", "", "-1"] {
            assert_eq!(memory_bytes(unlimited), None, "{unlimited:?}");
        }
    }

    #[test]
    fn a_version_2_tree_is_read() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("cpu.max"), "250000 100000\n").unwrap();
        std::fs::write(root.path().join("cpuset.cpus.effective"), "0-2\n").unwrap();
        std::fs::write(root.path().join("memory.max"), "1073741824\n").unwrap();
        let limits = Limits { cpu_millis: Some(2500), cpu_threads: Some(3), memory_bytes: Some(1 << 30) };
        assert_eq!(read(root.path()), limits);
    }

    #[test]
    fn a_version_1_tree_is_read() {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cpu,cpuacct/cpu.cfs_quota_us", "75000\n"),
            ("cpu,cpuacct/cpu.cfs_period_us", "50000\n"),
            ("cpuset/cpuset.cpus", "4,6\n"),
            ("memory/memory.limit_in_bytes", "2147483648\n"),
        ] {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let limits = Limits { cpu_millis: Some(1500), cpu_threads: Some(2), memory_bytes: Some(2 << 30) };
        assert_eq!(read(root.path()), limits);
    }

    #[test]
    fn a_machine_without_control_groups_has_no_limits() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path()), Limits::default());
    }
}
