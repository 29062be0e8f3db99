//! The operator's commands: run a coordinator and look after its accounts, nodes and ledger.

use clap::Subcommand;

use super::errors::{CliError, Exit};

/// What can be typed after `fizz coordinator`.
#[derive(Debug, Subcommand)]
pub enum CoordinatorCommand {
    /// Serve nodes and renters until stopped
    Serve,
}

/// Does what was typed.
///
/// # Errors
/// When the coordinator cannot start or refuses.
pub fn run(_command: CoordinatorCommand) -> Result<u8, CliError> {
    Err(CliError::new(Exit::Error, "this build has no coordinator yet"))
}
