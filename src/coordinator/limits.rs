//! How much one caller may ask for: pure token buckets, and what each kind of call may take.
//!
//! Invariants
//! - Over any stretch of time a key passes at most `burst` calls plus its rate times that stretch.
//! - Memory is bounded whatever keys come: two generations of at most [`KEYS_MAX`] each. Under a flood of fresh keys an old
//!   one may be forgotten, and so forgiven, early; the flood itself is bounded per address.
//! - A refusal names the time after which the same call passes.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::time::Duration;

use axum::http::Method;

use crate::clock::Steady;

/// Keys remembered per generation.
const KEYS_MAX: usize = 20_000;

/// Most bytes of a JSON body.
pub(crate) const JSON_BYTES_MAX: usize = 1 << 20;
/// Most bytes of one log upload.
pub(crate) const LOG_BYTES_MAX: usize = 1 << 20;
/// Most bytes of one part of an output.
pub(crate) const OUTPUT_PART_BYTES_MAX: usize = 8 << 20;
/// Longest time that a long poll is held.
pub(crate) const LONG_POLL_MAX: Duration = Duration::from_secs(60);
/// Sixteen devices, each with two dozen rows of 128 KiB at most.
pub(crate) const REVEAL_BYTES_MAX: usize = 80 << 20;
/// An answer may wait for others to be checked.
const REVEAL_TIME_MAX: Duration = Duration::from_secs(180);
const UPLOAD_TIME_MAX: Duration = Duration::from_secs(3600);
/// Longest time that one stream into a running job is held.
const REACH_TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// One token bucket per key, kept as the time at which the bucket would be full again.
#[derive(Debug)]
pub(crate) struct RateLimiter<K> {
    /// Time that one call costs.
    interval: Duration,
    /// How far ahead of now a key's time may run.
    tolerance: Duration,
    young: HashMap<K, Steady>,
    old: HashMap<K, Steady>,
}

