//! The demo's acts, in order: coordinator, benchmark, image, node, job, story.

use std::path::PathBuf;

use uuid::Uuid;

use super::DemoArgs;
use super::image;
use super::screen::Screen;
use super::stage::{Accounts, Stage};
use super::story::Story;
use crate::bench::{self, BenchProgress};
use crate::cli::errors::{CliError, Exit};
use crate::cli::output::{self, printable};
use crate::cli::run;
use crate::clock::Clock;
use crate::wire::bench::BenchmarkReport;
use crate::wire::job::{JobLimits, JobSpec, JobView, Requirements, Resources, ServiceSpec};
use crate::wire::job::{default_log_bytes_max, default_output_bytes_max, default_pids_max};
use crate::wire::logs::{LogFrame, LogStream};
use crate::wire::{HourlyRate, JobId};

/// The picture that the demo's own job leaves in its output folder.
const PICTURE: &str = "fizz.png";
/// Where the picture goes when nothing else is said.
pub const OUTPUT_DEFAULT: &str = "fizz-demo";
const MEMORY_BYTES: u64 = 512 << 20;
const DISK_BYTES: u64 = 512 << 20;
/// What the node asks for an hour, and what the renter pays: 36 cents, a hundredth of a cent a second.
const PRICE_MICROS: i64 = 360_000;
const DURATION_SECONDS_MAX: u64 = 600;

/// Plays the demo on `stage` and answers with its story, but for what is left over.
///
/// # Errors
/// When an act fails; the sentence says which.
pub async fn play(args: &DemoArgs, stage: &mut Stage, clock: &Clock, screen: &mut Screen) -> Result<Story, CliError> {
    let engine = stage.engine().await?;
    screen.begin("starting a coordinator");
    let url = stage.start_coordinator().await?;
    let accounts = stage.open_accounts().await?;
    screen.done(&format!("coordinator at {url}, with a certificate authority of its own"));

    let benchmark = measure(screen).await?;
    let image = match &args.image {
        Some(image) => image.clone(),
        None => {
            screen.begin("building the job's image");
            let image = stage.load_image().await?;
            screen.done(&format!("image built and loaded into {engine}, no registry needed"));
            image
        }
    };
    let resources = Resources { cpu_millis: cpu_millis(), memory_bytes: MEMORY_BYTES, disk_bytes: DISK_BYTES, gpus: 0 };
    screen.begin("starting a node on this machine");
    let price = HourlyRate::try_from(PRICE_MICROS)
        .map_err(|error| CliError::new(Exit::Error, "the demo's price is none").because(error))?;
    stage.start_node(&accounts, benchmark.clone(), resources.clone(), price).await?;
    screen.done("node enrolled and ready for work");

    let spec = job(args, image, resources, price);
    let (job, first_log_after) = run_job(&accounts, &spec, clock, screen).await?;
    let files = fetch(args, &accounts, &job).await?;
    let earned = accounts.owner().await?.earned;
    let ledger = accounts.ledger().await?;
    let node_id = job.lease.as_ref().map(|lease| lease.node_id);
    let node_id = node_id.ok_or_else(|| CliError::new(Exit::Error, format!("the job never ran: {}", job.why)))?;
    Ok(Story { benchmark, node_id, job, first_log_after, files, earned, ledger, left_over: Vec::new() })
}

/// Every processor this process may use, in thousandths.
fn cpu_millis() -> u32 {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cpus).unwrap_or(1).saturating_mul(1000).min(1_024_000)
}

async fn measure(screen: &mut Screen) -> Result<BenchmarkReport, CliError> {
    let program = std::env::current_exe()
        .map_err(|error| CliError::new(Exit::Error, "this program cannot find its own file").because(error))?;
    screen.begin("measuring the graphics adapters");
    let show = |progress: BenchProgress| {
        let part = f64::from(progress.steps_done) / f64::from(progress.steps_total.max(1));
        screen.progress(part, &printable(&progress.doing));
    };
    let measured = bench::run_child(&program, true, bench::QUICK_TIME_LIMIT, show).await;
    let output = measured.map_err(|error| CliError::new(Exit::Error, error.to_string()).because(error))?;
    screen.done(&format!("{} measured, score {}", adapters(output.report.gpus.len()), output.report.score));
    Ok(output.report)
}

fn adapters(count: usize) -> String {
    match count {
        0 => "no graphics adapter could be".to_owned(),
        1 => "one graphics adapter".to_owned(),
        n => format!("{n} graphics adapters"),
    }
}

