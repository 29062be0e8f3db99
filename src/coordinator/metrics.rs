//! Numbers for operators, in Prometheus' text format.
//!
//! Invariant: labels are routes of ours, never what a caller sent, so the number of series is bounded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Counts of answered requests.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    routes: Mutex<BTreeMap<(String, String), RouteCounts>>,
}

#[derive(Debug, Default)]
struct RouteCounts {
    by_status: BTreeMap<u16, u64>,
    /// Not cumulative; the last one counts what is above every bound.
    buckets: [u64; BUCKETS.len() + 1],
    seconds_sum: f64,
}

/// One number with its name, for [`Metrics::render`].
#[derive(Debug, Clone)]
pub(crate) struct Gauge {
    /// Name as Prometheus has it.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) help: &'static str,
    /// Its values, each with a label such as `state="queued"` or none.
    pub(crate) values: Vec<(String, i64)>,
}

impl Metrics {
    /// Counts an answer.
    pub(crate) fn observe(&self, method: &str, route: &str, status: u16, took: Duration) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = routes.entry((method.to_owned(), route.to_owned())).or_default();
        *counts.by_status.entry(status).or_default() += 1;
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        counts.buckets[bucket] += 1;
        counts.seconds_sum += seconds;
    }

    /// Everything as text.
    pub(crate) fn render(&self, gauges: &[Gauge]) -> String {
        let mut text = String::new();
        for gauge in gauges {
            header(&mut text, gauge.name, "gauge", gauge.help);
            for (label, value) in &gauge.values {
                let labels = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
                let _ = writeln!(text, "{}{labels} {value}", gauge.name);
            }
        }
        self.render_requests(&mut text);
        text
    }

    fn render_requests(&self, text: &mut String) {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        header(text, "fizz_http_requests_total", "counter", "Answered requests.");
        for ((method, route), counts) in routes.iter() {
            for (status, count) in &counts.by_status {
                let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
                let _ = writeln!(text, "fizz_http_requests_total{{{labels}}} {count}");
            }
        }
        let name = "fizz_http_request_duration_seconds";
        header(text, name, "histogram", "Time to the head of the answer; long polls included.");
        for ((method, route), counts) in routes.iter() {
            let labels = format!("method=\"{method}\",route=\"{route}\"");
            let mut cumulative = 0;
            for (bound, count) in BUCKETS.iter().zip(&counts.buckets) {
                cumulative += count;
                let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {cumulative}");
            }
            cumulative += counts.buckets[BUCKETS.len()];
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {cumulative}");
            let _ = writeln!(text, "{name}_sum{{{labels}}} {}", counts.seconds_sum);
            let _ = writeln!(text, "{name}_count{{{labels}}} {cumulative}");
        }
    }
}

fn header(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_end_with_the_count() {
        let metrics = Metrics::default();
        for millis in [1, 3, 60_000] {
            metrics.observe("GET", "/v1/market", 200, Duration::from_millis(millis));
        }
        metrics.observe("GET", "/v1/market", 503, Duration::from_millis(3));
        let text = metrics.render(&[Gauge { name: "g", help: "h", values: vec![("a=\"b\"".into(), -1)] }]);
        for line in [
            "g{a=\"b\"} -1",
            "fizz_http_requests_total{method=\"GET\",route=\"/v1/market\",status=\"200\"} 3",
            "fizz_http_requests_total{method=\"GET\",route=\"/v1/market\",status=\"503\"} 1",
            "fizz_http_request_duration_seconds_bucket{method=\"GET\",route=\"/v1/market\",le=\"0.001\"} 1",
            "fizz_http_request_duration_seconds_bucket{method=\"GET\",route=\"/v1/market\",le=\"0.005\"} 3",
            "fizz_http_request_duration_seconds_bucket{method=\"GET\",route=\"/v1/market\",le=\"30\"} 3",
            "fizz_http_request_duration_seconds_bucket{method=\"GET\",route=\"/v1/market\",le=\"+Inf\"} 4",
            "fizz_http_request_duration_seconds_count{method=\"GET\",route=\"/v1/market\"} 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
