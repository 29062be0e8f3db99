//! `fizz drain`: finish what runs, take nothing new, then stop.

use tokio::sync::mpsc;

use crate::cli::errors::{CliError, Exit};
use crate::cli::output;
use crate::cli::owner::status::snapshots;
use crate::cli::owner::{DrainArgs, control_error};
use crate::cli::settings;
use crate::control::{Answer, Client, Request, Snapshot};

/// Asks the agent to finish, and waits until it is gone.
///
/// # Errors
/// When no agent runs here or it refuses.
pub async fn run(args: DrainArgs) -> Result<u8, CliError> {
    let socket = settings::state_dir(args.config.as_deref())?.control_socket();
    // Watching starts before the drain, so that its end cannot be missed.
    let mut watching = Client::connect(&socket).await.map_err(control_error)?;
    watching.send(Request::Watch).await.map_err(control_error)?;
    match Client::ask(&socket, Request::Drain).await.map_err(control_error)? {
        Answer::Draining => {}
        Answer::Refused { why } => return Err(CliError::new(Exit::Error, why)),
        Answer::Snapshot { .. } | Answer::Asked | Answer::Earnings { .. } => {
            return Err(CliError::new(Exit::Error, "the agent answered something else; restart it: `fizz up`"));
        }
    }
    if args.no_wait {
        output::note("draining; `fizz status --watch` shows how it goes");
        return Ok(0);
    }
    wait(snapshots(watching)).await
}

async fn wait(mut snapshots: mpsc::Receiver<Result<Snapshot, CliError>>) -> Result<u8, CliError> {
    let mut said = String::new();
    loop {
        tokio::select! {
            snapshot = snapshots.recv() => {
                let Some(snapshot) = snapshot else {
                    output::note("the agent has stopped");
                    return Ok(0);
                };
                let words = words(&snapshot?);
                if words != said {
                    output::note(&words);
                    said = words;
                }
            }
            _ = tokio::signal::ctrl_c() => {
                output::note("the agent goes on draining; `fizz status --watch` shows how it goes");
                return Ok(0);
            }
        }
    }
}

fn words(snapshot: &Snapshot) -> String {
    match snapshot.leases.len() {
        0 => "nothing runs any more; stopping".to_owned(),
        1 => "waiting for 1 job".to_owned(),
        more => format!("waiting for {more} jobs"),
    }
}
