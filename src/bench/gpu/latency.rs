//! Drivers of `shaders/load_latency.wgsl` and `launch_latency.wgsl`.

use std::time::Duration;

use super::device::{Device, workgroups};
use super::{Budget, KernelError, figure};
use crate::bench::timing;
use crate::bench::twins::{launch_latency, load_latency};
use crate::wire::node::GpuKind;

pub(super) const LOAD: &str = include_str!("../shaders/load_latency.wgsl");
pub(super) const LAUNCH: &str = include_str!("../shaders/launch_latency.wgsl");
const NAME: &str = "load latency";
const LAUNCH_NAME: &str = "launch latency";
/// Bytes between two slots: no smaller than a cache line anywhere.
const SLOT_BYTES: u64 = 128;
/// Steps of a dispatch: enough that its launch does not count, few enough for any driver's patience with a loop.
const STEPS: u32 = 16 << 10;
const LAUNCHES_MAX: u32 = 2_000;

/// Nanoseconds of a load that waits for the one before it, all over a buffer larger than caches.
pub(super) fn load(device: &Device, budget: Budget, source: &'static str) -> Result<f64, KernelError> {
    let bytes: u64 = if device.kind == GpuKind::Software { 64 << 20 } else { 256 << 20 };
    let slots = bytes / SLOT_BYTES;
    let slots_word = u32::try_from(slots).unwrap_or(u32::MAX);
    let buffer = device.storage(bytes)?;
    let end = device.storage(4)?;
    let parameters = device.parameters([slots_word, STEPS, 0, 0])?;
    let shader = device.shader(source)?;
    let fill = device.kernel(&shader, "fill", &[(0, &parameters), (3, &buffer)])?;
    device.run(&fill, workgroups(slots), 1)?;
    let follow = device.kernel(&shader, "follow", &[(0, &parameters), (1, &buffer), (2, &end)])?;

    // Each dispatch goes on where the last one ended, so that it meets lines that are in no cache.
    let mut walked: u64 = 0;
    let walks_per_second = timing::rate(budget.kernel, 1 << 20, |walks| {
        walked += walks * u64::from(STEPS);
        device.run(&follow, (1, 1), walks)
    })?;
    let wanted = load_latency::end(slots_word, 0, walked);
    let found = word(device, &end)?;
    if found != wanted {
        let detail = format!("a walk of {walked} steps ended at slot {found}, not {wanted}");
        return Err(KernelError::Wrong { kernel: NAME, detail });
    }
    figure(NAME, walks_per_second.map(|walks| 1e9 / (walks * f64::from(STEPS))))
}

/// Nanoseconds from the submission of the smallest piece of work until its end is known, at the median.
pub(super) fn launch(device: &Device, budget: Budget, source: &'static str) -> Result<f64, KernelError> {
    let counter = device.storage(4)?;
    let shader = device.shader(source)?;
    let kernel = device.kernel(&shader, "count", &[(0, &counter)])?;
    // The first ones compile and wake the card up.
    let warm_up = 3;
    for _ in 0..warm_up {
        device.round_trip(&kernel)?;
    }
    let mut trips: Vec<Duration> = Vec::new();
    let mut spent = Duration::ZERO;
    for _ in 0..LAUNCHES_MAX {
        let took = device.round_trip(&kernel)?;
        trips.push(took);
        // Even a clock that stands still ends the loop.
        spent += took;
        if spent >= budget.kernel {
            break;
        }
    }
    let launches = warm_up + u32::try_from(trips.len()).unwrap_or(LAUNCHES_MAX);
    let (found, wanted) = (word(device, &counter)?, launch_latency::counted(launches));
    if found != wanted {
        let detail = format!("{found} launches were counted of {wanted}");
        return Err(KernelError::Wrong { kernel: LAUNCH_NAME, detail });
    }
    trips.sort_unstable();
    let median = trips.get(trips.len() / 2).filter(|median| !median.is_zero());
    figure(LAUNCH_NAME, median.map(|median| median.as_secs_f64() * 1e9))
}

fn word(device: &Device, buffer: &wgpu::Buffer) -> Result<u32, KernelError> {
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&device.read(buffer, 0, 4)?);
    words.first().copied().ok_or(KernelError::Refused("a buffer could not be read".to_owned()))
}
