//! The owner's commands: lend this machine, look at it, stop lending it.

pub mod doctor;
pub mod drain;
pub mod earnings;
pub mod enroll;
pub mod firewall;
pub mod prove;
mod qr;
pub mod status;
pub mod up;

use std::path::PathBuf;

use clap::Args;

use super::errors::{CliError, Exit};
use crate::control::ControlError;

/// Arguments of `fizz up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Configuration file, instead of the usual one
    #[arg(long, value_name = "FILE", env = "FIZZ_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
}

/// Arguments of `fizz enroll`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Without a token a code is shown; approve it on the coordinator's page with your
account. A token comes from --token-file, FIZZ_JOIN_TOKEN or FIZZ_JOIN_TOKEN_FILE.")]
pub struct EnrollArgs {
    /// Address of the coordinator; the configured one when absent
    #[arg(long, value_name = "URL", env = "FIZZ_COORDINATOR", hide_env = true)]
    pub coordinator: Option<String>,
    /// Certificate of the authority to trust, instead of the system's
    #[arg(long, value_name = "FILE", env = "FIZZ_CA_FILE", hide_env = true)]
    pub ca_file: Option<PathBuf>,
    /// File with a join token; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Type a join token at a prompt
    #[arg(long, conflicts_with = "token_file")]
    pub token: bool,
    /// Name of this machine, instead of its host name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Configuration file, instead of the usual one
    #[arg(long, value_name = "FILE", env = "FIZZ_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
}

/// Arguments of `fizz status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Stay and show every change
    #[arg(long, short)]
    pub watch: bool,
    /// Configuration file, instead of the usual one
    #[arg(long, value_name = "FILE", env = "FIZZ_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
}

/// Arguments of `fizz earnings`.
#[derive(Debug, Clone, Args)]
pub struct EarningsArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Configuration file, instead of the usual one
    #[arg(long, value_name = "FILE", env = "FIZZ_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
}

/// Arguments of `fizz drain`.
#[derive(Debug, Clone, Args)]
pub struct DrainArgs {
    /// Do not wait until the agent has stopped
    #[arg(long)]
    pub no_wait: bool,
    /// Configuration file, instead of the usual one
    #[arg(long, value_name = "FILE", env = "FIZZ_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
}

/// Arguments of `fizz prove`.
#[derive(Debug, Clone, Args)]
pub struct ProveArgs {
    /// Compute a challenge in this process; what the agent starts
    #[arg(long, hide = true)]
    pub child: bool,
    /// Configuration file, instead of the usual one
    #[arg(long, value_name = "FILE", env = "FIZZ_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
}

/// Arguments of `fizz doctor`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
\u{2713} is as it should be, ! works but could be better, \u{2717} is broken. Ends with 0 when
nothing is broken. Run it as the user who runs `fizz up`.")]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Configuration file, instead of the usual one
    #[arg(long, value_name = "FILE", env = "FIZZ_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
}

/// What went wrong between us and the agent on this machine.
fn control_error(error: ControlError) -> CliError {
    CliError::new(Exit::Error, error.to_string()).because(error)
}
