//! A coordinator on a free port of this machine, a renter with money, and nodes that do as they are told.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ed25519_dalek::{Signer as _, SigningKey};
use fizz::clock::Clock;
use fizz::coordinator::{CoordinatorConfig, Running, start};
use fizz::http::{ApiClient, HttpError, Trust, install_crypto_provider};
use fizz::wire::account::{AccountCreated, JoinTokenCreated, NewAccount, NewJoinToken};
use fizz::wire::enroll::{EnrollRequest, EnrollStatus, NonceGrant, NonceRequest, SessionGrant, SessionRequest};
use fizz::wire::job::{JobLimits, JobSpec, JobState, JobView, Requirements, Resources, ServiceSpec, SubmitJob};
use fizz::wire::lease::{
    Assignment, Assignments, EventsAccepted, LeaseChange, LeaseEnd, LeaseEvent, LeaseEvents, LeasePhase, LogAccepted,
    OutputAccepted, OutputFinished, OutputProgress,
};
use fizz::wire::logs::{LogStream, decode, encode};
use fizz::wire::node::{Engine, Heartbeat, HeartbeatAck, Host, Inventory, LeaseReport, NodeState, Offer};
use fizz::wire::signed::{ReportKind, SignedReport, enroll_message, report_message, session_message};
use fizz::wire::{
    Amount, BootId, ErrorCode, Generation, IDEMPOTENCY_HEADER, JobId, LOG_MEDIA_TYPE, LeaseId, NodeId, Nonce,
    PublicKey, Secret, Sequence, Signature,
};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// How long a test waits for a state before it fails.
const PATIENCE: Duration = Duration::from_secs(20);
const VERSION: &str = "0.1.0";

pub(crate) struct World {
    pub(crate) running: Running,
    pub(crate) clock: Clock,
    pub(crate) renter: AccountCreated,
    pub(crate) owner: AccountCreated,
    folder: TempDir,
}

impl World {
    /// With a renter who has ten dollars.
    pub(crate) async fn new() -> Self {
        install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        // TLS looks at the machine's clock, so the hand-turned one starts there.
        let clock = Clock::manual(Clock::system().now());
        let running = start(config(&folder), clock.clone()).await.unwrap();
        let mut accounts = Vec::new();
        for name in ["renter", "owner"] {
            let client = client_of(&running);
            let call = client.post("/v1/admin/accounts").bearer(running.admin_token());
            accounts.push(call.json(&NewAccount { name: name.into() }).receive::<AccountCreated>().await.unwrap());
        }
        let [renter, owner] = <[_; 2]>::try_from(accounts).unwrap();
        let world = Self { running, clock, renter, owner, folder };
        world.deposit("10").await;
        world
    }

