//! What the sandbox costs a start: pairs measured in turn in one run, with the same image and the same program, which ends at once.
//!
//! - `plain`: create, start, wait as `docker run` does it with Docker's defaults: its bridge network, its capabilities, its log.
//! - `fizz`: create, start, wait of the container that a job without a network gets, with everything that is prepared in it.
//! - `docker run --rm`: the command line with Docker's defaults.
//!
//! `cargo bench --bench hardened_start`; needs a Docker engine. `FIZZ_BENCH_PAIRS` sets the number of pairs (40).
#![allow(unreachable_pub, reason = "a bench is its own crate; its modules share what they like")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "common/image.rs"]
mod image;
#[path = "common/stats.rs"]
#[allow(dead_code, reason = "each of its users uses a part of it")]
mod stats;

use std::error::Error;
use std::process::Stdio;
use std::time::Duration;

use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::WaitContainerOptionsBuilder;
use fizz::clock::Clock;
use fizz::runtime::docker::DockerRuntime;
use fizz::runtime::{ContainerRuntime as _, ContainerSpec};
use fizz::wire::{LeaseId, NodeId};
use futures_util::StreamExt as _;
use stats::Series;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const RATIO_MAX: f64 = 1.05;

fn main() -> Outcome<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(measure())
}

async fn measure() -> Outcome<()> {
    let pairs = std::env::var("FIZZ_BENCH_PAIRS").ok().and_then(|text| text.parse().ok()).unwrap_or(40_usize);
    let image = image::Image::import()?;
    let fizz = DockerRuntime::connect(None).await?;
    let docker = Docker::connect_with_host(fizz.address())?;
    let image_id = fizz.ensure_image(&image.name, tokio::sync::mpsc::channel(1).0).await?.image_id;
    let clock = Clock::system();
    let mut series = [Series::new(), Series::new(), Series::new()];
    // The first round warms caches and is thrown away. Whoever begins changes from round to round.
    for round in 0..=pairs {
        for turn in 0..series.len() {
            let contender = (round + turn) % series.len();
            let took = match contender {
                0 => plain(&docker, &image_id, &clock).await?,
                1 => hardened(&fizz, &image_id, &clock).await?,
                _ => command_line(&image_id, &clock).await?,
            };
            if round > 0 {
                series[contender].push(took);
            }
        }
    }
    println!("{pairs} rounds of each, in turn; milliseconds\n");
    println!("{}", stats::HEAD);
    let names = ["plain: Docker's defaults by API", "fizz: hardened", "docker run --rm"];
    for (name, series) in names.iter().zip(&series) {
        println!("{}", series.row(name));
    }
    let [plain, hardened, _] = &series;
    let ratio = hardened.median_millis() / plain.median_millis();
    let word = if ratio <= RATIO_MAX { "met" } else { "NOT met" };
    println!("\nhardened over plain: ratio of medians {ratio:.3}; goal at most {RATIO_MAX}: {word}");
    Ok(())
}

async fn plain(docker: &Docker, image_id: &str, clock: &Clock) -> Outcome<Duration> {
    let body = ContainerCreateBody {
        image: Some(image_id.to_owned()),
        cmd: Some(vec!["true".to_owned()]),
        ..ContainerCreateBody::default()
    };
    let begin = clock.steady();
    let id = docker.create_container(None, body).await?.id;
    docker.start_container(&id, None).await?;
    let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
    let end = docker.wait_container(&id, Some(options)).boxed().next().await;
    let took = clock.steady().since(begin);
    docker.remove_container(&id, None).await?;
    end.ok_or("the engine hung up")??;
    Ok(took)
}

async fn hardened(fizz: &DockerRuntime, image_id: &str, clock: &Clock) -> Outcome<Duration> {
    let now = clock.now();
    let spec = ContainerSpec {
        command: vec!["true".to_owned()],
        memory_bytes: 512 << 20,
        pids_max: 512,
        log_bytes_max: 16 << 20,
        ..ContainerSpec::new(NodeId::generate(now), LeaseId::generate(now), image_id.to_owned())
    };
    let begin = clock.steady();
    let id = fizz.create(&spec).await?;
    fizz.start(&id).await?;
    let exit = fizz.wait(&id).await;
    let took = clock.steady().since(begin);
    fizz.remove(&id).await?;
    match exit?.code {
        0 => Ok(took),
        code => Err(format!("it ended with code {code}").into()),
    }
}

async fn command_line(image_id: &str, clock: &Clock) -> Outcome<Duration> {
    let mut run = tokio::process::Command::new("docker");
    run.args(["run", "--rm", image_id, "true"]).stdout(Stdio::null());
    let begin = clock.steady();
    let status = run.status().await?;
    let took = clock.steady().since(begin);
    if status.success() { Ok(took) } else { Err(format!("docker run ended with {status}").into()) }
}
