//! What an engine says of itself, and what of it is believed.

use bollard::models::{SystemInfo, SystemInfoCgroupDriverEnum, SystemInfoCgroupVersionEnum};

use super::super::RuntimeError;
use super::super::gpu::GpuAbilities;
use super::super::sandbox::{CgroupVersion, EngineFacts};
use super::{CALL_DEADLINE, DockerRuntime};
use crate::os;

impl DockerRuntime {
    /// Asks the engine.
    pub(super) async fn ask_facts(&self, podman: bool) -> Result<EngineFacts, RuntimeError> {
        let info = self.call("describe itself", CALL_DEADLINE, self.docker.info()).await?;
        let local = self.address.starts_with("unix://");
        Ok(facts_of(info, podman, local && os::disk_weight_exists()))
    }
}

fn facts_of(info: SystemInfo, podman: bool, weight_here: bool) -> EngineFacts {
    let options = info.security_options.unwrap_or_default();
    let has = |name: &str| options.iter().any(|option| option.split(',').any(|part| part == format!("name={name}")));
    let unfiltered = options.iter().any(|option| option.contains("seccomp") && option.contains("profile=unconfined"));
    let cgroup = match info.cgroup_version {
        Some(SystemInfoCgroupVersionEnum::_2) => CgroupVersion::V2,
        Some(SystemInfoCgroupVersionEnum::_1 | SystemInfoCgroupVersionEnum::EMPTY) | None => CgroupVersion::V1,
    };
    let rootless = has("rootless");
    // Rootless on the older limits says that it has them all, and none takes effect.
    let believed =
        info.cgroup_driver != Some(SystemInfoCgroupDriverEnum::NONE) && !(rootless && cgroup == CgroupVersion::V1);
    let all = [info.memory_limit, info.cpu_cfs_quota, info.pids_limit];
    let warnings = info.warnings.unwrap_or_default();
    let weight = match cgroup {
        CgroupVersion::V1 => {
            !podman && !rootless && !warnings.iter().any(|warning| warning.contains("No blkio weight"))
        }
        CgroupVersion::V2 => weight_here && !rootless,
    };
    let storage_driver = info.driver.unwrap_or_default();
    let over = info.driver_status.unwrap_or_default();
    let over = over.iter().find(|pair| pair.first().is_some_and(|name| name == "Backing Filesystem"));
    let backing = over.and_then(|pair| pair.get(1)).map_or("", String::as_str);
    EngineFacts {
        podman,
        desktop: info.operating_system.is_some_and(|name| name.contains("Docker Desktop")),
        rootless,
        userns_remap: has("userns"),
        cgroup,
        limits_hold: believed && all.iter().all(|limit| limit.unwrap_or(true)),
        limits_missing: Vec::new(),
        seccomp: has("seccomp") && !unfiltered,
        apparmor: has("apparmor"),
        selinux: has("selinux"),
        disk_quota: may_have_quota(&storage_driver, backing),
        storage_driver,
        disk_weight: weight,
        given: Vec::new(),
        gpus: GpuAbilities::default(),
        plain_runtime: None,
        data_dir: info.docker_root_dir,
    }
}

/// Whether it is worth asking for a limit of a container's layer.
fn may_have_quota(driver: &str, backing: &str) -> bool {
    match driver {
        "btrfs" | "zfs" | "windowsfilter" => true,
        "overlay2" | "overlay" => backing == "xfs",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(info: serde_json::Value) -> EngineFacts {
        facts_of(serde_json::from_value(info).unwrap(), false, true)
    }

    #[test]
    fn an_engine_of_the_system_is_believed() {
        let found = facts(serde_json::json!({
            "Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]], "CgroupVersion": "2",
            "CgroupDriver": "systemd", "MemoryLimit": true, "CpuCfsQuota": true, "PidsLimit": true,
            "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
            "DockerRootDir": "/var/lib/docker", "OperatingSystem": "Debian GNU/Linux 13",
        }));
        assert_eq!(found.unusable(), None);
        assert!(found.apparmor && !found.rootless && !found.userns_remap && !found.disk_quota && !found.desktop);
        assert!(found.disk_weight && found.cgroup == CgroupVersion::V2);
    }

    #[test]
    fn limits_of_a_rootless_engine_are_believed_only_where_they_can_hold() {
        for (version, driver, holds) in [("1", "cgroupfs", false), ("2", "none", false), ("2", "systemd", true)] {
            let found = facts(serde_json::json!({
                "CgroupVersion": version, "CgroupDriver": driver, "MemoryLimit": true, "PidsLimit": true,
                "SecurityOptions": ["name=seccomp,profile=default", "name=rootless"],
            }));
            assert_eq!(found.limits_hold, holds, "cgroup v{version}, {driver}");
            assert_eq!(found.unusable().is_none(), holds);
            assert!(found.root_is_nobody_outside() && !found.disk_weight);
        }
        let without =
            facts(serde_json::json!({"PidsLimit": false, "SecurityOptions": ["name=seccomp,profile=default"]}));
        assert!(!without.limits_hold, "an engine that says so itself");
    }

    #[test]
    fn an_engine_without_its_filter_is_noticed() {
        for options in [vec![], vec!["name=seccomp,profile=unconfined"], vec!["name=apparmor"]] {
            assert!(facts(serde_json::json!({"SecurityOptions": options})).unusable().is_some(), "{options:?}");
        }
    }

    #[test]
    fn only_storages_with_quotas_are_asked_for_one() {
        for (driver, backing, may) in
            [("overlay2", "extfs", false), ("overlay2", "xfs", true), ("btrfs", "", true), ("vfs", "", false)]
        {
            let found = facts(serde_json::json!({"Driver": driver, "DriverStatus": [["Backing Filesystem", backing]]}));
            assert_eq!(found.disk_quota, may, "{driver} on {backing}");
        }
    }
}
