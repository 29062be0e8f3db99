//! Driver of `shaders/copy_bandwidth.wgsl`.

use std::cell::Cell;

use super::device::{Device, Kernel, spread, workgroups};
use super::{Budget, KernelError, figure};
use crate::bench::timing;
use crate::bench::twins::copy_bandwidth::copied_word;
use crate::wire::node::GpuKind;

pub(super) const SOURCE: &str = include_str!("../shaders/copy_bandwidth.wgsl");
const NAME: &str = "memory copy";
const SEED: u32 = 0x5eed;
/// Below this a buffer sits in caches, and the figure would say nothing.
const BYTES_MIN: u64 = 32 << 20;
/// Pieces of the copy compared with the twin, and their length.
const PIECES: u64 = 16;
const PIECE_BYTES: u64 = 16 << 10;

/// An entry point, and how many 16-byte vectors an invocation copies.
const VARIANTS: [(&str, u64); 2] = [("copy1", 1), ("copy4", 4)];

struct Bench<'a> {
    device: &'a Device,
    bytes: u64,
    parameters: wgpu::Buffer,
    source: wgpu::Buffer,
    copied: wgpu::Buffer,
    /// Key of the last batch.
    key: Cell<u32>,
}

/// Bytes read plus written per second by the best variant.
pub(super) fn measure(device: &Device, budget: Budget) -> Result<f64, KernelError> {
    measure_source(device, budget, SOURCE)
}

/// [`measure`] of any source with the same entry points.
pub(super) fn measure_source(device: &Device, budget: Budget, source: &'static str) -> Result<f64, KernelError> {
    let bench = Bench::new(device)?;
    let shader = device.shader(source)?;
    let fill = device.kernel(&shader, "fill", &[(0, &bench.parameters), (3, &bench.source)])?;
    device.run(&fill, workgroups(bench.bytes / 16), 1)?;

    let mut best: Option<(f64, Kernel, u64)> = None;
    for (entry_point, vectors) in VARIANTS {
        let buffers = [(0, &bench.parameters), (1, &bench.source), (2, &bench.copied)];
        let kernel = device.kernel(&shader, entry_point, &buffers)?;
        bench.copy(&kernel, vectors, 1)?;
        bench.check(entry_point)?;
        let rate = bench.rate(&kernel, vectors, budget.variant)?;
        bench.check(entry_point)?;
        if best.as_ref().is_none_or(|(most, ..)| rate > *most) {
            best = Some((rate, kernel, vectors));
        }
    }
    let (probed, kernel, vectors) = best.ok_or(KernelError::NoTime { kernel: NAME })?;
    let rate = bench.rate(&kernel, vectors, budget.kernel)?;
    bench.check("the best variant")?;
    Ok(rate.max(probed))
}

/// Larger than the caches of the largest cards; a processor's memory is slow enough for less.
const fn bytes_wanted(kind: GpuKind) -> u64 {
    match kind {
        GpuKind::Software => 64 << 20,
        GpuKind::Integrated => 256 << 20,
        GpuKind::Discrete | GpuKind::Virtual | GpuKind::Unknown => 512 << 20,
    }
}

impl<'a> Bench<'a> {
    /// Two buffers as large as wanted, or as memory allows.
    fn new(device: &'a Device) -> Result<Self, KernelError> {
        let limit = device.buffer_bytes_max;
        // Dispatches cover powers of two exactly.
        let mut bytes = bytes_wanted(device.kind).min(if limit == 0 { 0 } else { 1 << limit.ilog2() });
        loop {
            if bytes < BYTES_MIN {
                return Err(KernelError::OutOfMemory { bytes: BYTES_MIN });
            }
            match (device.storage(bytes), device.storage(bytes)) {
                (Ok(source), Ok(copied)) => {
                    let parameters = device.parameters([SEED, 0, 0, 0])?;
                    return Ok(Self { device, bytes, parameters, source, copied, key: Cell::new(0) });
                }
                (Err(KernelError::OutOfMemory { .. }), _) | (_, Err(KernelError::OutOfMemory { .. })) => bytes /= 2,
                (Err(error), _) | (_, Err(error)) => return Err(error),
            }
        }
    }

    /// Copies everything `times` with a new key.
    fn copy(&self, kernel: &Kernel, vectors: u64, times: u64) -> Result<std::time::Duration, KernelError> {
        self.key.set(self.key.get().wrapping_add(0x9e37_79b9));
        self.device.write(&self.parameters, bytemuck::cast_slice(&[SEED, self.key.get()]));
        self.device.run(kernel, spread(self.bytes / (256 * 16 * vectors)), times)
    }

    fn rate(&self, kernel: &Kernel, vectors: u64, time: std::time::Duration) -> Result<f64, KernelError> {
        let copies_per_second = timing::rate(time, 1 << 16, |times| self.copy(kernel, vectors, times))?;
        #[expect(clippy::cast_precision_loss, reason = "below 2^31")]
        let per_copy = (2 * self.bytes) as f64;
        figure(NAME, copies_per_second.map(|copies| copies * per_copy))
    }

    /// Compares pieces spread over the copy, its first and last words among them, with the twin's.
    fn check(&self, variant: &str) -> Result<(), KernelError> {
        for piece in 0..PIECES {
            let offset = (self.bytes - PIECE_BYTES) * piece / (PIECES - 1) / 4 * 4;
            let found: Vec<u32> = bytemuck::pod_collect_to_vec(&self.device.read(&self.copied, offset, PIECE_BYTES)?);
            let first = u32::try_from(offset / 4).unwrap_or(u32::MAX);
            for (index, found) in (first..).zip(found) {
                let wanted = copied_word(index, SEED, self.key.get());
                if found != wanted {
                    let detail = format!("{variant}, word {index} is {found:#010x}, not {wanted:#010x}");
                    return Err(KernelError::Wrong { kernel: NAME, detail });
                }
            }
        }
        Ok(())
    }
}
