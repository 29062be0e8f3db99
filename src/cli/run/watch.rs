//! Watching a job from submission to its end: its log, its state and Ctrl-C, side by side.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::task::AbortOnDropHandle;

use super::progress::StateLine;
use crate::cli::errors::{CliError, Exit};
use crate::cli::output;
use crate::os::StopSignals;
use crate::rent::{LogFollower, RentClient, RentError};
use crate::wire::JobId;
use crate::wire::job::{JobState, JobView};
use crate::wire::logs::{LogFrame, LogStream};

const LOOK_FIRST: Duration = Duration::from_millis(100);
const LOOK_WAITING: Duration = Duration::from_secs(1);
const LOOK_RUNNING: Duration = Duration::from_secs(5);

/// Shows the job until it has ended; `None` when a second Ctrl-C left it alone.
///
/// # Errors
/// When the coordinator stays away or the job is gone.
pub async fn to_the_end(client: &RentClient, job: &JobView, quiet: bool) -> Result<Option<JobView>, CliError> {
    let watch = Watch { client, job: job.job_id, line: StateLine::new(quiet) };
    let mut signals =
        StopSignals::catch().map_err(|error| CliError::new(Exit::Error, "Ctrl-C cannot be caught").because(error))?;
    let result = watch.run(job, &mut signals).await;
    watch.line.clear();
    result
}

struct Watch<'a> {
    client: &'a RentClient,
    job: JobId,
    line: StateLine,
}

impl Watch<'_> {
    async fn run(&self, job: &JobView, signals: &mut StopSignals) -> Result<Option<JobView>, CliError> {
        let _states = AbortOnDropHandle::new(show_states(self.client.clone(), job.clone(), self.line.clone()));
        let mut log = copy_log(self.client.follow_logs(self.job, 0), self.line.clone());
        let mut stopping = false;
        loop {
            tokio::select! {
                copied = &mut log => {
                    self.log_ended(copied).await?;
                    return self.last_word(signals, stopping).await;
                }
                () = signals.next() => {
                    if self.interrupted(signals, &mut stopping).await? {
                        log.abort();
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The first Ctrl-C asks the job to stop, the second leaves it alone; whether there was a second.
    async fn interrupted(&self, signals: &mut StopSignals, stopping: &mut bool) -> Result<bool, CliError> {
        let job = self.job;
        self.line.clear();
        if !std::mem::replace(stopping, true) {
            self.line.say("asking the job to stop; Ctrl-C again leaves it alone");
            tokio::select! {
                asked = self.client.stop(job) => return asked.map(|()| false).map_err(|error| self.lost(error.into())),
                () = signals.next() => {}
            }
        }
        output::note(format!(
            "job {job} is left alone\nfizz: look at it with `fizz job show {job}`, stop it with `fizz job stop {job}`"
        ));
        Ok(true)
    }

    async fn log_ended(&self, copied: Result<Result<(), CopyError>, JoinError>) -> Result<(), CliError> {
        self.line.clear();
        match copied {
            Ok(Ok(())) => Ok(()),
            Ok(Err(CopyError::ReaderGone)) => {
                // A local program would have been ended by the closed pipe; a rented one should not run on unseen.
                self.line.say("nobody reads the output any more; asking the job to stop");
                self.client.stop(self.job).await.map_err(|error| self.lost(error.into()))
            }
            Ok(Err(CopyError::Failed(error))) => Err(self.lost(error)),
            Err(error) => Err(self.lost(CliError::new(Exit::Error, "the log reader broke off").because(error))),
        }
    }

    /// After the log's end only the job's last word is missing. Ctrl-C is still heard.
    async fn last_word(&self, signals: &mut StopSignals, mut stopping: bool) -> Result<Option<JobView>, CliError> {
        loop {
            tokio::select! {
                view = self.client.wait_final(self.job) => {
                    return view.map(Some).map_err(|error| self.lost(error.into()));
                }
                () = signals.next() => {
                    if self.interrupted(signals, &mut stopping).await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The connection is gone but the job is not: says how to find it again.
    fn lost(&self, error: CliError) -> CliError {
        let job = self.job;
        CliError::new(Exit::CannotRun, format!("job {job} can no longer be watched, but it may go on"))
            .because(error.to_string())
            .next(format!("look at it with `fizz job show {job}`, stop it with `fizz job stop {job}`"))
    }
}

/// Shows where the job stands until it is told to end. A coordinator that is away is the log reader's business: it is the
/// one that gives up.
fn show_states(client: RentClient, job: JobView, line: StateLine) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut shown = line.show(&job, None);
        let mut look = LOOK_FIRST;
        loop {
            tokio::time::sleep(look).await;
            if let Ok(view) = client.job(job.job_id).await {
                shown = line.show(&view, Some(&shown));
                look = next_look(look, view.state);
            }
        }
    })
}

/// Looks often at first, then seldom: the log tells faster than the state that something happens.
fn next_look(look: Duration, state: JobState) -> Duration {
    match state {
        JobState::Queued | JobState::Placed => (look * 2).min(LOOK_WAITING),
        JobState::Running | JobState::Done | JobState::Failed | JobState::Cancelled | JobState::Unknown => LOOK_RUNNING,
    }
}

/// Why a log could not be copied to its end.
#[derive(Debug)]
pub enum CopyError {
    /// Standard output was closed.
    ReaderGone,
    /// Anything else.
    Failed(CliError),
}

impl From<RentError> for CopyError {
    fn from(error: RentError) -> Self {
        Self::Failed(error.into())
    }
}

/// Copies a log to standard output and standard error in a task of its own, so that a slow reader never holds up Ctrl-C.
#[must_use]
pub fn copy_log(mut log: LogFollower, line: StateLine) -> JoinHandle<Result<(), CopyError>> {
    tokio::spawn(async move {
        let mut stdout = tokio::io::stdout();
        let mut stderr = tokio::io::stderr();
        while let Some(frame) = log.next().await? {
            line.clear();
            write_frame(&mut stdout, &mut stderr, &frame).await?;
        }
        Ok(())
    })
}

async fn write_frame(
    stdout: &mut tokio::io::Stdout,
    stderr: &mut tokio::io::Stderr,
    frame: &LogFrame,
) -> Result<(), CopyError> {
    match frame.stream {
        LogStream::Stdout => {
            // Flushed at once: a person watches, and order between the two streams matters.
            let written = async {
                stdout.write_all(&frame.bytes).await?;
                stdout.flush().await
            };
            written.await.map_err(|error| {
                let error = output::write_error(&error);
                if output::is_reader_gone(&error) { CopyError::ReaderGone } else { CopyError::Failed(error) }
            })
        }
        LogStream::Stderr => {
            // Nobody reads our standard error: the job's is then nobody's either.
            let _ = stderr.write_all(&frame.bytes).await;
            let _ = stderr.flush().await;
            Ok(())
        }
        LogStream::Notice => {
            output::note(output::printable(&String::from_utf8_lossy(&frame.bytes)).trim_end());
            Ok(())
        }
    }
}
