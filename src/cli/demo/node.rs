//! The demo's node: an agent in this process, on its own folder.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::agent::signals::Stop;
use crate::agent::{self, AgentOptions, BenchmarkSource, CoordinatorAddress, EngineSource, Outcome};
use crate::cli::errors::{CliError, Exit};
use crate::clock::Clock;
use crate::config::{ByteSize, Ceiling, CpuMillis, NetworkConfig, OfferConfig, Price};
use crate::control::Snapshot;
use crate::paths::StateDir;
use crate::runtime::docker::DockerRuntime;
use crate::wire::bench::BenchmarkReport;
use crate::wire::job::Resources;
use crate::wire::node::NodeState;
use crate::wire::{HourlyRate, NodeId, Secret};

/// Nothing in a demo is compared out of turn.
const RECONCILE_EVERY: Duration = Duration::from_secs(60);

/// What a node needs to know.
pub struct NodeParts {
    /// Its folder.
    pub folder: PathBuf,
    /// Where it registers.
    pub coordinator: CoordinatorAddress,
    /// Lets it in.
    pub join_token: Secret,
    /// What was measured before.
    pub benchmark: BenchmarkReport,
    /// What it lends: just what the job asks for.
    pub lends: Resources,
    /// Its lowest price for that.
    pub price: HourlyRate,
    /// Where its containers run.
    pub docker: DockerRuntime,
}

/// A running agent.
pub struct Node {
    stop: watch::Sender<Stop>,
    snapshots: watch::Receiver<Snapshot>,
    task: JoinHandle<Outcome>,
}

impl Node {
    /// Starts the agent.
    ///
    /// # Errors
    /// When its folder cannot be used.
    pub async fn start(parts: NodeParts, clock: Clock) -> Result<Self, CliError> {
        let options = AgentOptions {
            state_dir: StateDir::new(parts.folder),
            name: "demo node".to_owned(),
            coordinators: vec![parts.coordinator],
            join_token: Some(parts.join_token),
            offer: OfferConfig {
                cpus: Some(CpuMillis(parts.lends.cpu_millis)),
                memory: Some(ByteSize(parts.lends.memory_bytes)),
                disk: Some(ByteSize(parts.lends.disk_bytes)),
                gpus: Some(0),
                price_per_hour: Some(Price(parts.price)),
            },
            // Nothing on this machine is changed for somebody who only looks.
            ceiling: Ceiling {
                network: NetworkConfig { internet: false, ..NetworkConfig::default() },
                ..Ceiling::default()
            },
            engine: EngineSource::Given(Arc::new(parts.docker)),
            benchmark: BenchmarkSource::Fixed(Box::new(parts.benchmark)),
            prover: None,
            drain_deadline: Duration::ZERO,
            reconcile_every: RECONCILE_EVERY,
        };
        let agent = agent::build(options, clock)
            .await
            .map_err(|error| CliError::new(Exit::Error, "the node does not start").because(error))?;
        let (stop, stopping) = watch::channel(Stop::No);
        let snapshots = agent.snapshots();
        Ok(Self { stop, snapshots, task: tokio::spawn(agent.run(stopping)) })
    }

    /// Waits until it takes work, and answers with its id.
    ///
    /// # Errors
    /// What it says of itself, when it does not within `deadline`.
    pub async fn ready(&mut self, deadline: Duration) -> Result<NodeId, CliError> {
        let takes_work = |snapshot: &Snapshot| snapshot.state == NodeState::Idle && snapshot.node_id.is_some();
        let waited = tokio::time::timeout(deadline, self.snapshots.wait_for(takes_work)).await;
        if let Ok(Ok(snapshot)) = &waited
            && let Some(node_id) = snapshot.node_id
        {
            return Ok(node_id);
        }
        drop(waited);
        let why = self.snapshots.borrow().why.clone().unwrap_or_else(|| "it does not say why".to_owned());
        Err(CliError::new(Exit::Error, format!("the node did not get ready within {} s: {why}", deadline.as_secs())))
    }

    /// Asks it to hand back what it has and to stop; whether it did within `deadline`.
    pub async fn stop(self, deadline: Duration) -> bool {
        // A receiver that is gone has stopped already.
        let _ = self.stop.send(Stop::Drain);
        let abort = self.task.abort_handle();
        let stopped = tokio::time::timeout(deadline, self.task).await.is_ok();
        abort.abort();
        stopped
    }
}
