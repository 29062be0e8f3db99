//! Real processes: a coordinator, and an agent that has enrolled at it.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fizz::control::{Answer, Client, Request, Snapshot};
use fizz::http::{ApiClient, Trust};
use fizz::paths::StateDir;
use fizz::rent::RentClient;
use fizz::wire::account::{AccountCreated, AccountView, Deposit, JoinTokenCreated, NewAccount, NewJoinToken};
use fizz::wire::node::{NodeList, NodeState};
use fizz::wire::{Amount, IDEMPOTENCY_HEADER, Secret};
use tempfile::TempDir;

use crate::Outcome;

/// The program to measure: the one built with this benchmark, or another of the same version.
fn fizz() -> Command {
    Command::new(std::env::var_os("FIZZ_BENCH_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_fizz").into()))
}

const START_DEADLINE: Duration = Duration::from_secs(180);

/// A child that does not outlive the benchmark.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts it; what it says goes to the end of `log`.
    pub fn start(command: &mut Command, log: &Path) -> Outcome<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Self { child })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A coordinator and an agent that waits for work.
pub struct Network {
    /// `fizz up`.
    pub agent: Process,
    /// `fizz coordinator serve`.
    pub coordinator: Process,
    /// The node's owner, as a renter; has money.
    pub renter: RentClient,
    /// The node's state.
    pub state: StateDir,
    folder: TempDir,
}

impl Network {
    /// Starts both and waits until the agent is idle. `lends` is the agent's configuration besides its coordinator.
    pub async fn start(lends: &str) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let (data, state) = (folder.path().join("coordinator"), folder.path().join("node"));
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let url = format!("https://{address}");
        let mut serve = fizz();
        let settings = folder.path().join("coordinator.toml");
        std::fs::write(
            &settings,
            "requests_per_minute_per_token = 1000000\nrequests_per_minute_per_address = 1000000\n",
        )?;
        serve.args(["coordinator", "serve", "--listen", &address.to_string(), "--config"]).arg(&settings);
        serve.arg("--data-dir").arg(&data);
        let coordinator = Process::start(&mut serve, &folder.path().join("coordinator.log"))?;

        let ca_file = data.join("ca.pem");
        until("the coordinator's token", || async { data.join("admin.token").exists() && ca_file.exists() }).await?;
        let api = ApiClient::new(&url, &Trust::Pinned { pem: std::fs::read(&ca_file)? })?;
        until("the coordinator", || async { api.get("/readyz").done().await.is_ok() }).await?;
        let admin = Secret::new(std::fs::read_to_string(data.join("admin.token"))?.trim().to_owned());

        let config = folder.path().join("fizz.toml");
        std::fs::write(
            &config,
            format!("coordinators = [{{ url = \"{url}\", ca_file = \"{}\" }}]\n{lends}", ca_file.display()),
        )?;
        let api_key = enroll(&api, &admin, &config, &state, &folder).await?;
        let renter = RentClient::new(&url, &Trust::Pinned { pem: std::fs::read(&ca_file)? }, api_key)?;
        let agent = Process::start(&mut up(&folder), &folder.path().join("agent.log"))?;
        let idle = || async {
            let nodes = api.get("/v1/admin/nodes").bearer(&admin).receive::<NodeList>().await;
            nodes.is_ok_and(|list| list.nodes.iter().any(|node| node.online && node.state == NodeState::Idle))
        };
        if let Err(error) = until("the agent", idle).await {
            return Err(format!("{error}\n{}", std::fs::read_to_string(folder.path().join("agent.log"))?).into());
        }
        Ok(Self { agent, coordinator, renter, state: StateDir::new(state), folder })
    }

    /// Kills the agent with SIGKILL and starts it again.
    pub fn kill_agent(&mut self) -> Outcome<()> {
        self.agent.child.kill()?;
        self.agent.child.wait()?;
        self.agent = Process::start(&mut up(&self.folder), &self.folder.path().join("agent.log"))?;
        Ok(())
    }

    /// What the agent shows its owner.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        match Client::ask(&self.state.control_socket(), Request::Snapshot).await {
            Ok(Answer::Snapshot { snapshot }) => Some(*snapshot),
            Ok(_) | Err(_) => None,
        }
    }
}

fn up(folder: &TempDir) -> Command {
    let mut up = fizz();
    let (config, state) = (folder.path().join("fizz.toml"), folder.path().join("node"));
    up.arg("up").env("FIZZ_CONFIG", config).env("FIZZ_STATE_DIR", state).env("FIZZ_NAME", "idle");
    up
}

/// `fizz enroll` with a fresh join token.
async fn enroll(api: &ApiClient, admin: &Secret, config: &Path, state: &Path, folder: &TempDir) -> Outcome<Secret> {
    let body = NewAccount { name: "idle".to_owned() };
    let owner: AccountCreated = api.post("/v1/admin/accounts").bearer(admin).json(&body).receive().await?;
    let deposit = api.post(&format!("/v1/admin/accounts/{}/deposits", owner.account_id)).bearer(admin);
    let body = Deposit { amount: Amount::from_micros(1_000_000_000_000) };
    let _: AccountView = deposit.header(IDEMPOTENCY_HEADER, "first").json(&body).receive().await?;
    let body = NewJoinToken { expires_seconds: 3600 };
    let join: JoinTokenCreated =
        api.post("/v1/account/join-tokens").bearer(&owner.api_key).json(&body).receive().await?;
    let token = folder.path().join("join.token");
    std::fs::write(&token, join.join_token.expose())?;
    let mut enroll = fizz();
    enroll.arg("enroll").arg("--token-file").arg(&token).env("FIZZ_CONFIG", config).env("FIZZ_STATE_DIR", state);
    let output = enroll.output()?;
    if output.status.success() {
        Ok(owner.api_key)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
    }
}

/// Looks until it is ready.
pub async fn until<F: Future<Output = bool>>(what: &str, mut ready: impl FnMut() -> F) -> Outcome<()> {
    let wait = async {
        while !ready().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let late = |_| format!("{what} did not come up within {} s", START_DEADLINE.as_secs());
    Ok(tokio::time::timeout(START_DEADLINE, wait).await.map_err(late)?)
}
