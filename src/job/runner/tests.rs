//! Leases from assignment to end, with an engine and a coordinator in memory: kills, outages, stops and failures.

use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::job::fake::{FakePort, Received};
use crate::job::images::{ImagePolicy, Logins};
use crate::runtime::fake::{Call, FakeImage, FakeRuntime, Step};
use crate::runtime::{ContainerStatus, RuntimeError};
use crate::wire::lease::{Desired, FailureKind, LeaseChange, LeaseEnd, LimitKind};
use crate::wire::logs::LogStream;
use crate::wire::{Generation, JobId};

/// A node with a fake engine and a fake coordinator.
pub(super) struct Bench {
    pub(super) engine: FakeRuntime,
    pub(super) port: FakePort,
    pub(super) deps: RunnerDeps,
    _folder: TempDir,
}

impl Bench {
    pub(super) async fn new(script: impl IntoIterator<Item = Step>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let engine = FakeRuntime::new(clock.clone());
        engine.add_image("job", FakeImage::running(script));
        let port = FakePort::default();
        let journal = Journal::open(&folder.path().join("state.sqlite")).await.unwrap();
        let deps = RunnerDeps {
            gpus: crate::job::gpus::Gpus::default(),
            runtime: Arc::new(engine.clone()),
            port: Arc::new(port.clone()),
            images: Images::new(journal.clone(), clock.clone(), ImagePolicy::default(), Logins::default()),
            journal,
            node_id: NodeId::generate(clock.now()),
            clock,
            spool_dir: folder.path().to_owned(),
        };
        Self { engine, port, deps, _folder: folder }
    }

    pub(super) fn spawn(&self, lease: &Assignment) -> LeaseHandle {
        spawn(self.deps.clone(), lease.clone(), self.engine.containers())
    }

    pub(super) fn refuse(&self, lease: &Assignment, why: &str) -> LeaseHandle {
        refuse(self.deps.clone(), lease.clone(), self.engine.containers(), why.to_owned())
    }

    /// What `kill -9` does to the task, at whatever point it is.
    pub(super) async fn kill(&self, handle: LeaseHandle) {
        handle.done.abort();
        let _ = handle.done.await;
    }

    pub(super) async fn received(&self, lease: &Assignment, wished: impl Fn(&Received) -> bool) -> Received {
        in_time(self.port.until(lease.lease_id, wished)).await
    }

    pub(super) async fn ended(&self, lease: &Assignment, handle: LeaseHandle) -> Received {
        let received = self.received(lease, |received| received.end().is_some()).await;
        in_time(handle.done).await.unwrap();
        assert_eq!(self.port.refused(), Vec::<String>::new());
        assert_eq!(self.engine.container(lease.lease_id), None, "the container is removed at the end");
        received
    }
}

pub(super) async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

