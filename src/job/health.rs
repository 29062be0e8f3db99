//! Whether a container works, as a pure state: results of its check and the time go in, a verdict comes out.
//!
//! Invariants
//! - Until the first success failures count once per interval at most, and not at all within the start grace; a container is tried
//!   more often in that time, so that what waits for it does not wait longer than it must.
//! - After the first success every failure counts, and a success forgets them.

use std::time::Duration;

use crate::clock::Steady;
use crate::wire::job::HealthCheck;

/// Between two tries of a container that has not been healthy yet, at most.
const STARTING_PAUSE: Duration = Duration::from_secs(1);

/// What the results so far mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing new.
    Same,
    /// It works, for the first time.
    Healthy,
    /// It failed too often in a row.
    Unhealthy,
}

/// The check of one run of a container.
#[derive(Debug, Clone)]
pub(super) struct Health {
    interval: Duration,
    retries: u32,
    failures: u32,
    was_healthy: bool,
    /// Before the first success: from when on a failure counts.
    counts_from: Steady,
}

impl Health {
    /// Of a container that was started, or thawed, now.
    pub(super) fn new(check: &HealthCheck, now: Steady) -> Self {
        let interval = Duration::from_secs(u64::from(check.interval_seconds.max(1)));
        let grace = Duration::from_secs(u64::from(check.start_grace_seconds)).max(interval);
        Self { interval, retries: check.retries.max(1), failures: 0, was_healthy: false, counts_from: now.after(grace) }
    }

    /// How long to wait before the next try.
    pub(super) fn pause(&self) -> Duration {
        if self.was_healthy { self.interval } else { self.interval.min(STARTING_PAUSE) }
    }

    /// Takes the result of a try.
    pub(super) fn tried(&mut self, succeeded: bool, now: Steady) -> Verdict {
        if succeeded {
            self.failures = 0;
            let first = !std::mem::replace(&mut self.was_healthy, true);
            return if first { Verdict::Healthy } else { Verdict::Same };
        }
        if !self.was_healthy {
            if now < self.counts_from {
                return Verdict::Same;
            }
            self.counts_from = now.after(self.interval);
        }
        self.failures += 1;
        if self.failures >= self.retries { Verdict::Unhealthy } else { Verdict::Same }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::job::HealthTest;

    fn at(second: u64) -> Steady {
        Steady::from_start(Duration::from_secs(second))
    }

    fn health(start_grace_seconds: u32) -> Health {
        let check = HealthCheck {
            test: HealthTest::Tcp { port: 80 },
            interval_seconds: 10,
            timeout_seconds: 5,
            retries: 3,
            start_grace_seconds,
        };
        Health::new(&check, at(0))
    }

    #[test]
    fn one_that_never_works_is_unhealthy_after_its_retries_however_often_it_is_tried() {
        let mut state = health(0);
        let first = (1..100).find(|second| state.tried(false, at(*second)) == Verdict::Unhealthy);
        assert_eq!(first, Some(30));
    }

    #[test]
    fn failures_within_the_start_grace_do_not_count() {
        let mut state = health(60);
        let first = (1..200).find(|second| state.tried(false, at(*second)) == Verdict::Unhealthy);
        assert_eq!(first, Some(80));
    }

    #[test]
    fn one_that_worked_is_unhealthy_after_so_many_failures_in_a_row_and_a_success_forgets_them() {
        let mut state = health(0);
        assert_eq!(state.pause(), STARTING_PAUSE);
        assert_eq!(state.tried(true, at(1)), Verdict::Healthy);
        assert_eq!(state.pause(), Duration::from_secs(10));
        assert_eq!(state.tried(true, at(11)), Verdict::Same);
        for second in [21, 31] {
            assert_eq!(state.tried(false, at(second)), Verdict::Same);
        }
        assert_eq!(state.tried(true, at(41)), Verdict::Same);
        let verdicts = [51, 61, 71].map(|second| state.tried(false, at(second)));
        assert_eq!(verdicts, [Verdict::Same, Verdict::Same, Verdict::Unhealthy]);
    }
}
