//! The whole way: renter, HTTPS, coordinator, agent, engine, and back. The stage is the demo's.

use std::time::Duration;

use fizz::cli::demo::stage::{Accounts, Stage};
use fizz::clock::Clock;
use fizz::runtime::docker::DockerRuntime;
use fizz::wire::HourlyRate;
use fizz::wire::bench::BenchmarkReport;
use fizz::wire::job::Resources;
use fizz::wire::lease::LeaseEnd;

use crate::runner::spec;
use crate::{Outcome, Task};

/// A coordinator and a node in this process.
pub struct Network {
    stage: Stage,
    accounts: Accounts,
    price: HourlyRate,
}

impl Network {
    /// Starts both and waits until the node takes work.
    pub async fn start(_: DockerRuntime) -> Outcome<Self> {
        let clock = Clock::system();
        let mut stage = Stage::build(clock.clone()).await?;
        stage.start_coordinator().await?;
        let accounts = stage.open_accounts().await?;
        let price = HourlyRate::try_from(360_000)?;
        let benchmark = BenchmarkReport {
            measured_at: clock.now(),
            fingerprint: "0".repeat(64),
            method: 1,
            host: Default::default(),
            gpus: Vec::new(),
            score: 0,
            problems: Vec::new(),
        };
        let lends = Resources { cpu_millis: 1000, memory_bytes: 512 << 20, disk_bytes: 64 << 20, gpus: 0 };
        stage.start_node(&accounts, benchmark, lends, price).await?;
        Ok(Self { stage, accounts, price })
    }

    /// Runs one job as `fizz run` does; from before its submission until its exit code is known.
    pub async fn run(&self, task: &Task, clock: &Clock) -> Outcome<Duration> {
        let renter = &self.accounts.renter;
        let key = format!("{:?}", clock.steady());
        let begin = clock.steady();
        let job = renter.submit(&spec(task, self.price), &key).await?;
        let mut log = renter.follow_logs(job.job_id, 0);
        while log.next().await?.is_some() {}
        let job = renter.wait_final(job.job_id).await?;
        let took = clock.steady().since(begin);
        match job.outcome {
            Some(LeaseEnd::Exited { code: 0 }) => Ok(took),
            other => Err(format!("the job ended with {other:?}: {}", job.why).into()),
        }
    }

    /// Takes both down.
    pub async fn stop(self) {
        self.stage.strike().await;
    }
}