pub(super) fn lease() -> Assignment {
    let now = Clock::system().now();
    let spec = serde_json::json!({
        "services": [{
            "name": "main", "image": "job",
            "resources": {"cpu_millis": 1000, "memory_bytes": 64 << 20, "disk_bytes": 0},
        }],
        "limits": {"price_max": 1, "duration_seconds_max": 600, "stop_grace_seconds": 1},
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

pub(super) fn ended(received: &Received) -> LeaseEnd {
    received.end().unwrap().0
}

#[tokio::test]
async fn a_job_runs_and_its_events_log_and_end_arrive_in_order() {
    let script = [Step::line("hello"), Step::Err(b"oops\n".to_vec()), Step::Out(vec![0xff, 0x00]), Step::Exit(3)];
    let bench = Bench::new(script).await;
    let lease = lease();
    let received = bench.ended(&lease, bench.spawn(&lease)).await;
    let kinds: Vec<LeaseChange> = received.changes();
    assert!(
        matches!(
            kinds.as_slice(),
            [
                LeaseChange::Pulling { per_mille: None },
                ..,
                LeaseChange::Starting { .. },
                LeaseChange::Running,
                LeaseChange::Collecting,
                LeaseChange::Ended { end: LeaseEnd::Exited { code: 3 }, .. }
            ]
        ),
        "{kinds:?}"
    );
    assert_eq!(received.text(LogStream::Stdout), b"hello\n\xff\x00");
    assert_eq!(received.text(LogStream::Stderr), b"oops\n");
    assert!(received.log_complete);
}

#[tokio::test]
async fn a_lease_that_is_over_is_not_run_again_by_a_late_assignment() {
    let bench = Bench::new([Step::Exit(0)]).await;
    let lease = lease();
    bench.ended(&lease, bench.spawn(&lease)).await;
    let handle = bench.spawn(&lease);
    in_time(handle.done).await.unwrap();
    assert!(handle.snapshot.borrow().over);
    assert_eq!((bench.engine.creates(lease.lease_id), bench.engine.starts(lease.lease_id)), (1, 1));
}

#[tokio::test]
async fn a_killed_agent_adopts_the_running_container_and_loses_no_byte_of_log() {
    let mut script = Vec::new();
    for number in 0..20 {
        script.extend([Step::line(&format!("line {number}")), Step::Err(vec![0xf0, number]), Step::Hold]);
    }
    let bench = Bench::new(script).await;
    let lease = lease();
    let mut handle = bench.spawn(&lease);
    for round in 0..20 {
        bench.received(&lease, |received| received.text(LogStream::Stderr).len() >= 2 * (round + 1)).await;
        if round % 3 == 0 {
            bench.kill(handle).await;
            bench.engine.release(lease.lease_id);
            handle = bench.spawn(&lease);
        } else {
            bench.engine.release(lease.lease_id);
        }
    }
    let received = bench.ended(&lease, handle).await;
    let lines: String = (0..20).map(|number| format!("line {number}\n")).collect();
    assert_eq!(String::from_utf8(received.text(LogStream::Stdout)).unwrap(), lines);
    assert_eq!(received.text(LogStream::Stderr).len(), 40);
    assert_eq!((bench.engine.creates(lease.lease_id), bench.engine.starts(lease.lease_id)), (1, 1));
    assert_eq!(received.changes().iter().filter(|change| **change == LeaseChange::Running).count(), 1);
}

#[tokio::test]
async fn a_kill_in_any_phase_ends_in_one_run_and_one_end() {
    for phase in
        [LeasePhase::Assigned, LeasePhase::Pulling, LeasePhase::Starting, LeasePhase::Running, LeasePhase::Collecting]
    {
        let script =
            [Step::line("x"), Step::Sleep(Duration::from_millis(50)), Step::File("/out/a".into(), b"a".to_vec())];
        let bench = Bench::new(script).await;
        let mut lease = lease();
        lease.spec.output_path = Some("/out".to_owned());
        let mut handle = bench.spawn(&lease);
        in_time(handle.snapshot.wait_for(|snapshot| snapshot.phase == phase || snapshot.phase.is_final()))
            .await
            .unwrap();
        bench.kill(handle).await;
        let received = bench.ended(&lease, bench.spawn(&lease)).await;
        assert_eq!(ended(&received), LeaseEnd::Exited { code: 0 }, "{phase:?}");
        assert_eq!(bench.engine.starts(lease.lease_id), 1, "{phase:?}");
        assert!(received.output.is_some(), "{phase:?}");
    }
}

#[tokio::test]
async fn a_renters_stop_ends_a_job_and_one_that_ignores_it_is_killed() {
    for (script, code) in [(vec![Step::Hold], 143), (vec![Step::IgnoreTerm, Step::line("deaf"), Step::Hold], 137)] {
        let bench = Bench::new(script).await;
        let lease = lease();
        let mut handle = bench.spawn(&lease);
        in_time(handle.snapshot.wait_for(|snapshot| snapshot.phase == LeasePhase::Running)).await.unwrap();
        if code == 137 {
            bench.received(&lease, |received| !received.log.is_empty()).await;
        }
        handle.commands.send(LeaseCommand::Stop).await.unwrap();
        let received = bench.ended(&lease, handle).await;
        assert_eq!(ended(&received), LeaseEnd::Stopped { code });
    }
}

#[tokio::test]
async fn a_job_past_its_longest_time_is_ended_and_called_so() {
    let bench = Bench::new([Step::Hold]).await;
    let mut lease = lease();
    lease.spec.limits.duration_seconds_max = 1;
    let received = bench.ended(&lease, bench.spawn(&lease)).await;
    assert_eq!(ended(&received), LeaseEnd::TimedOut { limit_seconds: 1 });
}

#[tokio::test]
async fn an_evicted_job_may_run_elsewhere_and_hands_its_log_over_but_no_output() {
    let bench = Bench::new([Step::File("/out/a".into(), b"half".to_vec()), Step::line("half done"), Step::Hold]).await;
    let mut lease = lease();
    lease.spec.output_path = Some("/out".to_owned());
    let handle = bench.spawn(&lease);
    bench.received(&lease, |received| !received.log.is_empty()).await;
    handle.commands.send(LeaseCommand::Evict { reason: "the owner plays".into() }).await.unwrap();
    let received = bench.ended(&lease, handle).await;
    assert!(ended(&received).retries_elsewhere());
    assert_eq!(received.text(LogStream::Stdout), b"half done\n");
    assert_eq!(received.output, None);
}

#[tokio::test]
async fn freezing_and_thawing_is_told_and_frozen_time_is_not_paid() {
    let bench = Bench::new([Step::line("x"), Step::Hold]).await;
    let lease = lease();
    let began = bench.deps.clock.steady();
    let mut handle = bench.spawn(&lease);
    bench.received(&lease, |received| !received.log.is_empty()).await;
    handle.commands.send(LeaseCommand::Freeze { reason: "game".into() }).await.unwrap();
    in_time(handle.snapshot.wait_for(|snapshot| snapshot.phase == LeasePhase::Frozen)).await.unwrap();
    assert!(matches!(bench.engine.container(lease.lease_id).unwrap().status, ContainerStatus::Paused { .. }));
    tokio::time::sleep(Duration::from_millis(300)).await;
    handle.commands.send(LeaseCommand::Thaw).await.unwrap();
    in_time(handle.snapshot.wait_for(|snapshot| snapshot.phase == LeasePhase::Running)).await.unwrap();
    bench.engine.release(lease.lease_id);
    let received = bench.ended(&lease, handle).await;
    let (end, ran_millis) = received.end().unwrap();
    assert_eq!(end, LeaseEnd::Exited { code: 0 });
    let whole = bench.deps.clock.steady().since(began);
    assert!(Duration::from_millis(ran_millis + 290) < whole, "{ran_millis} of {whole:?}");
    let freeze = LeaseChange::Frozen { reason: "game".into() };
    assert!(received.changes().windows(2).any(|pair| pair == [freeze.clone(), LeaseChange::Thawed]));
}

#[tokio::test]
async fn an_engine_that_goes_and_comes_back_does_not_end_the_job() {
    let bench = Bench::new([Step::line("before"), Step::Hold, Step::line("after"), Step::Hold]).await;
    let lease = lease();
    let mut handle = bench.spawn(&lease);
    bench.received(&lease, |received| !received.log.is_empty()).await;
    bench.engine.set_up(false);
    in_time(handle.snapshot.wait_for(|snapshot| snapshot.detail.contains("no container engine answers")))
        .await
        .unwrap();
    bench.engine.release(lease.lease_id);
    bench.engine.set_up(true);
    bench.received(&lease, |received| received.text(LogStream::Stdout) == b"before\nafter\n").await;
    bench.engine.release(lease.lease_id);
    let received = bench.ended(&lease, handle).await;
    assert_eq!(ended(&received), LeaseEnd::Exited { code: 0 });
    assert_eq!(bench.engine.starts(lease.lease_id), 1);
}

#[tokio::test]
async fn a_container_that_ended_while_the_engine_was_away_is_given_back_whoever_was_there_to_see_it() {
    for agent_killed in [false, true] {
        let bench = Bench::new([Step::line("before"), Step::Hold, Step::Exit(0)]).await;
        let lease = lease();
        let mut handle = bench.spawn(&lease);
        bench.received(&lease, |received| !received.log.is_empty()).await;
        bench.engine.set_up(false);
        if agent_killed {
            handle.done.abort();
        }
        bench.engine.release(lease.lease_id);
        bench.engine.until(lease.lease_id, |status| matches!(status, Some(ContainerStatus::Exited(_)))).await;
        bench.engine.set_up(true);
        if agent_killed {
            handle = bench.spawn(&lease);
        }
        let received = bench.ended(&lease, handle).await;
        let end = ended(&received);
        assert!(matches!(end, LeaseEnd::Failed { why: FailureKind::EngineUnavailable, .. }), "{end:?}");
    }
}

#[tokio::test]
async fn a_coordinator_that_is_away_holds_nothing_up_and_gets_everything_later() {
    let bench = Bench::new([Step::line("x"), Step::Exit(0)]).await;
    let lease = lease();
    bench.port.set_down(true);
    let mut handle = bench.spawn(&lease);
    in_time(handle.snapshot.wait_for(|snapshot| snapshot.phase == LeasePhase::Collecting)).await.unwrap();
    bench.port.set_down(false);
    let received = bench.ended(&lease, handle).await;
    assert_eq!(received.text(LogStream::Stdout), b"x\n");
}

#[tokio::test]
async fn a_container_that_vanishes_fails_the_lease_as_the_nodes_fault() {
    let bench = Bench::new([Step::line("x"), Step::Hold]).await;
    let lease = lease();
    let handle = bench.spawn(&lease);
    bench.received(&lease, |received| !received.log.is_empty()).await;
    bench.engine.vanish(lease.lease_id);
    let received = bench.ended(&lease, handle).await;
    assert!(matches!(ended(&received), LeaseEnd::Failed { why: FailureKind::ContainerVanished, .. }));
}

#[tokio::test]
async fn a_lease_that_ended_at_the_coordinator_is_dropped_and_kept_in_mind() {
    let bench = Bench::new([Step::line("x"), Step::Hold, Step::line("y"), Step::Hold]).await;
    let lease = lease();
    let handle = bench.spawn(&lease);
    bench.received(&lease, |received| !received.log.is_empty()).await;
    bench.port.end_lease(lease.lease_id);
    bench.engine.release(lease.lease_id);
    in_time(handle.done).await.unwrap();
    assert_eq!(bench.engine.container(lease.lease_id), None);
    assert_eq!(bench.port.received(lease.lease_id).end(), None);
    assert_eq!(bench.deps.journal.leases().await.unwrap().len(), 1, "so that it is not started again");
}

#[tokio::test]
async fn a_forgotten_lease_leaves_no_trace() {
    let bench = Bench::new([Step::line("x"), Step::Hold]).await;
    let lease = lease();
    let handle = bench.spawn(&lease);
    bench.received(&lease, |received| !received.log.is_empty()).await;
    handle.commands.send(LeaseCommand::Forget).await.unwrap();
    in_time(handle.done).await.unwrap();
    assert_eq!(bench.engine.container(lease.lease_id), None);
    assert!(bench.deps.journal.leases().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_stop_during_the_pull_gives_the_pull_up() {
    let bench = Bench::new([]).await;
    let slow = FakeImage { layers: vec![10; 1000], layer_time: Duration::from_millis(50), script: Vec::new() };
    bench.engine.add_image("job", slow);
    let lease = lease();
    let mut handle = bench.spawn(&lease);
    in_time(handle.snapshot.wait_for(|snapshot| snapshot.pull_per_mille.is_some())).await.unwrap();
    handle.commands.send(LeaseCommand::Stop).await.unwrap();
    let received = bench.ended(&lease, handle).await;
    assert_eq!(received.end(), Some((LeaseEnd::Stopped { code: 143 }, 0)));
    assert_eq!(bench.engine.creates(lease.lease_id), 0);
}

#[tokio::test]
async fn a_job_that_was_stopped_before_the_node_heard_of_it_never_starts() {
    let bench = Bench::new([Step::Exit(0)]).await;
    let lease = Assignment { desired: Desired::Stop, ..lease() };
    let received = bench.ended(&lease, bench.spawn(&lease)).await;
    assert!(matches!(ended(&received), LeaseEnd::Stopped { .. }));
    assert_eq!((bench.engine.pulls(), bench.engine.creates(lease.lease_id)), (0, 0));
}

#[tokio::test]
async fn failures_before_the_start_are_told_by_their_kind() {
    let cases: [(Call, RuntimeError, FailureKind); 5] = [
        (
            Call::EnsureImage,
            RuntimeError::ImageNotFound { image: "job".into(), detail: "no".into() },
            FailureKind::ImageNotFound,
        ),
        (
            Call::EnsureImage,
            RuntimeError::WrongArchitecture { image: "job".into(), found: "arm64".into(), here: "amd64".into() },
            FailureKind::ImageWrongArchitecture,
        ),
        (Call::Create, RuntimeError::NoSpace { detail: "full".into() }, FailureKind::NoSpace),
        (Call::Start, RuntimeError::CommandNotFound { detail: "nope".into() }, FailureKind::CommandNotFound),
        (Call::Create, RuntimeError::InvalidSpec { detail: "workdir".into() }, FailureKind::InvalidSpec),
    ];
    for (call, error, kind) in cases {
        let bench = Bench::new([Step::Exit(0)]).await;
        let words = error.to_string();
        bench.engine.fail_next(call, error);
        let lease = lease();
        let received = bench.ended(&lease, bench.spawn(&lease)).await;
        assert_eq!(ended(&received), LeaseEnd::Failed { why: kind, detail: words });
        assert_eq!(bench.engine.starts(lease.lease_id), 0);
    }
}

#[tokio::test]
async fn hiccups_of_the_engine_are_tried_again() {
    let bench = Bench::new([Step::line("x"), Step::Exit(0)]).await;
    for call in [Call::EnsureImage, Call::Create, Call::Start, Call::Wait, Call::Logs, Call::Remove] {
        bench.engine.fail_next(call, RuntimeError::Engine { what: "test", detail: "hiccup".into() });
        bench.engine.fail_next(call, RuntimeError::TimedOut { what: "test", seconds: 1 });
    }
    let lease = lease();
    let received = bench.ended(&lease, bench.spawn(&lease)).await;
    assert_eq!(ended(&received), LeaseEnd::Exited { code: 0 });
    assert_eq!(received.text(LogStream::Stdout), b"x\n");
    assert_eq!(bench.engine.starts(lease.lease_id), 1);
}

#[tokio::test]
async fn a_container_whose_start_was_interrupted_is_not_started_again_but_given_back() {
    let bench = Bench::new([Step::line("x"), Step::Exit(0)]).await;
    bench.engine.fail_next(Call::Start, RuntimeError::StartInterrupted { detail: "it was killed".into() });
    let lease = lease();
    let received = bench.ended(&lease, bench.spawn(&lease)).await;
    let end = ended(&received);
    assert!(matches!(end, LeaseEnd::Failed { why: FailureKind::EngineUnavailable, .. }), "{end:?}");
    assert_eq!((bench.engine.starts(lease.lease_id), bench.engine.container(lease.lease_id)), (0, None));
}

#[tokio::test]
async fn a_job_that_writes_more_than_its_disk_is_killed_and_ended_as_such() {
    let script = [Step::IgnoreTerm, Step::line("x"), Step::File("/work/bomb".into(), vec![0; 5000]), Step::Hold];
    let bench = Bench::new(script).await;
    let mut lease = lease();
    lease.spec.services[0].resources.disk_bytes = 4096;
    lease.spec.limits.stop_grace_seconds = 300;
    let received = bench.ended(&lease, bench.spawn(&lease)).await;
    assert_eq!(ended(&received), LeaseEnd::OverLimit { limit: LimitKind::DiskBytes, value: 4096 });
    assert_eq!(received.text(LogStream::Stdout), b"x\n");
}

#[tokio::test]
async fn a_job_within_its_disk_goes_on_and_an_engine_that_cannot_measure_it_ends_nothing() {
    let script = [Step::File("/work/file".into(), vec![0; 4000]), Step::line("x"), Step::Hold, Step::Exit(0)];
    let bench = Bench::new(script).await;
    let mut lease = lease();
    lease.spec.services[0].resources.disk_bytes = 4096;
    bench.engine.fail_next(Call::DiskUsed, RuntimeError::TimedOut { what: "test", seconds: 1 });
    let handle = bench.spawn(&lease);
    bench.received(&lease, |received| !received.log.is_empty()).await;
    bench.engine.release(lease.lease_id);
    let received = bench.ended(&lease, handle).await;
    assert_eq!(ended(&received), LeaseEnd::Exited { code: 0 });
}
