//! A coordinator, an engine that follows scripts, and nodes that come and go.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fizz::agent::signals::{self, Stop};
use fizz::agent::{self, AgentOptions, BenchmarkSource, CoordinatorAddress, EngineSource, Outcome};
use fizz::clock::Clock;
use fizz::config::{ByteSize, OfferConfig};
use fizz::control::Snapshot;
use fizz::coordinator::{self, CoordinatorConfig, Running};
use fizz::http::{ApiClient, Trust, install_crypto_provider};
use fizz::paths::StateDir;
use fizz::rent::RentClient;
use fizz::runtime::fake::{FakeImage, FakeRuntime, Step};
use fizz::wire::account::{AccountCreated, JoinTokenCreated, NewAccount, NewJoinToken};
use fizz::wire::bench::BenchmarkReport;
use fizz::wire::job::{JobLimits, JobSpec, JobView, Requirements, Resources, ServiceSpec};
use fizz::wire::lease::LeasePhase;
use fizz::wire::node::NodeState;
use fizz::wire::{Amount, HourlyRate, LeaseId, Secret};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Nothing here takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) coordinator: Option<Running>,
    config: CoordinatorConfig,
    clock: Clock,
    pub(crate) url: String,
    pub(crate) trust: Trust,
    pub(crate) account: AccountCreated,
    pub(crate) engine: FakeRuntime,
    pub(crate) dir: TempDir,
}

pub(crate) struct Node {
    pub(crate) snapshots: watch::Receiver<Snapshot>,
    pub(crate) stop: watch::Sender<Stop>,
    pub(crate) task: JoinHandle<Outcome>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Clock::system(), 60).await
    }

    /// One whose coordinator and engine go by this clock, and where nodes may be silent for so long.
    pub(crate) async fn with(clock: Clock, grace_seconds: u64) -> Self {
        install_crypto_provider();
        // `FIZZ_LOG=fizz=debug cargo test … -- --nocapture` tells the story; the first test sets it up for all.
        let filter = std::env::var("FIZZ_LOG").ok();
        let _ = fizz::telemetry::init(&fizz::telemetry::LogOptions { filter, ..Default::default() });
        let dir = tempfile::tempdir().unwrap();
        let config = CoordinatorConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            data_dir: dir.path().join("coordinator"),
            heartbeat_interval_millis: 300,
            lease_grace_seconds: Some(grace_seconds),
            ..CoordinatorConfig::default()
        };
        let running = coordinator::start(config.clone(), clock.clone()).await.unwrap();
        let url = running.url().as_str().trim_end_matches('/').to_owned();
        let trust = Trust::Pinned { pem: running.ca_pem().unwrap().as_bytes().to_vec() };
        let admin = running.admin_token().clone();
        let config = CoordinatorConfig { listen: running.address(), ..config };
        let api = ApiClient::new(&url, &trust).unwrap();
        let name = NewAccount { name: "attic".to_owned() };
        let account: AccountCreated =
            api.post("/v1/admin/accounts").bearer(&admin).json(&name).receive().await.unwrap();
        let engine = FakeRuntime::new(clock.clone());
        engine.add_image("hello", FakeImage::running([Step::line("hello")]));
        engine.add_image("hold", FakeImage::running([Step::line("begin"), Step::Hold, Step::line("end")]));
        let slow = FakeImage { layers: vec![1; 8], layer_time: Duration::from_millis(150), script: vec![Step::Hold] };
        engine.add_image("slow", slow);
        Self { coordinator: Some(running), config, clock, url, trust, account, engine, dir }
    }

    pub(crate) fn api(&self) -> ApiClient {
        ApiClient::new(&self.url, &self.trust).unwrap()
    }

    pub(crate) fn renter(&self) -> RentClient {
        RentClient::new(&self.url, &self.trust, self.account.api_key.clone()).unwrap()
    }

    pub(crate) async fn deposit(&self, dollars: i64) {
        let store = &self.coordinator.as_ref().unwrap().app().store;
        let amount = Amount::from_micros(dollars * 1_000_000);
        store.deposit(self.account.account_id, amount, "first", Clock::system().now()).await.unwrap();
    }

    pub(crate) async fn join_token(&self) -> Secret {
        let wish = NewJoinToken { expires_seconds: 600 };
        let call = self.api().post("/v1/account/join-tokens").bearer(&self.account.api_key).json(&wish);
        call.receive::<JoinTokenCreated>().await.unwrap().join_token
    }

    pub(crate) async fn stop_coordinator(&mut self) {
        if let Some(running) = self.coordinator.take() {
            running.shutdown(Duration::from_millis(200)).await;
        }
    }

    /// Starts it again on the same port and folder.
    pub(crate) async fn start_coordinator(&mut self) {
        self.coordinator = Some(coordinator::start(self.config.clone(), self.clock.clone()).await.unwrap());
    }

    pub(crate) fn state_dir(&self, name: &str) -> StateDir {
        StateDir::new(self.dir.path().join(name))
    }

    /// Options of a node that enrols with `join_token`.
    pub(crate) fn options(&self, name: &str, join_token: Option<Secret>) -> AgentOptions {
        options(&self.state_dir(name), &[(&self.url, self.trust.clone())], join_token, &self.engine)
    }

    pub(crate) async fn node(&self, name: &str) -> Node {
        let token = self.join_token().await;
        Node::start(self.options(name, Some(token)), Clock::system()).await
    }

    pub(crate) async fn submit(&self, image: &str) -> JobView {
        self.renter().submit(&job(image), &format!("job-{image}")).await.unwrap()
    }
}

