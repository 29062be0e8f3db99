//! What is known of a container engine, as far as strangers' containers depend on it.

use crate::runtime::gpu::GpuAbilities;
use crate::runtime::isolation::Given;

/// Generation of the kernel's limits on groups of processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupVersion {
    /// The older one, and whatever is not known.
    #[default]
    V1,
    /// The unified one.
    V2,
}

/// What is known of an engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineFacts {
    /// Whether it is podman behind Docker's API.
    pub podman: bool,
    /// Whether it runs in a virtual machine of its own (Docker Desktop), apart from this machine's files and networks.
    pub desktop: bool,
    /// Whether it runs without root's rights.
    pub rootless: bool,
    /// Whether root of a container is somebody without rights outside.
    pub userns_remap: bool,
    /// Generation of the limits.
    pub cgroup: CgroupVersion,
    /// Whether limits on memory, processor and processes really hold: said by an engine of the system, seen in a container of any
    /// other.
    pub limits_hold: bool,
    /// The limits that a container was seen without: `memory`, `processor`, `processes`.
    pub limits_missing: Vec<&'static str>,
    /// Whether its usual filter of system calls is on.
    pub seccomp: bool,
    /// Whether AppArmor confines containers.
    pub apparmor: bool,
    /// Whether SELinux confines containers.
    pub selinux: bool,
    /// Storage driver: `overlay2`, `btrfs`.
    pub storage_driver: String,
    /// Whether its storage can limit a container's layer: known, or not yet refused.
    pub disk_quota: bool,
    /// Whether it can give containers a share of the disk's time.
    pub disk_weight: bool,
    /// Separations that were seen working, weakest first.
    pub given: Vec<Given>,
    /// How GPUs are handed over.
    pub gpus: GpuAbilities,
    /// The runtime to name where its default one acts on variables of a container.
    pub plain_runtime: Option<String>,
    /// The folder where it keeps everything, as it calls it.
    pub data_dir: Option<String>,
}

impl EngineFacts {
    /// Whether root of a container is nobody outside.
    #[must_use]
    pub const fn root_is_nobody_outside(&self) -> bool {
        self.userns_remap || self.rootless
    }

    /// Why this engine cannot hold strangers' containers at all; what happened and what to do.
    #[must_use]
    pub fn unusable(&self) -> Option<String> {
        if !self.limits_hold {
            Some(self.without_limits())
        } else if !self.seccomp {
            let why = "it filters no system calls; remove \"seccomp-profile\": \"unconfined\" from its configuration, or install \
                       an engine with seccomp";
            Some(why.to_owned())
        } else {
            None
        }
    }

    fn without_limits(&self) -> String {
        let missing = match self.limits_missing.as_slice() {
            [] => "memory, processor and processes do not take effect".to_owned(),
            missing => {
                format!("{} do not take effect, whatever it says: a container was made with them", missing.join(", "))
            }
        };
        let fix = match (self.rootless, self.cgroup) {
            (true, CgroupVersion::V1) => {
                "a rootless engine has none on cgroup v1: start this machine with cgroup v2 (systemd.unified_cgroup_hierarchy=1 on \
                 the kernel's command line), or use the engine of the system"
            }
            (true, CgroupVersion::V2) => {
                "hand the controllers to users: `sudo systemctl edit user@.service`, write [Service] and \
                 Delegate=cpu cpuset io memory pids, and log in again; or use the engine of the system"
            }
            (false, CgroupVersion::V1 | CgroupVersion::V2) => {
                "see what it warns of: `docker info`; or use an engine that limits its containers"
            }
        };
        format!("its limits on {missing}; {fix}")
    }

    /// What the owner should know though jobs are taken.
    #[must_use]
    pub fn notices(&self, root_allowed: bool) -> Vec<&'static str> {
        let mut notices = Vec::new();
        if root_allowed && !self.root_is_nobody_outside() {
            notices.push(
                "jobs that ask for root run as this machine's user 0, without its rights, because the container engine maps no \
                 users; set \"userns-remap\": \"default\" in /etc/docker/daemon.json, or root = \"remapped\" under [sandbox] to \
                 refuse them",
            );
        }
        notices
    }

    /// The limit of a container's layer, where the storage keeps to one. Some storages count the image in.
    #[must_use]
    pub fn layer_bytes_max(&self, disk_bytes: u64, image_bytes: u64) -> Option<u64> {
        if !self.disk_quota || disk_bytes == 0 {
            return None;
        }
        let counts_image = matches!(self.storage_driver.as_str(), "btrfs" | "zfs");
        Some(if counts_image { disk_bytes.saturating_add(image_bytes) } else { disk_bytes })
    }
}
