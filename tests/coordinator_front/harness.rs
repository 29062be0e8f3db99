//! A coordinator on a free port of this machine, and callers of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ed25519_dalek::{Signer as _, SigningKey};
use fizz::clock::Clock;
use fizz::coordinator::{CoordinatorConfig, Running, start};
use fizz::http::{ApiClient, HttpError, Trust, install_crypto_provider};
use fizz::wire::account::{AccountCreated, JoinTokenCreated, NewAccount, NewJoinToken};
use fizz::wire::enroll::*;
use fizz::wire::signed::{ReportKind, SignedReport, enroll_message, report_message, session_message};
use fizz::wire::{ErrorCode, NodeId, Nonce, PublicKey, Secret, Signature};
use jiff::Timestamp;
use tempfile::TempDir;

/// Version that the test agents say they have.
pub(crate) const VERSION: &str = "0.1.0";

/// A running coordinator whose clock is turned by hand, with one account.
pub(crate) struct World {
    pub(crate) running: Running,
    pub(crate) client: ApiClient,
    pub(crate) clock: Clock,
    pub(crate) account: AccountCreated,
    pub(crate) folder: TempDir,
}

/// The configuration of a coordinator for tests in a folder of its own.
pub(crate) fn config(folder: &TempDir) -> CoordinatorConfig {
    CoordinatorConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        data_dir: folder.path().join("data"),
        ..CoordinatorConfig::default()
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut CoordinatorConfig)) -> Self {
        install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder);
        change(&mut config);
        // TLS looks at the machine's clock, so the hand-turned one starts there.
        let clock = Clock::manual(Clock::system().now());
        let running = start(config, clock.clone()).await.unwrap();
        let client = client_of(&running);
        let name = NewAccount { name: "ada".into() };
        let call = client.post("/v1/admin/accounts").bearer(running.admin_token()).json(&name);
        let account = call.receive().await.unwrap();
        Self { running, client, clock, account, folder }
    }

    pub(crate) async fn join_token(&self, expires_seconds: u64) -> Secret {
        let call = self.client.post("/v1/account/join-tokens").bearer(&self.account.api_key);
        let made: JoinTokenCreated = call.json(&NewJoinToken { expires_seconds }).receive().await.unwrap();
        made.join_token
    }

    /// A machine that has joined.
    pub(crate) async fn node(&self, seed: u8) -> (Machine, NodeId) {
        let machine = Machine::new(seed);
        let token = self.join_token(600).await;
        let status = machine.enroll(&self.client, Some(&token)).await.unwrap();
        let EnrollStatus::Approved { node_id } = status else { panic!("{status:?}") };
        (machine, node_id)
    }

    pub(crate) fn turn(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

pub(crate) fn client_of(running: &Running) -> ApiClient {
    let pem = running.ca_pem().unwrap().as_bytes().to_vec();
    ApiClient::new(running.url().as_str(), &Trust::Pinned { pem }).unwrap()
}

/// A machine with a key.
pub(crate) struct Machine {
    pub(crate) key: SigningKey,
    pub(crate) name: String,
}

impl Machine {
    pub(crate) fn new(seed: u8) -> Self {
        Self { key: SigningKey::from_bytes(&[seed; 32]), name: format!("machine-{seed}") }
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.key.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        Signature::from_bytes(self.key.sign(message).to_bytes())
    }

    pub(crate) fn enroll_request(&self, join_token: Option<&Secret>) -> EnrollRequest {
        EnrollRequest {
            public_key: self.public_key(),
            name: self.name.clone(),
            agent_version: VERSION.into(),
            join_token: join_token.cloned(),
            proof: self.sign(&enroll_message(&self.public_key(), &self.name)),
        }
    }

    pub(crate) async fn enroll(
        &self,
        client: &ApiClient,
        join_token: Option<&Secret>,
    ) -> Result<EnrollStatus, HttpError> {
        client.post("/v1/enrollments").json(&self.enroll_request(join_token)).receive().await
    }

    pub(crate) async fn nonce(&self, client: &ApiClient, node_id: NodeId) -> NonceGrant {
        client.post("/v1/sessions/nonce").json(&NonceRequest { node_id }).receive().await.unwrap()
    }

    pub(crate) fn session_request(&self, node_id: NodeId, nonce: Nonce) -> SessionRequest {
        let signature = self.sign(&session_message(node_id, &nonce, VERSION));
        SessionRequest { node_id, nonce, agent_version: VERSION.into(), signature }
    }

    pub(crate) async fn session(&self, client: &ApiClient, node_id: NodeId) -> Secret {
        let nonce = self.nonce(client, node_id).await.nonce;
        let request = self.session_request(node_id, nonce);
        let grant: SessionGrant = client.post("/v1/sessions").json(&request).receive().await.unwrap();
        grant.token
    }

    pub(crate) fn report(
        &self,
        kind: ReportKind,
        node_id: NodeId,
        nonce: u8,
        at: Timestamp,
        body: &str,
    ) -> SignedReport {
        let nonce = Nonce::from_bytes([nonce; 16]);
        let signature = self.sign(&report_message(kind, node_id, &nonce, at, body));
        SignedReport { body: body.to_owned(), nonce, at, signature }
    }
}

/// The code of a refusal; anything else is a failed test.
#[track_caller]
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, HttpError>) -> ErrorCode {
    match result {
        Err(HttpError::Problem(problem)) => problem.code,
        other => panic!("expected a refusal, got {other:?}"),
    }
}
