//! Benchmarks of graphics adapters through wgpu compute shaders. Only the benchmark child comes here.
//!
//! Every kernel first computes something small that is compared with its CPU twin, then is timed, then what the last timed batch
//! left behind is looked at. An adapter whose kernels give wrong results is reported as such, with no figures; an adapter that
//! fails is no result but a problem. Both are listed as [`GpuKind::Unknown`], so that they are never offered as GPUs.

mod chains;
mod device;
mod latency;
mod matmul;
mod memory;
pub(in crate::bench) mod product_int8;
mod transfer;
mod vram;

use std::time::Duration;

use thiserror::Error;

use super::{BenchOptions, BenchProgress, Measured, health, score};
use crate::clock::Clock;
use crate::hardware::gpu::{self, Adapter};
use crate::wire::bench::{GpuFigures, GpuHealth, GpuResult};
use crate::wire::node::{Gpu, GpuKind};
use device::Device;

/// Why a kernel gave no figure.
#[derive(Debug, Error)]
pub(in crate::bench) enum KernelError {
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

/// The figures of an adapter, filled step by step.
#[derive(Debug, Clone, Default)]
struct Figures {
    fp32_flops: f64,
    memory_bytes_per_second: f64,
    matmul_flops: f64,
    more: GpuFigures,
    health: Option<GpuHealth>,
}

/// One thing that is measured.
struct Step {
    what: &'static str,
    run: fn(&Device, Budget, &mut Figures) -> Result<(), KernelError>,
}

/// What the score is made of, and what challenges are sized by: a quick run does no more.
const STEPS_OF_SCORE: [Step; 4] = [
    Step {
        what: "fp32 FMA",
        run: |device, budget, figures| {
            figures.fp32_flops = needed(chains::measure(device, budget, &chains::FP32)?)?;
            Ok(())
        },
    },
    Step {
        what: "memory copy",
        run: |device, budget, figures| {
            figures.memory_bytes_per_second = memory::measure(device, budget, &memory::COPY)?;
            Ok(())
        },
    },
    Step {
        what: "fp32 matrix product",
        run: |device, budget, figures| {
            figures.matmul_flops = needed(matmul::measure(device, budget, &matmul::FP32)?)?;
            Ok(())
        },
    },
    Step {
        what: "challenge",
        run: |device, budget, figures| {
            figures.more.challenge_ops = Some(product_int8::measure(device, budget)?);
            Ok(())
        },
    },
];

/// What a full run does besides.
const STEPS_BESIDES: [Step; 10] = [
    Step {
        what: "fp16 FMA",
        run: |device, budget, figures| {
            figures.more.fp16_flops = chains::measure(device, budget, &chains::FP16)?;
            Ok(())
        },
    },
    Step {
        what: "int32 multiply-add",
        run: |device, budget, figures| {
            figures.more.int32_ops = chains::measure(device, budget, &chains::INT32)?;
            Ok(())
        },
    },
    Step {
        what: "int8 dot product",
        run: |device, budget, figures| {
            figures.more.int8_dot_ops = chains::measure(device, budget, &chains::INT8_DOT)?;
            Ok(())
        },
    },
    Step {
        what: "fp16 matrix product",
        run: |device, budget, figures| {
            figures.more.matmul_fp16_flops = matmul::measure(device, budget, &matmul::FP16)?;
            Ok(())
        },
    },
    Step {
        what: "memory read",
        run: |device, budget, figures| {
            figures.more.memory_read_bytes_per_second = Some(memory::measure(device, budget, &memory::READ)?);
            Ok(())
        },
    },
    Step {
        what: "memory write",
        run: |device, budget, figures| {
            figures.more.memory_write_bytes_per_second = Some(memory::measure(device, budget, &memory::WRITE)?);
            Ok(())
        },
    },
    Step {
        what: "load latency",
        run: |device, budget, figures| {
            figures.more.memory_latency_nanos = Some(latency::load(device, budget, latency::LOAD)?);
            Ok(())
        },
    },
    Step {
        what: "launch latency",
        run: |device, budget, figures| {
            figures.more.launch_nanos = Some(latency::launch(device, budget, latency::LAUNCH)?);
            Ok(())
        },
    },
    Step {
        what: "host transfer",
        run: |device, budget, figures| {
            let (up, down) = transfer::measure(device, budget)?;
            figures.more.upload_bytes_per_second = Some(up);
            figures.more.download_bytes_per_second = Some(down);
            Ok(())
        },
    },
    // Last: nothing else has room while it runs.
    Step {
        what: "memory found by filling",
        run: |device, _, figures| {
            figures.more.memory_bytes_found = vram::measure(device, vram::Bounds::FULL)?;
            Ok(())
        },
    },
];

/// The steps of a run.
fn steps(quick: bool) -> impl Iterator<Item = &'static Step> {
    STEPS_OF_SCORE.iter().chain(STEPS_BESIDES.iter().take(if quick { 0 } else { usize::MAX }))
}

