//! Jobs of several services, restarts and health checks over a real Docker engine, with a coordinator in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod docker_support;

use std::sync::Arc;

use docker_support::{TestImage, TestNode, docker, in_time};
use fizz::agent::journal::Journal;
use fizz::clock::Clock;
use fizz::job::fake::{FakePort, Received};
use fizz::job::images::{ImagePolicy, Images, Logins};
use fizz::job::runner::{LeaseHandle, RunnerDeps, spawn};
use fizz::runtime::ContainerRuntime;
use fizz::runtime::docker::DockerRuntime;
use fizz::wire::lease::{Assignment, Desired, LeaseChange, LeaseEnd};
use fizz::wire::logs::LogStream;
use fizz::wire::{Generation, JobId, LeaseId};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Bench {
    port: FakePort,
    deps: RunnerDeps,
    engine: Arc<DockerRuntime>,
    // Its containers go before their image.
    _node: TestNode,
    image: TestImage,
    _folder: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = TestNode::new();
        let engine = Arc::new(DockerRuntime::connect(None).await.unwrap());
        let port = FakePort::default();
        let journal = Journal::open(&folder.path().join("state.sqlite")).await.unwrap();
        let deps = RunnerDeps {
            runtime: engine.clone(),
            port: Arc::new(port.clone()),
            images: Images::new(journal.clone(), Clock::system(), ImagePolicy::default(), Logins::default()),
            journal,
            clock: Clock::system(),
            node_id: node.node_id,
            gpus: fizz::job::gpus::Gpus::default(),
            spool_dir: folder.path().to_owned(),
        };
        Self { port, deps, engine, _node: node, image: TestImage::new(), _folder: folder }
    }

    /// A service with everything it needs; `more` is put on top.
    fn service(&self, name: &str, line: &str, more: Value) -> Value {
        let mut service = json!({
            "name": name, "image": self.image.name, "command": ["/bin/sh", "-c", line],
            "resources": {"cpu_millis": 500, "memory_bytes": 32 << 20, "disk_bytes": 16 << 20},
        });
        service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        service
    }

    fn lease(services: Vec<Value>) -> Assignment {
        let now = Clock::system().now();
        let spec = json!({
            "services": services,
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

    /// The address of a container of the owner's that answers whoever reaches it, shown by another one of the owner's.
    fn reachable_neighbour(&self) -> String {
        let (label, image) = (format!("io.fizz.node={}", self.deps.node_id), self.image.name.as_str());
        let serve = "while :; do echo out | nc -l -p 8080; done";
        let id = docker(&["run", "-d", "--label", &label, image, "/bin/sh", "-c", serve]);
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = docker(&["inspect", "--format", format, id.trim()]).trim().to_owned();
        let ask = format!("i=0; until {}; do i=$((i+1)); [ $i -lt 50 ] || exit 1; sleep 0.1; done", fetch(&address));
        let answer = docker(&["run", "--rm", "--label", &label, image, "/bin/sh", "-c", &ask]);
        assert_eq!(answer.trim(), "out", "the control reaches it");
        address
    }

    fn spawn(&self, lease: &Assignment) -> LeaseHandle {
        spawn(self.deps.clone(), lease.clone(), Vec::new())
    }

    async fn ended(&self, lease: &Assignment, handle: LeaseHandle) -> Received {
        in_time(handle.done).await.unwrap();
        assert_eq!(self.port.refused(), Vec::<String>::new());
        let left = self.engine.list(self.deps.node_id).await.unwrap();
        assert!(left.is_empty(), "every container is removed at the end: {left:?}");
        let left = self.engine.networks(self.deps.node_id).await.unwrap();
        assert!(left.is_empty(), "and the network: {left:?}");
        self.port.received(lease.lease_id)
    }

    async fn run(&self, lease: &Assignment) -> Received {
        self.ended(lease, self.spawn(lease)).await
    }
}

fn fetch(address: &str) -> String {
    format!("nc -w 2 {address} 8080 < /dev/null")
}

fn end(received: &Received) -> LeaseEnd {
    received.end().unwrap().0
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
    let bench = Bench::new().await;
    let line = "echo try >> /work/tries; n=$(wc -l < /work/tries); echo out $n; echo err $n >&2; exit $n";
    let policy = json!({"restart": {"when": "on_failure", "times_max": 2}});
    let received = bench.run(&Bench::lease(vec![bench.service("main", line, policy)])).await;
    assert_eq!(end(&received), LeaseEnd::Exited { code: 3 });
    assert_eq!(text(&received, LogStream::Stdout), "out 1\nout 2\nout 3\n");
    assert_eq!(text(&received, LogStream::Stderr), "err 1\nerr 2\nerr 3\n");
    assert_eq!(restarts(&received), [("main".to_owned(), 1, 1), ("main".to_owned(), 2, 2)]);
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn an_agent_killed_while_a_job_waits_to_be_started_again_starts_it_once_more() {
    let bench = Bench::new().await;
    let line = "echo try >> /work/tries; n=$(wc -l < /work/tries); echo $n; [ $n = 3 ]";
    let lease = Bench::lease(vec![bench.service("main", line, json!({"restart": {"when": "on_failure"}}))]);
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
    let bench = Bench::new().await;
    let received = bench.run(&Bench::lease(vec![bench.service("main", "kill -SEGV $$", json!({}))])).await;
    assert_eq!(end(&received), LeaseEnd::Signalled { signal: 11 });
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_job_whose_check_fails_is_ended_as_unhealthy_with_what_the_check_said() {
    let bench = Bench::new().await;
    let check = |line: &str| {
        let test = json!({"kind": "exec", "command": ["/bin/sh", "-c", line]});
        json!({"health": {"test": test, "interval_seconds": 1, "timeout_seconds": 2, "retries": 2}})
    };
    let sick = bench.service("main", "echo up; sleep 1000", check("echo no disk left; exit 1"));
    let received = bench.run(&Bench::lease(vec![sick])).await;
    let LeaseEnd::Unhealthy { detail } = end(&received) else { panic!("{:?}", received.end()) };
    assert!(detail.contains("exit code 1") && detail.contains("no disk left"), "{detail}");
    let well = bench.service("main", "sleep 3; exit 7", check("true"));
    assert_eq!(end(&bench.run(&Bench::lease(vec![well])).await), LeaseEnd::Exited { code: 7 });
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn services_find_each_other_by_name_start_in_order_and_reach_nothing_else() {
    let bench = Bench::new().await;
    let db = "echo serving; mkdir /work/www; echo answer > /work/www/x; sleep 1; exec httpd -f -p 8080 -h /work/www";
    let test = json!({"kind": "http", "port": 8080, "path": "/x"});
    let health = json!({"test": test, "interval_seconds": 1, "retries": 30});
    let reach = fetch(&bench.reachable_neighbour());
    let main = format!("wget -q -O - http://db:8080/x; echo exit $?; {reach}; echo exit $?; exit 5");
    let lease = Bench::lease(vec![
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
    let bench = Bench::new().await;
    let lease = Bench::lease(vec![
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
    let bench = Bench::new().await;
    let count = |word: &str, last: &str| {
        format!(
            "i=0; while [ $i -lt 600 ]; do echo {word} $i; i=$((i+1)); [ $((i%20)) = 0 ] && sleep 0.1; done; {last}"
        )
    };
    let lease = Bench::lease(vec![
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
