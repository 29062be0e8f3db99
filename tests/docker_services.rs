//! Jobs of several services, restarts and health checks over a real Docker engine, with a coordinator in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod docker_support;

use docker_support::lease_bench::{LeaseBench, end};
use docker_support::{docker, in_time};
use fizz::job::fake::Received;
use fizz::wire::lease::{LeaseChange, LeaseEnd};
use fizz::wire::logs::LogStream;
use serde_json::json;

/// The address of a container of the owner's that answers whoever reaches it, shown by another one of the owner's.
fn reachable_neighbour(bench: &LeaseBench) -> String {
    let (label, image) = (format!("io.fizz.node={}", bench.deps.node_id), bench.image.name.as_str());
    let id = docker(&["run", "-d", "--label", &label, image, "/bin/sh", "-c", "exec nc -ll -p 8080 -e echo out"]);
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = docker(&["inspect", "--format", format, &id]);
    let ask = format!("i=0; until {}; do i=$((i+1)); [ $i -lt 50 ] || exit 1; sleep 0.1; done", fetch(&address));
    let answer = docker(&["run", "--rm", "--label", &label, image, "/bin/sh", "-c", &ask]);
    assert_eq!(answer.trim(), "out", "the control reaches it");
    address
}

fn fetch(address: &str) -> String {
    format!("nc -w 2 {address} 8080 < /dev/null")
}

fn text(received: &Received, stream: LogStream) -> String {
    String::from_utf8(received.text(stream)).unwrap()
}

