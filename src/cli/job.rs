//! `fizz job …`: look at jobs, stop them, read their logs, fetch what they made.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::connect::RenterArgs;
use super::errors::{CliError, Exit};
use super::output::{self, Align, Style};
use super::run::progress::StateLine;
use super::run::watch::{CopyError, copy_log};
use super::run::{ending, fetch_output, progress};
use super::values::{show_age, show_bytes, show_duration, show_resources};
use crate::clock::Clock;
use crate::rent::RentClient;
use crate::wire::job::{JobState, JobView, Resources};
use crate::wire::{Amount, JobId};

/// What can be typed after `fizz job`.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Your jobs, newest first
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Everything about one job
    Show(ShowArgs),
    /// What a job has written
    Logs(LogsArgs),
    /// Ask a job to stop
    Stop(StopArgs),
    /// Fetch what a job left in its output folder
    Output(OutputArgs),
}

/// Arguments of `fizz job list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub renter: RenterArgs,
}

/// Arguments of `fizz job show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// The job's id, its beginning, or its name
    pub job: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub renter: RenterArgs,
}

/// Arguments of `fizz job logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// The job's id, its beginning, or its name
    pub job: String,
    /// Stay until the job has ended
    #[arg(long, short)]
    pub follow: bool,
    /// End with the job's exit code; needs --follow
    #[arg(long, requires = "follow")]
    pub exit_code: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub renter: RenterArgs,
}

/// Arguments of `fizz job stop`.
#[derive(Debug, Clone, Args)]
pub struct StopArgs {
    /// The jobs' ids, their beginnings, or their names
    #[arg(required = true, value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Wait until they have ended
    #[arg(long)]
    pub wait: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub renter: RenterArgs,
}

/// Arguments of `fizz job output`.
#[derive(Debug, Clone, Args)]
pub struct OutputArgs {
    /// The job's id, its beginning, or its name
    pub job: String,
    /// Unpack into this folder
    #[arg(value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
    /// Write the tar itself to this file instead
    #[arg(long, value_name = "FILE", conflicts_with = "folder")]
    pub tar: Option<PathBuf>,
    /// Which coordinator.
    #[command(flatten)]
    pub renter: RenterArgs,
}

/// Does what was typed.
///
/// # Errors
/// When the coordinator refuses or cannot be reached, or the output cannot be written.
pub async fn run(command: JobCommand) -> Result<u8, CliError> {
    match command {
        JobCommand::List(args) => list(&args).await,
        JobCommand::Show(args) => show(&args).await,
        JobCommand::Logs(args) => logs(&args).await,
        JobCommand::Stop(args) => stop(&args).await,
        JobCommand::Output(args) => fetch(&args).await,
    }
}

async fn list(args: &ListArgs) -> Result<u8, CliError> {
    let jobs = args.renter.connect()?.jobs().await?;
    if args.json {
        output::json(&jobs)?;
        return Ok(0);
    }
    if jobs.jobs.is_empty() {
        output::note("no jobs yet; try `fizz run alpine:3 -- echo hello`");
        return Ok(0);
    }
    output::line(list_table(output::columns(), &jobs.jobs, Clock::system().now()))?;
    Ok(0)
}

/// Characters of an id in a list: its time to the millisecond and twelve random bits, which every command here takes.
pub(super) const ID_SHOWN: usize = 18;

fn list_table(columns: u16, jobs: &[JobView], now: jiff::Timestamp) -> String {
    let heads = [
        ("job", Align::Left),
        ("what", Align::Left),
        ("state", Align::Left),
        ("cost", Align::Right),
        ("submitted", Align::Left),
    ];
    let room = usize::from(columns).saturating_sub(ID_SHOWN + 8 + 9 + 10 + 10).max(6);
    let rows: Vec<_> = jobs
        .iter()
        .map(|job| {
            vec![
                job.job_id.to_string().chars().take(ID_SHOWN).collect(),
                output::shortened(&what(job), room),
                state_word(job),
                short_amount(job.cost),
                show_age(job.submitted_at, now),
            ]
        })
        .collect();
    output::table(columns, &heads, &rows)
}

