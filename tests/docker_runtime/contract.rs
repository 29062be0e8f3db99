//! What every container runtime must do: a real Docker and the fake one keep the same contract.

use std::time::Duration;

use fizz::clock::Clock;
use fizz::runtime::fake::{FakeImage, FakeRuntime, Step};
use fizz::runtime::network::{ContainerNetwork, LeaseNetworkSpec};
use fizz::runtime::{ContainerId, ContainerRuntime, ContainerSpec, ContainerStatus, PinnedImage, RuntimeError};
use fizz::wire::NodeId;
use fizz::wire::job::Reach;
use fizz::wire::logs::LogStream;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::docker_support::{TestImage, TestNode, in_time, shell, start};
use super::{engine, entries, exit, text};

const HELLO: &str = "echo out; echo err >&2; exit 3";
const HOLD: &str = "echo ready; sleep 1000";
const DEAF: &str = "trap '' TERM; echo ready; sleep 1000";
const FILES: &str = "mkdir -p /out/deep; printf picture > /out/deep/a.txt";

async fn ready(runtime: &dyn ContainerRuntime, id: &ContainerId) {
    let first = in_time(runtime.logs(id, 0).next()).await.unwrap().unwrap();
    assert_eq!(first.bytes, &b"ready\n"[..]);
}

/// What every runtime must do.
async fn keeps_the_contract(runtime: &dyn ContainerRuntime, node_id: NodeId, image: &PinnedImage) {
    runtime.engine().await.unwrap();
    creating_twice_makes_one(runtime, node_id, image).await;
    an_ended_container_stays_and_is_not_started_again(runtime, node_id, image).await;
    logs_can_be_read_again_from_any_point(runtime, node_id, image).await;
    stopping_asks_first_and_then_kills(runtime, node_id, image).await;
    freezing_holds_a_container_and_a_frozen_one_can_be_stopped(runtime, node_id, image).await;
    folders_come_as_tar(runtime, node_id, image).await;
    what_is_gone_is_gone(runtime, node_id, image).await;
    events_wake(runtime, node_id, image).await;
    a_lease_has_one_network_and_it_goes_after_its_container(runtime, node_id, image).await;
    let missing = runtime.ensure_image(&format!("sha256:{}", "0".repeat(64)), mpsc::channel(1).0).await;
    assert!(matches!(missing, Err(RuntimeError::ImageNotFound { .. })), "{missing:?}");
}

async fn a_lease_has_one_network_and_it_goes_after_its_container(
    runtime: &dyn ContainerRuntime,
    node_id: NodeId,
    image: &PinnedImage,
) {
    let mut spec = shell(node_id, image, HOLD);
    let wanted =
        LeaseNetworkSpec { node_id, lease_id: spec.lease_id, generation: 7, reach: Reach::None, domains: Vec::new() };
    let network = runtime.ensure_network(&wanted).await.unwrap();
    assert_eq!(runtime.ensure_network(&wanted).await.unwrap(), network, "asked for twice, made once");
    assert_eq!((network.lease_id, network.generation, network.reach), (spec.lease_id, 7, Reach::None));
    spec.network = ContainerNetwork::Lease { network: network.id.clone(), aliases: vec!["main".to_owned()] };
    let id = start(runtime, &spec).await;
    let address = runtime.address(&id).await.unwrap().expect("a running container on a network has an address");
    assert!(network.subnet.unwrap().contains(address), "{address}");
    assert!(runtime.networks(node_id).await.unwrap().contains(&network));
    assert!(runtime.networks(NodeId::generate(Clock::system().now())).await.unwrap().is_empty());
    assert!(runtime.remove_network(&network.id).await.is_err(), "its container is on it");
    runtime.remove(&id).await.unwrap();
    runtime.remove_network(&network.id).await.unwrap();
    runtime.remove_network(&network.id).await.unwrap();
    assert!(runtime.networks(node_id).await.unwrap().is_empty());
    let unknown = LeaseNetworkSpec { reach: Reach::Unknown, ..wanted };
    assert!(matches!(runtime.ensure_network(&unknown).await, Err(RuntimeError::InvalidSpec { .. })));
}

async fn creating_twice_makes_one(runtime: &dyn ContainerRuntime, node_id: NodeId, image: &PinnedImage) {
    let spec = shell(node_id, image, HELLO);
    runtime.create(&spec).await.unwrap();
    // Whether it is the same one is the engine's affair, as long as it never ran: one that is new may be made anew.
    runtime.create(&spec).await.unwrap();
    let owned = runtime.list(node_id).await.unwrap();
    let found: Vec<_> = owned.iter().filter(|container| container.lease_id == spec.lease_id).collect();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].generation, &found[0].status), (7, &ContainerStatus::Created));
    let other = runtime.list(NodeId::generate(Clock::system().now())).await.unwrap();
    assert!(other.is_empty(), "another node's containers are not ours");
}

async fn an_ended_container_stays_and_is_not_started_again(
    runtime: &dyn ContainerRuntime,
    node_id: NodeId,
    image: &PinnedImage,
) {
    let id = start(runtime, &shell(node_id, image, HELLO)).await;
    let exit = exit(runtime, &id).await;
    assert_eq!((exit.code, exit.out_of_memory), (3, false));
    assert!(exit.ended_at >= exit.started_at);
    runtime.start(&id).await.unwrap();
    runtime.stop(&id, Duration::from_secs(1)).await.unwrap();
    assert_eq!(runtime.inspect(&id).await.unwrap(), ContainerStatus::Exited(exit));
}

