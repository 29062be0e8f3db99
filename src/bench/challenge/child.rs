//! The parent: a child that computes, and what it says.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::{Order, Report};
use crate::bench::child::{Group, command};
use crate::wire::Digest;
use crate::wire::challenge::{Answer, Opening, Part};

/// Making ready: drivers load, shaders compile.
const PREPARE_MAX: Duration = Duration::from_secs(60);
/// Opening: results of up to 4 GiB come back from the device.
const OPEN_MAX: Duration = Duration::from_secs(60);
/// Longest report.
const REPORT_BYTES_MAX: u64 = 96 << 20;

/// Why a challenge could not be computed.
#[derive(Debug, Error)]
pub enum ProveError {
    /// The program cannot be started.
    #[error("the computation of a challenge cannot be started")]
    Start(#[source] std::io::Error),
    /// It hung.
    #[error(
        "the computation of a challenge did not end within {seconds} s and was stopped; a graphics driver may hang"
    )]
    TimedOut {
        /// The deadline.
        seconds: u64,
    },
    /// It ended in the middle.
    #[error("the computation of a challenge crashed; a graphics driver may be at fault")]
    Crashed,
    /// It could not do it.
    #[error("the challenge could not be computed: {why}")]
    Failed {
        /// Its words.
        why: String,
    },
    /// Its pipe broke.
    #[error("the computation of a challenge cannot be talked to")]
    Pipe(#[source] std::io::Error),
    /// It said something else.
    #[error("the computation of a challenge said something that makes no sense")]
    Garbage,
}

/// A child that is ready to compute. Dropping it kills it.
#[derive(Debug)]
pub struct Prover {
    orders: ChildStdin,
    reports: BufReader<ChildStdout>,
    // Killed first, with everything it started, then collected.
    _group: Group,
    _child: Child,
}

impl Prover {
    /// Starts a child of `exe` and makes it ready.
    ///
    /// # Errors
    /// [`ProveError`].
    pub async fn start(exe: &Path, parts: &[Part]) -> Result<Self, ProveError> {
        let mut command = command(exe, &["prove", "--child"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(ProveError::Start)?;
        let group = Group::new(child.id());
        let (Some(orders), Some(reports)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(ProveError::Crashed);
        };
        let mut prover = Self { orders, reports: BufReader::new(reports), _group: group, _child: child };
        match prover.ask(&Order::Prepare { parts: parts.to_vec() }, PREPARE_MAX).await? {
            Report::Ready => Ok(prover),
            Report::Roots { .. } | Report::Answers { .. } | Report::Failed { .. } => Err(ProveError::Garbage),
        }
    }

    /// Computes, and says what is committed to.
    ///
    /// # Errors
    /// [`ProveError`].
    pub async fn compute(&mut self, seeds: Vec<Digest>, time_limit: Duration) -> Result<Vec<Digest>, ProveError> {
        match self.ask(&Order::Compute { seeds }, time_limit).await? {
            Report::Roots { roots } => Ok(roots),
            Report::Ready | Report::Answers { .. } | Report::Failed { .. } => Err(ProveError::Garbage),
        }
    }

    /// Opens what was computed.
    ///
    /// # Errors
    /// [`ProveError`].
    pub async fn open(&mut self, opening: Opening) -> Result<Vec<Answer>, ProveError> {
        match self.ask(&Order::Open { opening }, OPEN_MAX).await? {
            Report::Answers { answers } => Ok(answers),
            Report::Ready | Report::Roots { .. } | Report::Failed { .. } => Err(ProveError::Garbage),
        }
    }

    async fn ask(&mut self, order: &Order, time_limit: Duration) -> Result<Report, ProveError> {
        let exchange = tokio::time::timeout(time_limit, self.exchange(order)).await;
        match exchange.map_err(|_| ProveError::TimedOut { seconds: time_limit.as_secs() })?? {
            Report::Failed { why } => Err(ProveError::Failed { why }),
            report @ (Report::Ready | Report::Roots { .. } | Report::Answers { .. }) => Ok(report),
        }
    }

    async fn exchange(&mut self, order: &Order) -> Result<Report, ProveError> {
        let mut line = serde_json::to_vec(order).map_err(|_| ProveError::Garbage)?;
        line.push(b'\n');
        // A child that is gone is told by its silence.
        let _ = self.orders.write_all(&line).await;
        let _ = self.orders.flush().await;
        line.clear();
        let mut bounded = (&mut self.reports).take(REPORT_BYTES_MAX);
        bounded.read_until(b'\n', &mut line).await.map_err(ProveError::Pipe)?;
        if line.is_empty() {
            return Err(ProveError::Crashed);
        }
        serde_json::from_slice(&line).map_err(|_| ProveError::Garbage)
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
