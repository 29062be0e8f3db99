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
pub mod failover;
pub mod identity;
pub mod journal;
pub mod machine;
mod private;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::OfferConfig;
use crate::http::Trust;
use crate::paths::StateDir;
use crate::runtime::ContainerRuntime;
use crate::wire::Secret;
use crate::wire::bench::BenchmarkReport;

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
    /// The container engine.
    pub engine: EngineSource,
    /// Where the benchmark report comes from.
    pub benchmark: BenchmarkSource,
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
