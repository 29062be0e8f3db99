//! The node agent: registers this machine, runs the leases the coordinator assigns, reports what is.
//!
//! [`build`] opens everything that can fail for a reason a person can mend, [`Agent::run`] is one loop until the agent is
//! told to stop.
//!
//! Invariants
//! - What the agent intends is in the journal before it is acted on: `kill -9` at any point loses nothing.
//! - Only containers that carry this node's label are ever touched.
//! - One agent per state folder, held by a lock.

pub mod client;
mod driver;
pub mod enroll;
pub mod failover;
mod footprint;
pub mod identity;
pub mod journal;
pub mod machine;
mod private;
mod prove;
mod reach;
pub mod signals;
mod sync;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::{Ceiling, OfferConfig};
use crate::control::{ControlError, Server, Snapshot, first_snapshot};
use crate::http::{HttpError, Trust};
use crate::job::images::{ImagePolicy, PolicyError};
use crate::paths::StateDir;
use crate::runtime::ContainerRuntime;
use crate::runtime::docker::EngineTls;
use crate::wire::Secret;
use crate::wire::bench::BenchmarkReport;

use client::Client;
use identity::{Identity, IdentityError, StateLock};
use journal::Journal;
use signals::Stop;

/// How an agent runs.
#[derive(Clone)]
pub struct AgentOptions {
    /// Everything this node owns.
    pub state_dir: StateDir,
    /// Name for people, up to 63 characters.
    pub name: String,
    /// The network's coordinator, in order of preference; all addresses lead to the same network.
    pub coordinators: Vec<CoordinatorAddress>,
    /// Enrols without a person, when the node is not enrolled yet.
    pub join_token: Option<Secret>,
    /// What the owner lends.
    pub offer: OfferConfig,
    /// What strangers' containers may have here at most.
    pub ceiling: Ceiling,
    /// The container engine.
    pub engine: EngineSource,
    /// Where the benchmark report comes from.
    pub benchmark: BenchmarkSource,
    /// The fizz binary, to compute challenges with; without it this node proves nothing.
    pub prover: Option<PathBuf>,
    /// How long a drain waits for running jobs before it hands them back.
    pub drain_deadline: Duration,
    /// How often desired and actual state are compared without anything having happened; at least 60 s but in tests.
    pub reconcile_every: Duration,
}

/// One address of the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorAddress {
    /// `https://host:port`.
    pub url: String,
    /// Whom to believe there.
    pub trust: Trust,
}

/// Where containers run.
#[derive(Clone)]
pub enum EngineSource {
    /// A Docker-compatible engine.
    Docker {
        /// Its address; found by itself when absent.
        address: Option<String>,
        /// The certificates for it, when it is behind TLS.
        tls: Option<EngineTls>,
    },
    /// An engine that is open already; for tests and the demo.
    Given(Arc<dyn ContainerRuntime>),
}

/// Where the benchmark report comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum BenchmarkSource {
    /// From `PROGRAM bench --json --quick`, unless a cached report fits the hardware.
    Child {
        /// The fizz binary.
        program: PathBuf,
        /// How long it may take.
        timeout: Duration,
    },
    /// From here.
    Fixed(Box<BenchmarkReport>),
    /// From nowhere: the node offers itself without a score.
    Skip,
}

/// An agent that has opened everything and is about to run.
#[derive(Debug)]
pub struct Agent {
    options: AgentOptions,
    clock: Clock,
    client: Client,
    /// The open journal, or why it cannot be trusted.
    memory: Result<Journal, String>,
    image_policy: ImagePolicy,
    control: Option<Server>,
    snapshots: watch::Sender<Snapshot>,
    lock: StateLock,
}

/// Why an agent cannot begin. All of them want a person.
#[derive(Debug, Error)]
pub enum AgentError {
    /// State folder or key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A coordinator's address or CA file.
    #[error(transparent)]
    Address(#[from] HttpError),
    /// Nobody to register with.
    #[error(
        "no coordinator is configured; write one into fizz.toml: coordinators = [{{ url = \"https://host:8443\" }}]"
    )]
    NoCoordinator,
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The owner's words about images.
    #[error(transparent)]
    Images(#[from] PolicyError),
    /// The folder for outputs on their way.
    #[error("the folder {folder} for outputs cannot be made")]
    Spool {
        /// Which.
        folder: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
}

/// How an agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every lease was finished or handed back, or the time for it ran out.
    Drained,
    /// Containers were left running for the next start.
    Left,
}

impl std::fmt::Debug for AgentOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentOptions")
            .field("name", &self.name)
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}

/// Opens everything an agent needs; nothing is sent and no container is touched yet.
///
/// A journal that cannot be trusted is no error here: the agent then runs in the safe state and says why.
///
/// # Errors
/// [`AgentError`] when something only a person can mend is in the way.
pub async fn build(options: AgentOptions, clock: Clock) -> Result<Agent, AgentError> {
    if options.coordinators.is_empty() {
        return Err(AgentError::NoCoordinator);
    }
    let image_policy = ImagePolicy::read(&options.ceiling.images, driver::image_cache_default())?;
    let lock = StateLock::take(&options.state_dir)?;
    let identity = Identity::load_or_create(&options.state_dir, &lock)?;
    let spool = options.state_dir.spool();
    private::create_folder(&spool).map_err(|source| AgentError::Spool { folder: spool.clone(), source })?;
    let client = Client::new(&options.coordinators, identity, clock.clone())?;
    let control = match Server::bind(&options.state_dir.control_socket()) {
        Ok(server) => Some(server),
        Err(ControlError::NotYet) => None,
        Err(error) => return Err(error.into()),
    };
    let memory = Journal::open(&options.state_dir.journal()).await.map_err(|error| whole(&error));
    let url = options.coordinators.first().map_or("", |c| c.url.as_str());
    let (snapshots, _) = watch::channel(first_snapshot(&options.name, url, clock.now()));
    Ok(Agent { options, clock, client, memory, image_policy, control, snapshots, lock })
}

/// An error with everything behind it in one sentence, for views that show text only.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

impl Agent {
    /// The newest snapshot, the same that the control socket serves.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.subscribe()
    }

    /// Runs until it is told to stop and has done so.
    pub async fn run(self, stop: watch::Receiver<Stop>) -> Outcome {
        let lock = self.lock;
        let parts = driver::Parts {
            options: self.options,
            clock: self.clock,
            client: self.client,
            memory: self.memory,
            image_policy: self.image_policy,
            control: self.control,
            snapshots: self.snapshots,
        };
        let outcome = driver::run(parts, stop).await;
        drop(lock);
        outcome
    }
}
