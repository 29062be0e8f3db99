//! The machine as measured: graphics adapters through compute shaders, each result checked against a CPU twin.
//!
//! Invariants
//! - The agent runs no graphics driver itself: [`run_child`] and [`list_child`] start `fizz bench` as a child process, bounded in
//!   time and output; [`run_here`] is what that child does.
//! - A number is a measurement whose result was checked. A lost device, memory that ran out, NaN or infinity are problems said
//!   in a sentence, never numbers.
//! - Software adapters are measured and labelled; they never count as GPUs.
//! - Nothing to measure is no error: the report is then valid, has score 0 and says why in `problems`.

pub mod challenge;
pub mod child;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "gpu")]
mod health;
mod host;
pub mod plot;
pub mod score;
mod timing;
#[cfg(feature = "gpu")]
mod twins;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use child::{BenchError, list_child, run_child, run_options};

use crate::clock::Clock;
use crate::hardware;
use crate::wire::bench::{BenchmarkReport, HostFigures};
use crate::wire::node::{Gpu, GpuKind};

/// Version of the method; reports of different methods are not compared.
pub const METHOD: u32 = 1;

/// Deadline for [`list_child`].
pub const LIST_TIME_LIMIT: Duration = Duration::from_secs(30);
/// Deadline for [`run_child`] with `quick`; the run itself takes seconds, a machine under load may take longer.
pub const QUICK_TIME_LIMIT: Duration = Duration::from_secs(90);
/// Deadline for [`run_child`] without `quick`.
pub const FULL_TIME_LIMIT: Duration = Duration::from_secs(240);

/// Longest `sustain`, and how many adapters of one machine the deadline leaves time for.
pub const SUSTAIN_MAX: Duration = Duration::from_secs(600);
const SUSTAINED_ADAPTERS: u32 = 8;

/// How to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BenchOptions {
    /// Only what the score is made of, and about 100 ms for every kernel instead of 300 ms.
    pub quick: bool,
    /// Only list the adapters, measure nothing: the report then has no results, and score 0.
    pub list_only: bool,
    /// Also run every adapter for so long, to see whether it stays as fast.
    pub sustain: Option<Duration>,
}

/// How far a run is; one JSON line on the child's standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenchProgress {
    /// What is being done now, for people: `llvmpipe: fp32 FMA`.
    pub doing: String,
    /// Steps done so far.
    pub steps_done: u32,
    /// Steps in all; may grow while adapters are found.
    pub steps_total: u32,
}

/// Everything `fizz bench --json` prints, as one document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchOutput {
    /// The measurements.
    pub report: BenchmarkReport,
    /// Adapters as found, for the inventory. One that could not compute is listed as [`GpuKind::Unknown`], so that it is never
    /// offered.
    pub gpus: Vec<Gpu>,
}

/// One line of the table `fizz bench` draws.
#[derive(Debug, Clone, PartialEq)]
pub struct TableRow {
    /// The adapter's name.
    pub name: String,
    /// What it is, in a word.
    pub kind: &'static str,
    /// fp32 fused multiply-add throughput, TFLOP/s.
    pub fp32_tflops: f64,
    /// fp32 matrix multiplication throughput, TFLOP/s.
    pub matmul_tflops: f64,
    /// Memory bandwidth of a copy (read plus written), GB/s.
    pub memory_gigabytes_per_second: f64,
    /// Its score.
    pub score: u32,
    /// Whether its results were right.
    pub verified: bool,
}

/// Measures in this process: what the child does (`fizz bench --json --child`), which then prints the result as one JSON
/// document on standard output, and each progress as a line of JSON on standard error. Blocks for seconds; a driver may hang
/// or crash it.
pub fn run_here(options: BenchOptions, clock: &Clock, mut progress: impl FnMut(BenchProgress)) -> BenchOutput {
    let mut problems = Vec::new();
    let with_host = !options.quick && !options.list_only;
    let host_steps = if with_host { host::STEPS } else { 0 };
    let mut gpu_steps = 0;
    let mut on_gpus = |step: BenchProgress| {
        gpu_steps = step.steps_total;
        progress(BenchProgress { steps_total: step.steps_total + host_steps, ..step });
    };
    let measured = measure(options, clock, &mut on_gpus, &mut problems);
    let mut figures = HostFigures::default();
    let fingerprint = match hardware::host(Path::new("/")) {
        Ok(host) => {
            if with_host {
                let mut on_host = |step: BenchProgress| {
                    let (steps_done, steps_total) = (gpu_steps + step.steps_done, gpu_steps + step.steps_total);
                    progress(BenchProgress { doing: step.doing, steps_done, steps_total });
                };
                figures = host::measure(&host, clock, &mut on_host, &mut problems);
            }
            hardware::fingerprint(&host, &measured.gpus, METHOD)
        }
        Err(error) => {
            problems.push(format!("the host could not be described: {error}"));
            String::new()
        }
    };
    let report = BenchmarkReport {
        measured_at: clock.now(),
        fingerprint,
        method: METHOD,
        score: score::overall(&measured.results),
        gpus: measured.results,
        host: figures,
        problems,
    };
    BenchOutput { report, gpus: measured.gpus }
}

