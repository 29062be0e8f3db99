//! What the engine can give a container beyond the plain one: other runtimes, seen working; and this machine's GPUs.

use std::path::Path;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig, SystemInfo};
use bollard::query_parameters::{
    CreateContainerOptions, LogsOptionsBuilder, RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::super::gpu::{GpuAbilities, cdi_uuids};
use super::super::isolation::{Given, NamedRuntime, candidates, shows_own_kernel};
use super::super::{LABEL_SHARED, RuntimeError};
use super::{CALL_DEADLINE, DockerRuntime};

/// A runtime that has not run the smallest program within this time does not work here (one that waits for virtualisation
/// that is there and dead waits for ever).
const CHECK_DEADLINE: Duration = Duration::from_secs(20);
const CHECK_IMAGE: &str = "io.fizz/kernel-name:1";
/// Label of a container that only looks at what it was given: its kernel, its limits.
pub(super) const LABEL_CHECK: &str = "io.fizz.check";
/// Files of CDI specifications are long, but not longer.
const SPECIFICATION_BYTES_MAX: u64 = 4 << 20;

/// What was found.
#[derive(Debug, Clone, Default)]
pub(super) struct Abilities {
    /// Separations that work, weakest first.
    pub(super) given: Vec<Given>,
    /// Ways to hand over a GPU.
    pub(super) gpus: GpuAbilities,
    /// The runtime to name where the engine's default would act on variables of a container.
    pub(super) plain_runtime: Option<String>,
}

impl DockerRuntime {
    /// Looks at what the engine has, and tries what it says.
    pub(super) async fn look_at_abilities(&self, maps_users: bool) -> Result<Abilities, RuntimeError> {
        let info = self.call("describe itself", CALL_DEADLINE, self.docker.info()).await?;
        let local = self.address.starts_with("unix://") && !is_desktop(&info);
        let runtimes = named(&info);
        let mut given = Vec::new();
        for candidate in candidates(&runtimes, maps_users) {
            if self.works(&candidate, info.kernel_version.as_deref().unwrap_or_default()).await {
                given.push(candidate);
            }
        }
        let default = info.default_runtime.as_deref().unwrap_or_default();
        let plain = default.contains("nvidia") && runtimes.iter().any(|runtime| runtime.name == "runc");
        Ok(Abilities { given, gpus: gpu_abilities(&info, local), plain_runtime: plain.then(|| "runc".to_owned()) })
    }

    /// Whether a runtime gives what its name says: the smallest program is run with it and tells its kernel.
    async fn works(&self, candidate: &Given, kernel_outside: &str) -> bool {
        let Some(runtime) = &candidate.runtime else { return true };
        let kernel = match tokio::time::timeout(CHECK_DEADLINE, self.kernel_inside(runtime)).await {
            Ok(Ok(kernel)) => kernel,
            Ok(Err(error)) => {
                tracing::warn!(runtime, %error, "the container engine has this runtime and it does not work");
                return false;
            }
            Err(_) => {
                tracing::warn!(runtime, "the container engine has this runtime and it does not answer");
                return false;
            }
        };
        let shown = shows_own_kernel(candidate.isolation, kernel_outside, &kernel);
        if !shown {
            tracing::warn!(
                runtime,
                kernel,
                "this runtime gives containers the machine's own kernel; it is not offered"
            );
        }
        shown
    }

    async fn kernel_inside(&self, runtime: &str) -> Result<String, RuntimeError> {
        const WHAT: &str = "try a runtime";
        let Some(program) = super::kernel_name::program(&self.architecture) else {
            return Err(RuntimeError::Engine { what: WHAT, detail: "unknown processor".to_owned() });
        };
        let archive = super::kernel_name::image(CHECK_IMAGE, &self.architecture, &program, LABEL_SHARED)
            .map_err(|error| RuntimeError::Engine { what: WHAT, detail: error.to_string() })?;
        let image = self.import_image(Bytes::from(archive), CHECK_IMAGE).await?;
        let body = ContainerCreateBody {
            image: Some(image),
            cmd: Some(vec!["/kernel-name".to_owned()]),
            labels: Some([(LABEL_CHECK.to_owned(), "1".to_owned())].into()),
            host_config: Some(HostConfig {
                runtime: Some(runtime.to_owned()),
                network_mode: Some("none".to_owned()),
                memory: Some(256 << 20),
                cap_drop: Some(vec!["ALL".to_owned()]),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let made = self.docker.create_container(None::<CreateContainerOptions>, body);
        let id = self.call(WHAT, CALL_DEADLINE, made).await?.id;
        let removal = Removal::new(self.docker.clone(), id.clone());
        self.call(WHAT, CHECK_DEADLINE, self.docker.start_container(&id, None)).await?;
        // A log that is followed while its container ends may be cut short by the engine.
        let mut end =
            self.docker.wait_container(&id, Some(WaitContainerOptionsBuilder::new().condition("not-running").build()));
        while end.next().await.is_some() {}
        let options = LogsOptionsBuilder::new().stdout(true).build();
        let mut log = self.docker.logs(&id, Some(options));
        let mut said = Vec::new();
        while let Some(Ok(piece)) = log.next().await {
            said.extend_from_slice(&piece.into_bytes());
        }
        drop(removal);
        Ok(String::from_utf8_lossy(&said).trim_matches(['\0', '\n', ' ']).to_owned())
    }
}

/// Removes the container of a check, also when the check is given up.
pub(super) struct Removal {
    docker: bollard::Docker,
    id: String,
}

impl Removal {
    pub(super) const fn new(docker: bollard::Docker, id: String) -> Self {
        Self { docker, id }
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        let (docker, id) = (self.docker.clone(), std::mem::take(&mut self.id));
        tokio::spawn(async move {
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            // One that cannot be removed does nothing and holds nothing; it is only untidy.
            let _ = tokio::time::timeout(CALL_DEADLINE, docker.remove_container(&id, Some(options))).await;
        });
    }
}

fn is_desktop(info: &SystemInfo) -> bool {
    info.operating_system.as_deref().is_some_and(|name| name.contains("Docker Desktop"))
}

fn named(info: &SystemInfo) -> Vec<NamedRuntime> {
    let runtimes = info.runtimes.iter().flatten();
    runtimes
        .map(|(name, runtime)| NamedRuntime { name: name.clone(), program: runtime.path.clone().unwrap_or_default() })
        .collect()
}

fn gpu_abilities(info: &SystemInfo, local: bool) -> GpuAbilities {
    let folders = info.cdi_spec_dirs.iter().flatten();
    let texts = folders.filter(|_| local).flat_map(|folder| specifications(Path::new(folder)));
    let runtimes = info.runtimes.iter().flatten().any(|(name, _)| name == "nvidia");
    GpuAbilities {
        local,
        cdi_uuids: texts.flat_map(|text| cdi_uuids(&text)).collect(),
        nvidia_requests: local && (runtimes || Path::new("/usr/bin/nvidia-container-runtime-hook").exists()),
    }
}

fn specifications(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path()).filter(|path| {
        path.extension().and_then(|extension| extension.to_str()).is_some_and(|e| matches!(e, "yaml" | "yml" | "json"))
    });
    files.filter_map(|path| crate::os::read_start(&path, SPECIFICATION_BYTES_MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_handed_over_by_cdi_where_a_specification_of_the_engines_names_them() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("nvidia.yaml"), "kind: nvidia.com/gpu\ndevices:\n- name: GPU-7\n").unwrap();
        std::fs::write(folder.path().join("notes.txt"), "kind: nvidia.com/gpu\n- name: GPU-8\n").unwrap();
        let folders = Some(vec![folder.path().to_str().unwrap().to_owned()]);
        let info = SystemInfo { cdi_spec_dirs: folders, ..SystemInfo::default() };
        assert_eq!(gpu_abilities(&info, true).cdi_uuids, ["GPU-7"]);
        assert_eq!(gpu_abilities(&info, false), GpuAbilities::default(), "another machine's engine has other devices");
        assert_eq!(gpu_abilities(&SystemInfo::default(), true).cdi_uuids, Vec::<String>::new());
    }
}
