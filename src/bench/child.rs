//! `fizz bench` as a child process, so that a driver that hangs or crashes takes nothing else down.
//!
//! Invariants
//! - The child is killed, with everything it started, at its deadline and when the caller stops waiting.
//! - What is read is bounded: a child that prints for ever is killed, not remembered.
//! - The child's standard input is a pipe that closes when the parent dies; the child ends then ([`watch_parent`]).
//! - A figure that is no finite, non-negative number is refused.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{BenchOptions, BenchOutput, BenchProgress};
use crate::os;
use crate::wire::node::Gpu;

/// Most bytes of the result document.
const STDOUT_BYTES_MAX: u64 = 1 << 20;
/// Most bytes of progress and driver chatter.
const STDERR_BYTES_MAX: u64 = 4 << 20;
/// Last lines of chatter that are kept for the error message.
const LINES_KEPT: usize = 5;
/// Longest such line.
const LINE_BYTES_MAX: usize = 300;

/// Why a benchmark run gave no result.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The program cannot be started.
    #[error("the benchmark cannot be started: {exe} does not run")]
    Start {
        /// The program.
        exe: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// It hung.
    #[error(
        "the benchmark did not end within {seconds} s and was stopped; a graphics driver may hang: update it, then run `fizz bench`{said}"
    )]
    TimedOut {
        /// The deadline.
        seconds: u64,
        /// Its last words.
        said: LastLines,
    },
    /// It crashed.
    #[error("the benchmark crashed ({how}); a graphics driver may be at fault: update it, then run `fizz bench`{said}")]
    Crashed {
        /// Signal or exit code.
        how: String,
        /// Its last words.
        said: LastLines,
    },
    /// It printed something that is no result.
    #[error("the benchmark's result cannot be understood: {why}{said}")]
    Garbage {
        /// What is wrong with it.
        why: String,
        /// Its last words.
        said: LastLines,
    },
    /// It printed without end.
    #[error("the benchmark printed more than {bytes_max} bytes and was stopped{said}")]
    TooMuchOutput {
        /// How much is accepted.
        bytes_max: u64,
        /// Its last words.
        said: LastLines,
    },
    /// Its output cannot be read.
    #[error("the benchmark's output cannot be read")]
    Pipe(#[source] std::io::Error),
}

/// The last lines a child printed besides its progress; empty when there were none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastLines(Vec<String>);

impl LastLines {
    fn push(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_MAX)]).trim().to_owned();
        if text.is_empty() {
            return;
        }
        if self.0.len() == LINES_KEPT {
            self.0.remove(0);
        }
        self.0.push(text);
    }
}

impl std::fmt::Display for LastLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; it said last: {}", self.0.join(" | ")) }
    }
}

/// Runs the benchmarks in a child of `exe` (`fizz bench --json --child [--quick]`) and calls `progress` on the way.
///
/// Cancelling the future kills the child.
///
/// # Errors
/// When the child cannot be started, passes `time_limit`, crashes, or prints anything but one result.
pub async fn run_child(
    exe: &Path,
    quick: bool,
    time_limit: Duration,
    progress: impl FnMut(BenchProgress),
) -> Result<BenchOutput, BenchError> {
    run(exe, BenchOptions { quick, list_only: false, sustain: None }, time_limit, progress).await
}

/// Lists the graphics adapters in a child of `exe` (`fizz bench --json --child --list`), without measuring.
///
/// # Errors
/// As [`run_child`].
pub async fn list_child(exe: &Path, time_limit: Duration) -> Result<Vec<Gpu>, BenchError> {
    run(exe, BenchOptions { quick: true, list_only: true, sustain: None }, time_limit, |_| {})
        .await
        .map(|output| output.gpus)
}

/// A child with these options and the deadline that suits them.
///
/// # Errors
/// As [`run_child`].
pub async fn run_options(
    exe: &Path,
    options: BenchOptions,
    progress: impl FnMut(BenchProgress),
) -> Result<BenchOutput, BenchError> {
    let time_limit = match options {
        BenchOptions { list_only: true, .. } => super::LIST_TIME_LIMIT,
        BenchOptions { quick: true, .. } => super::QUICK_TIME_LIMIT,
        BenchOptions { quick: false, .. } => super::FULL_TIME_LIMIT,
    };
    // Half as long again: a slow step may end a second late, every second.
    let sustained = options.sustain.map_or(Duration::ZERO, |time| time * super::SUSTAINED_ADAPTERS * 3 / 2);
    run(exe, options, time_limit + sustained, progress).await
}

/// Ends this process when its standard input closes, which is when the parent is gone. The child calls it first.
pub fn watch_parent() {
    std::thread::spawn(|| {
        let mut nothing = [0u8; 64];
        loop {
            match std::io::Read::read(&mut std::io::stdin(), &mut nothing) {
                Ok(1..) => {}
                Ok(0) => std::process::exit(1),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => std::process::exit(1),
            }
        }
    });
}

