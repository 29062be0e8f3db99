//! Podman behind Docker's API, as root: the same jobs in the same box.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod docker_support;

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use docker_support::{in_time, shell, wait_for};
use fizz::clock::Clock;
use fizz::runtime::docker::DockerRuntime;
use fizz::runtime::{ContainerId, ContainerRuntime, ContainerSpec, ContainerStatus, PinnedImage, RuntimeError};
use fizz::wire::NodeId;
use futures_util::StreamExt as _;

/// A podman of the test's own: its storage, its socket, its settings.
struct Podman {
    folder: tempfile::TempDir,
    service: Child,
}

impl Podman {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = "[containers]\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]\n\
                        [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
        std::fs::write(folder.path().join("containers.conf"), settings).unwrap();
        let socket = format!("unix://{}", folder.path().join("socket").display());
        let service = Self::command(folder.path())
            .args(["system", "service", "--time=0", &socket])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .expect("this test needs podman: apt-get install podman");
        let podman = Self { folder, service };
        wait_for("podman", || std::os::unix::net::UnixStream::connect(podman.folder.path().join("socket")).is_ok());
        podman
    }

    fn command(folder: &Path) -> Command {
        // Its helpers leave files where they are started.
        let mut command = Command::new("podman");
        command.current_dir(folder);
        command.env("CONTAINERS_CONF", folder.join("containers.conf")).arg("--root").arg(folder.join("root"));
        command.arg("--runroot").arg(folder.join("run")).args(["--storage-driver", "vfs"]);
        command
    }

    fn address(&self) -> String {
        format!("unix://{}", self.folder.path().join("socket").display())
    }

    /// An image of this machine's static busybox, lent to jobs.
    async fn image(&self, runtime: &DockerRuntime) -> PinnedImage {
        let name = "localhost/fizz-test:busybox";
        let mut load = Self::command(self.folder.path())
            .args(["load", "-q"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        load.stdin.take().unwrap().write_all(&docker_support::lent_image(name)).unwrap();
        assert!(load.wait().unwrap().success());
        // By its id: podman gives what was loaded a digest as if a registry had it.
        let found =
            Self::command(self.folder.path()).args(["image", "inspect", "-f", "{{.Id}}", name]).output().unwrap();
        let id = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        runtime.ensure_image(&id, tokio::sync::mpsc::channel(1).0).await.unwrap()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = Self::command(self.folder.path()).args(["rm", "-f", "-a", "-t", "0"]).output();
        let _ = self.service.kill();
        let _ = self.service.wait();
        // Storage that is still mounted would keep the folder.
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let ours = self.folder.path().display().to_string();
        for path in mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| path.starts_with(&ours)) {
            let _ = Command::new("umount").args(["-l", path]).status();
        }
    }
}

async fn start(runtime: &DockerRuntime, spec: &ContainerSpec) -> ContainerId {
    let id = runtime.create(spec).await.unwrap();
    runtime.start(&id).await.unwrap();
    id
}

async fn said(runtime: &DockerRuntime, id: &ContainerId) -> String {
    let entries: Vec<_> = in_time(runtime.logs(id, 0).map(Result::unwrap).collect()).await;
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.bytes).into_owned()).collect()
}

#[tokio::test]
#[ignore = "needs podman"]
async fn podman_runs_a_job_in_the_same_box() {
    let podman = Podman::start();
    let runtime = DockerRuntime::connect(Some(&podman.address())).await.unwrap();
    assert_eq!(runtime.engine().await.unwrap().name, "podman");
    assert!(runtime.facts().podman && runtime.facts().seccomp);
    let image = podman.image(&runtime).await;
    let node_id = NodeId::generate(Clock::system().now());

    let look = "id; pwd; echo $HOME; cat /proc/self/status; cat /proc/self/limits; echo mine > /work/x && cat /work/x; \
                echo pic > /output/p; echo x > /etc/x; grep ' /tmp ' /proc/mounts; exit 3";
    let spec = ContainerSpec { output_path: Some("/output".to_owned()), ..shell(node_id, &image, look) };
    let id = start(&runtime, &spec).await;
    assert_eq!(in_time(runtime.wait(&id)).await.unwrap().code, 3);
    let seen = said(&runtime, &id).await;
    assert!(
        seen.contains("uid=65532 gid=65532") && seen.contains("\n/work\n/work\n") && seen.contains("\nmine\n"),
        "{seen}"
    );
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(seen.contains(line), "{line}: {seen}");
    }
    let open_files = seen.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert!(open_files.contains("16384                16384"), "{open_files}");
    assert!(seen.contains("noexec") && seen.contains("can't create /etc/x"), "{seen}");
    let tar: Vec<u8> = in_time(runtime.archive(&id, "/output").map(Result::unwrap).collect::<Vec<_>>()).await.concat();
    let mut archive = tar::Archive::new(tar.as_slice());
    let paths: Vec<_> = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    assert!(paths.contains(&Path::new("output/p").to_owned()), "{paths:?}");

    let used = runtime.disk_used(&id).await.unwrap();
    assert!(used.bytes >= 9, "{used:?}");
    assert_eq!(runtime.create(&spec).await.unwrap(), id, "a lease gets one container");
    assert_eq!(runtime.list(node_id).await.unwrap().len(), 1);
    runtime.remove(&id).await.unwrap();
    assert!(matches!(runtime.inspect(&id).await, Err(RuntimeError::NoSuchContainer)));
}

#[tokio::test]
#[ignore = "needs podman"]
async fn podman_freezes_stops_and_limits_a_job() {
    let podman = Podman::start();
    let runtime = DockerRuntime::connect(Some(&podman.address())).await.unwrap();
    let image = podman.image(&runtime).await;
    let node_id = NodeId::generate(Clock::system().now());

    let id = start(&runtime, &shell(node_id, &image, "echo ready; sleep 1000")).await;
    let first = in_time(runtime.logs(&id, 0).next()).await.unwrap().unwrap();
    assert_eq!(first.bytes, &b"ready\n"[..]);
    runtime.pause(&id).await.unwrap();
    assert!(matches!(runtime.inspect(&id).await.unwrap(), ContainerStatus::Paused { .. }));
    runtime.unpause(&id).await.unwrap();
    in_time(runtime.stop(&id, Duration::from_secs(5))).await.unwrap();
    assert_eq!(in_time(runtime.wait(&id)).await.unwrap().code, 143);

    let mut hungry = shell(node_id, &image, "tail -c 200000000 /dev/zero > /dev/null; exit $?");
    hungry.memory_bytes = 16 << 20;
    let id = start(&runtime, &hungry).await;
    assert_eq!(in_time(runtime.wait(&id)).await.unwrap().code, 137);
    let mut forks = shell(node_id, &image, "for i in $(seq 1 200); do sleep 30 & done; echo all started");
    forks.pids_max = 20;
    let id = start(&runtime, &forks).await;
    in_time(runtime.wait(&id)).await.unwrap();
    assert!(said(&runtime, &id).await.contains("fork"));
}
