//! `fizz bench`: measure this machine.

use clap::Args;

use super::errors::{CliError, Exit};

/// Arguments of `fizz bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Measure for a shorter time, less exactly
    #[arg(long)]
    pub quick: bool,
}

/// Measures and prints.
///
/// # Errors
/// When nothing can be measured.
pub fn run(_args: &BenchArgs) -> Result<u8, CliError> {
    Err(CliError::new(Exit::Error, "this build cannot measure yet"))
}
