//! What happens to leases when the engine itself has a bad day: a private engine that is stopped, killed, or has a full disk.
//!
//! The engine runs in a network namespace of its own and keeps everything in a small memory disk, so it needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod docker_support;

use std::process::Command;

use docker_support::lease_bench::{LeaseBench, end};
use docker_support::own_engine::OwnEngine;
use docker_support::{TestImage, TestNode, docker, in_time, shell};
use fizz::clock::Clock;
use fizz::runtime::docker::DockerRuntime;
use fizz::runtime::{ContainerRuntime, RuntimeError};
use fizz::wire::NodeId;
use fizz::wire::lease::{FailureKind, LeaseEnd};
use serde_json::json;

/// A small disk in memory for everything that an engine stores.
struct MemoryDisk(tempfile::TempDir);

impl MemoryDisk {
    fn mount(mebibytes: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).status().unwrap();
        assert!(mounted.success(), "this test mounts a memory disk, so it needs root");
        Self(folder)
    }
}

impl Drop for MemoryDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_full_disk_of_the_engine_is_called_by_its_name() {
    let disk = MemoryDisk::mount(32);
    let engine = OwnEngine::start(disk.0.path(), &[]);
    let image = TestImage::new();
    engine.take(&image);
    let runtime = DockerRuntime::connect(Some(&engine.address())).await.unwrap();
    let pinned = image.pin(&runtime).await;
    let filler = vec![0_u8; 40 << 20];
    assert!(std::fs::write(disk.0.path().join("filler"), filler).is_err(), "the disk is full now");
    let error =
        in_time(runtime.create(&shell(NodeId::generate(Clock::system().now()), &pinned, "true"))).await.unwrap_err();
    assert!(matches!(error, RuntimeError::NoSpace { .. }), "{error:?}");
    assert!(error.to_string().contains("docker system df"), "{error}");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_job_whose_engine_is_stopped_or_killed_and_started_again_is_given_back_and_never_run_twice() {
    for signal in ["-KILL", "-TERM"] {
        let disk = MemoryDisk::mount(64);
        let mut engine = OwnEngine::start(disk.0.path(), &[]);
        let bench = LeaseBench::at(Some(&engine.address())).await;
        engine.take(&bench.image);
        let resources = json!({"cpu_millis": 1000, "memory_bytes": 64 << 20, "disk_bytes": 0});
        let service = bench.service("main", "echo ready; sleep 1000", json!({"resources": resources}));
        let lease = LeaseBench::lease_of(vec![service]);
        let mut handle = bench.spawn(&lease);
        bench.received(&lease, |received| !received.log.is_empty()).await;
        engine.down(signal);
        let noticed = handle.snapshot.wait_for(|snapshot| snapshot.detail.contains("no container engine answers"));
        in_time(noticed).await.unwrap();
        engine.up();
        in_time(handle.done).await.unwrap();
        let received = bench.port.received(lease.lease_id);
        let end = end(&received);
        assert!(matches!(end, LeaseEnd::Failed { why: FailureKind::EngineUnavailable, .. }), "{signal}: {end:?}");
        assert!(end.retries_elsewhere());
        assert_eq!(received.text(fizz::wire::logs::LogStream::Stdout), b"ready\n", "{signal}");
        assert_eq!(engine.docker(&["ps", "-aq"]).as_deref(), Some(""), "{signal}: nothing is left behind");
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn what_a_broken_probe_left_is_removed_and_another_nodes_is_not() {
    let (own, other) = (TestNode::new(), TestNode::new());
    let runtime = DockerRuntime::connect(None).await.unwrap();
    for node in [&own, &other] {
        let (label, name) = (format!("io.fizz.node={}", node.node_id), format!("fizz-probe-{}", node.node_id));
        docker(&["network", "create", "--internal", "--label", &label, "--label", "io.fizz.probe=1", &name]);
    }
    let left = |node: &TestNode| {
        let filter = format!("label=io.fizz.node={}", node.node_id);
        docker(&["network", "ls", "--quiet", "--filter", &filter]).lines().count()
    };
    assert_eq!((left(&own), left(&other)), (1, 1));
    in_time(runtime.remove_leftovers(own.node_id)).await.unwrap();
    assert_eq!((left(&own), left(&other)), (0, 1));
    in_time(runtime.remove_leftovers(other.node_id)).await.unwrap();
}
