//! How long a job goes on after its owner needs the machine: from the command until it stands still, and until that is recorded.
//!
//! - `docker pause`: the engine's own call.
//! - `fizz`: the command to the lease's task until its snapshot says frozen: the engine has paused the container, and the journal
//!   knows since when.
//!
//! `cargo bench --bench freeze`; needs a Docker engine. `FIZZ_BENCH_PAIRS` sets the number of pairs (60).
#![allow(unreachable_pub, reason = "a bench is its own crate; its modules share what they like")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "common/image.rs"]
mod image;
#[path = "common/stats.rs"]
#[allow(dead_code, reason = "each of its users uses a part of it")]
mod stats;

use std::error::Error;
use std::sync::Arc;

use fizz::agent::journal::Journal;
use fizz::clock::Clock;
use fizz::job::fake::FakePort;
use fizz::job::images::{ImagePolicy, Images, Logins};
use fizz::job::runner::{LeaseCommand, LeaseHandle, RunnerDeps, spawn};
use fizz::runtime::docker::DockerRuntime;
use fizz::runtime::{ContainerId, ContainerRuntime as _};
use fizz::wire::lease::{Assignment, Desired, LeasePhase};
use fizz::wire::{Generation, HourlyRate, JobId, LeaseId, NodeId};
use stats::Series;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const MILLIS_MAX: f64 = 50.0;

fn main() -> Outcome<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(measure())
}

async fn measure() -> Outcome<()> {
    let pairs = std::env::var("FIZZ_BENCH_PAIRS").ok().and_then(|text| text.parse().ok()).unwrap_or(60_usize);
    let image = image::Image::import()?;
    let folder = tempfile::tempdir()?;
    let clock = Clock::system();
    let docker = DockerRuntime::connect(None).await?;
    let node_id = NodeId::generate(clock.now());
    let journal = Journal::open(&folder.path().join("state.sqlite")).await?;
    let deps = RunnerDeps {
        runtime: Arc::new(docker.clone()),
        port: Arc::new(FakePort::default()),
        journal: journal.clone(),
        clock: clock.clone(),
        node_id,
        gpus: fizz::job::gpus::Gpus::default(),
        spool_dir: folder.path().to_owned(),
        images: Images::new(journal.clone(), clock.clone(), ImagePolicy::default(), Logins::default()),
    };
    let mut handle = spawn(deps, assignment(&image.name, &clock)?, Vec::new());
    handle.snapshot.wait_for(|snapshot| snapshot.phase == LeasePhase::Running).await?;
    let id = docker.list(node_id).await?.into_iter().next().ok_or("no container")?.id;
    let result = compare(pairs, &mut handle, &docker, &id, &clock).await;
    handle.commands.send(LeaseCommand::Forget).await?;
    handle.done.await?;
    result
}

async fn compare(
    pairs: usize,
    handle: &mut LeaseHandle,
    docker: &DockerRuntime,
    id: &ContainerId,
    clock: &Clock,
) -> Outcome<()> {
    let (mut engine, mut fizz) = (Series::new(), Series::new());
    for _ in 0..pairs {
        let begin = clock.steady();
        docker.pause(id).await?;
        engine.push(clock.steady().since(begin));
        docker.unpause(id).await?;
        let begin = clock.steady();
        handle.commands.send(LeaseCommand::Freeze { reason: "a game".to_owned() }).await?;
        handle.snapshot.wait_for(|snapshot| snapshot.phase == LeasePhase::Frozen).await?;
        fizz.push(clock.steady().since(begin));
        handle.commands.send(LeaseCommand::Thaw).await?;
        handle.snapshot.wait_for(|snapshot| snapshot.phase == LeasePhase::Running).await?;
    }
    println!("{pairs} pairs, in turn; milliseconds\n");
    println!("{}", stats::HEAD);
    println!("{}", engine.row("docker pause"));
    println!("{}", fizz.row("fizz: command to frozen and recorded"));
    let (median, ratio) = (fizz.median_millis(), fizz.median_millis() / engine.median_millis());
    let word = if median <= MILLIS_MAX { "met" } else { "NOT met" };
    println!(
        "\ncommand to frozen: {median:.1} ms, {ratio:.2} of the engine's own call; goal at most {MILLIS_MAX} ms: {word}"
    );
    Ok(())
}

fn assignment(image: &str, clock: &Clock) -> Outcome<Assignment> {
    let now = clock.now();
    let spec = serde_json::json!({
        "services": [{
            "name": "main", "image": image, "command": ["sh", "-c", "while true; do sleep 0.01; done"],
            "resources": {"cpu_millis": 1000, "memory_bytes": 64 << 20, "disk_bytes": 1 << 20},
        }],
        "limits": {"price_max": 1, "duration_seconds_max": 600, "stop_grace_seconds": 1},
    });
    Ok(Assignment {
        lease_id: LeaseId::generate(now),
        job_id: JobId::generate(now),
        generation: Generation(1),
        desired: Desired::Run,
        rate: HourlyRate::MIN,
        spec: serde_json::from_value(spec)?,
    })
}