fn what(job: &JobView) -> String {
    let image = job.spec.services.first().map(|service| service.image.clone()).unwrap_or_default();
    job.spec.name.clone().unwrap_or(image)
}

/// Money in a table: ten thousandths of a dollar are exact enough.
fn short_amount(amount: Amount) -> String {
    let rounded = amount.micros().div_euclid(100) * 100;
    if amount > Amount::ZERO && rounded == 0 { "<$0.0001".to_owned() } else { Amount::from_micros(rounded).to_string() }
}

fn state_word(job: &JobView) -> String {
    match job.state {
        JobState::Queued => "queued".to_owned(),
        JobState::Placed => "starting".to_owned(),
        JobState::Running => "running".to_owned(),
        JobState::Done => format!("exit {}", ending::exit_code(job)),
        JobState::Failed => "failed".to_owned(),
        JobState::Cancelled => "stopped".to_owned(),
        JobState::Unknown => "unknown".to_owned(),
    }
}

async fn show(args: &ShowArgs) -> Result<u8, CliError> {
    let client = args.renter.connect()?;
    let job = client.job(find(&client, &args.job).await?).await?;
    if args.json {
        output::json(&job)?;
    } else {
        output::line(details(output::columns(), &job, Clock::system().now()))?;
    }
    Ok(0)
}

