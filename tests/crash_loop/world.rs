//! A coordinator, a node and an engine of our own, as processes that are killed and started again.

use std::path::Path;
use std::time::Duration;

use fizz::control::{Answer, Client, Request, Snapshot};
use fizz::http::{ApiClient, HttpError, Trust, install_crypto_provider};
use fizz::paths::StateDir;
use fizz::rent::RentClient;
use fizz::wire::account::{
    AccountCreated, AccountView, Deposit, Earnings, JoinTokenCreated, LedgerView, NewAccount, NewJoinToken,
};
use fizz::wire::node::{NodeList, NodeState, NodeView};
use fizz::wire::{Amount, Secret};

use crate::engine::{Engine, LOOK};
use crate::processes::Process;

/// Nothing here takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) const DEPOSIT: Amount = Amount::from_micros(1_000_000_000_000);

pub(crate) struct World {
    pub(crate) coordinator: Process,
    pub(crate) agent: Process,
    pub(crate) engine: Engine,
    pub(crate) image: String,
    pub(crate) renter: RentClient,
    api: ApiClient,
    admin: Secret,
    pub(crate) state: StateDir,
}

impl World {
    /// A node that waits for work, and a renter with money.
    pub(crate) async fn new(folder: &Path) -> Self {
        install_crypto_provider();
        let mut engine = Engine::new(folder);
        engine.start().await;
        let image = "fizz-crash-loop:1".to_owned();
        engine.import(&image);
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut coordinator = coordinator(folder, address);
        coordinator.start();
        let data = folder.join("coordinator");
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
        let mut agent = agent(folder, &url, &engine.address(), &join_token(&api, &account).await.unwrap());
        agent.start();
        let state = StateDir::new(folder.join("node"));
        let ready = |node: &NodeView| node.online && node.offer.is_some() && node.state == NodeState::Idle;
        until("the node", async || {
            let list: NodeList = api.get("/v1/admin/nodes").bearer(&admin).receive().await.ok()?;
            list.nodes.iter().any(ready).then_some(())
        })
        .await;
        Self { coordinator, agent, engine, image, renter, api, admin, state }
    }

    pub(crate) async fn ledger(&self) -> LedgerView {
        self.api.get("/v1/admin/ledger").bearer(&self.admin).receive().await.unwrap()
    }

    /// What the node earned, fresh from the coordinator.
    pub(crate) async fn earnings(&self) -> Earnings {
        until("fresh earnings", async || match Client::ask(&self.state.control_socket(), Request::Earnings).await {
            Ok(Answer::Earnings { earnings, stale: None }) => Some(*earnings),
            Ok(_) | Err(_) => None,
        })
        .await
    }

    /// Waits until the node has nothing to do any more; what it still does when that does not come.
    pub(crate) async fn comes_to_rest(&self) -> Result<(), String> {
        let rest = async {
            while !look(&self.state).await.is_some_and(|s| s.state == NodeState::Idle && s.leases.is_empty()) {
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(PATIENCE, rest).await {
            Ok(()) => Ok(()),
            Err(_) => Err(format!("{:?}", look(&self.state).await.map(|snapshot| (snapshot.state, snapshot.leases)))),
        }
    }
}

fn coordinator(folder: &Path, address: std::net::SocketAddr) -> Process {
    let config = folder.join("coordinator.toml");
    let text = "heartbeat_interval_millis = 500\nlease_grace_seconds = 60\n\
        requests_per_minute_per_token = 1000000\nrequests_per_minute_per_address = 1000000\n";
    std::fs::write(&config, text).unwrap();
    let data = folder.join("coordinator");
    let arguments = ["coordinator", "serve", "--listen", &address.to_string(), "--data-dir", data.to_str().unwrap()];
    let arguments = arguments.into_iter().chain(["--config", config.to_str().unwrap()]).map(str::to_owned).collect();
    Process::new(arguments, Vec::new(), folder.join("coordinator.log"))
}

fn agent(folder: &Path, url: &str, engine: &str, join_token: &Secret) -> Process {
    let config = folder.join("fizz.toml");
    let ca_file = folder.join("coordinator/ca.pem");
    let text = format!(
        "name = \"attic\"\noffer = {{ price_per_hour = \"10000\" }}\ncoordinators = [{{ url = \"{url}\", ca_file = \"{}\" }}]\nengine = {{ address = \"{engine}\" }}\n\
         network = {{ internet = false }}\n",
        ca_file.display()
    );
    std::fs::write(&config, text).unwrap();
    let variables = vec![
        ("FIZZ_CONFIG", config.display().to_string()),
        ("FIZZ_STATE_DIR", folder.join("node").display().to_string()),
        ("FIZZ_JOIN_TOKEN", join_token.expose().to_owned()),
    ];
    Process::new(vec!["up".to_owned()], variables, folder.join("agent.log"))
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

/// Looks until there is something.
pub(crate) async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
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
