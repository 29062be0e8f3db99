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
    /// Whether limits on memory, processor and processes really hold.
    pub limits_hold: bool,
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
    pub fn unusable(&self) -> Option<&'static str> {
        if !self.limits_hold {
            Some(
                "its limits on memory, processor and processes do not take effect (a rootless engine needs cgroup v2 and \
                 delegated controllers); use the engine of the system, or see `docker info`",
            )
        } else if !self.seccomp {
            Some(
                "it filters no system calls; remove \"seccomp-profile\": \"unconfined\" from its configuration, or install an \
                 engine with seccomp",
            )
        } else {
            None
        }
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
