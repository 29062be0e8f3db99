//! One container of a job: what it runs, what it may use, how it is kept going.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::is_false;
use crate::wire::Secret;

/// One container of a job.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceSpec {
    /// Name within the job, `[a-z0-9-]`, up to 63 characters.
    pub name: String,
    /// Image reference as Docker writes it: `alpine:3.20`, `ghcr.io/a/b@sha256:…`, or a local image id.
    pub image: String,
    /// Replaces the image's entrypoint when present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command when not empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Environment of the container. Values are never logged.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Secret>,
    /// Working directory inside the container; the image's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// What the container may use.
    pub resources: Resources,
    /// Run as root of the container, without capabilities. Otherwise as the image's own user, or as an unprivileged one where
    /// the image names none.
    #[serde(default, skip_serializing_if = "is_false")]
    pub root: bool,
    /// Services that must run, and be healthy where they have a check, before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// What to do when its main process ends.
    #[serde(default, skip_serializing_if = "RestartPolicy::is_never")]
    pub restart: RestartPolicy,
    /// How to find out whether it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// Files fetched into it before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputSpec>,
    /// Who pulls the image, where its registry asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryLogin>,
    /// Size of its shared memory `/dev/shm` in bytes; 64 MiB when absent. Counts as memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_bytes: Option<u64>,
}

/// What happens when a container's main process ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestartPolicy {
    /// After which ends it is started again.
    pub when: RestartWhen,
    /// How often at most; without limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times_max: Option<u32>,
}

impl RestartPolicy {
    /// Whether it is the default.
    #[must_use]
    pub fn is_never(&self) -> bool {
        self.when == RestartWhen::Never && self.times_max.is_none()
    }
}

/// After which ends a container is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestartWhen {
    /// None.
    #[default]
    Never,
    /// An exit code other than 0, lack of memory, a failed health check.
    OnFailure,
    /// Every one, until the job is stopped or reaches its longest duration.
    Always,
    /// A policy this build does not know; treated as never.
    #[serde(other)]
    Unknown,
}

/// How to find out whether a container works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthCheck {
    /// What to try.
    pub test: HealthTest,
    /// Seconds between two tries, 1 to 3600.
    #[serde(default = "default_health_interval_seconds")]
    pub interval_seconds: u32,
    /// Seconds after which a try has failed, 1 to 600.
    #[serde(default = "default_health_timeout_seconds")]
    pub timeout_seconds: u32,
    /// Failures in a row that make it unhealthy, 1 to 100.
    #[serde(default = "default_health_retries")]
    pub retries: u32,
    /// Seconds after its start in which failures do not count, up to 3600.
    #[serde(default)]
    pub start_grace_seconds: u32,
}

/// What a health check tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HealthTest {
    /// A command in the container; 0 is healthy.
    Exec {
        /// Program and arguments.
        command: Vec<String>,
    },
    /// `GET` over plain HTTP to the container; a status from 200 to 399 is healthy.
    Http {
        /// Port in the container.
        port: u16,
        /// Path and query, beginning with `/`.
        path: String,
    },
    /// A TCP connection to the container.
    Tcp {
        /// Port in the container.
        port: u16,
    },
    /// A test this build does not know; a node refuses it.
    #[serde(other)]
    Unknown,
}

/// Ten seconds.
#[must_use]
pub const fn default_health_interval_seconds() -> u32 {
    10
}

/// Five seconds.
#[must_use]
pub const fn default_health_timeout_seconds() -> u32 {
    5
}

/// Three in a row.
#[must_use]
pub const fn default_health_retries() -> u32 {
    3
}

/// A file fetched into a container before it starts. The node fetches it, from public addresses only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InputSpec {
    /// `https://…`; `http://…` is as good, for the content is checked.
    pub url: String,
    /// SHA-256 of the content, hex.
    pub sha256: String,
    /// Where it goes: absolute path of a file in the container.
    pub path: String,
    /// Largest size in bytes; the job's disk when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<u64>,
    /// Whether it may be executed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub executable: bool,
}

/// A login at an image registry. Nodes hold it in memory only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegistryLogin {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: Secret,
}

impl fmt::Debug for ServiceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceSpec")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("command", &self.command)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("resources", &self.resources)
            .finish_non_exhaustive()
    }
}

/// What a container may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// Thousandths of one CPU core, 10 to 1,024,000.
    pub cpu_millis: u32,
    /// Memory ceiling in bytes; swap is not added to it. At least 6 MiB.
    pub memory_bytes: u64,
    /// Disk for the writable layer and the output, in bytes.
    pub disk_bytes: u64,
    /// Whole GPUs.
    #[serde(default)]
    pub gpus: u32,
}

impl Resources {
    /// The sum of both, each number at most what its type holds.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            disk_bytes: self.disk_bytes.saturating_add(other.disk_bytes),
            gpus: self.gpus.saturating_add(other.gpus),
        }
    }
}

impl Default for Resources {
    /// One core, 512 MiB of memory, 1 GiB of disk, no GPU.
    fn default() -> Self {
        Self { cpu_millis: 1000, memory_bytes: 512 << 20, disk_bytes: 1 << 30, gpus: 0 }
    }
}
