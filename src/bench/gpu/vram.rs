//! How much memory an adapter really has: it is filled, buffer by buffer, each with words of its own, and all of it is looked at
//! again once nothing more goes in. What a driver or a forged name says plays no part.
//!
//! Invariants
//! - Memory that lies elsewhere does not count: a buffer that takes several times as long to fill as the ones before it was put into
//!   the machine's memory, and ends the search.
//! - An adapter that shares the machine's memory is not filled: it would push out everything else.

use std::time::Duration;

use super::KernelError;
use super::device::{Device, spread};
use crate::bench::twins::copy_bandwidth;
use crate::wire::node::GpuKind;

const FILL: &str = include_str!("../shaders/copy_bandwidth.wgsl");
const NAME: &str = "memory found by filling";
/// How much slower a buffer elsewhere is filled, at least; a bus is slower than a card's memory by far more.
const SLOWER: u32 = 4;
/// Pieces of a buffer compared with the twin, and their length.
const PIECES: u64 = 8;
const PIECE_BYTES: u64 = 4 << 10;

/// How to search.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Of a buffer: a power of two, at most 2 GiB.
    pub(super) buffer_bytes: u64,
    /// Where to stop even if there is more.
    pub(super) bytes_max: u64,
    /// Longest time for filling in all.
    pub(super) time_max: Duration,
}

impl Bounds {
    /// Buffers of a quarter of a gigabyte, so that little is lost at the end; no card has a terabyte.
    pub(super) const FULL: Self =
        Self { buffer_bytes: 256 << 20, bytes_max: 1 << 40, time_max: Duration::from_secs(8) };
}

/// Bytes of memory of the adapter's own; nothing where it has none of its own.
pub(super) fn measure(device: &Device, bounds: Bounds) -> Result<Option<u64>, KernelError> {
    match device.kind {
        GpuKind::Software | GpuKind::Integrated => Ok(None),
        GpuKind::Discrete | GpuKind::Virtual | GpuKind::Unknown => find(device, bounds).map(Some),
    }
}

/// Fills and looks again.
pub(super) fn find(device: &Device, bounds: Bounds) -> Result<u64, KernelError> {
    let bytes = bounds.buffer_bytes.min(device.buffer_bytes_max);
    let filled = fill(device, Bounds { buffer_bytes: bytes, ..bounds })?;
    for (number, buffer) in (0..).zip(&filled) {
        check(device, buffer, bytes, number)?;
    }
    if filled.is_empty() { Err(KernelError::OutOfMemory { bytes }) } else { Ok(bytes * filled.len() as u64) }
}

/// As many full buffers as there is room for; the number of a buffer is the seed of its words.
fn fill(device: &Device, bounds: Bounds) -> Result<Vec<wgpu::Buffer>, KernelError> {
    let shader = device.shader(FILL)?;
    let mut filled = Vec::new();
    let (mut fastest, mut spent) = (Duration::MAX, Duration::ZERO);
    while (filled.len() as u64 + 1) * bounds.buffer_bytes <= bounds.bytes_max {
        let buffer = match device.storage(bounds.buffer_bytes) {
            Ok(buffer) => buffer,
            Err(KernelError::OutOfMemory { .. }) => break,
            Err(error) => return Err(error),
        };
        let number = u32::try_from(filled.len()).unwrap_or(u32::MAX);
        let parameters = device.parameters([seed(number), 0, 0, 0])?;
        let kernel = device.kernel(&shader, "fill", &[(0, &parameters), (3, &buffer)])?;
        let workgroups = spread(bounds.buffer_bytes / (256 * 16));
        // The first time it is also cleared, and its pages are found.
        let took = match device.run(&kernel, workgroups, 1) {
            Ok(first) => first + device.run(&kernel, workgroups, 1)?,
            Err(KernelError::OutOfMemory { .. }) => break,
            Err(error) => return Err(error),
        };
        spent += took;
        if spent > bounds.time_max {
            let seconds = bounds.time_max.as_secs();
            return Err(KernelError::Refused(format!("filling its memory took longer than {seconds} s")));
        }
        // The first buffers also wake the card up; they are never too slow.
        if filled.len() > 2 && took > fastest.saturating_mul(SLOWER) {
            break;
        }
        fastest = fastest.min(took);
        filled.push(buffer);
    }
    Ok(filled)
}

/// A seed far from those of other buffers, so that one buffer in the place of another is noticed.
const fn seed(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b9)
}

fn check(device: &Device, buffer: &wgpu::Buffer, bytes: u64, number: u32) -> Result<(), KernelError> {
    for piece in 0..PIECES {
        let offset = (bytes - PIECE_BYTES) * piece / (PIECES - 1) / 4 * 4;
        let found: Vec<u32> = bytemuck::pod_collect_to_vec(&device.read(buffer, offset, PIECE_BYTES)?);
        let first = u32::try_from(offset / 4).unwrap_or(u32::MAX);
        let right = (first..).zip(&found).all(|(i, word)| *word == copy_bandwidth::copied_word(i, seed(number), 0));
        if !right {
            let detail = format!("buffer {number} does not hold what was written into it");
            return Err(KernelError::Wrong { kernel: NAME, detail });
        }
    }
    Ok(())
}