impl<K: Hash + Eq> RateLimiter<K> {
    /// `per_minute` calls over time, `burst` of them at once. Zeros count as one.
    pub(crate) fn new(per_minute: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(60) / per_minute.max(1);
        Self {
            interval,
            tolerance: interval * burst.max(1).saturating_sub(1),
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    /// Lets a call of `key` pass, or says how long to wait.
    pub(crate) fn check(&mut self, key: K, now: Steady) -> Result<(), Duration> {
        let full_at = self.young.get(&key).or_else(|| self.old.get(&key)).copied().unwrap_or(now).max(now);
        let ahead = full_at.since(now);
        if ahead > self.tolerance {
            return Err(ahead - self.tolerance);
        }
        if self.young.len() >= KEYS_MAX {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, full_at.after(self.interval));
        Ok(())
    }
}

/// What a kind of call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Most bytes of its body that are read into memory; `None` for streams, which count for themselves.
    pub(crate) body_bytes_max: Option<usize>,
    /// Time until the head of its answer; `None` for the configured one.
    pub(crate) time_max: Option<Duration>,
    /// Whether it counts against the rate limits.
    pub(crate) counted: bool,
}

/// What the call may take, by its path.
pub(crate) fn allowance(method: &Method, path: &str) -> Allowance {
    let ordinary = Allowance { body_bytes_max: Some(JSON_BYTES_MAX), time_max: None, counted: true };
    let segments: Vec<&str> = path.trim_start_matches('/').splitn(6, '/').collect();
    match segments.as_slice() {
        ["healthz" | "readyz"] => Allowance { counted: false, ..ordinary },
        ["v1", "node", "assignments"] => {
            Allowance { time_max: Some(LONG_POLL_MAX + Duration::from_secs(10)), ..ordinary }
        }
        ["v1", "leases", _, "logs"] if method == Method::POST => {
            Allowance { body_bytes_max: Some(LOG_BYTES_MAX), time_max: Some(LONG_POLL_MAX), ..ordinary }
        }
        ["v1", "leases", _, "output", "parts"] if method == Method::POST => {
            Allowance { body_bytes_max: Some(OUTPUT_PART_BYTES_MAX), time_max: Some(UPLOAD_TIME_MAX), ..ordinary }
        }
        ["v1", "challenges", _, "ready"] => {
            Allowance { time_max: Some(LONG_POLL_MAX + Duration::from_secs(10)), ..ordinary }
        }
        ["v1", "challenges", _, "reveal"] if method == Method::POST => {
            Allowance { body_bytes_max: Some(REVEAL_BYTES_MAX), time_max: Some(REVEAL_TIME_MAX), ..ordinary }
        }
        // The parts are put together before it is answered.
        ["v1", "leases", _, "output"] if method == Method::PUT => {
            Allowance { time_max: Some(UPLOAD_TIME_MAX), ..ordinary }
        }
        ["v1", "jobs", _, "sessions", _, "input"] | ["v1", "node", "sessions", _, "output"]
            if method == Method::POST =>
        {
            Allowance { body_bytes_max: None, time_max: Some(REACH_TIME_MAX), ..ordinary }
        }
        _ => ordinary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Steady {
        Steady::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn a_burst_passes_then_one_call_per_interval() {
        let mut limiter = RateLimiter::new(60, 3);
        for _ in 0..3 {
            assert_eq!(limiter.check("a", at(0)), Ok(()));
        }
        assert_eq!(limiter.check("a", at(0)), Err(Duration::from_secs(1)));
        assert_eq!(limiter.check("b", at(0)), Ok(()), "another key has its own bucket");
        assert_eq!(limiter.check("a", at(1_000)), Ok(()));
        assert_eq!(limiter.check("a", at(1_999)), Err(Duration::from_millis(1)));
    }

    #[test]
    fn memory_stays_bounded_under_a_flood_of_keys() {
        let mut limiter = RateLimiter::new(60, 1);
        for key in 0..(KEYS_MAX * 5) {
            assert_eq!(limiter.check(key, at(0)), Ok(()));
        }
        assert!(limiter.young.len() + limiter.old.len() <= 2 * KEYS_MAX);
        assert!(limiter.check(KEYS_MAX * 5 - 1, at(0)).is_err(), "a recent key is remembered");
    }

    #[test]
    fn only_uploads_may_be_large_and_only_polls_may_be_long() {
        assert_eq!(allowance(&Method::POST, "/v1/jobs").body_bytes_max, Some(JSON_BYTES_MAX));
        assert_eq!(allowance(&Method::POST, "/v1/leases/x/output/parts").body_bytes_max, Some(OUTPUT_PART_BYTES_MAX));
        assert!(allowance(&Method::PUT, "/v1/leases/x/output").time_max.unwrap() > LONG_POLL_MAX);
        assert_eq!(allowance(&Method::GET, "/v1/leases/x/output").body_bytes_max, Some(JSON_BYTES_MAX));
        assert!(allowance(&Method::GET, "/v1/node/assignments").time_max.unwrap() > LONG_POLL_MAX);
        assert_eq!(allowance(&Method::GET, "/v1/market").time_max, None);
        assert_eq!(allowance(&Method::POST, "/v1/challenges/x/reveal").body_bytes_max, Some(REVEAL_BYTES_MAX));
        assert_eq!(allowance(&Method::POST, "/v1/challenges/x/commit").body_bytes_max, Some(JSON_BYTES_MAX));
        assert_eq!(allowance(&Method::POST, "/v1/jobs/x/sessions/y/input").body_bytes_max, None);
        assert_eq!(allowance(&Method::POST, "/v1/node/sessions/y/output").body_bytes_max, None);
        assert_eq!(allowance(&Method::POST, "/v1/jobs/x/sessions").body_bytes_max, Some(JSON_BYTES_MAX));
        assert!(!allowance(&Method::GET, "/healthz").counted);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_passes_more_than_burst_plus_rate(
            per_minute in 1u32..6_000, burst in 1u32..50, gaps in prop::collection::vec(0u64..2_000, 1..300),
        ) {
            let mut limiter = RateLimiter::new(per_minute, burst);
            let mut now = 0;
            let mut passed = Vec::new();
            for gap in gaps {
                now += gap;
                if limiter.check((), at(now)).is_ok() {
                    passed.push(now);
                }
            }
            for (first, start) in passed.iter().enumerate() {
                for (last, end) in passed.iter().enumerate().skip(first) {
                    let count = u64::try_from(last - first + 1).unwrap();
                    // Integer division makes the interval up to a nanosecond shorter than exact.
                    let refilled = (end - start) * u64::from(per_minute) / 60_000 + 1;
                    prop_assert!(count <= u64::from(burst) + refilled, "{count} in {} ms", end - start);
                }
            }
        }

        #[test]
        fn whoever_waits_as_told_passes(per_minute in 1u32..6_000, burst in 1u32..50, calls in 1usize..200) {
            let mut limiter = RateLimiter::new(per_minute, burst);
            let mut now = at(5);
            for _ in 0..calls {
                if let Err(wait) = limiter.check((), now) {
                    prop_assert!(limiter.check((), now).is_err(), "a refused call costs nothing and changes nothing");
                    now = now.after(wait);
                    prop_assert_eq!(limiter.check((), now), Ok(()));
                }
            }
        }
    }
}