    /// The coordinator's process dies without a word and another one starts on the same folder.
    pub(crate) async fn kill_and_start(self) -> Self {
        let Self { running, clock, renter, owner, folder } = self;
        drop(running);
        // Its tasks are cut off, but hold the folder until they are next polled.
        let started = async {
            loop {
                match start(config(&folder), clock.clone()).await {
                    Ok(running) => return running,
                    Err(error) => assert!(error.to_string().contains("uses"), "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let running = tokio::time::timeout(PATIENCE, started).await.expect("the folder is free in time");
        Self { running, clock, renter, owner, folder }
    }

    pub(crate) async fn deposit(&self, usd: &str) {
        let store = &self.running.app().store;
        store.deposit(self.renter.account_id, usd.parse().unwrap(), usd, self.clock.now()).await.unwrap();
    }

    pub(crate) fn client(&self) -> ApiClient {
        client_of(&self.running)
    }

    /// Time passes, and the coordinator looks around.
    pub(crate) fn turn(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.running.app().wake.match_jobs();
    }

    /// Time passes while `node` is heard all along.
    pub(crate) async fn turn_with(&self, seconds: u64, node: &mut Node, lease: LeaseId) {
        let steps = seconds.div_ceil(100);
        for _ in 0..steps {
            self.turn(seconds / steps);
            node.beat(NodeState::Working, &[lease]).await;
        }
    }

    /// A node that has joined, said what it lends, and is idle.
    pub(crate) async fn node(&self, seed: u8, price: &str) -> Node {
        Node::join(self.client(), &self.owner.api_key, seed, price, self.clock.now()).await
    }

    pub(crate) async fn submit(&self, spec: &JobSpec) -> Result<JobView, HttpError> {
        let call = self.client().post("/v1/jobs").bearer(&self.renter.api_key);
        call.json(&SubmitJob { spec: spec.clone() }).receive().await
    }

    pub(crate) async fn submit_with_key(&self, spec: &JobSpec, key: &str) -> Result<JobView, HttpError> {
        let call = self.client().post("/v1/jobs").bearer(&self.renter.api_key).header(IDEMPOTENCY_HEADER, key);
        call.json(&SubmitJob { spec: spec.clone() }).receive().await
    }

    pub(crate) async fn view(&self, job_id: JobId) -> JobView {
        self.client().get(&format!("/v1/jobs/{job_id}")).bearer(&self.renter.api_key).receive().await.unwrap()
    }

    pub(crate) async fn stop(&self, job_id: JobId) -> JobView {
        self.client().delete(&format!("/v1/jobs/{job_id}")).bearer(&self.renter.api_key).receive().await.unwrap()
    }

    /// Waits until the job is as wished.
    pub(crate) async fn until(&self, job_id: JobId, wish: impl Fn(&JobView) -> bool) -> JobView {
        let mut last = None;
        let wait = async {
            loop {
                let mut changed = self.running.app().wake.watch_job(job_id);
                let view = self.view(job_id).await;
                if wish(&view) {
                    return view;
                }
                last = Some(view);
                // Not every change is announced (why a job waits is not), so the state is read again anyway.
                let _ = tokio::time::timeout(Duration::from_millis(50), changed.changed()).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain; last {last:?}"))
    }

    pub(crate) async fn until_state(&self, job_id: JobId, state: JobState) -> JobView {
        self.until(job_id, |view| view.state == state).await
    }

    /// What the job delivered.
    pub(crate) async fn output(&self, job_id: JobId) -> Bytes {
        let call = self.client().get(&format!("/v1/jobs/{job_id}/output")).bearer(&self.renter.api_key);
        call.open().await.unwrap().bytes().await.unwrap()
    }

    /// Files that lie where outputs are kept, half ones too.
    pub(crate) fn output_files(&self) -> usize {
        let Ok(jobs) = std::fs::read_dir(self.folder.path().join("data/outputs")) else { return 0 };
        jobs.flat_map(|job| std::fs::read_dir(job.unwrap().path()).into_iter().flatten()).count()
    }

    pub(crate) async fn log(&self, job_id: JobId, query: &str) -> String {
        let call = self.client().get(&format!("/v1/jobs/{job_id}/logs?{query}")).bearer(&self.renter.api_key);
        text_of(call.open().await.unwrap().bytes().await.unwrap())
    }

    /// The sum over the whole ledger is zero, and whatever is unfinished still has its money.
    pub(crate) async fn books_balance(&self) {
        let store = &self.running.app().store;
        let ledger = store.ledger_view().await.unwrap();
        assert_eq!((ledger.sum, ledger.unbalanced), (Amount::ZERO, 0), "{ledger:?}");
        assert_eq!(store.ledger_drift().await.unwrap(), []);
        for job in store.jobs(self.renter.account_id, None, 500).await.unwrap() {
            assert_eq!(job.state.is_final(), job.escrow == Amount::ZERO, "{job:?}");
        }
    }

    pub(crate) async fn spendable(&self) -> Amount {
        self.running.app().store.balances(self.renter.account_id).await.unwrap().spendable
    }

    pub(crate) async fn earned(&self) -> Amount {
        self.running.app().store.balances(self.owner.account_id).await.unwrap().earned
    }
}

fn config(folder: &TempDir) -> CoordinatorConfig {
    CoordinatorConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        data_dir: folder.path().join("data"),
        requests_per_minute_per_token: 1_000_000,
        requests_per_minute_per_address: 1_000_000,
        ..CoordinatorConfig::default()
    }
}

fn client_of(running: &Running) -> ApiClient {
    let pem = running.ca_pem().unwrap().as_bytes().to_vec();
    ApiClient::new(running.url().as_str(), &Trust::Pinned { pem }).unwrap()
}

fn sign(key: &SigningKey, message: &[u8]) -> Signature {
    Signature::from_bytes(key.sign(message).to_bytes())
}

/// A node that does as the test tells it.
pub(crate) struct Node {
    client: ApiClient,
    key: SigningKey,
    pub(crate) node_id: NodeId,
    pub(crate) token: Secret,
    boot_id: BootId,
    sequence: u64,
    pub(crate) acted: Generation,
}

impl Node {
    /// A node of `owner` that has joined, said what it lends, and is idle.
    pub(crate) async fn join(client: ApiClient, owner: &Secret, seed: u8, price: &str, now: jiff::Timestamp) -> Self {
        let call = client.post("/v1/account/join-tokens").bearer(owner);
        let token: JoinTokenCreated = call.json(&NewJoinToken { expires_seconds: 600 }).receive().await.unwrap();
        let key = SigningKey::from_bytes(&[seed; 32]);
        let public_key = PublicKey::from_bytes(key.verifying_key().to_bytes());
        let name = format!("node-{seed}");
        let proof = sign(&key, &enroll_message(&public_key, &name));
        let agent_version = VERSION.to_owned();
        let request = EnrollRequest { public_key, name, agent_version, join_token: Some(token.join_token), proof };
        let status = client.post("/v1/enrollments").json(&request).receive().await.unwrap();
        let EnrollStatus::Approved { node_id } = status else { panic!("{status:?}") };
        let boot_id = BootId::generate(now);
        let mut node =
            Self { client, key, node_id, token: Secret::new(""), boot_id, sequence: 0, acted: Generation(0) };
        node.open_session().await;
        node.offer(price, now).await;
        node.beat(NodeState::Idle, &[]).await;
        node
    }

    /// The node goes on with another coordinator process.
    pub(crate) async fn connect(&mut self, client: ApiClient) {
        self.client = client;
        self.open_session().await;
    }

    /// The same, and it is idle.
    pub(crate) async fn reconnect(&mut self, world: &World) {
        self.connect(world.client()).await;
        self.beat(NodeState::Idle, &[]).await;
    }

    async fn open_session(&mut self) {
        let node_id = self.node_id;
        let call = self.client.post("/v1/sessions/nonce").json(&NonceRequest { node_id });
        let NonceGrant { nonce, .. } = call.receive().await.unwrap();
        let signature = sign(&self.key, &session_message(node_id, &nonce, VERSION));
        let request = SessionRequest { node_id, nonce, agent_version: VERSION.into(), signature };
        self.token = self.client.post("/v1/sessions").json(&request).receive::<SessionGrant>().await.unwrap().token;
    }

    async fn offer(&self, price: &str, at: jiff::Timestamp) {
        let body = serde_json::to_string(&inventory(price)).unwrap();
        let nonce = Nonce::from_bytes([self.key.to_bytes()[0]; 16]);
        let signature = sign(&self.key, &report_message(ReportKind::Inventory, self.node_id, &nonce, at, &body));
        let report = SignedReport { body, nonce, at, signature };
        self.client.put("/v1/node/inventory").bearer(&self.token).json(&report).done().await.unwrap();
    }

    pub(crate) async fn beat(&mut self, state: NodeState, leases: &[LeaseId]) -> HeartbeatAck {
        self.sequence += 1;
        let report = |lease_id: &LeaseId| LeaseReport { lease_id: *lease_id, phase: LeasePhase::Running };
        let heartbeat = Heartbeat {
            boot_id: self.boot_id,
            sequence: Sequence(self.sequence),
            state,
            reason: None,
            assignment_generation: self.acted,
            leases: leases.iter().map(report).collect(),
        };
        self.client.post("/v1/node/heartbeat").bearer(&self.token).json(&heartbeat).receive().await.unwrap()
    }

    pub(crate) async fn assignments(&mut self, query: &str) -> Assignments {
        let call = self.client.get(&format!("/v1/node/assignments?{query}")).bearer(&self.token);
        let found: Assignments = call.receive().await.unwrap();
        self.acted = found.generation;
        found
    }

    /// Waits for the first assignment that the node has not acted on.
    pub(crate) async fn assigned(&mut self) -> Assignment {
        let wait = async {
            loop {
                let found = self.assignments(&format!("after={}&wait=20", self.acted)).await;
                if let Some(first) = found.leases.into_iter().next() {
                    return first;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("a lease is assigned in time")
    }

    pub(crate) async fn report(&self, lease: LeaseId, from: u64, whats: &[LeaseChange]) -> Result<Sequence, HttpError> {
        let at = Clock::system().now();
        let event = |(n, what): (u64, &LeaseChange)| LeaseEvent { sequence: Sequence(n), at, what: what.clone() };
        let events = LeaseEvents { events: (from..).zip(whats).map(event).collect() };
        let call = self.client.post(&format!("/v1/leases/{lease}/events")).bearer(&self.token).json(&events);
        call.receive::<EventsAccepted>().await.map(|accepted| accepted.through)
    }

    pub(crate) async fn log(&self, lease: LeaseId, query: &str, bytes: Bytes) -> Result<u64, HttpError> {
        let call = self.client.post(&format!("/v1/leases/{lease}/logs?{query}")).bearer(&self.token);
        call.body(LOG_MEDIA_TYPE, bytes).receive::<LogAccepted>().await.map(|accepted| accepted.next_offset)
    }

    /// A part of an output; where to go on.
    pub(crate) async fn part(
        &self,
        lease: LeaseId,
        offset: usize,
        bytes: impl Into<reqwest::Body>,
        sha256: &str,
    ) -> Result<u64, HttpError> {
        let path = format!("/v1/leases/{lease}/output/parts?offset={offset}&sha256={}", sha256.replace(' ', "%20"));
        let call = self.client.post(&path).bearer(&self.token).body("application/x-tar", bytes);
        call.receive::<OutputProgress>().await.map(|progress| progress.next_offset)
    }

    pub(crate) async fn finish(&self, lease: LeaseId, bytes: usize, sha256: &str) -> Result<OutputAccepted, HttpError> {
        let finished = OutputFinished { bytes: bytes as u64, sha256: sha256.to_owned() };
        self.client.put(&format!("/v1/leases/{lease}/output")).bearer(&self.token).json(&finished).receive().await
    }

    /// A whole output.
    pub(crate) async fn output(&self, lease: LeaseId, tar: Bytes, sha256: &str) -> Result<OutputAccepted, HttpError> {
        let bytes = tar.len();
        self.part(lease, 0, tar, sha256).await?;
        self.finish(lease, bytes, sha256).await
    }

    pub(crate) async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, HttpError> {
        self.client.get(path).bearer(&self.token).receive().await
    }
}

/// Four cores, 8 GiB of memory, 64 GiB of disk, at `price` an hour for all of it.
fn inventory(price: &str) -> Inventory {
    Inventory {
        host: Host {
            os: "Debian 12".into(),
            kernel: "6.1".into(),
            architecture: "amd64".into(),
            cpu_model: "a processor".into(),
            cpu_cores: 4,
            cpu_threads: 8,
            memory_bytes: 16 << 30,
            disk_bytes_free: 100 << 30,
        },
        gpus: Vec::new(),
        engine: Engine { name: "docker".into(), version: "20.10".into(), api_version: "1.41".into() },
        offer: Offer {
            cpu_millis: 4000,
            memory_bytes: 8 << 30,
            disk_bytes: 64 << 30,
            gpus: 0,
            price_min: price.parse().unwrap(),
            internet: false,
            domains: None,
            isolation: Vec::new(),
        },
    }
}

/// A job that takes a quarter of a node for at most an hour, at no more than 0.36 USD.
pub(crate) fn job() -> JobSpec {
    JobSpec {
        name: Some("a job".into()),
        services: vec![ServiceSpec {
            name: "main".into(),
            image: "busybox".into(),
            entrypoint: None,
            command: vec!["true".into()],
            env: [("TOKEN".to_owned(), Secret::new("hunter2"))].into(),
            workdir: None,
            resources: Resources { cpu_millis: 1000, memory_bytes: 1 << 30, disk_bytes: 1 << 30, gpus: 0 },
            ..ServiceSpec::default()
        }],
        requirements: Requirements::default(),
        limits: JobLimits {
            price_max: "0.36".parse().unwrap(),
            duration_seconds_max: 3600,
            start_deadline_seconds: None,
            stop_grace_seconds: 10,
            log_bytes_max: 1 << 20,
            output_bytes_max: 1 << 20,
            pids_max: 64,
        },
        output_path: Some("/output".into()),
        ..JobSpec::default()
    }
}

pub(crate) fn exited(code: i32, ran_millis: u64) -> LeaseChange {
    LeaseChange::Ended { end: LeaseEnd::Exited { code }, ran_millis }
}

pub(crate) fn framed(text: &str) -> Bytes {
    let mut out = BytesMut::new();
    encode(LogStream::Stdout, text.as_bytes(), &mut out);
    out.freeze()
}

pub(crate) fn text_of(frames: Bytes) -> String {
    let mut buffer = BytesMut::from(frames);
    let mut text = Vec::new();
    while let Some(frame) = decode(&mut buffer).unwrap() {
        text.extend_from_slice(&frame.bytes);
    }
    String::from_utf8(text).unwrap()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

pub(crate) fn usd(text: &str) -> Amount {
    text.parse().unwrap()
}

/// The code of a refusal; anything else is a failed test.
#[track_caller]
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, HttpError>) -> ErrorCode {
    problem(result).code
}

#[track_caller]
pub(crate) fn problem<T: std::fmt::Debug>(result: Result<T, HttpError>) -> Box<fizz::wire::Problem> {
    match result {
        Err(HttpError::Problem(problem)) => problem,
        other => panic!("expected a refusal, got {other:?}"),
    }
}
