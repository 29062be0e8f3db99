//! A coordinator in this process, with a renter who has money, and what a node needs to lend to them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fizz::agent::{AgentOptions, BenchmarkSource, CoordinatorAddress, EngineSource};
use fizz::clock::Clock;
use fizz::config::{ByteSize, Ceiling, OfferConfig};
use fizz::coordinator::{self, CoordinatorConfig, Running};
use fizz::http::{ApiClient, Trust, install_crypto_provider};
use fizz::paths::StateDir;
use fizz::rent::RentClient;
use fizz::wire::account::{AccountCreated, JoinTokenCreated, NewAccount, NewJoinToken};
use fizz::wire::{Amount, Secret};
use tempfile::TempDir;

use super::TestNode;

/// Everything of it is in its folder, the coordinator's part in `coordinator`.
pub(crate) struct Market {
    pub(crate) running: Running,
    pub(crate) renter: RentClient,
    pub(crate) account: AccountCreated,
    api: ApiClient,
    trust: Trust,
    pub(crate) folder: TempDir,
}

impl Market {
    /// Opens one whose nodes speak up this often.
    pub(crate) async fn open(heartbeat_interval_millis: u64) -> Self {
        install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let config = CoordinatorConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_dir: folder.path().join("coordinator"),
            heartbeat_interval_millis,
            lease_grace_seconds: Some(60),
            ..CoordinatorConfig::default()
        };
        let running = coordinator::start(config, Clock::system()).await.unwrap();
        let trust = Trust::Pinned { pem: running.ca_pem().unwrap().as_bytes().to_vec() };
        let api = ApiClient::new(running.url().as_str(), &trust).unwrap();
        let name = NewAccount { name: "ada".to_owned() };
        let call = api.post("/v1/admin/accounts").bearer(running.admin_token()).json(&name);
        let account: AccountCreated = call.receive().await.unwrap();
        let money = Amount::from_micros(10_000_000);
        running.app().store.deposit(account.account_id, money, "first", Clock::system().now()).await.unwrap();
        let renter = RentClient::new(running.url().as_str(), &trust, account.api_key.clone()).unwrap();
        Self { running, renter, account, api, trust, folder }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> &str {
        self.running.url().as_str().trim_end_matches('/')
    }

    pub(crate) async fn join_token(&self) -> Secret {
        let wish = NewJoinToken { expires_seconds: 600 };
        let call = self.api.post("/v1/account/join-tokens").bearer(&self.account.api_key).json(&wish);
        call.receive::<JoinTokenCreated>().await.unwrap().join_token
    }

    /// Takes what its one node has on the engine when dropped, probes of its network included.
    pub(crate) async fn test_node(&self) -> TestNode {
        TestNode::of(&self.api, self.running.admin_token()).await
    }

    /// A node over this machine's Docker; its state is in the folder's `node`.
    pub(crate) fn node(&self, join_token: Option<Secret>, ceiling: Ceiling) -> AgentOptions {
        AgentOptions {
            state_dir: StateDir::new(self.folder.path().join("node")),
            name: "attic".to_owned(),
            coordinators: vec![CoordinatorAddress { url: self.url().to_owned(), trust: self.trust.clone() }],
            join_token,
            offer: OfferConfig { disk: Some(ByteSize(1 << 30)), ..OfferConfig::default() },
            ceiling,
            engine: EngineSource::Docker { address: None, tls: None },
            benchmark: BenchmarkSource::Skip,
            prover: None,
            drain_deadline: Duration::from_secs(1),
            reconcile_every: Duration::from_secs(1),
        }
    }
}
