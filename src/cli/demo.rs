//! `fizz demo`: the whole network on one machine.

use clap::Args;

use super::errors::{CliError, Exit};

/// Arguments of `fizz demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Run this image instead of the built-in renderer
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Command for the image
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Runs the demo.
///
/// # Errors
/// When a part of it does not work; the sentence says which.
pub fn run(_args: DemoArgs) -> Result<u8, CliError> {
    Err(CliError::new(Exit::Error, "the demo is not part of this build"))
}
