//! How long fifty running jobs are without their agent when it is killed: from the start of the new process until it has looked at
//! each container again, follows its log and waits for its end. Real processes: `fizz coordinator serve` and `fizz up`.
//!
//! `cargo bench --bench readoption`; needs a Docker engine. `FIZZ_BENCH_ROUNDS` sets the number of kills (7), `FIZZ_BENCH_JOBS`
//! the number of jobs (50), `FIZZ_BENCH_LIMIT_MILLIS` makes a median above it a failure.
#![allow(unreachable_pub, reason = "a bench is its own crate; its modules share what they like")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "common/image.rs"]
mod image;
#[path = "common/network.rs"]
#[allow(dead_code, reason = "each of its users uses a part of it")]
mod network;
#[path = "common/stats.rs"]
#[allow(dead_code, reason = "each of its users uses a part of it")]
mod stats;

use std::error::Error;

use fizz::clock::Clock;
use fizz::control::Snapshot;
use fizz::wire::JobId;
use fizz::wire::job::JobSpec;
use fizz::wire::lease::LeasePhase;
use network::{Network, until};
use stats::Series;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const MILLIS_MAX: f64 = 1000.0;

fn main() -> Outcome<()> {
    fizz::http::install_crypto_provider();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(measure())
}

async fn measure() -> Outcome<()> {
    let (rounds, jobs) = (number("FIZZ_BENCH_ROUNDS", 7)?, number("FIZZ_BENCH_JOBS", 50)?);
    let image = image::Image::import()?;
    let mut network = Network::start("").await?;
    let spec = spec(&image.name)?;
    let mut submitted = Vec::new();
    for number in 0..jobs {
        submitted.push(network.renter.submit(&spec, &number.to_string()).await?.job_id);
    }
    until("every job", || async { network.snapshot().await.is_some_and(|snapshot| taken_up(&snapshot) == jobs) })
        .await?;
    let result = kill(&mut network, rounds, jobs).await;
    stop(&network, &submitted).await?;
    let median = result?;
    let limit = number("FIZZ_BENCH_LIMIT_MILLIS", 0)?;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    if limit > 0 && median > limit as f64 {
        return Err(format!("{median:.0} ms is more than {limit} ms").into());
    }
    Ok(())
}

async fn kill(network: &mut Network, rounds: usize, jobs: usize) -> Outcome<f64> {
    let clock = Clock::system();
    let mut series = Series::new();
    for _ in 0..rounds {
        let killed = network.agent.pid();
        let begin = clock.steady();
        network.kill_agent()?;
        until("every job again", || async {
            let snapshot = network.snapshot().await.filter(|snapshot| snapshot.pid != killed);
            snapshot.is_some_and(|snapshot| taken_up(&snapshot) == jobs)
        })
        .await?;
        series.push(clock.steady().since(begin));
    }
    println!("{jobs} containers, {rounds} kills; milliseconds\n");
    println!("{}", stats::HEAD);
    println!("{}", series.row("kill to every lease followed again"));
    let median = series.median_millis();
    let word = if median <= MILLIS_MAX { "met" } else { "NOT met" };
    println!("\nmedian {median:.0} ms; goal at most {MILLIS_MAX} ms: {word}");
    Ok(median)
}

/// Leases whose container was looked at: only then it is known how long it has run.
fn taken_up(snapshot: &Snapshot) -> usize {
    snapshot.leases.iter().filter(|lease| lease.phase == LeasePhase::Running && lease.ran_millis > 0).count()
}

async fn stop(network: &Network, jobs: &[JobId]) -> Outcome<()> {
    for job in jobs {
        network.renter.stop(*job).await?;
    }
    until("no job", || async { network.snapshot().await.is_some_and(|snapshot| snapshot.leases.is_empty()) }).await
}

fn spec(image: &str) -> Outcome<JobSpec> {
    let spec = serde_json::json!({
        "services": [{
            "name": "main", "image": image, "command": ["sleep", "3600"],
            "resources": {"cpu_millis": 10, "memory_bytes": 8 << 20, "disk_bytes": 1 << 20},
        }],
        "limits": {"price_max": 1_000_000, "duration_seconds_max": 3600, "stop_grace_seconds": 0},
    });
    Ok(serde_json::from_value(spec)?)
}

fn number(variable: &str, default: usize) -> Outcome<usize> {
    std::env::var(variable).ok().map_or(Ok(default), |text| Ok(text.parse()?))
}