async fn run(
    exe: &Path,
    options: BenchOptions,
    time_limit: Duration,
    progress: impl FnMut(BenchProgress),
) -> Result<BenchOutput, BenchError> {
    let mut child = start(exe, options)?;
    // Held so that the child sees its end only when we are gone.
    let _lifeline = child.stdin.take();
    let group = Group::new(child.id());
    let mut said = LastLines::default();

    let outcome = tokio::time::timeout(time_limit, attend(&mut child, &mut said, progress)).await;
    drop(group);
    // Killed already, or ended by itself; what is left is to collect it.
    let _ = child.start_kill();
    let _ = tokio::time::timeout(Duration::from_secs(2), child.wait()).await;
    match outcome {
        Err(_elapsed) => Err(BenchError::TimedOut { seconds: time_limit.as_secs(), said }),
        Ok(Err(Trouble::Pipe(source))) => Err(BenchError::Pipe(source)),
        Ok(Err(Trouble::TooMuch(bytes_max))) => Err(BenchError::TooMuchOutput { bytes_max, said }),
        Ok(Ok((status, _))) if !status.success() => Err(BenchError::Crashed { how: how_it_ended(status), said }),
        Ok(Ok((_, document))) => understand(&document).map_err(|why| BenchError::Garbage { why, said }),
    }
}

fn start(exe: &Path, options: BenchOptions) -> Result<Child, BenchError> {
    let mut command = command(exe, &["bench", "--json", "--child"]);
    command.args(options.quick.then_some("--quick")).args(options.list_only.then_some("--list"));
    if let Some(time) = options.sustain {
        command.arg("--sustain").arg(format!("{}s", time.as_secs()));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().map_err(|source| BenchError::Start { exe: exe.to_owned(), source })
}

/// A command that runs a driver: in a process group of its own, without our configuration and keys.
pub(super) fn command(exe: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(exe);
    command.args(words);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FIZZ_") {
            command.env_remove(name);
        }
    }
    os::own_process_group(&mut command);
    command
}

/// The child's process group; killed when dropped, so that helpers a driver started end too.
#[derive(Debug)]
pub(super) struct Group(Option<u32>);

impl Group {
    /// The group that this process leads; none when it has ended already.
    pub(super) fn new(leader: Option<u32>) -> Self {
        Self(leader)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            os::kill_process_group(id);
        }
    }
}

enum Trouble {
    Pipe(std::io::Error),
    TooMuch(u64),
}

/// Reads both streams to their end, then waits for the exit.
async fn attend(
    child: &mut Child,
    said: &mut LastLines,
    progress: impl FnMut(BenchProgress),
) -> Result<(ExitStatus, Vec<u8>), Trouble> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let document = async {
        let mut document = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(STDOUT_BYTES_MAX + 1).read_to_end(&mut document).await.map_err(Trouble::Pipe)?;
        }
        if document.len() as u64 > STDOUT_BYTES_MAX { Err(Trouble::TooMuch(STDOUT_BYTES_MAX)) } else { Ok(document) }
    };
    let chatter = async {
        match stderr {
            Some(stderr) => listen(stderr, said, progress).await,
            None => Ok(()),
        }
    };
    let (document, ()) = tokio::try_join!(document, chatter)?;
    let status = child.wait().await.map_err(Trouble::Pipe)?;
    Ok((status, document))
}

/// Reads lines: progress goes to `progress`, the rest to `said`.
async fn listen(
    stderr: impl AsyncRead + Unpin,
    said: &mut LastLines,
    mut progress: impl FnMut(BenchProgress),
) -> Result<(), Trouble> {
    let mut reader = BufReader::new(stderr.take(STDERR_BYTES_MAX + 1));
    let mut line = Vec::new();
    let mut bytes: u64 = 0;
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).await.map_err(Trouble::Pipe)?;
        bytes += read as u64;
        if bytes > STDERR_BYTES_MAX {
            return Err(Trouble::TooMuch(STDERR_BYTES_MAX));
        }
        if read == 0 {
            return Ok(());
        }
        match serde_json::from_slice::<BenchProgress>(&line) {
            Ok(step) => progress(step),
            Err(_) => said.push(&line),
        }
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    if let Some(signal) = os::exit_signal(status) {
        let name = match signal {
            4 => " SIGILL",
            6 => " SIGABRT",
            7 => " SIGBUS",
            8 => " SIGFPE",
            9 => " SIGKILL",
            11 => " SIGSEGV",
            15 => " SIGTERM",
            _ => "",
        };
        return format!("signal {signal}{name}");
    }
    status.code().map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"))
}

/// One plausible result, or what is wrong with it.
fn understand(document: &[u8]) -> Result<BenchOutput, String> {
    if document.iter().all(u8::is_ascii_whitespace) {
        return Err("it is empty".to_owned());
    }
    let output: BenchOutput = serde_json::from_slice(document).map_err(|error| error.to_string())?;
    for gpu in &output.report.gpus {
        for (what, figure) in gpu.figures() {
            if !figure.is_finite() || figure < 0.0 {
                return Err(format!("{what} of {} is {figure}", gpu.name));
            }
        }
    }
    if let Some((what, figure)) = output.report.host.figures().find(|(_, figure)| !figure.is_finite() || *figure < 0.0)
    {
        return Err(format!("{what} is {figure}"));
    }
    Ok(output)
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
