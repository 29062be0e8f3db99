//! Which of several addresses to use now, and when to try the next. Pure: time and chance are arguments.
//!
//! Invariants
//! - The first address in order that is not resting is used, so the agent comes back to the first one when it heals.
//! - Each failure doubles an address's rest up to [`REST_MAX`]; a success forgets all of its failures.
//! - Rests are drawn from half to whole, so that many nodes do not come back at the same moment.

use std::time::Duration;

use crate::clock::Steady;

/// Rest after the first failure.
pub const REST_FIRST: Duration = Duration::from_millis(250);
/// Longest rest.
pub const REST_MAX: Duration = Duration::from_secs(60);

/// The addresses and how they did.
#[derive(Debug, Clone)]
pub struct Failover {
    addresses: Vec<Address>,
}

#[derive(Debug, Clone, Default)]
struct Address {
    failures: u32,
    rests_until: Option<Steady>,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// Use this address.
    Use {
        /// Its place in the list.
        index: usize,
    },
    /// All of them rest; try again then.
    Wait {
        /// When the first of them has rested.
        until: Steady,
    },
    /// There are none.
    Nothing,
}

impl Failover {
    /// `count` addresses, none of them tried yet.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { addresses: vec![Address::default(); count] }
    }

    /// The address to use at `now`.
    #[must_use]
    pub fn pick(&self, now: Steady) -> Pick {
        let rested = |address: &Address| address.rests_until.is_none_or(|until| until <= now);
        if let Some(index) = self.addresses.iter().position(rested) {
            return Pick::Use { index };
        }
        match self.addresses.iter().filter_map(|a| a.rests_until).min() {
            Some(until) => Pick::Wait { until },
            None => Pick::Nothing,
        }
    }

    /// The address answered.
    pub fn succeeded(&mut self, index: usize) {
        if let Some(address) = self.addresses.get_mut(index) {
            *address = Address::default();
        }
    }

    /// The address did not answer at `now`; `chance` is drawn evenly from 0 to 1.
    pub fn failed(&mut self, index: usize, now: Steady, chance: f64) {
        if let Some(address) = self.addresses.get_mut(index) {
            let rest = backoff(address.failures, REST_FIRST, REST_MAX, chance);
            // Calls that were under way together fail together; they count once.
            if address.rests_until.is_none_or(|until| until <= now) {
                address.failures = address.failures.saturating_add(1);
                address.rests_until = Some(now.after(rest));
            }
        }
    }
}

/// Time to wait after `failures` earlier failures: doubling from `first` up to `max`, and of that half to whole by `chance`.
#[must_use]
pub fn backoff(failures: u32, first: Duration, max: Duration, chance: f64) -> Duration {
    let whole = first.saturating_mul(1_u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX)).min(max);
    whole.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Steady {
        Steady::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn a_failed_address_makes_way_for_the_next_and_gets_its_place_back() {
        let mut failover = Failover::new(2);
        assert_eq!(failover.pick(at(0)), Pick::Use { index: 0 });
        failover.failed(0, at(0), 1.0);
        assert_eq!(failover.pick(at(1)), Pick::Use { index: 1 });
        failover.succeeded(1);
        assert_eq!(failover.pick(at(249)), Pick::Use { index: 1 });
        assert_eq!(failover.pick(at(250)), Pick::Use { index: 0 });
        failover.failed(0, at(250), 1.0);
        assert_eq!(failover.pick(at(700)), Pick::Use { index: 1 });
        assert_eq!(failover.pick(at(750)), Pick::Use { index: 0 });
        failover.succeeded(0);
        assert_eq!(failover.pick(at(751)), Pick::Use { index: 0 });
    }

    #[test]
    fn when_all_rest_the_wait_ends_with_the_first() {
        let mut failover = Failover::new(2);
        failover.failed(0, at(0), 1.0);
        failover.failed(1, at(0), 0.0);
        assert_eq!(failover.pick(at(0)), Pick::Wait { until: at(125) });
        assert_eq!(Failover::new(0).pick(at(0)), Pick::Nothing);
    }

    #[test]
    fn failures_of_calls_under_way_together_count_once() {
        let mut failover = Failover::new(1);
        for _ in 0..10 {
            failover.failed(0, at(0), 1.0);
        }
        assert_eq!(failover.pick(at(250)), Pick::Use { index: 0 });
    }

    proptest! {
        #[test]
        fn no_rest_is_longer_than_the_longest_and_somebody_is_always_tried_again(
            steps in prop::collection::vec((0_usize..3, any::<bool>(), 0_u64..100_000, 0.0_f64..1.0), 0..60),
        ) {
            let mut failover = Failover::new(3);
            let mut now = 0;
            for (index, good, later, chance) in steps {
                now += later;
                if good { failover.succeeded(index) } else { failover.failed(index, at(now), chance) }
                match failover.pick(at(now)) {
                    Pick::Use { .. } => {}
                    Pick::Wait { until } => prop_assert!(until.since(at(now)) <= REST_MAX),
                    Pick::Nothing => prop_assert!(false),
                }
            }
        }

        #[test]
        fn backoff_grows_within_its_bounds(failures in 0_u32..100, chance in 0.0_f64..=1.0) {
            let wait = backoff(failures, REST_FIRST, REST_MAX, chance);
            prop_assert!(wait <= REST_MAX && wait >= REST_FIRST / 2);
        }
    }
}
