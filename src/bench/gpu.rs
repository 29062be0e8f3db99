//! Benchmarks of graphics adapters through wgpu compute shaders. Only the benchmark child comes here.
//!
//! Every kernel first computes something small that is compared with its CPU twin, then is timed, then what the last timed batch
//! left behind is looked at. An adapter whose kernels give wrong results is reported as such, with no figures; an adapter that
//! fails is no result but a problem. Both are listed as [`GpuKind::Unknown`], so that they are never offered as GPUs.

mod copy_bandwidth;
mod device;
mod fma_fp32;
mod matmul_fp32;

use std::time::Duration;

use thiserror::Error;

use super::{BenchOptions, BenchProgress, Measured, score};
use crate::clock::Clock;
use crate::hardware::gpu::{self, Adapter};
use crate::wire::bench::GpuResult;
use crate::wire::node::{Gpu, GpuKind};
use device::Device;

/// Kernels per adapter.
const KERNELS: u32 = 3;

/// Why a kernel gave no figure.
#[derive(Debug, Error)]
enum KernelError {
    #[error("the adapter cannot be opened: {0}")]
    Open(String),
    #[error("the adapter was lost: {0}")]
    Lost(String),
    #[error("the adapter's memory ran out at {bytes} bytes")]
    OutOfMemory { bytes: u64 },
    #[error("the driver did not finish within {seconds} s")]
    Hung { seconds: u64 },
    #[error("the driver refuses: {0}")]
    Refused(String),
    #[error("{kernel} gave no number: {found}")]
    NoNumber { kernel: &'static str, found: f64 },
    #[error("{kernel} took no measurable time")]
    NoTime { kernel: &'static str },
    #[error("{kernel} computed wrongly: {detail}")]
    Wrong { kernel: &'static str, detail: String },
}

/// Time to spend on timing one kernel.
#[derive(Debug, Clone, Copy)]
struct Budget {
    /// On the variant that is kept.
    kernel: Duration,
    /// On each variant, to find the best.
    variant: Duration,
}

impl Budget {
    const fn new(quick: bool) -> Self {
        let kernel = Duration::from_millis(if quick { 100 } else { 300 });
        Self { kernel, variant: Duration::from_millis(if quick { 25 } else { 75 }) }
    }
}

/// The three figures of an adapter.
#[derive(Debug)]
struct Figures {
    fp32_flops: f64,
    memory_bytes_per_second: f64,
    matmul_flops: f64,
}

/// Lists all adapters, and measures them unless only the list is wanted.
pub(super) fn measure_all(
    options: BenchOptions,
    clock: &Clock,
    progress: &mut dyn FnMut(BenchProgress),
    problems: &mut Vec<String>,
) -> Measured {
    let adapters = gpu::list();
    if adapters.is_empty() {
        problems.push(gpu::none_found());
    }
    if options.list_only {
        return Measured { gpus: adapters.into_iter().map(|adapter| adapter.gpu).collect(), results: Vec::new() };
    }
    let steps_total = u32::try_from(adapters.len()).unwrap_or(u32::MAX).saturating_mul(KERNELS);
    let mut steps_done = 0;
    let mut measured = Measured::default();
    for adapter in adapters {
        let step_first = steps_done;
        let mut say = |kernel: u32, what: &str| {
            let doing = format!("{}: {what}", adapter.gpu.name);
            progress(BenchProgress { doing, steps_done: step_first + kernel, steps_total });
        };
        let figures = figures(&adapter, options, clock, &mut say);
        steps_done += KERNELS;
        record(adapter.gpu, figures, &mut measured, problems);
    }
    progress(BenchProgress { doing: "done".to_owned(), steps_done, steps_total });
    measured
}

/// Runs all kernels on one adapter.
fn figures(
    adapter: &Adapter,
    options: BenchOptions,
    clock: &Clock,
    say: &mut dyn FnMut(u32, &str),
) -> Result<Figures, KernelError> {
    let budget = Budget::new(options.quick);
    say(0, "fp32 FMA");
    let device = Device::open(adapter, clock)?;
    let fp32_flops = fma_fp32::measure(&device, budget)?;
    say(1, "memory bandwidth");
    let memory_bytes_per_second = copy_bandwidth::measure(&device, budget)?;
    say(2, "fp32 matrix product");
    let matmul_flops = matmul_fp32::measure(&device, budget)?;
    Ok(Figures { fp32_flops, memory_bytes_per_second, matmul_flops })
}

/// Puts an adapter and what came of it where it belongs.
fn record(gpu: Gpu, figures: Result<Figures, KernelError>, measured: &mut Measured, problems: &mut Vec<String>) {
    let result = |figures: Figures, verified: bool| GpuResult {
        name: gpu.name.clone(),
        kind: gpu.kind,
        pci_address: gpu.pci_address.clone(),
        score: score::adapter(figures.fp32_flops, figures.memory_bytes_per_second, figures.matmul_flops),
        fp32_flops: figures.fp32_flops,
        memory_bytes_per_second: figures.memory_bytes_per_second,
        matmul_flops: figures.matmul_flops,
        verified,
    };
    match figures {
        Ok(figures) => {
            measured.results.push(result(figures, true));
            measured.gpus.push(gpu);
        }
        Err(error) => {
            problems.push(format!("{} ({}) was not measured: {error}", gpu.name, gpu.backend));
            if matches!(error, KernelError::Wrong { .. }) {
                let none = Figures { fp32_flops: 0.0, memory_bytes_per_second: 0.0, matmul_flops: 0.0 };
                measured.results.push(result(none, false));
            }
            measured.gpus.push(Gpu { kind: GpuKind::Unknown, ..gpu });
        }
    }
}

/// The figure of a kernel: finite and positive, or an error.
fn figure(kernel: &'static str, rate: Option<f64>) -> Result<f64, KernelError> {
    let rate = rate.ok_or(KernelError::NoTime { kernel })?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err(KernelError::NoNumber { kernel, found: rate }) }
}

#[cfg(test)]
mod tests;
