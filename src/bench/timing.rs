//! How a kernel is timed: calibration, batches, and which clock is believed. Pure but for the closure that does the work.
//!
//! - Work is doubled until a batch is long enough to be timed, then set so that a batch takes [`BATCH_TARGET`]: well below the
//!   2 s after which Windows resets a driver, and below the 50 ms that a desktop notices.
//! - Batches are repeated until the budget is used. The fastest counts: whatever else the machine does can only slow a batch
//!   down, so the fastest is the one that says most about the hardware.

use std::time::Duration;

/// How long a batch should take.
pub(super) const BATCH_TARGET: Duration = Duration::from_millis(25);
/// A batch shorter than this says little; calibration goes on until it is reached.
const BATCH_MIN: Duration = Duration::from_millis(5);
/// Most work of one batch; nothing real comes near.
const WORK_MAX: u64 = 1 << 40;
/// Calibration steps before giving up; 2 to 16 times the work each.
const STEPS_MAX: u32 = 40;

/// Rate of the fastest batch in units of work per second. `batch` does so many units and says how long it took.
///
/// # Errors
/// Those of `batch`; `None` when no batch took a measurable time.
pub(super) fn rate<E>(
    budget: Duration,
    work_max: u64,
    mut batch: impl FnMut(u64) -> Result<Duration, E>,
) -> Result<Option<f64>, E> {
    let work_max = work_max.clamp(1, WORK_MAX);
    // The first batch compiles, touches memory and wakes the card up: it is not looked at.
    batch(1)?;
    let Some(work) = calibrate(work_max, &mut batch)? else { return Ok(None) };
    let mut spent = Duration::ZERO;
    let mut fastest: Option<Duration> = None;
    while spent < budget {
        let took = batch(work)?;
        // Even a clock that stands still ends the loop.
        spent += took.max(Duration::from_millis(1));
        fastest = Some(fastest.map_or(took, |fastest| fastest.min(took)));
    }
    #[expect(clippy::cast_precision_loss, reason = "work is below 2^40")]
    let work = work as f64;
    Ok(fastest.filter(|took| !took.is_zero()).map(|took| work / took.as_secs_f64()))
}

/// The work that takes about [`BATCH_TARGET`].
fn calibrate<E>(work_max: u64, batch: &mut impl FnMut(u64) -> Result<Duration, E>) -> Result<Option<u64>, E> {
    let mut work = 1;
    for _ in 0..STEPS_MAX {
        let took = batch(work)?;
        if took >= BATCH_MIN {
            return Ok(Some(scaled(work, BATCH_TARGET, took).clamp(1, work_max)));
        }
        if work == work_max {
            return Ok(if took.is_zero() { None } else { Some(work) });
        }
        work =
            scaled(work, BATCH_MIN * 3 / 2, took).clamp(work.saturating_mul(2), work.saturating_mul(16)).min(work_max);
    }
    Ok(None)
}

/// `work × wanted / took`, saturating.
fn scaled(work: u64, wanted: Duration, took: Duration) -> u64 {
    let scaled = u128::from(work) * wanted.as_nanos() / took.as_nanos().max(1);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// The time to believe: the device's own where it fits ours, for it leaves out the way there and back. A device clock that says
/// more than passed here, or less than half of it, is wrong or fakes; then ours counts.
#[cfg(any(feature = "gpu", test))]
pub(super) fn settle(wall: Duration, device: Option<Duration>) -> Duration {
    match device {
        Some(device) if device <= wall + wall / 50 && device >= wall / 2 => device,
        Some(_) | None => wall,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A device that does `per_second` units of work a second after `overhead`, and remembers its batches.
    fn device(
        per_second: u64,
        overhead: Duration,
        batches: &mut Vec<u64>,
    ) -> impl FnMut(u64) -> Result<Duration, Infallible> {
        move |work| {
            batches.push(work);
            Ok(overhead
                + Duration::from_nanos(
                    u64::try_from(u128::from(work) * 1_000_000_000 / u128::from(per_second)).unwrap(),
                ))
        }
    }

    #[test]
    fn batches_take_about_25_ms_on_a_slow_and_on_a_fast_device() {
        for per_second in [100, 10_000, 1_000_000_000] {
            let mut batches = Vec::new();
            let rate = rate(Duration::from_millis(300), u64::MAX, device(per_second, Duration::ZERO, &mut batches));
            let measured = rate.unwrap().unwrap();
            assert!((measured / per_second as f64 - 1.0).abs() < 0.01, "{measured}");
            let last = Duration::from_secs_f64(*batches.last().unwrap() as f64 / per_second as f64);
            assert!((Duration::from_millis(19)..Duration::from_millis(50)).contains(&last), "{last:?}");
        }
    }

    #[test]
    fn no_batch_is_longer_than_a_desktop_notices() {
        let mut batches = Vec::new();
        rate(Duration::from_millis(300), u64::MAX, device(1_000_000, Duration::ZERO, &mut batches)).unwrap();
        assert!(batches.iter().all(|work| *work <= 50_000), "{batches:?}");
    }

    #[test]
    fn one_unit_that_takes_longer_than_the_budget_is_measured_once() {
        let mut batches = Vec::new();
        let rate = rate(Duration::from_millis(100), u64::MAX, device(2, Duration::ZERO, &mut batches)).unwrap();
        assert_eq!(rate, Some(2.0));
        // Warm-up, calibration, measurement.
        assert_eq!(batches, [1, 1, 1]);
    }

    #[test]
    fn the_fastest_batch_counts_when_others_were_disturbed() {
        let mut count = 0;
        let rate = rate(Duration::from_millis(300), u64::MAX, |work| {
            count += 1;
            let disturbed = if count % 2 == 0 { 3 } else { 1 };
            Ok::<_, Infallible>(Duration::from_micros(work) * disturbed)
        });
        assert_eq!(rate.unwrap(), Some(1_000_000.0));
    }

    #[test]
    fn a_clock_that_stands_still_gives_no_rate_and_ends() {
        assert_eq!(rate(Duration::from_millis(300), u64::MAX, |_| Ok::<_, Infallible>(Duration::ZERO)), Ok(None));
    }

    #[test]
    fn an_error_ends_the_measurement() {
        let mut count = 0;
        let result = rate(Duration::from_millis(300), u64::MAX, |_| {
            count += 1;
            if count == 5 { Err("lost") } else { Ok(Duration::from_millis(20)) }
        });
        assert_eq!(result, Err("lost"));
    }

    #[test]
    fn the_device_clock_is_believed_only_where_it_fits_ours() {
        let wall = Duration::from_millis(20);
        assert_eq!(settle(wall, None), wall);
        assert_eq!(settle(wall, Some(Duration::from_millis(19))), Duration::from_millis(19));
        assert_eq!(settle(wall, Some(Duration::from_millis(2))), wall);
        assert_eq!(settle(wall, Some(Duration::from_millis(40))), wall);
        assert_eq!(settle(wall, Some(Duration::ZERO)), wall);
    }
}
