//! The coordinator as the agent sees it: every call of the protocol that a node makes, over whichever address answers.
//!
//! Invariants
//! - All addresses lead to the same network: node id and key stay when the address changes.
//! - A call goes to the next address at once when one does not answer; when none does, the caller hears why.
//! - A session is opened when one is needed, renewed before it ends and once more when the coordinator refuses it; calls
//!   under way together share one.
//! - Times that leave this machine are the coordinator's, as learned from its answers; this machine's own clock may be off.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::{Mutex as AsyncMutex, watch};

use super::CoordinatorAddress;
use super::failover::{Failover, Pick, REST_MAX, backoff};
use super::identity::{Identity, IdentityError};
use crate::clock::{Clock, Steady};
use crate::control::{Link, LinkState};
use crate::http::{ApiClient, Call, HttpError};
use crate::wire::account::{Earnings, ReceiptList};
use crate::wire::bench::BenchmarkReport;
use crate::wire::enroll::{EnrollPoll, EnrollRequest, EnrollStatus, NonceGrant, NonceRequest, SessionGrant};
use crate::wire::lease::Assignments;
use crate::wire::node::{Heartbeat, HeartbeatAck, Inventory};
use crate::wire::signed::{ReportKind, SignedReport};
use crate::wire::{EnrollmentId, ErrorCode, Generation, NodeId, Secret, Sequence};

mod port;
mod prove;
mod reach;

/// Longest that an assignments poll is held by the coordinator, in seconds.
const POLL_WAIT_SECONDS: u64 = 55;
/// Time on top of it for the way there and back.
const POLL_SLACK: Duration = Duration::from_secs(20);
/// Shortest wait between two tries of the same thing.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Part of a session's life after which a new one is opened.
const RENEW_AFTER: f64 = 0.8;
/// From here on a clock is worth a warning.
const CLOCK_OFF_MAX: SignedDuration = SignedDuration::from_secs(60);

/// The way to the coordinator. Clones share connections, session and what is known about the addresses.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    addresses: Vec<ApiClient>,
    identity: Identity,
    clock: Clock,
    known: Mutex<Known>,
    session: AsyncMutex<Option<Session>>,
    link: watch::Sender<Link>,
}

#[derive(Debug)]
struct Known {
    failover: Failover,
    node_id: Option<NodeId>,
    /// The coordinator's clock less ours.
    offset: SignedDuration,
    last_error: Option<String>,
}

#[derive(Debug, Clone)]
struct Session {
    token: Secret,
    renew_at: Steady,
}

/// Why the coordinator could not be asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// None is configured.
    #[error(
        "no coordinator is configured; write one into fizz.toml: coordinators = [{{ url = \"https://host:8443\" }}]"
    )]
    NoCoordinator,
    /// Every address rests after it failed.
    #[error("{why}")]
    Resting {
        /// When the first of them may be tried again.
        until: Steady,
        /// What was wrong with the last one.
        why: String,
    },
    /// The node has to enrol first.
    #[error("this machine is not enrolled yet; enrol it: `fizz enroll`")]
    NotEnrolled,
    /// The call failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A report could not be signed.
    #[error(transparent)]
    Signing(#[from] IdentityError),
    /// A report could not be written as JSON.
    #[error("a report could not be written")]
    Encoding(#[source] serde_json::Error),
}

impl ClientError {
    /// What the coordinator said no to, when it was the coordinator itself.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Http(error) => error.problem().map(|problem| problem.code),
            Self::NoCoordinator | Self::Resting { .. } | Self::NotEnrolled | Self::Signing(_) | Self::Encoding(_) => {
                None
            }
        }
    }
}

