//! The network on one machine: a coordinator, its accounts, a node, and the way to take it all down again.
//!
//! Invariants
//! - Whatever was started is noted here first, so that [`Stage::strike`] finds it however far the demo came.
//! - Everything lives in a temporary folder, listens on the loopback address only, and is gone afterwards.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use uuid::Uuid;

use super::image;
use super::node::{Node, NodeParts};
use crate::agent::CoordinatorAddress;
use crate::cli::errors::{CliError, Exit};
use crate::clock::Clock;
use crate::coordinator::{self, CoordinatorConfig, Running};
use crate::http::{ApiClient, Trust};
use crate::rent::RentClient;
use crate::runtime::docker::DockerRuntime;
use crate::runtime::{ContainerRuntime as _, RuntimeError};
use crate::wire::account::{
    AccountCreated, AccountView, Deposit, JoinTokenCreated, LedgerView, NewAccount, NewJoinToken,
};
use crate::wire::bench::BenchmarkReport;
use crate::wire::job::Resources;
use crate::wire::node::{NodeList, NodeView};
use crate::wire::{Amount, HourlyRate, IDEMPOTENCY_HEADER, NodeId, Secret};

/// How often the demo's node reports.
const HEARTBEAT_MILLIS: u64 = 1_000;
/// What the renter has to spend.
const DEPOSIT: Amount = Amount::from_micros(5_000_000);
const NODE_DEADLINE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// What was put up for the demo.
pub struct Stage {
    folder: TempDir,
    clock: Clock,
    docker: DockerRuntime,
    coordinator: Option<Running>,
    node: Option<Node>,
    node_id: Option<NodeId>,
    image_tag: Option<String>,
}

/// Both sides of the market, and the operator.
pub struct Accounts {
    /// Lends the machine.
    owner_key: Secret,
    /// Pays for the job.
    pub renter: RentClient,
    api: ApiClient,
    admin: Secret,
}

impl Stage {
    /// Finds the container engine and a place for everything; nothing runs yet.
    ///
    /// # Errors
    /// When there is no engine, or no temporary folder can be made.
    pub async fn build(clock: Clock) -> Result<Self, CliError> {
        let docker = DockerRuntime::connect(None).await.map_err(no_engine)?;
        let folder = tempfile::Builder::new()
            .prefix("fizz-demo.")
            .tempdir()
            .map_err(|error| CliError::new(Exit::Error, "no temporary folder can be made").because(error))?;
        Ok(Self { folder, clock, docker, coordinator: None, node: None, node_id: None, image_tag: None })
    }

