//! The coordinator: nodes register with it, it matches jobs to them, and it keeps the ledger.
//!
//! Invariants
//! - It is stateless above its database: whatever is not in [`store::Store`] may be lost at any moment without harm.
//! - Leases and money are durable before they are acknowledged; heartbeats live in memory and are flushed in batches.
//! - Handlers decide nothing that a pure module (matching, ledger, limits) can decide: they read, ask, write.
//! - Every answer that is no success is problem+json with a stable code.

pub mod auth;
pub mod config;
pub mod files;
pub mod ledger;
pub mod matching;
pub mod outputs;
pub mod placement;
pub mod problem;
pub mod receipts;
pub mod server;
pub mod store;
pub mod tls;
pub mod validate;
pub mod verify;
pub mod wake;

pub(crate) mod api;
pub(crate) mod janitor;
pub(crate) mod layers;
pub(crate) mod limits;
pub(crate) mod liveness;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod reconcile;
pub(crate) mod relay;
pub(crate) mod secrets;
pub(crate) mod signatures;
pub(crate) mod user_code;

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::clock::Clock;

pub use config::CoordinatorConfig;
use layers::RateLimits;
use liveness::Liveness;
use metrics::Metrics;
use outputs::Outputs;
use relay::Relay;
pub use server::{CoordinatorError, Running, serve, start};
use store::Store;
use verify::rounds::Rounds;
use wake::Wake;

/// What every handler and background task shares.
pub struct AppState {
    /// The database.
    pub store: Store,
    /// The only source of time.
    pub clock: Clock,
    /// As started.
    pub config: CoordinatorConfig,
    /// Signs receipts.
    pub receipt_key: SigningKey,
    /// Where job outputs are kept.
    pub(crate) outputs: Outputs,
    /// Heartbeats, in memory.
    pub(crate) liveness: Liveness,
    /// The address for clients and people.
    pub public_url: Url,
    /// Counts for operators.
    pub(crate) metrics: Metrics,
    /// How much each caller may ask for.
    pub(crate) limits: RateLimits,
    /// Challenges that run.
    pub(crate) rounds: Rounds,
    /// How many answers to challenges are checked at once.
    pub(crate) examiners: Arc<Semaphore>,
    /// Sessions into running jobs.
    pub(crate) relay: Arc<Relay>,
    /// Wakes whoever waits for a change.
    pub wake: Wake,
    /// SHA-256 of the admin token.
    pub(crate) admin_token_sha256: [u8; 32],
    /// Cancelled when the coordinator drains: long polls and follows answer at once with what they have.
    pub stopping: CancellationToken,
}

/// The shared state as handlers get it: `State<App>`.
pub type App = Arc<AppState>;