impl Client {
    /// A client of the network behind `addresses`; nothing is sent yet.
    ///
    /// # Errors
    /// [`HttpError`] when an address or a CA file is not usable.
    pub fn new(addresses: &[CoordinatorAddress], identity: Identity, clock: Clock) -> Result<Self, HttpError> {
        let clients = addresses.iter().map(|a| ApiClient::new(&a.url, &a.trust)).collect::<Result<Vec<_>, _>>()?;
        let url = addresses.first().map(|a| a.url.clone()).unwrap_or_default();
        let (link, _) = watch::channel(Link { url, state: LinkState::Connecting });
        let known = Known {
            failover: Failover::new(clients.len()),
            node_id: None,
            offset: SignedDuration::ZERO,
            last_error: None,
        };
        let inner = Inner {
            addresses: clients,
            identity,
            clock,
            known: Mutex::new(known),
            session: AsyncMutex::new(None),
            link,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The node's key.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// How long to wait before the next call can do better than the last, after `failures` in a row.
    #[must_use]
    pub fn patience(&self, error: &ClientError, failures: u32) -> Duration {
        let now = self.inner.clock.steady();
        let own = backoff(failures, RETRY_FIRST, REST_MAX, rand::random::<f64>());
        match error {
            ClientError::Resting { until, .. } => until.since(now).max(RETRY_FIRST),
            ClientError::Http(HttpError::Problem(problem)) => {
                own.max(Duration::from_secs(problem.retry_after_seconds.unwrap_or(0).min(600)))
            }
            ClientError::Http(_) => match self.known().failover.pick(now) {
                Pick::Wait { until } => until.since(now).max(RETRY_FIRST),
                Pick::Use { .. } | Pick::Nothing => own,
            },
            ClientError::NoCoordinator
            | ClientError::NotEnrolled
            | ClientError::Signing(_)
            | ClientError::Encoding(_) => REST_MAX,
        }
    }

    /// The connection as it stands, and a word each time that changes.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.inner.link.subscribe()
    }

    /// The node, once it has enrolled.
    #[must_use]
    pub fn node_id(&self) -> Option<NodeId> {
        self.known().node_id
    }

    /// From now on calls are this node's.
    pub fn set_node_id(&self, node_id: NodeId) {
        self.known().node_id = Some(node_id);
    }

    /// The coordinator's time as this node knows it.
    #[must_use]
    pub fn network_now(&self) -> Timestamp {
        let offset = self.known().offset;
        self.to_network(self.inner.clock.now(), offset)
    }

    /// What is wrong with this machine's clock, when it is more than a minute off.
    #[must_use]
    pub fn clock_warning(&self) -> Option<String> {
        let offset = self.known().offset;
        if offset.abs() <= CLOCK_OFF_MAX {
            return None;
        }
        let direction = if offset.is_positive() { "behind" } else { "ahead of" };
        let far = in_words(offset.abs());
        Some(format!(
            "this machine's clock is {far} {direction} the coordinator's; fizz makes up for it, \
             but set it: `timedatectl set-ntp true`"
        ))
    }

    /// Asks to join.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn enroll(&self, request: &EnrollRequest) -> Result<EnrollStatus, ClientError> {
        self.anywhere(|api| api.post("/v1/enrollments").json(request)).await
    }

