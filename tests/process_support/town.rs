//! A coordinator's process, a renter with money, and the process of a node that lends to them.

use std::net::SocketAddr;
use std::path::Path;

use fizz::control::{Answer, Client, Request, Snapshot};
use fizz::http::{ApiClient, HttpError, Trust, install_crypto_provider};
use fizz::paths::StateDir;
use fizz::rent::RentClient;
use fizz::wire::account::{
    AccountCreated, AccountView, Deposit, JoinTokenCreated, LedgerView, NewAccount, NewJoinToken,
};
use fizz::wire::node::{NodeList, NodeState, NodeView};
use fizz::wire::{Amount, NodeId, Secret};

use super::{Process, until};

/// A coordinator that runs, and who may ask it what.
pub(crate) struct Town {
    pub(crate) coordinator: Process,
    pub(crate) address: SocketAddr,
    pub(crate) api: ApiClient,
    pub(crate) admin: Secret,
    pub(crate) account: AccountCreated,
    pub(crate) renter: RentClient,
}

impl Town {
    /// Starts a coordinator with these settings more, and gives a renter so much.
    pub(crate) async fn open(folder: &Path, settings: &str, deposit: Amount) -> Self {
        install_crypto_provider();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut coordinator = coordinator(folder, address, settings);
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
        let account = open_account(&api, &admin, deposit).await.unwrap();
        let renter = RentClient::new(&url, &trust, account.api_key.clone()).unwrap();
        Self { coordinator, address, api, admin, account, renter }
    }

    /// A node that lends no internet, with these settings more. Its state is in `node`; it is not started yet.
    pub(crate) async fn agent(&self, folder: &Path, url: &str, engine: &str, settings: &str) -> Process {
        let config = folder.join("fizz.toml");
        let ca_file = folder.join("coordinator/ca.pem");
        let text = format!(
            "name = \"attic\"\n{settings}coordinators = [{{ url = \"{url}\", ca_file = \"{}\" }}]\n\
             engine = {{ address = \"{engine}\" }}\nnetwork = {{ internet = false }}\n",
            ca_file.display()
        );
        std::fs::write(&config, text).unwrap();
        let variables = vec![
            ("FIZZ_CONFIG", config.display().to_string()),
            ("FIZZ_STATE_DIR", folder.join("node").display().to_string()),
            ("FIZZ_JOIN_TOKEN", self.join_token().await.unwrap().expose().to_owned()),
        ];
        Process::new(vec!["up".to_owned()], variables, folder.join("agent.log"))
    }

    /// Waits for a node that waits for work.
    pub(crate) async fn node(&self) -> NodeId {
        let is_ready = |node: &&NodeView| node.online && node.offer.is_some() && node.state == NodeState::Idle;
        until("the node", async || {
            let list: NodeList = self.api.get("/v1/admin/nodes").bearer(&self.admin).receive().await.ok()?;
            list.nodes.iter().find(is_ready).map(|node| node.node_id)
        })
        .await
    }

    pub(crate) async fn ledger(&self) -> LedgerView {
        self.api.get("/v1/admin/ledger").bearer(&self.admin).receive().await.unwrap()
    }

    async fn join_token(&self) -> Result<Secret, HttpError> {
        let wish = NewJoinToken { expires_seconds: 600 };
        let call = self.api.post("/v1/account/join-tokens").bearer(&self.account.api_key).json(&wish);
        Ok(call.receive::<JoinTokenCreated>().await?.join_token)
    }
}

fn coordinator(folder: &Path, address: SocketAddr, settings: &str) -> Process {
    let config = folder.join("coordinator.toml");
    let always = "heartbeat_interval_millis = 500\nlease_grace_seconds = 60\n";
    std::fs::write(&config, format!("{always}{settings}")).unwrap();
    let data = folder.join("coordinator");
    let arguments = ["coordinator", "serve", "--listen", &address.to_string(), "--data-dir", data.to_str().unwrap()];
    let arguments = arguments.into_iter().chain(["--config", config.to_str().unwrap()]).map(str::to_owned).collect();
    Process::new(arguments, Vec::new(), folder.join("coordinator.log"))
}

async fn open_account(api: &ApiClient, admin: &Secret, deposit: Amount) -> Result<AccountCreated, HttpError> {
    let name = NewAccount { name: "attic".to_owned() };
    let account: AccountCreated = api.post("/v1/admin/accounts").bearer(admin).json(&name).receive().await?;
    let path = format!("/v1/admin/accounts/{}/deposits", account.account_id);
    let call = api.post(&path).bearer(admin).header(fizz::wire::IDEMPOTENCY_HEADER, "first");
    let _: AccountView = call.json(&Deposit { amount: deposit }).receive().await?;
    Ok(account)
}

/// What the agent shows its owner, if it answers.
pub(crate) async fn look(state: &StateDir) -> Option<Snapshot> {
    match Client::ask(&state.control_socket(), Request::Snapshot).await {
        Ok(Answer::Snapshot { snapshot }) => Some(*snapshot),
        Ok(_) | Err(_) => None,
    }
}
