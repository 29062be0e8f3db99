//! A coordinator, a node and an engine, and what has to be true of them when a job is over.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use fizz::control::{Answer, Client, Request, Snapshot};
use fizz::http::{ApiClient, HttpError, Trust, install_crypto_provider};
use fizz::paths::StateDir;
use fizz::rent::RentClient;
use fizz::wire::account::{
    AccountCreated, AccountView, Deposit, JoinTokenCreated, LedgerView, NewAccount, NewJoinToken,
};
use fizz::wire::job::{JobSpec, JobState, JobView};
use fizz::wire::lease::{LeaseEnd, LeasePhase};
use fizz::wire::logs::LogStream;
use fizz::wire::node::{NodeList, NodeState, NodeView};
use fizz::wire::{Amount, JobId, NodeId, Secret};
use tempfile::TempDir;

use crate::engine::{Call, Engine, Image, LOOK, containers};
use crate::processes::Process;
use crate::relay::Relay;

/// Nothing here takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

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
    pub(crate) coordinator: Process,
    pub(crate) agent: Process,
    pub(crate) engine: Engine,
    pub(crate) relay: Relay,
    image: Arc<Image>,
    api: ApiClient,
    admin: Secret,
    renter: RentClient,
    node_id: NodeId,
    state: StateDir,
    folder: TempDir,
}

impl World {
    /// A node that waits for work, and a renter with money.
    pub(crate) async fn new() -> Self {
        install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let image = tokio::task::spawn_blocking(Image::shared).await.unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut coordinator = coordinator(&folder, address);
        coordinator.start();
        let data = folder.path().join("coordinator");
        let pem = until("the coordinator's files", async || {
            std::fs::read(data.join("ca.pem")).ok().filter(|pem| !pem.is_empty() && data.join("admin.token").exists())
        })
        .await;
        let (url, trust) = (format!("https://{address}"), Trust::Pinned { pem });
        let api = ApiClient::new(&url, &trust).unwrap();
        until("the coordinator", async || api.get("/readyz").done().await.ok()).await;
        let admin = Secret::new(std::fs::read_to_string(data.join("admin.token")).unwrap().trim().to_owned());
        let account = open_account(&api, &admin).await.unwrap();
        let renter = RentClient::new(&url, &trust, account.api_key.clone()).unwrap();

        let engine = Engine::open(folder.path());
        let relay = Relay::open(address).await;
        let mut agent = agent(&folder, &relay.url(), &engine.address(), &join_token(&api, &account).await.unwrap());
        agent.start();
        let state = StateDir::new(folder.path().join("node"));
        let ready = |node: &NodeView| node.online && node.offer.is_some() && node.state == NodeState::Idle;
        let node_id = until("the node", async || {
            let list: NodeList = api.get("/v1/admin/nodes").bearer(&admin).receive().await.ok()?;
            list.nodes.iter().find(|node| ready(node)).map(|node| node.node_id)
        })
        .await;
        Self { coordinator, agent, engine, relay, image, api, admin, renter, node_id, state, folder }
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
        Job(self.renter.submit(&spec, "the-job").await.unwrap().job_id)
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
            let view = self.renter.job(job.0).await.ok()?;
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
            while !self.renter.job(job.0).await.is_ok_and(|view| view.state.is_final()) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(time, over).await.is_ok()
    }

    /// Waits for the job's end and checks that it is as if nothing had happened.
    pub(crate) async fn check(&self, job: Job) {
        let view =
            until("the job's end", async || self.renter.job(job.0).await.ok().filter(|view| view.state.is_final()))
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
        self.renter.download_output(job.0, &mut tar).await.unwrap();
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
        until("no container", async || containers(self.node_id).is_empty().then_some(())).await;
        assert_eq!(self.engine.count(Call::Start, 204), 1);
        assert_eq!(self.engine.count(Call::Create, 201), self.engine.count(Call::Remove, 204));
        let spool: Vec<_> = std::fs::read_dir(self.state.spool()).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(spool.is_empty(), "{spool:?}");
    }