fn job(args: &DemoArgs, image: String, resources: Resources, price_max: HourlyRate) -> JobSpec {
    JobSpec {
        name: Some("demo".to_owned()),
        services: vec![ServiceSpec {
            name: "main".to_owned(),
            image,
            entrypoint: None,
            command: args.command.clone(),
            env: std::collections::BTreeMap::new(),
            workdir: None,
            resources,
            ..ServiceSpec::default()
        }],
        requirements: Requirements::default(),
        limits: JobLimits {
            price_max,
            duration_seconds_max: DURATION_SECONDS_MAX,
            start_deadline_seconds: Some(120),
            stop_grace_seconds: 2,
            log_bytes_max: default_log_bytes_max(),
            output_bytes_max: default_output_bytes_max(),
            pids_max: default_pids_max(),
        },
        output_path: (args.image.is_none() || args.output.is_some()).then(|| image::OUTPUT.to_owned()),
        ..JobSpec::default()
    }
}

/// Submits the job and shows its log; answers with the job at its end, and with how long the first line took.
async fn run_job(
    accounts: &Accounts,
    spec: &JobSpec,
    clock: &Clock,
    screen: &mut Screen,
) -> Result<(JobView, Option<std::time::Duration>), CliError> {
    screen.begin("running the job");
    let submitted = clock.steady();
    let job = accounts.renter.submit(spec, &Uuid::new_v4().to_string()).await?;
    let mut log = accounts.renter.follow_logs(job.job_id, 0);
    let mut first_after = None;
    let mut lines = Lines::default();
    while let Some(frame) = log.next().await? {
        first_after.get_or_insert_with(|| clock.steady().since(submitted));
        for line in lines.take(&frame) {
            screen.line(&format!("     | {line}"));
            if let Some(part) = rendered(&line) {
                screen.progress(part, "");
            }
        }
    }
    if let Some(line) = lines.rest() {
        screen.line(&format!("     | {line}"));
    }
    let job = accounts.renter.wait_final(job.job_id).await?;
    screen.done(&run::ending::how(&job));
    Ok((job, first_after))
}

/// How far the demo's own job says it is.
fn rendered(line: &str) -> Option<f64> {
    let (number, _) = line.strip_prefix("rendered ")?.split_once('%')?;
    number.trim().parse::<f64>().ok().map(|percent| percent / 100.0)
}

/// Puts the pieces of a log together to lines.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn take(&mut self, frame: &LogFrame) -> Vec<String> {
        let mut lines = Vec::new();
        if frame.stream == LogStream::Notice {
            return vec![printable(&String::from_utf8_lossy(&frame.bytes))];
        }
        for part in frame.bytes.split_inclusive(|byte| *byte == b'\n') {
            self.0.extend_from_slice(part);
            if part.ends_with(b"\n") {
                lines.extend(self.rest());
            }
        }
        lines
    }

    fn rest(&mut self) -> Option<String> {
        let bytes = std::mem::take(&mut self.0);
        let text = String::from_utf8_lossy(&bytes);
        (!bytes.is_empty()).then(|| printable(text.trim_end_matches(['\n', '\r'])))
    }
}

/// Brings the job's files here; the demo's own job must have left its picture.
async fn fetch(args: &DemoArgs, accounts: &Accounts, job: &JobView) -> Result<Vec<(PathBuf, u64)>, CliError> {
    if job.output.is_none() {
        return Ok(Vec::new());
    }
    let folder = args.output.clone().unwrap_or_else(|| PathBuf::from(OUTPUT_DEFAULT));
    let unpacked = run::fetch_output(&accounts.renter, job.job_id, &folder).await?;
    if args.image.is_some() {
        output::aside(format!("  ok {unpacked} in {}", folder.display()));
        return Ok(Vec::new());
    }
    let picture = folder.join(PICTURE);
    match std::fs::metadata(&picture) {
        Ok(found) => Ok(vec![(picture, found.len())]),
        // The job's own failure is the news then.
        Err(_) if run::ending::exit_code(job) != 0 => Ok(Vec::new()),
        Err(error) => Err(no_picture(job.job_id).because(error)),
    }
}

fn no_picture(job: JobId) -> CliError {
    CliError::new(Exit::Error, format!("job {job} left no picture in its output folder"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn frame(text: &'static str) -> LogFrame {
        LogFrame { stream: LogStream::Stdout, bytes: Bytes::from_static(text.as_bytes()) }
    }

    #[test]
    fn lines_come_whole_however_the_log_was_cut() {
        let mut lines = Lines::default();
        assert!(lines.take(&frame("rend")).is_empty());
        assert_eq!(lines.take(&frame("ered  40 %\r\nnext\nla")), ["rendered  40 %", "next"]);
        assert_eq!(lines.rest().as_deref(), Some("la"));
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn the_jobs_own_progress_moves_the_bar() {
        assert_eq!(rendered("rendered  40 %  (240 of 600 rows)"), Some(0.4));
        assert_eq!(rendered("done"), None);
    }
}
