//! `fizz run`: a job that feels like `docker run`.
//!
//! Invariants
//! - The job's stdout and stderr come out byte for byte on ours; everything Fizz says itself goes to stderr.
//! - The exit code is the job's own; the codes of Fizz's own failures are those of `docker run` once the job was accepted.
//! - One submission makes one job, however often the network breaks.

pub mod ending;
pub mod fetched;
mod file;
pub mod keep;
pub mod progress;
pub mod spec;
pub mod watch;

use std::path::PathBuf;

use clap::Args;
use uuid::Uuid;

use super::connect::RenterArgs;
use super::errors::{CliError, Exit};
use super::values::{parse_bytes, parse_cpus, parse_disk, parse_isolation, parse_rate, parse_reach, parse_seconds};
use super::{output, unpack};
use crate::clock::Clock;
use crate::rent::{RentClient, RentError};
use crate::wire::domain::DomainPattern;
use crate::wire::job::{InputSpec, Isolation, JobView, Reach};
use crate::wire::{HourlyRate, JobId, NodeId};
use keep::KeepArgs;

/// Arguments of `fizz run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The job runs as the image's own user, or as nobody, with no capabilities. It may
write to /work (its home), /output, and /tmp, which is memory.
The job's output folder is /output; --output DIR brings it back.
--rm is accepted as in docker and changes nothing: the container and its files
are always removed; what stays is the job's record, which is also its bill.
Before the job starts, the highest price for the longest time is set aside from
your balance; what is not used comes back when it ends.

  fizz run alpine:3 -- echo hello
  fizz run --cpus 4 --memory 2g --output ./out -e FRAMES=10 me/render -- render

A restart keeps the container's files and log. --health-http and --health-tcp
give the job a network of its own; the time until a restart counts as running.

