//! `fizz prove`: ask the coordinator to look at this machine's hardware again. The agent starts `fizz prove --child` to answer.

use crate::bench::challenge;
use crate::cli::errors::{CliError, Exit};
use crate::cli::output;
use crate::cli::owner::{ProveArgs, control_error};
use crate::cli::settings;
use crate::clock::Clock;
use crate::control::{Answer, Client, Request};

/// Asks for a challenge, through the agent on this machine.
///
/// # Errors
/// When no agent runs here, or the coordinator refuses.
pub async fn run(args: ProveArgs) -> Result<u8, CliError> {
    let socket = settings::state_dir(args.config.as_deref())?.control_socket();
    match Client::ask(&socket, Request::Prove).await.map_err(control_error)? {
        Answer::Asked => {
            output::note(
                "asked; the challenge comes when this machine is idle, ten seconds of computing an hour at most",
            );
            output::note("`fizz status` shows how it ends");
            Ok(0)
        }
        Answer::Refused { why } => Err(CliError::new(Exit::Error, why)),
        Answer::Snapshot { .. } | Answer::Draining | Answer::Earnings { .. } => {
            Err(CliError::new(Exit::Error, "the agent answered something else; restart it: `fizz up`"))
        }
    }
}

/// Computes what the agent says, in this process.
///
/// # Errors
/// When the agent cannot be heard or told.
pub fn run_as_child() -> Result<u8, CliError> {
    let served = challenge::serve(std::io::stdin().lock(), std::io::stdout().lock(), &Clock::system());
    served.map(|()| 0).map_err(|error| CliError::new(Exit::Error, "the agent is gone").because(error))
}
