//! Driver of the kernels that move memory: `shaders/copy_bandwidth.wgsl`, `read_bandwidth.wgsl` and `write_bandwidth.wgsl`.

use std::cell::Cell;
use std::time::Duration;

use super::device::{Device, Kernel, spread, workgroups};
use super::{Budget, KernelError, figure};
use crate::bench::timing;
use crate::bench::twins::{copy_bandwidth, read_bandwidth, write_bandwidth};
use crate::wire::node::GpuKind;

const FILL: &str = include_str!("../shaders/copy_bandwidth.wgsl");
const SEED: u32 = 0x5eed;
/// Below this a buffer sits in caches, and the figure would say nothing.
const BYTES_MIN: u64 = 32 << 20;
/// Pieces of the result compared with the twin, and their length.
const PIECES: u64 = 16;
const PIECE_BYTES: u64 = 16 << 10;

/// A way to use memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traffic {
    name: &'static str,
    pub(super) source: &'static str,
    /// Entry points, and how many 16-byte vectors an invocation moves.
    pub(super) variants: [(&'static str, u32); 2],
    reads: bool,
    writes: bool,
    /// Word `index` of what an entry point of so many vectors leaves behind.
    word: fn(index: u32, vectors: u32, key: u32) -> u32,
}

/// Reads and writes.
pub(super) const COPY: Traffic = Traffic {
    name: "memory copy",
    source: FILL,
    variants: [("copy1", 1), ("copy4", 4)],
    reads: true,
    writes: true,
    word: |index, _, key| copy_bandwidth::copied_word(index, SEED, key),
};

/// Reads only, but for a word per invocation.
pub(super) const READ: Traffic = Traffic {
    name: "memory read",
    source: include_str!("../shaders/read_bandwidth.wgsl"),
    variants: [("read4", 4), ("read16", 16)],
    reads: true,
    writes: false,
    word: |index, vectors, key| read_bandwidth::sum(index, vectors, SEED, key),
};

/// Writes only.
pub(super) const WRITE: Traffic = Traffic {
    name: "memory write",
    source: include_str!("../shaders/write_bandwidth.wgsl"),
    variants: [("write1", 1), ("write4", 4)],
    reads: false,
    writes: true,
    word: |index, _, key| write_bandwidth::written_word(index, key),
};

struct Bench<'a> {
    traffic: &'a Traffic,
    device: &'a Device,
    bytes: u64,
    parameters: wgpu::Buffer,
    source: wgpu::Buffer,
    target: wgpu::Buffer,
    /// Key of the last batch.
    key: Cell<u32>,
}

/// Bytes read plus written per second by the best variant.
pub(super) fn measure(device: &Device, budget: Budget, traffic: &Traffic) -> Result<f64, KernelError> {
    let bench = Bench::new(device, traffic)?;
    if traffic.reads {
        let shader = device.shader(FILL)?;
        let fill = device.kernel(&shader, "fill", &[(0, &bench.parameters), (3, &bench.source)])?;
        device.run(&fill, workgroups(bench.bytes / 16), 1)?;
    }
    let shader = device.shader(traffic.source)?;
    let mut best: Option<(f64, Kernel, u32)> = None;
    for (entry_point, vectors) in traffic.variants {
        let kernel = bench.kernel(&shader, entry_point)?;
        bench.run(&kernel, vectors, 1)?;
        bench.check(entry_point, vectors)?;
        let rate = bench.rate(&kernel, vectors, budget.variant)?;
        bench.check(entry_point, vectors)?;
        if best.as_ref().is_none_or(|(most, ..)| rate > *most) {
            best = Some((rate, kernel, vectors));
        }
    }
    let (probed, kernel, vectors) = best.ok_or(KernelError::NoTime { kernel: traffic.name })?;
    let rate = bench.rate(&kernel, vectors, budget.kernel)?;
    bench.check("the best variant", vectors)?;
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
    fn new(device: &'a Device, traffic: &'a Traffic) -> Result<Self, KernelError> {
        let limit = device.buffer_bytes_max;
        // Dispatches cover powers of two exactly.
        let mut bytes = bytes_wanted(device.kind).min(if limit == 0 { 0 } else { 1 << limit.ilog2() });
        loop {
            if bytes < BYTES_MIN {
                return Err(KernelError::OutOfMemory { bytes: BYTES_MIN });
            }
            match (device.storage(bytes), device.storage(bytes)) {
                (Ok(source), Ok(target)) => {
                    let parameters = device.parameters([SEED, 0, 0, 0])?;
                    return Ok(Self { traffic, device, bytes, parameters, source, target, key: Cell::new(0) });
                }
                (Err(KernelError::OutOfMemory { .. }), _) | (_, Err(KernelError::OutOfMemory { .. })) => bytes /= 2,
                (Err(error), _) | (_, Err(error)) => return Err(error),
            }
        }
    }

    fn kernel(&self, shader: &super::device::Shader, entry_point: &str) -> Result<Kernel, KernelError> {
        let mut buffers = vec![(0, &self.parameters), (2, &self.target)];
        buffers.extend(self.traffic.reads.then_some((1, &self.source)));
        self.device.kernel(shader, entry_point, &buffers)
    }

    /// Moves everything `times` with a new key.
    fn run(&self, kernel: &Kernel, vectors: u32, times: u64) -> Result<Duration, KernelError> {
        self.key.set(self.key.get().wrapping_add(0x9e37_79b9));
        self.device.write(&self.parameters, bytemuck::cast_slice(&[SEED, self.key.get()]));
        self.device.run(kernel, spread(self.bytes / (256 * 16 * u64::from(vectors))), times)
    }

    fn rate(&self, kernel: &Kernel, vectors: u32, time: Duration) -> Result<f64, KernelError> {
        let per_second = timing::rate(time, 1 << 16, |times| self.run(kernel, vectors, times))?;
        let passes = u64::from(self.traffic.reads) + u64::from(self.traffic.writes);
        #[expect(clippy::cast_precision_loss, reason = "below 2^32")]
        let bytes = (passes * self.bytes) as f64;
        figure(self.traffic.name, per_second.map(|times| times * bytes))
    }

    /// Compares pieces spread over the result, its first and last words among them, with the twin's.
    fn check(&self, variant: &str, vectors: u32) -> Result<(), KernelError> {
        let bytes = if self.traffic.writes { self.bytes } else { self.bytes / (4 * u64::from(vectors)) };
        for piece in 0..PIECES {
            let offset = (bytes - PIECE_BYTES) * piece / (PIECES - 1) / 4 * 4;
            let found: Vec<u32> = bytemuck::pod_collect_to_vec(&self.device.read(&self.target, offset, PIECE_BYTES)?);
            let first = u32::try_from(offset / 4).unwrap_or(u32::MAX);
            for (index, found) in (first..).zip(found) {
                let wanted = (self.traffic.word)(index, vectors, self.key.get());
                if found != wanted {
                    let detail = format!("{variant}, word {index} is {found:#010x}, not {wanted:#010x}");
                    return Err(KernelError::Wrong { kernel: self.traffic.name, detail });
                }
            }
        }
        Ok(())
    }
}
