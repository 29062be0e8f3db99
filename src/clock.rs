//! The only place that reads a clock. Everything else takes the time as an argument.
//!
//! Two times are needed: the wall clock (for people, signatures and records) and a steady clock that goes on through suspend
//! and never jumps (for deadlines and for what is billed).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// A source of time: the system's, or one that tests turn by hand.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Manual(Arc<Mutex<Manual>>),
}

#[derive(Debug)]
struct Manual {
    wall: Timestamp,
    steady: Duration,
}

/// A reading of the steady clock: time since an arbitrary start that goes on through suspend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Steady(Duration);

impl Steady {
    /// A reading so long after the arbitrary start.
    #[must_use]
    pub const fn from_start(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// Time since `earlier`; zero when it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The reading `later` from now.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until [`Clock::advance`]; clones turn together.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(Mutex::new(Manual { wall: start, steady: Duration::from_secs(1_000) }))))
    }

    /// Wall clock, UTC.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::now(),
            Source::Manual(manual) => manual.lock().unwrap_or_else(PoisonError::into_inner).wall,
        }
    }

    /// Steady clock.
    #[must_use]
    pub fn steady(&self) -> Steady {
        match &self.0 {
            Source::System => Steady(boot_time()),
            Source::Manual(manual) => Steady(manual.lock().unwrap_or_else(PoisonError::into_inner).steady),
        }
    }

    /// Turns a manual clock forward; does nothing to the machine's clock.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            let mut manual = manual.lock().unwrap_or_else(PoisonError::into_inner);
            manual.steady = manual.steady.saturating_add(by);
            manual.wall = manual.wall.checked_add(by).unwrap_or(Timestamp::MAX);
        }
    }
}

#[cfg(unix)]
fn boot_time() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const SUSPEND_AWARE: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const SUSPEND_AWARE: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let spec = rustix::time::clock_gettime(SUSPEND_AWARE);
    Duration::new(u64::try_from(spec.tv_sec).unwrap_or(0), u32::try_from(spec.tv_nsec).unwrap_or(0))
}

#[cfg(not(unix))]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn boot_time() -> Duration {
    // QueryPerformanceCounter goes on through suspend on Windows.
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_steady_clock_never_runs_backwards() {
        let clock = Clock::system();
        let first = clock.steady();
        assert!(clock.steady() >= first);
    }

    #[test]
    fn clones_of_a_manual_clock_turn_together() {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let other = clock.clone();
        clock.advance(Duration::from_secs(60));
        assert_eq!(other.now(), Timestamp::from_second(60).unwrap());
        assert_eq!(other.steady(), Steady(Duration::from_secs(1_060)));
    }
}
