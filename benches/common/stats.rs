//! Medians and spreads.

use std::time::Duration;

/// Heading of [`Series::row`].
pub const HEAD: &str = "                                       median      p10      p90      min";

/// Times of one contender.
#[derive(Debug, Default)]
pub struct Series(Vec<f64>);

impl Series {
    /// No times yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more.
    pub fn push(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1000.0);
    }

    /// The median in milliseconds.
    #[must_use]
    pub fn median_millis(&self) -> f64 {
        self.quantile(1, 2)
    }

    /// What each time is over its pair in `other`.
    #[must_use]
    pub fn less(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours - theirs).collect())
    }

    /// The value below which `numerator / denominator` of all lie; between two values their mean by distance.
    fn quantile(&self, numerator: usize, denominator: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
        let (whole, rest) = (last * numerator / denominator, last * numerator % denominator);
        let next = sorted[(whole + 1).min(last)];
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let part = rest as f64 / denominator as f64;
        sorted[whole] + (next - sorted[whole]) * part
    }

    /// A line of the table.
    #[must_use]
    pub fn row(&self, name: &str) -> String {
        let [median, low, high] = [(1, 2), (1, 10), (9, 10)].map(|(n, d)| self.quantile(n, d));
        format!("{name:<36} {median:8.1} {low:8.1} {high:8.1} {:8.1}", self.quantile(0, 1))
    }
}
