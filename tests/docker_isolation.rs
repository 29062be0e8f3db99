//! Separations beyond the plain one, and what is stripped from a container's variables, over real engines.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod docker_support;

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use docker_support::{TestImage, TestNode, docker_output, in_time, shell, wait_for};
use fizz::config::{Ceiling, SandboxConfig};
use fizz::runtime::docker::{DockerOptions, DockerRuntime};
use fizz::runtime::{ContainerRuntime, ContainerSpec, RuntimeError};
use fizz::wire::Secret;
use fizz::wire::job::Isolation;
use futures_util::StreamExt as _;

/// An engine of this test's own, in a network of its own, with these runtimes.
struct OwnEngine {
    child: Child,
    folder: tempfile::TempDir,
}

impl OwnEngine {
    fn start(runtimes: &serde_json::Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("daemon.json"), serde_json::json!({ "runtimes": runtimes }).to_string()).unwrap();
        let mut command = Command::new("unshare");
        command.args(["-n", "dockerd", "--bridge=none", "--iptables=false", "--config-file"]).arg(at("daemon.json"));
        command.arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec")).arg("--pidfile").arg(at("pid"));
        command.arg("--host").arg(format!("unix://{}", at("docker.sock").display()));
        command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let engine = Self { child: command.spawn().unwrap(), folder };
        wait_for("the engine of this test", || engine.socket().exists());
        engine
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        let host = self.address();
        let ids = docker_output(&["-H", &host, "ps", "-aq"]);
        for id in String::from_utf8_lossy(&ids.stdout).lines() {
            docker_output(&["-H", &host, "rm", "-f", id]);
        }
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-TERM", "--", &group]).status();
        let _ = self.child.wait();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for mount in ours.filter(|path| path.starts_with(self.folder.path().to_str().unwrap())) {
            let _ = Command::new("umount").args(["-l", mount]).status();
        }
    }
}

async fn open(address: Option<String>, isolation: Isolation) -> DockerRuntime {
    let sandbox = SandboxConfig { isolation, ..SandboxConfig::default() };
    let ceiling = Ceiling { sandbox, ..Ceiling::default() };
    DockerRuntime::open(DockerOptions { address, ceiling, ..DockerOptions::default() }).await.unwrap()
}

/// Runs it to its end and answers what it said.
async fn said(runtime: &DockerRuntime, spec: &ContainerSpec) -> String {
    let id = runtime.create(spec).await.unwrap();
    runtime.start(&id).await.unwrap();
    in_time(runtime.wait(&id)).await.unwrap();
    let bytes: Vec<u8> =
        runtime.logs(&id, 0).flat_map(|entry| futures_util::stream::iter(entry.unwrap().bytes)).collect().await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
#[ignore = "needs gVisor"]
async fn gvisor_is_offered_where_it_works_and_gives_a_job_a_kernel_of_its_own() {
    // Without control groups and virtualisation, as some machines are; a runtime that is named and broken is not offered.
    let engine = OwnEngine::start(&serde_json::json!({
        "runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--platform=ptrace", "--network=none", "--ignore-cgroups"]},
        "kata": {"path": "/bin/false"},
    }));
    let runtime = open(Some(engine.address()), Isolation::Container).await;
    assert_eq!(runtime.isolation(), [Isolation::Container, Isolation::Gvisor]);

    let image = TestImage::new();
    let saved = Command::new("docker").args(["save", &image.name]).output().unwrap().stdout;
    let id = runtime.import_image(saved.into(), &image.name).await.unwrap();
    let pinned = runtime.ensure_image(&id, tokio::sync::mpsc::channel(1).0).await.unwrap();
    let node = TestNode::new();
    let mut spec = shell(node.node_id, &pinned, "busybox uname -r; busybox dmesg | head -n 1");
    let here = said(&runtime, &spec).await;
    let outside = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(here.starts_with(outside.trim()), "{here}");

    spec = ContainerSpec {
        isolation: Some(Isolation::Gvisor),
        lease_id: shell(node.node_id, &pinned, "").lease_id,
        ..spec
    };
    let inside = said(&runtime, &spec).await;
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
    let env = said(&runtime, &spec).await;
    docker_output(&["rmi", "-f", &name]);
    assert!(env.contains("KEPT=image") && env.contains("ALSO_KEPT=job"), "{env}");
    assert!(!env.contains("NVIDIA"), "{env}");
    // What it would have seen otherwise is what Docker itself hands over.
    let plain =
        docker_output(&["run", "--rm", "--network", "none", "-e", "NVIDIA_DRIVER_CAPABILITIES=all", &base.name, "env"]);
    assert!(String::from_utf8_lossy(&plain.stdout).contains("NVIDIA_DRIVER_CAPABILITIES=all"));
}
