//! A coordinator, a node and an engine, and what has to be true of them when a job is over.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use fizz::control::{Answer, Client, Request, Snapshot};
use fizz::paths::StateDir;
use fizz::wire::job::{JobSpec, JobState, JobView};
use fizz::wire::lease::{LeaseEnd, LeasePhase};
use fizz::wire::logs::LogStream;
use fizz::wire::node::NodeState;
use fizz::wire::{Amount, JobId};
use tempfile::TempDir;

use crate::docker_support::{TestImage, TestNode};
use crate::engine::{Call, Engine, containers, shared_image};
use crate::process_support::{LOOK, Process, Town, look, until};
use crate::relay::Relay;

const DEPOSIT: Amount = Amount::from_micros(10_000_000);
const LINES: u64 = 60;
const PAUSE_MILLIS: u64 = 50;
/// Deposit, hold, pay, release.
const TRANSACTIONS: u64 = 4;

/// Counts its own starts, then writes numbered lines to both streams, then a file.
const SCRIPT: &str = r#"
echo start >> starts; echo "start $(wc -l < starts)"
i=0
while [ $i -lt 60 ]; do
    i=$((i+1)); echo "line $i"; [ $((i % 10)) -ne 0 ] || echo "mark $i" >&2
    sleep 0.05
done
seq 1 600000 > /output/numbers
"#;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Job(JobId);

pub(crate) struct World {
    pub(crate) town: Town,
    pub(crate) agent: Process,
    pub(crate) engine: Engine,
    pub(crate) relay: Relay,
    // Its containers go before their image.
    node: TestNode,
    image: Arc<TestImage>,
    state: StateDir,
    folder: TempDir,
}

