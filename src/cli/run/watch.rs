//! Watching a job from submission to its end: its log, its state and Ctrl-C, side by side.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinHandle;

use super::progress::StateLine;
use crate::cli::errors::{CliError, Exit};
use crate::cli::output;
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
    let line = StateLine::new(quiet);
    let mut shown = line.show(job, None);
    let mut log = copy_log(client.follow_logs(job.job_id, 0), line.clone());
    let mut look = LOOK_FIRST;
    let mut interrupts: u32 = 0;
    let mut stopping = false;
    loop {
        tokio::select! {
            copied = &mut log => {
                line.clear();
                match copied.map_err(|error| lost(job.job_id, CliError::new(Exit::Error, "the log reader broke off").because(error)))? {
                    Ok(()) => break,
                    Err(CopyError::ReaderGone) => {
                        // A local program would have been ended by the closed pipe; a rented one should not run on unseen.
                        line.say("nobody reads the output any more; asking the job to stop");
                        client.stop(job.job_id).await?;
                        break;
                    }
                    Err(CopyError::Failed(error)) => return Err(lost(job.job_id, error)),
                }
            }
            signal = tokio::signal::ctrl_c() => {
                signal.map_err(|error| CliError::new(Exit::Error, "Ctrl-C cannot be received").because(error))?;
                interrupts += 1;
                if interrupts > 1 {
                    line.clear();
                    log.abort();
                    output::note(left_alone(job.job_id));
                    return Ok(None);
                }
                line.say("asking the job to stop; Ctrl-C again leaves it alone");
                stopping = true;
            }
            () = tokio::time::sleep(if stopping { Duration::ZERO } else { look }) => {
                if std::mem::take(&mut stopping) {
                    client.stop(job.job_id).await?;
                }
                let view = client.job(job.job_id).await.map_err(|error| lost(job.job_id, error.into()))?;
                shown = line.show(&view, Some(&shown));
                look = next_look(look, view.state);
            }
        }
    }
    let ended = finish(client, job.job_id, &line).await;
    line.clear();
    ended
}

/// After the log's end only the job's last word is missing. Ctrl-C still leaves it alone.
async fn finish(client: &RentClient, job: JobId, line: &StateLine) -> Result<Option<JobView>, CliError> {
    tokio::select! {
        view = client.wait_final(job) => view.map(Some).map_err(|error| lost(job, error.into())),
        _ = tokio::signal::ctrl_c() => {
            line.clear();
            output::note(left_alone(job));
            Ok(None)
        }
    }
}

/// Looks often at first, then seldom: the log tells faster than the state that something happens.
fn next_look(look: Duration, state: JobState) -> Duration {
    match state {
        JobState::Queued | JobState::Placed => (look * 2).min(LOOK_WAITING),
        JobState::Running | JobState::Done | JobState::Failed | JobState::Cancelled | JobState::Unknown => LOOK_RUNNING,
    }
}

fn left_alone(job: JobId) -> String {
    format!("job {job} is left alone\nfizz: look at it with `fizz job show {job}`, stop it with `fizz job stop {job}`")
}

/// The connection is gone but the job is not: says how to find it again.
fn lost(job: JobId, error: CliError) -> CliError {
    CliError::new(Exit::CannotRun, format!("job {job} can no longer be watched, but it may go on"))
        .because(error.to_string())
        .next(format!("look at it with `fizz job show {job}`"))
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
