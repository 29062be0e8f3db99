//! What happens to leases when the engine itself has a bad day: a private engine that is stopped, killed, or has a full disk.
//!
//! The engine runs in a network namespace of its own and keeps everything in a small memory disk, so it needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod docker_support;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use docker_support::{TestImage, in_time, shell, wait_for};
use fizz::agent::journal::Journal;
use fizz::clock::Clock;
use fizz::job::fake::FakePort;
use fizz::job::images::{ImagePolicy, Images, Logins};
use fizz::job::runner::{RunnerDeps, spawn};
use fizz::runtime::docker::DockerRuntime;
use fizz::runtime::{ContainerRuntime, RuntimeError};
use fizz::wire::lease::{Assignment, Desired, FailureKind, LeaseEnd};
use fizz::wire::{Generation, JobId, LeaseId, NodeId};

/// An engine of our own.
struct PrivateEngine {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl PrivateEngine {
    /// With so much room for everything it stores.
    fn start(mebibytes: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).status().unwrap();
        assert!(mounted.success(), "this test mounts a memory disk, so it needs root");
        let mut engine = Self { folder, child: None };
        engine.up();
        engine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn address(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    fn up(&mut self) {
        // Killed processes may stay as zombies where nobody reaps them; their pid files would stop the next start.
        for stale in ["pid", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(self.path(stale));
        }
        // The namespace is entered by exec, so the child is the engine itself.
        let child = Command::new("unshare")
            .args(["-n", "dockerd", "--bridge=none", "--iptables=false", "-H", &self.address()])
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .arg("--pidfile")
            .arg(self.path("pid"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        wait_for("the private engine", || self.docker(&["version"]).is_some());
    }

    /// Ends the engine with a signal and waits for its end.
    fn down(&mut self, signal: &str) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").args([signal, &child.id().to_string()]).status();
            let _ = child.wait();
        }
    }

    fn docker(&self, args: &[&str]) -> Option<String> {
        let output = Command::new("docker").args(["-H", &self.address()]).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same image in this engine.
    fn take(&self, image: &TestImage) {
        let mut save = Command::new("docker").args(["save", &image.name]).stdout(Stdio::piped()).spawn().unwrap();
        let load = Command::new("docker")
            .args(["-H", &self.address(), "load", "-q"])
            .stdin(save.stdout.take().unwrap())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(load.success() && save.wait().unwrap().success());
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        self.down("-TERM");
        // An engine that was killed leaves its containerd behind.
        if let Ok(pid) = std::fs::read_to_string(self.path("exec/containerd/containerd.pid")) {
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_full_disk_of_the_engine_is_called_by_its_name() {
    let engine = PrivateEngine::start(32);
    let image = TestImage::new();
    engine.take(&image);
    let runtime = DockerRuntime::connect(Some(&engine.address())).await.unwrap();
    let pinned = image.pin(&runtime).await;
    let filler = vec![0_u8; 40 << 20];
    assert!(std::fs::write(engine.path("filler"), filler).is_err(), "the disk is full now");
    let error =
        in_time(runtime.create(&shell(NodeId::generate(Clock::system().now()), &pinned, "true"))).await.unwrap_err();
    assert!(matches!(error, RuntimeError::NoSpace { .. }), "{error:?}");
    assert!(error.to_string().contains("docker system df"), "{error}");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_job_whose_engine_is_stopped_or_killed_and_started_again_is_given_back_and_never_run_twice() {
    for signal in ["-KILL", "-TERM"] {
        let mut engine = PrivateEngine::start(64);
        let image = TestImage::new();
        engine.take(&image);
        let folder = tempfile::tempdir().unwrap();
        let (clock, port) = (Clock::system(), FakePort::default());
        let journal = Journal::open(&folder.path().join("state.sqlite")).await.unwrap();
        let deps = RunnerDeps {
            gpus: fizz::job::gpus::Gpus::default(),
            runtime: Arc::new(DockerRuntime::connect(Some(&engine.address())).await.unwrap()),
            port: Arc::new(port.clone()),
            images: Images::new(journal.clone(), Clock::system(), ImagePolicy::default(), Logins::default()),
            journal,
            node_id: NodeId::generate(clock.now()),
            clock,
            spool_dir: folder.path().to_owned(),
        };
        let lease = lease(&image);
        let mut handle = spawn(deps, lease.clone(), Vec::new());
        in_time(port.until(lease.lease_id, |received| !received.log.is_empty())).await;
        engine.down(signal);
        let noticed = handle.snapshot.wait_for(|snapshot| snapshot.detail.contains("no container engine answers"));
        in_time(noticed).await.unwrap();
        engine.up();
        in_time(handle.done).await.unwrap();
        let received = port.received(lease.lease_id);
        let (end, _) = received.end().unwrap();
        assert!(matches!(end, LeaseEnd::Failed { why: FailureKind::EngineUnavailable, .. }), "{signal}: {end:?}");
        assert!(end.retries_elsewhere());
        assert_eq!(received.text(fizz::wire::logs::LogStream::Stdout), b"ready\n", "{signal}");
        assert_eq!(engine.docker(&["ps", "-aq"]).as_deref(), Some(""), "{signal}: nothing is left behind");
    }
}

fn lease(image: &TestImage) -> Assignment {
    let now = Clock::system().now();
    let spec = serde_json::json!({
        "services": [{
            "name": "main", "image": image.name, "command": ["/bin/sh", "-c", "echo ready; sleep 1000"],
            "resources": {"cpu_millis": 1000, "memory_bytes": 64 << 20, "disk_bytes": 0},
        }],
        "limits": {"price_max": 1, "duration_seconds_max": 600},
    });
    Assignment {
        lease_id: LeaseId::generate(now),
        job_id: JobId::generate(now),
        generation: Generation(1),
        desired: Desired::Run,
        rate: 5.try_into().unwrap(),
        spec: serde_json::from_value(spec).unwrap(),
    }
}
