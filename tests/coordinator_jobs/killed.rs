//! The coordinator's real process, killed with SIGKILL at every state of a lease.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use fizz::clock::Clock;
use fizz::http::{ApiClient, Trust, install_crypto_provider};
use fizz::wire::account::{AccountCreated, AccountView, Deposit, Earnings, LedgerView, NewAccount};
use fizz::wire::job::{JobState, JobView, SubmitJob};
use fizz::wire::lease::LeaseChange;
use fizz::wire::node::NodeState;
use fizz::wire::{Amount, IDEMPOTENCY_HEADER, JobId, Secret, Sequence};
use tokio::process::{Child, Command};

use crate::world::{Node, exited, framed, job, text_of, usd};

const PATIENCE: Duration = Duration::from_secs(30);

/// One folder and port, and the process that serves them now.
struct Process {
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Process {
    async fn new() -> Self {
        install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let child = spawn(&folder.path().join("data"), port);
        let process = Self { folder, port, child };
        process.until_ready().await;
        process
    }

    async fn kill_and_start(&mut self) {
        // SIGKILL on Unix: no handler runs, nothing is flushed.
        self.child.kill().await.unwrap();
        self.child = spawn(&self.data(), self.port);
        self.until_ready().await;
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn client(&self) -> Option<ApiClient> {
        let pem = std::fs::read(self.data().join("ca.pem")).ok()?;
        ApiClient::new(&format!("https://127.0.0.1:{}", self.port), &Trust::Pinned { pem }).ok()
    }

    async fn until_ready(&self) {
        let ready = async {
            loop {
                if let Some(client) = self.client()
                    && client.get("/readyz").done().await.is_ok()
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.expect("the coordinator answers in time");
    }

    fn admin(&self) -> Secret {
        Secret::new(std::fs::read_to_string(self.data().join("admin.token")).unwrap().trim())
    }

    async fn account(&self, name: &str) -> AccountCreated {
        let call = self.client().unwrap().post("/v1/admin/accounts").bearer(&self.admin());
        call.json(&NewAccount { name: name.into() }).receive().await.unwrap()
    }

    async fn deposit(&self, account: &AccountCreated) {
        let path = format!("/v1/admin/accounts/{}/deposits", account.account_id);
        let call = self.client().unwrap().post(&path).bearer(&self.admin()).header(IDEMPOTENCY_HEADER, "once");
        call.json(&Deposit { amount: usd("10") }).done().await.unwrap();
    }

    async fn submit(&self, renter: &AccountCreated) -> JobView {
        let call = self.client().unwrap().post("/v1/jobs").bearer(&renter.api_key).header(IDEMPOTENCY_HEADER, "once");
        call.json(&SubmitJob { spec: job() }).receive().await.unwrap()
    }

    async fn view(&self, renter: &AccountCreated, job_id: JobId) -> JobView {
        let path = format!("/v1/jobs/{job_id}");
        self.client().unwrap().get(&path).bearer(&renter.api_key).receive().await.unwrap()
    }

    async fn balances(&self, account: &AccountCreated) -> AccountView {
        self.client().unwrap().get("/v1/account").bearer(&account.api_key).receive().await.unwrap()
    }

    async fn books_balance(&self) {
        let ledger: LedgerView =
            self.client().unwrap().get("/v1/admin/ledger").bearer(&self.admin()).receive().await.unwrap();
        assert_eq!((ledger.sum, ledger.unbalanced), (Amount::ZERO, 0), "{ledger:?}");
    }
}

fn spawn(data: &std::path::Path, port: u16) -> Child {
    Command::new(env!("CARGO_BIN_EXE_fizz"))
        .args(["coordinator", "serve", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_coordinator_process_killed_at_each_state_of_a_lease_loses_and_doubles_nothing() {
    let mut process = Process::new().await;
    let (renter, owner) = (process.account("renter").await, process.account("owner").await);
    for _ in 0..2 {
        process.deposit(&renter).await;
        process.kill_and_start().await;
    }
    let job_id = process.submit(&renter).await.job_id;
    process.kill_and_start().await;
    assert_eq!(process.submit(&renter).await.job_id, job_id, "the same key after a crash is the same job");

    let now = Clock::system().now();
    let mut node = Node::join(process.client().unwrap(), &owner.api_key, 1, "0.40", now).await;
    let lease = node.assigned().await.lease_id;
    let story = [
        LeaseChange::Pulling { per_mille: None },
        LeaseChange::Starting { image_digest: "sha256:0".into() },
        LeaseChange::Running,
        LeaseChange::Frozen { reason: "a game".into() },
        LeaseChange::Thawed,
        LeaseChange::Collecting,
        exited(0, 1_000_000),
    ];
    for (sequence, what) in (1..).zip(story) {
        process.kill_and_start().await;
        node.connect(process.client().unwrap()).await;
        node.beat(NodeState::Working, &[lease]).await;
        if sequence == 6 {
            node.log(lease, "offset=0&complete=true", framed("log")).await.unwrap();
        }
        // Reported, acknowledged, killed, and reported again because the node did not hear the answer.
        assert_eq!(node.report(lease, sequence, std::slice::from_ref(&what)).await.unwrap(), Sequence(sequence));
        process.kill_and_start().await;
        node.connect(process.client().unwrap()).await;
        assert_eq!(node.report(lease, sequence, &[what]).await.unwrap(), Sequence(sequence));
        process.books_balance().await;
    }

    let view = process.view(&renter, job_id).await;
    assert_eq!((view.state, view.lease_count, view.escrow), (JobState::Done, 1, Amount::ZERO));
    let path = format!("/v1/jobs/{job_id}/logs?follow=true");
    let log = process.client().unwrap().get(&path).bearer(&renter.api_key).open().await.unwrap();
    assert_eq!(text_of(log.bytes().await.unwrap()), "log");
    let earnings: Earnings = node.get("/v1/node/earnings").await.unwrap();
    assert_eq!((earnings.leases_paid, earnings.all_time), (1, process.balances(&owner).await.earned));
    assert!(view.cost > Amount::ZERO);
    let left = process.balances(&renter).await;
    assert_eq!(left.balance.checked_add(view.cost), Some(usd("10")), "one deposit, one payment, the rest back");
}
