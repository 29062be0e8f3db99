//! What an engine may vouch for: ends of containers whose whole life it has seen, and no others.

use std::path::Path;

use fizz::clock::Clock;
use fizz::runtime::docker::DockerRuntime;
use fizz::runtime::{ContainerExit, ContainerId, ContainerRuntime, ContainerSpec};
use fizz::wire::{LeaseId, NodeId};
use tokio::sync::mpsc;

use crate::engine::Engine;
use crate::process_support::until;
use crate::tally::job_processes;

const IMAGE: &str = "fizz-witness:1";

pub(crate) fn play(folder: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut engine = Engine::new(folder);
        engine.start().await;
        engine.import(IMAGE);
        let docker = DockerRuntime::connect(Some(&engine.address())).await.unwrap();

        let (seen, exit) = ended(&docker, &started(&docker, "echo start; sleep 0.2; exit 3").await).await;
        assert_eq!((docker.witnessed(&seen, &exit).await.unwrap(), exit.code), (true, 3));
        let killed = started(&docker, "sleep 600").await;
        engine.lines(&["kill", &killed.0]);
        let (killed, exit_of_killed) = ended(&docker, &killed).await;
        assert!(!docker.witnessed(&killed, &exit_of_killed).await.unwrap(), "it knows who ended it");

        let unseen = started(&docker, "echo start; sleep 2; exit 0").await;
        engine.kill();
        until("the end that nobody sees", async || (job_processes() == 0).then_some(())).await;
        engine.start().await;
        let (unseen, exit_unseen) = ended(&docker, &unseen).await;
        assert!(!docker.witnessed(&unseen, &exit_unseen).await.unwrap(), "{exit_unseen:?}");
        // What it knew went with it.
        assert!(!docker.witnessed(&seen, &exit).await.unwrap());
    });
}

async fn started(docker: &DockerRuntime, script: &str) -> ContainerId {
    let now = Clock::system().now();
    let image = docker.ensure_image(IMAGE, mpsc::channel(1).0).await.unwrap();
    let mut spec = ContainerSpec::new(NodeId::generate(now), LeaseId::generate(now), image.image_id);
    spec.command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let id = docker.create(&spec).await.unwrap();
    docker.start(&id).await.unwrap();
    id
}

async fn ended(docker: &DockerRuntime, id: &ContainerId) -> (ContainerId, ContainerExit) {
    (id.clone(), docker.wait(id).await.unwrap())
}
