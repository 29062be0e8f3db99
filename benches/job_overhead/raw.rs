//! The same container without Fizz: through the API, and through the command line.

use std::process::Stdio;
use std::time::Duration;

use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::WaitContainerOptionsBuilder;
use fizz::clock::Clock;
use fizz::runtime::docker::DockerRuntime;
use fizz::runtime::{ContainerRuntime as _, ContainerSpec};
use fizz::wire::{LeaseId, NodeId};
use futures_util::StreamExt as _;

use crate::{Outcome, Task};

/// A client of its own, and the body of the container that Fizz would make.
pub struct Raw {
    docker: Docker,
    body: ContainerCreateBody,
}

impl Raw {
    /// Lets Fizz make one container and copies what it asked the engine for.
    pub async fn new(fizz: &DockerRuntime, task: &Task) -> Outcome<Self> {
        let docker = Docker::connect_with_host(fizz.address())?;
        let now = Clock::system().now();
        let spec = ContainerSpec {
            command: task.command.clone(),
            memory_bytes: 512 << 20,
            pids_max: 512,
            log_bytes_max: 16 << 20,
            ..ContainerSpec::new(NodeId::generate(now), LeaseId::generate(now), task.image_id.clone())
        };
        let id = fizz.create(&spec).await?;
        let found = docker.inspect_container(&id.0, None).await?;
        fizz.remove(&id).await?;
        let body = ContainerCreateBody {
            image: Some(task.image_id.clone()),
            cmd: Some(task.command.clone()),
            host_config: found.host_config,
            ..ContainerCreateBody::default()
        };
        Ok(Self { docker, body })
    }

    /// Create, start, wait.
    pub async fn by_api(&self, clock: &Clock) -> Outcome<Duration> {
        let begin = clock.steady();
        let id = self.docker.create_container(None, self.body.clone()).await?.id;
        self.docker.start_container(&id, None).await?;
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        let end = self.docker.wait_container(&id, Some(options)).boxed().next().await;
        let took = clock.steady().since(begin);
        end.ok_or("the engine hung up")??;
        self.docker.remove_container(&id, None).await?;
        Ok(took)
    }

    /// `docker run` with the same limits.
    pub async fn by_cli(&self, task: &Task, clock: &Clock) -> Outcome<Duration> {
        let name = format!("fizz-bench-{}", std::process::id());
        let mut run = tokio::process::Command::new("docker");
        run.args(["run", "--name", &name, "--network=none", "--ipc=private", "--init", "--cap-drop=ALL"]);
        run.args(["--security-opt=no-new-privileges", "--cpus=1", "--memory=512m", "--memory-swap=512m"]);
        run.args(["--pids-limit=512", "--log-driver=local"]).arg(&task.image_id).args(&task.command);
        let begin = clock.steady();
        let status = run.stdout(Stdio::null()).status().await?;
        let took = clock.steady().since(begin);
        self.docker.remove_container(&name, None).await?;
        if status.success() { Ok(took) } else { Err(format!("docker run ended with {status}").into()) }
    }
}