/// Whether a cached report still describes the machine with this fingerprint (see [`hardware::fingerprint`]).
///
/// One with problems never does: what went wrong (a lost adapter, a driver not yet installed) may have passed.
#[must_use]
pub fn is_current(report: &BenchmarkReport, fingerprint: &str) -> bool {
    let same = !fingerprint.is_empty() && report.fingerprint == fingerprint;
    report.method == METHOD && same && report.problems.is_empty()
}

/// The results as lines of a table, best first.
#[must_use]
pub fn table_rows(output: &BenchOutput) -> Vec<TableRow> {
    let mut rows: Vec<TableRow> = output
        .report
        .gpus
        .iter()
        .map(|gpu| TableRow {
            name: gpu.name.clone(),
            kind: kind_label(gpu.kind),
            fp32_tflops: gpu.fp32_flops / 1e12,
            matmul_tflops: gpu.matmul_flops / 1e12,
            memory_gigabytes_per_second: gpu.memory_bytes_per_second / 1e9,
            score: gpu.score,
            verified: gpu.verified,
        })
        .collect();
    rows.sort_by(|left, right| right.score.cmp(&left.score).then_with(|| left.name.cmp(&right.name)));
    rows
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What an adapter is, in a word for people.
#[must_use]
pub const fn kind_label(kind: GpuKind) -> &'static str {
    match kind {
        GpuKind::Discrete => "discrete",
        GpuKind::Integrated => "integrated",
        GpuKind::Virtual => "virtual",
        GpuKind::Software => "software",
        GpuKind::Unknown => "unknown",
    }
}

/// Adapters and their results.
#[derive(Debug, Default)]
struct Measured {
    gpus: Vec<Gpu>,
    results: Vec<crate::wire::bench::GpuResult>,
}

/// Measures every adapter; what could not be measured is said in `problems`.
#[cfg(feature = "gpu")]
fn measure(
    options: BenchOptions,
    clock: &Clock,
    progress: &mut dyn FnMut(BenchProgress),
    problems: &mut Vec<String>,
) -> Measured {
    gpu::measure_all(options, clock, progress, problems)
}

/// A build without wgpu measures nothing, and says so.
#[cfg(not(feature = "gpu"))]
fn measure(
    _options: BenchOptions,
    _clock: &Clock,
    _progress: &mut dyn FnMut(BenchProgress),
    problems: &mut Vec<String>,
) -> Measured {
    let why = "this fizz was built without GPU support; install a build with it (cargo feature `gpu`) to be measured";
    problems.push(why.to_owned());
    Measured::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_survives_the_way_through_json() {
        let options = BenchOptions { quick: true, list_only: true, sustain: None };
        let output = run_here(options, &Clock::manual(jiff::Timestamp::UNIX_EPOCH), |_| {});
        let again: BenchOutput = serde_json::from_str(&serde_json::to_string_pretty(&output).unwrap()).unwrap();
        assert_eq!(output, again);
        assert_eq!((output.report.method, output.report.score), (METHOD, 0));
    }

    #[test]
    fn a_report_is_current_only_for_its_own_fingerprint_and_method_and_without_problems() {
        let options = BenchOptions { quick: true, list_only: true, sustain: None };
        let found = run_here(options, &Clock::manual(jiff::Timestamp::UNIX_EPOCH), |_| {}).report;
        let report = BenchmarkReport { problems: Vec::new(), ..found };
        assert!(is_current(&report, &report.fingerprint));
        assert!(!is_current(&report, "0"));
        assert!(!is_current(&BenchmarkReport { method: METHOD + 1, ..report.clone() }, &report.fingerprint));
        let troubled = BenchmarkReport { problems: vec!["an adapter was lost".into()], ..report.clone() };
        assert!(!is_current(&troubled, &report.fingerprint));
        assert!(!is_current(&BenchmarkReport { fingerprint: String::new(), ..report }, ""));
    }
}
