//! Separations beyond the plain one, and what is stripped from a container's variables, over real engines.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod docker_support;

use std::process::Command;

use docker_support::own_engine::OwnEngine;
use docker_support::{TestImage, TestNode, docker_output, ran, shell};
use fizz::config::{Ceiling, SandboxConfig};
use fizz::runtime::docker::{DockerOptions, DockerRuntime};
use fizz::runtime::{ContainerRuntime, ContainerSpec, RuntimeError};
use fizz::wire::Secret;
use fizz::wire::job::Isolation;

async fn open(address: Option<String>, isolation: Isolation) -> DockerRuntime {
    let sandbox = SandboxConfig { isolation, ..SandboxConfig::default() };
    let ceiling = Ceiling { sandbox, ..Ceiling::default() };
    DockerRuntime::open(DockerOptions { address, ceiling, ..DockerOptions::default() }).await.unwrap()
}

#[tokio::test]
#[ignore = "needs gVisor"]
async fn gvisor_is_offered_where_it_works_and_gives_a_job_a_kernel_of_its_own() {
    // Without control groups and virtualisation, as some machines are; a runtime that is named and broken is not offered.
    let runtimes = serde_json::json!({"runtimes": {
        "runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--platform=ptrace", "--network=none", "--ignore-cgroups"]},
        "kata": {"path": "/bin/false"},
    }});
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("daemon.json");
    std::fs::write(&settings, runtimes.to_string()).unwrap();
    let engine = OwnEngine::start(folder.path(), &["--config-file", settings.to_str().unwrap()]);
    let runtime = open(Some(engine.address()), Isolation::Container).await;
    assert_eq!(runtime.isolation(), [Isolation::Container, Isolation::Gvisor]);

    let image = TestImage::new();
    engine.take(&image);
    let pinned = image.pin(&runtime).await;
    let node = TestNode::new();
    let mut spec = shell(node.node_id, &pinned, "busybox uname -r; busybox dmesg 2>/dev/null | head -n 1");
    let here = ran(&runtime, &spec).await;
    let outside = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(here.starts_with(outside.trim()), "{here}");

    spec = ContainerSpec {
        isolation: Some(Isolation::Gvisor),
        lease_id: shell(node.node_id, &pinned, "").lease_id,
        ..spec
    };
    let inside = ran(&runtime, &spec).await;
    assert!(!inside.contains(outside.trim()) && inside.contains("gVisor"), "{inside}");

    spec =
        ContainerSpec { isolation: Some(Isolation::Kata), lease_id: shell(node.node_id, &pinned, "").lease_id, ..spec };
    let refused = runtime.create(&spec).await.unwrap_err();
    assert!(matches!(refused, RuntimeError::NoIsolation { .. }), "{refused}");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_job_that_asks_for_more_than_the_engine_gives_is_refused_before_anything_is_made() {
    let runtime = open(None, Isolation::Container).await;
    let (image, node) = (TestImage::new(), TestNode::new());
    let pinned = image.pin(&runtime).await;
    let spec = ContainerSpec { isolation: Some(Isolation::Kata), ..shell(node.node_id, &pinned, "true") };
    let refused = runtime.create(&spec).await.unwrap_err();
    assert!(matches!(refused, RuntimeError::NoIsolation { .. }), "{refused}");
    assert!(runtime.list(node.node_id).await.unwrap().is_empty());
    let strict = open(None, Isolation::Kata).await;
    assert_eq!(strict.isolation(), []);
    assert!(strict.create(&shell(node.node_id, &pinned, "true")).await.is_err(), "the owner wants it for every job");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn variables_for_the_toolkit_reach_a_container_neither_from_its_image_nor_from_its_job() {
    let runtime = open(None, Isolation::Container).await;
    let (base, node) = (TestImage::new(), TestNode::new());
    let name = format!("{}-env", base.name);
    let mut build = Command::new("sh");
    build.arg("-c").arg(format!(
        "printf 'FROM {}\\nENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_REQUIRE_CUDA=x KEPT=image\\nLABEL io.fizz.shared=true\\n' \
         | DOCKER_BUILDKIT=0 docker build -q -t {name} -",
        base.name
    ));
    let output = build.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pinned = runtime.ensure_image(&name, tokio::sync::mpsc::channel(1).0).await.unwrap();
    let mut spec = shell(node.node_id, &pinned, "env");
    spec.env = vec![
        ("NVIDIA_DRIVER_CAPABILITIES".to_owned(), Secret::new("all".to_owned())),
        ("ALSO_KEPT".to_owned(), Secret::new("job".to_owned())),
    ];
    let env = ran(&runtime, &spec).await;
    docker_output(&["rmi", "-f", &name]);
    assert!(env.contains("KEPT=image") && env.contains("ALSO_KEPT=job"), "{env}");
    assert!(!env.contains("NVIDIA"), "{env}");
    // What it would have seen otherwise is what Docker itself hands over.
    let plain =
        docker_output(&["run", "--rm", "--network", "none", "-e", "NVIDIA_DRIVER_CAPABILITIES=all", &base.name, "env"]);
    assert!(String::from_utf8_lossy(&plain.stdout).contains("NVIDIA_DRIVER_CAPABILITIES=all"));
}
