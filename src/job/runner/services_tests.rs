//! Restarts, health checks and jobs of several services, with the fake engine.

use super::tests::{Bench, ended, in_time, lease};
use super::*;
use crate::job::fake::Received;
use crate::runtime::ContainerStatus;
use crate::runtime::fake::Step;
use crate::wire::job::{HealthCheck, HealthTest, RestartPolicy, RestartWhen, ServiceSpec};
use crate::wire::lease::{LeaseChange, LeaseEnd};
use crate::wire::logs::LogStream;

fn with_db(lease: &mut Assignment) -> &mut ServiceSpec {
    let db = ServiceSpec { name: "db".into(), command: vec!["db".into()], ..lease.spec.services[0].clone() };
    lease.spec.services.push(db);
    &mut lease.spec.services[1]
}

fn restarts(received: &Received) -> usize {
    received.changes().iter().filter(|change| matches!(change, LeaseChange::Restarted { .. })).count()
}

fn text(received: &Received, stream: LogStream) -> String {
    String::from_utf8(received.text(stream)).unwrap()
}

#[tokio::test]
async fn a_refused_lease_ends_before_anything_is_made_for_it_and_may_run_elsewhere() {
    let bench = Bench::new([Step::Exit(0)]).await;
    let lease = lease();
    let received = bench.ended(&lease, bench.refuse(&lease, "this node lends 1 core")).await;
    let end = ended(&received);
    assert!(end.retries_elsewhere(), "{end:?}");
    assert!(matches!(&end, LeaseEnd::Failed { detail, .. } if detail == "this node lends 1 core"), "{end:?}");
    assert_eq!(bench.engine.creates(lease.lease_id), 0);
}

#[tokio::test]
async fn a_job_that_fails_is_started_again_as_often_as_its_policy_says_and_its_log_goes_on() {
    let bench = Bench::new([Step::line("try"), Step::Exit(3)]).await;
    let mut lease = lease();
    lease.spec.services[0].restart = RestartPolicy { when: RestartWhen::OnFailure, times_max: Some(1) };
    let received = bench.ended(&lease, bench.spawn(&lease)).await;
    assert_eq!(ended(&received), LeaseEnd::Exited { code: 3 });
    assert_eq!(text(&received, LogStream::Stdout), "try\ntry\n");
    assert_eq!((restarts(&received), bench.engine.starts(lease.lease_id)), (1, 2));
    assert_eq!(bench.engine.creates(lease.lease_id), 1, "the same container");
}

#[tokio::test]
async fn an_agent_killed_between_the_record_of_a_restart_and_the_start_starts_it_exactly_once_more() {
    let bench = Bench::new([Step::line("try"), Step::Exit(3)]).await;
    let mut lease = lease();
    lease.spec.services[0].restart = RestartPolicy { when: RestartWhen::Always, times_max: Some(1) };
    let mut handle = bench.spawn(&lease);
    bench.received(&lease, |received| restarts(received) == 1).await;
    for _ in 0..3 {
        bench.kill(handle).await;
        handle = bench.spawn(&lease);
    }
    let received = bench.ended(&lease, handle).await;
    assert_eq!(text(&received, LogStream::Stdout), "try\ntry\n");
    assert_eq!((restarts(&received), bench.engine.starts(lease.lease_id)), (1, 2));
}

#[tokio::test]
async fn a_stop_while_a_restart_is_waited_for_ends_the_job_at_once() {
    let bench = Bench::new([Step::Exit(3)]).await;
    let mut lease = lease();
    lease.spec.services[0].restart = RestartPolicy { when: RestartWhen::Always, times_max: None };
    let handle = bench.spawn(&lease);
    bench.received(&lease, |received| restarts(received) == 1).await;
    handle.commands.send(LeaseCommand::Stop).await.unwrap();
    let received = bench.ended(&lease, handle).await;
    assert_eq!(ended(&received), LeaseEnd::Stopped { code: 3 });
}

#[tokio::test]
async fn a_job_whose_check_fails_is_ended_and_called_unhealthy() {
    let bench = Bench::new([Step::line("up"), Step::Hold]).await;
    let mut lease = lease();
    lease.spec.services[0].health = Some(HealthCheck {
        test: HealthTest::Exec { command: vec!["exit".into(), "7".into()] },
        interval_seconds: 1,
        timeout_seconds: 1,
        retries: 1,
        start_grace_seconds: 0,
    });
    let received = bench.ended(&lease, bench.spawn(&lease)).await;
    let LeaseEnd::Unhealthy { detail } = ended(&received) else { panic!("{:?}", received.end()) };
    assert!(detail.contains("exit code 7"), "{detail}");
}