--file runs a job of up to eight services, which find each other by name on a
network of their own. The first is the main one: when it ends, the job ends. Its
output comes as with one service; lines of the others come on standard error
behind the service's name in brackets. A job.toml:

  [limits]
  price_max = 50000                # millionths of a dollar per hour
  duration_seconds_max = 3600
  [[services]]
  name = \"main\"
  image = \"alpine:3\"
  command = [\"wget\", \"-qO-\", \"http://db:8080/\"]
  depends_on = [\"db\"]             # waits until it runs and is healthy
  resources = { cpu_millis = 500, memory_bytes = 67108864, disk_bytes = 0 }
  [[services]]
  name = \"db\"
  image = \"me/db\"
  restart = { when = \"on_failure\", times_max = 3 }
  resources = { cpu_millis = 500, memory_bytes = 67108864, disk_bytes = 1048576 }
  health = { test = { kind = \"tcp\", port = 8080 }, interval_seconds = 2 }

`fizz exit-codes` explains how it ends.")]
pub struct RunArgs {
    /// Image to run, as docker writes it
    #[arg(required_unless_present = "file")]
    pub image: Option<String>,
    /// Command instead of the image's own
    #[arg(value_name = "CMD", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,

    /// Cores, like 0.5
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_cpus, help_heading = "Resources")]
    pub cpus: u32,
    /// Memory, like 512m or 2g
    #[arg(long, short, value_name = "SIZE", default_value = "512m", value_parser = parse_bytes, help_heading = "Resources")]
    pub memory: u64,
    /// Whole GPUs, which nobody else has meanwhile
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Resources")]
    pub gpus: u32,
    /// Disk for what the job writes, like 1g; with 0 it can write to memory only
    #[arg(long, value_name = "SIZE", default_value = "1g", value_parser = parse_disk, help_heading = "Resources")]
    pub disk: u64,
    /// Processes and threads it may have
    #[arg(long, value_name = "N", default_value_t = crate::wire::job::default_pids_max(), help_heading = "Resources")]
    pub pids_limit: u32,
    /// Size of /dev/shm, like 1g; counts as memory [default: 64m]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Resources")]
    pub shm_size: Option<u64>,
    /// Only this node
    #[arg(long, value_name = "ID", help_heading = "Resources")]
    pub node: Option<NodeId>,
    /// Only where jobs are separated at least so well: container, user-namespace, gvisor or kata
    #[arg(long, value_name = "KIND", value_parser = parse_isolation, help_heading = "Resources")]
    pub isolation: Option<Isolation>,
    /// Only on nodes whose hardware has been proven lately
    #[arg(long, help_heading = "Resources")]
    pub proven: bool,

    /// Set a variable; without a value, take ours
    #[arg(long, short, value_name = "KEY[=VALUE]", help_heading = "Container")]
    pub env: Vec<String>,
    /// Read variables from a file, as docker does
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    pub env_file: Vec<PathBuf>,
    /// Working directory in the container
    #[arg(long, short, value_name = "DIR", help_heading = "Container")]
    pub workdir: Option<String>,
    /// Run as root of the container, without capabilities; some nodes refuse that
    #[arg(long, help_heading = "Container")]
    pub root: bool,
    /// Program instead of the image's entrypoint
    #[arg(long, value_name = "PROGRAM", help_heading = "Container")]
    pub entrypoint: Option<String>,
    /// What it may reach: none or internet
    #[arg(long, value_name = "REACH", default_value = "none", value_parser = parse_reach, help_heading = "Container")]
    pub network: Reach,
    /// Of the internet only this name; '*.example.com' for what is below one;
    /// repeatable
    #[arg(long, value_name = "NAME", help_heading = "Container")]
    pub domain: Vec<DomainPattern>,
    /// A file that the node fetches into the container before it starts; repeatable
    #[arg(long, value_name = "URL#sha256=HEX:/PATH", value_parser = fetched::parse_input, help_heading = "Container")]
    pub input: Vec<InputSpec>,
    /// File with USER:PASSWORD for the image's registry
    #[arg(long, value_name = "FILE", conflicts_with = "registry_auth", help_heading = "Container")]
    pub registry_login_file: Option<PathBuf>,
    /// Let the node pull the image with the login that `docker login` keeps here
    #[arg(long, help_heading = "Container")]
    pub registry_auth: bool,
    /// Name of the job, for people
    #[arg(long, value_name = "NAME", help_heading = "Container")]
    pub name: Option<String>,
    /// Seconds between SIGTERM and SIGKILL on a stop
    #[arg(long, value_name = "SECONDS", default_value_t = crate::wire::job::default_stop_grace_seconds(), help_heading = "Container")]
    pub stop_timeout: u32,

    /// Highest price per hour, in dollars
    #[arg(long, value_name = "USD", default_value = "1.00", value_parser = parse_rate, allow_negative_numbers = true, help_heading = "Money and time")]
    pub max_price: HourlyRate,
    /// Longest running time, like 10m or 2h
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_seconds, help_heading = "Money and time")]
    pub timeout: u64,
    /// Give up when nothing has started it for so long
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, help_heading = "Money and time")]
    pub start_within: Option<u64>,

    /// Restarts and health checks.
    #[command(flatten)]
    pub keep: KeepArgs,

    /// A whole job out of a TOML or JSON file instead of an image and flags; see below
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "image", "command", "cpus", "memory", "gpus", "disk", "pids_limit", "shm_size", "node", "isolation", "proven", "env", "env_file",
        "workdir", "root", "entrypoint", "name", "stop_timeout", "max_price", "timeout", "start_within", "interactive", "restart",
        "health", "health_interval", "health_timeout", "health_retries", "health_start_period", "input", "registry_login_file",
        "registry_auth",
    ], help_heading = "Options")]
    pub file: Option<PathBuf>,
    /// Bring /output back into this folder
    #[arg(long, short, value_name = "DIR", conflicts_with = "detach")]
    pub output: Option<PathBuf>,
    /// Let yourself in while it runs: `fizz exec`, `fizz cp`
    #[arg(long)]
    pub interactive: bool,
    /// Print the job's id and leave it running
    #[arg(long, short)]
    pub detach: bool,
    /// Accepted as in docker; see below
    #[arg(long)]
    pub rm: bool,
    /// Say nothing but what the job says, and why it could not
    #[arg(long, short)]
    pub quiet: bool,

    /// Which coordinator.
    #[command(flatten)]
    pub renter: RenterArgs,
}

