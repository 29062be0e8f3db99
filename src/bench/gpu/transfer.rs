//! Transfers between the machine's memory and the adapter's, without kernels: copies between a buffer that the processor sees and
//! one that the adapter uses. What arrives back is compared with what was sent.

use super::device::Device;
use super::{Budget, KernelError, figure};
use crate::bench::timing;
use crate::bench::twins::copy_bandwidth;

const NAME: &str = "host transfer";
const SEED: u32 = 0x7a11;
/// Larger than a processor's caches for one core, small enough for a batch of 25 ms over a slow bus.
const BYTES: u32 = 32 << 20;

/// Bytes per second to the adapter and back from it.
pub(super) fn measure(device: &Device, budget: Budget) -> Result<(f64, f64), KernelError> {
    let bytes = u64::from(BYTES);
    let words: Vec<u32> = (0..BYTES / 4).map(|index| copy_bandwidth::copied_word(index, SEED, 0)).collect();
    let sent = device.filled_by_host(bytemuck::cast_slice(&words))?;
    let there = device.storage(bytes)?;
    let back = device.readable(bytes)?;
    let rate = |from: &wgpu::Buffer, to: &wgpu::Buffer| {
        let per_second = timing::rate(budget.kernel, 1 << 10, |times| device.copy(from, to, bytes, times))?;
        figure(NAME, per_second.map(|copies| copies * f64::from(BYTES)))
    };
    let up = rate(&sent, &there)?;
    let down = rate(&there, &back)?;
    let arrived = device.mapped(&back)?;
    if arrived != bytemuck::cast_slice::<u32, u8>(&words) {
        let detail = "what came back is not what was sent".to_owned();
        return Err(KernelError::Wrong { kernel: NAME, detail });
    }
    Ok((up, down))
}