    async fn check_money(&self, view: &JobView) {
        let rate = view.lease.as_ref().unwrap().rate;
        assert!(view.cost >= rate.cost_of_millis(LINES * PAUSE_MILLIS), "all of its time is paid: {}", view.cost);
        assert_eq!(view.escrow, Amount::ZERO);
        let account = self.renter.account().await.unwrap();
        assert_eq!(account.balance, DEPOSIT.checked_sub(view.cost).unwrap());
        let ledger: LedgerView = self.api.get("/v1/admin/ledger").bearer(&self.admin).receive().await.unwrap();
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
        let mut log = self.renter.read_logs(job.0, 0);
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
        // A failed test may leave one; its agent must not take it up again meanwhile.
        self.agent.stop();
        for container in containers(self.node_id) {
            crate::engine::docker(&["rm", "--force", &container]);
        }
        let filter = format!("label={}={}", fizz::runtime::LABEL_NODE, self.node_id);
        for network in crate::engine::docker(&["network", "ls", "--quiet", "--filter", &filter]).lines() {
            crate::engine::docker(&["network", "rm", network]);
        }
    }
}

fn coordinator(folder: &TempDir, address: std::net::SocketAddr) -> Process {
    let config = folder.path().join("coordinator.toml");
    std::fs::write(&config, "heartbeat_interval_millis = 500\nlease_grace_seconds = 60\n").unwrap();
    let data = folder.path().join("coordinator");
    let arguments = ["coordinator", "serve", "--listen", &address.to_string(), "--data-dir", data.to_str().unwrap()];
    let arguments = arguments.into_iter().chain(["--config", config.to_str().unwrap()]).map(str::to_owned).collect();
    Process::new(arguments, Vec::new(), folder.path().join("coordinator.log"))
}

fn agent(folder: &TempDir, url: &str, engine: &str, join_token: &Secret) -> Process {
    let config = folder.path().join("fizz.toml");
    let ca_file = folder.path().join("coordinator/ca.pem");
    let text = format!(
        "name = \"attic\"\ncoordinators = [{{ url = \"{url}\", ca_file = \"{}\" }}]\nengine = {{ address = \"{engine}\" }}\n\
         network = {{ internet = false }}\n",
        ca_file.display()
    );
    std::fs::write(&config, text).unwrap();
    let variables = vec![
        ("FIZZ_CONFIG", config.display().to_string()),
        ("FIZZ_STATE_DIR", folder.path().join("node").display().to_string()),
        ("FIZZ_JOIN_TOKEN", join_token.expose().to_owned()),
    ];
    Process::new(vec!["up".to_owned()], variables, folder.path().join("agent.log"))
}

async fn open_account(api: &ApiClient, admin: &Secret) -> Result<AccountCreated, HttpError> {
    let name = NewAccount { name: "attic".to_owned() };
    let account: AccountCreated = api.post("/v1/admin/accounts").bearer(admin).json(&name).receive().await?;
    let path = format!("/v1/admin/accounts/{}/deposits", account.account_id);
    let deposit = api.post(&path).bearer(admin).header(fizz::wire::IDEMPOTENCY_HEADER, "first");
    let _: AccountView = deposit.json(&Deposit { amount: DEPOSIT }).receive().await?;
    Ok(account)
}

async fn join_token(api: &ApiClient, account: &AccountCreated) -> Result<Secret, HttpError> {
    let wish = NewJoinToken { expires_seconds: 600 };
    let created =
        api.post("/v1/account/join-tokens").bearer(&account.api_key).json(&wish).receive::<JoinTokenCreated>();
    Ok(created.await?.join_token)
}

async fn look(state: &StateDir) -> Option<Snapshot> {
    match Client::ask(&state.control_socket(), Request::Snapshot).await {
        Ok(Answer::Snapshot { snapshot }) => Some(*snapshot),
        Ok(_) | Err(_) => None,
    }
}

/// Every file below a folder.
fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Looks until there is something.
async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = found().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