fn restarts(received: &Received) -> Vec<(String, i32, u32)> {
    let restarted = received.changes().into_iter().filter_map(|change| match change {
        LeaseChange::Restarted { service, code, times } => Some((service, code, times)),
        LeaseChange::Pulling { .. }
        | LeaseChange::Starting { .. }
        | LeaseChange::Running
        | LeaseChange::Frozen { .. }
        | LeaseChange::Thawed
        | LeaseChange::Collecting
        | LeaseChange::Ended { .. }
        | LeaseChange::Unknown => None,
    });
    restarted.collect()
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_job_that_fails_is_started_again_with_its_files_and_its_log_is_whole() {
    let bench = LeaseBench::new().await;
    let line = "echo try >> /work/tries; n=$(wc -l < /work/tries); echo out $n; echo err $n >&2; exit $n";
    let policy = json!({"restart": {"when": "on_failure", "times_max": 2}});
    let received = bench.run(&LeaseBench::lease_of(vec![bench.service("main", line, policy)])).await;
    assert_eq!(end(&received), LeaseEnd::Exited { code: 3 });
    assert_eq!(text(&received, LogStream::Stdout), "out 1\nout 2\nout 3\n");
    assert_eq!(text(&received, LogStream::Stderr), "err 1\nerr 2\nerr 3\n");
    assert_eq!(restarts(&received), [("main".to_owned(), 1, 1), ("main".to_owned(), 2, 2)]);
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn an_agent_killed_while_a_job_waits_to_be_started_again_starts_it_once_more() {
    let bench = LeaseBench::new().await;
    let line = "echo try >> /work/tries; n=$(wc -l < /work/tries); echo $n; [ $n = 3 ]";
    let lease = LeaseBench::lease_of(vec![bench.service("main", line, json!({"restart": {"when": "on_failure"}}))]);
    let mut handle = bench.spawn(&lease);
    for times in 1..=2 {
        in_time(bench.port.until(lease.lease_id, |received| restarts(received).len() >= times)).await;
        handle.done.abort();
        let _ = handle.done.await;
        handle = bench.spawn(&lease);
    }
    let received = bench.ended(&lease, handle).await;
    assert_eq!(end(&received), LeaseEnd::Exited { code: 0 });
    assert_eq!(text(&received, LogStream::Stdout), "1\n2\n3\n");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_signal_is_told_as_such() {
    let bench = LeaseBench::new().await;
    let received = bench.run(&LeaseBench::lease_of(vec![bench.service("main", "kill -SEGV $$", json!({}))])).await;
    assert_eq!(end(&received), LeaseEnd::Signalled { signal: 11 });
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_job_whose_check_fails_is_ended_as_unhealthy_with_what_the_check_said() {
    let bench = LeaseBench::new().await;
    let check = |line: &str| {
        let test = json!({"kind": "exec", "command": ["/bin/sh", "-c", line]});
        json!({"health": {"test": test, "interval_seconds": 1, "timeout_seconds": 2, "retries": 2}})
    };
    let sick = bench.service("main", "echo up; sleep 1000", check("echo no disk left; exit 1"));
    let received = bench.run(&LeaseBench::lease_of(vec![sick])).await;
    let LeaseEnd::Unhealthy { detail } = end(&received) else { panic!("{:?}", received.end()) };
    assert!(detail.contains("exit code 1") && detail.contains("no disk left"), "{detail}");
    let well = bench.service("main", "sleep 3; exit 7", check("true"));
    assert_eq!(end(&bench.run(&LeaseBench::lease_of(vec![well])).await), LeaseEnd::Exited { code: 7 });
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn services_find_each_other_by_name_start_in_order_and_reach_nothing_else() {
    let bench = LeaseBench::new().await;
    let db = "echo serving; mkdir /work/www; echo answer > /work/www/x; sleep 1; exec httpd -f -p 8080 -h /work/www";
    let test = json!({"kind": "http", "port": 8080, "path": "/x"});
    let health = json!({"test": test, "interval_seconds": 1, "retries": 30});
    let reach = fetch(&reachable_neighbour(&bench));
    let main = format!("wget -q -O - http://db:8080/x; echo exit $?; {reach}; echo exit $?; exit 5");
    let lease = LeaseBench::lease_of(vec![
        bench.service("main", &main, json!({"depends_on": ["db"]})),
        bench.service("db", db, json!({"health": health})),
    ]);
    let received = bench.run(&lease).await;
    assert_eq!(text(&received, LogStream::Stdout), "answer\nexit 0\nexit 1\n", "{:?}", received.changes());
    let stderr = text(&received, LogStream::Stderr);
    assert!(stderr.contains("[db] serving\n"), "{stderr}");
    assert_eq!(end(&received), LeaseEnd::Exited { code: 5 });
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_companion_that_fails_past_its_restarts_ends_the_job_and_is_named() {
    let bench = LeaseBench::new().await;
    let lease = LeaseBench::lease_of(vec![
        bench.service("main", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done", json!({})),
        bench.service("db", "echo try; exit 9", json!({"restart": {"when": "on_failure", "times_max": 1}})),
    ]);
    let received = bench.run(&lease).await;
    assert_eq!(end(&received), LeaseEnd::ServiceFailed { service: "db".to_owned(), code: 9 });
    assert_eq!(text(&received, LogStream::Stdout), "up\nbye\n");
    assert_eq!(text(&received, LogStream::Stderr), "[db] try\n[db] try\n");
    assert_eq!(restarts(&received), [("db".to_owned(), 9, 1)]);
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn an_agent_killed_in_a_job_of_two_services_adopts_both_and_loses_no_byte_of_either_log() {
    let bench = LeaseBench::new().await;
    let count = |word: &str, last: &str| {
        format!(
            "i=0; while [ $i -lt 600 ]; do echo {word} $i; i=$((i+1)); [ $((i%20)) = 0 ] && sleep 0.1; done; {last}"
        )
    };
    let lease = LeaseBench::lease_of(vec![
        bench.service("main", &count("main", "sleep 1; exit 4"), json!({})),
        bench.service("db", &count("db", "sleep 1000"), json!({})),
    ]);
    let mut handle = bench.spawn(&lease);
    for round in 1..=5 {
        in_time(bench.port.until(lease.lease_id, |received| received.log.len() > round * 3000)).await;
        handle.done.abort();
        let _ = handle.done.await;
        handle = bench.spawn(&lease);
    }
    let received = bench.ended(&lease, handle).await;
    assert_eq!(end(&received), LeaseEnd::Exited { code: 4 });
    let expected = |prefix: &str, word: &str| -> String { (0..600).map(|i| format!("{prefix}{word} {i}\n")).collect() };
    assert!(text(&received, LogStream::Stdout) == expected("", "main"), "main: gap or repeat");
    assert!(text(&received, LogStream::Stderr) == expected("[db] ", "db"), "db: gap or repeat");
    assert_eq!(text(&received, LogStream::Notice), "");
}
