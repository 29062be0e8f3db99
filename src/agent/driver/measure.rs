//! What this machine is and can do: benchmarks in a child process, remembered while the hardware stays the same.

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Input;
use crate::agent::BenchmarkSource;
use crate::agent::journal::Journal;
use crate::bench::{self, BenchOutput};
use crate::clock::Clock;
use crate::config::OfferConfig;
use crate::hardware::{self, HardwareError, OfferLimits};
use crate::wire::bench::BenchmarkReport;
use crate::wire::node::{Engine, Gpu, Inventory};

/// Where the journal keeps the newest result.
const BENCHMARK: &str = "benchmark";

/// Where engines keep their data, most likely first; the first that is there is measured.
const DATA_DIRS: &[&str] = &["/var/lib/docker", "/var/lib/containers", "/"];

/// Finds the benchmarks' result and hands it over.
pub(super) async fn measure(source: BenchmarkSource, journal: Journal, clock: Clock, inbox: mpsc::Sender<Input>) {
    let result = match source {
        BenchmarkSource::Fixed(report) => Ok(Box::new(BenchOutput { report: *report, gpus: Vec::new() })),
        BenchmarkSource::Skip => Ok(Box::new(unmeasured(&clock))),
        BenchmarkSource::Child { program, timeout } => child(&program, timeout, &journal, &inbox).await,
    };
    if let Err(why) = &result {
        tracing::warn!(why, "this machine could not be measured; it is offered without a score");
    }
    // A closed inbox means that the agent ends.
    let _ = inbox.send(Input::Measured(result)).await;
}

fn unmeasured(clock: &Clock) -> BenchOutput {
    let report = BenchmarkReport {
        measured_at: clock.now(),
        fingerprint: String::new(),
        method: bench::METHOD,
        host: Default::default(),
        gpus: Vec::new(),
        score: 0,
        problems: vec!["benchmarks are switched off".to_owned()],
    };
    BenchOutput { report, gpus: Vec::new() }
}

async fn child(
    program: &Path,
    timeout: Duration,
    journal: &Journal,
    inbox: &mpsc::Sender<Input>,
) -> Result<Box<BenchOutput>, String> {
    // Nobody reads a progress that found no place.
    let _ = inbox.try_send(Input::Measuring("looking for graphics adapters".to_owned()));
    let gpus = bench::list_child(program, bench::LIST_TIME_LIMIT).await.map_err(|error| error.to_string())?;
    if let Some(known) = remembered(journal, &gpus).await {
        return Ok(known);
    }
    let output = bench::run_child(program, true, timeout, |progress| {
        let doing = format!("{} ({} of {})", progress.doing, progress.steps_done, progress.steps_total);
        let _ = inbox.try_send(Input::Measuring(doing));
    })
    .await
    .map_err(|error| error.to_string())?;
    match serde_json::to_string(&output) {
        Ok(text) => {
            if let Err(error) = journal.set_meta(BENCHMARK, Some(&text)).await {
                tracing::warn!(%error, "the benchmarks' result could not be kept and will be measured again");
            }
        }
        Err(error) => tracing::warn!(%error, "the benchmarks' result could not be written"),
    }
    Ok(Box::new(output))
}

/// The remembered result, if it is of this very hardware.
async fn remembered(journal: &Journal, gpus: &[Gpu]) -> Option<Box<BenchOutput>> {
    let text = journal.meta(BENCHMARK).await.ok()??;
    let known: BenchOutput = serde_json::from_str(&text).ok()?;
    let host = hardware::host(data_dir()).ok()?;
    let fingerprint = hardware::fingerprint(&host, gpus, bench::METHOD);
    bench::is_current(&known.report, &fingerprint).then(|| Box::new(known))
}

/// Hardware and offer as the coordinator gets them.
pub(super) fn describe(
    engine: Engine,
    gpus: Vec<Gpu>,
    gpus_bound: usize,
    offer: &OfferConfig,
) -> Result<Inventory, HardwareError> {
    let limits = OfferLimits {
        cpu_millis: offer.cpus.map(|cpus| cpus.0),
        memory_bytes: offer.memory.map(|size| size.0),
        disk_bytes: offer.disk.map(|size| size.0),
        gpus: offer.gpus,
        price_min: offer.price_min(),
    };
    let gpus_bound = u32::try_from(gpus_bound).unwrap_or(u32::MAX);
    hardware::inventory(engine, gpus, gpus_bound, &limits, data_dir())
}

/// A tenth of the disk that the engine is likely to use, for the image cache of an owner who named no size.
pub(in crate::agent) fn image_cache_default() -> u64 {
    hardware::disk_bytes_total(data_dir()).map_or(u64::MAX, |bytes| bytes / 10)
}

fn data_dir() -> &'static Path {
    DATA_DIRS.iter().map(Path::new).find(|path| path.exists()).unwrap_or(Path::new("/"))
}
