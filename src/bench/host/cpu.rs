//! What the processor computes: one thread, and all threads that may be used.

use std::time::Duration;

use super::lanes::{self, Element, Kernel, Lanes};
use crate::bench::timing;
use crate::clock::Clock;
use crate::wire::bench::HostFigures;

/// Links of the check.
const LINKS_CHECKED: u64 = 500;
/// Links per unit of timed work.
const LINKS_PER_UNIT: u64 = 1000;
/// Operations of a link: a product and a sum.
const OPERATIONS_PER_LINK: u64 = 2;

/// Measures integers, fp32 and fp64, each checked first; what computes wrongly is a problem and no figure.
pub(super) fn measure(
    threads: u32,
    budget: Duration,
    clock: &Clock,
    figures: &mut HostFigures,
    problems: &mut Vec<String>,
) {
    let lanes = lanes::best();
    figures.cpu_vectors = Some(lanes.name.to_owned());
    let mut both = |what: &str, kernel: Kernel, right: fn(&Lanes, u32) -> u64| {
        if let Err(why) = check(&lanes, kernel, right) {
            problems.push(format!("the processor's {what} was not measured: {why}"));
            return (None, None);
        }
        (rate(kernel, 1, budget, clock), rate(kernel, threads, budget, clock))
    };
    (figures.cpu_int32_ops_one_thread, figures.cpu_int32_ops) = both("integer speed", lanes.int32, expected::<u32>);
    (figures.cpu_fp32_flops_one_thread, figures.cpu_fp32_flops) = both("fp32 speed", lanes.fp32, expected_fp32);
    (figures.cpu_fp64_flops_one_thread, figures.cpu_fp64_flops) = both("fp64 speed", lanes.fp64, expected_fp64);
}

/// Compares every chain with the same walked alone, bit by bit.
fn check(lanes: &Lanes, kernel: Kernel, right: fn(&Lanes, u32) -> u64) -> Result<(), String> {
    for (number, found) in (0..).zip(kernel(LINKS_CHECKED)) {
        let wanted = right(lanes, number);
        if found != wanted {
            return Err(format!("chain {number} with {} is {found:#x}, not {wanted:#x}", lanes.name));
        }
    }
    Ok(())
}

fn expected<E: Element>(_: &Lanes, number: u32) -> u64 {
    (0..LINKS_CHECKED).fold(E::start(number), |x, _| x.link()).bits()
}

fn expected_fp32(lanes: &Lanes, number: u32) -> u64 {
    if !lanes.fused {
        return expected::<f32>(lanes, number);
    }
    (0..LINKS_CHECKED).fold(f32::start(number), |x, _| x.mul_add(x, f32::C)).bits()
}

fn expected_fp64(lanes: &Lanes, number: u32) -> u64 {
    if !lanes.fused {
        return expected::<f64>(lanes, number);
    }
    (0..LINKS_CHECKED).fold(f64::start(number), |x, _| x.mul_add(x, f64::C)).bits()
}

/// Operations per second on so many threads at once; nothing when no time passes.
fn rate(kernel: Kernel, threads: u32, budget: Duration, clock: &Clock) -> Option<f64> {
    let chains = kernel(0).len() as u64;
    let units = timing::rate(budget, u64::MAX, |units| {
        let links = units.saturating_mul(LINKS_PER_UNIT);
        let before = clock.steady();
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(move || std::hint::black_box(kernel(std::hint::black_box(links))));
            }
            std::hint::black_box(kernel(std::hint::black_box(links)));
        });
        Ok::<_, std::convert::Infallible>(clock.steady().since(before))
    });
    let per_unit = chains * LINKS_PER_UNIT * OPERATIONS_PER_LINK * u64::from(threads);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let per_unit = per_unit as f64;
    units.ok().flatten().map(|units| units * per_unit).filter(|rate| rate.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_of_every_vector_agrees_with_chains_walked_alone() {
        for lanes in [lanes::best(), lanes::PORTABLE] {
            check(&lanes, lanes.int32, expected::<u32>).unwrap();
            check(&lanes, lanes.fp32, expected_fp32).unwrap();
            check(&lanes, lanes.fp64, expected_fp64).unwrap();
        }
    }

    #[test]
    fn a_kernel_that_leaves_out_a_link_has_no_figure() {
        let lanes = lanes::PORTABLE;
        let short: Kernel = |links| (lanes::PORTABLE.int32)(links - 1);
        assert!(check(&lanes, short, expected::<u32>).unwrap_err().contains("chain 0"));
        let short: Kernel = |links| (lanes::PORTABLE.fp64)(links - 1);
        assert!(check(&lanes, short, expected_fp64).is_err());
    }

    #[test]
    fn a_clock_that_stands_still_gives_no_figure() {
        let clock = Clock::manual(jiff::Timestamp::UNIX_EPOCH);
        // Calibration gives up before it asks for more work than can be done.
        let kernel: Kernel = |_| vec![0];
        assert_eq!(rate(kernel, 2, Duration::from_millis(1), &clock), None);
    }
}