    /// Asks whether a person has approved it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn poll_enrollment(&self, id: EnrollmentId, poll_token: &Secret) -> Result<EnrollStatus, ClientError> {
        let poll = EnrollPoll { poll_token: poll_token.clone() };
        self.anywhere(|api| api.post(&format!("/v1/enrollments/{id}/poll")).json(&poll)).await
    }

    /// Whether the coordinator knows this node by its key.
    ///
    /// # Errors
    /// [`ClientError`] when it cannot be asked.
    pub async fn is_known(&self) -> Result<bool, ClientError> {
        match self.session(None).await {
            Ok(_) => Ok(true),
            Err(error) if error.code().is_some_and(means_unknown) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reports the inventory.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put_inventory(&self, inventory: &Inventory) -> Result<(), ClientError> {
        let report = self.signed(ReportKind::Inventory, inventory).await?;
        self.authorized_done(|api| api.put("/v1/node/inventory").json(&report)).await
    }

    /// Reports the benchmarks.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post_benchmarks(&self, report: &BenchmarkReport) -> Result<(), ClientError> {
        let report = self.signed(ReportKind::Benchmarks, report).await?;
        self.authorized_done(|api| api.post("/v1/node/benchmarks").json(&report)).await
    }

    /// Reports the actual state.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatAck, ClientError> {
        let ack: HeartbeatAck = self.authorized(|api| api.post("/v1/node/heartbeat").json(heartbeat)).await?;
        self.learn_time(ack.server_time);
        Ok(ack)
    }

    /// The desired state, as soon as it is newer than `after`; held for up to a minute. `prove` says that this machine is idle
    /// and may be challenged.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn assignments(&self, after: Generation, prove: bool) -> Result<Assignments, ClientError> {
        let path = format!("/v1/node/assignments?after={after}&wait={POLL_WAIT_SECONDS}&prove={prove}");
        let timeout = Duration::from_secs(POLL_WAIT_SECONDS) + POLL_SLACK;
        self.authorized(|api| api.get(&path).timeout(timeout)).await
    }

    /// What the node earned.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn earnings(&self) -> Result<Earnings, ClientError> {
        self.authorized(|api| api.get("/v1/node/earnings")).await
    }

    /// The node's receipts after `after`, oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn receipts(&self, after: Sequence) -> Result<ReceiptList, ClientError> {
        self.authorized(|api| api.get(&format!("/v1/node/receipts?after={after}"))).await
    }

    async fn signed(&self, kind: ReportKind, body: &impl Serialize) -> Result<SignedReport, ClientError> {
        // Opening the session tells the coordinator's time, which is what is signed.
        self.session(None).await?;
        let node_id = self.node_id().ok_or(ClientError::NotEnrolled)?;
        let body = serde_json::to_string(body).map_err(ClientError::Encoding)?;
        Ok(self.inner.identity.sign_report(kind, node_id, self.network_now(), body)?)
    }

    /// A call with the session's token and a JSON answer.
    async fn authorized<T: DeserializeOwned>(&self, call: impl Fn(&ApiClient) -> Call) -> Result<T, ClientError> {
        let token = self.session(None).await?;
        match self.anywhere(|api| call(api).bearer(&token)).await {
            Err(error) if session_refused(&error) => {
                let token = self.session(Some(&token)).await?;
                self.anywhere(|api| call(api).bearer(&token)).await
            }
            result => result,
        }
    }

    /// The same for a call whose answer does not matter.
    async fn authorized_done(&self, call: impl Fn(&ApiClient) -> Call) -> Result<(), ClientError> {
        let token = self.session(None).await?;
        match self.anywhere_done(|api| call(api).bearer(&token)).await {
            Err(error) if session_refused(&error) => {
                let token = self.session(Some(&token)).await?;
                self.anywhere_done(|api| call(api).bearer(&token)).await
            }
            result => result,
        }
    }

    /// The session's token; a new one when there is none, when it is about to end, or when it is the `refused` one.
    async fn session(&self, refused: Option<&Secret>) -> Result<Secret, ClientError> {
        let mut session = self.inner.session.lock().await;
        if let Some(open) = session.as_ref()
            && Some(&open.token) != refused
            && self.inner.clock.steady() < open.renew_at
        {
            return Ok(open.token.clone());
        }
        *session = None;
        let node_id = self.node_id().ok_or(ClientError::NotEnrolled)?;
        let request = NonceRequest { node_id };
        let grant: NonceGrant = self.anywhere(|api| api.post("/v1/sessions/nonce").json(&request)).await?;
        self.learn_time(grant.server_time);
        let request = self.inner.identity.session_request(node_id, grant.nonce);
        let grant: SessionGrant = self.anywhere(|api| api.post("/v1/sessions").json(&request)).await?;
        let life = grant.server_time.duration_until(grant.expires_at);
        let life = Duration::try_from(life).unwrap_or(Duration::ZERO);
        let renew_at = self.inner.clock.steady().after(life.mul_f64(RENEW_AFTER));
        let open = session.insert(Session { token: grant.token, renew_at });
        Ok(open.token.clone())
    }

    async fn anywhere<T: DeserializeOwned>(&self, call: impl Fn(&ApiClient) -> Call) -> Result<T, ClientError> {
        self.each(|api| call(api).receive()).await
    }

    async fn anywhere_done(&self, call: impl Fn(&ApiClient) -> Call) -> Result<(), ClientError> {
        self.each(|api| call(api).done()).await
    }

    /// Makes the call at the address to be used now, and at the next one when that does not answer.
    async fn each<T, F>(&self, attempt: impl Fn(&ApiClient) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, HttpError>>,
    {
        let mut last = None;
        loop {
            let pick = self.known().failover.pick(self.inner.clock.steady());
            let index = match (pick, last) {
                (Pick::Use { index }, _) => index,
                (Pick::Nothing, _) => return Err(ClientError::NoCoordinator),
                (Pick::Wait { .. }, Some(error)) => return Err(ClientError::Http(error)),
                (Pick::Wait { until }, None) => {
                    let why = self.known().last_error.clone();
                    return Err(ClientError::Resting {
                        until,
                        why: why.unwrap_or_else(|| "the coordinator cannot be reached".to_owned()),
                    });
                }
            };
            let Some(api) = self.inner.addresses.get(index) else { return Err(ClientError::NoCoordinator) };
            match attempt(api).await {
                Ok(answer) => {
                    self.note_success(index, api);
                    return Ok(answer);
                }
                Err(error) if address_failed(&error) => {
                    self.note_failure(index, api, &error);
                    last = Some(error);
                }
                Err(error) => {
                    // The coordinator is there; it only says no.
                    self.note_success(index, api);
                    return Err(ClientError::Http(error));
                }
            }
        }
    }

    fn note_success(&self, index: usize, api: &ApiClient) {
        {
            let mut known = self.known();
            known.failover.succeeded(index);
            known.last_error = None;
        }
        let url = address_text(api);
        self.inner.link.send_if_modified(|link| {
            if link.url == url && matches!(link.state, LinkState::Connected { .. }) {
                return false;
            }
            *link = Link { url, state: LinkState::Connected { since: self.inner.clock.now() } };
            true
        });
    }

    fn note_failure(&self, index: usize, api: &ApiClient, error: &HttpError) {
        let why = error.to_string();
        let now = self.inner.clock.steady();
        {
            let mut known = self.known();
            known.failover.failed(index, now, rand::random::<f64>());
            known.last_error = Some(why.clone());
            if matches!(known.failover.pick(now), Pick::Use { .. }) {
                // Another address is about to be tried; the link is down only when all are.
                return;
            }
        }
        let url = address_text(api);
        self.inner.link.send_if_modified(|link| {
            let since = match &link.state {
                LinkState::Unreachable { why: known, .. } if *known == why && link.url == url => return false,
                LinkState::Unreachable { since, .. } => *since,
                LinkState::Connecting | LinkState::Connected { .. } => self.inner.clock.now(),
            };
            *link = Link { url, state: LinkState::Unreachable { since, why } };
            true
        });
    }

    fn learn_time(&self, server_time: Timestamp) {
        let offset = self.inner.clock.now().duration_until(server_time);
        self.known().offset = offset;
    }

    fn to_network(&self, at: Timestamp, offset: SignedDuration) -> Timestamp {
        // Small differences are the way there and back, not a clock that is off.
        if offset.abs() <= SignedDuration::from_secs(2) { at } else { at.checked_add(offset).unwrap_or(at) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether another address could do better with the same call.
fn address_failed(error: &HttpError) -> bool {
    match error {
        HttpError::Unreachable { .. }
        | HttpError::BadCertificate { .. }
        | HttpError::TimedOut { .. }
        | HttpError::Garbage { .. } => true,
        HttpError::Problem(problem) => problem.status >= 500,
        HttpError::BadUrl { .. } | HttpError::BadAuthority(_) | HttpError::Setup(_) => false,
    }
}

/// What a coordinator says to a node it never let in, or no longer wants.
const fn means_unknown(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Unauthorized | ErrorCode::NotFound | ErrorCode::BadSignature | ErrorCode::Forbidden)
}

fn session_refused(error: &ClientError) -> bool {
    matches!(error.code(), Some(ErrorCode::SessionExpired | ErrorCode::Unauthorized))
}

fn address_text(api: &ApiClient) -> String {
    api.base().as_str().trim_end_matches('/').to_owned()
}

fn in_words(off: SignedDuration) -> String {
    match off.as_secs() {
        seconds if seconds >= 2 * 86_400 => format!("{} days", seconds / 86_400),
        seconds if seconds >= 2 * 3_600 => format!("{} hours", seconds / 3_600),
        seconds => format!("{} minutes", seconds / 60),
    }
}
