//! Starting an ended container again: whether its policy says so, how often it was done, and how long to wait before it.
//!
//! Invariants
//! - A restart is counted, together with the end it follows, before it is done. A container whose last end is that one has not been
//!   started since; any other state of it shows that it has. So an agent that is killed in between starts it exactly once.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::between;
use crate::runtime::ContainerExit;
use crate::wire::job::{RestartPolicy, RestartWhen};

/// Before the first restart; doubled with each end that comes soon after a start.
const DELAY_FIRST: Duration = Duration::from_secs(1);
/// Before any restart at most. A container that ran for so long is started again as if for the first time.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// How often a container was started again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// How often in all.
    pub times: u32,
    /// How often in a row after it had run for a short time only.
    pub in_a_row: u32,
    /// The end that the newest restart follows, by the engine's clock.
    pub ended_at: Option<Timestamp>,
    /// The exit code of that end.
    pub code: i32,
}

impl Restarts {
    /// Whether `policy` wants a container started again after an end that was a failure or not.
    pub(super) fn covered_by(&self, policy: RestartPolicy, is_failure: bool) -> bool {
        let wanted = match policy.when {
            RestartWhen::Never | RestartWhen::Unknown => false,
            RestartWhen::OnFailure => is_failure,
            RestartWhen::Always => true,
        };
        wanted && policy.times_max.is_none_or(|most| self.times < most)
    }

    /// Counts a restart after this end.
    pub(super) fn count(&mut self, exit: &ContainerExit) {
        let ran_long = between(exit.started_at, exit.ended_at) >= DELAY_MAX;
        self.times = self.times.saturating_add(1);
        self.in_a_row = if ran_long { 1 } else { self.in_a_row.saturating_add(1) };
        self.ended_at = Some(exit.ended_at);
        self.code = exit.code;
    }

    /// Whether a container that ended like this has not been started again yet.
    pub(super) fn follows(&self, exit: &ContainerExit) -> bool {
        self.ended_at == Some(exit.ended_at)
    }

    /// From its end to the start after it.
    pub(super) fn delay(&self) -> Duration {
        let doublings = self.in_a_row.saturating_sub(1).min(16);
        DELAY_FIRST.saturating_mul(1 << doublings).min(DELAY_MAX)
    }

    /// What of the delay is left at `now`, for an agent that was away.
    pub(super) fn delay_left(&self, now: Timestamp) -> Duration {
        self.delay().saturating_sub(self.ended_at.map_or(Duration::ZERO, |ended| between(ended, now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(started: i64, ended: i64) -> ContainerExit {
        let at = |second| Timestamp::from_second(second).unwrap();
        ContainerExit { code: 1, out_of_memory: false, started_at: at(started), ended_at: at(ended) }
    }

    #[test]
    fn the_delay_doubles_from_one_second_to_a_minute_and_begins_anew_after_a_long_run() {
        let mut restarts = Restarts::default();
        let delays: Vec<u64> = (0..9)
            .map(|_| {
                restarts.count(&exit(0, 1));
                restarts.delay().as_secs()
            })
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        restarts.count(&exit(0, 60));
        assert_eq!((restarts.delay().as_secs(), restarts.times), (1, 10));
    }

    #[test]
    fn a_policy_covers_what_it_names_and_as_often_as_it_says() {
        let mut restarts = Restarts::default();
        let policy = |when, times_max| RestartPolicy { when, times_max };
        assert!(!restarts.covered_by(policy(RestartWhen::Never, None), true));
        assert!(!restarts.covered_by(policy(RestartWhen::Unknown, None), true));
        assert!(!restarts.covered_by(policy(RestartWhen::OnFailure, None), false));
        assert!(restarts.covered_by(policy(RestartWhen::Always, None), false));
        assert!(restarts.covered_by(policy(RestartWhen::OnFailure, Some(1)), true));
        restarts.count(&exit(0, 1));
        assert!(!restarts.covered_by(policy(RestartWhen::OnFailure, Some(1)), true));
    }
}
