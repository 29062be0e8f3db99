//! What Fizz adds to a container: pairs measured in turn in one run, on one machine, with the same image and the same limits.
//!
//! - `raw`: create, start, wait through the Docker API, nothing else.
//! - `docker run`: the command line, with the same limits.
//! - `runner`: the agent's task of one lease, from its assignment to the moment it reports the container's end.
//! - `network`: from `POST /v1/jobs` over HTTPS through coordinator and agent until the renter knows the exit code.
//!
//! `cargo bench --bench job_overhead`; needs a Docker engine. `FIZZ_BENCH_PAIRS` sets the number of pairs (30).
#![allow(unreachable_pub, reason = "a bench is its own crate; its modules share what they like")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "job_overhead/network.rs"]
mod network;
#[path = "job_overhead/raw.rs"]
mod raw;
#[path = "job_overhead/runner.rs"]
mod runner;
#[path = "common/stats.rs"]
mod stats;

use std::error::Error;
use std::time::Duration;

use fizz::cli::demo::image;
use fizz::clock::Clock;
use fizz::runtime::docker::DockerRuntime;
use stats::Series;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What every contender runs, and with which limits.
pub struct Task {
    /// Local image whose program ends at once.
    pub image_id: String,
    /// Its arguments.
    pub command: Vec<String>,
}

fn main() -> Outcome<()> {
    fizz::http::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Outcome<()> {
    let pairs = std::env::var("FIZZ_BENCH_PAIRS").ok().and_then(|text| text.parse().ok()).unwrap_or(30_usize);
    let docker = DockerRuntime::connect(None).await?;
    let tag = format!("fizz-bench:{}", std::process::id());
    let program = image::program()?.ok_or("this build has no demo job")?;
    let image_id = docker.import_image(image::archive(&program, docker.architecture(), &tag)?, &tag).await?;
    let task = Task { image_id, command: vec!["--help".to_owned()] };
    let result = compare(&docker, &task, pairs).await;
    docker.remove_image(&tag).await?;
    result
}

async fn compare(docker: &DockerRuntime, task: &Task, pairs: usize) -> Outcome<()> {
    let clock = Clock::system();
    let raw = raw::Raw::new(docker, task).await?;
    let runner = runner::Runner::new(docker.clone()).await?;
    let network = network::Network::start(docker.clone()).await?;
    let mut series = [Series::new(), Series::new(), Series::new(), Series::new()];
    // The first round warms caches and is thrown away. Whoever begins changes from round to round.
    for round in 0..=pairs {
        for turn in 0..series.len() {
            let contender = (round + turn) % series.len();
            let took = match contender {
                0 => raw.by_api(&clock).await?,
                1 => runner.run(task, &clock).await?,
                2 => raw.by_cli(task, &clock).await?,
                _ => network.run(task, &clock).await?,
            };
            if round > 0 {
                series[contender].push(took);
            }
        }
    }
    network.stop().await;
    println!("{pairs} rounds of each, in turn; milliseconds\n");
    println!("{}", stats::HEAD);
    let names = [
        "raw Docker API, create to exit",
        "fizz runner, assignment to exit",
        "docker run",
        "fizz network, submit to exit known",
    ];
    for (name, series) in names.iter().zip(&series) {
        println!("{}", series.row(name));
    }
    println!();
    let [api, lease, cli, job] = &series;
    verdict("runner over raw API", lease, api, Duration::from_millis(10));
    verdict("network over docker run", job, cli, Duration::from_millis(60));
    Ok(())
}

/// The median of the differences within each round, for both have the same weather there.
fn verdict(what: &str, ours: &Series, theirs: &Series, limit: Duration) {
    let over = ours.less(theirs).median_millis();
    let ratio = ours.median_millis() / theirs.median_millis();
    let goal = Duration::as_secs_f64(&limit) * 1000.0;
    let word = if over <= goal { "met" } else { "NOT met" };
    println!(
        "{what}: {over:+.1} ms at the median of pairs, ratio of medians {ratio:.3}; goal at most +{goal:.0} ms: {word}"
    );
}
