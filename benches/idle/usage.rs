//! What /proc says of a process, and the difference of two readings.

use std::fs;
use std::time::Duration;

use crate::Outcome;

/// Heading of [`Idle::row`].
pub const HEAD: &str = "                          RSS MB  private MB  threads     CPU %  switches/s";

const RSS_MB_MAX: f64 = 10.0;
const CPU_PERCENT_MAX: f64 = 0.01;
const SWITCHES_MAX: f64 = 1.0;

/// One reading.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    rss_kb: f64,
    private_kb: f64,
    threads: f64,
    /// On a processor, over all threads alive, in nanoseconds (`schedstat`: finer than the ticks of `stat`).
    running_nanos: f64,
    /// Voluntary and not, over all threads alive.
    switches: f64,
}

/// What a process used while nothing happened.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    last: Usage,
    cpu_percent: f64,
    switches_per_second: f64,
}

impl Usage {
    /// The process `pid` now.
    pub fn of(pid: u32) -> Outcome<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let (mut running_nanos, mut switches) = (0.0, 0.0);
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            let schedule = fs::read_to_string(task.join("schedstat"))?;
            running_nanos += schedule.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
            let status = fs::read_to_string(task.join("status"))?;
            switches += field(&status, "voluntary_ctxt_switches") + field(&status, "nonvoluntary_ctxt_switches");
        }
        Ok(Self {
            rss_kb: field(&status, "VmRSS"),
            private_kb: field(&status, "RssAnon"),
            threads: field(&status, "Threads"),
            running_nanos,
            switches,
        })
    }

    /// What was used since `before`, which was read `took` ago.
    #[must_use]
    pub fn since(&self, before: &Self, took: Duration) -> Idle {
        let seconds = took.as_secs_f64();
        Idle {
            last: *self,
            cpu_percent: (self.running_nanos - before.running_nanos) / 1e9 / seconds * 100.0,
            switches_per_second: (self.switches - before.switches) / seconds,
        }
    }
}

fn field(status: &str, name: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

impl Idle {
    /// Megabytes of a million bytes are what the goal is in.
    fn rss_mb(&self) -> f64 {
        self.last.rss_kb * 1024.0 / 1e6
    }

    /// A line of the table.
    #[must_use]
    pub fn row(&self, name: &str) -> String {
        format!(
            "{name:<24} {:7.1} {:11.1} {:8} {:9.4} {:11.2}",
            self.rss_mb(),
            self.last.private_kb * 1024.0 / 1e6,
            self.last.threads,
            self.cpu_percent,
            self.switches_per_second
        )
    }

    /// Whether the goals are met.
    #[must_use]
    pub fn verdict(&self) -> String {
        let word = |is: f64, max: f64| if is <= max { "met" } else { "NOT met" };
        format!(
            "goals: RSS at most {RSS_MB_MAX} MB {}; CPU at most {CPU_PERCENT_MAX} % {}; at most {SWITCHES_MAX} switch/s {}",
            word(self.rss_mb(), RSS_MB_MAX),
            word(self.cpu_percent, CPU_PERCENT_MAX),
            word(self.switches_per_second, SWITCHES_MAX)
        )
    }

    /// This one beside another.
    #[must_use]
    pub fn ratio(&self, peer: &Self) -> String {
        format!(
            "fizz up / boinc-client: RSS {:.2}, CPU {:.2}, switches {:.2}",
            self.rss_mb() / peer.rss_mb(),
            self.cpu_percent / peer.cpu_percent,
            self.switches_per_second / peer.switches_per_second
        )
    }
}