impl World {
    /// A node that waits for work, and a renter with money.
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = tokio::task::spawn_blocking(shared_image).await.unwrap();
        let town = Town::open(folder.path(), "", DEPOSIT).await;
        let engine = Engine::open(folder.path());
        let relay = Relay::open(town.address).await;
        let mut agent = town.agent(folder.path(), &relay.url(), &engine.address(), "").await;
        agent.start();
        let state = StateDir::new(folder.path().join("node"));
        let node = TestNode { node_id: town.node().await };
        Self { town, agent, engine, relay, node, image, state, folder }
    }

    pub(crate) async fn submit(&self) -> Job {
        let spec: JobSpec = serde_json::from_value(serde_json::json!({
            "services": [{
                "name": "main", "image": self.image.name, "command": ["/bin/sh", "-c", SCRIPT],
                "resources": {"cpu_millis": 500, "memory_bytes": 32 << 20, "disk_bytes": 64 << 20},
            }],
            "limits": {"price_max": 1_000_000, "duration_seconds_max": 600, "stop_grace_seconds": 1},
            "output_path": "/output",
        }))
        .unwrap();
        Job(self.town.renter.submit(&spec, "the-job").await.unwrap().job_id)
    }

    /// What fizz prints when the node's owner asks it.
    pub(crate) fn fizz(&self, arguments: &[&str]) -> String {
        let output = self.agent.command(arguments).env("COLUMNS", "400").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Wrapped to the terminal's width; the words are what is looked at.
        String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    pub(crate) async fn until_phase(&self, job: Job, phase: LeasePhase) {
        until(&format!("{phase:?}"), async || {
            let view = self.town.renter.job(job.0).await.ok()?;
            view.lease.filter(|lease| lease.phase == phase).map(drop)
        })
        .await;
    }

    pub(crate) async fn until_logged(&self, job: Job, words: &str) {
        until(words, async || self.log(job).await.ok()?.0.contains(words).then_some(())).await;
    }

    pub(crate) async fn until_owner_sees(&self, what: &str, wished: impl Fn(&Snapshot) -> bool) -> Snapshot {
        until(what, async || look(&self.state).await.filter(|snapshot| wished(snapshot))).await
    }

    /// Whether the job's end comes within this time.
    pub(crate) async fn is_over_within(&self, job: Job, time: Duration) -> bool {
        let over = async {
            while !self.town.renter.job(job.0).await.is_ok_and(|view| view.state.is_final()) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(time, over).await.is_ok()
    }

    /// Waits for the job's end and checks that it is as if nothing had happened.
    pub(crate) async fn check(&self, job: Job) {
        let view = until("the job's end", async || {
            self.town.renter.job(job.0).await.ok().filter(|view| view.state.is_final())
        })
        .await;
        assert_eq!((view.state, &view.outcome), (JobState::Done, &Some(LeaseEnd::Exited { code: 0 })), "{}", view.why);
        assert_eq!(view.lease_count, 1);
        self.check_log(job, &view).await;
        self.check_output(job).await;
        self.check_node().await;
        self.check_money(&view).await;
    }

    async fn check_log(&self, job: Job, view: &JobView) {
        assert!(view.log_complete);
        let (stdout, stderr, notices) = self.log(job).await.unwrap();
        let lines: String = (1..=LINES).map(|i| format!("line {i}\n")).collect();
        assert_eq!(stdout, format!("start 1\n{lines}"));
        assert_eq!(stderr, (1..=LINES / 10).map(|i| format!("mark {}\n", i * 10)).collect::<String>());
        assert_eq!(notices, "");
    }

    async fn check_output(&self, job: Job) {
        let file = self.folder.path().join("output.tar");
        let mut tar =
            tokio::fs::File::options().create(true).read(true).write(true).truncate(true).open(&file).await.unwrap();
        // It checks length and SHA-256 against what the coordinator announced.
        self.town.renter.download_output(job.0, &mut tar).await.unwrap();
        let mut numbers = String::new();
        let mut tar = tar::Archive::new(std::fs::File::open(&file).unwrap());
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.path().unwrap().ends_with("numbers") {
                entry.read_to_string(&mut numbers).unwrap();
            }
        }
        let kept = files(&self.folder.path().join("coordinator/outputs"));
        assert_eq!(kept.len(), 1, "half an output is left: {kept:?}");
        assert!(numbers == (1..=600_000).map(|i| format!("{i}\n")).collect::<String>(), "{} bytes", numbers.len());
    }

    /// One container was started, once; every one that was made is removed, and the node waits for work.
    async fn check_node(&self) {
        self.until_owner_sees("nothing to do", |s| s.state == NodeState::Idle && s.leases.is_empty()).await;
        until("no container", async || containers(self.node.node_id).is_empty().then_some(())).await;
        assert_eq!(self.engine.count(Call::Start, 204), 1);
        assert_eq!(self.engine.count(Call::Create, 201), self.engine.count(Call::Remove, 204));
        let spool: Vec<_> = std::fs::read_dir(self.state.spool()).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(spool.is_empty(), "{spool:?}");
    }

    async fn check_money(&self, view: &JobView) {
        let rate = view.lease.as_ref().unwrap().rate;
        assert!(view.cost >= rate.cost_of_millis(LINES * PAUSE_MILLIS), "all of its time is paid: {}", view.cost);
        assert_eq!(view.escrow, Amount::ZERO);
        let account = self.town.renter.account().await.unwrap();
        assert_eq!(account.balance, DEPOSIT.checked_sub(view.cost).unwrap());
        let ledger = self.town.ledger().await;
        assert_eq!((ledger.sum, ledger.unbalanced, ledger.transactions), (Amount::ZERO, 0, TRANSACTIONS));
        let fees = ledger.lines.iter().find(|line| line.account == "fees").map_or(Amount::ZERO, |line| line.balance);
        assert_eq!(account.earned.checked_add(fees).unwrap(), view.cost);
        let socket = self.state.control_socket();
        let answer = Client::ask(&socket, Request::Earnings).await.unwrap();
        let Answer::Earnings { earnings, stale } = answer else { panic!("no earnings: {answer:?}") };
        assert_eq!((earnings.leases_paid, earnings.all_time, stale), (1, account.earned, None));
    }

    /// The log so far: what the job wrote to each stream, and what others wrote into it.
    async fn log(&self, job: Job) -> Result<(String, String, String), fizz::rent::RentError> {
        let mut log = self.town.renter.read_logs(job.0, 0);
        let (mut stdout, mut stderr, mut notices) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(frame) = log.next().await? {
            match frame.stream {
                LogStream::Stdout => stdout.extend_from_slice(&frame.bytes),
                LogStream::Stderr => stderr.extend_from_slice(&frame.bytes),
                LogStream::Notice => notices.extend_from_slice(&frame.bytes),
            }
        }
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ok((text(stdout), text(stderr), text(notices)))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A failed test may leave a container; its agent must not take it up again while it is removed.
        self.agent.stop();
    }
}

/// Every file below a folder.
fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
