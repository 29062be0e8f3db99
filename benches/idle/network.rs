//! Real processes: a coordinator, an agent that has enrolled at it, and boinc-client where there is one.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fizz::http::{ApiClient, Trust};
use fizz::wire::account::{AccountCreated, JoinTokenCreated, NewAccount, NewJoinToken};
use fizz::wire::{Secret, node::NodeList, node::NodeState};
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
    /// Its folder, which goes with it.
    _folder: Option<TempDir>,
}

impl Process {
    fn start(command: &mut Command, log: &Path) -> Outcome<Self> {
        let log = File::create(log)?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Self { child, _folder: None })
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
    _folder: TempDir,
}

impl Network {
    /// Starts both and waits until the agent is idle.
    pub async fn start() -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let (data, state) = (folder.path().join("coordinator"), folder.path().join("node"));
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let url = format!("https://{address}");
        let mut serve = fizz();
        serve.args(["coordinator", "serve", "--listen", &address.to_string(), "--data-dir"]).arg(&data);
        let coordinator = Process::start(&mut serve, &folder.path().join("coordinator.log"))?;

        let ca_file = data.join("ca.pem");
        until("the coordinator's token", || async { data.join("admin.token").exists() && ca_file.exists() }).await?;
        let api = ApiClient::new(&url, &Trust::Pinned { pem: std::fs::read(&ca_file)? })?;
        until("the coordinator", || async { api.get("/readyz").done().await.is_ok() }).await?;
        let admin = Secret::new(std::fs::read_to_string(data.join("admin.token"))?.trim().to_owned());

        let config = folder.path().join("fizz.toml");
        std::fs::write(
            &config,
            format!("coordinators = [{{ url = \"{url}\", ca_file = \"{}\" }}]\n", ca_file.display()),
        )?;
        let mut up = fizz();
        up.arg("up").env("FIZZ_CONFIG", &config).env("FIZZ_STATE_DIR", &state).env("FIZZ_NAME", "idle");
        enroll(&api, &admin, &config, &state, &folder).await?;
        let agent = Process::start(&mut up, &folder.path().join("agent.log"))?;
        let idle = || async {
            let nodes = api.get("/v1/admin/nodes").bearer(&admin).receive::<NodeList>().await;
            nodes.is_ok_and(|list| list.nodes.iter().any(|node| node.online && node.state == NodeState::Idle))
        };
        if let Err(error) = until("the agent", idle).await {
            return Err(format!("{error}\n{}", std::fs::read_to_string(folder.path().join("agent.log"))?).into());
        }
        Ok(Self { agent, coordinator, _folder: folder })
    }
}

/// `fizz enroll` with a fresh join token.
async fn enroll(api: &ApiClient, admin: &Secret, config: &Path, state: &Path, folder: &TempDir) -> Outcome<()> {
    let body = NewAccount { name: "idle".to_owned() };
    let owner: AccountCreated = api.post("/v1/admin/accounts").bearer(admin).json(&body).receive().await?;
    let body = NewJoinToken { expires_seconds: 3600 };
    let join: JoinTokenCreated =
        api.post("/v1/account/join-tokens").bearer(&owner.api_key).json(&body).receive().await?;
    let token = folder.path().join("join.token");
    std::fs::write(&token, join.join_token.expose())?;
    let mut enroll = fizz();
    enroll.arg("enroll").arg("--token-file").arg(&token).env("FIZZ_CONFIG", config).env("FIZZ_STATE_DIR", state);
    let output = enroll.output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned().into()) }
}

async fn until<F: Future<Output = bool>>(what: &str, mut ready: impl FnMut() -> F) -> Outcome<()> {
    let wait = async {
        while !ready().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let late = |_| format!("{what} did not come up within {} s", START_DEADLINE.as_secs());
    Ok(tokio::time::timeout(START_DEADLINE, wait).await.map_err(late)?)
}

/// boinc-client without projects, as it is after its installation; `None` where it is not installed.
pub fn boinc() -> Outcome<Option<Process>> {
    let folder = tempfile::tempdir()?;
    let mut boinc = Command::new("boinc");
    boinc.arg("--allow_multiple_clients").arg("--gui_rpc_unix_domain").arg("--dir").arg(folder.path());
    match Process::start(&mut boinc, &folder.path().join("boinc.log")) {
        Ok(mut process) => {
            process._folder = Some(folder);
            Ok(Some(process))
        }
        Err(_) => Ok(None),
    }
}