/// Submits the job, shows it to its end, and answers with its exit code.
///
/// # Errors
/// When it cannot be submitted or watched.
pub async fn run(args: RunArgs) -> Result<u8, CliError> {
    let spec = spec::build(&args, &|name| std::env::var(name).ok())?;
    if let Some(folder) = &args.output {
        unpack::check_target(folder)?;
    }
    let client = args.renter.connect()?;
    let key = Uuid::new_v4().to_string();
    let job = client.submit(&spec, &key).await?;
    if args.detach {
        output::line(job.job_id.to_string())?;
        return Ok(0);
    }
    let ended = watch::to_the_end(&client, &job, args.quiet).await?;
    let Some(view) = ended else { return Ok(ending::EXIT_INTERRUPTED) };
    let brought = match &args.output {
        Some(folder) => bring_output(&client, &view, folder, args.quiet).await,
        None => Ok(()),
    };
    if !args.quiet {
        output::note(ending::summary(&view, Clock::system().now()));
    } else if ending::is_trouble(&view) || brought.is_err() {
        output::note(ending::how(&view));
    }
    ending_with(ending::exit_code(&view), brought)
}

/// A job's own failure is its exit code, whatever became of its output; a success without the output is none.
fn ending_with(code: u8, brought: Result<(), CliError>) -> Result<u8, CliError> {
    brought.map(|()| code).map_err(|error| if code == 0 { error } else { error.with_exit(Exit::Job(code)) })
}

/// Fetches and unpacks the output, if there is one. The job's own failure is the more important news, so a missing output
/// is only noted then.
async fn bring_output(
    client: &RentClient,
    view: &JobView,
    folder: &std::path::Path,
    quiet: bool,
) -> Result<(), CliError> {
    if view.output.is_none() {
        if ending::exit_code(view) != 0 {
            return Ok(());
        }
        return Err(CliError::new(
            Exit::CannotRun,
            format!("job {} left nothing in {}", view.job_id, spec::OUTPUT_PATH),
        )
        .next(format!("see what it did: fizz job logs {}", view.job_id)));
    }
    let unpacked = fetch_output(client, view.job_id, folder).await.map_err(|error| error.with_exit(Exit::CannotRun))?;
    if !quiet {
        output::note(format!("{} in {}", unpacked, folder.display()));
    }
    Ok(())
}

/// Downloads a job's output and unpacks it into `folder`.
///
/// # Errors
/// When there is none, it is damaged, or the folder cannot be written.
pub async fn fetch_output(
    client: &RentClient,
    job: JobId,
    folder: &std::path::Path,
) -> Result<unpack::Unpacked, CliError> {
    let spool = tempfile::tempfile()
        .map_err(|error| CliError::new(Exit::Error, "no temporary file can be made").because(error))?;
    let mut file = tokio::fs::File::from_std(spool);
    client.download_output(job, &mut file).await?;
    let file = file.into_std().await;
    let unpacked = unpack::unpack(file, folder)?;
    if let Some(missing) = unpacked.missing() {
        // Also for the quiet: not everything that the job left is there.
        output::note(format!("warning: {missing}; `fizz job output {job} --tar FILE` fetches all"));
    }
    Ok(unpacked)
}

impl From<RentError> for CliError {
    fn from(error: RentError) -> Self {
        match error {
            RentError::Http(error) => error.into(),
            error @ (RentError::Log(_)
            | RentError::Session(_)
            | RentError::NoOutput(_)
            | RentError::Damaged { .. }
            | RentError::Write(_)) => Self::new(Exit::Error, error.to_string()).because(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_keeps_its_exit_code_when_its_output_could_not_be_brought() {
        let lost = || Err(CliError::new(Exit::CannotRun, "the output is lost"));
        assert_eq!(ending_with(4, lost()).unwrap_err().exit().code(), 4);
        assert_eq!(ending_with(0, lost()).unwrap_err().exit().code(), 125);
        assert_eq!(ending_with(4, Ok(())).unwrap(), 4);
    }
}
