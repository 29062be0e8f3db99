//! Waiting longer and longer between attempts, with jitter.

use std::time::Duration;

use rand::RngExt as _;

/// Grows by half from attempt to attempt up to a ceiling.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    next: Duration,
    longest: Duration,
    waited: Duration,
    attempts: u32,
}

impl Backoff {
    /// Waits about `first` at first and never more than about `longest`.
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, next: first, longest, waited: Duration::ZERO, attempts: 0 }
    }

    /// For the container engine on this machine.
    pub(super) fn engine() -> Self {
        Self::new(Duration::from_millis(250), Duration::from_secs(10))
    }

    /// For the coordinator.
    pub(super) fn coordinator() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(30))
    }

    /// Waits before the next attempt.
    pub(super) async fn wait(&mut self) {
        let jitter = rand::rng().random_range(0.75..1.25);
        let time = self.next.mul_f64(jitter);
        tokio::time::sleep(time).await;
        self.waited += time;
        self.attempts += 1;
        self.next = (self.next + self.next / 2).min(self.longest);
    }

    /// How long has been waited since the last success.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    /// How often has been waited since the last success.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.first, self.longest);
    }
}
