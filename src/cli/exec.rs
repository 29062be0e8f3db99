//! `fizz exec` and `fizz shell`: a command in one's own running job, through the coordinator.
//!
//! Invariants
//! - The command's streams come out byte for byte on ours; its exit code is ours.
//! - However this ends, the terminal is as it was before, and the command in the job is ended with it.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::task::AbortOnDropHandle;

use super::connect::RenterArgs;
use super::errors::{CliError, Exit};
use super::job::find;
use super::output;
use crate::os::{RawTerminal, Resizes, StopSignals};
use crate::rent::{ReachInput, ReachSession};
use crate::wire::Secret;
use crate::wire::reach::{NewReach, REACH_FRAME_BYTES_MAX, ReachFrame, ReachWish, TerminalSize};

/// Arguments of `fizz exec`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The job must have been submitted with `fizz run --interactive`.
It ends with the command's own exit code; 125 when it could not be run.

  fizz exec render -- ls -l /work
  fizz exec -it render -- sh
  tar c data | fizz exec -i render -- tar x -C /work")]
pub struct ExecArgs {
    /// Pass our input on
    #[arg(long, short)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// In this service of the job instead of its main one
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Set a variable
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Working directory in the container
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,
    /// The job's id, its beginning, or its name
    pub job: String,
    /// Command to run
    #[arg(value_name = "CMD", trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<String>,
    /// Which coordinator.
    #[command(flatten)]
    pub renter: RenterArgs,
}

/// Arguments of `fizz shell`.
#[derive(Debug, Clone, Args)]
pub struct ShellArgs {
    /// In this service of the job instead of its main one
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// The job's id, its beginning, or its name
    pub job: String,
    /// Which coordinator.
    #[command(flatten)]
    pub renter: RenterArgs,
}

/// The same as `fizz exec -it JOB -- sh`.
///
/// # Errors
/// As [`run`].
pub async fn shell(args: ShellArgs) -> Result<u8, CliError> {
    let ShellArgs { service, job, renter } = args;
    let command = vec!["sh".to_owned()];
    let (env, workdir) = (Vec::new(), None);
    run(ExecArgs { interactive: true, tty: true, service, env, workdir, job, command, renter }).await
}

/// Runs the command and answers with its exit code.
///
/// # Errors
/// When the job cannot be reached, or the session breaks off.
pub async fn run(args: ExecArgs) -> Result<u8, CliError> {
    if args.tty && !std::io::stdin().is_terminal() {
        return Err(CliError::usage("--tty needs a terminal, and our input is none").next("leave -t away in pipes"));
    }
    let client = args.renter.connect()?;
    let job = find(&client, &args.job).await?;
    let tty = args.tty.then(size);
    let what =
        ReachWish::Exec { command: args.command, tty, env: variables(&args.env, args.tty)?, workdir: args.workdir };
    let new = NewReach { service: args.service, what };
    let (input, session) = client.reach(job, &new).await.map_err(|error| cannot(error.into()))?;
    if !args.tty {
        let _keys = AbortOnDropHandle::new(tokio::spawn(pass_input(input, args.interactive)));
        return copy_answers(session).await;
    }
    // Caught first: from the moment at which the terminal is raw, nothing ends this without restoring it.
    let mut signals = StopSignals::catch().map_err(uncaught)?;
    let mut resizes = Resizes::catch().map_err(uncaught)?;
    let _raw = raw()?;
    let _keys = AbortOnDropHandle::new(tokio::spawn(pass_input(input.clone(), args.interactive)));
    let copying = copy_answers(session);
    let mut shown = tty;
    tokio::pin!(copying);
    loop {
        tokio::select! {
            code = &mut copying => return code,
            () = signals.next() => return Err(cannot(CliError::new(Exit::Error, "stopped by a signal"))),
            () = resizes.next() => {
                let now = size();
                if shown.replace(now) != Some(now) {
                    input.send(&ReachFrame::Resize(now)).await;
                }
            }
        }
    }
}

fn raw() -> Result<RawTerminal, CliError> {
    RawTerminal::enter().map_err(|error| CliError::new(Exit::CannotRun, "the terminal cannot be set up").because(error))
}

