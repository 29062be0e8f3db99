//! The command line: what can be typed, and which function answers it.
//!
//! Invariants
//! - No secret is ever an argument: files, environment or prompt only.
//! - Help fits 80 columns; every list has `--json`; every exit code is in the table of [`errors::EXIT_CODES`].
//! - Only [`output`] prints.

pub mod bench;
pub mod completions;
pub mod connect;
#[cfg(feature = "coordinator")]
pub mod coordinator;
pub mod cp;
pub mod demo;
pub mod errors;
pub mod exec;
pub mod job;
pub mod output;
pub mod owner;
pub mod run;
pub mod secrets;
pub mod settings;
pub mod unpack;
pub mod values;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::telemetry::{self, LogOptions};
use errors::{CliError, Exit};

/// What `fizz --help` starts with.
const ABOUT: &str = "Lend this computer to a compute network, or run jobs on it";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "fizz", version, about = ABOUT, max_term_width = 80, after_help = AFTER_HELP)]
#[command(arg_required_else_help = true)]
pub struct Cli {
    /// Say more about what happens inside; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Try the whole network on this machine:   fizz demo
Lend this machine:                       fizz enroll && fizz up
Run something:                           fizz run alpine:3 -- echo hello

`fizz exit-codes` explains how commands end.";

/// What can be typed after `fizz`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lend this machine: run jobs until stopped
    Up(owner::UpArgs),
    /// Register this machine with a coordinator
    Enroll(owner::EnrollArgs),
    /// What this machine does now, and why
    Status(owner::StatusArgs),
    /// What this machine has earned
    Earnings(owner::EarningsArgs),
    /// Look for what is wrong here, and say how to mend it
    Doctor(owner::DoctorArgs),
    /// The rules that keep jobs out of this home's network
    #[command(subcommand)]
    Firewall(owner::firewall::FirewallCommand),
    /// Measure this machine
    Bench(bench::BenchArgs),
    /// Have the coordinator look at this machine's hardware again
    Prove(owner::ProveArgs),
    /// Finish what runs, take nothing new, then stop
    Drain(owner::DrainArgs),
    /// Run a container on somebody's machine
    Run(Box<run::RunArgs>),
    /// Run a command in your own running job
    Exec(exec::ExecArgs),
    /// Open a shell in your own running job
    Shell(exec::ShellArgs),
    /// Copy files to and from your own running job
    Cp(cp::CpArgs),
    /// Look at jobs, stop them, fetch what they made
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Run and look after a coordinator
    #[cfg(feature = "coordinator")]
    #[command(subcommand)]
    Coordinator(coordinator::CoordinatorCommand),
    /// Show the whole network at work on this machine
    Demo(demo::DemoArgs),
    /// Print a completion script for your shell
    Completions(completions::CompletionsArgs),
    /// Print or write the manual pages
    Man(completions::ManArgs),
    /// Explain how commands end
    ExitCodes,
}

/// Parses the command line, does what it says, and answers with the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(output::parse_error(&error)),
    };
    match dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(output::fail(&error)),
    }
}

/// The command line's own description, for completions and manual pages.
#[must_use]
pub fn description() -> clap::Command {
    Cli::command()
}

fn dispatch(cli: Cli) -> Result<u8, CliError> {
    start_log(&cli)?;
    match cli.command {
        Command::Up(args) => owner::up::run(args),
        Command::Enroll(args) => block_on(owner::enroll::run(args)),
        Command::Status(args) => block_on(owner::status::run(args)),
        Command::Earnings(args) => block_on(owner::earnings::run(args)),
        Command::Doctor(args) => block_on(owner::doctor::run(args)),
        Command::Firewall(command) => block_on(owner::firewall::run(command)),
        Command::Bench(args) => bench::run(&args),
        Command::Prove(owner::ProveArgs { child: true, .. }) => owner::prove::run_as_child(),
        Command::Prove(args) => block_on(owner::prove::run(args)),
        Command::Drain(args) => block_on(owner::drain::run(args)),
        Command::Run(args) => block_on(run::run(*args)),
        Command::Exec(args) => block_on(exec::run(args)),
        Command::Shell(args) => block_on(exec::shell(args)),
        Command::Cp(args) => block_on(cp::run(args)),
        Command::Job(command) => block_on(job::run(command)),
        #[cfg(feature = "coordinator")]
        Command::Coordinator(command) => coordinator::run(command),
        Command::Demo(args) => demo::run(args),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => completions::man(&args),
        Command::ExitCodes => output::line(errors::EXIT_CODES).map(|()| 0),
    }
}

/// What runs for long tells its story; what answers and ends speaks only when something is wrong.
fn start_log(cli: &Cli) -> Result<(), CliError> {
    let tells = matches!(cli.command, Command::Up(_)) || is_coordinator_serve(&cli.command);
    let options = LogOptions::from_environment(cli.verbose + u8::from(tells), |name| std::env::var(name).ok());
    options
        .and_then(|options| telemetry::init(&options))
        .map_err(|error| CliError::new(Exit::Usage, error.to_string()).because(error))
}

#[cfg(feature = "coordinator")]
const fn is_coordinator_serve(command: &Command) -> bool {
    matches!(command, Command::Coordinator(coordinator::CoordinatorCommand::Serve(_)))
}

#[cfg(not(feature = "coordinator"))]
const fn is_coordinator_serve(_command: &Command) -> bool {
    false
}

/// Runs a short command on this thread. Nothing that is stuck (a write to a pipe nobody reads) holds the end back.
fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::new(Exit::Error, "the runtime cannot be started").because(error))?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        description().debug_assert();
    }
}
