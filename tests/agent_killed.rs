//! The agent's real process over a real engine, killed with SIGKILL at every state of a lease.
#![cfg(feature = "coordinator")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod docker_support;

use std::process::Stdio;
use std::time::Duration;

use docker_support::market::Market;
use docker_support::{TestImage, docker, in_time};

use fizz::wire::job::{JobLimits, JobSpec, JobState, JobView, Requirements, Resources, ServiceSpec};
use fizz::wire::lease::{LeaseEnd, LeasePhase};
use fizz::wire::{JobId, LeaseId, Secret};
use tokio::process::{Child, Command};

struct World {
    market: Market,
    join_token: Secret,
    image: TestImage,
}

impl World {
    async fn new() -> Self {
        let market = Market::open(500).await;
        Self { join_token: market.join_token().await, market, image: TestImage::new() }
    }

    fn agent(&self) -> Child {
        let ca_file = self.market.folder.path().join("coordinator/ca.pem");
        let url = self.market.url();
        let config = format!(
            "drain_deadline_seconds = 0\n[[coordinators]]\nurl = \"{url}\"\nca_file = \"{}\"\n",
            ca_file.display()
        );
        let file = self.market.folder.path().join("fizz.toml");
        std::fs::write(&file, config).unwrap();
        Command::new(env!("CARGO_BIN_EXE_fizz"))
            .args(["up", "--config"])
            .arg(file)
            .env("FIZZ_STATE_DIR", self.market.folder.path().join("node"))
            .env("FIZZ_JOIN_TOKEN", self.join_token.expose())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    fn job(&self) -> JobSpec {
        JobSpec {
            name: None,
            services: vec![ServiceSpec {
                name: "main".to_owned(),
                image: self.image.name.clone(),
                entrypoint: None,
                command: ["/bin/sh", "-c", "echo begin; sleep 2; echo end"].map(str::to_owned).to_vec(),
                env: std::collections::BTreeMap::new(),
                workdir: None,
                resources: Resources { cpu_millis: 100, memory_bytes: 32 << 20, disk_bytes: 1 << 20, gpus: 0 },
                ..ServiceSpec::default()
            }],
            requirements: Requirements::default(),
            limits: JobLimits {
                price_max: "1".parse().unwrap(),
                duration_seconds_max: 600,
                start_deadline_seconds: None,
                stop_grace_seconds: 1,
                log_bytes_max: 1 << 20,
                output_bytes_max: 1 << 20,
                pids_max: 16,
            },
            output_path: None,
            ..JobSpec::default()
        }
    }

    /// Waits until the job's lease is in this phase or past it.
    async fn until(&self, job_id: JobId, phase: LeasePhase) -> JobView {
        loop {
            let view = self.market.renter.job(job_id).await.unwrap();
            let reached = view.lease.as_ref().is_some_and(|lease| rank(lease.phase) >= rank(phase));
            if reached || view.state.is_final() {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn log(&self, job_id: JobId) -> String {
        let mut follower = self.market.renter.read_logs(job_id, 0);
        let mut text = Vec::new();
        while let Some(frame) = follower.next().await.unwrap() {
            text.extend_from_slice(&frame.bytes);
        }
        String::from_utf8(text).unwrap()
    }
}

/// Order of the phases on the way.
fn rank(phase: LeasePhase) -> u8 {
    match phase {
        LeasePhase::Assigned | LeasePhase::Unknown => 0,
        LeasePhase::Pulling => 1,
        LeasePhase::Starting => 2,
        LeasePhase::Running | LeasePhase::Frozen => 3,
        LeasePhase::Collecting => 4,
        LeasePhase::Done | LeasePhase::Failed | LeasePhase::Evicted | LeasePhase::Lost => 5,
    }
}

fn containers_of(lease_id: LeaseId) -> String {
    docker(&["ps", "-aq", "--no-trunc", "--filter", &format!("label=io.fizz.lease={lease_id}")])
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn an_agent_process_killed_at_each_state_of_a_lease_runs_its_container_once() {
    let world = World::new().await;
    let mut agent = world.agent();
    for phase in
        [LeasePhase::Assigned, LeasePhase::Pulling, LeasePhase::Starting, LeasePhase::Running, LeasePhase::Collecting]
    {
        let job = world.market.renter.submit(&world.job(), &format!("{phase:?}")).await.unwrap();
        let seen = in_time(world.until(job.job_id, phase)).await;
        agent.kill().await.unwrap();
        let before = seen.lease.as_ref().map(|lease| containers_of(lease.lease_id)).unwrap_or_default();
        agent = world.agent();
        let done = in_time(world.market.renter.wait_final(job.job_id)).await.unwrap();
        assert_eq!(done.state, JobState::Done, "killed at {phase:?}: {}", done.why);
        assert_eq!(done.outcome, Some(LeaseEnd::Exited { code: 0 }), "killed at {phase:?}");
        assert_eq!(done.lease_count, 1, "killed at {phase:?}");
        assert_eq!(world.log(job.job_id).await, "begin\nend\n", "killed at {phase:?} with container '{before}'");
        let lease_id = done.lease.unwrap().lease_id;
        in_time(async {
            while !containers_of(lease_id).is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
    assert!(drained(&mut agent).await);
    world.market.running.shutdown(Duration::from_millis(200)).await;
}

/// SIGTERM drains, and the exit is clean.
async fn drained(agent: &mut Child) -> bool {
    let pid = i32::try_from(agent.id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    in_time(agent.wait()).await.unwrap().success()
}
