//! `fizz demo`: the whole network on one machine, from a coordinator to a paid job, and nothing left of it.

#[cfg(feature = "coordinator")]
pub mod image;
#[cfg(feature = "coordinator")]
pub mod screen;
#[cfg(feature = "coordinator")]
pub mod story;

use std::path::PathBuf;

use clap::Args;

use super::errors::{CliError, Exit};

/// Arguments of `fizz demo`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
It starts a coordinator and a node on this machine, measures the machine, runs
one job in a container, brings its picture to ./fizz-demo/ and tells what it cost
and who earned what. It needs Docker and nothing else, and leaves nothing running.

  fizz demo
  fizz demo -- --samples 200
  fizz demo --image alpine:3 -- echo hello")]
pub struct DemoArgs {
    /// Run this image instead of the built-in renderer
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Folder for what the job leaves in /output [default: fizz-demo]
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Command for the image, or arguments for the built-in renderer
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
