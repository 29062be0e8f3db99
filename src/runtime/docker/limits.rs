//! Whether the engine's limits take effect, read back inside a container that was made with them.
//!
//! An engine of the system that cannot set a limit fails; a rootless one leaves it out and goes on, and says in its description that
//! it has them all (Podman also that it has none, where they hold). So whoever may leave something out is tried before any job:
//! Podman, rootless engines, and engines beside an agent that is in a user namespace itself (a container that plays a machine).
//! The others are believed, which spares each start of an agent a container.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum};
use bollard::query_parameters::CreateContainerOptions;
use futures_util::TryStreamExt as _;

use super::super::sandbox::EngineFacts;
use super::super::{ContainerId, RuntimeError};
use super::abilities::{LABEL_CHECK, Removal};
use super::{CALL_DEADLINE, DockerRuntime, START_DEADLINE};
use crate::os;
use crate::wire::logs::LogStream;

const WHAT: &str = "show that its limits hold";
const MEMORY_BYTES: i64 = 64 << 20;
/// Half a core.
const NANO_CPUS: i64 = 500_000_000;
const PIDS: i64 = 16;

/// One limit: what it is on, and where a container finds it.
struct Limit {
    what: &'static str,
    /// In the unified hierarchy, and in the older ones.
    paths: [&'static str; 2],
    /// Whether that is the limit that was asked for.
    holds: fn(&str) -> bool,
}

const LIMITS: [Limit; 3] = [
    Limit {
        what: "memory",
        paths: ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"],
        holds: |line| line.parse().is_ok_and(|bytes: i64| bytes <= MEMORY_BYTES),
    },
    Limit {
        what: "processor",
        paths: ["/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"],
        // Microseconds of each tenth of a second, and in the unified hierarchy that period behind it.
        holds: |line| {
            line.split(' ').next().is_some_and(|quota| quota.parse().is_ok_and(|it: i64| (1..=50_000).contains(&it)))
        },
    },
    Limit {
        what: "processes",
        paths: ["/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"],
        holds: |line| line.parse().is_ok_and(|count: i64| count <= PIDS),
    },
];

/// Whom the container's users are outside of it: first inside, first outside, how many.
const USERS: &str = "/proc/self/uid_map";

impl DockerRuntime {
    /// What is known after a look into a container of an engine that may leave limits out: which take effect, and whether its
    /// root is somebody else outside, which Podman does not tell.
    pub(super) async fn see_limits(&self, facts: EngineFacts) -> Result<EngineFacts, RuntimeError> {
        let may_leave_out = facts.rootless || facts.podman || os::in_user_namespace();
        // Podman's description tells nothing either way: with cgroup v2 it says that there are no limits, and they hold.
        if !may_leave_out || !facts.seccomp || !(facts.podman || facts.limits_hold) {
            return Ok(facts);
        }
        let said = tokio::time::timeout(START_DEADLINE, self.limits_inside())
            .await
            .map_err(|_| RuntimeError::TimedOut { what: WHAT, seconds: START_DEADLINE.as_secs() })??;
        let limits_missing = missing(&said);
        let rootless = facts.rootless || (facts.podman && maps_root(&said));
        Ok(EngineFacts { rootless, limits_hold: limits_missing.is_empty(), limits_missing, ..facts })
    }

    /// What a container with limits says of them.
    async fn limits_inside(&self) -> Result<String, RuntimeError> {
        let Some(image) = self.probe_image().await? else {
            let detail = "this build of fizz has no probe to look with".to_owned();
            return Err(RuntimeError::Engine { what: WHAT, detail });
        };
        let mut command = vec!["read".to_owned()];
        command.extend(LIMITS.iter().flat_map(|limit| limit.paths).chain([USERS]).map(str::to_owned));
        let body = ContainerCreateBody {
            image: Some(image),
            cmd: Some(command),
            user: Some("65534:65534".to_owned()),
            labels: Some(HashMap::from([(LABEL_CHECK.to_owned(), "1".to_owned())])),
            host_config: Some(HostConfig {
                memory: Some(MEMORY_BYTES),
                memory_swap: Some(MEMORY_BYTES),
                nano_cpus: Some(NANO_CPUS),
                pids_limit: Some(PIDS),
                network_mode: Some("none".to_owned()),
                cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
                cap_drop: Some(vec!["ALL".to_owned()]),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                readonly_rootfs: Some(true),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let create = self.docker.create_container(None::<CreateContainerOptions>, body);
        let id = self.call(WHAT, CALL_DEADLINE, create).await?.id;
        let _removal = Removal::new(self.docker.clone(), id.clone());
        self.call(WHAT, START_DEADLINE, self.docker.start_container(&id, None)).await?;
        let id = ContainerId(id);
        self.wait_for_end(&id).await?;
        let pieces: Vec<_> = self.log_entries(&id, 0).try_collect().await?;
        let bytes = pieces.iter().filter(|piece| piece.stream == LogStream::Stdout).flat_map(|piece| &piece.bytes[..]);
        Ok(String::from_utf8_lossy(&bytes.copied().collect::<Vec<u8>>()).into_owned())
    }
}

/// The limits that are not in what a container said: two lines for each, of which one is enough.
fn missing(said: &str) -> Vec<&'static str> {
    let lines: Vec<Option<&str>> = said.lines().map(|line| line.strip_prefix('=')).collect();
    let found = |index: usize| lines.get(2 * index..2 * index + 2).unwrap_or_default();
    let holds = |(index, limit): &(usize, &Limit)| found(*index).iter().flatten().any(|line| (limit.holds)(line));
    LIMITS.iter().enumerate().filter(|pair| !holds(pair)).map(|(_, limit)| limit.what).collect()
}

/// Whether root of the container is somebody else outside.
fn maps_root(said: &str) -> bool {
    let line = said.lines().nth(2 * LIMITS.len()).and_then(|line| line.strip_prefix('='));
    let mut numbers = line.unwrap_or_default().split_whitespace();
    numbers.next() == Some("0") && numbers.next().is_some_and(|outside| outside != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_believed_as_they_are_read_in_the_container_and_not_otherwise() {
        let unified = "=67108864\n-\n=50000 100000\n-\n=16\n-\n";
        let older = "-\n=67108864\n-\n=50000\n-\n=16\n";
        assert_eq!((missing(unified), missing(older)), (vec![], vec![]));
        let ignored = "-\n=9223372036854771712\n-\n=-1\n-\n-\n";
        assert_eq!(missing(ignored), ["memory", "processor", "processes"]);
        assert_eq!(missing("=67108864\n-\n-\n-\n=16\n-\n"), ["processor"], "as users get it without delegation");
        assert_eq!(missing("=max\n-\n=max 100000\n-\n=max\n-\n"), ["memory", "processor", "processes"]);
        assert!(maps_root("-\n-\n-\n-\n-\n-\n=         0       1000          1\n"));
        assert!(!maps_root("-\n-\n-\n-\n-\n-\n=         0          0 4294967295\n") && !maps_root(""));
        assert_eq!(missing(""), ["memory", "processor", "processes"], "nothing said, nothing shown");
    }
}
