//! The agent's task of one lease, with a coordinator that accepts everything at once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fizz::agent::journal::Journal;
use fizz::clock::{Clock, Steady};
use fizz::job::images::{ImagePolicy, Images, Logins};
use fizz::job::runner::{RunnerDeps, spawn};
use fizz::job::{LeasePort, OutputPart, PortError};
use fizz::runtime::docker::DockerRuntime;
use fizz::wire::job::{JobLimits, JobSpec, Requirements, Resources, ServiceSpec};
use fizz::wire::lease::{Assignment, Desired, LeaseChange, LeaseEnd, LeaseEvent, OutputAccepted};
use fizz::wire::{Generation, HourlyRate, JobId, LeaseId, NodeId, Sequence};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::{Outcome, Task};

/// When the container's end was reported, and how the lease ended.
#[derive(Debug, Clone, Default)]
struct Seen {
    collecting: Option<Steady>,
    end: Option<LeaseEnd>,
}

struct Port {
    clock: Clock,
    seen: watch::Sender<Seen>,
}

#[async_trait]
impl LeasePort for Port {
    async fn send_events(&self, _: LeaseId, events: &[LeaseEvent]) -> Result<Sequence, PortError> {
        let now = self.clock.steady();
        for event in events {
            if matches!(event.what, LeaseChange::Collecting) {
                self.seen.send_modify(|seen| seen.collecting = Some(now));
            }
            if let LeaseChange::Ended { end, .. } = &event.what {
                self.seen.send_modify(|seen| seen.end = Some(end.clone()));
            }
        }
        Ok(events.last().map_or(Sequence(0), |event| event.sequence))
    }

    async fn send_logs(&self, _: LeaseId, offset: u64, _: bool, frames: Bytes) -> Result<u64, PortError> {
        Ok(offset + frames.len() as u64)
    }

    async fn output_offset(&self, _: LeaseId, _: &str) -> Result<u64, PortError> {
        Ok(0)
    }

    async fn send_output_part(&self, _: LeaseId, _: &str, part: OutputPart<'_>) -> Result<u64, PortError> {
        Ok(part.offset + part.bytes)
    }

    async fn finish_output(&self, _: LeaseId, sha256: &str, bytes: u64) -> Result<OutputAccepted, PortError> {
        Ok(OutputAccepted { bytes, sha256: sha256.to_owned() })
    }
}

/// Everything a lease's task needs, on a folder of its own.
pub struct Runner {
    folder: TempDir,
    docker: DockerRuntime,
    journal: Journal,
    node_id: NodeId,
}

impl Runner {
    /// Opens a journal.
    pub async fn new(docker: DockerRuntime) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let journal = Journal::open(&folder.path().join("state.sqlite")).await?;
        Ok(Self { folder, docker, journal, node_id: NodeId::generate(Clock::system().now()) })
    }

    /// Runs one lease; from its assignment to the report of its container's end.
    pub async fn run(&self, task: &Task, clock: &Clock) -> Outcome<Duration> {
        let (seen, mut watching) = watch::channel(Seen::default());
        let deps = RunnerDeps {
            runtime: Arc::new(self.docker.clone()),
            port: Arc::new(Port { clock: clock.clone(), seen }),
            images: Images::new(self.journal.clone(), clock.clone(), ImagePolicy::default(), Logins::default()),
            journal: self.journal.clone(),
            clock: clock.clone(),
            node_id: self.node_id,
            gpus: fizz::job::gpus::Gpus::default(),
            spool_dir: self.folder.path().to_owned(),
        };
        let assignment = assignment(task, clock);
        let begin = clock.steady();
        let handle = spawn(deps, assignment.clone(), Vec::new());
        let seen = watching.wait_for(|seen| seen.end.is_some()).await?.clone();
        handle.done.await?;
        self.journal.forget_lease(assignment.lease_id).await?;
        match (seen.end, seen.collecting) {
            (Some(LeaseEnd::Exited { code: 0 }), Some(at)) => Ok(at.since(begin)),
            (end, _) => Err(format!("the lease ended with {end:?}").into()),
        }
    }
}

fn assignment(task: &Task, clock: &Clock) -> Assignment {
    let now = clock.now();
    Assignment {
        lease_id: LeaseId::generate(now),
        job_id: JobId::generate(now),
        generation: Generation(1),
        desired: Desired::Run,
        rate: HourlyRate::MIN,
        spec: spec(task, HourlyRate::MIN),
    }
}

/// The job that every contender runs.
pub fn spec(task: &Task, price_max: HourlyRate) -> JobSpec {
    JobSpec {
        name: None,
        services: vec![ServiceSpec {
            name: "main".to_owned(),
            image: task.image_id.clone(),
            entrypoint: None,
            command: task.command.clone(),
            env: std::collections::BTreeMap::new(),
            workdir: None,
            resources: Resources { cpu_millis: 1000, memory_bytes: 512 << 20, disk_bytes: 64 << 20, gpus: 0 },
            ..ServiceSpec::default()
        }],
        requirements: Requirements::default(),
        limits: JobLimits {
            price_max,
            duration_seconds_max: 60,
            start_deadline_seconds: None,
            stop_grace_seconds: 1,
            log_bytes_max: 16 << 20,
            output_bytes_max: 1 << 20,
            pids_max: 512,
        },
        output_path: None,
        ..JobSpec::default()
    }
}