#[tokio::test]
async fn what_the_main_service_depends_on_starts_first_and_ends_last_and_its_lines_carry_its_name() {
    let bench = Bench::new([Step::line("asks"), Step::Hold, Step::Exit(4)]).await;
    bench.engine.add_script(&["db"], [Step::line("serves"), Step::Err(b"half".to_vec()), Step::Hold]);
    let mut lease = lease();
    with_db(&mut lease);
    lease.spec.services[0].depends_on = vec!["db".into()];
    let handle = bench.spawn(&lease);
    bench.received(&lease, |received| text(received, LogStream::Stdout) == "asks\n").await;
    assert!(matches!(
        bench.engine.service(lease.lease_id, Some("db")).unwrap().status,
        ContainerStatus::Running { .. }
    ));
    bench.engine.release(lease.lease_id);
    let received = bench.ended(&lease, handle).await;
    assert_eq!(ended(&received), LeaseEnd::Exited { code: 4 });
    assert_eq!(text(&received, LogStream::Stdout), "asks\n");
    assert_eq!(text(&received, LogStream::Stderr), "[db] serves\n[db] half");
    assert_eq!(bench.engine.containers(), [], "nothing is left");
}

#[tokio::test]
async fn an_agent_killed_again_and_again_loses_no_byte_of_two_logs() {
    let steps = |word: &str| {
        let steps = (0..20).flat_map(|number| [Step::line(&format!("{word} {number}")), Step::Hold]);
        steps.collect::<Vec<_>>()
    };
    let bench = Bench::new(steps("main")).await;
    bench.engine.add_script(&["db"], steps("db").into_iter().chain([Step::Hold, Step::Hold]));
    let mut lease = lease();
    with_db(&mut lease);
    let mut handle = bench.spawn(&lease);
    for round in 0..20 {
        let lines = |received: &Received, stream| received.text(stream).iter().filter(|byte| **byte == b'\n').count();
        bench
            .received(&lease, |received| {
                lines(received, LogStream::Stdout) > round && lines(received, LogStream::Stderr) > round
            })
            .await;
        if round % 3 == 0 {
            bench.kill(handle).await;
            handle = bench.spawn(&lease);
        }
        bench.engine.release_service(lease.lease_id, Some("db"));
        bench.engine.release(lease.lease_id);
    }
    let received = bench.ended(&lease, handle).await;
    let expected = |prefix: &str, word: &str| -> String { (0..20).map(|n| format!("{prefix}{word} {n}\n")).collect() };
    assert_eq!(text(&received, LogStream::Stdout), expected("", "main"));
    assert_eq!(text(&received, LogStream::Stderr), expected("[db] ", "db"));
    assert_eq!(text(&received, LogStream::Notice), "");
    let started = (bench.engine.starts(lease.lease_id), bench.engine.starts_of(lease.lease_id, Some("db")));
    assert_eq!(started, (1, 1));
}

#[tokio::test]
async fn a_companion_that_fails_ends_the_job_and_is_named() {
    let bench = Bench::new([Step::line("up"), Step::Hold]).await;
    bench.engine.add_script(&["db"], [Step::line("oops"), Step::Exit(9)]);
    let mut lease = lease();
    with_db(&mut lease);
    let received = bench.ended(&lease, bench.spawn(&lease)).await;
    assert_eq!(ended(&received), LeaseEnd::ServiceFailed { service: "db".into(), code: 9 });
    assert_eq!(text(&received, LogStream::Stderr), "[db] oops\n");
}

#[tokio::test]
async fn a_freeze_holds_every_service_and_a_thaw_lets_all_go_on() {
    let bench = Bench::new([Step::line("x"), Step::Hold]).await;
    bench.engine.add_script(&["db"], [Step::Hold]);
    let mut lease = lease();
    with_db(&mut lease);
    let mut handle = bench.spawn(&lease);
    bench.received(&lease, |received| !received.log.is_empty()).await;
    handle.commands.send(LeaseCommand::Freeze { reason: "game".into() }).await.unwrap();
    in_time(handle.snapshot.wait_for(|snapshot| snapshot.phase == LeasePhase::Frozen)).await.unwrap();
    let is_frozen = |service: Option<&str>| {
        let found = bench.engine.service(lease.lease_id, service).unwrap();
        matches!(found.status, ContainerStatus::Paused { .. })
    };
    assert!(is_frozen(None) && is_frozen(Some("db")));
    handle.commands.send(LeaseCommand::Thaw).await.unwrap();
    in_time(handle.snapshot.wait_for(|snapshot| snapshot.phase == LeasePhase::Running)).await.unwrap();
    assert!(!is_frozen(None) && !is_frozen(Some("db")));
    bench.engine.release(lease.lease_id);
    assert_eq!(ended(&bench.ended(&lease, handle).await), LeaseEnd::Exited { code: 0 });
}