fn details(columns: u16, job: &JobView, now: jiff::Timestamp) -> String {
    let state = if job.state.is_final() { ending::how(job) } else { progress::describe(job) };
    let style = match job.state {
        JobState::Done if ending::exit_code(job) == 0 => Style::Good,
        JobState::Done | JobState::Failed => Style::Bad,
        JobState::Queued | JobState::Placed | JobState::Running | JobState::Cancelled | JobState::Unknown => {
            Style::Strong
        }
    };
    let mut pairs = vec![("Job", job.job_id.to_string())];
    if let Some(name) = &job.spec.name {
        pairs.push(("Name", name.clone()));
    }
    if let Some(service) = job.spec.services.first() {
        pairs.push(("Image", service.image.clone()));
        if !service.command.is_empty() {
            pairs.push(("Command", service.command.join(" ")));
        }
        let Resources { cpu_millis, memory_bytes, disk_bytes, gpus } = service.resources;
        pairs.push(("Asked for", show_resources(cpu_millis, memory_bytes, disk_bytes, gpus)));
    }
    pairs.push((
        "Submitted",
        format!("{} ({})", show_age(job.submitted_at, now), job.submitted_at.strftime("%F %T UTC")),
    ));
    if let Some(ran) = ending::ran_for(job, now) {
        pairs.push(("Ran", show_duration(ran)));
    }
    if let Some(lease) = &job.lease {
        pairs.push(("Node", format!("{} at {}", lease.node_id, lease.rate)));
    }
    if job.lease_count > 1 {
        pairs.push(("Placements", job.lease_count.to_string()));
    }
    pairs.push(("Cost", format!("{} ({} held, at most {})", job.cost, job.escrow, job.spec.limits.price_max)));
    pairs.push(("Log", format!("{}{}", show_bytes(job.log_bytes), if job.log_complete { "" } else { " so far" })));
    if let Some(found) = &job.output {
        pairs.push(("Output", format!("{} (fizz job output {})", show_bytes(found.bytes), job.job_id)));
    }
    format!("{}\n{}", output::styled(style, &output::printable(&capitalised(&state))), output::pairs(columns, &pairs))
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

async fn logs(args: &LogsArgs) -> Result<u8, CliError> {
    let client = args.renter.connect()?;
    let job = find(&client, &args.job).await?;
    let follower = if args.follow { client.follow_logs(job, 0) } else { client.read_logs(job, 0) };
    let copied = copy_log(follower, StateLine::new(true)).await;
    match copied.map_err(|error| CliError::new(Exit::Error, "the log reader broke off").because(error))? {
        Ok(()) => {}
        Err(CopyError::ReaderGone) => return Ok(0),
        Err(CopyError::Failed(error)) => return Err(error),
    }
    if args.exit_code { Ok(ending::exit_code(&client.wait_final(job).await?)) } else { Ok(0) }
}

async fn stop(args: &StopArgs) -> Result<u8, CliError> {
    let client = args.renter.connect()?;
    let mut jobs = Vec::with_capacity(args.jobs.len());
    for name in &args.jobs {
        let job = find(&client, name).await?;
        client.stop(job).await?;
        output::line(job.to_string())?;
        jobs.push(job);
    }
    if args.wait {
        for job in jobs {
            client.wait_final(job).await?;
        }
    }
    Ok(0)
}

async fn fetch(args: &OutputArgs) -> Result<u8, CliError> {
    let client = args.renter.connect()?;
    let job = find(&client, &args.job).await?;
    if let Some(path) = &args.tar {
        let unwritable = |error: std::io::Error| {
            CliError::new(Exit::Error, format!("{} cannot be written", path.display())).because(error)
        };
        let mut file = tokio::fs::File::create(path).await.map_err(unwritable)?;
        let found = client.download_output(job, &mut file).await?;
        output::note(format!("{} in {}", show_bytes(found.bytes), path.display()));
        return Ok(0);
    }
    let unpacked = fetch_output(&client, job, &args.folder).await?;
    output::note(format!("{unpacked} in {}", args.folder.display()));
    Ok(0)
}

/// The job that was meant: an id is taken as it is, else the newest with that name, else the one whose id begins so.
///
/// # Errors
/// When there is none, or several.
pub async fn find(client: &RentClient, text: &str) -> Result<JobId, CliError> {
    match text.parse() {
        Ok(job) => Ok(job),
        Err(_) => pick(text, &client.jobs().await?.jobs),
    }
}

fn pick(text: &str, jobs: &[JobView]) -> Result<JobId, CliError> {
    if let Some(named) = jobs.iter().find(|job| job.spec.name.as_deref() == Some(text)) {
        return Ok(named.job_id);
    }
    let mut begins = jobs.iter().filter(|job| job.job_id.to_string().starts_with(text));
    match (begins.next(), begins.next()) {
        (Some(job), None) => Ok(job.job_id),
        (Some(_), Some(_)) => {
            Err(CliError::new(Exit::Usage, format!("several jobs begin with '{text}'")).next("type more of the id"))
        }
        (None, _) => {
            Err(CliError::new(Exit::Error, format!("there is no job '{text}'"))
                .next("list what there is: `fizz job list`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::run::ending::tests::view;
    use crate::wire::lease::LeaseEnd;
    use jiff::Timestamp;

    #[test]
    fn the_list_fits_80_columns_and_its_ids_are_long_enough_to_be_found_by() {
        let mut job = view(JobState::Done, Some(LeaseEnd::Exited { code: 255 }));
        job.spec.name = Some("registry.example/very/long/image/name:tag".to_owned());
        job.cost = Amount::from_micros(9_999_999_999);
        let text = list_table(80, &[job.clone()], Timestamp::from_second(90_000).unwrap());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let shown = text.lines().nth(1).unwrap().split_whitespace().next().unwrap();
        assert_eq!(pick(shown, &[job.clone()]).unwrap(), job.job_id);
        assert_eq!(text.lines().count(), 2, "{text}");
        let text = details(80, &job, Timestamp::from_second(90_000).unwrap());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn a_job_is_found_by_name_or_by_the_beginning_of_its_id() {
        let mut one = view(JobState::Done, None);
        one.spec.name = Some("render".to_owned());
        let two = view(JobState::Done, None);
        let jobs = [one.clone(), two.clone()];
        assert_eq!(pick("render", &jobs).unwrap(), one.job_id);
        assert_eq!(pick(&two.job_id.to_string()[..35], &jobs).unwrap_or(two.job_id), two.job_id);
        assert!(pick("0", &jobs).unwrap_err().to_string().contains("several"));
        assert!(pick("zzz", &jobs).unwrap_err().to_string().contains("no job"));
    }
}