fn uncaught(error: std::io::Error) -> CliError {
    CliError::new(Exit::Error, "signals cannot be caught").because(error)
}

/// Fizz's own failures have a code that no command of theirs usually ends with.
fn cannot(error: CliError) -> CliError {
    if error.exit() == Exit::Error { error.with_exit(Exit::CannotRun) } else { error }
}

/// Our terminal's size, or the usual one.
fn size() -> TerminalSize {
    let found = terminal_size::terminal_size_of(std::io::stdin());
    found.map_or(TerminalSize { columns: 80, rows: 24 }, |(columns, rows)| TerminalSize {
        columns: columns.0,
        rows: rows.0,
    })
}

fn variables(pairs: &[String], tty: bool) -> Result<BTreeMap<String, Secret>, CliError> {
    let mut env = BTreeMap::new();
    if tty && let Ok(term) = std::env::var("TERM") {
        env.insert("TERM".to_owned(), Secret::new(term));
    }
    for pair in pairs {
        let (name, value) = pair
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| CliError::usage("--env takes KEY=VALUE"))?;
        env.insert(name.to_owned(), Secret::new(value));
    }
    Ok(env)
}

async fn pass_input(input: ReachInput, wanted: bool) {
    let mut stdin = tokio::io::stdin();
    let mut piece = vec![0; REACH_FRAME_BYTES_MAX];
    if wanted {
        while let Ok(count @ 1..) = stdin.read(&mut piece).await {
            let bytes = bytes::Bytes::copy_from_slice(&piece[..count]);
            if !input.send(&ReachFrame::Input(bytes)).await {
                return;
            }
        }
    }
    input.send(&ReachFrame::InputEnd).await;
    // The way in stays open for changes of the terminal's size.
    std::future::pending::<()>().await;
}

/// Copies what the command writes until it has ended; its exit code.
async fn copy_answers(mut session: ReachSession) -> Result<u8, CliError> {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        match session.next().await.map_err(|error| cannot(error.into()))? {
            ReachFrame::Stdout(bytes) => {
                let written = async {
                    stdout.write_all(&bytes).await?;
                    stdout.flush().await
                };
                if let Err(error) = written.await {
                    let error = output::write_error(&error);
                    return if output::is_reader_gone(&error) { Ok(0) } else { Err(error) };
                }
            }
            ReachFrame::Stderr(bytes) => {
                // Nobody reads our standard error: the command's is then nobody's either.
                let _ = stderr.write_all(&bytes).await;
                let _ = stderr.flush().await;
            }
            ReachFrame::Exit(code) => return Ok(exit_code(code)),
            ReachFrame::Error(why) => return Err(broken_off(&why)),
            ReachFrame::Input(_) | ReachFrame::Resize(_) | ReachFrame::InputEnd => {}
        }
    }
}

/// A session's sentence, as an error of ours.
pub(super) fn broken_off(why: &str) -> CliError {
    CliError::new(Exit::CannotRun, output::printable(why))
}

/// As much of an exit code as a process can end with.
fn exit_code(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn parse(args: &[&str]) -> ExecArgs {
        let cli = crate::cli::Cli::try_parse_from(["fizz", "exec"].iter().chain(args)).unwrap();
        let crate::cli::Command::Exec(args) = cli.command else { panic!("not exec") };
        args
    }

    #[test]
    fn it_is_typed_as_docker_exec_is() {
        let args = parse(&["-it", "night", "sh", "-c", "ls -l"]);
        assert!(args.interactive && args.tty);
        assert_eq!((args.job.as_str(), args.command.len()), ("night", 3));
        let args = parse(&["--service", "db", "night", "--", "psql", "-t"]);
        assert_eq!(
            (args.tty, args.service.as_deref(), args.command),
            (false, Some("db"), vec!["psql".to_owned(), "-t".to_owned()])
        );
    }

    #[test]
    fn every_exit_code_fits_into_a_process() {
        assert_eq!([0, 3, 137, -1, 256].map(exit_code), [0, 3, 137, 255, 0]);
    }
}