/// How many steps a run has for each adapter.
fn steps_each(options: BenchOptions) -> u32 {
    u32::try_from(steps(options.quick).count()).unwrap_or(u32::MAX).saturating_add(u32::from(options.sustain.is_some()))
}

/// Every adapter can do what the score is made of.
fn needed(figure: Option<f64>) -> Result<f64, KernelError> {
    figure.ok_or_else(|| KernelError::Refused("a kernel that needs nothing".to_owned()))
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
    let steps_each = steps_each(options);
    let steps_total = u32::try_from(adapters.len()).unwrap_or(u32::MAX).saturating_mul(steps_each);
    let mut steps_done = 0;
    let mut measured = Measured::default();
    for adapter in adapters {
        let step_first = steps_done;
        let mut say = |step: u32, what: &str| {
            let doing = format!("{}: {what}", adapter.gpu.name);
            progress(BenchProgress { doing, steps_done: step_first + step, steps_total });
        };
        let figures = figures(&adapter, options, clock, &mut say, problems);
        steps_done += steps_each;
        record(adapter.gpu, figures, &mut measured, problems);
    }
    progress(BenchProgress { doing: "done".to_owned(), steps_done, steps_total });
    measured
}

/// Runs all kernels on one adapter. One besides the score that the driver refuses, or that finds no room, is a problem and no figure;
/// the others go on. A lost device, a driver that hangs and a wrong result end it.
fn figures(
    adapter: &Adapter,
    options: BenchOptions,
    clock: &Clock,
    say: &mut dyn FnMut(u32, &str),
    problems: &mut Vec<String>,
) -> Result<Figures, KernelError> {
    let budget = Budget::new(options.quick);
    let device = Device::open(adapter, clock)?;
    let mut figures = Figures::default();
    for (number, step) in (0..).zip(steps(options.quick)) {
        say(number, step.what);
        let besides = (number as usize) >= STEPS_OF_SCORE.len();
        match (step.run)(&device, budget, &mut figures) {
            Ok(()) => {}
            Err(error) if besides && error.concerns_one_kernel() => {
                problems.push(format!("{} has no figure for {}: {error}", adapter.gpu.name, step.what));
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(time) = options.sustain {
        say(steps_each(options).saturating_sub(1), "fp32 FMA for long");
        let (first, last) = chains::sustain(&device, time, &chains::FP32)?;
        figures.more.sustained_first_flops = Some(first);
        figures.more.sustained_last_flops = Some(last);
    }
    // While it is still warm.
    figures.health = adapter.gpu.pci_address.as_deref().and_then(health::read);
    Ok(figures)
}

impl KernelError {
    /// Whether another kernel may go well after this.
    const fn concerns_one_kernel(&self) -> bool {
        match self {
            Self::OutOfMemory { .. } | Self::Refused(_) | Self::NoTime { .. } => true,
            Self::Open(_) | Self::Lost(_) | Self::Hung { .. } | Self::NoNumber { .. } | Self::Wrong { .. } => false,
        }
    }
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
        more: figures.more,
        health: figures.health,
    };
    match figures {
        Ok(figures) => {
            measured.results.push(result(figures, true));
            measured.gpus.push(gpu);
        }
        Err(error) => {
            problems.push(format!("{} ({}) was not measured: {error}", gpu.name, gpu.backend));
            if matches!(error, KernelError::Wrong { .. }) {
                measured.results.push(result(Figures::default(), false));
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