    /// The engine's name and version.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn engine(&self) -> Result<String, CliError> {
        let engine = self.docker.engine().await.map_err(no_engine)?;
        Ok(format!("{} {}", engine.name, engine.version))
    }

    /// Starts the coordinator on a free port of 127.0.0.1, with an authority of its own; answers with its address.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_coordinator(&mut self) -> Result<String, CliError> {
        let config = CoordinatorConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: self.folder.path().join("coordinator"),
            heartbeat_interval_millis: HEARTBEAT_MILLIS,
            ..CoordinatorConfig::default()
        };
        let running = coordinator::start(config, self.clock.clone())
            .await
            .map_err(|error| CliError::new(Exit::Error, "the coordinator does not start").because(error))?;
        let url = address(&running);
        self.coordinator = Some(running);
        Ok(url)
    }

    fn running(&self) -> Result<(&Running, Trust), CliError> {
        let running = self.coordinator.as_ref().ok_or_else(|| broken("the coordinator was not started"))?;
        let pem = running.ca_pem().ok_or_else(|| broken("the coordinator has no authority of its own"))?;
        Ok((running, Trust::Pinned { pem: pem.as_bytes().to_vec() }))
    }

    /// Opens the accounts of an owner and a renter and gives the renter money.
    ///
    /// # Errors
    /// When the coordinator refuses.
    pub async fn open_accounts(&self) -> Result<Accounts, CliError> {
        let (running, trust) = self.running()?;
        let api = ApiClient::new(&address(running), &trust)?;
        let admin = running.admin_token().clone();
        let open = async |name: &str| -> Result<AccountCreated, CliError> {
            let body = NewAccount { name: name.to_owned() };
            Ok(api.post("/v1/admin/accounts").bearer(&admin).json(&body).receive().await?)
        };
        let (owner, renter) = (open("demo owner").await?, open("demo renter").await?);
        let deposit = api.post(&format!("/v1/admin/accounts/{}/deposits", renter.account_id)).bearer(&admin);
        deposit.header(IDEMPOTENCY_HEADER, "demo deposit").json(&Deposit { amount: DEPOSIT }).done().await?;
        let renter = RentClient::new(&address(running), &trust, renter.api_key)?;
        Ok(Accounts { owner_key: owner.api_key, renter, api, admin })
    }

    /// Loads the demo's own image; answers with the reference to run it by.
    ///
    /// # Errors
    /// When this build has no such program, or the engine does not take the image.
    pub async fn load_image(&mut self) -> Result<String, CliError> {
        let unpacked = image::program()
            .map_err(|error| CliError::new(Exit::Error, "the demo's job cannot be unpacked").because(error))?;
        let program = unpacked.ok_or_else(|| {
            CliError::new(Exit::Error, "this fizz was built without the demo's own job")
                .next("run any image instead: fizz demo --image alpine:3 -- echo hello")
        })?;
        let tag = format!("fizz-demo:{}", Uuid::new_v4().simple());
        let archive: Bytes = image::archive(&program, self.docker.architecture(), &tag)
            .map_err(|error| CliError::new(Exit::Error, "the demo's image cannot be made").because(error))?;
        self.image_tag = Some(tag.clone());
        self.docker.import_image(archive, &tag).await.map_err(engine_failed)
    }

    /// Starts a node on this machine and waits until it takes work.
    ///
    /// # Errors
    /// When it does not get ready in time; with its own words.
    pub async fn start_node(
        &mut self,
        accounts: &Accounts,
        benchmark: BenchmarkReport,
        lends: Resources,
        price: HourlyRate,
    ) -> Result<(), CliError> {
        let (running, trust) = self.running()?;
        let url = address(running);
        let token: JoinTokenCreated = accounts
            .api
            .post("/v1/account/join-tokens")
            .bearer(&accounts.owner_key)
            .json(&NewJoinToken { expires_seconds: 600 })
            .receive()
            .await?;
        let parts = NodeParts {
            folder: self.folder.path().join("node"),
            coordinator: CoordinatorAddress { url, trust },
            join_token: token.join_token,
            benchmark,
            lends,
            price,
            docker: self.docker.clone(),
        };
        let node = self.node.insert(Node::start(parts, self.clock.clone()).await?);
        let node_id = node.ready(NODE_DEADLINE).await?;
        self.node_id = Some(node_id);
        let listed = tokio::time::timeout(NODE_DEADLINE, accounts.until_listed(node_id)).await;
        listed.map_err(|_| broken("the coordinator did not list the node in time"))?
    }

    /// Takes everything down, and says what could not be: the last thing the demo does, however it went.
    pub async fn strike(mut self) -> Vec<String> {
        let mut left = Vec::new();
        if let Some(node) = self.node.take()
            && !node.stop(STOP_DEADLINE).await
        {
            left.push("a node that did not stop in time".to_owned());
        }
        if let Some(running) = self.coordinator.take() {
            running.shutdown(STOP_DEADLINE).await;
        }
        self.remove_containers(&mut left).await;
        if let Some(tag) = &self.image_tag
            && let Err(error) = self.docker.remove_image(tag).await
        {
            left.push(format!("the image {tag} ({error}); remove it: docker rmi {tag}"));
        }
        let path: PathBuf = self.folder.path().to_owned();
        if let Err(error) = self.folder.close() {
            left.push(format!("the folder {} ({error})", path.display()));
        }
        left
    }

    /// The node removes its containers itself; this is for when it could not.
    async fn remove_containers(&self, left: &mut Vec<String>) {
        let Some(node_id) = self.node_id else { return };
        match self.docker.list(node_id).await {
            Ok(containers) => {
                for container in containers {
                    if let Err(error) = self.docker.remove(&container.id).await {
                        left.push(format!("the container {} ({error})", container.id.0));
                    }
                }
            }
            Err(error) => left.push(format!("perhaps containers ({error})")),
        }
    }
}

impl Accounts {
    /// Waits until the coordinator would give the node work.
    async fn until_listed(&self, node_id: NodeId) -> Result<(), CliError> {
        loop {
            let list: NodeList = self.api.get("/v1/admin/nodes").bearer(&self.admin).receive().await?;
            let ready = |node: &NodeView| node.online && node.offer.is_some() && node.state.takes_leases();
            if list.nodes.iter().any(|node| node.node_id == node_id && ready(node)) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The owner's account.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn owner(&self) -> Result<AccountView, CliError> {
        Ok(self.api.get("/v1/account").bearer(&self.owner_key).receive().await?)
    }

    /// Every account of the ledger.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn ledger(&self) -> Result<LedgerView, CliError> {
        Ok(self.api.get("/v1/admin/ledger").bearer(&self.admin).receive().await?)
    }
}

fn address(running: &Running) -> String {
    format!("https://{}", running.address())
}

fn broken(what: &str) -> CliError {
    CliError::new(Exit::Error, what)
}

/// The sentence of a [`RuntimeError`] says itself what to type.
fn no_engine(error: RuntimeError) -> CliError {
    CliError::new(Exit::NoEngine, error.to_string())
}

fn engine_failed(error: RuntimeError) -> CliError {
    CliError::new(Exit::Error, error.to_string())
}