async fn logs_can_be_read_again_from_any_point(runtime: &dyn ContainerRuntime, node_id: NodeId, image: &PinnedImage) {
    let id = start(runtime, &shell(node_id, image, HELLO)).await;
    let all = entries(runtime, &id, 0).await;
    assert_eq!(text(&all, LogStream::Stdout), b"out\n");
    assert_eq!(text(&all, LogStream::Stderr), b"err\n");
    exit(runtime, &id).await;
    let again = entries(runtime, &id, 0).await;
    assert_eq!(again, all);
    let newest = all.iter().map(|entry| entry.at_nanos).max().unwrap();
    let tail = entries(runtime, &id, newest).await;
    assert!(!tail.is_empty() && tail.iter().all(|entry| entry.at_nanos >= newest));
    assert!(entries(runtime, &id, newest + 3_000_000_000).await.is_empty());
}

async fn stopping_asks_first_and_then_kills(runtime: &dyn ContainerRuntime, node_id: NodeId, image: &PinnedImage) {
    for (line, code) in [(HOLD, 143), (DEAF, 137)] {
        let id = start(runtime, &shell(node_id, image, line)).await;
        assert!(matches!(runtime.inspect(&id).await.unwrap(), ContainerStatus::Running { .. }));
        ready(runtime, &id).await;
        in_time(runtime.stop(&id, Duration::from_secs(1))).await.unwrap();
        assert_eq!(exit(runtime, &id).await.code, code, "{line}");
    }
}

async fn freezing_holds_a_container_and_a_frozen_one_can_be_stopped(
    runtime: &dyn ContainerRuntime,
    node_id: NodeId,
    image: &PinnedImage,
) {
    let id = start(runtime, &shell(node_id, image, HOLD)).await;
    ready(runtime, &id).await;
    runtime.pause(&id).await.unwrap();
    assert!(matches!(runtime.inspect(&id).await.unwrap(), ContainerStatus::Paused { .. }));
    runtime.unpause(&id).await.unwrap();
    assert!(matches!(runtime.inspect(&id).await.unwrap(), ContainerStatus::Running { .. }));
    runtime.pause(&id).await.unwrap();
    in_time(runtime.stop(&id, Duration::from_secs(5))).await.unwrap();
    assert_eq!(exit(runtime, &id).await.code, 143);
    assert!(runtime.pause(&id).await.is_err(), "what has ended cannot be frozen");
}

async fn folders_come_as_tar(runtime: &dyn ContainerRuntime, node_id: NodeId, image: &PinnedImage) {
    let spec = ContainerSpec { output_path: Some("/out".to_owned()), ..shell(node_id, image, FILES) };
    let id = start(runtime, &spec).await;
    exit(runtime, &id).await;
    let pieces: Vec<_> = in_time(runtime.archive(&id, "/out").map(Result::unwrap).collect()).await;
    let tar: Vec<u8> = pieces.concat();
    let mut archive = tar::Archive::new(tar.as_slice());
    let paths: Vec<String> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned()).collect();
    assert!(paths.contains(&"out/deep/a.txt".to_owned()), "{paths:?}");
    let missing = in_time(runtime.archive(&id, "/nowhere").next()).await.unwrap();
    assert!(matches!(missing, Err(RuntimeError::NoSuchPath { .. })), "{missing:?}");
}

async fn what_is_gone_is_gone(runtime: &dyn ContainerRuntime, node_id: NodeId, image: &PinnedImage) {
    let id = start(runtime, &shell(node_id, image, HOLD)).await;
    runtime.remove(&id).await.unwrap();
    runtime.remove(&id).await.unwrap();
    let gone = |result: Result<(), RuntimeError>| matches!(result, Err(RuntimeError::NoSuchContainer));
    assert!(gone(runtime.inspect(&id).await.map(drop)));
    assert!(gone(runtime.wait(&id).await.map(drop)));
    assert!(gone(runtime.start(&id).await));
    assert!(gone(runtime.stop(&id, Duration::ZERO).await));
    assert!(gone(in_time(runtime.logs(&id, 0).next()).await.unwrap().map(drop)));
}

async fn events_wake(runtime: &dyn ContainerRuntime, node_id: NodeId, image: &PinnedImage) {
    let mut events = runtime.events(node_id);
    let spec = shell(node_id, image, HELLO);
    let watch = tokio::spawn(async move { events.next().await });
    // The engine answers the subscription before or after; ends go on coming until one is seen.
    let mut seen = None;
    for _ in 0..20 {
        let spec = ContainerSpec { lease_id: fizz::wire::LeaseId::generate(Clock::system().now()), ..spec.clone() };
        let id = start(runtime, &spec).await;
        exit(runtime, &id).await;
        if watch.is_finished() {
            seen = watch.await.unwrap();
            break;
        }
    }
    assert!(seen.unwrap().is_ok());
}

#[tokio::test]
async fn the_fake_engine_keeps_the_contract() {
    let runtime = FakeRuntime::new(Clock::system());
    runtime.add_image("job", FakeImage::running([]));
    let command = |line| ["/bin/sh", "-c", line];
    runtime.add_script(&command(HELLO), [Step::line("out"), Step::Err(b"err\n".to_vec()), Step::Exit(3)]);
    runtime.add_script(&command(HOLD), [Step::line("ready"), Step::Hold]);
    runtime.add_script(&command(DEAF), [Step::IgnoreTerm, Step::line("ready"), Step::Hold]);
    runtime.add_script(&command(FILES), [Step::File("/out/deep/a.txt".into(), b"picture".to_vec())]);
    let image = runtime.ensure_image("job", mpsc::channel(1).0).await.unwrap();
    keeps_the_contract(&runtime, NodeId::generate(Clock::system().now()), &image).await;
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn docker_keeps_the_contract() {
    let (image, node, runtime) = (TestImage::new(), TestNode::new(), engine().await);
    let pinned = image.pin(&runtime).await;
    keeps_the_contract(&runtime, node.node_id, &pinned).await;
}