pub(crate) fn options(
    state_dir: &StateDir,
    coordinators: &[(&str, Trust)],
    join_token: Option<Secret>,
    engine: &FakeRuntime,
) -> AgentOptions {
    let address = |(url, trust): &(&str, Trust)| CoordinatorAddress { url: (*url).to_owned(), trust: trust.clone() };
    AgentOptions {
        state_dir: state_dir.clone(),
        name: "attic".to_owned(),
        coordinators: coordinators.iter().map(address).collect(),
        join_token,
        // Named, so that a nearly full disk does not lend nothing.
        offer: OfferConfig { disk: Some(ByteSize(1 << 30)), ..OfferConfig::default() },
        engine: EngineSource::Given(Arc::new(engine.clone())),
        ceiling: fizz::config::Ceiling::default(),
        benchmark: BenchmarkSource::Fixed(Box::new(report())),
        prover: None,
        drain_deadline: Duration::from_secs(10),
        reconcile_every: Duration::from_secs(1),
    }
}

fn report() -> BenchmarkReport {
    BenchmarkReport {
        measured_at: Clock::system().now(),
        fingerprint: "0".repeat(64),
        method: 1,
        host: Default::default(),
        gpus: Vec::new(),
        score: 7,
        problems: Vec::new(),
    }
}

pub(crate) fn job(image: &str) -> JobSpec {
    JobSpec {
        name: None,
        services: vec![ServiceSpec {
            name: "main".to_owned(),
            image: image.to_owned(),
            entrypoint: None,
            command: Vec::new(),
            env: std::collections::BTreeMap::new(),
            workdir: None,
            resources: Resources {
                cpu_millis: 100,
                memory_bytes: 16 << 20,
                disk_bytes: 1 << 20,
                ..Resources::default()
            },
            ..ServiceSpec::default()
        }],
        requirements: Requirements::default(),
        limits: JobLimits {
            price_max: "1".parse::<HourlyRate>().unwrap(),
            duration_seconds_max: 600,
            start_deadline_seconds: None,
            stop_grace_seconds: 1,
            log_bytes_max: 1 << 20,
            output_bytes_max: 1 << 20,
            pids_max: 16,
        },
        output_path: None,
        ..JobSpec::default()
    }
}

impl Node {
    pub(crate) async fn start(options: AgentOptions, clock: Clock) -> Self {
        let agent = agent::build(options, clock).await.unwrap();
        let (stop, stopped) = signals::channel();
        let snapshots = agent.snapshots();
        Self { snapshots, stop, task: tokio::spawn(agent.run(stopped)) }
    }

    /// Waits until the owner's view is as wished.
    pub(crate) async fn until(&mut self, what: &str, wished: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let view = self.snapshots.clone();
        let found = tokio::time::timeout(PATIENCE, self.snapshots.wait_for(|s| wished(s))).await;
        match found {
            Ok(Ok(snapshot)) => snapshot.clone(),
            Ok(Err(_)) => panic!("the agent ended while waiting until {what}"),
            Err(_) => panic!("not {what}: {:#?}", *view.borrow()),
        }
    }

    pub(crate) async fn until_state(&mut self, state: NodeState) -> Snapshot {
        self.until(&format!("{state:?}"), |s| s.state == state).await
    }

    /// Waits until some lease is in this phase and says which.
    pub(crate) async fn until_phase(&mut self, phase: LeasePhase) -> LeaseId {
        let snapshot = self.until(&format!("{phase:?}"), |s| s.leases.iter().any(|l| l.phase == phase)).await;
        snapshot.leases.iter().find(|l| l.phase == phase).unwrap().lease_id
    }

    /// What `kill -9` does: nothing is said, nothing is cleaned up.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    pub(crate) async fn drain(self) -> Outcome {
        self.stop.send(Stop::Drain).unwrap();
        within(self.task).await.unwrap()
    }
}

/// Turns a manual clock as real time passes, until dropped.
pub(crate) fn turning(clock: &Clock) -> tokio::task::JoinSet<()> {
    const STEP: Duration = Duration::from_millis(20);
    let clock = clock.clone();
    let mut pump = tokio::task::JoinSet::new();
    pump.spawn(async move {
        let mut tick = tokio::time::interval(STEP);
        loop {
            tick.tick().await;
            clock.advance(STEP);
        }
    });
    pump
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("took too long")
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}
