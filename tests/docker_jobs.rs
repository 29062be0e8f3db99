//! Whole leases over a real Docker engine: the runner, its journal and its log, with a coordinator in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod docker_support;

use std::path::Path;
use std::time::Duration;

use docker_support::lease_bench::{LeaseBench, end};
use docker_support::{docker, in_time, resident_bytes, wait_for};
use fizz::job::runner::LeaseCommand;
use fizz::runtime::docker::DockerRuntime;
use fizz::runtime::{ContainerRuntime, ContainerStatus};
use fizz::wire::lease::{FailureKind, LeaseEnd, LeasePhase};
use fizz::wire::logs::LogStream;
use tempfile::TempDir;

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_job_hands_over_its_log_its_output_and_its_exit_code() {
    let bench = LeaseBench::new().await;
    let mut lease =
        bench.lease("echo out; printf '\\377\\n' >&2; mkdir -p /output/a; echo picture > /output/a/b; exit 5");
    lease.spec.output_path = Some("/output".to_owned());
    let received = bench.run(&lease).await;
    assert_eq!(end(&received), LeaseEnd::Exited { code: 5 });
    assert_eq!(received.text(LogStream::Stdout), b"out\n");
    assert_eq!(received.text(LogStream::Stderr), b"\xff\n");
    let tar = received.output.unwrap();
    let mut archive = tar::Archive::new(tar.as_slice());
    let names: Vec<_> = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    assert!(names.iter().any(|name| name == Path::new("output/a/b")), "{names:?}");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn an_agent_killed_in_mid_job_adopts_the_container_and_the_log_has_no_gap_and_no_repeat() {
    let bench = LeaseBench::new().await;
    let line = "i=0; while [ $i -lt 3000 ]; do echo line $i; echo err $i >&2; i=$((i+1)); [ $((i%100)) = 0 ] && sleep 0.1; done; exit 9";
    let lease = bench.lease(line);
    let mut handle = bench.spawn(&lease);
    for round in 1..=5 {
        bench.received(&lease, |received| received.log.len() > round * 8000).await;
        handle.done.abort();
        let _ = handle.done.await;
        handle = bench.spawn(&lease);
    }
    bench.received(&lease, |received| received.log.len() > 60_000).await;
    let owned = bench.engine.list(bench.deps.node_id).await.unwrap();
    let starts = docker(&[
        "events",
        "--since",
        "10m",
        "--until",
        "0s",
        "--filter",
        "event=start",
        "--filter",
        &format!("container={}", owned[0].id.0),
    ]);
    assert_eq!(starts.lines().count(), 1, "{starts}");
    let received = bench.ended(&lease, handle).await;
    assert_eq!(end(&received), LeaseEnd::Exited { code: 9 });
    for (stream, word) in [(LogStream::Stdout, "line"), (LogStream::Stderr, "err")] {
        let expected: String = (0..3000).map(|number| format!("{word} {number}\n")).collect();
        assert!(received.text(stream) == expected.as_bytes(), "{word}: gap or repeat");
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn an_ended_job_is_found_ended_by_the_next_agent() {
    let bench = LeaseBench::new().await;
    let lease = bench.lease("echo x; sleep 0.5; echo y; exit 4");
    let handle = bench.spawn(&lease);
    bench.received(&lease, |received| !received.log.is_empty()).await;
    handle.done.abort();
    let _ = handle.done.await;
    let id = bench.engine.list(bench.deps.node_id).await.unwrap()[0].id.clone();
    in_time(bench.engine.wait(&id)).await.unwrap();
    let received = bench.run(&lease).await;
    assert_eq!(end(&received), LeaseEnd::Exited { code: 4 });
    assert_eq!(received.text(LogStream::Stdout), b"x\ny\n");
    let (_, ran_millis) = received.end().unwrap();
    assert!(ran_millis >= 400, "{ran_millis}");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn stopped_evicted_and_endless_jobs_end_as_what_they_are() {
    let bench = LeaseBench::new().await;
    let deaf = bench.lease("trap '' TERM; echo ready; sleep 1000");
    let handle = bench.spawn(&deaf);
    bench.received(&deaf, |received| !received.log.is_empty()).await;
    handle.commands.send(LeaseCommand::Stop).await.unwrap();
    assert_eq!(end(&bench.ended(&deaf, handle).await), LeaseEnd::Stopped { code: 137 });

    let polite = bench.lease("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done");
    let handle = bench.spawn(&polite);
    bench.received(&polite, |received| !received.log.is_empty()).await;
    handle.commands.send(LeaseCommand::Evict { reason: "the owner plays".into() }).await.unwrap();
    let received = bench.ended(&polite, handle).await;
    assert!(end(&received).retries_elsewhere());
    assert_eq!(received.text(LogStream::Stdout), b"ready\nbye\n");

    let mut endless = bench.lease("sleep 1000");
    endless.spec.limits.duration_seconds_max = 1;
    assert_eq!(end(&bench.run(&endless).await), LeaseEnd::TimedOut { limit_seconds: 1 });
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_job_that_eats_too_much_memory_is_called_out_of_memory_with_its_limit() {
    let bench = LeaseBench::new().await;
    let mut lease = bench.lease("tail -c 300000000 /dev/zero > /dev/null");
    lease.spec.services[0].resources.memory_bytes = 16 << 20;
    assert_eq!(end(&bench.run(&lease).await), LeaseEnd::OutOfMemory { limit_bytes: 16 << 20 });
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_command_that_is_not_there_fails_by_name() {
    let bench = LeaseBench::new().await;
    let mut lease = bench.lease("");
    lease.spec.services[0].command = vec!["no-such-program".to_owned()];
    let end = end(&bench.run(&lease).await);
    let LeaseEnd::Failed { why: FailureKind::CommandNotFound, detail } = &end else { panic!("{end:?}") };
    assert!(detail.contains("no-such-program"), "{detail}");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_frozen_job_stands_still_and_is_not_paid_for_it() {
    let bench = LeaseBench::new().await;
    let lease = bench.lease("i=0; while [ $i -lt 30 ]; do echo tick $i; i=$((i+1)); sleep 0.1; done");
    let began = bench.deps.clock.steady();
    let mut handle = bench.spawn(&lease);
    bench.received(&lease, |received| received.text(LogStream::Stdout).len() > 20).await;
    handle.commands.send(LeaseCommand::Freeze { reason: "game".into() }).await.unwrap();
    in_time(handle.snapshot.wait_for(|snapshot| snapshot.phase == LeasePhase::Frozen)).await.unwrap();
    let owned = bench.engine.list(bench.deps.node_id).await.unwrap();
    assert!(matches!(owned[0].status, ContainerStatus::Paused { .. }));
    tokio::time::sleep(Duration::from_secs(2)).await;
    handle.commands.send(LeaseCommand::Thaw).await.unwrap();
    let received = bench.ended(&lease, handle).await;
    assert_eq!(end(&received), LeaseEnd::Exited { code: 0 });
    let (_, ran_millis) = received.end().unwrap();
    let whole = bench.deps.clock.steady().since(began);
    assert!(ran_millis > 2_500, "{ran_millis}");
    assert!(Duration::from_millis(ran_millis + 1_900) < whole, "{ran_millis} of {whole:?}");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_torrent_of_log_is_cut_at_its_limit_and_neither_memory_nor_the_job_suffers() {
    let bench = LeaseBench::new().await;
    let mut lease = bench.lease("yes 0123456789012345678901234567890123456789 | head -c 400000000; echo done >&2");
    lease.spec.limits.log_bytes_max = 4 << 20;
    let before = resident_bytes();
    let received = bench.run(&lease).await;
    assert_eq!(end(&received), LeaseEnd::Exited { code: 0 });
    assert!(received.log.len() <= (4 << 20) + 200, "{}", received.log.len());
    let frames = received.frames();
    assert_eq!(frames.last().unwrap().stream, LogStream::Notice);
    assert!(received.log.len() > (4 << 20) - 100, "what fits is kept");
    // The coordinator of this test keeps the log in memory too; the rest is what the runner may use.
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
    assert!(received.log_body_bytes_max <= 1 << 20);
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_coordinator_that_is_away_does_not_hold_the_job_up_and_memory_stays_bounded() {
    let bench = LeaseBench::new().await;
    let mut lease = bench.lease("yes 0123456789012345678901234567890123456789 | head -c 12000000; echo done >&2");
    lease.spec.limits.log_bytes_max = 100 << 20;
    bench.port.set_down(true);
    let before = resident_bytes();
    let mut handle = bench.spawn(&lease);
    in_time(handle.snapshot.wait_for(|snapshot| snapshot.phase == LeasePhase::Collecting)).await.unwrap();
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    bench.port.set_down(false);
    let received = bench.ended(&lease, handle).await;
    assert_eq!(received.text(LogStream::Stdout).len(), 12_000_000);
    assert_eq!(received.text(LogStream::Stderr), b"done\n");
}

/// A socket in front of the engine that can be cut like an engine that is stopped.
struct Proxy {
    folder: TempDir,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Proxy {
    fn new() -> Self {
        let mut proxy = Self { folder: tempfile::tempdir().unwrap(), task: None };
        proxy.start();
        proxy
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("docker.sock")
    }

    fn start(&mut self) {
        let _ = std::fs::remove_file(self.path());
        let listener = tokio::net::UnixListener::bind(self.path()).unwrap();
        self.task = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut engine = tokio::net::UnixStream::connect("/var/run/docker.sock").await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut engine).await;
                });
            }
        }));
    }

    /// Every connection breaks and nobody listens any more.
    async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn an_engine_that_goes_away_in_mid_job_is_waited_for_and_nothing_is_lost() {
    let mut proxy = Proxy::new();
    let bench = LeaseBench::at(Some(&format!("unix://{}", proxy.path().display()))).await;
    let lease = bench.lease("i=0; while [ $i -lt 40 ]; do echo tick $i; i=$((i+1)); sleep 0.1; done; exit 6");
    let mut handle = bench.spawn(&lease);
    bench.received(&lease, |received| received.text(LogStream::Stdout).len() > 20).await;
    proxy.stop().await;
    in_time(handle.snapshot.wait_for(|snapshot| snapshot.detail.contains("no container engine answers")))
        .await
        .unwrap();
    assert_eq!(handle.snapshot.borrow().phase, LeasePhase::Running);
    proxy.start();
    let received = bench.ended(&lease, handle).await;
    assert_eq!(end(&received), LeaseEnd::Exited { code: 6 });
    let expected: String = (0..40).map(|number| format!("tick {number}\n")).collect();
    assert_eq!(String::from_utf8(received.text(LogStream::Stdout)).unwrap(), expected);
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_container_that_went_down_with_its_engine_is_the_nodes_fault() {
    let mut proxy = Proxy::new();
    let bench = LeaseBench::at(Some(&format!("unix://{}", proxy.path().display()))).await;
    let lease = bench.lease("echo ready; sleep 1000");
    let mut handle = bench.spawn(&lease);
    bench.received(&lease, |received| !received.log.is_empty()).await;
    proxy.stop().await;
    in_time(handle.snapshot.wait_for(|snapshot| snapshot.detail.contains("no container engine answers")))
        .await
        .unwrap();
    // What an engine does to its containers when it is stopped.
    let ids = docker(&["ps", "-q", "--filter", &format!("label=io.fizz.lease={}", lease.lease_id)]);
    docker(&["stop", "-t", "1", &ids]);
    proxy.start();
    let received = bench.ended(&lease, handle).await;
    let end = end(&received);
    assert!(matches!(end, LeaseEnd::Failed { why: FailureKind::EngineUnavailable, .. }), "{end:?}");
    assert!(end.retries_elsewhere());
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_container_removed_by_hand_fails_the_lease() {
    let bench = LeaseBench::new().await;
    let lease = bench.lease("echo ready; sleep 1000");
    let handle = bench.spawn(&lease);
    bench.received(&lease, |received| !received.log.is_empty()).await;
    let ids = docker(&["ps", "-q", "--filter", &format!("label=io.fizz.lease={}", lease.lease_id)]);
    docker(&["rm", "-f", &ids]);
    let received = bench.ended(&lease, handle).await;
    assert!(end(&received).retries_elsewhere(), "{:?}", end(&received));
}

#[test]
#[ignore = "needs a Docker engine"]
fn the_socket_of_an_engine_one_may_not_use_says_what_to_do() {
    // As an unprivileged user; root passes every permission.
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    mode(folder.path(), 0o755);
    mode(&socket, 0o600);
    wait_for("the socket", || socket.exists());
    let me = std::env::current_exe().unwrap();
    let copy = folder.path().join("test");
    std::fs::copy(&me, &copy).unwrap();
    mode(&copy, 0o755);
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .args(["--ignored", "--exact", "connects_to_the_engine_named_by_the_environment", "--nocapture"])
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .current_dir("/")
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(words.contains("no permission to use") && words.contains("usermod -aG docker"), "{words}");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn connects_to_the_engine_named_by_the_environment() {
    match DockerRuntime::connect(None).await {
        Ok(engine) => assert!(!engine.address().is_empty()),
        Err(error) => println!("{error}"),
    }
}
