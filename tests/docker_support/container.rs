//! Containers of a test: what they run, what they said, and that none is left.

use fizz::clock::Clock;
use fizz::runtime::{ContainerId, ContainerRuntime, ContainerSpec, PinnedImage};
use fizz::wire::{LeaseId, NodeId};
use futures_util::TryStreamExt as _;

use super::{docker, docker_output, in_time};

/// A node of a test; its containers are removed when it is dropped.
pub(crate) struct TestNode {
    pub(crate) node_id: NodeId,
}

impl TestNode {
    pub(crate) fn new() -> Self {
        Self { node_id: NodeId::generate(Clock::system().now()) }
    }
}

impl TestNode {
    /// The one node that a coordinator knows, as soon as it does.
    pub(crate) async fn of(api: &fizz::http::ApiClient, admin: &fizz::wire::Secret) -> Self {
        in_time(async {
            loop {
                let nodes = api.get("/v1/admin/nodes").bearer(admin);
                let nodes: fizz::wire::node::NodeList = nodes.receive().await.unwrap();
                if let Some(node) = nodes.nodes.first() {
                    return Self { node_id: node.node_id };
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        let filter = format!("label=io.fizz.node={}", self.node_id);
        let ids = docker(&["ps", "-aq", "--filter", &filter]);
        for id in ids.lines() {
            docker_output(&["rm", "-f", id]);
        }
        for id in docker(&["network", "ls", "-q", "--filter", &filter]).lines() {
            docker_output(&["network", "rm", id]);
        }
    }
}

/// A container that runs a shell line.
pub(crate) fn shell(node: NodeId, image: &PinnedImage, line: &str) -> ContainerSpec {
    spec(node, image, &["/bin/sh", "-c", line])
}

/// A container that runs a command.
pub(crate) fn spec(node: NodeId, image: &PinnedImage, command: &[&str]) -> ContainerSpec {
    ContainerSpec {
        generation: 7,
        command: command.iter().map(|&word| word.to_owned()).collect(),
        settings: image.settings.clone(),
        ..ContainerSpec::new(node, LeaseId::generate(Clock::system().now()), image.image_id.clone())
    }
}

/// Makes and starts a container.
pub(crate) async fn start(runtime: &dyn ContainerRuntime, spec: &ContainerSpec) -> ContainerId {
    let id = runtime.create(spec).await.unwrap();
    runtime.start(&id).await.unwrap();
    id
}

/// What a container wrote until its end; to which of its streams, and in which order between them, is not told.
pub(crate) async fn said(runtime: &dyn ContainerRuntime, id: &ContainerId) -> String {
    in_time(runtime.wait(id)).await.unwrap();
    let pieces: Vec<_> = in_time(runtime.logs(id, 0).try_collect()).await.unwrap();
    pieces.iter().map(|piece| String::from_utf8_lossy(&piece.bytes).into_owned()).collect()
}

/// Runs a container to its end and answers what it wrote.
pub(crate) async fn ran(runtime: &dyn ContainerRuntime, spec: &ContainerSpec) -> String {
    said(runtime, &start(runtime, spec).await).await
}
