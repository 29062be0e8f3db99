//! How fast logs reach the coordinator, and what they cost the agent: ten jobs that write as fast as they can, real processes
//! (`fizz coordinator serve` with its database on disk, `fizz up`), and beside them what the engine's own log API gives to a client
//! that throws everything away, which is the most there is.
//!
//! `cargo bench --bench log_stream`; needs a Docker engine and some GB of disk. `FIZZ_BENCH_SECONDS` sets the time of each
//! measurement (15), `FIZZ_BENCH_JOBS` the number of jobs (10), `FIZZ_BENCH_LINE_BYTES` the length of a line (120, as lines of logs
//! have).
#![allow(unreachable_pub, reason = "a bench is its own crate; its modules share what they like")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "common/image.rs"]
mod image;
#[path = "common/network.rs"]
#[allow(dead_code, reason = "each of its users uses a part of it")]
mod network;
#[path = "log_stream/raw.rs"]
mod raw;

use std::error::Error;
use std::process::Command;
use std::time::Duration;

use fizz::clock::Clock;
use fizz::wire::JobId;
use fizz::wire::job::JobSpec;
use network::{Network, until};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const MEGABYTES_PER_SECOND_MIN: f64 = 100.0;
const RSS_MEGABYTES_MAX: f64 = 40.0;
/// Time to come to speed.
pub const RISE: Duration = Duration::from_secs(3);

fn main() -> Outcome<()> {
    fizz::http::install_crypto_provider();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(measure())
}

/// What every job runs: lines of so many bytes, their end included.
pub fn command(line_bytes: usize) -> Vec<String> {
    ["yes", &"x".repeat(line_bytes.saturating_sub(1))].map(str::to_owned).to_vec()
}

async fn measure() -> Outcome<()> {
    let (seconds, jobs) = (number("FIZZ_BENCH_SECONDS", 15)?, number("FIZZ_BENCH_JOBS", 10)?);
    let time = Duration::from_secs(seconds);
    let line_bytes = usize::try_from(number("FIZZ_BENCH_LINE_BYTES", 120)?)?;
    let image = image::Image::import()?;
    let raw = raw::megabytes_per_second(&image.name, line_bytes, jobs, time).await?;
    println!("the engine's own API, read and thrown away: {raw:.1} MB/s of log");
    let (ours, rss) = through_fizz(&image.name, line_bytes, jobs, time).await?;
    let word = if ours >= MEGABYTES_PER_SECOND_MIN { "met" } else { "NOT met" };
    println!(
        "accepted by the coordinator: {ours:.1} MB/s, {:.2} of the engine's own; goal 100 MB/s: {word}",
        ours / raw
    );
    let word = if rss <= RSS_MEGABYTES_MAX { "met" } else { "NOT met" };
    println!("the agent's peak memory: {rss:.1} MB RSS; goal at most {RSS_MEGABYTES_MAX} MB: {word}");
    Ok(())
}

/// Megabytes of log per second, and the agent's peak RSS in megabytes.
async fn through_fizz(image: &str, line_bytes: usize, jobs: u64, time: Duration) -> Outcome<(f64, f64)> {
    let network = Network::start("").await?;
    let spec = spec(image, line_bytes)?;
    let mut submitted = Vec::new();
    for number in 0..jobs {
        submitted.push(network.renter.submit(&spec, &number.to_string()).await?.job_id);
    }
    until("every job's log", || async {
        let logged = logged(&network, &submitted).await;
        logged.is_ok_and(|logged| logged.iter().all(|bytes| *bytes > 0))
    })
    .await?;
    tokio::time::sleep(RISE).await;
    let clock = Clock::system();
    let (begin, before) = (clock.steady(), total(&logged(&network, &submitted).await?));
    tokio::time::sleep(time).await;
    let (took, after) = (clock.steady().since(begin), total(&logged(&network, &submitted).await?));
    let (agent, coordinator) = (network.agent.pid(), network.coordinator.pid());
    let status = std::fs::read_to_string(format!("/proc/{agent}/status"))?;
    println!(
        "processor time: agent {:.2} s, coordinator {:.2} s in all",
        processor_seconds(agent)?,
        processor_seconds(coordinator)?
    );
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    end(network).await?;
    #[expect(clippy::cast_precision_loss, reason = "a rate has few digits")]
    // Frames are no log: each line has a header.
    let bytes =
        (after - before) as f64 * line_bytes as f64 / (line_bytes + fizz::wire::logs::FRAME_HEADER_BYTES) as f64;
    Ok((bytes / 1e6 / took.as_secs_f64(), peak.ok_or("no VmHWM")? / 1e3))
}

/// Not by stopping the jobs: their leases would hand over all that the engine has kept by now, which takes far longer than was
/// measured.
async fn end(network: Network) -> Outcome<()> {
    let node = network.snapshot().await.and_then(|snapshot| snapshot.node_id).ok_or("the agent has no node")?;
    drop(network);
    let docker = |args: &[&str]| Command::new("docker").args(args).output();
    let ids = docker(&["ps", "-aq", "--filter", &format!("label=io.fizz.node={node}")])?;
    for id in String::from_utf8(ids.stdout)?.lines() {
        docker(&["rm", "-f", id])?;
    }
    Ok(())
}

fn total(bytes: &[u64]) -> u64 {
    bytes.iter().sum()
}

/// What a process has used of the processor, from its start.
fn processor_seconds(pid: u32) -> Outcome<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').ok_or("no name in stat")?.1;
    let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

async fn logged(network: &Network, jobs: &[JobId]) -> Outcome<Vec<u64>> {
    let mut bytes = Vec::new();
    for job in jobs {
        bytes.push(network.renter.job(*job).await?.log_bytes);
    }
    Ok(bytes)
}

fn spec(image: &str, line_bytes: usize) -> Outcome<JobSpec> {
    let spec = serde_json::json!({
        "services": [{
            "name": "main", "image": image, "command": command(line_bytes),
            "resources": {"cpu_millis": 100, "memory_bytes": 32 << 20, "disk_bytes": 1 << 20},
        }],
        "limits": {
            "price_max": 1_000_000, "duration_seconds_max": 3600, "stop_grace_seconds": 0, "log_bytes_max": 1 << 30,
        },
    });
    Ok(serde_json::from_value(spec)?)
}

fn number(variable: &str, default: u64) -> Outcome<u64> {
    std::env::var(variable).ok().map_or(Ok(default), |text| Ok(text.parse()?))
}
